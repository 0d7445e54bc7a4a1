"""The HTTP API of calls: schedule, list, look at, repeat, hurry and cancel them."""
import django_filters
from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.filters import OrderingFilter
from rest_framework.response import Response

from ..base.clock import utcnow
from ..calls import ledger, outcomes
from ..calls.attempts import attempts_of
from ..calls.dispatch import created, hand_over_soon
from ..models import CallRequest, Schedule, ScheduledCall, Target
from . import again, new_calls
from .access import MayChange, has, need
from .attempts import AttemptSerializer
from .body import body
from .call_filter import CallFilter
from .common import PAGE_SIZE, THROTTLED, USUAL, Pages, ProblemSerializer, UtcField, check_parameters
from .errors import Conflict, Refusal
from .idempotency import IDEMPOTENT, fingerprint, key_of, once


class ScheduledCallSerializer(serializers.ModelSerializer):
    """A call in lists and answers."""

    timestamp = UtcField(read_only=True)

    class Meta:
        model = ScheduledCall
        fields = ["id", "timestamp", "status"]
        read_only_fields = fields
        extra_kwargs = {"status": {"required": True}}


class OfScheduleSerializer(serializers.ModelSerializer):
    """Which schedule planned a call."""

    class Meta:
        model = Schedule
        fields = ["id", "name"]
        read_only_fields = fields


class OwnRequestSerializer(serializers.ModelSerializer):
    """What was given with a call, for its target."""

    class Meta:
        model = CallRequest
        fields = ["body", "headers", "data"]
        read_only_fields = fields


class ScheduledCallDetailSerializer(ScheduledCallSerializer):
    """Everything about one call."""

    created_at = UtcField(read_only=True)
    handed_over_at = UtcField(read_only=True, allow_null=True)
    started_at = UtcField(read_only=True, allow_null=True)
    ended_at = UtcField(read_only=True, allow_null=True)
    lateness = serializers.FloatField(
        read_only=True, allow_null=True,
        help_text="Seconds from the due time to the start of the call; null if it was not started.")
    caught_up = serializers.BooleanField(
        read_only=True, help_text="Whether it was started after GRACE, as its schedule catches up.")
    http_status = serializers.IntegerField(read_only=True, allow_null=True)
    again_of = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="The id of the call that it repeats; null if it repeats none.")
    schedule = OfScheduleSerializer(read_only=True, allow_null=True)
    target = serializers.SlugRelatedField(
        "name", read_only=True, allow_null=True,
        help_text="The name of what is called; null if that is the API of the service's own configuration.")
    request = OwnRequestSerializer(
        read_only=True, allow_null=True,
        help_text="What is its own of what is sent; null if nothing is, and for whoever lacks the permission `see_request`.")
    next_attempt_at = UtcField(
        read_only=True, allow_null=True, help_text="While it is Retrying: when it is tried again.")
    expires_at = UtcField(
        read_only=True, allow_null=True,
        help_text="Until when it may start; null if that is GRACE seconds after its due time.")
    attempts = AttemptSerializer(many=True, read_only=True, source="shown", help_text="Those that have ended.")

    class Meta(ScheduledCallSerializer.Meta):
        fields = ScheduledCallSerializer.Meta.fields + [
            "created_at", "handed_over_at", "started_at", "ended_at", "lateness", "caught_up", "http_status", "error",
            "scheduled_by", "scheduled_via", "note", "again_of", "cancelled_by", "schedule", "target", "request",
            "next_attempt_at", "expires_at", "attempts"]
        read_only_fields = fields


class ConflictSerializer(serializers.Serializer):
    detail = serializers.CharField()
    status = serializers.ChoiceField(ScheduledCall.Status.choices, help_text="What it is now.")


class MadeAgainSerializer(serializers.Serializer):
    """What a POST to again/ made, or would make."""

    dry_run = serializers.BooleanField()
    calls = serializers.IntegerField(help_text="How many calls are made again.")
    unknown = serializers.IntegerField(
        help_text="Of how many of them the outcome is unknown: the API has perhaps done already what they ask for.")
    more = serializers.BooleanField(
        help_text="Whether there are more than one request takes; the same request then makes the next ones.")
    first = ScheduledCallSerializer(
        many=True, help_text=f"The first {again.SHOWN}: of a dry run those that would be made again, otherwise the new ones.")


