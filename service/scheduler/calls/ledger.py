"""Every change of a call's status, and nothing else changes it.

    schedule, plan      hand_over        claim            finish
    (nothing) --> Pending  (Pending)  --> Running --> Succeeded | Failed | Missed
                     |          <-----       |
        miss, cancel |          release      | reap: its worker gave no sign of life
   withdraw, correct v                       v
          Missed | Cancelled               Failed

(`hand_over`, in dispatch.py, leaves it as it is.) Each is a conditional UPDATE and a look at which rows it
changed: "somebody else was first" is a normal case and needs no lock that outlives a statement. That makes duplicate messages, two
dispatchers and late workers harmless. Each writes the log lines of the calls it ended, after its
transaction is safe.

One clock: due times and leases are compared with the clock of the database, by the database, so
that a machine with a wrong clock takes no call too early, misses none that is yet to come, and takes
nobody's work for dead. Where a function has a parameter `now`, that clock is its default; a test may
give an aware datetime.
"""
import logging
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, DateTimeField, F, Q, Value, When
from django.db.models.functions import Now

from ..base.clock import utcnow
from ..models import CallRequest, Schedule, ScheduledCall, Target
from . import limits, log

logger = logging.getLogger(__name__)
Status = ScheduledCall.Status

BATCH = 1000                        # rows in one transaction, so that none is a long one


RENEW_EVERY = 2         # seconds between two signs of life of a worker

WORKER_LOST = "worker lost, outcome unknown"
WITHDRAWN = "its schedule was changed, switched off or deleted"
CALLS = ScheduledCall._meta.db_table
MISPLANNED = "its schedule does not come then: it was planned by older time zone data, or by an older version"
UNPLANNED = "its schedule was not planned in time, no dispatcher ran"
NOW = Now()             # the database's clock, at the beginning of a statement


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


def schedule(timestamps=(), *, by="", via="", note="", again_of=None, calls=None):
    """Creates Pending calls, all with the same `created_at`: so those of one request can be told from
    others of its time. All or none of them.

    timestamps: list of aware datetimes
    by: the name of the user who asked for them, "" for nobody who is known; via: "API" or "admin"
    note: what they are for, a str of at most NOTE_MAX characters
    again_of: for calls that repeat others, the list of the others' ids, one for each timestamp; without a
        note of their own they have those others' notes. (What those were called with, `again` knows.)
    calls: in place of `timestamps` and `again_of`, a list of NewCall; `note` is that of those without one
    Returns the list of the new ScheduledCall objects, in the same order.
    """
    if calls is None:
        notes = {}
        for i in range(0, len(again_of or []), BATCH):
            notes |= ScheduledCall.objects.filter(id__in=again_of[i:i + BATCH]).values_list("id", "note")
        calls = [NewCall(timestamp, note or notes.get(old, ""), again_of=old)
                 for timestamp, old in zip(timestamps, again_of or [None] * len(timestamps), strict=True)]
    created_at = utcnow()
    rows = [ScheduledCall(timestamp=new.timestamp, created_at=created_at, scheduled_by=by, scheduled_via=via,
                          note=new.note or note, again_of=new.again_of, target=new.target, schedule=new.schedule,
                          expires_at=new.expires_at) for new in calls]
    own = [i for i, new in enumerate(calls) if new.body is not None or new.headers or new.data]
    with transaction.atomic() if own else nullcontext():
        rows = ScheduledCall.objects.bulk_create(rows, batch_size=BATCH)
        CallRequest.objects.bulk_create(
            [CallRequest(call=rows[i], body=calls[i].body, headers=calls[i].headers, data=calls[i].data) for i in own],
            batch_size=BATCH)
    return rows


