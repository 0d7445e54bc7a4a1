"""What the worker runs, within the test's own process: one chunk of calls, and one tick."""
import threading
import time
from datetime import timedelta

import pytest
from conftest import make, statuses

from scheduler import tasks
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger, request, worker
from scheduler.models import Heartbeat, ScheduledCall


def make_calls(number):
    """Runs a chunk of that many calls, due a moment ago."""
    calls = make(-0.1, number)
    tasks.make_calls(sorted(call.id for call in calls), calls[0].timestamp.isoformat())


def test_the_threads_of_the_first_burst_share_one_session(api, monkeypatch):
    made, session = [], request.requests.Session

    def slow():
        made.append(threading.current_thread().name)
        time.sleep(0.2)
        return session()
    monkeypatch.setattr(request.requests, "Session", slow)
    request._session.cache_clear()
    make_calls(10)
    assert statuses() == {"Succeeded": 10} and len(made) == 1


def test_no_more_threads_can_be_started(api, log, monkeypatch, caplog):
    """As under a limit on processes: the calls are made by the threads that there are."""
    started, start = [], threading.Thread.start

    def limited(thread):
        if thread.name.startswith("call"):
            if len(started) == 3:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)
    monkeypatch.setattr(threading.Thread, "start", limited)
    worker._the_worker.cache_clear()
    api.switched = "/delay/0.1"
    with caplog.at_level("ERROR", "scheduler"):
        make_calls(20)
    worker._the_worker.cache_clear()        # the next test may have more of them
    assert statuses() == {"Succeeded": 20}
    assert len(api.seen) == len(log()) == 20
    assert [record.message.split(":")[0] for record in caplog.records] == ["can't start new thread"]


@pytest.mark.processes
@pytest.mark.parametrize("part", ["hand_over", "miss", "reap"])
def test_a_tick_of_which_a_part_failed_is_no_sign_of_life(monkeypatch, part):
    def broken(*_):
        raise RuntimeError("broken")
    running, late = make(-5, status="Running", lease_until=utcnow() - timedelta(1)), make(-3600)
    with monkeypatch.context() as patched:
        patched.setattr(dispatch if part == "hand_over" else ledger, part, broken)
        patched.setattr(tasks, "_last_tick", None)
        tasks.tick()
    assert not Heartbeat.objects.exists()
    ended = {call.status for call in ScheduledCall.objects.filter(id__in=[running.id, late.id])}
    assert ended == {"hand_over": {"Failed", "Missed"}, "miss": {"Failed", "Pending"},
                     "reap": {"Running", "Missed"}}[part], "the other parts did their work"
    monkeypatch.setattr(tasks, "_last_tick", None)
    tasks.tick()
    assert Heartbeat.objects.exists()
