"""What /metrics tells Prometheus, read from the database: web and worker are several processes, and
only there is what all of them did.

Counting a million rows takes seconds, so what is over is counted once: a Tally holds the sums of all
calls that were due before its `until`, and only later ones are looked at. Before `until` nothing can
change any more: it stays behind every call that has not ended, behind every occurrence of a schedule that
has not been planned, and SETTLED behind the present. The counters are those of all calls ever made: what
`prune` deletes is in the tally, or is added to it. They go back only with the database, to an older copy
of it.
"""
import time
from datetime import timedelta
from itertools import accumulate
from math import inf

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Case, Count, FloatField, Func, IntegerField, Subquery, Sum, Value, When
from django.db.models.functions import Now
from django.http import HttpResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from rest_framework.exceptions import APIException
from rest_framework.views import APIView

from ..models import Heartbeat, Schedule, ScheduledCall, Tally
from .health import OneForm

Status = ScheduledCall.Status

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)     # seconds, upper bounds
SETTLED = timedelta(minutes=2)      # what is due longer ago is no longer scheduled, only made
STEP = 50_000           # calls added to the tally in one transaction
CATCH_UP_WITHIN = 2     # seconds of one request, for what nobody has counted yet
MINUTE = timedelta(minutes=1)


def _lateness():
    """Seconds from the due time to the start, as an expression for the database. (Django's own
    difference of two times calls back into Python for each row of SQLite.)"""
    if connection.vendor == "sqlite":
        started, due = (Func(F(name), function="julianday", output_field=FloatField())
                        for name in ("started_at", "timestamp"))
        return (started - due) * 86400.0
    return Func(F("started_at") - F("timestamp"), template="EXTRACT(EPOCH FROM %(expressions)s)",
                output_field=FloatField())


def _add(counts, rows):
    """Adds the ended ones among `rows`, a queryset of calls, to `counts`, and returns it.

    counts: {"ended": {status: number}, "late": a number for each of BUCKETS and one for what is above
        all, "seconds": float, the sum of all lateness}
    """
    bucket = Case(When(started_at=None, then=Value(-1)),
                  *[When(late__lte=bound, then=Value(i)) for i, bound in enumerate(BUCKETS)],
                  default=Value(len(BUCKETS)), output_field=IntegerField())
    for status, bucket, number, seconds in (
            rows.filter(status__in=ScheduledCall.FINISHED).order_by().annotate(late=_lateness())
            .annotate(bucket=bucket).values_list("status", "bucket").annotate(Count("id"), Sum("late"))):
        counts["ended"][status] = counts["ended"].get(status, 0) + number
        if bucket >= 0:
            counts["late"][bucket] += number
            counts["seconds"] += float(seconds)
    return counts


def _locked():
    """The tally, locked until the end of the transaction, with the time of the database as `now`."""
    Tally.objects.get_or_create(id=1, defaults={
        "counts": {"ended": {}, "late": [0] * (len(BUCKETS) + 1), "seconds": 0.0}})
    return Tally.objects.annotate(now=Now()).select_for_update().get(id=1)


def _settle(tally):
    """Moves `until` ahead, by at most STEP calls. Returns whether it is where it can be."""
    # Each by its partial index; for a minimum SQLite would look through all rows for a running one.
    pending = ScheduledCall.objects.filter(status=Status.PENDING).order_by("timestamp")[:1]
    running = ScheduledCall.objects.filter(status=Status.RUNNING).order_by("lease_until")
    retrying = ScheduledCall.objects.filter(status=Status.RETRYING).order_by("next_attempt_at")
    unplanned = Schedule.objects.filter(planned_until__isnull=False).order_by("planned_until")[:1]
    until = min([tally.now - SETTLED, *pending.values_list("timestamp", flat=True),
                 *running.values_list("timestamp", flat=True), *retrying.values_list("timestamp", flat=True),
                 *unplanned.values_list("planned_until", flat=True)])
    rows = ScheduledCall.objects.filter(timestamp__gte=tally.until, timestamp__lt=until)
    after = rows.order_by("timestamp").values_list("timestamp", flat=True)[STEP:STEP + 1].first()
    if after:
        until = max(after, tally.until + timedelta(microseconds=1))
    if until > tally.until:
        _add(tally.counts, rows.filter(timestamp__lt=until))
        tally.until = until
        tally.save()
    return not after


