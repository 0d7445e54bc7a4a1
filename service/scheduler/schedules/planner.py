"""Every change of a schedule, and what becomes of it: its occurrences are calls in the table 48 hours
before they are due.

`planned_until` of a schedule says up to where that is done, and moves on in the transaction that inserts
the calls. That transaction locks the schedule's row first, and plans only if the row is still what the
occurrences were computed from: who dies in between has planned all or nothing, and of two dispatchers, or
of one and a person who changes the schedule, the second finds it done. Below that lies a unique index on
(schedule, occurrence). The occurrences are computed before the transaction, as SQLite's one write lock
is to be held for as short as can be.

Governments move clocks, and the time zone data that say so may come after something was planned. So what is
planned is compared with what the rules say: when a process starts, and once a day. A call stands for the time
that its schedule asks for, by its clocks, and not for an instant. It is known by that when another instant turns
out to be meant, so that what was called, cancelled or moved already does not come again. Plans by newer data are
left alone by who has older ones, unless nobody else plans.

A call is due at its occurrence, or with jitter some seconds after it, always as many. What is to be caught up with
may start until the next call is due, see `_planned`: so the workers make the last of what fell due while nothing ran,
and no other, and nobody has to find out which that is.
"""
import hashlib
import logging
import threading
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import chain, islice, pairwise
from typing import NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.models import DateTimeField, Exists, Max, OuterRef, Q, Subquery, Value

from ..base import zones
from ..base.clock import asked, steady, utcnow
from ..calls import ledger, log, targets
from ..calls.ledger import BATCH, NOW, PlannedCall
from ..models import Schedule, ScheduledCall, rules
from .recurrence import DAY, LATEST, between, with_walls

logger = logging.getLogger(__name__)

AHEAD = timedelta(hours=48)     # planned at the least,
STEP = timedelta(hours=1)       # and so much more, so that a schedule has its turn once in this time
RECORDED = timedelta(hours=48)  # back from now, in which each occurrence that nobody planned is Missed;
COUNTED = 10_000                # before that they are counted only, up to this number
MOMENT = timedelta.resolution
LEFT = timedelta(minutes=10)    # behind AHEAD, after which who has newer time zone data is waited for no longer
COMPARED_EVERY = 24 * 3600      # seconds
SHOWN = 10                      # occurrences to come of one schedule
SEEN = timedelta(days=9 * 365)  # ahead, in which they are looked for: there is a 29 February in it
MARGIN = timedelta(days=3)
LATE = timedelta(days=7)        # at most, and what is to be caught up with is made

# What makes a plan another: the rule, what is called by it, and for how long it does not come.
PAUSE = {"paused_at", "paused_until"}
RULE = {"times", "cron", "zone", "days", "first_date", "last_date", "exceptions", "on", "jitter", "catch_up", "target_id",
        "body", "headers", "data"}
# What does not.
OTHERS = {"name", "overlap", "paused_by", "paused_reason"}

_comparing = threading.Lock()
_to_compare = []            # ids of the schedules that this process has yet to compare,
_next_round = float("-inf")     # and when, by steady(), it begins again with all of them
_told = set()       # ids of schedules that this process cannot plan, and has said so


class Portion(NamedTuple):
    """The next occurrences of a schedule, at most BATCH."""

    schedule: Schedule      # as it was when they were computed
    times: list             # of aware datetimes
    until: datetime         # before which there are no others
    uncounted: int          # occurrences before `times` that are too old to be written down one by one


def plan(now=NOW, seconds=None):
    """Plans all schedules until AHEAD from now, those first that were planned least far.

    seconds: after which what is left is left to the next tick; None for half a TICK
    """
    ends = steady() + (settings.TICK / 2 if seconds is None else seconds)
    aside = set()       # not to be planned now: somebody else has them locked, or changed them
    while steady() < ends:
        # Also what is planned further than anybody plans: the clock was ahead for a while.
        due = (Schedule.objects.filter(Q(planned_until__lt=now + AHEAD) | Q(planned_until__gt=now + 2 * AHEAD))
               .exclude(planned_until__gte=now + AHEAD - LEFT, zone_data__gt=zones.release())
               .exclude(id__in=aside)
               .annotate(now=now if now is NOW else Value(now, DateTimeField()))
               .order_by("planned_until", "id")[:100])
        portions, size = [], 0
        for schedule in due:
            try:
                if (schedule.zone_data or "") < zones.release() and not _mend(schedule):
                    aside.add(schedule.id)
                    continue
                portions.append(_portion(schedule, schedule.now, schedule.now + AHEAD + STEP))
            except ValueError as error:     # a zone that this machine does not know, or no longer
                aside.add(schedule.id)
                if schedule.id not in _told:
                    logger.error("schedule %d (%s) cannot be planned: %s", schedule.id, schedule, error)
                _told.add(schedule.id)
                continue
            _told.discard(schedule.id)
            size += len(portions[-1].times) + portions[-1].uncounted
            if size >= BATCH:
                break
        if not due:
            return
        if portions:
            aside |= _write(portions, portions[0].schedule.now)


