"""How a target or a schedule has been doing: its last calls as a row of bars, how many of them succeeded, and how long the
API took for them. Of each the last 100, which an index has together, so that a million others cost nothing."""
from collections import Counter
from datetime import datetime
from math import ceil
from statistics import median

from django.contrib import admin
from django.db.models import Case, F, JSONField, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, JSONArray
from django.template.loader import render_to_string
from django.urls import reverse

from ..calls.ledger import WORKER_LOST
from ..models import Attempt, ScheduledCall
from .attempts import milliseconds
from .filters import NOTHING

Status = ScheduledCall.Status

LAST = 100              # calls that count,
BARS = 20               # and of them are shown
MADE = (Status.SUCCEEDED, Status.FAILED, Status.MISSED)     # what a person cancelled is no one's failure


class Rows(Subquery):
    """The rows of a subquery, each of one column `row`, as one list. (Of Django's own, ArraySubquery is PostgreSQL's alone.)"""

    def as_sqlite(self, compiler, connection, **how):
        return super().as_sql(compiler, connection, template="(SELECT JSON_GROUP_ARRAY(JSON(row)) FROM (%(subquery)s))", **how)

    def as_postgresql(self, compiler, connection, **how):
        return super().as_sql(
            compiler, connection, template="(SELECT COALESCE(JSONB_AGG(latest.row), '[]') FROM (%(subquery)s) AS latest)", **how)


def _latest(calls):
    """The latest of the queryset `calls`, which an index has in order of time: [id, due, status, began, ended], the last two
    of the last attempt, where they are known: of a worker that was lost, only when that was noticed is."""
    attempt = Attempt.objects.filter(call=OuterRef("pk"), number=Coalesce(OuterRef("attempts_made"), 1)).exclude(
        error=WORKER_LOST).order_by()
    # What is left of a first success is in the call's own row.
    first = Q(status=Status.SUCCEEDED) & (Q(attempts_made=None) | Q(attempts_made=1))
    began = Coalesce(Subquery(attempt.values("started_at")), Case(When(first, then=F("started_at"))))
    ended = Coalesce(Subquery(attempt.values("ended_at")), F("ended_at"))
    rows = calls.order_by("-timestamp", "-id").annotate(row=JSONArray("id", "timestamp", "status", began, ended))
    return Rows(rows.values("row")[:LAST], output_field=JSONField())


def of_schedules(now):
    """What is to be annotated to schedules, for `Outcomes`. now: aware datetime"""
    calls = ScheduledCall.objects.filter(schedule=OuterRef("pk"), status__in=ScheduledCall.FINISHED, timestamp__lte=now)
    # Not those that a change of the schedule has cancelled.
    return {"last_ended": _latest(calls.exclude(status=Status.CANCELLED, occurrence=None))}


def of_targets():
    """The same for targets: there is an index of each status."""
    return {f"last_{status.lower()}": _latest(ScheduledCall.objects.filter(target=OuterRef("pk"), status=Value(status.value)))
            for status in MADE}


class Outcomes:
    """Of a row that has one of these annotations."""

    def __init__(self, row):
        names = ["last_ended", *(f"last_{status.lower()}" for status in MADE)]
        calls = sorted((datetime.fromisoformat(due), pk, status, began, ended) for name in names
                       for pk, due, status, began, ended in getattr(row, name, None) or [])[-LAST:]
        self.bars = [(pk, status) for _, pk, status, _, _ in calls[-BARS:]]     # the latest at the right, as in a line of time
        counted = Counter(status for _, _, status, _, _ in calls if status in MADE)
        self.number, self.succeeded = counted.total(), counted[Status.SUCCEEDED]
        self.took = sorted(1000 * (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
                           for _, _, _, began, ended in calls if began and ended)

    @property
    def rate(self):
        """"98 %", rounded down: 100 % is all of them."""
        return f"{100 * self.succeeded // self.number} %" if self.number else ""

    @property
    def durations(self):
        """(median, 99th percentile) of the last attempts, in words; None if no call was answered."""
        return (milliseconds(median(self.took)), milliseconds(self.took[ceil(len(self.took) * 0.99) - 1])) if self.took else None

    def __bool__(self):
        return bool(self.bars)

    def html(self, leads_to_calls=False, at_length=False):
        """The bars and numbers, as safe HTML."""
        if not self:
            return NOTHING
        said = Counter(status for _, status in self.bars)
        return render_to_string("admin/scheduler/outcomes.html", {
            "outcomes": self, "at_length": at_length, "last": self.bars[-1][1],
            "said": ", ".join(f"{number} {status}" for status, number in said.most_common()),
            "bars": [(status, pk, reverse("admin:scheduler_scheduledcall_change", args=[pk]) if leads_to_calls else "")
                     for pk, status in self.bars]})


class LastCalls:
    """For a ModelAdmin: columns and a field for its rows, which have one of these annotations."""

    @staticmethod
    def _of(row):
        """Its Outcomes, read once for all columns."""
        if not hasattr(row, "outcomes"):
            row.outcomes = Outcomes(row)
        return row.outcomes

    @admin.display(description="last calls")
    def last_calls(self, row):
        return self._of(row).html()

    @admin.display(description="median, p99")
    def took(self, row):
        return ", ".join(self._of(row).durations or ()) or NOTHING

    @admin.display(description="last calls")
    def went(self, row):
        """On its page, where each bar leads to its call."""
        return self._of(row).html(getattr(row, "leads_to_calls", False), at_length=True)