def again(ids, by="", via="", note=""):
    """Creates calls that repeat others, with their target and what was sent with them. They are due now, but those of a
    target with a rate one after the other, as that allows, and expire late enough to wait for it beside as many more.

    ids: the calls to repeat, in the order in which they are to be made
    by, via, note: as for `schedule`; without a note each has that of the call that it repeats
    Returns the list of the new ScheduledCall objects, in the same order; those of `ids` that do not exist are left out.
    """
    calls, now, lines = [], utcnow(), Counter()
    for i in range(0, len(ids), BATCH):
        olds = ScheduledCall.objects.select_related("target", "schedule", "request").in_bulk(ids[i:i + BATCH])
        for old in (olds[call_id] for call_id in ids[i:i + BATCH] if call_id in olds):
            # What names no target is made as ever, and is of no schedule.
            new = NewCall(now, note or old.note, old.target, schedule=old.schedule if old.target else None, again_of=old.id)
            if hasattr(old, "request"):
                new.body, new.headers, new.data = old.request.body, old.request.headers, old.request.data
            calls.append(new)
            lines[new.target] += 1
    places = Counter()
    for new in calls:
        rate = new.target and limits.parse(new.target.rate)
        if rate and lines[new.target] > 1:
            each = timedelta(seconds=rate.seconds / rate.number)
            new.timestamp += places[new.target] * each
            new.expires_at = new.timestamp + timedelta(seconds=settings.GRACE) + lines[new.target] * each
            places[new.target] += 1
    return schedule(by=by, via=via, calls=calls)


def plan(slots, now):
    """Creates the calls of schedules: Pending, or Missed where their grace time was over before anybody
    planned them.

    slots: [(schedule id, aware datetime, seconds by which its clocks are ahead of UTC then), ...], for which
        there are none yet
    now: aware datetime
    """
    as_stored = connection.ops.adapt_datetimefield_value
    late, stored_now = now - timedelta(seconds=settings.GRACE), as_stored(now)
    with transaction.atomic(), connection.cursor() as cursor:
        # A thousand in 10 ms of SQLite's one write lock, where bulk_create takes 100.
        cursor.executemany(
            f"INSERT INTO {CALLS} (schedule_id, occurrence, timestamp, utc_offset, status, ended_at,"
            " error, created_at, scheduled_via, scheduled_by, note, cancelled_by, claim_token)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'schedule', '', '', '', '')",
            [(schedule_id, stored := as_stored(time), stored, offset,
              *((str(Status.MISSED), stored_now, UNPLANNED) if time < late else (str(Status.PENDING), None, "")),
              stored_now) for schedule_id, time, offset in slots])
        _log([(Status.MISSED, time, now) for _, time, _ in slots if time < late])


def withdraw(schedule_id, by="", now=NOW):
    """Cancels the Pending calls of a schedule that is being changed or deleted, and gives their
    occurrences free to be planned anew. Others keep theirs: one that a person cancelled stays so, and
    one whose grace time is over is left to `miss`.

    by: the name of the user who asked for it
    Returns the set of those occurrences, as aware datetimes, but for those whose call was moved.
    """
    freed = set()
    rows = ScheduledCall.objects.filter(
        schedule=schedule_id, timestamp__gte=now - timedelta(seconds=settings.GRACE))
    with transaction.atomic():
        while some := _cancel(rows, by, now, occurrence=None, error=WITHDRAWN):
            freed |= {occurrence for _, timestamp, occurrence, _ in some if timestamp == occurrence}
    return freed


def correct(ids, now):
    """Cancels those of the calls `ids`, of a schedule that does not come at their times, that are Pending, and gives
    their occurrences free. Those that a person moved stay, as do those whose grace time is over.

    now: aware datetime
    Returns the set of the ids that it cancelled.
    """
    gone = set()
    rows = ScheduledCall.objects.filter(
        id__in=ids, timestamp=F("occurrence"), timestamp__gte=now - timedelta(seconds=settings.GRACE))
    with transaction.atomic():
        while some := _cancel(rows, "", NOW, occurrence=None, error=MISPLANNED):
            gone |= {row[0] for row in some}
    return gone


