"""The HTTP API: schedule, list, look at and cancel calls, and whether the service is well."""
import hashlib
import json
import re
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from functools import partial

import django_filters
import redis
from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, connection, transaction
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from rest_framework import mixins, status, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.filters import OrderingFilter
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response
from rest_framework.views import APIView

from ..base.clock import utcnow
from ..base.database import within
from ..base.words import is_id
from ..calls import ledger
from ..calls.log import printable
from ..models import IdempotentAnswer, Schedule, ScheduledCall
from ..ops import metrics
from ..tasks import hand_over_soon
from .access import MayUse
from .common import (
    ConflictSerializer, HealthSerializer, ProblemSerializer, Refusal, ScheduleSerializer, ScheduledCallDetailSerializer, ScheduledCallSerializer, instant)

KEY_MAX = 255               # characters of an Idempotency-Key
HEALTH_WITHIN = 1.3         # seconds for each part to answer /healthz, all asked at the same time
DISPATCHER_SILENT = 30      # seconds without a tick, and /healthz says that the dispatcher is not well


class InstantField(forms.CharField):
    """A time as in a POST, in UTC: PostgreSQL will not compare with an offset of more than 16 hours."""

    def to_python(self, value):
        try:
            return None if value is None else instant(value)
        except ValueError as error:
            # A time of day, then a space where a + belongs.
            hint = " (In a URL a + is written %2B.)" if re.search(r"[T ]\d\d\S* \d\d(:?\d\d)?$", value) else ""
            raise forms.ValidationError(        # in two parts, as a % of the first is a place for the second
                "%(problem)s", params={"problem": f"“{printable(value, 80)}” {error}.{hint}"})


class InstantFilter(django_filters.IsoDateTimeFilter):
    field_class = InstantField


class StatusField(forms.MultipleChoiceField):
    default_error_messages = {
        "invalid_choice": f"“%(value)s” is none of {', '.join(ScheduledCall.Status.values)}."}


class StatusFilter(django_filters.MultipleChoiceFilter):
    field_class = StatusField

    def filter(self, queryset, statuses):
        return queryset.of(statuses) if statuses else queryset


class ScheduleChoice(forms.ModelChoiceField):
    default_error_messages = {"invalid_choice": "There is no schedule %(value)s."}

    def to_python(self, value):
        """Refuses an empty one too: left out by mistake, it would list everything."""
        if value is not None and not is_id(value):
            raise forms.ValidationError("“%(value)s” is no number of a schedule.",
                                        params={"value": printable(value, 80)})
        return super().to_python(value)


class ScheduleFilter(django_filters.ModelChoiceFilter):
    field_class = ScheduleChoice


class CallFilter(django_filters.FilterSet):
    status = StatusFilter(
        choices=ScheduledCall.Status.choices, distinct=False, help_text="Given more than once: any of these.")
    due_from = InstantFilter(
        "timestamp", "gte", help_text="Due at this ISO 8601 time or later.")
    due_before = InstantFilter(
        "timestamp", "lt", help_text="Due before this ISO 8601 time.")
    schedule = ScheduleFilter(
        queryset=Schedule.objects.all(), help_text="Planned by the schedule of this id, which may be deleted since.")

    class Meta:
        model = ScheduledCall
        fields = []


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


class CallPages(CursorPagination):
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 1000
    # Within one page position DRF counts calls of the very same time, and by default refuses to
    # count past 1000: of ten thousand calls in one second the others could not be reached.
    offset_cutoff = 10_000_000

    def paginate_queryset(self, queryset, request, view=None):
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValidationError, ValueError, OverflowError, DataError):     # its position is no time or id
            raise NotFound(self.invalid_cursor_message)

    def decode_cursor(self, request):
        """As DRF does; but where it leaves out of a cursor what it does not know, nothing may be left over,
        and the first page be the answer."""
        cursor = request.query_params.get(self.cursor_query_param)
        try:
            if cursor is not None and not re.match(b"[opr]=", b64decode(cursor, validate=True)):
                raise ValueError
        except ValueError:
            raise NotFound(self.invalid_cursor_message)
        return super().decode_cursor(request)

    def get_page_size(self, request):
        asked = request.query_params.get(self.page_size_query_param, str(self.page_size))
        if not (asked.isascii() and asked.isdecimal() and 1 <= int(asked[:9]) <= self.max_page_size):
            raise Refusal(f"page_size must be a whole number from 1 to {self.max_page_size}.")
        return int(asked)


def body(request):
    """What `request` asks for, of JSON. Raises Refusal if Django would not read it: it takes a body without a
    length for none."""
    if "HTTP_TRANSFER_ENCODING" in request.META:
        raise Refusal("The body must come with a Content-Length; chunks are not taken.")
    return request.data


