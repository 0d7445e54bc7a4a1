"""Every change of a call's status, and nothing else changes it.

        schedule        hand_over        claim            finish
    (nothing) --> Pending  (Pending)  --> Running --> Succeeded | Failed | Missed
                     |                       |
        miss, cancel |                       | reap: its worker gave no sign of life
                     v                       v
          Missed | Cancelled               Failed

Each is a conditional UPDATE and a look at which rows it changed: "somebody else was first" is a
normal case and needs no lock that outlives a statement. That makes duplicate messages, two
dispatchers and late workers harmless. Each writes the log lines of the calls it ended, after its
transaction is safe.

Two clocks: due times are compared with the clock of the machine (all need NTP), leases with the
clock of the database alone, so that a machine with a wrong clock cannot take another's work for
dead.
"""
import logging
import uuid
from datetime import timedelta
from itertools import groupby

from django.conf import settings
from django.db import connection, transaction
from django.db.models import DateTimeField, ExpressionWrapper, Q, Value
from django.db.models.functions import Now

from . import call_log, metrics
from .models import Heartbeat, IdempotentAnswer, ScheduledCall

logger = logging.getLogger(__name__)
Status = ScheduledCall.Status

BATCH = 1000                        # rows in one transaction, so that none is a long one
LOST_AFTER = timedelta(seconds=2)   # past due and still Pending: its message may be lost,
AGAIN_AFTER = timedelta(seconds=5)  # so it is handed over again, but not more often than this

WORKER_LOST = "worker lost, outcome unknown"


def _log(ended):
    """Writes the log lines of `ended`, a list of arguments for call_log.line, once committed."""
    if ended:
        lines = [call_log.line(*arguments) for arguments in ended]
        transaction.on_commit(lambda: call_log.write(lines))


def _locked(rows):
    """The rows, locked against other changes; those that somebody else is changing are left out.

    SQLite has no row locks: there the transaction, being IMMEDIATE, holds the one write lock.
    """
    if connection.features.has_select_for_update_skip_locked:
        return rows.select_for_update(skip_locked=True)
    return rows


def schedule(timestamps):
    """Creates Pending calls.

    timestamps: list of aware datetimes
    Returns the list of the new ScheduledCall objects, in the same order.
    """
    return ScheduledCall.objects.bulk_create(
        [ScheduledCall(timestamp=timestamp) for timestamp in timestamps], batch_size=BATCH)


def hand_over(send, now, ids=None):
    """Gives the broker every call that is due within WINDOW and not given to it yet, or whose
    message seems lost. Safe to run any number of times at once.

    send(ids, first): called for each chunk with the ids of at most CHUNK calls of one same second
        and the aware datetime of the first of them; raises what it likes when the broker is down.
    now: aware datetime
    ids: only these calls, or None for all
    Returns the number of calls handed over. Raises what `send` raised; the calls that it did not
    take are free to be handed over the next time.
    """
    waiting = ScheduledCall.objects.filter(
        Q(handed_over_at=None)
        | Q(timestamp__lt=now - LOST_AFTER, handed_over_at__lt=now - AGAIN_AFTER),
        status=Status.PENDING, timestamp__lte=now + timedelta(seconds=settings.WINDOW),
    ).order_by("timestamp")
    if ids is None:
        batches = [None] * 1000     # a bound: whatever is left is for the next tick
    else:
        batches = [ids[i:i + BATCH] for i in range(0, len(ids), BATCH)]

    handed_over = 0
    for some in batches:
        with transaction.atomic():
            rows = waiting if some is None else waiting.filter(id__in=some)
            calls = list(_locked(rows).values_list("id", "timestamp")[:BATCH])
            if calls:
                ScheduledCall.objects.filter(
                    id__in=[call_id for call_id, _ in calls], status=Status.PENDING,
                ).update(handed_over_at=now)
        # The network is spoken to only outside of a transaction. Should this process die right
        # here, these calls are Pending and past due before long, and are handed over again.
        chunks = list(_chunks(calls))
        for position, chunk in enumerate(chunks):
            try:
                send([call_id for call_id, _ in chunk], chunk[0][1])
            except Exception:
                unsent = [call_id for late in chunks[position:] for call_id, _ in late]
                ScheduledCall.objects.filter(
                    id__in=unsent, status=Status.PENDING, handed_over_at=now,
                ).update(handed_over_at=None)
                raise
            handed_over += len(chunk)
        if some is None and len(calls) < BATCH:
            break
    return handed_over


def _chunks(calls):
    """Cuts [(id, timestamp), ...], ordered by timestamp, into lists of at most CHUNK calls of the
    same second."""
    for _, same_second in groupby(calls, lambda call: call[1].replace(microsecond=0)):
        same_second = list(same_second)
        for i in range(0, len(same_second), settings.CHUNK):
            yield same_second[i:i + settings.CHUNK]


def _lease_end():
    return ExpressionWrapper(
        Now() + Value(timedelta(seconds=settings.LEASE)), output_field=DateTimeField())


def claim(ids, now, until):
    """Makes the calls this worker's own: who gets a row here is the only one who may call for it.

    ids: the calls to claim
    now: aware datetime; calls that fell due more than GRACE before it are left to `miss`
    until: aware datetime; calls due at it or later are left alone (somebody moved them)
    Returns (token, [(id, timestamp), ...]), the calls that were won, ordered by timestamp.
    """
    token = uuid.uuid4().hex
    won = ScheduledCall.objects.filter(
        id__in=ids, status=Status.PENDING, timestamp__lt=until,
        timestamp__gte=now - timedelta(seconds=settings.GRACE),
    ).update(status=Status.RUNNING, claim_token=token, lease_until=_lease_end(), started_at=now)
    if not won:
        return token, []
    return token, list(
        ScheduledCall.objects.filter(id__in=ids, claim_token=token)
        .order_by("timestamp", "id").values_list("id", "timestamp"))


