"""The calls that this worker holds, from their message to the writing of how they ended.

A call gets a thread LEAD seconds before it is due, in a burst up to EARLIER before that, connects, and
stands at the gate (request.py). Once it is due its row is claimed, together with others, but no more than
a PORTION at once, and while the first portion is being sent the next is claimed: so a burst costs a
statement for each PORTION and not for each call, and a worker that is killed leaves few rows of which
nobody knows whether they were sent. What has not been claimed is Pending, and made by another worker.

One thread does all of it that needs the database, over one connection: SQLite lets only one write at a
time anyway, and what only one thread touches needs no lock. The others tell it what happened in a queue.

How a worker stays on time while the API hangs: its pool is of threads, and a chunk occupies one
of them only to wait; its calls run in threads of their own, at most CALLS_AT_ONCE in a process
(`Worker`). When all are taken, calls wait for one, and are Missed when their grace time ends first.
Threads, because calls wait and do not compute: a second processor is used by starting a second worker.
"""
import heapq
import logging
import queue
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from itertools import count

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from ..base import outage
from ..base.clock import steady, utcnow
from ..base.database import reason
from ..models import ScheduledCall
from . import ledger
from .request import IDLE_MAX, Attempt, close_idle, prepare

logger = logging.getLogger(__name__)
Status = ScheduledCall.Status

PORTION = 25            # calls in one claim
UNKNOWN = 50            # calls at most that are claimed and not sent, or have ended and are not written yet
CONNECTING = 8          # calls that connect at once, and more by a PORTION each PACE while they leave
PACE = 0.01             # seconds
SETUP = 0.0015          # seconds by which a call begins earlier for each other that waits for its thread,
EARLIER = 1.5           # and at most so many in all: a thousand connections cannot be made in LEAD
SPARE = 0.75            # of one processor unused
SAVE_WITHIN = 0.05      # seconds from the end of a call to its writing, so that it is written with others
LOOK_EVERY = 0.1        # seconds between two looks for calls that have taken too long
RETRY = 0.5             # seconds between two tries while the database is away

MINE, REPORT, FREE = range(3)       # what is told: calls to make; news of a call; a thread came free


@cache
def _the_worker():
    worker = Worker()
    threading.Thread(target=worker.run, name="worker", daemon=True).start()
    return worker


_first = threading.Lock()
_chunks_free = threading.BoundedSemaphore(settings.CHUNKS_AT_ONCE)


def make(ids, first):
    """Makes the calls of one chunk, all due in the same second, and returns once it is known of each that it
    has ended, or is somebody else's.

    ids: list of int; first: aware datetime, when the first of them is due
    """
    if utcnow() > first + timedelta(seconds=settings.GRACE + settings.WINDOW):
        return      # lay in the broker for too long
    if not _chunks_free.acquire(blocking=False):
        return      # no room. They stay Pending, and are handed over again, perhaps to another worker
    try:
        prepare()
        try:
            due = due_times(ids)
        except (OperationalError, InterfaceError) as error:
            outage.database.began(reason(error))
            due = dict.fromkeys(ids, first)     # about right; the claim knows it
        finally:
            connection.close()                  # a waiting chunk holds none
        _hand_in(due)
    finally:
        _chunks_free.release()


def _hand_in(due):
    """Makes calls, and returns once it is known of each that it has ended, or is somebody else's.

    due: {id: aware datetime, when it is due}
    """
    with _first:
        worker = _the_worker()
    if due:
        chunk = Chunk(len(due))
        worker.news.put((MINE, [Held(*one, chunk, worker.tell, worker.others) for one in due.items()]))
        chunk.settled.wait()


def due_times(ids):
    """{id: aware datetime} of those of the calls `ids` that are Pending."""
    return dict(ScheduledCall.objects.filter(
        id__in=ids, status=Status.PENDING).order_by().values_list("id", "timestamp"))


def early():
    """Seconds before its first call is due that a message comes to a worker: what it takes at most to connect,
    and once more LEAD for what there is to prepare."""
    return settings.LEAD and 2 * settings.LEAD + EARLIER


def _lead(others):
    """Seconds before it is due that a call gets its thread, when so many others wait for theirs."""
    return settings.LEAD and settings.LEAD + min(others * SETUP, EARLIER)


