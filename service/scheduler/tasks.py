"""What Celery runs: the dispatcher (`tick`) every TICK seconds, and `make_calls` for each chunk.

How a worker stays on time while the API hangs: its pool is of threads, and a chunk occupies one
of them only to wait; its calls run in threads of their own, at most CALLS_AT_ONCE in a process.
When all are taken, calls wait for one, and are Missed when their grace time ends first. Threads,
because calls wait and do not compute: a second processor is used by starting a second worker.
"""
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from functools import cache

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction

from . import transitions
from .caller import Call, prepare, utcnow, wait_until

logger = logging.getLogger(__name__)

SAVE_EVERY = 0.5        # seconds between two writes of a chunk's outcomes: a kill loses no older one

_chunks_free = threading.BoundedSemaphore(settings.CHUNKS_AT_ONCE)


@cache
def _call_threads():
    return ThreadPoolExecutor(settings.CALLS_AT_ONCE, thread_name_prefix="call")


def send(ids, first):
    """Gives one chunk to the broker.

    ids: list of int; first: aware datetime, when the first of its calls is due
    The message comes to the worker LEAD seconds early, for what there is to prepare; the worker
    waits for the rest by its own clock. It dies with the calls' grace time.
    """
    make_calls.apply_async(
        (ids, first.isoformat()),
        eta=first - timedelta(seconds=settings.LEAD),
        expires=first + timedelta(seconds=settings.GRACE + settings.WINDOW))


def hand_over_soon(ids):
    """After the transaction under way: hands over those of the new calls `ids` that are due too
    soon to wait for the dispatcher. A broker that is down delays them, and nothing else."""
    def hand_over():
        try:
            transitions.hand_over(send, utcnow(), ids)
        except Exception as error:
            logger.warning("the broker cannot be reached, the dispatcher will hand over later: %s", error)

    if ids:
        transaction.on_commit(hand_over)


@shared_task
def tick():
    """The dispatcher. Each part stands alone: trouble in one must not keep the others from their
    work. Calls are handed over first, as they are in a hurry. Only when all went well it says so
    to /healthz."""
    now = utcnow()

    def done(part):
        try:
            part()
            return True
        except Exception as error:
            logger.error("dispatcher: %s: %s", type(error).__name__, error)
            connection.close()
            return False
    if all([done(lambda: transitions.hand_over(send, now)),
            done(lambda: transitions.miss(now)),
            done(lambda: transitions.reap(now))]):
        done(lambda: transitions.beat(now))


@shared_task
def make_calls(ids, first):
    """Makes the calls of one chunk, all due in the same second, and writes how they ended.

    ids: list of int; first: ISO 8601 str, when the first of them is due
    """
    if not _chunks_free.acquire(blocking=False):
        return      # no room. They stay Pending, and are handed over again, perhaps to another worker
    try:
        _run(ids, datetime.fromisoformat(first))
    finally:
        _chunks_free.release()


def _run(ids, first):
    connection.ensure_connection()      # ready before the time comes
    _call_threads()
    prepare()
    wait_until(first)
    token, won = transitions.claim(ids, utcnow(), first.replace(microsecond=0) + timedelta(seconds=1))
    connection.close()                  # a waiting chunk holds none

    calls, futures, no_thread = [], [], None
    for call_id, timestamp in won:
        wait_until(timestamp)
        calls.append(Call(call_id, timestamp))
        try:
            futures.append(_call_threads().submit(calls[-1].make))
        except RuntimeError as error:   # it is queued all the same, for a thread that is there
            no_thread = error
    if no_thread:
        logger.error("%s: calls wait for those that are there. Lower CALLS_AT_ONCE, or raise the limit "
                     "on threads.", no_thread)

    leased_at = time.monotonic()
    while calls:
        if not wait(futures, timeout=SAVE_EVERY).not_done and not all(call.outcome for call in calls):
            time.sleep(SAVE_EVERY)      # for those queued without a thread
        for call in calls:
            call.check()
        ended = {call.id: call.outcome for call in calls if call.outcome}
        try:
            if ended:
                transitions.finish(ended.values(), token)
                calls = [call for call in calls if call.id not in ended]
                futures = [future for future in futures if not future.done()]
            if calls and time.monotonic() - leased_at > settings.LEASE / 4:
                transitions.renew([call.id for call in calls], token)
                leased_at = time.monotonic()
        except (DatabaseError, InterfaceError) as error:
            # The outcomes are kept, and written when the database is back, as long as this worker
            # lives.
            logger.error("outcomes cannot be written, trying again: %s", error)
            time.sleep(SAVE_EVERY)      # `wait` does not, once all calls have ended
        finally:
            connection.close()