class DueOrdering(OrderingFilter):
    """By time or by id; those of the same time by id, so that pages neither repeat a call nor leave
    one out."""

    CHOICES = {"timestamp": ["timestamp", "id"], "-timestamp": ["-timestamp", "-id"],
               "id": ["id"], "-id": ["-id"]}

    def get_ordering(self, request, queryset, view):
        asked = request.query_params.get(self.ordering_param, "timestamp")
        if asked not in self.CHOICES:
            raise Refusal(f"ordering must be one of {', '.join(self.CHOICES)}.")
        return self.CHOICES[asked]


# Said plainly: of a serializer with many=True drf-spectacular would make a page, as in the list.
CALLS = {"type": "array", "items": {
    "allOf": [{"$ref": "#/components/schemas/ScheduledCall"}],
    "properties": {"position": {"type": "integer", "description": "Its place in `calls`, from 0, if these were asked for."}}}}


@extend_schema(tags=["calls"])
class ScheduledCalls(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    queryset = ScheduledCall.objects.all()
    pagination_class = Pages
    filter_backends = [django_filters.rest_framework.DjangoFilterBackend, DueOrdering]
    filterset_class = CallFilter

    def get_permissions(self):
        return [MayChange()] if self.action == "try_now" else super().get_permissions()

    def get_queryset(self):
        queryset = super().get_queryset()
        return queryset if self.action == "list" else queryset.select_related("schedule", "target", "request")

    def get_serializer_class(self):
        return ScheduledCallDetailSerializer if self.action == "retrieve" else ScheduledCallSerializer

    @extend_schema(
        summary="Schedule calls", request=new_calls.NEW_CALLS, parameters=[IDEMPOTENT],
        responses={201: CALLS, 400: ProblemSerializer, 422: ProblemSerializer, **USUAL, **THROTTLED}, filters=False)
    def create(self, request):
        """Creates a call for each time that is not in the past, in one transaction: all or, when anything is wrong
        with the request, none. Needs the permission `add_scheduledcall`; to name a target, `use_target` too."""
        asked = new_calls.read(body(request))
        return self._once(asked.fingerprint, lambda: self._schedule(asked))

    def _schedule(self, asked):
        wanted = asked.calls(utcnow(), self._may_use_targets)
        calls = ledger.schedule(calls=[new for _, new in wanted], by=self.request.user.get_username(), via="API")
        self._created(calls)
        answer = ScheduledCallSerializer(calls, many=True).data
        if asked.positions:
            answer = [{**call, "position": position} for call, (position, _) in zip(answer, wanted)]
        return answer

    @extend_schema(
        summary="Make a call again", request=None, parameters=[IDEMPOTENT],
        responses={201: ScheduledCallSerializer, 400: ProblemSerializer, 404: ProblemSerializer, 409: ConflictSerializer,
                   422: ProblemSerializer, **USUAL, **THROTTLED}, filters=False)
    def repeat(self, request, pk):
        """Creates a call that is due now and repeats one that has ended: for the same target, with the same body,
        headers and data. What happened to the old one stays as it is. Needs the permission `add_scheduledcall`; if
        the call names a target, `use_target` too."""
        self._no_body()
        return self._once(fingerprint(["again", pk]), self._repeat_one)

    def _repeat_one(self):
        call = self.get_object()
        if call.status not in ScheduledCall.FINISHED:
            raise Conflict(f"Only a call that has ended can be made again; this one is {call.status}.", call.status)
        return ScheduledCallSerializer(self._repeat([call.pk])[0]).data

    @extend_schema(
        operation_id="api_schedule_api_again_all_create",
        summary="Make many calls again", request=again.AgainSerializer, parameters=[IDEMPOTENT],
        responses={200: MadeAgainSerializer, 201: MadeAgainSerializer, 400: ProblemSerializer, 422: ProblemSerializer,
                   **USUAL, **THROTTLED}, filters=False)
    def repeat_all(self, request):
        """Makes those calls again that the filters choose, each once: one that was made again already is left out,
        and the call that repeats it is chosen if it failed in its turn. At most as many as one request may schedule,
        the earliest first. Their due times are as far apart as their target's rate asks for. Left out are those whose
        target was deleted. With `dry_run` nothing is done, and the answer, a 200, says what would be. Needs the
        permission `add_scheduledcall`; for calls that name a target, `use_target` too."""
        data = body(request)
        filters, dry_run = again.read(data)
        if dry_run:
            key_of(request)         # which has nothing to do here, and is refused as it will be
            found, more = again.chosen(filters)
            first = ScheduledCall.objects.filter(id__in=list(found)[:again.SHOWN]).order_by("timestamp", "id")
            return Response(self._made(True, found.values(), more, first))
        return self._once(fingerprint(["again", data]), lambda: self._repeat_all(filters))

    def _repeat_all(self, filters):
        found, more = again.chosen(filters)
        ids = again.held(list(found))
        made = self._repeat(ids)
        return self._made(False, [found[call.again_of] for call in made], more, made[:again.SHOWN])

    @staticmethod
    def _made(dry_run, failures, more, first):
        return {"dry_run": dry_run, "calls": len(failures), "unknown": sum(name == outcomes.UNKNOWN for name in failures),
                "more": more, "first": ScheduledCallSerializer(first, many=True).data}

    @extend_schema(
        summary="Try a call again at once", request=None,
        responses={200: ScheduledCallSerializer, 400: ProblemSerializer, 404: ProblemSerializer, 409: ConflictSerializer,
                   **USUAL, **THROTTLED}, filters=False)
    def try_now(self, request, pk):
        """Of a call that is Retrying: its next attempt is made now, and not at `next_attempt_at`. Needs the permission
        `change_scheduledcall`."""
        self._no_body()
        call = self.get_object()
        with transaction.atomic():
            tried = ledger.try_now(call.pk)
            hand_over_soon([call.pk] if tried else [])
        call.refresh_from_db()
        if not tried:
            raise Conflict(f"Only a call that is Retrying can be tried now; this one is {call.status}.", call.status)
        return Response(ScheduledCallSerializer(call).data)

    @extend_schema(
        summary="List calls", responses={200: ScheduledCallSerializer(many=True), 400: ProblemSerializer,
                                         404: ProblemSerializer, **USUAL},
        parameters=[OpenApiParameter("ordering", enum=list(DueOrdering.CHOICES), default="timestamp"), PAGE_SIZE])
    def list(self, request):
        """Calls by their due time (or as `ordering` says), a page at a time. Another parameter than
        these is a 400: misspelt, it would list everything. Needs the permission `view_scheduledcall`."""
        known = [*CallFilter.base_filters, DueOrdering.ordering_param, Pages.cursor_query_param,
                 Pages.page_size_query_param]
        check_parameters(request, known, many=["status"])
        return super().list(request)

    @extend_schema(summary="Everything about one call", responses={
        200: ScheduledCallDetailSerializer, 404: ProblemSerializer, **USUAL})
    def retrieve(self, request, pk):
        """Needs the permission `view_scheduledcall`; what is sent to a target, and what that answers, is null for
        whoever lacks `see_request`."""
        call, may_see = self.get_object(), has(request, "scheduler.see_request")
        call.shown = attempts_of(call, may_see)
        answer = self.get_serializer(call).data
        if not may_see:
            answer["request"] = None
        return Response(answer)

    @extend_schema(
        summary="Cancel a call",
        responses={200: ScheduledCallSerializer, 409: ConflictSerializer, 404: ProblemSerializer,
                   **USUAL, **THROTTLED})
    def destroy(self, request, pk):
        """Cancels a call that is Pending or Retrying: there is no attempt any more. It stays in the database, as
        Cancelled. Needs the permission `change_scheduledcall`."""
        call = self.get_object()
        cancelled = ledger.cancel([call.pk], by=request.user.get_username())
        call.refresh_from_db()
        if not cancelled:
            raise Conflict(f"Only a pending call can be cancelled; this one is {call.status}.", call.status)
        return Response(ScheduledCallSerializer(call).data)

    def _once(self, known_as, work):
        return Response(once(self.request, known_as, work), status.HTTP_201_CREATED)

    def _no_body(self):
        """Raises Refusal if there is something in the body of a request that takes nothing."""
        if body(self.request):
            raise Refusal("Nothing is taken in the body: the address says it all.")

    def _may_use_targets(self):
        need(self.request, "scheduler.use_target")

    def _repeat(self, ids):
        calls = ledger.again(ids, by=self.request.user.get_username(), via="API")
        if any(call.target_id for call in calls):
            self._may_use_targets()
        self._created(calls)
        return calls

    @staticmethod
    def _created(calls):
        try:
            created(calls)
        except Target.DoesNotExist as error:
            raise Refusal(f"{error} Nothing was scheduled.") from None