def _cancel(rows, by, now, **values):
    """Cancels the first BATCH of `rows` that are Pending, and gives them these `values`.

    Returns [(id, timestamp, occurrence, when it was cancelled), ...].
    """
    with transaction.atomic():
        # In the order of all who lock several rows, so that two do not wait for each other.
        some = list(rows.filter(status=Status.PENDING).order_by("id").select_for_update().annotate(now=as_column(now))
                    .values_list("id", "timestamp", "occurrence", "now")[:BATCH])
        if some:
            ScheduledCall.objects.filter(id__in=[row[0] for row in some], status=Status.PENDING).update(
                status=Status.CANCELLED, ended_at=some[0][3], cancelled_by=by, **values)
        _log([(Status.CANCELLED, timestamp, at) for _, timestamp, _, at in some])
    return some


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
    change = f"SET status = 'Running', claim_token = %(token)s, started_at = NULL, lease_until = {_sql(now, lease())}"
    which = (f"id IN ({', '.join(map(str, map(int, ids)))})"
             " AND (status = 'Running' AND claim_token = %(token)s OR status = 'Pending'"
             f" AND timestamp <= {_sql(now)} AND timestamp >= {_sql(now, -settings.GRACE)})")
    if connection.vendor == "postgresql":
        # In the order of all who lock several rows, so that two do not wait for each other.
        statement = (f"WITH due AS MATERIALIZED (SELECT id FROM {CALLS} WHERE {which} ORDER BY id FOR UPDATE)"
                     f" UPDATE {CALLS} AS call {change} FROM due WHERE call.id = due.id")
    else:
        statement = f"UPDATE {CALLS} {change} WHERE {which}"
    with connection.cursor() as cursor:
        cursor.execute(statement, {"token": token, "now": None if now is NOW else connection.ops.adapt_datetimefield_value(now)})
        if cursor.rowcount == len(ids):      # the usual case costs one statement
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


def renew(ids, tokens, started=(), now=NOW):
    """Says that the worker that holds these calls is alive and busy with them.

    ids, tokens: the calls, and what they were claimed with
    started: [(id, aware datetime), ...] of those whose row is to say since when
    Returns the set of those ids that are still the worker's; `reap` may have ended the others.
    """
    rows = ScheduledCall.objects.filter(id__in=ids, status=Status.RUNNING, claim_token__in=tokens)
    if rows.update(lease_until=now + timedelta(seconds=lease())) == len(ids):
        ours = set(ids)
    else:
        ours = set(rows.values_list("id", flat=True))
    for call_id, started_at in started:
        rows.filter(id=call_id).update(started_at=started_at)
    return ours


def release(ids, tokens):
    """Makes calls Pending again for which this worker has certainly sent nothing, and never will:
    they are handed over anew.

    ids, tokens: the calls, and what they were claimed with
    """
    ScheduledCall.objects.filter(id__in=ids, status=Status.RUNNING, claim_token__in=tokens).update(
        status=Status.PENDING, claim_token="", lease_until=None, started_at=None, handed_over_at=None)