def _portion(schedule, now, horizon):
    start, old = schedule.planned_until if schedule.planned_until < horizon else now, []
    rule, recorded = schedule.rule, now - RECORDED
    if start < recorded:
        old = list(islice(between(rule, start, recorded), COUNTED + 1))
        start = recorded
    times = list(islice(between(rule, start, horizon), BATCH))
    if (schedule.catch_up == Schedule.CatchUp.LAST and 0 < len(old) <= COUNTED and old[-1] > now - LATE
            and not (times and times[0] <= now)):
        times.insert(0, old.pop())      # which is to be caught up with
    uncounted = len(old)
    return Portion(schedule, times, horizon if len(times) < BATCH else times[-1] + MOMENT, uncounted)


def _write(portions, now):
    """Inserts what stands in `portions`, and moves `planned_until` on. Returns the ids of the schedules
    for which that was not done, as they are not what they were, or are being changed."""
    with transaction.atomic():
        rows = Schedule.objects.filter(id__in=[portion.schedule.id for portion in portions]).select_for_update(
            skip_locked=connection.features.has_select_for_update_skip_locked)
        stand = set(rows.order_by("id").values_list("id", "version", "planned_until"))
        ours = [p for p in portions if (p.schedule.id, p.schedule.version, p.schedule.planned_until) in stand]
        if old := [p for p in ours if p.uncounted]:
            transaction.on_commit(lambda: _say(old, now))
        _insert({p.schedule: p.times for p in ours}, now)
        for until in {p.until for p in ours}:
            Schedule.objects.filter(id__in=[p.schedule.id for p in ours if p.until == until]).update(
                planned_until=until, zone_data=zones.release())
    return {p.schedule.id for p in portions} - {p.schedule.id for p in ours}


def _say(portions, now):
    """Of what is too old for a row each, a line in the log and in the output."""
    for portion in portions:
        number = f"more than {COUNTED}" if portion.uncounted > COUNTED else str(portion.uncounted)
        target = portion.schedule.target
        text = log.hole(number, portion.schedule.name, now - RECORDED, now, target and target.name)
        log.write([text])
        logger.error("%s", text.rstrip("\n").partition(": ")[2])


def _insert(times, now, freed=None):
    """Creates the calls of occurrences for which there is none yet. The schedules are locked.

    times: {Schedule: list of aware datetimes}
    freed: {occurrence: when its call was due, before it was cancelled}
    """
    everything = [time for some in times.values() for time in some]
    if not everything:
        return
    taken = set(ScheduledCall.objects.filter(
        schedule__in=times, occurrence__gte=min(everything), occurrence__lte=max(everything),
    ).order_by().values_list("schedule_id", "occurrence"))
    planned = [new for schedule, some in times.items() if some for new in _planned(schedule, some)
               if (schedule.pk, new.occurrence) not in taken]
    for i, new in enumerate(planned):
        before = (freed or {}).get(new.occurrence, new.timestamp)
        if new.timestamp < min(now, before):       # it would have been due already; it comes when it was to come before
            lasts = new.expires_at and new.expires_at > before        # otherwise GRACE counts, as for one that is moved
            planned[i] = new._replace(timestamp=before, expires_at=new.expires_at if lasts else None)
    ledger.plan(planned, now)


def _planned(schedule, times):
    """The calls of occurrences of `schedule`: iterator of PlannedCall.

    times: list of aware datetimes, not empty, at each of which it comes
    """
    wanted, last, catches_up = set(times), max(times), schedule.catch_up == Schedule.CatchUp.LAST
    walls = with_walls(schedule.rule, min(times), last + (LATE if catches_up else MOMENT))
    for (at, wall), (following, _) in pairwise(chain(walls, [(None, None)])):
        if at in wanted:
            timestamp, expires = due_at(schedule, at), None
            if catches_up:
                until = min([timestamp + LATE] + ([due_at(schedule, following)] if following else []))
                expires = max(until, timestamp + timedelta(seconds=settings.GRACE))
            yield PlannedCall(schedule.pk, at, _utc_offset(wall, at), timestamp, schedule.target_id, expires)
        if at >= last:
            return