def renew(ids, token):
    """Says that the worker that holds `token` is alive and busy with these calls."""
    ScheduledCall.objects.filter(
        id__in=ids, status=Status.RUNNING, claim_token=token).update(lease_until=_lease_end())


def finish(outcomes, token):
    """Writes how calls ended, together.

    outcomes: collection of caller.Outcome
    token: what `claim` returned for them
    Returns the set of the ids that were still this worker's to write; another may have been given
    up by `reap` already, and that stands.
    """
    by_id = {outcome.id: outcome for outcome in outcomes}
    as_stored = connection.ops.adapt_datetimefield_value
    with transaction.atomic():
        rows = ScheduledCall.objects.filter(
            id__in=list(by_id), status=Status.RUNNING, claim_token=token)
        if connection.features.has_select_for_update:
            rows = rows.select_for_update()
        ours = set(rows.values_list("id", flat=True))
        # A thousand different rows in one go: 15 ms, where bulk_update builds a CASE of a thousand
        # branches for each column and takes 25 times as long.
        with connection.cursor() as cursor:
            cursor.executemany(
                f"UPDATE {ScheduledCall._meta.db_table} SET status = %s, started_at = %s,"
                " ended_at = %s, http_status = %s, error = %s, lease_until = NULL WHERE id = %s",
                [(str(o.status), as_stored(o.started_at), as_stored(o.ended_at), o.http_status,
                  o.error, o.id) for o in outcomes if o.id in ours])
        _log([(o.status, o.timestamp, o.started_at or o.ended_at, o.error)
              for o in outcomes if o.id in ours])
    return ours


def miss(now):
    """Ends every Pending call whose grace time is over. Returns how many.

    now: aware datetime
    """
    return _end_all(
        Q(status=Status.PENDING, timestamp__lt=now - timedelta(seconds=settings.GRACE)), "timestamp",
        Status.MISSED, now, f"not started within {settings.GRACE:g} s of its time")


def reap(now):
    """Ends every Running call whose worker has given no sign of life for LEASE: nobody knows
    whether the API got it, so it is not repeated. Returns how many.

    now: aware datetime, written as the time of the end; the lease is judged by the database
    """
    return _end_all(
        Q(status=Status.RUNNING, lease_until__lt=Now()), "lease_until", Status.FAILED, now, WORKER_LOST)


def _end_all(condition, order, status, now, error):
    """Ends all calls for which `condition` holds, in batches, each with its log line.

    order: the field that the partial index for `condition` is of. Without it PostgreSQL guesses that
        among a million rows the first of a batch will soon be met, and reads them all: a tick of
        45 ms instead of 2.
    """
    ended = 0
    while True:
        with transaction.atomic():
            rows = list(_locked(ScheduledCall.objects.filter(condition).order_by(order))
                        .values_list("id", "timestamp", "started_at")[:BATCH])
            if rows:
                ScheduledCall.objects.filter(condition, id__in=[row[0] for row in rows]).update(
                    status=status, ended_at=now, error=error, lease_until=None)
            _log([(status, timestamp, started_at or now, error) for _, timestamp, started_at in rows])
        ended += len(rows)
        if len(rows) < BATCH:
            return ended


def cancel(call_id, now):
    """Cancels a Pending call. Returns whether it was Pending.

    now: aware datetime
    """
    with transaction.atomic():
        cancelled = ScheduledCall.objects.filter(id=call_id, status=Status.PENDING).update(
            status=Status.CANCELLED, ended_at=now)
        if cancelled:
            timestamp = ScheduledCall.objects.values_list("timestamp", flat=True).get(id=call_id)
            _log([(Status.CANCELLED, timestamp, now)])
    return bool(cancelled)


def move(call_id, timestamp):
    """Gives a Pending call another time. Returns whether it was Pending.

    timestamp: aware datetime. A message already under way for the old time does no harm: `claim`
    looks at the time in the row.
    """
    return bool(ScheduledCall.objects.filter(id=call_id, status=Status.PENDING).update(
        timestamp=timestamp, handed_over_at=None))


def beat(now):
    """Notes that the dispatcher ran and did all its work, for /healthz.

    now: aware datetime
    """
    Heartbeat.objects.update_or_create(name="dispatcher", defaults={"at": now})


def prune(before, keys_before):
    """Deletes the calls that ended before `before`, and the answers kept for idempotency from
    before `keys_before`, in batches, so that nobody waits long for a lock.

    before, keys_before: aware datetimes
    Returns (calls, answers) deleted. Safe to interrupt and to run again.
    """
    def in_batches(rows, first=lambda batch: None):
        deleted = last = 0
        while ids := list(rows.filter(id__gt=last).order_by("id").values_list("id", flat=True)[:BATCH]):
            last = ids[-1]
            with transaction.atomic():
                first(rows.filter(id__in=ids))
                # _raw_delete: one DELETE, without fetching each row for signals that nobody listens to.
                deleted += rows.filter(id__in=ids)._raw_delete(rows.db)
        return deleted

    return (
        in_batches(ScheduledCall.objects.filter(status__in=ScheduledCall.FINISHED, ended_at__lt=before),
                   metrics.keep),
        in_batches(IdempotentAnswer.objects.filter(created_at__lt=keys_before)),
    )
