"""Real faults: processes killed, the broker restarted, emptied or gone, messages doubled. Each time
every call has exactly one outcome and one line in the log, and the API saw it at most once."""
import signal
import sqlite3
import time
from contextlib import suppress
from datetime import timedelta

import pytest
import requests
from conftest import KIND, WORK, all_ended, end, in_seconds, make, postgres, redis_server, statuses, until
from django.conf import settings
from django.db import connections
from django.db.models import F

from scheduler import tasks
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger, worker
from scheduler.models import Heartbeat, ScheduledCall


@pytest.fixture
def broker():
    """Redis, running again when the test is over."""
    yield redis_server
    if redis_server.process.poll() is not None:
        redis_server.start()


def one_line_each(log, number):
    lines = log(number)
    assert len(lines) == number
    return lines


def never_early(api, due):
    assert all(late >= 0 for late in api.arrivals(due)), api.arrivals(due)


def test_worker_killed_in_mid_call(stack, api, log):
    """What it was calling ends as unknown and is not repeated; what had ended keeps its outcome."""
    stack.start("web", "worker", "beat")
    stack.post(*[in_seconds(1)] * 3)
    all_ended(3)
    api.switched = "/hang"
    stack.post(*[in_seconds(1)] * 5)
    until(lambda: len(api.seen) == 8, what="all calls have reached the API")
    stack.kill("worker")
    api.switched = None
    stack.start("worker")
    assert all_ended(8) == {"Succeeded": 3, "Failed": 5}
    assert set(ScheduledCall.objects.filter(status="Failed").values_list("error", flat=True)) == {
        "worker lost, outcome unknown"}
    lines = one_line_each(log, 8)
    assert sum("(worker lost, outcome unknown)" in line for line in lines) == 5
    assert len(api.seen) == 8


def test_worker_killed_before_the_time(stack, api, log):
    """It holds the message in its memory, and the call is made all the same, by another."""
    stack.start("worker", "beat")
    due = in_seconds(4)
    ScheduledCall.objects.create(timestamp=due)
    until(lambda: ScheduledCall.objects.get().handed_over_at)
    until(lambda: redis_server.command("llen", "scheduler.calls") == "0", what="the worker has the message")
    stack.kill("worker")
    stack.start("worker")
    assert all_ended(1) == {"Succeeded": 1}
    never_early(api, due)
    one_line_each(log, 1)
    assert len(api.seen) == 1


def test_worker_killed_in_a_burst(stack, api, log):
    """Of a thousand calls of one second: few may have been claimed and not sent, or have ended and not
    been written. All others are made by another worker."""
    stack.start("web", "worker", "beat")
    stack.post(in_seconds(1))
    all_ended(1)                                # it is warm
    due = in_seconds(3)
    stack.post(*[due] * 1000)
    until(lambda: len(api.seen) > 100)
    stack.kill("worker")
    at_the_kill = len(api.seen)
    stack.start("worker")
    ended = all_ended(1001, 60)
    assert ended.keys() <= {"Succeeded", "Failed"}
    never_sent = ended.get("Failed", 0) - (len(api.seen) - ended["Succeeded"])
    assert 0 <= never_sent <= worker.UNKNOWN, f"{ended}, {at_the_kill} and then {len(api.seen)} requests"
    assert len(api.seen) > at_the_kill
    assert not ScheduledCall.objects.filter(started_at__lt=F("timestamp")).exists()
    # Killed between a commit and its lines, a worker leaves none for what it had just written: all that had ended meanwhile.
    assert len(log(1001 - 4 * worker.UNKNOWN)) <= 1001


def test_worker_killed_between_two_calls_of_a_second(stack, api, log):
    """The second of them waited only; it is made by another worker."""
    stack.start("worker", "beat")
    due = in_seconds(4)
    ScheduledCall.objects.create(timestamp=due)
    ScheduledCall.objects.create(timestamp=due + timedelta(seconds=0.9))
    until(lambda: statuses() == {"Succeeded": 1, "Pending": 1}, what="the first is made, the second waits")
    log(1)                                      # between its commit and its line a kill would cost the line
    stack.kill("worker")
    stack.start("worker")
    assert all_ended(2) == {"Succeeded": 2}
    assert len(api.seen) == 2 and len(one_line_each(log, 2)) == 2


