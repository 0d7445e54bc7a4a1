"""Handing over: a call that is due soon is given to the broker, in a message with others of its second, and
again when the message seems lost. And the dispatcher's sign of life, for /healthz.
"""
import logging
from datetime import timedelta
from itertools import groupby, repeat

import kombu.exceptions
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Q

from ..base import outage
from ..base.clock import utcnow
from ..models import Heartbeat, ScheduledCall
from . import targets
from .ledger import BATCH, NOW, as_column, batches, unlocked

logger = logging.getLogger(__name__)
Status = ScheduledCall.Status

WAITING = Status.PENDING, Status.RETRYING
MAKE_CALLS = "scheduler.tasks.make_calls"   # by name: tasks stand above
LOST_AFTER = timedelta(seconds=2)   # past due and still Pending: its message may be lost,
AGAIN_AFTER = timedelta(seconds=5)  # so it is handed over again, but not more often than this
HELD_BACK = timedelta(seconds=20)   # for which a worker that holds calls back says that it has them; shorter than GRACE


def send(ids, first):
    """Gives one chunk to the broker.

    ids: list of int; first: aware datetime, when the first of its calls is due
    """
    current_app.send_task(MAKE_CALLS, (ids, first.isoformat()))
    outage.broker.over()


def created(calls):
    """Of a transaction that has created `calls`, at its end: they are of use, and those that are due too soon to wait for
    the dispatcher are handed over. Raises Target.DoesNotExist, with words, if one of their targets was deleted meanwhile."""
    targets.still_there(call.target_id for call in calls if call.target_id)
    soon = utcnow() + timedelta(seconds=settings.WINDOW)
    hand_over_soon([call.pk for call in calls if call.timestamp <= soon])


def hand_over_soon(ids):
    """After the transaction under way: hands over those of the new calls `ids` that are due too
    soon to wait for the dispatcher. A broker that is down delays them, and nothing else."""
    if ids:
        transaction.on_commit(lambda: _try(ids))


def hand_over_again(ids):
    """Of a worker that stops: hands over those of its calls that it has not claimed, to whoever comes first. A broker
    that is down leaves them to the dispatcher."""
    for some in batches(ids):
        ScheduledCall.objects.filter(id__in=some, status__in=WAITING).update(handed_over_at=None)
    _try(ids)


def hold_back(ids, now=NOW):
    """Of a worker that holds calls back, as their targets take no more: says that they are not lost, for HELD_BACK from
    now. Ten thousand that wait would be handed over again all the time."""
    for some in batches(ids):
        ScheduledCall.objects.filter(id__in=some, status__in=WAITING).update(handed_over_at=now + HELD_BACK - AGAIN_AFTER)


def _try(ids):
    try:
        hand_over(send, ids)
    except kombu.exceptions.OperationalError as error:
        outage.broker.began(error, "The dispatcher hands over what is due once it is back")
    except Exception as error:
        logger.error("not handed over, the dispatcher comes for it: %s: %s", type(error).__name__, error)


def hand_over(send, ids=None, now=NOW):
    """Gives the broker every call that is due within WINDOW, for the first time or again, and not given to it yet,
    or whose message seems lost. Safe to run any number of times at once.

    send(ids, first): called for each chunk with the ids of at most CHUNK calls of one same second
        and the aware datetime of the first of them; raises what it likes when the broker is down.
    ids: only these calls, or None for all
    Returns the number of calls handed over. Raises what `send` raised; the calls that it did not
    take are free to be handed over the next time.
    """
    handed_over = _hand_over(send, Status.PENDING, "timestamp", ids, now)
    if ids is None or handed_over < len(ids):
        handed_over += _hand_over(send, Status.RETRYING, "next_attempt_at", ids, now)
    return handed_over


def _hand_over(send, status, due, ids, now):
    """`hand_over`, of the calls of one status, whose field `due` says when they are to be made."""
    waiting = ScheduledCall.objects.filter(
        Q(handed_over_at=None)
        | Q(**{f"{due}__lt": now - LOST_AFTER}, handed_over_at__lt=now - AGAIN_AFTER),
        status=status, **{f"{due}__lte": now + timedelta(seconds=settings.WINDOW)},
    ).order_by(due)
    handed_over = 0
    for some in repeat(None, 1000) if ids is None else batches(ids):        # a bound: whatever is left is for the next tick
        with transaction.atomic():
            rows = waiting if some is None else waiting.filter(id__in=some)
            calls = list(unlocked(rows).values_list("id", due)[:BATCH])
            if calls:
                ScheduledCall.objects.filter(
                    id__in=[call_id for call_id, _ in calls], status=status,
                ).update(handed_over_at=now)
        # The network is spoken to only outside of a transaction. Should this process die right
        # here, these calls wait and are past due before long, and are handed over again.
        chunks = list(_chunks(calls))
        for position, chunk in enumerate(chunks):
            try:
                send([call_id for call_id, _ in chunk], chunk[0][1])
            except Exception:
                # Should another dispatcher have come for some of them meanwhile, they go out twice,
                # which is harmless.
                unsent = [call_id for late in chunks[position:] for call_id, _ in late]
                ScheduledCall.objects.filter(
                    id__in=unsent, status=status).update(handed_over_at=None)
                raise
            handed_over += len(chunk)
        if some is None and len(calls) < BATCH:
            break
    return handed_over


def _chunks(calls):
    """Cuts [(id, timestamp), ...], ordered by timestamp, into lists of at most CHUNK calls of the
    same second."""
    for _, same_second in groupby(calls, lambda call: call[1].replace(microsecond=0)):
        yield from batches(list(same_second), settings.CHUNK)


def beat(now=NOW):
    """Notes that the dispatcher ran and did all its work, for `since_beat`."""
    Heartbeat.objects.update_or_create(name="dispatcher", defaults={"at": now})


def since_beat(now=NOW):
    """Seconds since the dispatcher last did all its work, or None if it never did. Negative when the
    database's clock was set back since."""
    beats = Heartbeat.objects.filter(name="dispatcher").annotate(now=as_column(now))
    return next((round((at - then).total_seconds(), 3) for at, then in beats.values_list("now", "at")), None)
