"""What stands above the admin's list of calls: a line, and a picture of the calls per half hour of the last
and the next 24 hours, each bar stacked by status. An SVG within the page: no script, no file, readable by a
screen reader."""
from collections import Counter
from datetime import timedelta
from math import ceil

from django.conf import settings
from django.db import connection
from django.db.models import Count, Min
from django.template.loader import render_to_string
from django.utils import timezone

from ..base.moments import moment
from ..base.words import printable, redacted
from ..calls import targets
from ..calls.health import parts
from ..calls.queryset import UNDER_WAY
from ..models import ScheduledCall
from .filters import VIEWS, link

Status = ScheduledCall.Status

HOURS = 24                      # each way
STEP = timedelta(minutes=30)    # one bar
STACK = [Status.FAILED, Status.MISSED, Status.CANCELLED, Status.SUCCEEDED, Status.RUNNING, Status.RETRYING,
         Status.PENDING]        # from the bottom: trouble stands on the ground line, where it shows
LEFT, RIGHT, TOP, GROUND, HEIGHT, WIDTH = 44, 12, 12, 150, 176, 1000    # of the drawing, in its units
BAR = (WIDTH - LEFT - RIGHT) / (2 * HOURS * 2)


def counts(starts):
    """{(datetime of the beginning of a half hour, status): number of calls} of the half hours that begin
    at these aware datetimes.

    One statement, which counts in the index of each status: among a million calls a fifth of what GROUP BY
    takes, which must look at each row's time and status.
    """
    as_stored = connection.ops.adapt_datetimefield_value
    half_hours = ", ".join(["(%s, %s, %s)"] * len(starts))
    numbers = " UNION ALL ".join(
        f"SELECT i, '{status}', (SELECT COUNT(*) FROM {ScheduledCall._meta.db_table}"
        f" WHERE status = '{status}' AND timestamp >= a AND timestamp < b) FROM half_hour"
        for status in Status if status not in UNDER_WAY)
    with connection.cursor() as cursor:
        cursor.execute(f"WITH half_hour(i, a, b) AS (VALUES {half_hours}) {numbers}", [
            value for i, at in enumerate(starts) for value in (i, as_stored(at), as_stored(at + STEP))])
        found = Counter({(starts[i], status): number for i, status, number in cursor.fetchall() if number})
    # Few, and their indexes are not in order of time. Each by its own: of an IN neither database would use both.
    for status in UNDER_WAY:
        due = ScheduledCall.objects.filter(status=status).order_by().values_list("timestamp", flat=True)
        found.update((floor(at), status) for at in due if starts[0] <= at < starts[-1] + STEP)
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


def stacked(found, at, scale):
    """The parts of the bar of the half hour that begins at `at`, from the ground line up: list of dicts.

    found: as of `counts`; scale: how tall one call is
    """
    y, parts = float(GROUND), []
    for status in STACK:
        if number := found[at, status]:
            tall = max(number * scale, 1.5)     # a single failure among thousands must be seen
            y = max(y - tall, TOP)
            parts.append({"status": status, "y": f"{y:.1f}", "height": f"{tall:.1f}"})
    return parts


def hours(starts):
    """What stands below the ground line: each sixth hour of TIME_ZONE, and at midnight the day, as list of dicts."""
    local = {LEFT + i * BAR: timezone.localtime(at) for i, at in enumerate(starts)}
    return [{"x": f"{x:.1f}", "says": f"{at:%a %-d %b}" if at.hour == 0 else f"{at:%H}:00"}
            for x, at in local.items() if at.hour % 6 == 0 and at.minute < 30]