def test_worker_frozen_for_longer_than_its_lease(stack, api, log):
    """What it had not claimed is made by another; when it comes back it sends nothing any more."""
    stack.start("worker1", "beat", LEASE=5)
    due = in_seconds(4)
    for after in (0, 0.5, 0.7, 0.9):
        ScheduledCall.objects.create(timestamp=due + timedelta(seconds=after))
    until(lambda: statuses() == {"Succeeded": 1, "Pending": 3})     # with SQLite not in the middle of a write
    stack.processes["worker1"].send_signal(signal.SIGSTOP)
    stack.start("worker2")
    ended = all_ended(4, 40)
    assert len(api.seen) == 4 and ended == {"Succeeded": 4}
    rows = list(ScheduledCall.objects.order_by("id").values())
    until(lambda: ledger.reap() == 0 and utcnow() > due + timedelta(seconds=ledger.lease()), 30)
    stack.processes["worker1"].send_signal(signal.SIGCONT)
    end(stack.processes["worker1"])             # it ends once its calls are settled
    assert len(api.seen) == 4
    assert list(ScheduledCall.objects.order_by("id").values()) == rows, "nothing final changes"
    one_line_each(log, 4)


def test_worker_stopped_kindly_in_mid_call(stack, api, log):
    """SIGTERM: calls in flight may end, and their outcomes are written."""
    stack.start("web", "worker", "beat")
    api.switched = "/delay/2"
    stack.post(*[in_seconds(1)] * 5)
    until(lambda: len(api.seen) == 5)
    worker = stack.processes["worker"]
    worker.terminate()
    assert worker.wait(20) == 0
    assert statuses() == {"Succeeded": 5}
    one_line_each(log, 5)


def test_a_stopped_worker_leaves_what_it_has_not_begun_to_another(stack, api, log):
    """In time to be made when it is due; it does not wait for that itself."""
    stack.start("worker1", "beat")
    due = in_seconds(9)
    ScheduledCall.objects.bulk_create([ScheduledCall(timestamp=due) for _ in range(150)])
    until(lambda: ScheduledCall.objects.filter(handed_over_at=None).count() == 0)
    until(lambda: redis_server.command("llen", "scheduler.calls") == "0", what="the worker has the messages")
    stack.start("worker2")
    worker1 = stack.processes["worker1"]
    worker1.terminate()
    assert worker1.wait(10) == 0
    assert utcnow() < due and statuses() == {"Pending": 150}
    assert all_ended(150) == {"Succeeded": 150}
    never_early(api, due)
    assert max(api.arrivals(due)) < 2       # handed over anew when that was found out it would be later
    one_line_each(log, 150)
    assert len(api.seen) == 150


def test_a_stopped_worker_is_gone_within_TIMEOUT(stack, api, log):
    """It ends what is on its way, however long the API takes, and lets go of the rest."""
    stack.start("worker", "beat", TIMEOUT=5, CALLS_AT_ONCE=5)
    api.switched = "/hang"
    due = in_seconds(3)
    ScheduledCall.objects.bulk_create([ScheduledCall(timestamp=due) for _ in range(20)])
    until(lambda: len(api.seen) == 5)
    stopped = time.monotonic()
    stack.processes["worker"].terminate()
    assert stack.processes["worker"].wait(20) == 0
    assert time.monotonic() - stopped < 5 + 3
    assert statuses() == {"Failed": 5, "Pending": 15} and len(api.seen) == 5
    one_line_each(log, 5)
    api.switched = None
    stack.start("worker")
    assert all_ended(20) == {"Failed": 5, "Succeeded": 15}


@pytest.mark.parametrize("seconds", [3, -3])
def test_a_call_that_is_moved_while_a_worker_holds_it(stack, api, log, seconds):
    """It is made at its new time, later or earlier."""
    stack.start("worker", "beat")
    due = in_seconds(7)
    call = ScheduledCall.objects.create(timestamp=due)
    until(lambda: ScheduledCall.objects.get().handed_over_at)
    until(lambda: redis_server.command("llen", "scheduler.calls") == "0", what="the worker has the message")
    assert ledger.move(call.id, due + timedelta(seconds=seconds))
    assert all_ended(1) == {"Succeeded": 1}
    late, = api.arrivals(due + timedelta(seconds=seconds))
    assert 0 <= late < 1
    one_line_each(log, 1)


def test_dispatcher_killed(stack, api, log):
    """beat is killed, time passes, another takes over: nothing that is still in time is lost."""
    stack.start("worker", "beat")
    until(lambda: Heartbeat.objects.exists(), what="a first tick")
    stack.kill("beat")
    until(lambda: dispatch.since_beat() > 2, what="the ticks that it had sent are over")
    due = in_seconds(2)
    ScheduledCall.objects.bulk_create([ScheduledCall(timestamp=due) for _ in range(20)])
    until(lambda: utcnow() > due + timedelta(seconds=1))
    assert statuses() == {"Pending": 20}
    stack.start("beat")
    assert all_ended(20) == {"Succeeded": 20}
    never_early(api, due)
    one_line_each(log, 20)
    assert len(api.seen) == 20