def due_at(schedule, occurrence):
    """When the call of an occurrence is due, an aware datetime: the same for whoever asks, whenever."""
    if not schedule.jitter:
        return occurrence
    chance = hashlib.sha256(f"{schedule.pk} {occurrence.timestamp():.6f}".encode()).digest()
    return occurrence + timedelta(milliseconds=int.from_bytes(chance[:6], "big") * schedule.jitter * 1000 >> 48)


def is_moved(schedule, occurrence, timestamp):
    """Whether a call of `schedule`, as it stands, for that occurrence was given another time by a person. (One that an
    older version planned has no jitter.)"""
    return timestamp not in (occurrence, due_at(schedule, occurrence))


def _utc_offset(wall, at):
    return int((wall - at.replace(tzinfo=None)).total_seconds())


def compare(seconds=None):
    """Compares the plans of all schedules with their rules, and mends them, when a process begins and then once a
    day, by the time zone data that are installed by then.

    seconds: after which what is left is left to the next tick; None for half a TICK
    """
    global _next_round
    if not _comparing.acquire(blocking=False):
        return
    try:
        if not _to_compare and steady() >= _next_round:
            zones.choose()
            planned = Schedule.objects.filter(planned_until__isnull=False)
            if newer := planned.filter(zone_data__gt=zones.release()).aggregate(Max("zone_data"))["zone_data__max"]:
                logger.warning("schedules are planned by the time zone data %s, and this machine has %s: it leaves "
                               "them to those that have the newer, while there are any. Update it here: "
                               "pip install --upgrade tzdata", newer, zones.release() or "some of an unknown release")
            _to_compare.extend(planned.exclude(zone_data__gt=zones.release()).values_list("id", flat=True))
            _next_round = steady() + COMPARED_EVERY
        ends = steady() + (settings.TICK / 2 if seconds is None else seconds)
        while _to_compare and steady() < ends:
            schedule = Schedule.objects.filter(pk=_to_compare[-1], planned_until__isnull=False).first()
            with suppress(ValueError):      # of a zone that is not known here, which `plan` says
                if schedule and not _mend(schedule):
                    _to_compare.insert(0, schedule.pk)      # somebody else is at it
                    ends = steady()
            _to_compare.pop()
    finally:
        _comparing.release()


def _mend(schedule):
    """Brings what is planned of `schedule`, as it was just read, in line with its rule. Returns whether that is
    done; not if it has been changed since, or somebody else has it locked. Raises ValueError if its zone is not
    known."""
    now, release = asked(), zones.release()
    if (schedule.zone_data or "") > release or schedule.planned_until > now + 2 * AHEAD:    # which `plan` mends
        return True
    unchanged = Schedule.objects.filter(pk=schedule.pk, version=schedule.version, zone_data=schedule.zone_data,
                                        planned_until=schedule.planned_until)
    if not any(_differences(schedule, now)[:2]):
        return schedule.zone_data == release or bool(unchanged.update(zone_data=release))
    with transaction.atomic():
        if not unchanged.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked):
            return False
        wrong, missing, walls = _differences(schedule, now)
        # One that should have come already is called when it was planned to be: late, but once. One that a person
        # moved stays, and is looked at locked, so that nobody moves it meanwhile.
        calls = schedule.calls.filter(pk__in=[pk for pk, at in wrong.items() if at is None or at > now])
        gone = ledger.correct([call.pk for call in calls.order_by("id").select_for_update()
                               if not is_moved(schedule, call.occurrence, call.timestamp)], now)
        kept = {pk: at for pk, at in wrong.items() if at and pk not in gone}
        new = missing + [at for pk in gone if (at := wrong[pk]) and at < schedule.planned_until]
        # In the order of all who lock several rows, so that two do not wait for each other.
        freed = schedule.calls.filter(Q(pk__in=kept) | Q(occurrence__in=[*kept.values(), *new])).order_by("id")
        ScheduledCall.objects.filter(pk__in=[call.pk for call in freed.select_for_update()]).update(occurrence=None)
        for pk, at in kept.items():
            ScheduledCall.objects.filter(pk=pk).update(occurrence=at, utc_offset=_utc_offset(walls[at], at))
        _insert({schedule: new}, now)
        unchanged.update(zone_data=release)
        if gone or new:
            transaction.on_commit(lambda: logger.warning(
                "schedule %d (%s) did not come when it was planned to: %d calls cancelled, %d planned anew, by the "
                "time zone data %s", schedule.pk, schedule, len(gone), len(new), release))
    return True


