"""Every change of a call's status, and nothing else changes it.

    schedule, plan      hand_over        claim            finish
    (nothing) --> Pending  (Pending)  --> Running --> Succeeded | Failed | Missed
                     |          <-----     | | ^
        miss, cancel |          release    | | | claim, once next_attempt_at has come (try_now: that is now)
   withdraw, correct v        finish, reap | | |
          Missed | Cancelled     Retrying <+ | |        reap: its worker gave no sign of life
              miss, cancel |      |  +-------|-+
        Failed | Cancelled <------+          v
                                           Failed

(`hand_over`, in dispatch.py, leaves it as it is.) Retrying are calls of targets that have retries, after an attempt
that failed in a way that allows another. Each is a conditional UPDATE and a look at which rows it
changed: "somebody else was first" is a normal case and needs no lock that outlives a statement. That makes duplicate messages, two
dispatchers and late workers harmless. Each writes the log lines of the calls it ended, after its
transaction is safe. Of a call that ends as Failed or Missed the database itself notes that it did, in the same
transaction, for ops/notify.py (models.Failure).

One clock: due times and leases are compared with the clock of the database, by the database, so
that a machine with a wrong clock takes no call too early, misses none that is yet to come, and takes
nobody's work for dead. Where a function has a parameter `now`, that clock is its default; a test may
give an aware datetime.
"""
import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, DateTimeField, F, Q, Value, When
from django.db.models.functions import Coalesce, Now

from ..base.clock import utcnow
from ..models import Attempt, CallRequest, Schedule, ScheduledCall, Target
from ..models.targets import is_paused
from . import limits, log, outcomes
from .request import MAX_AGE, TEST, age, delays, timeout
from .targets import paused_q

logger = logging.getLogger(__name__)
Status = ScheduledCall.Status

BATCH = 1000            # rows in one transaction, so that none is a long one
RENEW_EVERY = 2         # seconds between two signs of life of a worker

WORKER_LOST = f"worker lost, {outcomes.OUTCOME_UNKNOWN}"
STILL_RUNS = "the one before still runs"
WITHDRAWN = "its schedule was changed, switched off or deleted"
CALLS = ScheduledCall._meta.db_table
NOT_AGAIN = "; not tried again: "
MISPLANNED = "its schedule does not come then: it was planned by older time zone data, or by an older version"
UNPLANNED = "its schedule was not planned in time, no dispatcher ran"
NOW = Now()             # the database's clock, at the beginning of a statement


def batches(items, size=BATCH):
    """The list `items` in lists of at most `size`: iterator."""
    return (items[i:i + size] for i in range(0, len(items), size))


def lease():
    """Seconds for which a claim or a renewal makes a call its worker's. Longer than LEASE, so that a
    database that goes away just before a renewal, for LEASE, leaves that worker time to come back."""
    return settings.LEASE + 2 * RENEW_EVERY


def _log(ended):
    """Writes the log lines of `ended`, a list of arguments for log.line, once committed, and
    makes them only then: SQLite's one write lock is held for as short as can be."""
    if ended:
        transaction.on_commit(lambda: log.write([log.line(*arguments) for arguments in ended]))


def _sql(now, seconds=0.0):
    """The instant `seconds` after `now`, in the SQL of `claim` and `finish`. They are written by hand as a
    burst has one of each for every 25 calls, and Django takes longer to write them than the database to
    do them."""
    if connection.vendor == "sqlite":
        if now is not NOW and not seconds:
            return "%(now)s"
        start = "'now'" if now is NOW else "%(now)s"
        return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', {start}, '{seconds:+f} seconds')"
    start = "statement_timestamp()" if now is NOW else "%(now)s::timestamptz"
    return f"({start} + interval '{seconds:f} seconds')"


def _before(seconds, now):
    """The instant that lies `seconds`, in SQL too, before `now`."""
    if connection.vendor == "sqlite":
        start = "'now'" if now is NOW else "%(now)s"
        return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', {start}, -({seconds}) || ' seconds')"
    return f"({_sql(now)} - ({seconds}) * interval '1 second')"


def as_column(now):
    """`now` as a column of a SELECT."""
    return now if now is NOW else Value(now, DateTimeField())


def unlocked(rows):
    """The rows, locked against other changes; those that somebody else is changing are left out.

    SQLite has no row locks: there the transaction, being IMMEDIATE, holds the one write lock.
    """
    if connection.features.has_select_for_update_skip_locked:
        return rows.select_for_update(skip_locked=True)
    return rows


