"""The calls that this worker holds, from their message to the writing of how they ended.

A message brings the ids of calls that are due within WINDOW; they wait here, in a heap. A call gets a thread
LEAD seconds before it is due, in a burst up to EARLIER before that, connects, and stands at the gate
(attempt.py). Once it is due its row is claimed, together with others, but no more than a PORTION at once, and
while the first portion is being sent the next is claimed: so a burst costs a statement for each PORTION and
not for each call, and a worker that is killed leaves few rows of which nobody knows whether they were sent.
What has not been claimed is Pending, and made by another worker.

One thread does all of it that needs the database, over one connection: SQLite lets only one write at a
time anyway, and what only one thread touches needs no lock. The others tell it what happened in a queue.

How a worker stays on time while the API hangs: each call has a thread of its own, of at most CALLS_AT_ONCE in
a process. When all are taken, calls wait for one, and are Missed when their grace time ends first. Threads,
because calls wait and do not compute: a second processor is used by starting a second worker.
"""
import heapq
import logging
import queue
import resource
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from functools import cache
from itertools import count

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from ..base import outage
from ..base.clock import steady, utcnow
from ..base.database import reason
from ..models import ScheduledCall
from . import dispatch, ledger
from .attempt import IDLE_MAX, Attempt, close_idle, prepare

logger = logging.getLogger(__name__)
Status = ScheduledCall.Status

PORTION = 25            # calls in one claim
UNKNOWN = 50            # calls at most that are claimed and not sent, or have ended and are not written yet
CONNECTING = 8          # calls that connect at once, and more by a PORTION each PACE while they leave
PACE = 0.01             # seconds
SETUP = 0.0015          # seconds by which a call begins earlier for each other of its second that waits for its
EARLIER = 1.5           # thread, and at most so many in all: a thousand connections cannot be made in LEAD
SPARE = 0.75            # of one processor unused
SAVE_WITHIN = 0.05      # seconds from the end of a call to its writing, so that it is written with others
LOOK_EVERY = 0.1        # seconds between two looks for calls that have taken too long
RETRY = 0.5             # seconds between two tries while the database is away, or while there is no room
MOVED = 1.0             # seconds for which a call that is not due yet stands at the gate; one moved further waits anew
AHEAD = 20              # times CALLS_AT_ONCE: calls that are held at most. The rest is handed over again
COUNT_EVERY = 60        # seconds for which a thread that nobody needed is kept, or a limit that was met
SPARE_FILES = 64        # open files for the log, the database, the broker, the certificates
SPARE_THREADS = 64      # left to others, once it is known how many there can be: a web server has as many
STOP_WITHIN = 10        # seconds, after TIMEOUT, for the last outcomes to be written

MINE, REPORT, FREE, STOP = range(4)     # what is told: calls to make; news of a call; a thread came free; the end


@cache
def _the_worker():
    worker = Worker()
    threading.Thread(target=worker.run, name="worker", daemon=True).start()
    return worker


def start():
    """Begins to wait for calls. Raises RuntimeError when there can be no thread for that."""
    _the_worker()


def take(ids):
    """Takes in the calls of one message, and returns at once; they are made when they are due.

    ids: list of int
    """
    _the_worker().news.put((MINE, ids))


def stop():
    """Lets go of the calls for which no request is on its way, they are handed over to another worker; returns
    once the others have ended and are written, after TIMEOUT and STOP_WITHIN at most."""
    worker = _the_worker()
    worker.news.put((STOP, None))
    if not worker.stopped.wait(settings.TIMEOUT + STOP_WITHIN):
        logger.error("stopped before all outcomes were written")


def due_times(ids):
    """{id: aware datetime} of those of the calls `ids` that are Pending."""
    return dict(ScheduledCall.objects.filter(
        id__in=ids, status=Status.PENDING).order_by().values_list("id", "timestamp"))


def room():
    """How many calls can be on their way at once: CALLS_AT_ONCE, if this process may have as many files open. It
    takes what it may have: the usual limits, 1024 or 256, are not meant for servers."""
    wanted = 2 * settings.CALLS_AT_ONCE + SPARE_FILES       # a redirect may need a second connection
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings.CALLS_AT_ONCE
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = min(settings.CALLS_AT_ONCE, max(1, files - SPARE_FILES))
    if most < settings.CALLS_AT_ONCE:
        logger.warning("this process may have %d files open: %d calls can be on their way at once, and not CALLS_AT_ONCE=%d. "
                       "Raise its limit (ulimit -n)", files, most, settings.CALLS_AT_ONCE)
    return most


class Held:
    """A call, and how far this worker is with it."""

    def __init__(self, call_id, timestamp):
        self.id, self.timestamp = call_id, timestamp
        self.wait()

    def wait(self):
        """It has no thread, for the first time or again."""
        self.attempt = None
        self.connecting = False     # has a thread, and is not ready yet
        self.queued = False         # waits to be claimed
        self.unsent = False         # counts as claimed and not sent
        self.noted = False          # its row says when it was sent