def check_parameters(request, known, many=()):
    """Raises Refusal for a parameter that is none of `known`, or stands twice and is none of `many`."""
    if unknown := sorted(set(request.query_params) - set(known)):
        raise Refusal(f"There is no parameter {printable(unknown[0], 80)}; there are {', '.join(known)}.")
    if twice := [name for name in known if name not in many and len(request.query_params.getlist(name)) > 1]:
        raise Refusal(f"{twice[0]} stands twice; which is meant?")


# What every request may get.
USUAL = {401: ProblemSerializer, 403: ProblemSerializer, 503: ProblemSerializer}
THROTTLED = {429: ProblemSerializer}


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
    pagination_class = CallPages
    filter_backends = [django_filters.rest_framework.DjangoFilterBackend, DueOrdering]
    filterset_class = CallFilter
    ordering_fields = list(DueOrdering.CHOICES)

    def get_serializer_class(self):
        return ScheduledCallDetailSerializer if self.action == "retrieve" else ScheduledCallSerializer

    @extend_schema(
        summary="Schedule calls",
        request=ScheduleSerializer,
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
        asked = ScheduleSerializer().to_internal_value(body(request))
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
        known = [*CallFilter.base_filters, DueOrdering.ordering_param, CallPages.cursor_query_param,
                 CallPages.page_size_query_param]
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


class Nowhere(APIView):
    """/api and any other path below it: a 404 in JSON, whatever the method."""

    schema = None

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        raise NotFound(f"There is nothing at {printable(request.path)}. (All paths here end with a slash.)")


_asking = ThreadPoolExecutor(8, thread_name_prefix="health")


def _since_beat():
    """Seconds since the dispatcher last ran well, or None if it never did. Raises DatabaseError."""
    try:
        with within(HEALTH_WITHIN):
            return ledger.since_beat()
    finally:
        connection.close()


def _ping_broker():
    """Raises redis.RedisError."""
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1,
                              retry=None) as client:
        client.ping()


def _may_read(request):
    """Whether who asks may know more than the sum. Raises DatabaseError and DRF's APIException."""
    try:
        with within(HEALTH_WITHIN):
            return MayUse().has_permission(request, None)
    finally:
        connection.close()


def parts(*more):
    """Asks database and broker, each in a thread of its own, as either may hang in a way that no time
    limit of its own ends (a name that is not resolved, a pool without a free connection).

    more: functions without parameters that are asked at the same time
    Returns ({part: "ok" or what is wrong}, seconds since the dispatcher last ran or None, [what each of
    `more` returned, or None if it failed]), within HEALTH_WITHIN.
    """
    asked = [_asking.submit(question) for question in (_since_beat, _ping_broker, *more)]
    wait(asked, HEALTH_WITHIN)

    def problem(future):
        if not future.done():
            future.cancel()
            return "TimeoutError"
        return type(future.exception()).__name__ if future.exception() else None
    age, database, broker = None, "ok", "ok"
    if error := problem(asked[0]):
        database = f"cannot be read ({error})"
    else:
        age = asked[0].result()
    if error := problem(asked[1]):
        broker = f"does not answer ({error})"
    if age is None:
        dispatcher = "unknown" if database != "ok" else "has never run: are worker and beat up?"
    elif age < -1:
        dispatcher = f"says that it ran {-age:.0f} s from now: was the database's clock set back?"
    elif age > DISPATCHER_SILENT:
        dispatcher = f"has not run well for {age:.0f} s: are worker, beat and broker up?"
    else:
        dispatcher = "ok"
    return ({"database": database, "broker": broker, "dispatcher": dispatcher}, age,
            [None if problem(future) else future.result() for future in asked[2:]])


def health(request=None):
    """Returns ({"status": ..., and more}, HTTP status); without a request for which `_may_read`, only
    `status` is told."""
    # Who asks with credentials that cannot be looked up, or are wrong, gets what everybody gets.
    found, age, may_read = parts(*([partial(_may_read, request)] if request else []))
    well = set(found.values()) == {"ok"}
    answer = {"status": "ok" if well else "failing"}
    if any(may_read):
        answer |= {**found, "dispatcher_last_tick_seconds": age}
    return answer, 200 if well else 503


class Health(APIView):
    """Whether database, broker and dispatcher are alive. 200 when all are, 503 otherwise."""

    permission_classes = []     # load balancers have no token; those without one get less to read
    throttle_classes = []

    def perform_authentication(self, request):
        """Left to `health`, which does not wait for ever for a database that is to say who asks."""

    @extend_schema(
        tags=["health"], auth=[{}],
        responses={200: HealthSerializer, 503: HealthSerializer})
    def get(self, request):
        """The parts are named only to those who may use the API."""
        return Response(*health(request))


class Metrics(APIView):
    """Numbers for Prometheus. They are those of the whole service, whichever web process is asked."""

    schema = None
    throttle_classes = []

    def get_permissions(self):
        return [] if settings.METRICS_OPEN else super().get_permissions()

    def perform_authentication(self, request):
        if not settings.METRICS_OPEN:
            super().perform_authentication(request)

    def get(self, request):
        return HttpResponse(metrics.text(), CONTENT_TYPE_PLAIN_0_0_4)
