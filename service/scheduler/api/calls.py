"""The HTTP API of calls: schedule, list, look at and cancel them."""
import hashlib
import json
from datetime import timedelta

import django_filters
from django.conf import settings
from django.db import IntegrityError, transaction
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.filters import OrderingFilter
from rest_framework.response import Response

from ..base.clock import utcnow
from ..base.moments import instant, showable
from ..base.words import one_line, printable
from ..calls import ledger
from ..calls.dispatch import hand_over_soon
from ..models import NOTE_MAX, IdempotentAnswer, Schedule, ScheduledCall
from .body import body
from .call_filter import CallFilter
from .common import THROTTLED, USUAL, Pages, ProblemSerializer, UtcField, check_parameters
from .errors import Refusal

KEY_MAX = 255               # characters of an Idempotency-Key


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


class ScheduledCallDetailSerializer(ScheduledCallSerializer):
    """Everything about one call."""

    created_at = UtcField(read_only=True)
    handed_over_at = UtcField(read_only=True, allow_null=True)
    started_at = UtcField(read_only=True, allow_null=True)
    ended_at = UtcField(read_only=True, allow_null=True)
    lateness = serializers.FloatField(
        read_only=True, allow_null=True,
        help_text="Seconds from the due time to the start of the call; null if it was not started.")
    http_status = serializers.IntegerField(read_only=True, allow_null=True)
    again_of = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="The id of the call that it repeats; null if it repeats none.")
    schedule = OfScheduleSerializer(read_only=True, allow_null=True)

    class Meta(ScheduledCallSerializer.Meta):
        fields = ScheduledCallSerializer.Meta.fields + [
            "created_at", "handed_over_at", "started_at", "ended_at", "lateness", "http_status", "error",
            "scheduled_by", "scheduled_via", "note", "again_of", "cancelled_by", "schedule"]
        read_only_fields = fields


class ConflictSerializer(serializers.Serializer):
    detail = serializers.CharField()
    status = serializers.ChoiceField(ScheduledCall.Status.choices, help_text="What it is now.")


class NewCallsSerializer(serializers.Serializer):
    """What a POST asks for."""

    timestamps = serializers.CharField(
        help_text="ISO 8601 dates and times, each with its offset from UTC, separated by commas. "
                  "Those in the past are ignored; one that stands twice is called twice.")
    note = serializers.CharField(
        required=False, allow_blank=True, max_length=NOTE_MAX,
        help_text="What these calls are for, in one line; kept with each of them.")

    def to_internal_value(self, data):
        """Returns {"timestamps": list of aware datetimes in UTC, past ones too, in the given order, "note": str}.
        Raises Refusal, which names everything that is wrong."""
        if not isinstance(data, dict):
            raise Refusal('The body must be a JSON object: {"timestamps": "2026-08-01T14:30:00Z"}')
        if "timestamps" not in data:
            raise Refusal("`timestamps` is missing: ISO 8601 dates and times, separated by commas.")
        if unknown := sorted(set(data) - {"timestamps", "note"}):
            raise Refusal(f"There is no key {printable(unknown[0], 80)}; there are `timestamps` and, if you "
                          "like, `note`.")
        note = data.get("note", "")
        if not isinstance(note, str):
            raise Refusal("`note` must be a string.")
        try:
            one_line(note, NOTE_MAX)
        except ValueError as error:
            raise Refusal(f"`note` {error}.")
        text = data["timestamps"]
        if not isinstance(text, str):
            raise Refusal("`timestamps` must be one string: ISO 8601 dates and times, separated by commas.")
        pieces = [piece.strip() for piece in text.split(",")]
        if pieces[-1] == "":
            pieces.pop()                # a comma at the end is no mistake worth an error
        if not pieces:
            raise Refusal("`timestamps` is empty: ISO 8601 dates and times, separated by commas.")
        if len(pieces) > settings.MAX_TIMESTAMPS:
            raise Refusal(f"{len(pieces)} timestamps are too many for one request: at most "
                          f"{settings.MAX_TIMESTAMPS} are taken.")
        good, bad = [], []
        for piece in pieces:
            try:
                good.append(showable(instant(piece)))
            except ValueError as error:
                bad.append({"timestamp": printable(piece, 80), "reason": str(error)})
        if bad:
            raise Refusal(
                f"{len(bad)} of {len(pieces)} timestamps cannot be scheduled, so none was: "
                + "; ".join(f"'{b['timestamp']}' {b['reason']}" for b in bad), bad)
        return {"timestamps": good, "note": note}


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


def with_example(result, **_):
    """A step in which drf-spectacular writes the document: an example that can be sent as it stands, as
    its times are always still to come."""
    soon = utcnow().replace(microsecond=0)
    times = ", ".join(f"{soon + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}" for hours in (1, 2))
    body = result["paths"][reverse("calls")]["post"]["requestBody"]["content"]["application/json"]
    body["example"] = {"timestamps": times}
    return result