class Worker:
    def __init__(self):
        self.news = queue.SimpleQueue()
        self.stopped = threading.Event()
        self._limit = self._most = room()   # threads, and how many there can be for now
        self._threads = self._busy = self._busiest = 0
        self._jobs = queue.SimpleQueue()    # attempts for a thread to make, None for one to end
        self._new = []              # ids of whose calls it is not known yet when they are due
        self._held = {}             # id: Held, all that are not settled
        self._coming = []           # heap of (when, n, Held): wait for a thread; `when` by steady()
        self._of_second = Counter() # how many of those are due in the same second
        self._begun = {}            # id: Held, have had a thread
        self._ready = []            # heap of (when, n, Held): connected, or ended already; wait to be due
        self._claiming = None       # (token, [Held, ...]) of a claim that has not been answered
        self._flying = {}           # id: Held, claimed and not ended
        self._ended = []            # claimed, and to be written
        self._unsent = 0            # claimed and not sent yet
        self._connecting = 0
        self._stopping = False
        self._measured = steady(), time.process_time()
        self._save_by = self._looked = self._not_before = 0.0
        self._counted = steady()
        self._number = count()

    def others(self):
        """Whether a call that has no connection yet comes soon enough to take over one that is free now."""
        try:
            return self._coming[0][0] < steady() + IDLE_MAX
        except IndexError:
            return False

    def run(self):
        failed = False
        while not (self._stopping and not self._held and not self._new):
            try:
                self._listen(self._patience())
                self._look()
                self._meet()
                self._start()
                self._save()
                self._claim()
                self._let_go()
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
        connection.close()
        self.stopped.set()

    def _patience(self):
        """Seconds until there is something to do, if nobody tells of anything before."""
        now = steady()
        if not self._held and not self._new:
            idle = close_idle()
            if not self._threads and self._most == self._limit:
                return idle
            left = max(0.0, max(self._counted + COUNT_EVERY, self._looked + LOOK_EVERY) - now)
            return left if idle is None else min(left, idle)
        times = [self._looked + LOOK_EVERY]
        if self._coming and self._busy < self._most:
            times.append(max(self._coming[0][0], self._measured[0] + PACE, self._not_before))
        if self._claiming or self._new:
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
                    self._new += what
                elif kind == FREE:
                    self._busy -= 1
                elif kind == REPORT:
                    self._report(what)
                else:
                    self._stopping = True
                kind, what = self.news.get_nowait()
        except queue.Empty:
            pass

    def _meet(self):
        """Asks when the calls of new messages are due, of those of several messages at once."""
        if not self._new or self._stopping:
            return
        prepare()
        some = self._new[:ledger.BATCH]
        due = due_times(some)
        del self._new[:ledger.BATCH]
        for call_id, timestamp in due.items():
            known = self._held.get(call_id)
            if known and (known.attempt or known.timestamp == timestamp):
                continue                        # a message that came twice; or it has begun, and its claim will show
            if len(self._held) < AHEAD * settings.CALLS_AT_ONCE:
                self._wait(Held(call_id, timestamp))

    def _wait(self, held, pause=0.0):
        """It waits for its time, or for `pause` seconds if that is past."""
        held.wait()
        self._held[held.id] = held
        self._begun.pop(held.id, None)
        second = int(held.timestamp.timestamp())
        lead = settings.LEAD and settings.LEAD + min(self._of_second[second] * SETUP, EARLIER)
        self._of_second[second] += 1
        left = (held.timestamp - utcnow()).total_seconds() - lead
        self._push(self._coming, held, max(left, pause) if pause else left)

    def _pop(self):
        held = heapq.heappop(self._coming)[2]
        second = int(held.timestamp.timestamp())
        self._of_second[second] -= 1
        if not self._of_second[second]:
            del self._of_second[second]

    def _push(self, heap, held, left):
        heapq.heappush(heap, (steady() + left, next(self._number), held))

    def _report(self, held):
        attempt = held.attempt
        if self._held.get(held.id) is not held or attempt is None:
            return                          # settled already
        if held.connecting:
            held.connecting = False
            self._connecting -= 1
        if held.unsent and (attempt.sent_at or attempt.outcome or attempt.unsent):
            held.unsent = False
            self._unsent -= 1
        no_room = attempt.no_room and not attempt.outcome
        if no_room:
            outage.room.began(attempt.no_room, NO_ROOM)
        if attempt.token is None:
            if no_room:                     # nobody's yet: it comes again, if its grace lasts
                self._wait(held, RETRY)
            elif not held.queued:           # at the gate, or ended before it came there
                held.queued = True
                self._push(self._ready, held, (held.timestamp - utcnow()).total_seconds())
        elif (attempt.outcome or attempt.unsent) and self._flying.pop(held.id, None):
            if not self._ended:
                self._save_by = steady() + SAVE_WITHIN
            self._ended.append(held)

    def _settle(self, held):
        del self._held[held.id]
        self._begun.pop(held.id, None)

    def _start(self):
        """Gives a thread to each whose time has nearly come, but not to all of a burst at once: a thousand
        threads that set up TLS would take turns at Python's one lock with the thread that claims."""
        now = steady()
        if self._stopping or now < self._not_before or not self._coming or self._coming[0][0] > now:
            return
        connection.ensure_connection()          # ready before the time comes
        more = CONNECTING - self._connecting
        if now - self._measured[0] >= PACE:
            (before, used), self._measured = self._measured, (now, time.process_time())
            if self._measured[1] - used < (now - before) * SPARE:
                more = max(more, PORTION)       # they wait for the network and not for this processor
        if len(self._ready) >= PORTION and self._ready[0][0] <= now:
            more = 0                            # first what is due
        while more > 0 and self._coming and self._busy < self._most and self._coming[0][0] <= now:
            held = self._coming[0][2]
            if self._held.get(held.id) is not held:
                self._pop()                     # it was moved, and waits for its new time
                continue
            if (utcnow() - held.timestamp).total_seconds() > settings.GRACE:
                self._pop()
                self._settle(held)              # the dispatcher ends it
                continue
            if not self._thread():
                break
            self._pop()
            more -= 1
            self._busy += 1
            self._busiest = max(self._busy, self._busiest)
            self._connecting += 1
            held.connecting = True
            held.attempt = Attempt(
                held.id, held.timestamp, lambda attempt, held=held: self.news.put((REPORT, held)), self.others)
            self._begun[held.id] = held
            self._jobs.put(held.attempt)

    def _thread(self):
        """Whether there is a thread that has nothing to do, by now. Its end is this thread's to tell: so a job never
        waits for one that has just ended."""
        if self._threads > self._busy:
            return True
        try:
            threading.Thread(target=self._work, name="call", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            outage.room.began(error, NO_ROOM)
            self._most = max(1, self._threads - SPARE_THREADS, self._threads // 2)
            self._not_before = steady() + RETRY
            return False
        self._threads += 1
        return True

    def _work(self):
        while (attempt := self._jobs.get()) is not None:
            attempt.make()
            self.news.put((FREE, None))

    def _claim(self):
        if not self._claiming:
            now, some = steady(), []
            while self._ready and self._ready[0][0] <= now and len(some) < self._room() and not self._stopping:
                some.append(heapq.heappop(self._ready)[2])
            if not some:
                return
            self._claiming = uuid.uuid4().hex, some
        token, some = self._claiming
        asked = steady()
        won, pending = ledger.claim([held.id for held in some], token)
        outage.database.over()
        self._claiming = None
        for held in some:
            attempt, left = held.attempt, pending.get(held.id)
            if held.id in won:
                self._flying[held.id] = held
                held.unsent = True
                self._unsent += 1
                attempt.grant(token, asked + ledger.lease())
                if attempt.outcome:
                    self._report(held)
            elif left is not None and -settings.GRACE < left <= MOVED:
                self._push(self._ready, held, left)     # not yet, by the database's clock
            else:
                attempt.refuse()
                self._settle(held)
                if left is not None and left > MOVED:
                    self._new.append(held.id)           # it was moved to a later time

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
            ledger.release([held.id for held in unsent], {held.attempt.token for held in unsent})
        self._ended = []
        for held in unsent:
            self._settle(held)
        outage.database.over()

    def _let_go(self):
        """When the worker stops: what nobody has claimed is another's."""
        if not self._stopping or self._claiming:
            return
        claimed = self._flying.keys() | {held.id for held in self._ended}
        others = [held for held in self._held.values() if held.id not in claimed]
        if others or self._new:
            dispatch.hand_over_again([held.id for held in others] + self._new)
        for held in others:
            if held.attempt:
                held.attempt.refuse()
            self._settle(held)
        self._new, self._coming, self._ready = [], [], []

    def _look(self):
        """Ends what takes too long, and renews the leases; gives back what has not been needed for a while."""
        now = steady()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        close_idle()
        self._count(now)
        for held in list(self._begun.values()):
            held.attempt.check()
        flying = [held.attempt for held in self._flying.values()]
        fresh = now + ledger.lease() - ledger.RENEW_EVERY
        if all(attempt.lease_end > fresh for attempt in flying):
            return
        sent = [held for held in self._flying.values() if held.attempt.sent_at and not held.noted]
        ours = ledger.renew(
            [attempt.id for attempt in flying], {attempt.token for attempt in flying},
            [(held.id, held.attempt.sent_at) for held in sent])
        for held in sent:
            held.noted = True
        for attempt in flying:
            attempt.lease_end = now + ledger.lease() if attempt.id in ours else now

    def _count(self, now):
        """Ends threads that nobody needed since the last time, and more of them while others need room; tries for
        more room, little by little, when there was none."""
        if now - self._counted >= COUNT_EVERY:
            self._end_threads(self._threads - self._busiest)
            self._counted, self._busiest = now, self._busy
            self._most = min(self._limit, self._most + PORTION)
            outage.room.over(after=2 * COUNT_EVERY)
        if self._threads > self._most:
            self._end_threads(min(self._threads - self._busy, self._threads - self._most))

    def _end_threads(self, number):
        for _ in range(number):
            self._jobs.put(None)
            self._threads -= 1


NO_ROOM = ("They are tried again while their GRACE lasts. Raise this machine's limits on threads and open files, or "
           "lower CALLS_AT_ONCE")