def keep(rows):
    """Adds to the tally what it does not hold yet of `rows`, a queryset of ended calls that are about
    to be deleted, in the transaction that deletes them."""
    tally = _locked()
    _add(tally.counts, rows.filter(timestamp__gte=tally.until))
    tally.save()


def _number(**conditions):
    """How many calls there are, as an expression of a query: from an index alone."""
    counted = Func(function="COUNT", template="COUNT(*)", output_field=IntegerField())
    return Subquery(ScheduledCall.objects.filter(**conditions).order_by().annotate(n=counted).values("n"))


def measure():
    """(counts as in `_add`, {gauge: number}). Raises StillCounting while too many are still to be counted."""
    began = time.monotonic()
    settled = False
    while not settled:
        if time.monotonic() - began > CATCH_UP_WITHIN:
            raise StillCounting("The calls of the past are still being counted. Ask again.")
        with transaction.atomic():      # which prune waits for, so that no call is counted twice
            tally = _locked()
            settled = _settle(tally)
            if settled:
                soon = tally.now + MINUTE
                counts = _add(tally.counts, ScheduledCall.objects.filter(
                    timestamp__gte=tally.until, timestamp__lt=soon))
                gauges = Tally.objects.values(
                    pending=_number(status=Status.PENDING),
                    running=_number(status=Status.RUNNING),
                    retrying=_number(status=Status.RETRYING),
                    soon=_number(status=Status.PENDING, timestamp__gte=tally.now, timestamp__lt=soon),
                    later=_number(timestamp__gte=soon),
                    later_pending=_number(status=Status.PENDING, timestamp__gte=soon)).get()
                # What ended before its time was cancelled. To look for those rows would take long.
                counts["ended"][Status.CANCELLED] = (
                    counts["ended"].get(Status.CANCELLED, 0) + gauges["later"] - gauges["later_pending"])
                tick = Heartbeat.objects.filter(name="dispatcher").values_list("at", flat=True).first()
                gauges["tick"] = (tally.now - tick).total_seconds() if tick else inf
    return counts, gauges


class StillCounting(APIException):
    """A 503: later it goes well."""

    status_code = 503
    wait = 5        # seconds


class Calls:
    """The collector that prometheus_client asks."""

    def collect(self):
        counts, gauges = measure()
        ended = CounterMetricFamily(
            "scheduler_calls_ended", "Calls that have ended, by how they ended.", labels=["status"])
        for status in ScheduledCall.FINISHED:
            ended.add_metric([status], counts["ended"].get(status, 0))
        yield ended
        yield HistogramMetricFamily(
            "scheduler_call_lateness_seconds", "From the time a call was due to the time it was started.",
            buckets=list(zip([*map(str, BUCKETS), "+Inf"], accumulate(counts["late"]))),
            sum_value=counts["seconds"])
        for name, help_text, value in (
                ("calls_pending", "Calls that wait for their time.", gauges["pending"]),
                ("calls_running", "Calls in flight.", gauges["running"]),
                ("calls_retrying", "Calls that failed, and wait for their next attempt.", gauges["retrying"]),
                ("calls_due_within_minute", "Pending calls that are due in the next 60 seconds.", gauges["soon"]),
                ("last_tick_age_seconds", "Since the dispatcher last did all its work; infinite if never.",
                 gauges["tick"])):
            yield GaugeMetricFamily(f"scheduler_{name}", help_text, value)


_registry = CollectorRegistry()
_registry.register(Calls())


def text():
    """All of it in Prometheus' text format: bytes."""
    return generate_latest(_registry)


class Metrics(APIView):
    """Numbers for Prometheus. They are those of the whole service, whichever web process is asked."""

    schema = None
    content_negotiation_class = OneForm
    throttle_classes = []

    def get_permissions(self):
        return [] if settings.METRICS_OPEN else super().get_permissions()

    def perform_authentication(self, request):
        if not settings.METRICS_OPEN:
            super().perform_authentication(request)

    def get(self, request):
        return HttpResponse(text(), CONTENT_TYPE_PLAIN_0_0_4)
