"""The calls that this worker holds, from their message to the writing of how they ended.

A message brings the ids of calls that are due within WINDOW; they wait here, in a heap. A call gets a thread
LEAD seconds before it is due, in a burst up to EARLIER before that, connects, and stands at the gate
(attempt.py). Once it is due its row is claimed, together with others, but no more than a PORTION at once, and
while the first portion is being sent the next is claimed: so a burst costs a statement for each PORTION and
not for each call, and a worker that is killed leaves few rows of which nobody knows whether they were sent.
What has not been claimed is Pending, and made by another worker.

One thread does all of it that needs the database, over one connection: SQLite lets only one write at a
time anyway, and what only one thread touches needs no lock. The others tell it what happened in a queue.

How a worker stays on time while an API hangs: each call has a thread of its own, of at most CALLS_AT_ONCE in
a process, and no target may have more of them than it leaves free. When all are taken, calls wait for one, and are Missed when
their grace time ends first. Threads, because calls wait and do not compute: a second processor is used by starting
a second worker.

What a target does not take yet (limits.py) waits in a line of its own, without a thread and a connection. For all
lines together the database is asked once every ASK seconds, however many wait.
"""
import heapq
import logging
import queue
import resource
import threading
import time
import uuid
from collections import Counter, deque
from contextlib import suppress
from datetime import timedelta
from functools import cache
from itertools import count

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from ..base import outage
from ..base.clock import steady, utcnow
from ..base.database import reason
from ..models import CallRequest, Schedule, ScheduledCall, Target
from . import dispatch, ledger, limits, outcomes
from .attempt import Attempt
from .connection import IDLE_MAX, close_idle, prepare
from .request import Request, Unsendable, age, build, default, delays

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
ASK = 0.1               # seconds between two questions for what targets with limits take
ASK_FULL = 0.25         # seconds after which it is asked again for places of a target that has none
SLOT_MAX = 0.2          # seconds for which an instant that a rate gave is good, and twice as long each time it was not
HOLD_EVERY = 15         # seconds after which the database is told again that a call waits here
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
    """What is known of those of the calls `ids` that are Pending or Retrying: rows with id, status, timestamp,
    next_attempt_at, expires_at, target, schedule, schedule__overlap."""
    return ScheduledCall.objects.filter(id__in=ids, status__in=dispatch.WAITING).order_by().values_list(
        "id", "status", "timestamp", "next_attempt_at", "expires_at", "target", "schedule", "schedule__overlap", named=True)


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

    def __init__(self, row, line, call=None, own=None, schedule=None):
        """row: of due_times; line: the Line of its target; of one that names a target also call: its ScheduledCall,
        own: its CallRequest or None, and schedule: its Schedule or None"""
        self.id, self.timestamp, self.expires_at, self.line = row.id, row.timestamp, row.expires_at, line
        self.call, self.own, self.schedule = call, own, schedule
        self.first = row.status == Status.PENDING
        self.at = row.timestamp if self.first else row.next_attempt_at      # not before which it is made
        self.number = (call.attempts_made or 0) + 1 if call else 1
        self.last = ledger.last_start(self.timestamp, self.expires_at, self.first, line.target and line.target.max_age)
        # What a claim has to look at more closely.
        self.prepared = bool(line.target or row.expires_at or row.schedule__overlap == Schedule.Overlap.SKIP)
        self.when = self.second = 0     # by steady(): its place among those that wait; and which second that is
        self.version = None             # of the target with which its request was put together
        self.told = 0.0                 # by steady(), when the database was told that it waits here
        self.patience = SLOT_MAX        # seconds
        self.wait()

    def wait(self):
        """It has no thread, for the first time or again."""
        self.attempt = None
        self.lose_slot()
        self.connecting = False     # has a thread, and is not ready yet
        self.queued = False         # waits to be claimed
        self.unsent = False         # counts as claimed and not sent
        self.noted = False          # its row says when it was sent
        self.retry_at = None

    def lose_slot(self):
        """It has no instant that its target's rate gave it."""
        self.slot = None
        self.line.slots.discard(self)

    def outlived(self):
        """Whether the instant that its rate gave it is over, and with that it: others may have it at the same time by
        now. The next one is good for longer, as a worker that is always late would send nothing."""
        if not self.slot or self.left() >= -self.patience:
            return False
        self.patience *= 2
        self.lose_slot()
        return True

    def left(self):
        """Seconds until it may be sent."""
        return ((self.slot or self.at) - utcnow()).total_seconds()

    def request(self):
        """The Request that is sent for it. Raises Unsendable."""
        return build(self.call, self.line.target, self.own, self.schedule, self.number) if self.call else default()