def test_dispatcher_killed_between_its_commit_and_its_message(api, log, stack):
    """The row says handed over, and no message exists: it is handed over again."""
    def killed(ids, first):
        raise SystemExit        # not an Exception: as with kill -9, nothing tidies up
    due = in_seconds(2)
    ScheduledCall.objects.create(timestamp=due)
    with pytest.raises(SystemExit):
        dispatch.hand_over(killed, now=utcnow() - dispatch.AGAIN_AFTER)
    assert ScheduledCall.objects.get().handed_over_at
    stack.start("worker", "beat")
    assert all_ended(1) == {"Succeeded": 1}
    never_early(api, due)
    assert len(api.seen) == 1 and len(log(1)) == 1


def test_web_killed_after_its_answer(stack, api, log):
    """What was answered with 201 is called."""
    stack.start("web", "worker", "beat")
    due = in_seconds(3)
    stack.post(*[due] * 10)
    stack.kill("web")
    assert all_ended(10) == {"Succeeded": 10}
    never_early(api, due)
    one_line_each(log, 10)
    assert len(api.seen) == 10


def test_redis_restarted_and_empty_while_calls_wait(stack, api, log, broker):
    stack.start("web", "worker", "beat")
    due = in_seconds(5)
    stack.post(*[due] * 20)
    until(lambda: "0" == broker.command("llen", "scheduler.calls"), what="the worker has the messages")
    broker.stop(signal.SIGKILL)
    broker.start()
    assert all_ended(20, 60) == {"Succeeded": 20}
    never_early(api, due)
    assert max(api.arrivals(due)) < 1, "the worker has them, whatever happens to the broker"
    one_line_each(log, 20)
    assert len(api.seen) == 20


def test_redis_flushed_while_messages_wait(stack, api, log, broker):
    stack.start("web")
    due = in_seconds(5)
    assert len(stack.post(*[due] * 20)) == 20
    until(lambda: broker.command("llen", "scheduler.calls") == "1")
    broker.command("flushall")
    stack.start("worker", "beat")
    assert all_ended(20) == {"Succeeded": 20}
    never_early(api, due)
    one_line_each(log, 20)
    assert len(api.seen) == 20


def test_redis_down_for_20_seconds_around_the_due_time(stack, api, log, broker):
    """A POST in that time is answered at once, and nothing is lost: it is made when Redis is back."""
    stack.start("web", "worker", "beat")
    down = time.monotonic()
    before = in_seconds(7)
    stack.post(*[before] * 10)
    until(lambda: broker.command("llen", "scheduler.calls") == "0", what="the worker has the message")
    broker.stop(signal.SIGKILL)
    began = time.monotonic()
    meanwhile = in_seconds(8)
    stack.post(*[meanwhile] * 10)
    assert time.monotonic() - began < 2
    assert requests.get(stack.url + "/healthz", timeout=5).status_code == 503
    until(lambda: time.monotonic() > down + 20, 30)
    broker.start()
    assert all_ended(20, 60) == {"Succeeded": 20}
    never_early(api, min(before, meanwhile))
    assert sorted(api.arrivals(before))[9] < 1, "what the worker had is made in time"
    one_line_each(log, 20)
    assert len(api.seen) == 20
    for name in ("worker", "beat"):
        says = until(lambda: "the broker is back" in stack.says(name) and stack.says(name), 20, f"{name} is back")
        assert says.count("the broker cannot be reached") == says.count("the broker is back") == 1, says
        for noise in ("Traceback", "CRITICAL", "CPendingDeprecationWarning", "could not be given back"):
            assert noise not in says, says


def test_redis_hangs(stack, api, log, broker):
    """It takes connections and says nothing: a POST is answered all the same, and nothing is lost."""
    stack.start("web", "worker", "beat")
    due = in_seconds(2)
    stack.post(*[due] * 10)
    broker.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        stack.post(*[in_seconds(1)] * 10)
        assert time.monotonic() - began < 8
        assert requests.get(stack.url + "/healthz", timeout=5).status_code == 503
    finally:
        broker.process.send_signal(signal.SIGCONT)
    assert all_ended(20, 60) == {"Succeeded": 20}
    never_early(api, due)
    one_line_each(log, 20)
    assert len(api.seen) == 20