def _differences(schedule, now):
    """How what is planned of `schedule` differs from what its rule says.

    Returns ({id of a call: the occurrence that it stands for, in place of its own, None if it is Pending for none},
    [occurrences to come of which there is no call], {occurrence: what its clocks show, a naive datetime}).
    """
    rule, start = schedule.rule, now - DAY      # no clocks are moved by more
    walls = dict(with_walls(rule, start, schedule.planned_until + DAY))
    # What comes every so often has no other time of its own than the instant.
    occurrences = {at if rule.every_so_often else wall: at for at, wall in walls.items()}
    others, left = [], dict(occurrences)
    for pk, status, at, offset in schedule.calls.filter(occurrence__gte=start).order_by("occurrence").values_list(
            "pk", "status", "occurrence", "utc_offset"):
        if rule.every_so_often:
            time = at
        else:
            time = walls.get(at) if offset is None else at.replace(tzinfo=None) + timedelta(seconds=offset)
        if occurrences.get(time) == at:
            del left[time]
        else:
            others.append((pk, status, time))
    wrong = {pk: at for pk, status, time in others
             if (at := left.pop(time, None)) or status == ScheduledCall.Status.PENDING}
    return wrong, [at for at in left.values() if now < at < schedule.planned_until], walls


def _close(schedule, now):
    """Of a schedule that is about to be changed or deleted: writes down what fell due and nobody planned,
    as the dispatcher would have, had it come first.

    schedule: as it stands, locked
    """
    with suppress(ValueError):      # of a zone that is not known here nobody can say it
        while schedule.planned_until and schedule.planned_until < now:
            portion = _portion(schedule, now, now)
            if portion.uncounted:
                transaction.on_commit(partial(_say, [portion], now))
            _insert({schedule: portion.times}, now)
            schedule.planned_until = portion.until


@transaction.atomic
def save(schedule, by=""):
    """Writes `schedule`, new or changed. If that changes when it comes or what it calls, what it had planned is
    cancelled, as far as it is Pending, and it is planned anew from now on; if it is paused, what would come meanwhile.
    Resumed it comes from now on: what it left out stays so.

    by: the name of the user who asked for it
    Returns the ids of new calls that are due within WINDOW, for dispatch.hand_over_soon. Raises
    Schedule.DoesNotExist if it was deleted meanwhile, IntegrityError if its name is taken, and Target.DoesNotExist if
    its target was deleted meanwhile.
    """
    stands = schedule.pk and locked().get(pk=schedule.pk)
    changed = stands and {name for name in RULE | PAUSE if not rules.same(getattr(schedule, name), getattr(stands, name))}
    if stands and not changed:
        schedule.save(update_fields=OTHERS)
        return []
    if schedule.target_id:      # before its calls, as who claims them locks the one and the others
        targets.still_there([schedule.target_id])
    now = asked()
    freed = {}
    paused = schedule.is_paused(now)
    if stands:
        _close(stands, now)
        if paused and changed & PAUSE:
            ledger.withdraw(stands.pk, by, f"its schedule is {schedule.pause}", before=schedule.paused_until)
        if changed - PAUSE:
            freed = ledger.withdraw(stands.pk, by)
            # What is kept of it stands for its instant alone from here on: its clocks may be those of another zone.
            stands.calls.filter(occurrence__gte=now - 2 * DAY).update(utc_offset=None)
    else:
        schedule.created_by = by
    schedule.version = stands.version + 1 if stands else 0
    comes = schedule.on and not (paused and schedule.paused_until is None)
    schedule.planned_until = now + AHEAD + STEP if comes else None
    schedule.zone_data = zones.release()
    schedule.save()
    if not comes:
        return []
    # What was to come and now lies behind is called all the same, when it would have been had nobody changed anything: it
    # is due at this very moment, or waits for its jitter, or where a person moved it. By what was cancelled and not by
    # `now`, as some of it may have fallen due since.
    times = [time for time in between(schedule.rule, min([now, *freed]), schedule.planned_until)
             if time > now or time in freed]
    _insert({schedule: times}, now, freed)
    return list(ScheduledCall.objects.filter(
        schedule=schedule, status=ScheduledCall.Status.PENDING,
        timestamp__lte=now + timedelta(seconds=settings.WINDOW)).values_list("id", flat=True))


