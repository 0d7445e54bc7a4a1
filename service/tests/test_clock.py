"""One clock: the database's. A process whose machine has another is right all the same, and says so.

With SQLite the database's clock is that of the machine, for all its processes."""
import subprocess
import time
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

import pytest
import requests
from conftest import KIND, WORK, all_ended, until
from django.db import OperationalError

from scheduler.base import clock
from scheduler.base.clock import steady, utcnow
from scheduler.calls import dispatch
from scheduler.models import ScheduledCall


@cache
def wrong_clock():
    """The path of wrong_clock.c as a library."""
    library = WORK / "wrong_clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("wrong_clock.c"), "-ldl"],
                   check=True)
    return library


def wrong_by(seconds):
    """The environment of a process on a machine whose clock is that far ahead."""
    return {"LD_PRELOAD": wrong_clock(), "WRONG_BY": seconds}


RIGHT = {"LD_PRELOAD": "", "WRONG_BY": 0}


def test_it_counts_on_from_the_answer_that_came_soonest(monkeypatch):
    """And counts half of its way there and back."""
    now, asked = [100.0], []
    at = datetime(2030, 1, 1, tzinfo=timezone.utc)
    ways = [0.5, 0.2, 3.0, 0.4, 0.9]

    class Cursor:
        __enter__ = lambda self: self
        __exit__ = lambda *_: None

        def execute(self, sql):
            asked.append(now[0])
            now[0] += ways[len(asked) - 1]

        def fetchone(self):
            return [at + timedelta(seconds=asked[-1] - 100 + ways[len(asked) - 1] / 2)]
    monkeypatch.setattr(clock, "steady", lambda: now[0])
    monkeypatch.setattr(clock, "connection", type("", (), {"cursor": Cursor}))
    watch = clock.Watch()
    watch.measure()
    assert abs(watch.now() - at - timedelta(seconds=sum(ways))) < timedelta(microseconds=2)
    now[0] += 1000
    assert abs(watch.now() - at - timedelta(seconds=sum(ways) + 1000)) < timedelta(microseconds=2)


def test_a_database_that_cannot_be_asked_leaves_the_machines_clock(monkeypatch):
    def gone():
        raise OperationalError("gone")
    monkeypatch.setattr(clock, "connection", type("", (), {"cursor": gone}))
    watch = clock.Watch()
    with pytest.raises(OperationalError):
        watch.measure()
    assert abs(watch.now() - clock.machine()) < timedelta(seconds=1)


@pytest.mark.skipif(KIND == "sqlite", reason="its clock is this machine's")
def test_a_clock_that_is_wrong_is_told_of_once_and_when_it_is_right_again(monkeypatch, caplog):
    watch, real = clock.Watch(), clock.machine
    for wrong in (0, 5, 5, 0, -5):
        monkeypatch.setattr(clock, "machine", lambda: real() + timedelta(seconds=wrong))
        watch.measure()
    assert ["ahead" in r.message or "behind" in r.message for r in caplog.records] == [True, False, True]
    assert "5.0 s ahead" in caplog.records[0].message and "5.0 s behind" in caplog.records[2].message


@pytest.mark.parametrize("seconds", [20, -20, 120, -120])
def test_processes_whose_clock_is_wrong_harm_nobody(stack, api, seconds):
    """Web server, dispatcher and a worker, beside a worker whose clock is right."""
    stack.start("web", "worker1", "beat", **wrong_by(seconds))
    if KIND == "postgresql":
        stack.start("worker2", **RIGHT)
    zero = datetime.now(timezone.utc)       # now that all are up, however long that took
    if KIND == "sqlite":        # one machine, one clock: all of them have it, the test itself excepted
        zero += timedelta(seconds=seconds)
    due = zero.replace(microsecond=0) + timedelta(seconds=5)
    assert len(stack.post(*[due] * 10)) == 10                   # handed over by the web server
    ids = [call["id"] for call in stack.post(*[due + timedelta(seconds=60)] * 10)]
    ScheduledCall.objects.filter(id__in=ids).update(timestamp=due + timedelta(seconds=1))   # by the dispatcher
    assert all_ended(20, 60) == {"Succeeded": 20}
    late = sorted(call.lateness for call in ScheduledCall.objects.all())
    assert 0 <= late[0] and late[-1] < 15, late     # by the wrong clock it would be 20 or more
    if KIND == "postgresql":
        assert min(api.arrivals(due)) >= 0
        said = f"this machine's clock is {abs(seconds)}.0 s {'ahead of' if seconds > 0 else 'behind'}"
        for name in ("web", "worker1", "beat"):
            until(lambda: said in stack.says(name), 20, f"{name}: {said}")
        assert "this machine's clock" not in stack.says("worker2")
    assert requests.get(stack.url + "/healthz", timeout=5).status_code == 200


@pytest.mark.parametrize("seconds", [120, -120])
def test_the_dispatchers_silence_is_judged_by_the_databases_clock(stack, seconds):
    if KIND == "sqlite":
        # The web server's own, which is that of all processes; by it these are just now and long ago.
        silent, alive = utcnow() + timedelta(seconds=seconds - 100), utcnow() + timedelta(seconds=seconds - 1)
    else:
        silent, alive = utcnow() - timedelta(seconds=100), utcnow() - timedelta(seconds=1)
    stack.start("web", **wrong_by(seconds))
    asked = lambda: requests.get(stack.url + "/healthz", timeout=20)
    dispatch.beat(silent)
    assert asked().status_code == 503
    dispatch.beat(alive)
    assert asked().status_code == 200, asked().text


def test_steady_counts_on():
    began, slept = steady(), time.monotonic()
    until(lambda: time.monotonic() > slept + 0.05)
    assert 0.05 <= steady() - began < 5