class Refusing:
    """A Redis that answers, and takes no writes: `begin` and `end` it."""

    def __init__(self, kind, redis):
        self.kind, self.redis, self.master = kind, redis, None

    def begin(self):
        if self.kind == "MISCONF":          # its disk is full: it cannot save, and takes nothing that it could lose
            (WORK / "dump.rdb").mkdir()
            self.redis.command("config", "set", "save", "3600 1")
            self.redis.command("bgsave")
        elif self.kind == "READONLY":
            self.master = type(self.redis)()
            self.master.start()
            self.redis.command("replicaof", "127.0.0.1", str(self.master.port))
        else:
            self.redis.command("config", "set", "maxmemory", "1")
        until(lambda: self.kind in self.redis.command("set", "x", "y"), what="it refuses")

    def end(self):
        if self.kind == "MISCONF":
            with suppress(FileNotFoundError):
                (WORK / "dump.rdb").rmdir()
            self.redis.command("config", "set", "save", "")
        elif self.kind == "READONLY":
            self.redis.command("replicaof", "no", "one")
            end(self.master.process)
        else:
            self.redis.command("config", "set", "maxmemory", "0")


@pytest.fixture(params=["MISCONF", "READONLY", "OOM"])
def refusing(request, broker):
    refusing = Refusing(request.param, broker)
    yield refusing
    refusing.end()
    until(lambda: broker.command("set", "x", "y") == "OK")


def test_redis_refuses_writes(stack, api, log, broker, refusing):
    """As if it were away: one line from each, what a worker has is made, and all goes on when it takes writes again."""
    stack.start("web", "worker", "beat")
    due = in_seconds(4)
    stack.post(*[due] * 10)
    until(lambda: broker.command("llen", "scheduler.calls") == "0", what="the worker has the message")
    refusing.begin()
    stack.post(*[in_seconds(2)] * 10)           # taken in, and not handed over
    health = requests.get(stack.url + "/healthz", timeout=5)
    assert health.status_code == 503 and health.json()["broker"].startswith("takes no messages")
    until(lambda: utcnow() > due + timedelta(seconds=6), what="several tries of each process")
    assert statuses() == {"Succeeded": 10, "Pending": 10}
    assert max(api.arrivals(due)) < 1
    stack.launch("worker2")                     # one that is started just now waits too
    until(lambda: "the broker cannot be reached" in stack.says("worker2"))
    refusing.end()
    assert all_ended(20, 40) == {"Succeeded": 20}
    one_line_each(log, 20)
    # It learns of it as it hands over a call; the dispatcher may be quicker.
    until(lambda: stack.post(in_seconds(2)) and "the broker is back" in stack.says("web"))
    for name in ("web", "worker", "worker2", "beat"):
        assert stack.processes[name].poll() is None
        says = stack.says(name)
        if "the broker cannot be reached" in says or name in ("web", "beat"):
            until(lambda: "the broker is back" in stack.says(name), 20, f"{name} says that it is back")
            says = stack.says(name)
            assert says.count("the broker cannot be reached") == says.count("the broker is back") == 1, says
        for noise in ("Traceback", "CRITICAL", "WARNING/", "ERROR/"):
            assert noise not in says, says


def test_the_same_task_delivered_twice(stack, api, log):
    """At the same time to two workers, and once more when all is over."""
    stack.start("worker1", "worker2", "beat")
    due = in_seconds(3)
    ids = [call.id for call in make(number=50)]
    ScheduledCall.objects.update(timestamp=due, handed_over_at=utcnow())
    for _ in range(6):
        dispatch.send(ids, due)
    assert all_ended(50) == {"Succeeded": 50}
    dispatch.send(ids, due)
    until(lambda: redis_server.command("llen", "scheduler.calls") == "0")
    extra = make(0)                             # made after what came before it
    dispatch.send([extra.id], extra.timestamp)
    assert all_ended(51) == {"Succeeded": 51}
    never_early(api, due)
    one_line_each(log, 51)
    assert len(api.seen) == 51


def test_two_dispatchers_at_once(stack, api, log):
    stack.start("worker1", "worker2", "beat1", "beat2")
    due = in_seconds(4)
    ScheduledCall.objects.bulk_create([ScheduledCall(timestamp=due) for _ in range(300)])
    assert all_ended(300) == {"Succeeded": 300}
    never_early(api, due)
    one_line_each(log, 300)
    assert len(api.seen) == 300


def test_an_eta_that_is_past(stack, api, log):
    """Nothing ran for a while: what is within its grace is made at once, the rest is missed."""
    make(-5, 10)
    make(-3600, 10)
    stack.start("worker", "beat")
    assert all_ended(20) == {"Succeeded": 10, "Missed": 10}
    lines = one_line_each(log, 20)
    assert sum(": Missed call to API at" in line for line in lines) == 10
    assert len(api.seen) == 10


