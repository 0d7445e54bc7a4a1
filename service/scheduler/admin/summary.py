"""The line above the picture: what is called, whether the service is well, and what comes and went."""
from datetime import timedelta

from django.conf import settings
from django.db.models import Min
from django.template.loader import render_to_string
from django.utils import timezone

from ..api.calls import parts
from ..calls.log import printable, redacted
from ..models import ScheduledCall, moment
from .filters import link

Status = ScheduledCall.Status


def span(seconds):
    """A number of seconds in words, with two units at most: "2 d 3 h"."""
    seconds = int(seconds)
    units = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((i for i, (number, _) in enumerate(units) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in units[first:first + 2] if number) or "0 s"


def line(now):
    """The line, as safe HTML.

    now: aware datetime
    """
    problems = [f"{part} {said}" for part, said in parts()[0].items() if said != "ok"]
    pending = ScheduledCall.objects.filter(status=Status.PENDING)
    upcoming = pending.filter(timestamp__gt=now)
    next_at = upcoming.aggregate(at=Min("timestamp"))["at"]
    hour, day = now + timedelta(hours=1), now - timedelta(days=1)
    ended = ScheduledCall.objects.filter(timestamp__gte=day, timestamp__lte=now)
    return render_to_string("admin/scheduler/scheduledcall/summary.html", {
        "api": printable(redacted(settings.API_URL), 200),
        "problems": problems,
        "next": moment(next_at) if next_at else None,
        "next_in": span((next_at - now).total_seconds()) if next_at else None,
        "overdue": pending.filter(timestamp__lte=now - timedelta(seconds=settings.GRACE)).count(),
        "due": upcoming.filter(timestamp__lte=hour).count(),
        "due_link": link(view="upcoming", due_from=now.isoformat(timespec="seconds"),
                         due_before=hour.isoformat(timespec="seconds")),
        "failed": ended.filter(status=Status.FAILED).count(),
        "missed": ended.filter(status=Status.MISSED).count(),
        "trouble_link": link(view="trouble", due_from=day.isoformat(timespec="seconds")),
        "zone": timezone.get_default_timezone_name(), "now": moment(now),
    })