class Line:
    """The calls of one target that this worker holds, or those of API_URL."""

    def __init__(self, target=None):
        self.target = target
        self.held = 0               # calls
        self.soon = []              # heap: when, by steady(), those begin that wait for their time
        self.waiting = []           # heap of (when, n, Held): whose time to begin has come, and that may not yet
        self.active = 0             # have begun, and not ended
        self.slots = set()          # the calls that its rate gave an instant, and that have not begun
        self.threads = 0            # are used by them, or by those before
        self.elsewhere = 0          # are under way at other workers, as far as is known, of a target with max_at_once
        self.ask_at = 0.0           # by steady(): not before then the database is asked for it
        self.pace = limits.Pace()   # of a target with a rate
        self.behind = deque()       # Held, whose instants have come, and that are not sent at once as too many have

    def paced(self, held, now):
        """Whether one whose instant has come is sent now: the instants keep the rate of all workers, as long as each is
        on time, and `pace` that of one that has been busy. What has to wait is in `behind`."""
        first = bool(self.behind) and self.behind[0] is held
        if (first or not self.behind) and self.pace.takes(limits.in_a_second(self.target), now):
            if first:
                self.behind.popleft()
            return True
        if not first:
            self.behind.append(held)
        return False

    @property
    def limited(self):
        return bool(self.target and (self.target.rate or self.target.max_at_once is not None))

    def others(self):
        """Whether a call that has no connection yet comes soon enough to take over one that is free now."""
        try:
            return bool(self.waiting) or self.soon[0] < steady() + IDLE_MAX
        except IndexError:
            return False

    def places(self):
        """How many calls more the target takes at once, as far as is known: float."""
        if not self.target or self.target.max_at_once is None:
            return float("inf")
        return self.target.max_at_once - self.elsewhere - self.active


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
        self._lines = {}            # {id of a target, None for API_URL: Line}
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
        self._asked = self._told = 0.0
        self._number = count()

    def run(self):
        failed = False
        while not (self._stopping and not self._held and not self._new):
            try:
                self._listen(self._patience())
                self._look()
                self._meet()
                self._ask()
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
        if any(line.waiting for line in self._lines.values()):
            times.append(self._asked + ASK)
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
                    what.threads -= 1
                    self._call_up(what)
                elif kind == REPORT:
                    held, attempt = what
                    if held.attempt is attempt:     # and not one before, which was refused
                        self._report(held)
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
        rows = list(due_times(some))
        calls, owns, schedules = self._load([row for row in rows if row.target])
        del self._new[:ledger.BATCH]
        for row in rows:
            line = self._lines.setdefault(row.target, Line())
            if row.target and row.id not in calls:
                continue                        # it was deleted just now
            held = Held(row, line, calls.get(row.id), owns.get(row.id), schedules.get(row.schedule))
            known = self._held.get(row.id)
            if known and (known.attempt or known.at == held.at):
                continue                        # a message that came twice; or it has begun, and its claim will show
            if line.target and line.target.is_paused(held.at) and held.left() <= 0:
                continue                        # the dispatcher ends it
            if len(self._held) < AHEAD * settings.CALLS_AT_ONCE:
                if known:
                    self._settle(known)
                self._wait(held)

    def _load(self, rows):
        """What calls that name targets are made of, all in a few statements; the targets go to their lines.

        Returns ({id: ScheduledCall}, {id: CallRequest}, {schedule id: Schedule}).
        """
        if not rows:
            return {}, {}, {}
        ids = [row.id for row in rows]
        for target in Target.objects.filter(id__in={row.target for row in rows}):
            self._lines.setdefault(target.id, Line()).target = target
        return (ScheduledCall.objects.in_bulk(ids), CallRequest.objects.in_bulk(ids),
                Schedule.objects.in_bulk({row.schedule for row in rows if row.schedule}))

    def _wait(self, held, pause=0.0):
        """It waits for its time, or for `pause` seconds if that is past."""
        self._pause(held)
        if held.id not in self._held:
            held.line.held += 1
        self._held[held.id] = held
        self._come(held, pause)

    def _come(self, held, pause=0.0):
        """Puts it among those that are to begin when their time comes."""
        left = held.left()
        held.second = int((held.slot or held.at).timestamp())
        # What a target takes one after the other needs no more time than one.
        early = 0 if held.line.limited else min(self._of_second[held.second] * SETUP, EARLIER)
        self._of_second[held.second] += 1
        left -= settings.LEAD and settings.LEAD + early
        held.when = self._push(self._coming, held, max(left, pause) if pause else left)
        heapq.heappush(held.line.soon, held.when)

    def _pause(self, held):
        """It has no attempt, for the first time or again."""
        if self._begun.pop(held.id, None):
            held.line.active -= 1
        held.wait()

    def _line_up(self, held):
        """Puts it among those that its target does not take yet. It keeps its place."""
        heapq.heappush(held.line.waiting, (held.when, next(self._number), held))

    def _room_of(self, line):
        """How many calls of this line may begin: no target may have more threads than it leaves free, beside those that
        others have. So one that hangs has half of them, two have a third each, and there are always some for the next.
        API_URL may have all, as long as there is nothing else."""
        share = self._most
        if line.target or line.held < len(self._held):
            share = max(1, (share - (self._busy - line.threads)) // 2)
        return min(share - line.threads, line.places())

    def _call_up(self, line):
        """Has those begin that may by now, of those that wait."""
        room = self._room_of(line) if line.waiting else 0
        while line.waiting and room > 0 and not (line.target and line.target.rate and not line.waiting[0][2].slot):
            held = heapq.heappop(line.waiting)[2]
            if self._held.get(held.id) is held:
                heapq.heappush(self._coming, (held.when, next(self._number), held))
                heapq.heappush(line.soon, held.when)
                held.second = None
                room -= 1

    def _ask(self):
        """For all that wait for their target: asks what it takes by now."""
        now = steady()
        if now - self._asked < ASK or self._stopping:
            return
        self._asked = now
        lines = [line for line in self._lines.values() if line.waiting]
        if full := [line for line in lines if line.elsewhere and line.ask_at <= now]:
            self._know(limits.under_way([line.target.id for line in full]))
            for line in full:
                line.ask_at = now + ASK_FULL
        wanted, asked = {}, {}
        for line in lines:
            if not line.target or not line.target.rate:
                self._call_up(line)
            elif line.ask_at <= now and (room := self._room_of(line) - len(line.slots)) > 0:
                some = asked[line.target.id] = []
                while line.waiting and len(some) < min(room, ledger.BATCH):
                    held = heapq.heappop(line.waiting)[2]
                    if self._held.get(held.id) is held:
                        some.append(held)
                wanted[line.target.id] = [held.at for held in some]
        given = {}
        try:
            if any(wanted.values()):
                given = limits.reserve({target_id: some for target_id, some in wanted.items() if some})
        finally:
            for target_id, some in asked.items():
                line, (slots, free) = self._lines[target_id], given.get(target_id, ((), None))
                for held, slot in zip(some, slots):
                    held.slot = slot
                    line.slots.add(held)
                    self._come(held)
                for held in some[len(slots):]:
                    self._line_up(held)
                if line.waiting and free:
                    line.ask_at = now + min(1.0, max(ASK, (free - utcnow()).total_seconds() - settings.LEAD))
        self._hold_back(now, lines)

    def _hold_back(self, now, lines):
        """Tells the database of the calls that wait here although they are due."""
        if now - self._told < 1:
            return
        self._told = now
        some = [held for line in lines for when, _, held in line.waiting if when < now and held.told < now - HOLD_EVERY]
        dispatch.hold_back([held.id for held in some])
        for held in some:
            held.told = now

    def _know(self, running):
        """running: {target id: calls under way, at all workers}"""
        ours = Counter(held.line for held in self._flying.values()) + Counter(held.line for held in self._ended)
        for target_id, number in running.items():
            line = self._lines[target_id]
            line.elsewhere = max(0, number - ours[line])

    def _pop(self):
        when, _, held = heapq.heappop(self._coming)
        heapq.heappop(held.line.soon)
        if held.second is not None:
            self._of_second[held.second] -= 1
            if not self._of_second[held.second]:
                del self._of_second[held.second]

    def _push(self, heap, held, left):
        when = steady() + left
        heapq.heappush(heap, (when, next(self._number), held))
        return when

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
                self._push(self._ready, held, held.left())
        elif (attempt.outcome or attempt.unsent) and self._flying.pop(held.id, None):
            if not self._ended:
                self._save_by = steady() + SAVE_WITHIN
            self._ended.append(held)

    def _settle(self, held):
        del self._held[held.id]
        held.line.held -= 1
        held.line.slots.discard(held)
        if self._begun.pop(held.id, None):
            held.line.active -= 1
            self._call_up(held.line)

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
            line = held.line
            if utcnow() > held.last:
                self._pop()
                self._settle(held)              # the dispatcher ends it
                continue
            if line.target and line.target.is_paused(held.at):
                self._pop()
                if held.left() > 0:             # perhaps not any more when it is due
                    held.second = None
                    held.when = self._push(self._coming, held, held.left())
                    heapq.heappush(line.soon, held.when)
                else:
                    self._settle(held)
                    self._new.append(held.id)
                continue
            held.outlived()
            if self._room_of(line) < 1 or line.target and line.target.rate and not held.slot:
                self._pop()
                self._line_up(held)
                continue
            attempt, makes = self._attempt(held)
            if makes and not self._thread():
                break
            self._pop()
            held.attempt = attempt
            line.slots.discard(held)
            self._begun[held.id] = held
            line.active += 1
            if not makes:
                self._report(held)
                continue
            more -= 1
            self._busy += 1
            line.threads += 1
            self._busiest = max(self._busy, self._busiest)
            self._connecting += 1
            held.connecting = True
            self._jobs.put((attempt, line))

    def _attempt(self, held):
        """(its Attempt, whether a thread is to make it): one that cannot be put together has ended already."""
        words, held.version = None, held.line.target and held.line.target.version
        try:
            request = held.request()
        except Unsendable as error:
            words = str(error)
        except Exception as error:      # one target must not keep the calls of others from being made
            logger.exception("call %d cannot be put together", held.id)
            words = f"cannot be put together: {type(error).__name__}"
        if words:
            target = held.line.target
            request = Request(
                target.method, target.url, target_id=target.id, target=target.name, version=target.version, number=held.number,
                delays=delays(held.call, target), max_age=age(target.max_age), repeatable=target.safe)
        attempt = Attempt(held.id, held.timestamp, request, lambda attempt: self.news.put((REPORT, (held, attempt))),
                          held.line.others, last=held.last, at=held.slot or held.at)
        if words:
            attempt.fail(words)
        return attempt, not words

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
        while (job := self._jobs.get()) is not None:
            attempt, line = job
            attempt.make()
            self.news.put((FREE, line))

    def _in_turn(self, held, now):
        """Whether one that stands ready, and whose time has come, may be claimed now."""
        line = held.line
        if not held.slot or held.attempt.outcome:       # there is nothing to send
            return True
        first = bool(line.behind) and line.behind[0] is held
        if held.outlived():
            if first:
                line.behind.popleft()
            held.attempt.refuse()
            self._pause(held)
            self._line_up(held)
            mine = False
        else:
            mine = line.paced(held, now)
            first = first or not mine and len(line.behind) == 1
        if first and line.behind:           # the next of them waits among those that stand ready
            self._push(self._ready, line.behind[0], line.pace.free_at(limits.in_a_second(line.target), now) - now)
        return mine

    def _claim(self):
        if not self._claiming:
            now, some = steady(), []
            while self._ready and self._ready[0][0] <= now and len(some) < self._room() and not self._stopping:
                held = heapq.heappop(self._ready)[2]
                if self._in_turn(held, now):
                    some.append(held)
            if not some:
                return
            self._claiming = uuid.uuid4().hex, some
        token, some = self._claiming
        asked = steady()
        plain = [held.id for held in some if not held.prepared]
        won, pending = ledger.claim(plain, token)
        held_back = anew = ()
        if len(plain) < len(some):
            claimed = ledger.claim_prepared(
                [ledger.Prepared(held.id, held.line.target and held.line.target.id, held.version, held.number) for held in some if held.prepared], token,
                {held.line.target.id for held in some if held.line.target and held.line.target.max_at_once is not None})
            won, pending = won | claimed.won, pending | claimed.pending
            held_back, anew = claimed.held_back, claimed.anew
        outage.database_answered()
        self._claiming = None
        paced = [held for held in some if held.slot and not held.attempt.outcome]
        for line in {held.line for held in paced}:
            ids = [held.id for held in paced if held.line is line]
            line.pace.sent(len(ids), len(won.intersection(ids)), steady())
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
                if held.id in held_back:
                    self._pause(held)
                    held.line.ask_at = asked + ASK_FULL
                    self._line_up(held)
                    continue
                self._settle(held)
                if held.id in anew or left is not None and left > MOVED:
                    self._new.append(held.id)           # it was moved to a later time
        if len(plain) < len(some):
            self._know(claimed.running)

    def _save(self):
        if not self._ended or (len(self._ended) < PORTION and steady() < self._save_by):
            return
        sent = [held for held in self._ended if held.attempt.outcome]
        unsent = [held for held in self._ended if not held.attempt.outcome]
        if sent:
            retries = {held.id: at for held in sent if (at := self._retry(held))}
            soon = utcnow() + timedelta(seconds=settings.WINDOW)
            ours = ledger.finish([(held.attempt.outcome, held.attempt.token) for held in sent], retries, soon)
            self._new += [call_id for call_id, at in retries.items() if call_id in ours and at <= soon]
        self._ended = unsent                # should the next fail, these are not finished again
        for held in sent:
            self._settle(held)
        if unsent:
            ledger.release([held.id for held in unsent], {held.attempt.token for held in unsent})
        self._ended = []
        for held in unsent:
            self._settle(held)
        outage.database_answered()

    def _retry(self, held):
        """Not before which there is another attempt, an aware datetime, or None."""
        request, outcome = held.attempt.request, held.attempt.outcome
        if outcome.status != Status.FAILED or not request.delays:
            return None
        if held.retry_at is None:       # decided once, also if it has to be written again
            held.retry_at = outcomes.next_attempt(
                outcome.failure, held.number, outcome.ended_at, held.timestamp, held.expires_at, request.delays,
                request.max_age, request.repeatable, outcome.retry_after)
        return held.retry_at

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
        for line in self._lines.values():
            line.waiting, line.soon = [], []
            line.behind.clear()

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
            self._lines = {key: line for key, line in self._lines.items() if line.held or line.threads}
            outage.room.over(after=2 * COUNT_EVERY)
        if self._threads > self._most:
            self._end_threads(min(self._threads - self._busy, self._threads - self._most))

    def _end_threads(self, number):
        for _ in range(number):
            self._jobs.put(None)
            self._threads -= 1


NO_ROOM = ("They are tried again while their GRACE lasts. Raise this machine's limits on threads and open files, or "
           "lower CALLS_AT_ONCE")