def test_a_message_that_comes_too_early(stack, api):
    """The clocks of two machines disagree: the worker waits for its own, and until then the call is
    pending and may be cancelled."""
    due = in_seconds(4)
    call = make()
    ScheduledCall.objects.update(timestamp=due, handed_over_at=utcnow())
    stack.start("worker")
    tasks.make_calls.apply_async(([call.id], due.isoformat()))
    until(lambda: "received" in stack.outputs["worker"].read_text())
    until(lambda: utcnow() > due - timedelta(seconds=1))
    assert statuses() == {"Pending": 1}
    assert all_ended(1) == {"Succeeded": 1}
    never_early(api, due)


def test_a_slow_api_is_not_taken_for_a_dead_worker(stack, api, log):
    """The lease is renewed for as long as the call takes."""
    stack.start("web", "worker", "beat", TIMEOUT=20, LEASE=5)
    api.switched = "/delay/12"
    stack.post(in_seconds(1))
    assert all_ended(1, 40) == {"Succeeded": 1}
    assert len(one_line_each(log, 1)) == 1


def test_a_hung_api_does_not_hold_up_later_calls(stack, api):
    """More calls hang than there are chunks at once, and a later call is on time."""
    stack.start("web", "worker", "beat", TIMEOUT=8)
    api.switched = "/hang"
    first = in_seconds(2)
    stack.post(*[first + timedelta(seconds=i) for i in range(4) for _ in range(50)])
    due = first + timedelta(seconds=5)
    stack.post(due)
    until(lambda: len(api.seen) == 201)
    assert api.arrivals(due)[-1] < 1, "late behind calls that hang"
    assert all_ended(201) == {"Failed": 201}


def test_more_at_once_than_there_are_threads(stack, api, log):
    """Each waits for a thread; those whose grace ends first are missed, and none is lost."""
    stack.start("web", "worker", "beat", CALLS_AT_ONCE=10, CHUNK=10, GRACE=5, TIMEOUT=3)
    api.switched = "/hang"
    stack.post(*[in_seconds(1)] * 100)
    ended = all_ended(100, 40)
    assert set(ended) == {"Failed", "Missed"} and ended["Failed"] == len(api.seen)
    one_line_each(log, 100)


def test_a_full_disk_under_the_log(stack, api):
    """The outcome is in the database, the line in the worker's own output."""
    stack.start("web", "worker", "beat", CALL_LOG="/dev/full")
    stack.post(in_seconds(1))
    assert all_ended(1) == {"Succeeded": 1}
    output = until(lambda: "cannot write to /dev/full" in stack.outputs["worker"].read_text()
                   and stack.outputs["worker"].read_text())
    assert "Successfully called API at" in output


def test_a_suspended_worker_that_comes_back(stack, api, log):
    """Its calls were given up as unknown meanwhile; it must not write over that, nor log again."""
    stack.start("web", "worker", LEASE=5, TIMEOUT=30)
    api.switched = "/delay/3"
    stack.post(*[in_seconds(1)] * 4)
    until(lambda: len(api.seen) == 4)
    stack.processes["worker"].send_signal(signal.SIGSTOP)
    assert until(ledger.reap, what="the lease is over") == 4
    stack.processes["worker"].send_signal(signal.SIGCONT)
    end(stack.processes["worker"])
    assert statuses() == {"Failed": 4}
    assert all("worker lost" in line for line in one_line_each(log, 4))


def test_the_database_goes_away_in_mid_call(stack, api, log):
    """Outcomes are kept until they can be written: PostgreSQL is restarted, SQLite locked for longer
    than anybody waits for it."""
    stack.start("web", "worker", "beat", LEASE=60)
    api.switched = "/delay/2"
    stack.post(*[in_seconds(1)] * 20)
    until(lambda: len(api.seen) == 20)
    stack.post(*[in_seconds(2)] * 20)           # held by the worker, and due while the database is away
    connections.close_all()
    gone = lambda: "the database cannot be reached" in stack.says("worker")
    if KIND == "postgresql":
        postgres.stop()
        until(gone)
        postgres.run()
    else:
        with sqlite3.connect(settings.DATABASES["default"]["NAME"]) as other:
            other.execute("BEGIN EXCLUSIVE")
            until(gone, 40)
            other.rollback()
    assert all_ended(40, 40) == {"Succeeded": 40}
    one_line_each(log, 40)
    assert len(api.seen) == 40
    until(lambda: "the database is back" in stack.says("worker"))
    assert stack.says("worker").count("the database cannot be reached") == 1, stack.says("worker")
    assert "Traceback" not in stack.says("worker"), stack.says("worker")