@dataclass
class NewCall:
    """A call that is to be made, as `schedule` takes it."""

    timestamp: datetime                 # aware
    note: str = ""                      # of at most NOTE_MAX characters
    target: Target | None = None        # API_URL for none
    body: str | None = None             # instead of the target's, placeholders and all
    headers: dict = field(default_factory=dict)     # {name: value}, beside the target's
    data: dict = field(default_factory=dict)        # {key: value}, what {{data.KEY}} stands for
    expires_at: datetime | None = None  # aware; instead of GRACE
    schedule: Schedule | None = None    # of which it is, beside those that were planned
    again_of: int | None = None         # the id of the call that it repeats


def schedule(calls, by="", via=""):
    """Creates Pending calls, all with the same `created_at`: so those of one request can be told from
    others of its time. All or none of them.

    calls: list of NewCall
    by: the name of the user who asked for them, "" for nobody who is known; via: "API" or "admin", say
    Returns the list of the new ScheduledCall objects, in the same order, for dispatch.created.
    """
    created_at = utcnow()
    rows = [ScheduledCall(timestamp=new.timestamp, created_at=created_at, scheduled_by=by, scheduled_via=via,
                          note=new.note, again_of=new.again_of, target=new.target, schedule=new.schedule,
                          expires_at=new.expires_at) for new in calls]
    own = [i for i, new in enumerate(calls) if new.body is not None or new.headers or new.data]
    with transaction.atomic() if own else nullcontext():
        rows = ScheduledCall.objects.bulk_create(rows, batch_size=BATCH)
        CallRequest.objects.bulk_create(
            [CallRequest(call=rows[i], body=calls[i].body, headers=calls[i].headers, data=calls[i].data) for i in own],
            batch_size=BATCH)
    return rows


def try_target(target, by="", body=None, headers=None, data=None):
    """Creates a call for `target` that is due now, to see whether it works: it is one attempt, whatever its retries.

    by: the name of the user who asked for it
    body, headers, data: as of NewCall
    Returns the ScheduledCall, for dispatch.created.
    """
    return schedule([NewCall(utcnow(), target=target, body=body, headers=headers or {}, data=data or {})], by, TEST)[0]


def again(ids, by="", via=""):
    """Creates calls that repeat others, with their target and what was sent with them. They are due now, but those of a
    target with a rate one after the other, as that allows.

    ids: the calls to repeat, in the order in which they are to be made
    by, via: as for `schedule`
    Returns the list of the new ScheduledCall objects, in the same order; those of `ids` that do not exist are left out.
    """
    calls, now = [], utcnow()
    for some in batches(ids):
        olds = ScheduledCall.objects.select_related("target", "schedule", "request").in_bulk(some)
        for old in (olds[call_id] for call_id in some if call_id in olds):
            # What names no target is made as ever, and is of no schedule.
            new = NewCall(now, old.note, old.target, schedule=old.schedule if old.target else None, again_of=old.id)
            if hasattr(old, "request"):
                new.body, new.headers, new.data = old.request.body, old.request.headers, old.request.data
            calls.append(new)
    _give_time(calls)
    return schedule(calls, by, via)