class Chunk:
    """How many of the calls of one message are not settled yet."""

    def __init__(self, left):
        self.left = left
        self.settled = threading.Event()


class Held:
    """A call, and how far this worker is with it."""

    def __init__(self, call_id, timestamp, chunk, tell, others):
        self.attempt = Attempt(call_id, timestamp, lambda attempt: tell(self), others)
        self.chunk = chunk
        self.connecting = False     # has a thread, and is not ready yet
        self.queued = False         # waits to be claimed
        self.unsent = False         # counts as claimed and not sent
        self.noted = False          # its row says when it was sent


class Worker:
    def __init__(self):
        self.news = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(settings.CALLS_AT_ONCE, thread_name_prefix="call")
        self._free = settings.CALLS_AT_ONCE
        self._held = {}             # id: Held, all that are not settled
        self._coming = []           # heap of (when, n, Held): wait for a thread; `when` by steady()
        self._ready = []            # heap of (when, n, Held): connected, or ended already; wait to be due
        self._claiming = None       # (token, [Held, ...]) of a claim that has not been answered
        self._flying = {}           # id: Held, claimed and not ended
        self._ended = []            # claimed, and to be written
        self._unsent = 0            # claimed and not sent yet
        self._connecting = 0
        self._told = False          # that no more threads can be started, since there was last nothing to do
        self._measured = steady(), time.process_time()
        self._save_by = self._looked = 0.0
        self._number = count()

    def tell(self, held):
        self.news.put((REPORT, held))

    def others(self):
        """Whether a call that has no connection yet comes soon enough to take over one that is free now."""
        try:
            return self._coming[0][0] < steady() + IDLE_MAX
        except IndexError:
            return False

    def run(self):
        failed = False
        while True:
            try:
                self._listen(self._patience())
                self._look()
                self._start()
                self._save()
                self._claim()
                failed = False
            except (OperationalError, InterfaceError) as error:
                connection.close()
                if failed:      # the first time it may be a connection that broke while it lay idle
                    outage.database.began(reason(error), "What is due is called, and outcomes are written, once it is back")
                    time.sleep(RETRY)
                failed = True
            except Exception:
                logger.exception("the worker goes on after")
                connection.close()
                time.sleep(RETRY)

    def _patience(self):
        """Seconds until there is something to do, if nobody tells of anything before."""
        if not self._held:
            self._told = False
            return close_idle()
        now = steady()
        times = [self._looked + LOOK_EVERY]
        if self._coming and self._free:
            times.append(max(self._coming[0][0], self._measured[0] + PACE))
        if self._claiming:
            times.append(now)
        elif self._ready and self._room():
            times.append(self._ready[0][0])
        if self._ended:
            times.append(self._save_by if len(self._ended) < PORTION else now)
        return max(0.0, min(times) - now)

    def _room(self):
        """How many calls may be claimed: a whole PORTION, or all that stand ready, rather than a few now
        and a few a moment later."""
        room = min(PORTION, UNKNOWN - self._unsent - len(self._ended))
        return room if room == PORTION or len(self._ready) <= room else 0

    def _listen(self, patience):
        if not self._held:
            connection.close()      # who waits for nothing holds no connection
        try:
            kind, what = self.news.get(timeout=patience)
            while True:
                if kind == MINE:
                    for held in what:
                        self._take(held)
                elif kind == FREE:
                    self._free += 1
                else:
                    self._report(what)
                kind, what = self.news.get_nowait()
        except queue.Empty:
            pass

    def _take(self, held):
        if held.attempt.id in self._held:      # a message that came twice
            self._done(held)
            return
        self._held[held.attempt.id] = held
        self._push(self._coming, held, -_lead(len(self._coming)))

    def _push(self, heap, held, shift=0.0, left=None):
        if left is None:
            left = (held.attempt.timestamp - utcnow()).total_seconds()
        heapq.heappush(heap, (steady() + left + shift, next(self._number), held))

    def _report(self, held):
        attempt = held.attempt
        if self._held.get(attempt.id) is not held:
            return                          # settled already
        if held.connecting:
            held.connecting = False
            self._connecting -= 1
        if held.unsent and (attempt.sent_at or attempt.outcome or attempt.unsent):
            held.unsent = False
            self._unsent -= 1
        if attempt.token is None:
            if not held.queued:             # at the gate, or ended before it came there
                held.queued = True
                self._push(self._ready, held)
        elif (attempt.outcome or attempt.unsent) and self._flying.pop(attempt.id, None):
            if not self._ended:
                self._save_by = steady() + SAVE_WITHIN
            self._ended.append(held)

    def _settle(self, held):
        del self._held[held.attempt.id]
        self._done(held)

    def _done(self, held):
        held.chunk.left -= 1
        if not held.chunk.left:
            held.chunk.settled.set()

    def _start(self):
        """Gives a thread to each whose time has nearly come, but not to all of a burst at once: a thousand
        threads that set up TLS would take turns at Python's one lock with the thread that claims."""
        now, no_thread = steady(), None
        if not self._coming or self._coming[0][0] > now:
            return
        connection.ensure_connection()          # ready before the time comes
        more = CONNECTING - self._connecting
        if now - self._measured[0] >= PACE:
            (before, used), self._measured = self._measured, (now, time.process_time())
            if self._measured[1] - used < (now - before) * SPARE:
                more = max(more, PORTION)       # they wait for the network and not for this processor
        if len(self._ready) >= PORTION and self._ready[0][0] <= now:
            more = 0                            # first what is due
        while more > 0 and self._coming and self._free and self._coming[0][0] <= now:
            held = heapq.heappop(self._coming)[2]
            if (utcnow() - held.attempt.timestamp).total_seconds() > settings.GRACE:
                self._settle(held)              # the dispatcher ends it
                continue
            more -= 1
            self._free -= 1
            self._connecting += 1
            held.connecting = True
            try:
                self._threads.submit(self._run, held)
            except RuntimeError as error:       # it is queued all the same, for a thread that is there
                no_thread = error
        if no_thread and not self._told:
            self._told = True
            logger.error("%s: calls wait for those that are there. Lower CALLS_AT_ONCE, or raise the limit "
                         "on threads.", no_thread)

    def _run(self, held):
        held.attempt.make()
        self.news.put((FREE, None))

    def _claim(self):
        if not self._claiming:
            now, some = steady(), []
            while self._ready and self._ready[0][0] <= now and len(some) < self._room():
                some.append(heapq.heappop(self._ready)[2])
            if not some:
                return
            self._claiming = uuid.uuid4().hex, some
        token, some = self._claiming
        asked = steady()
        won, pending = ledger.claim([held.attempt.id for held in some], token)
        outage.database.over()
        self._claiming = None
        for held in some:
            attempt = held.attempt
            if attempt.id in won:
                self._flying[attempt.id] = held
                held.unsent = True
                self._unsent += 1
                attempt.grant(token, asked + ledger.lease())
                if attempt.outcome:
                    self._report(held)
            elif -settings.GRACE < pending.get(attempt.id, -settings.GRACE) < early() + 1:
                self._push(self._ready, held, left=pending[attempt.id])    # not yet, by the database's clock
            else:
                attempt.refuse()
                self._settle(held)

    def _save(self):
        if not self._ended or (len(self._ended) < PORTION and steady() < self._save_by):
            return
        sent = [held for held in self._ended if held.attempt.outcome]
        unsent = [held for held in self._ended if not held.attempt.outcome]
        if sent:
            ledger.finish([(held.attempt.outcome, held.attempt.token) for held in sent])
        self._ended = unsent                # should the next fail, these are not finished again
        for held in sent:
            self._settle(held)
        if unsent:
            ledger.release([held.attempt.id for held in unsent], {held.attempt.token for held in unsent})
        self._ended = []
        for held in unsent:
            self._settle(held)
        outage.database.over()

    def _look(self):
        """Ends what takes too long, and renews the leases."""
        now = steady()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        close_idle()
        for held in list(self._held.values()):
            held.attempt.check()
        flying = [held.attempt for held in self._flying.values()]
        fresh = now + ledger.lease() - ledger.RENEW_EVERY
        if all(attempt.lease_end > fresh for attempt in flying):
            return
        sent = [held for held in self._flying.values() if held.attempt.sent_at and not held.noted]
        ours = ledger.renew(
            [attempt.id for attempt in flying], {attempt.token for attempt in flying},
            [(held.attempt.id, held.attempt.sent_at) for held in sent])
        for held in sent:
            held.noted = True
        for attempt in flying:
            attempt.lease_end = now + ledger.lease() if attempt.id in ours else now
