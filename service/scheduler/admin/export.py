"""The list of calls as a CSV file, written while it is read: a million rows need no memory."""
import csv
from datetime import datetime

from django.db.models import Model, Q
from django.http import StreamingHttpResponse
from django.utils import timezone

from ..base.clock import utcnow

COLUMNS = ["id", "timestamp", "status", "lateness", "http_status", "error", "created_at", "handed_over_at",
           "started_at", "ended_at", "scheduled_by", "scheduled_via", "note", "again_of", "cancelled_by", "schedule_id",
           "schedule", "target", "attempts"]
FIELDS = ["attempts_made" if name == "attempts" else name for name in COLUMNS]
BATCH = 1000        # rows of one query: a statement that takes as long as the download would be ended


class Echo:
    """A file for the csv module that gives each line back."""

    def write(self, line):
        return line


def cell(value):
    """`value` as it stands in the file: times as ISO 8601 with the offset of TIME_ZONE. Text that a spreadsheet
    would run as a formula gets an apostrophe (owasp.org/www-community/attacks/CSV_Injection)."""
    if isinstance(value, datetime):
        return timezone.localtime(value).isoformat()
    if isinstance(value, Model):
        value = str(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def batches(calls, ordering):
    """All rows of the queryset in that order, a list at a time; each goes on behind the last."""
    names = [name.lstrip("-") for name in ordering]
    steps = ["lt" if name[0] == "-" else "gt" for name in ordering]
    some = calls = calls.order_by(*ordering)
    while rows := list(some[:BATCH]):
        yield rows
        last = {name: getattr(rows[-1], name) for name in names}
        behind = Q(**{f"{names[-1]}__{steps[-1]}": last[names[-1]]})
        if len(names) == 2:
            behind = Q(**{f"{names[0]}__{steps[0]}": last[names[0]]}) | behind & Q(**{names[0]: last[names[0]]})
        some = calls.filter(behind, **{f"{names[0]}__{steps[0]}e": last[names[0]]})


def response(calls, ordering):
    """An HTTP response with the calls of the queryset.

    ordering: ["id"] or ["timestamp", "id"], each with "-" before it or not
    """
    writer = csv.writer(Echo())

    def lines():
        yield writer.writerow(COLUMNS)
        for rows in batches(calls, ordering):
            yield "".join(writer.writerow([cell(getattr(call, name)) for name in FIELDS]) for call in rows)
    return StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8", headers={
        "Content-Disposition": f'attachment; filename="calls-{timezone.localtime(utcnow()):%Y-%m-%d-%H%M%S}.csv"'})