def calls_more(schedule, stands, now):
    """Whether `schedule`, changed, has anything called that it had not before: not if it is only named anew, switched
    off or paused.

    stands: as it was, None if it is new
    """
    def resumes(some):
        return some.paused_until or LATEST if some.is_paused(now) else now
    return (stands is None or schedule.on and not stands.on or resumes(schedule) < resumes(stands) or any(
        not rules.same(getattr(schedule, name), getattr(stands, name)) for name in RULE - {"on"} | {"overlap"}))


def leads_elsewhere(schedule, stands):
    """Whether `schedule`, changed, sends to another target what it sent to its own: who may not see that could have it
    sent to himself.

    stands: as for `calls_more`
    """
    return bool(stands and schedule.target_id and schedule.target_id != stands.target_id and any(
        getattr(stands, name) not in (None, {}) and rules.same(getattr(schedule, name), getattr(stands, name))
        for name in Schedule.REQUEST))


def run(schedule, by="", note=""):
    """Makes a call of `schedule` for now, as a person asked for it: also of one that is off or paused, and beside its
    occurrences.

    by: the name of the user; note: why, a str of at most NOTE_MAX characters
    Returns the ScheduledCall, for dispatch.created.
    """
    new = ledger.NewCall(utcnow(), note, target=schedule.target, schedule=schedule)
    return ledger.schedule([new], by, "schedule")[0]


@transaction.atomic
def delete(schedule_id, by=""):
    """Cancels what it has planned, as far as it is Pending, and hides it; its other calls still name it.

    by: the name of the user who asked for it
    Raises Schedule.DoesNotExist.
    """
    schedule, now = locked().get(pk=schedule_id), asked()
    _close(schedule, now)
    ledger.withdraw(schedule.pk, by)
    schedule.version += 1
    schedule.planned_until, schedule.deleted_at = None, now
    schedule.save(update_fields=["version", "planned_until", "deleted_at"])


def locked():
    """The schedules that are not deleted, locked by reading them until the transaction ends."""
    return Schedule.objects.filter(deleted_at=None).select_for_update()


def prune():
    """Removes the rows of deleted schedules that no call names any more. Returns how many."""
    calls = ScheduledCall.objects.filter(schedule=OuterRef("pk"))
    return Schedule.objects.filter(~Exists(calls), deleted_at__isnull=False).delete()[0]


def upcoming(rule, start, number=SHOWN):
    """The first `number` occurrences of `rule` at or after `start`, as far as there are any: a list of
    aware datetimes."""
    def midnight(date):     # of UTC, which no zone is away from by as much as MARGIN
        return datetime(date.year, date.month, date.day, tzinfo=timezone.utc)

    start = max(start, rule.since or start)
    if rule.first and rule.first > start.date():
        start = max(start, midnight(rule.first) - MARGIN)
    end = min(start, LATEST - SEEN) + SEEN
    if rule.last:
        end = min(end, midnight(rule.last) + MARGIN)
    return list(islice(between(rule, start, end), number))


def coming(schedules, now):
    """{schedule id: list of aware datetimes}: when each will call next, at most SHOWN times. Planned
    calls count as they are in the table, where a person may have moved or cancelled them."""
    pending = ScheduledCall.objects.filter(
        schedule=OuterRef("pk"), status=ScheduledCall.Status.PENDING, timestamp__gt=now).order_by("timestamp", "id")
    rows = Schedule.objects.filter(id__in=[schedule.id for schedule in schedules]).order_by().values_list(
        "id", *[Subquery(pending.values("timestamp")[i:i + 1]) for i in range(SHOWN)])
    planned = {schedule_id: [time for time in times if time] for schedule_id, *times in rows}
    found = {}
    for schedule in schedules:
        times = found[schedule.id] = planned.get(schedule.id, [])
        if schedule.planned_until and len(times) < SHOWN:
            try:
                more = upcoming(schedule.rule, max(now, schedule.planned_until), SHOWN - len(times))
                times += sorted(due_at(schedule, at) for at in more)
            except ValueError:      # as in `plan`, which says it
                pass
    return found