def finish(outcomes):
    """Writes how calls ended, together.

    outcomes: list of (attempt.Outcome, the token that its call was claimed with)
    Returns the set of the ids that were still this worker's to write; another may have been given
    up by `reap` already, and that stands.
    """
    if not outcomes:
        return set()
    as_stored = connection.ops.adapt_datetimefield_value
    values = {(o.id, token): (str(o.status), as_stored(o.started_at), as_stored(o.ended_at), o.http_status,
                              o.error, o.id, token) for o, token in outcomes}
    change = "status = {}, started_at = {}, ended_at = {}, http_status = {}, error = {}, lease_until = NULL"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":       # one statement, so that a burst waits for the server once
            cursor.execute(
                f"UPDATE {CALLS} AS call SET {change.format(*(f'v.v{i}' for i in range(5)))}"
                " FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[], %s::smallint[], %s::text[],"
                " %s::bigint[], %s::text[]) AS v(v0, v1, v2, v3, v4, id, token)"
                " WHERE call.id = v.id AND call.claim_token = v.token AND (call.status = 'Running'"
                # Or it was written already, and the answer was lost: its line is still to be written. (What
                # `reap` gave up in the same microsecond has another error.)
                " OR call.status = v.v0 AND call.ended_at = v.v2 AND call.error = v.v4)"
                " RETURNING call.id, call.claim_token", [list(column) for column in zip(*values.values())])
            ours = set(cursor.fetchall())
        else:
            with transaction.atomic():
                cursor.execute(f"SELECT id, claim_token FROM {CALLS} WHERE status = 'Running'"
                               f" AND id IN ({', '.join(str(o.id) for o, _ in outcomes)})")
                ours = values.keys() & set(cursor.fetchall())
                cursor.executemany(
                    f"UPDATE {CALLS} SET {change.format(*['%s'] * 5)} WHERE id = %s AND claim_token = %s",
                    [values[key] for key in ours])
    _log([(o.status, o.timestamp, o.started_at or o.ended_at, o.error)
          for o, token in outcomes if (o.id, token) in ours])
    return {call_id for call_id, _ in ours}


def miss(now=NOW):
    """Ends every Pending call whose grace time is over. Returns how many."""
    return _end_all(
        Q(status=Status.PENDING, timestamp__lt=now - timedelta(seconds=settings.GRACE)), "timestamp",
        Status.MISSED, f"not started within {settings.GRACE:g} s of its time", now)


def reap(now=NOW):
    """Ends every Running call whose worker has given no sign of life for as long as it said: nobody
    knows whether the API got it, so it is not repeated. Returns how many.

    A `started_at` before its time is of a worker of an older version, which wrote it as it claimed the call, up to
    a second early: nobody knows when that was sent, or whether."""
    return _end_all(Q(status=Status.RUNNING, lease_until__lt=now), "lease_until", Status.FAILED, WORKER_LOST, now,
                    started_at=Case(When(started_at__gte=F("timestamp"), then=F("started_at"))))


def _end_all(condition, order, status, error, now, **values):
    """Ends all calls for which `condition` holds, in batches, each with its log line, and each stamped
    with the time at which it is ended.

    order: the field that the partial index for `condition` is of. Without it PostgreSQL guesses that
        among a million rows the first of a batch will soon be met, and reads them all: a tick of
        45 ms instead of 2.
    values: what else is written
    """
    ended = 0
    while True:
        with transaction.atomic():
            rows = list(unlocked(ScheduledCall.objects.filter(condition).order_by(order)).annotate(now=as_column(now))
                        .values_list("id", "timestamp", "started_at", "now")[:BATCH])
            if rows:
                ScheduledCall.objects.filter(condition, id__in=[row[0] for row in rows]).update(
                    status=status, ended_at=rows[0][3], error=error, lease_until=None, **values)
            _log([(status, timestamp, started_at if started_at and started_at >= timestamp else at, error)
                  for _, timestamp, started_at, at in rows])
        ended += len(rows)
        if len(rows) < BATCH:
            return ended


def cancel(ids, *, by="", now=NOW):
    """Cancels those of the calls `ids` that are Pending, each batch in one UPDATE.

    by: the name of the user who asked for it, "" for nobody who is known
    Returns the list of the ids that it cancelled.
    """
    batches = (ids[i:i + BATCH] for i in range(0, len(ids), BATCH))
    return [row[0] for batch in batches
            for row in _cancel(ScheduledCall.objects.filter(id__in=batch), by, now)]


def move(call_id, timestamp):
    """Gives a Pending call another time. Returns whether it was Pending.

    timestamp: aware datetime. A message already under way for the old time does no harm: `claim`
    looks at the time in the row.
    """
    return bool(ScheduledCall.objects.filter(id=call_id, status=Status.PENDING).update(
        timestamp=timestamp, handed_over_at=None))
