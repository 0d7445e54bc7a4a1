"""The picture above the admin's list: calls per half hour, of the last and the next 24 hours, each
bar stacked by status. An SVG within the page: no script, no file, readable by a screen reader."""
from collections import Counter
from datetime import datetime, timedelta, timezone as zones
from math import ceil

from django.db.models import CharField, Count
from django.db.models.functions import Cast, Substr
from django.template.loader import render_to_string
from django.utils import timezone

from .models import ScheduledCall

Status = ScheduledCall.Status

HOURS = 24                      # each way
STEP = timedelta(minutes=30)    # one bar
STACK = [Status.FAILED, Status.MISSED, Status.CANCELLED, Status.SUCCEEDED, Status.RUNNING,
         Status.PENDING]        # from the bottom: trouble stands on the ground line, where it shows
LEFT, RIGHT, TOP, GROUND, HEIGHT, WIDTH = 44, 12, 12, 150, 176, 1000    # of the drawing, in its units
BAR = (WIDTH - LEFT - RIGHT) / (2 * HOURS * 2)


def counts(start, end):
    """{(datetime of the beginning of a half hour, status): number of calls} between two aware datetimes.

    The database groups by the first 15 letters of the UTC time, "2026-08-01 14:3": ten minutes,
    said alike by SQLite and PostgreSQL, and far cheaper on SQLite than Django's date functions,
    which call back into Python for every row.
    """
    tens = (ScheduledCall.objects.filter(timestamp__gte=start, timestamp__lt=end).order_by()
            .annotate(ten=Substr(Cast("timestamp", CharField()), 1, 15))
            .values_list("ten", "status").annotate(Count("id")))
    found = Counter()
    for ten, status, number in tens:
        at = datetime.strptime(ten + "0", "%Y-%m-%d %H:%M").replace(tzinfo=zones.utc)
        found[floor(at), status] += number
    return found


def floor(at):
    """The beginning of the half hour that holds the aware datetime `at`."""
    return at.replace(minute=at.minute // 30 * 30, second=0, microsecond=0)


def round_up(number):
    """The least of 4, 8, 12, 20, 40, 80, 120, 200, ... that is no less: an axis with four even parts."""
    power = 1
    while True:
        for step in (4, 8, 12, 20):
            if number <= step * power:
                return step * power
        power *= 10


def draw(now):
    """The picture, as safe HTML.

    now: aware datetime, the middle of the picture
    """
    start = floor(now) - timedelta(hours=HOURS)
    end = start + timedelta(hours=2 * HOURS)
    found = counts(start, end)
    starts = [start + STEP * i for i in range(2 * HOURS * 2)]
    top = round_up(max([sum(found[at, status] for status in STACK) for at in starts] + [1]))
    scale = (GROUND - TOP) / top

    bars = []
    for i, at in enumerate(starts):
        y, parts = float(GROUND), []
        for status in STACK:
            if number := found[at, status]:
                tall = max(number * scale, 1.5)     # a single failure among thousands must be seen
                y = max(y - tall, TOP)
                parts.append({"status": status, "y": f"{y:.1f}", "height": f"{tall:.1f}"})
        if parts:
            local, local_end = timezone.localtime(at), timezone.localtime(at + STEP)
            bars.append({
                "x": f"{LEFT + i * BAR + 1:.1f}", "parts": parts,
                "says": f"{local:%a %H:%M}–{local_end:%H:%M}: " + ", ".join(
                    f"{found[at, status]:,} {status}" for status in STACK if found[at, status]),
                "from": at.isoformat(), "before": (at + STEP).isoformat(),
            })

    hours = []
    for i, at in enumerate(starts):
        local = timezone.localtime(at)
        if local.hour % 6 == 0 and local.minute < 30:
            hours.append({"x": f"{LEFT + i * BAR:.1f}",
                          "says": f"{local:%a %-d %b}" if local.hour == 0 else f"{local:%H}:00"})

    totals = Counter()
    for (_, status), number in found.items():
        totals[status] += number
    legend = [{"status": status, "number": f"{totals[status]:,}"} for status in reversed(STACK)]
    return render_to_string("admin/scheduler/scheduledcall/picture.html", {
        "bars": bars, "hours": hours, "legend": legend,
        "lines": [{"y": f"{GROUND - top * part / 4 * scale:.1f}", "says": f"{ceil(top * part / 4):,}"}
                  for part in range(5)],
        "now_x": f"{LEFT + (now - start) / STEP * BAR:.1f}", "now": f"{timezone.localtime(now):%H:%M %Z}",
        "bar_width": f"{BAR - 2:.1f}", "left": LEFT, "right": WIDTH - RIGHT, "ground": GROUND, "top": TOP,
        "width": WIDTH, "height": HEIGHT,
        "summary": ", ".join(f"{part['number']} {part['status']}" for part in legend
                             if part["number"] != "0") or "no calls",
    })