def picture(now, view="all", wanted="", chosen=(None, None), kept=None):
    """The picture, as safe HTML.

    now: aware datetime, the middle of the picture
    view, wanted: what the list shows: a view's name, and a status or ""; the bars lead to the same, or to
        all calls of their half hour if none of them is among it
    chosen: the aware datetimes between which the list shows calls, each of them or None
    kept: {name: value} of what else the list's query string holds, which the bars keep
    """
    start = floor(now) - timedelta(hours=HOURS)
    starts = [start + STEP * i for i in range(2 * HOURS * 2)]
    found = counts(starts)
    shown = [one for one in VIEWS[view].statuses if wanted in ("", one)]
    since, until = chosen[0] or starts[0], chosen[1] or starts[-1] + STEP

    def x(at):
        return LEFT + min(max((at - start) / STEP, 0), len(starts)) * BAR

    top = round_up(max([sum(found[at, status] for status in STACK) for at in starts] + [1]))
    scale = (GROUND - TOP) / top

    bars = []
    for i, at in enumerate(starts):
        if parts := stacked(found, at, scale):
            local, local_end = timezone.localtime(at), timezone.localtime(at + STEP)
            others = {"due_from": local.isoformat(), "due_before": local_end.isoformat()} | (kept or {})
            same = any(found[at, one] for one in shown) and VIEWS[view].may_hold(at, at + STEP, now)
            bars.append({
                "x": f"{LEFT + i * BAR + 1:.1f}", "parts": parts,
                "says": f"{local:%a %H:%M}–{local_end:%H:%M}: " + ", ".join(
                    f"{found[at, status]:,} {status}" for status in STACK if found[at, status]),
                "link": link(view=view, status=wanted, **others) if same else link(view="all", **others),
                "chosen": any(chosen) and since <= at and at + STEP <= until,
                "at": at,
            })
    if bars:        # the one that the Tab key stops at, from which arrows lead on (static/scheduler/live.js)
        next((bar for bar in bars if bar["chosen"] or not any(chosen) and bar["at"] + STEP > now), bars[-1])["stop"] = True

    totals = Counter()
    for (_, status), number in found.items():
        totals[status] += number
    legend = [{"status": status, "number": f"{totals[status]:,}"} for status in reversed(STACK)]
    return render_to_string("admin/scheduler/scheduledcall/picture.html", {
        "bars": bars, "hours": hours(starts), "legend": legend,
        "lines": [{"y": f"{GROUND - top * part / 4 * scale:.1f}", "says": f"{ceil(top * part / 4):,}"}
                  for part in range(5)],
        "band": any(chosen) and x(until) > x(since) and {
            "x": f"{x(since):.1f}", "width": f"{x(until) - x(since):.1f}", "height": GROUND - TOP},
        "focus": f"{(x(max(since, starts[0])) + x(until)) / 2 / WIDTH if any(chosen) else x(now) / WIDTH:.4f}",
        "now_x": f"{x(now):.1f}", "now": f"{timezone.localtime(now):%H:%M %Z}",
        "bar_width": f"{BAR - 2:.1f}", "left": LEFT, "right": WIDTH - RIGHT, "ground": GROUND, "top": TOP,
        "width": WIDTH, "height": HEIGHT,
        "summary": ", ".join(f"{part['number']} {part['status']}" for part in legend
                             if part["number"] != "0") or "no calls",
    })


def span(seconds):
    """A number of seconds in words, with two units at most: "2 d 3 h"."""
    seconds = int(seconds)
    units = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((i for i, (number, _) in enumerate(units) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in units[first:first + 2] if number) or "0 s"


def summary(now, leads_to_targets=False):
    """The line above the picture: what is called, whether the service is well, and what comes and went, as safe
    HTML.

    now: aware datetime
    leads_to_targets: whether this user may see their pages
    """
    problems = [f"{part} {said}" for part, said in parts()[0].items() if said != "ok"]
    pending, retrying = (ScheduledCall.objects.filter(status=status) for status in (Status.PENDING, Status.RETRYING))
    upcoming = pending.filter(timestamp__gt=now)
    again = retrying.aggregate(at=Min("next_attempt_at"), number=Count("id"))
    next_at = min(filter(None, [upcoming.aggregate(at=Min("timestamp"))["at"], again["at"] and max(again["at"], now)]),
                  default=None)
    there = targets.there()
    hour, day = now + timedelta(hours=1), now - timedelta(days=1)
    ended = ScheduledCall.objects.filter(timestamp__gte=day, timestamp__lte=now)
    return render_to_string("admin/scheduler/scheduledcall/summary.html", {
        "api": printable(redacted(settings.API_URL), 200),
        "targets": there.count(), "paused": there.filter(targets.paused_q(now)).count(),
        "leads_to_targets": leads_to_targets,
        "problems": problems,
        "next": moment(next_at) if next_at else None,
        "next_in": span((next_at - now).total_seconds()) if next_at else None,
        "overdue": pending.filter(timestamp__lte=now - timedelta(seconds=settings.GRACE)).count(),
        "retrying": again["number"], "retrying_link": link(view="upcoming", status=Status.RETRYING),
        "due": upcoming.filter(timestamp__lte=hour).count(),
        "due_link": link(view="upcoming", due_from=now.isoformat(timespec="seconds"),
                         due_before=hour.isoformat(timespec="seconds")),
        "failed": ended.filter(status=Status.FAILED).count(),
        "missed": ended.filter(status=Status.MISSED).count(),
        "trouble_link": link(view="trouble", due_from=day.isoformat(timespec="seconds")),
        "zone": timezone.get_default_timezone_name(), "now": moment(now),
    })
