"""The list of calls as a CSV file, written while it is read: a million rows need no memory."""
import csv
from datetime import datetime

from django.db.models import Q
from django.http import StreamingHttpResponse
from django.utils import timezone

from .clock import utcnow

COLUMNS = ["id", "timestamp", "status", "lateness", "http_status", "error", "created_at", "handed_over_at",
           "started_at", "ended_at", "scheduled_by", "scheduled_via", "note", "again_of", "cancelled_by", "schedule_id"]
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
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def batches(calls, ordering):
    """All rows of the queryset in that order, by time and id, a list at a time; each goes on behind the last."""
    step = "lt" if ordering[0][0] == "-" else "gt"
    some = calls = calls.order_by(*ordering)
    while rows := list(some[:BATCH]):
        yield rows
        last = rows[-1]
        some = calls.filter(
            Q(**{f"timestamp__{step}": last.timestamp}) | Q(**{f"id__{step}": last.id}, timestamp=last.timestamp),
            **{f"timestamp__{step}e": last.timestamp})


def response(calls, ordering):
    """An HTTP response with the calls of the queryset.

    ordering: ["timestamp", "id"] or ["-timestamp", "-id"]
    """
    writer = csv.writer(Echo())

    def lines():
        yield writer.writerow(COLUMNS)
        for rows in batches(calls, ordering):
            yield "".join(writer.writerow([cell(getattr(call, name)) for name in COLUMNS]) for call in rows)
    return StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8", headers={
        "Content-Disposition": f'attachment; filename="calls-{timezone.localtime(utcnow()):%Y-%m-%d-%H%M%S}.csv"'})
