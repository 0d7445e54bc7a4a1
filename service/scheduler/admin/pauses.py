"""What the pause of a target or a schedule does, as its page says it, before and while it holds."""
from datetime import timedelta

from django.conf import settings
from django.urls import reverse

from ..base.moments import moment
from ..models import Schedule, ScheduledCall
from ..schedules.planner import AHEAD
from .filters import COUNTED, link

Status = ScheduledCall.Status

SHOWN = 5                       # names of schedules
BEFORE = timedelta(days=7)      # the pause, at most, a call was due that it has ended


def number(calls, one="call"):
    """How many there are of the queryset, in words; None if there are none."""
    found = calls.order_by().values("pk")[:COUNTED + 1].count()
    return found and (f"more than {COUNTED} {one}s" if found > COUNTED else f"{found} {one}{'s' if found > 1 else ''}")


def _said(row, resume, said, zone=None):
    return {"by": row.paused_by, "since": moment(row.paused_at, zone), "until": row.paused_until and moment(row.paused_until, zone),
            "reason": row.paused_reason, "said": said, "resume": resume}


def _list(leads, **parameters):
    return reverse("admin:scheduler_scheduledcall_changelist") + link(view="all", **parameters) if leads else ""


def of_schedule(schedule, leads_to_calls, resume):
    """What its page says of the pause of a schedule.

    leads_to_calls: whether this user may see calls; resume: the address where it is resumed, "" for who may not
    """
    since = schedule.paused_at - BEFORE
    gone = ScheduledCall.objects.filter(
        schedule=schedule.pk, status=Status.CANCELLED, occurrence=None, timestamp__gte=since,
        ended_at__gte=schedule.paused_at, error=f"its schedule is {schedule.pause}")
    how_many = number(gone)
    ends = "It plans anew from then on." if schedule.paused_until else "Nothing is planned until then."
    said = [(f"That cancelled {how_many} that {'was' if how_many == '1 call' else 'were'} planned.", _list(
                leads_to_calls, schedule=schedule.pk, status=Status.CANCELLED, due_from=schedule.paused_at.isoformat()))
            if how_many else ("That cancelled no call: none was planned.", ""), (ends, "")]
    return _said(schedule, resume, said, schedule.clocks)


def of_target(target, leads_to_calls, resume):
    """The same of a target, whose pause ends its calls as they fall due."""
    calls = ScheduledCall.objects.filter(target=target.pk, timestamp__gte=target.paused_at - BEFORE)
    why = f"its target is {target.pause}"
    ended = calls.filter(ended_at__gte=target.paused_at - timedelta(seconds=settings.GRACE))
    missed = number(ended.filter(status=Status.MISSED, error=why))
    failed = number(ended.filter(status=Status.FAILED, error__endswith=why))
    pending = ScheduledCall.objects.filter(target=target.pk, status=Status.PENDING)
    if target.paused_until:
        pending = pending.filter(timestamp__lt=target.paused_until)
    comes = number(pending)
    said = [(f"So far {missed or 'no call'} {'were' if missed and missed != '1 call' else 'was'} missed by that"
             + (f", and {failed} between two attempts not tried again" if failed else "") + ".", _list(
                 leads_to_calls and missed, target=target.pk, status=Status.MISSED, due_from=(target.paused_at - timedelta(minutes=1)).isoformat()))]
    if comes:
        said.append((f"{comes} will be missed, unless it is resumed before.", _list(
            leads_to_calls, target=target.pk, status=Status.PENDING)))
    names = list(Schedule.objects.filter(target=target.pk, deleted_at=None).order_by("name").values_list("name", flat=True)[:SHOWN + 1])
    if names:
        said.append((f"Schedules that call it, and go on: {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}.", ""))
    return _said(target, resume, said)


def of_schedule_to_come(schedule):
    """What would be cancelled, were it paused now: a sentence."""
    planned = number(ScheduledCall.objects.filter(schedule=schedule.pk, status=Status.PENDING, occurrence__isnull=False))
    return (f"It has {planned or 'no call'} planned for the next {AHEAD.days * 24} hours; what is due before the pause ends will be "
            "cancelled. (Days that are to come, such as holidays, are better written under Except, on its page.)")


def of_target_to_come(target):
    """What would be missed, were it paused now: a sentence."""
    pending = number(ScheduledCall.objects.filter(target=target.pk, status=Status.PENDING))
    schedules = number(Schedule.objects.filter(target=target.pk, deleted_at=None), "schedule")
    return (f"{pending or 'No call'} {'are' if pending and pending != '1 call' else 'is'} pending for it"
            + (f", and {schedules} call{'s' if schedules.startswith('1 ') else ''} it" if schedules else "") + ".")