# Said plainly: of a serializer with many=True drf-spectacular would make a page, as in the list.
CALLS = {"type": "array", "items": {"$ref": "#/components/schemas/ScheduledCall"}}


@extend_schema(tags=["calls"])
class ScheduledCalls(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    queryset = ScheduledCall.objects.all()
    pagination_class = Pages
    filter_backends = [django_filters.rest_framework.DjangoFilterBackend, DueOrdering]
    filterset_class = CallFilter
    ordering_fields = list(DueOrdering.CHOICES)

    def get_serializer_class(self):
        return ScheduledCallDetailSerializer if self.action == "retrieve" else ScheduledCallSerializer

    @extend_schema(
        summary="Schedule calls",
        request=NewCallsSerializer,
        parameters=[OpenApiParameter(
            "Idempotency-Key", {"type": "string", "minLength": 1, "maxLength": KEY_MAX, "pattern": "^[ -~]+$"},
            OpenApiParameter.HEADER,
            description=f"Any printable ASCII text of 1 to {KEY_MAX} characters that is new for each new "
                        "request. Repeated with the same timestamps and note it returns the first answer and "
                        "schedules nothing.")],
        responses={201: CALLS, 400: ProblemSerializer, 422: ProblemSerializer,
                   **USUAL, **THROTTLED},
        filters=False,
    )
    def create(self, request):
        """Creates a call for each timestamp that is not in the past, in one transaction: all or,
        when anything is wrong with the request, none. Needs the permission `add_scheduledcall`."""
        asked = NewCallsSerializer().to_internal_value(body(request))
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return Response(self._schedule(**asked), status.HTTP_201_CREATED)
        if not (1 <= len(key) <= KEY_MAX and key.isascii() and key.isprintable()):
            raise Refusal(f"Idempotency-Key must be 1 to {KEY_MAX} printable ASCII characters.")
        return self._schedule_once(key, **asked)

    @transaction.atomic
    def _schedule(self, timestamps, note):
        now = utcnow()
        calls = ledger.schedule([timestamp for timestamp in timestamps if timestamp >= now],
                                     by=self.request.user.get_username(), via="API", note=note)
        soon = now + timedelta(seconds=settings.WINDOW)
        hand_over_soon([call.id for call in calls if call.timestamp <= soon])
        return ScheduledCallSerializer(calls, many=True).data

    def _schedule_once(self, key, timestamps, note):
        """The unique constraint decides who is first: the second of two requests at the same time
        waits in its INSERT until the first has committed, and then finds its answer."""
        user = self.request.user
        scope = f"user {user.pk}" if user.is_authenticated else "anonymous"
        # Without a note as it was before there were any: a retry may come after an update.
        fingerprint = hashlib.sha256("\n".join(
            [",".join(timestamp.isoformat() for timestamp in timestamps), *([note] if note else [])]).encode()).hexdigest()
        try:
            with transaction.atomic():
                record = IdempotentAnswer.objects.create(scope=scope, key=key, fingerprint=fingerprint)
                record.answer = json.dumps(self._schedule(timestamps, note))
                record.save(update_fields=["answer"])
        except IntegrityError:
            record = IdempotentAnswer.objects.get(scope=scope, key=key)
            if record.fingerprint != fingerprint:
                return Response(
                    {"detail": "This Idempotency-Key was used for other timestamps, or another note. Nothing "
                               "was scheduled: use a new key for a new request."},
                    status.HTTP_422_UNPROCESSABLE_ENTITY)
        return Response(json.loads(record.answer), status.HTTP_201_CREATED)

    @extend_schema(
        summary="List calls", responses={200: ScheduledCallSerializer(many=True), 400: ProblemSerializer,
                                         404: ProblemSerializer, **USUAL},
        parameters=[
            OpenApiParameter("ordering", enum=list(DueOrdering.CHOICES), default="timestamp"),
            OpenApiParameter("page_size", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})])
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
        """Needs the permission `view_scheduledcall`."""
        return super().retrieve(request, pk)

    @extend_schema(
        summary="Cancel a pending call",
        responses={200: ScheduledCallSerializer, 409: ConflictSerializer, 404: ProblemSerializer,
                   **USUAL, **THROTTLED})
    def destroy(self, request, pk):
        """Cancels a call that has not begun. It stays in the database, as Cancelled. Needs the permission
        `change_scheduledcall`."""
        call = self.get_object()
        cancelled = ledger.cancel([call.pk], by=request.user.get_username())
        call.refresh_from_db()
        if not cancelled:
            return Response(
                {"detail": f"Only a pending call can be cancelled; this one is {call.status}.",
                 "status": call.status}, status.HTTP_409_CONFLICT)
        return Response(ScheduledCallSerializer(call).data)