def _give_time(calls):
    """Puts `calls`, a list of NewCall that are due at once, as far apart as their targets' rates ask for. Where they are more
    than can be made at once they expire late enough for all to be made, beside as many more, and for their retries: GRACE
    would end those at the end of the line."""
    lines = {}
    for new in calls:
        lines.setdefault(new.target, []).append(new)
    takes = {target: timeout(target and target.timeout) for target in lines}    # seconds, an attempt at most
    everything = sum(len(line) * takes[target] for target, line in lines.items()) / settings.CALLS_AT_ONCE
    for target, line in lines.items():
        each = limits.apart(target) if target else 0.0
        places = max(1, settings.CALLS_AT_ONCE // 2) if target else settings.CALLS_AT_ONCE      # of one worker
        if target and target.max_at_once is not None:
            places = max(1, min(places, target.max_at_once))
        if len(line) == 1 or not each and len(line) <= places and len(calls) <= settings.CALLS_AT_ONCE:
            continue            # seconds that the line takes, should each call take as long as it may:
        wait = len(line) * (each + takes[target] / places) + everything
        retries = sum(wait + 2 * delay + takes[target] for delay in target.delays) if target else 0.0
        last = settings.GRACE + wait + min(retries, age(target and target.max_age))
        for place, new in enumerate(line):
            new.timestamp += timedelta(seconds=place * each)
            new.expires_at = new.timestamp + timedelta(seconds=last)


class PlannedCall(NamedTuple):
    """A call that a schedule asks for, as `plan` takes it."""

    schedule_id: int
    occurrence: datetime                # aware, as all of these
    utc_offset: int                     # seconds by which its clocks are ahead of UTC then
    timestamp: datetime
    target_id: int | None = None
    expires_at: datetime | None = None  # instead of GRACE


def plan(planned, now):
    """Creates the calls of schedules: Pending, or Missed where the time in which they may start was over before
    anybody planned them.

    planned: list of PlannedCall, for whose occurrences there are none yet
    now: aware datetime
    """
    as_stored, grace = connection.ops.adapt_datetimefield_value, timedelta(seconds=settings.GRACE)
    stored_now = as_stored(now)
    late = [(new.expires_at or new.timestamp + grace) < now for new in planned]
    on_time, too_late = (str(Status.PENDING), None, ""), (str(Status.MISSED), stored_now, UNPLANNED)
    with transaction.atomic(), connection.cursor() as cursor:
        # A thousand in 10 ms of SQLite's one write lock, where bulk_create takes 100.
        cursor.executemany(
            f"INSERT INTO {CALLS} (schedule_id, occurrence, timestamp, utc_offset, target_id, expires_at, status, ended_at,"
            " error, created_at, scheduled_via, scheduled_by, note, cancelled_by, claim_token)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'schedule', '', '', '', '')",
            [(new.schedule_id, as_stored(new.occurrence), as_stored(new.timestamp), new.utc_offset, new.target_id,
              as_stored(new.expires_at), *(too_late if is_late else on_time), stored_now)
             for new, is_late in zip(planned, late)])
        missed = [new for new, is_late in zip(planned, late) if is_late]
        names = Target.objects.in_bulk({new.target_id for new in missed if new.target_id})
        _log([(Status.MISSED, new.timestamp, now, "", _name(names.get(new.target_id))) for new in missed])


def _in_time(now):
    """The condition that a call may still start."""
    return Q(expires_at=None, timestamp__gte=now - timedelta(seconds=settings.GRACE)) | Q(expires_at__gte=now)


def withdraw(schedule_id, by="", why=WITHDRAWN, before=None, now=NOW):
    """Cancels the Pending calls of a schedule that is being changed, paused or deleted, and gives their
    occurrences free to be planned anew. Others keep theirs: one that a person cancelled stays so, one that has
    begun, and may be Retrying, goes on, and one that is too late to start is left to `miss`. What a person asked for
    beside what was planned stands for no occurrence, and stays.

    by: the name of the user who asked for it; why: in words
    before: only what stands for an occurrence before this aware datetime; all if it is None
    Returns {occurrence: when its call was due}, of aware datetimes.
    """
    freed = {}
    rows = ScheduledCall.objects.filter(_in_time(now), schedule=schedule_id, occurrence__isnull=False)
    if before:
        rows = rows.filter(occurrence__lt=before)
    with transaction.atomic():
        while some := _cancel(rows, by, now, occurrence=None, error=why):
            freed |= {occurrence: timestamp for _, timestamp, occurrence, _ in some}
    return freed


def correct(ids, now):
    """Cancels those of the calls `ids`, of a schedule that does not come at their times, that are Pending, and gives
    their occurrences free. Those that are too late to start stay.

    now: aware datetime
    Returns the set of the ids that it cancelled.
    """
    gone = set()
    rows = ScheduledCall.objects.filter(_in_time(now), id__in=ids)
    with transaction.atomic():
        while some := _cancel(rows, "", NOW, occurrence=None, error=MISPLANNED):
            gone |= {row[0] for row in some}
    return gone


def _cancel(rows, by, now, statuses=(Status.PENDING,), **values):
    """Cancels the first BATCH of `rows` that are Pending, or of another of `statuses`, and gives them these `values`.

    Returns [(id, timestamp, occurrence, when it was cancelled), ...].
    """
    of = ("self",)      # and not of its target, whose name is read with it
    with transaction.atomic():
        # In the order of all who lock several rows, so that two do not wait for each other.
        some = list(rows.filter(status__in=statuses).order_by("id").select_for_update(of=of).annotate(now=as_column(now))
                    .values_list("id", "timestamp", "occurrence", "now", "target__name")[:BATCH])
        if some:
            ScheduledCall.objects.filter(id__in=[row[0] for row in some], status__in=statuses).update(
                status=Status.CANCELLED, ended_at=some[0][3], cancelled_by=by, next_attempt_at=None, **values)
        _log([(Status.CANCELLED, timestamp, at, "", name) for _, timestamp, _, at, name in some])
    return [row[:4] for row in some]


def claim(ids, token, now=NOW):
    """Makes calls that are due this worker's own: who gets a row here is the only one who may call
    for it, until `lease()` seconds after it asked.

    ids: the calls to claim
    token: str of 32 characters, new for each claim. If nothing came back, because the connection
        broke, the same claim may be made again: what it won the first time is still its own.
    Returns (ids won, {id: seconds until it is due} of those that are Pending still). Among the latter
    are some that are past their GRACE, with less than -GRACE; they are left to `miss`.
    """
    if not ids:
        return set(), {}
    due = f"status = 'Pending' AND timestamp <= {_sql(now)} AND timestamp >= {_sql(now, -settings.GRACE)}"
    if _take(ids, token, now, due) == len(ids):     # the usual case costs one statement
        return set(ids), {}
    mine = Q(status=Status.RUNNING, claim_token=token)
    rows = (ScheduledCall.objects.filter(mine | Q(status=Status.PENDING), id__in=ids).order_by()
            .annotate(now=as_column(now)).values_list("id", "status", "timestamp", "now"))
    won, pending = set(), {}
    for call_id, status, timestamp, at in rows:
        if status == Status.RUNNING:
            won.add(call_id)
        else:
            pending[call_id] = (timestamp - at).total_seconds()
    return won, pending


def _take(ids, token, now, ready, change=""):
    """One statement that makes those of the calls `ids` Running that are ready for it, or that this claim won before.

    ready: SQL, which are; change: SQL, what else is set
    Returns of how many.
    """
    change = f"SET status = 'Running', claim_token = %(token)s, lease_until = {_sql(now, lease())}, {change or 'started_at = NULL'}"
    which = f"id IN ({_numbers(ids)}) AND (status = 'Running' AND claim_token = %(token)s OR {ready})"
    if connection.vendor == "postgresql":
        # In the order of all who lock several rows, so that two do not wait for each other.
        statement = (f"WITH due AS MATERIALIZED (SELECT id FROM {CALLS} AS call WHERE {which} ORDER BY id FOR UPDATE)"
                     f" UPDATE {CALLS} AS call {change} FROM due WHERE call.id = due.id")
    else:
        statement = f"UPDATE {CALLS} AS call {change} WHERE {which}"
    with connection.cursor() as cursor:
        cursor.execute(statement, {"token": token, "now": None if now is NOW else connection.ops.adapt_datetimefield_value(now)})
        return cursor.rowcount


def _numbers(values):
    return ", ".join(map(str, map(int, values)))


class Prepared(NamedTuple):
    """What a call was made ready with, before it was anybody's."""

    id: int
    target: int | None      # its id, None if it names none
    version: int | None     # of that
    number: int             # of the attempt, from 1


class Claimed(NamedTuple):
    """What became of a claim. What is in none of these is somebody else's, or nobody's any more."""

    won: set
    pending: dict       # {id: seconds until it is due, or its next attempt is} of those that are to be made later
    held_back: set      # as its target takes no more at once
    anew: set           # to be made ready anew: its target was changed, or there was an attempt meanwhile
    running: dict       # {target id: how many are under way, with what was won}, of the targets with a limit


def claim_prepared(prepared, token, limited=(), now=NOW):
    """`claim` for calls that name a target, or are of a schedule whose calls must not overlap. Each claim counts an
    attempt. Of a schedule that skips what overlaps, a call ends as Missed here if one before it has not ended.

    prepared: list of Prepared, in the order in which they are to be made
    token: as for `claim`
    limited: the ids of their targets that take only so many calls at once. They are locked, so that all workers
        together keep to it
    Returns a Claimed.
    """
    answer = Claimed(set(), {}, set(), set(), {})
    some = [call for call in prepared if call.target not in limited]
    if some and _take_prepared(some, token, now) == len(some):      # the usual case costs one statement, as that of `claim`
        answer.won.update(call.id for call in some)
        prepared = [call for call in prepared if call.id not in answer.won]
    if prepared:
        _claim_one_by_one(prepared, token, limited, now, answer)
    return answer


def _take_prepared(prepared, token, now):
    """One statement for those of the calls `prepared` that need no closer look. Returns of how many."""
    versions, numbers = {(call.target, call.version) for call in prepared if call.target}, {}
    for call in prepared:
        numbers.setdefault(call.number, []).append(call.id)
    # What `_claim_one_by_one` asks of each, but what is paused, and what must not overlap, is left to it.
    known = " OR ".join(f"id IN ({_numbers(ids)}) AND COALESCE(attempts_made, 0) = {int(number) - 1}" for number, ids in numbers.items())
    ready = (f"({known}) AND (expires_at IS NULL OR expires_at >= {_sql(now)})"
             f" AND (status = 'Pending' AND timestamp <= {_sql(now)} AND (expires_at IS NOT NULL OR timestamp >= {_sql(now, -settings.GRACE)})"
             f" OR status = 'Retrying' AND next_attempt_at <= {_sql(now)})"
             f" AND NOT EXISTS (SELECT 1 FROM {Schedule._meta.db_table} AS schedule WHERE schedule.id = call.schedule_id"
             f" AND schedule.overlap = '{Schedule.Overlap.SKIP}')")
    if versions:
        same = " OR ".join(f"target.id = {int(target)} AND target.version = {int(version)}" for target, version in sorted(versions))
        ready += (f" AND (target_id IS NULL OR EXISTS (SELECT 1 FROM {Target._meta.db_table} AS target WHERE target.id = call.target_id"
                  f" AND target.paused_at IS NULL AND ({same})"
                  f" AND (call.status = 'Pending' OR call.timestamp >= {_before('COALESCE(target.max_age, %d)' % MAX_AGE, now)})))")
    else:
        ready += " AND target_id IS NULL"
    # The row says when the first request was sent.
    return _take([call.id for call in prepared], token, now, ready, (
        "started_at = CASE WHEN attempts_made > 0 THEN started_at END, attempts_made = CASE WHEN status = 'Running' THEN attempts_made"
        " WHEN target_id IS NOT NULL THEN COALESCE(attempts_made, 0) + 1 END"))


def _claim_one_by_one(prepared, token, limited, now, answer):
    """`claim_prepared` of calls each of which is looked at. `answer`: the Claimed, to which it adds."""
    mine, take, skipped = [], [], []
    with transaction.atomic():
        places = limits.places(limited, answer.running)
        calls = ScheduledCall.objects.filter(id__in=[call.id for call in prepared])
        # In the order of all who lock several rows, so that two do not wait for each other.
        rows = {row.id: row for row in calls.order_by("id").select_for_update(of=("self",)).annotate(now=as_column(now)).values_list(
            "id", "status", "claim_token", "timestamp", "next_attempt_at", "attempts_made", "expires_at", "target",
            "target__name", "target__version", "target__max_age", "target__paused_at", "target__paused_until", "schedule", "schedule__overlap",
            "now", named=True)}
        busy = _not_ended([row for row in rows.values() if row.schedule__overlap == Schedule.Overlap.SKIP
                           and row.status == Status.PENDING and row.timestamp <= row.now], now)
        for call in prepared:
            row = rows.get(call.id)
            if not row:
                continue
            first = row.status == Status.PENDING
            at = row.timestamp if first else row.next_attempt_at
            if row.status == Status.RUNNING:
                if row.claim_token == token:
                    mine.append(call.id)
            elif row.status not in (Status.PENDING, Status.RETRYING):
                continue
            elif at > row.now:
                answer.pending[call.id] = (at - row.now).total_seconds()
            elif row.now > last_start(row.timestamp, row.expires_at, first, row.target__max_age) or (
                    is_paused(row.target__paused_at, row.target__paused_until, row.now if not first else at)):
                continue                # `miss` ends it
            elif (call.target, call.version) != (row.target, row.target__version) or call.number != (row.attempts_made or 0) + 1:
                answer.anew.add(call.id)
            elif first and any(before < (row.timestamp, row.id) for before in busy.get(row.schedule, ())):
                skipped.append(row)
            elif places.get(row.target, 1) < 1:
                answer.held_back.add(call.id)
            else:
                take.append(call.id)
                if row.schedule__overlap == Schedule.Overlap.SKIP:
                    busy.setdefault(row.schedule, []).append((row.timestamp, row.id))
                if row.target in places:
                    places[row.target] -= 1
                    answer.running[row.target] += 1
        until = now + timedelta(seconds=lease())
        if mine:            # what the same claim won before, perhaps long ago
            calls.filter(id__in=mine).update(lease_until=until)
            answer.won.update(mine)
        if take:
            calls.filter(id__in=take).update(
                status=Status.RUNNING, claim_token=token, lease_until=until,
                # The row says when the first request was sent.
                started_at=Case(When(attempts_made__gt=0, then=F("started_at"))),
                attempts_made=Case(When(target__isnull=False, then=Coalesce(F("attempts_made"), 0) + 1)))
            answer.won.update(take)
        if skipped:
            calls.filter(id__in=[row.id for row in skipped]).update(status=Status.MISSED, ended_at=skipped[0].now, error=STILL_RUNS)
            _log([(Status.MISSED, row.timestamp, row.now, STILL_RUNS, row.target__name) for row in skipped])


def last_start(due, expires_at, first, max_age=None):
    """The last instant at which an attempt may begin.

    due, expires_at: aware datetimes, the latter or None, of the call; first: whether it is the first attempt
    max_age: seconds, of the target, or None
    """
    if first:
        return expires_at or due + timedelta(seconds=settings.GRACE)
    last = due + timedelta(seconds=age(max_age))
    return min(last, expires_at) if expires_at else last


def _not_ended(calls, now):
    """{schedule id: [(due, id), ...]} of the calls that have begun, or should have, and not ended, of the schedules of `calls`."""
    found = {}
    if calls:
        schedules = {call.schedule for call in calls}
        of = ScheduledCall.objects.filter(schedule__in=schedules)
        # As an expression, for which there is no index: SQLite of 2024 and later takes the schedule's for few Running calls.
        also_of = ScheduledCall.objects.annotate(of=F("schedule") + 0).filter(of__in=schedules)
        late = now - timedelta(seconds=settings.GRACE)
        # Each by its partial index: neither database reads all that the schedules ever did.
        for rows in (also_of.filter(status=Status.RUNNING).order_by("lease_until"),
                     also_of.filter(status=Status.RETRYING).order_by("next_attempt_at"),
                     of.filter(status=Status.PENDING, timestamp__gte=late, timestamp__lte=now).order_by("timestamp")):
            for schedule_id, *call in rows.values_list("schedule", "timestamp", "id"):
                found.setdefault(schedule_id, []).append(tuple(call))
    return found


def renew(ids, tokens, started=(), now=NOW):
    """Says that the worker that holds these calls is alive and busy with them.

    ids, tokens: the calls, and what they were claimed with
    started: [(id, aware datetime), ...] of those whose row is to say since when
    Returns the set of those ids that are still the worker's; `reap` may have ended the others.
    """
    rows = ScheduledCall.objects.filter(id__in=ids, status=Status.RUNNING, claim_token__in=tokens)
    # One transaction, as hundreds that hang may all have to say since when: nobody else's call is to wait for that.
    with transaction.atomic(), connection.cursor() as cursor:
        if rows.update(lease_until=now + timedelta(seconds=lease())) == len(ids):
            ours = set(ids)
        else:
            ours = set(rows.values_list("id", flat=True))
        as_stored = connection.ops.adapt_datetimefield_value
        cursor.executemany(
            f"UPDATE {CALLS} SET started_at = %s WHERE id = %s AND status = 'Running' AND started_at IS NULL",
            [(as_stored(started_at), call_id) for call_id, started_at in started if call_id in ours])
    return ours


def release(ids, tokens):
    """Makes calls Pending again, or Retrying, for which this worker has certainly sent nothing, and never will:
    they are handed over anew, and this was no attempt.

    ids, tokens: the calls, and what they were claimed with
    """
    ScheduledCall.objects.filter(id__in=ids, status=Status.RUNNING, claim_token__in=tokens).update(
        status=Case(When(attempts_made__gt=1, then=Value(Status.RETRYING)), default=Value(Status.PENDING)),
        started_at=Case(When(attempts_made__gt=1, then=F("started_at"))), attempts_made=F("attempts_made") - 1,
        claim_token="", lease_until=None, handed_over_at=None)


class End(NamedTuple):
    """What an attempt leaves in the row of its call."""

    status: str
    started_at: datetime | None
    ended_at: datetime | None       # of the call: None if there is to be another attempt
    http_status: int | None
    error: str
    failure: str | None
    next_attempt_at: datetime | None
    trace: str | None               # JSON
    id: int
    token: str


TYPES = "text", "timestamptz", "timestamptz", "smallint", "text", "text", "timestamptz", "jsonb", "bigint", "text"


def finish(outcomes, retries={}, kept_until=None):
    """Writes how attempts ended, and with them their calls, together.

    outcomes: list of (attempt.Outcome, the token that its call was claimed with)
    retries: {id: aware datetime, not before which there is another attempt}, of those for which there is one
    kept_until: aware datetime: what is made again before it the worker keeps itself, and nobody hands it over now
    Returns the set of the ids that were still this worker's to write; another may have been given
    up by `reap` already, and that stands.
    """
    ends, attempts = [], []
    for o, token in outcomes:
        trace = None
        if o.kept is not None and o.status != Status.MISSED:
            kept = {**o.kept, "request": {**o.kept.get("request", {}), "body": None}}
            if o.target_id and o.number == 1 and o.status == Status.SUCCEEDED and not o.kept.get("response", {}).get("body"):
                trace = json.dumps(kept)
            else:
                attempts.append(Attempt(
                    call_id=o.id, number=o.number, started_at=o.started_at, ended_at=o.ended_at, outcome=o.status,
                    failure=o.failure, http_status=o.http_status, error=o.error, kept=o.kept))
        again = retries.get(o.id)
        ends.append(End(str(Status.RETRYING if again else o.status), o.started_at, None if again else o.ended_at, o.http_status,
                        o.error, o.failure or None, again, trace, o.id, token))
    ours = _write(ends, attempts, kept_until)
    _log([(o.status, o.timestamp, o.started_at or o.ended_at, o.error, o.target)
          for o, token in outcomes if (o.id, token) in ours and o.id not in retries])
    return {call_id for call_id, _ in ours}


def _write(ends, attempts, kept_until=None):
    """Writes `ends`, a list of End, and the `attempts` of those that were still to be written, a list of Attempt.
    Returns the set of their (id, token)."""
    if not ends:
        return set()
    as_stored = connection.ops.adapt_datetimefield_value
    values = {(end.id, end.token): end._replace(**{name: as_stored(getattr(end, name)) for name in
                                                   ("started_at", "ended_at", "next_attempt_at")}) for end in ends}
    # `started_at` is that of the first request.
    change = ("status = {}, started_at = COALESCE(started_at, {}), ended_at = {}, http_status = {}, error = {}, failure = {},"
              " next_attempt_at = {}, trace = {}, lease_until = NULL")
    with (transaction.atomic() if attempts or connection.vendor == "sqlite" else nullcontext()), connection.cursor() as cursor:
        if connection.vendor == "postgresql":       # one statement, so that a burst waits for the server once
            change = change.replace("COALESCE(", "COALESCE(call.")
            cursor.execute(
                f"UPDATE {CALLS} AS call SET {change.format(*(f'v.v{i}' for i in range(8)))},"
                " handed_over_at = CASE WHEN v.v6 IS NULL OR v.v6 <= %s::timestamptz THEN call.handed_over_at END"
                f" FROM unnest({', '.join(f'%s::{kind}[]' for kind in TYPES)}) AS v(v0, v1, v2, v3, v4, v5, v6, v7, id, token)"
                " WHERE call.id = v.id AND call.claim_token = v.token AND (call.status = 'Running'"
                # Or it was written already, and the answer was lost: its line is still to be written. (What
                # `reap` gave up in the same microsecond has another error.)
                " OR call.status = v.v0 AND call.ended_at = v.v2 AND call.error = v.v4)"
                " RETURNING call.id, call.claim_token", [kept_until, *(list(column) for column in zip(*values.values()))])
            ours = set(cursor.fetchall())
        else:
            cursor.execute(f"SELECT id, claim_token FROM {CALLS} WHERE status = 'Running'"
                           f" AND id IN ({', '.join(str(end.id) for end in ends)})")
            ours = values.keys() & set(cursor.fetchall())
            cursor.executemany(
                f"UPDATE {CALLS} SET {change.format(*['%s'] * 8)} WHERE id = %s AND claim_token = %s",
                [values[key] for key in ours])
            if again := [(end.id,) for end in ends if end.next_attempt_at and (end.id, end.token) in ours
                         and not (kept_until and end.next_attempt_at <= kept_until)]:
                cursor.executemany(f"UPDATE {CALLS} SET handed_over_at = NULL WHERE id = %s", again)
        mine = {call_id for call_id, _ in ours}
        # Written already, if the answer was lost.
        Attempt.objects.bulk_create([attempt for attempt in attempts if attempt.call_id in mine], ignore_conflicts=True)
    return ours


def miss(now=NOW):
    """Ends every Pending call that is too late, and every Retrying one that may not be tried again; and what falls due
    while its target is paused. Returns how many."""
    late = now - timedelta(seconds=settings.GRACE)
    pending = Q(status=Status.PENDING)
    ended = _end_all(pending & Q(timestamp__lt=late, expires_at=None), "timestamp", Status.MISSED, _not_started, now)
    ended += _end_all(pending & Q(timestamp__lt=now, expires_at__lt=now), "timestamp", Status.MISSED, _not_started, now)
    for target in Target.objects.filter(paused_q(late)):
        due = Q(timestamp__lte=now) & (Q(timestamp__lt=target.paused_until) if target.paused_until else Q())
        ended += _end_all(pending & due & Q(target=target), "timestamp", Status.MISSED, f"its target is {target.pause}", now)
    retrying = ScheduledCall.objects.filter(status=Status.RETRYING, next_attempt_at__lte=now).order_by("next_attempt_at")
    for target in Target.objects.filter(id__in=set(retrying.values_list("target", flat=True))).annotate(now=as_column(now)):
        of = Q(status=Status.RETRYING, target=target, next_attempt_at__lte=now)
        if target.is_paused(target.now):
            ended += _give_up(of, f"its target is {target.pause}", now)
        most = age(target.max_age)
        ended += _give_up(of & Q(timestamp__lt=target.now - timedelta(seconds=most)), f"it is older than {most:g} s", now)
        ended += _give_up(of & Q(expires_at__lt=now), "it has expired", now)
    return ended


def _give_up(which, why, now):
    """Ends Retrying calls as Failed: what was wrong the last time stays, and why there is no other attempt is added."""
    return _end_all(which, "next_attempt_at", Status.FAILED,
                    lambda row, _: f"{row.error[:500 - len(why) - len(NOT_AGAIN)]}{NOT_AGAIN}{why}", now)


def _not_started(row, target):
    """Why a call that is too late was not started: str."""
    within = (f"before it expired, {(row.expires_at - row.timestamp).total_seconds():.3g} s after its time" if row.expires_at else
              f"within {settings.GRACE:g} s of its time")
    limit = limits.words(target) if target else ""
    return f"not started {within}" + (f"; its target takes {limit}" if limit else "")


def reap(now=NOW):
    """Ends every Running call whose worker has given no sign of life for as long as it said: nobody
    knows whether the API got it, so it is not repeated, unless its target says that it may be. Returns how many.

    A `started_at` before its time is of a worker of an older version, which wrote it as it claimed the call, up to
    a second early: nobody knows when that was sent, or whether."""
    lost = Q(status=Status.RUNNING, lease_until__lt=now)
    reaped = _end_all(lost & Q(target=None), "lease_until", Status.FAILED, WORKER_LOST, now,
                      started_at=Case(When(started_at__gte=F("timestamp"), then=F("started_at"))))
    while True:
        with transaction.atomic():
            calls = list(unlocked(ScheduledCall.objects.filter(lost, target__isnull=False).order_by("lease_until"))
                         .annotate(now=as_column(now))[:BATCH])
            targets = Target.objects.in_bulk({call.target_id for call in calls})
            ends, attempts, ended = [], [], []
            for call in calls:
                target, number = targets[call.target_id], call.attempts_made
                again = outcomes.next_attempt(
                    outcomes.UNKNOWN, number, call.now, call.timestamp, call.expires_at, delays(call, target),
                    age(target.max_age), target.safe)
                attempts.append(Attempt(
                    call=call, number=number, started_at=call.started_at if number == 1 else None, ended_at=call.now,
                    outcome=Status.FAILED, failure=outcomes.UNKNOWN, error=WORKER_LOST, kept={"version": target.version}))
                ends.append(End(str(Status.RETRYING if again else Status.FAILED), call.started_at, None if again else call.now,
                                None, WORKER_LOST, outcomes.UNKNOWN, again, None, call.id, call.claim_token))
                if not again:
                    ended.append((Status.FAILED, call.timestamp, attempts[-1].started_at or call.now, WORKER_LOST, target.name))
            _write(ends, attempts)
            _log(ended)
        reaped += len(calls)
        if len(calls) < BATCH:
            return reaped


def _name(target):
    return target.name if target else None


def _end_all(condition, order, status, error, now, **values):
    """Ends all calls for which `condition` holds, in batches, each with its log line, and each stamped
    with the time at which it is ended.

    order: the field that the partial index for `condition` is of. Without it PostgreSQL guesses that
        among a million rows the first of a batch will soon be met, and reads them all: a tick of
        45 ms instead of 2.
    error: why, a str, or a function that says it of a row and its Target or None
    values: what else is written
    """
    ended = 0
    while True:
        with transaction.atomic():
            rows = list(unlocked(ScheduledCall.objects.filter(condition).order_by(order)).annotate(now=as_column(now))
                        .values_list("id", "timestamp", "started_at", "expires_at", "target", "error", "now", named=True)[:BATCH])
            reasons = {}        # each with its rows: one, as a rule
            targets = Target.objects.in_bulk({row.target for row in rows if row.target})     # asks nothing if there is none
            for row in rows:
                reasons.setdefault(error(row, targets.get(row.target)) if callable(error) else error, []).append(row)
            for reason, some in reasons.items():
                ScheduledCall.objects.filter(condition, id__in=[row.id for row in some]).update(
                    status=status, ended_at=rows[0].now, error=reason, lease_until=None, next_attempt_at=None, **values)
                # (What is given up between two attempts had its first long ago.)
                fired = {row.id: row.started_at for row in some
                         if row.target is None and row.started_at and row.started_at >= row.timestamp}
                _log([(status, row.timestamp, fired.get(row.id, row.now), reason, _name(targets.get(row.target))) for row in some])
        ended += len(rows)
        if len(rows) < BATCH:
            return ended


def cancel(ids, *, by="", now=NOW):
    """Cancels those of the calls `ids` that are Pending or Retrying, each batch in one UPDATE.

    by: the name of the user who asked for it, "" for nobody who is known
    Returns the list of the ids that it cancelled.
    """
    return [row[0] for some in batches(ids)
            for row in _cancel(ScheduledCall.objects.filter(id__in=some), by, now, (Status.PENDING, Status.RETRYING))]


def try_now(call_id, now=NOW):
    """Has the next attempt of a Retrying call made at once. Returns whether it was Retrying; the caller hands it over
    (dispatch.hand_over_soon)."""
    return bool(ScheduledCall.objects.filter(id=call_id, status=Status.RETRYING).update(
        next_attempt_at=now, handed_over_at=None))


def move(call_id, timestamp):
    """Gives a Pending call another time. Returns whether it was Pending. (One that is Retrying was called at its time.)

    timestamp: aware datetime. A message already under way for the old time does no harm: `claim`
    looks at the time in the row. Where it would have expired by then, GRACE counts.
    """
    return bool(ScheduledCall.objects.filter(id=call_id, status=Status.PENDING).update(
        timestamp=timestamp, handed_over_at=None,
        expires_at=Case(When(expires_at__gt=timestamp, then=F("expires_at")))))
