"""Faults at random from a seed, for as long as SCHEDULER_TEST_LONG says (tests/long): processes killed and
frozen, Redis emptied, frozen and restarted, the database away, messages doubled, while calls are scheduled
all the time. Then everything is up again, and each accepted call is accounted for.
"""
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from conftest import KIND, LONG, SEED, postgres, redis_server, statuses, until
from django.conf import settings
from django.db import DatabaseError, connections

from scheduler import tasks
from scheduler.base.clock import machine
from scheduler.calls import dispatch, log as call_log, worker
from scheduler.models import Attempt, ScheduledCall, Target

SHORT = 15          # seconds of faults, as part of tests/run


class Faults:
    """Does one after another, and undoes what must be undone when its time has come."""

    def __init__(self, stack, rng):
        self.stack, self.rng = stack, rng
        self.undo = {}              # what is broken: (time.monotonic() at which it is mended, how)
        self.counts = {}
        self.workers_killed = 0

    def one(self):
        kind = self.rng.choice(["kill", "kill", "freeze", "freeze", "flush", "double", "double", "redis frozen",
                                "redis restarted", "database away"])
        getattr(self, kind.replace(" ", "_"))()
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def mend(self, everything=False):
        for what, (when, how) in list(self.undo.items()):
            if everything or time.monotonic() >= when:
                del self.undo[what]
                how()

    def _for(self, what, least, most, how):
        self.undo[what] = time.monotonic() + self.rng.uniform(least, most), how

    def _some_process(self):
        return self.rng.choice(["web", "worker1", "worker2", "beat1", "beat2"])

    def kill(self):
        name = self._some_process()
        if name not in self.undo:
            self.stack.kill(name)
            self.workers_killed += name.startswith("worker")
            self._for(name, 0, 3, lambda: self.stack.launch(name))

    def freeze(self):
        name = self._some_process()
        if name not in self.undo:
            process = self.stack.processes[name]
            process.send_signal(signal.SIGSTOP)
            self._for(name, 0.2, 14, lambda: process.send_signal(signal.SIGCONT))

    def flush(self):
        if "redis" not in self.undo:
            redis_server.command("flushall")

    def redis_frozen(self):
        if "redis" not in self.undo:
            redis_server.process.send_signal(signal.SIGSTOP)
            self._for("redis", 0.5, 5, lambda: redis_server.process.send_signal(signal.SIGCONT))

    def redis_restarted(self):
        if "redis" not in self.undo:
            redis_server.stop(signal.SIGKILL)
            self._for("redis", 0.5, 5, redis_server.start)

    def database_away(self):
        if "database" in self.undo:
            return
        if KIND == "postgresql":
            connections.close_all()
            postgres.stop()
            self._for("database", 0.5, 4, postgres.run)
        else:
            other = sqlite3.connect(settings.DATABASES["default"]["NAME"], timeout=0, isolation_level=None)
            with suppress(sqlite3.OperationalError):        # somebody is writing, or was frozen in it
                other.execute("BEGIN EXCLUSIVE")
            self._for("database", 0.5, 4, other.close)

    def double(self):
        """Messages for calls in any state, to whoever comes first."""
        if self.undo.keys() & {"redis", "database"}:
            return
        with suppress(DatabaseError, tasks.kombu.exceptions.OperationalError):
            some = list(ScheduledCall.objects.order_by("-id").values_list("id", "timestamp")[:200])
            for call_id, timestamp in self.rng.sample(some, min(20, len(some))):
                for _ in range(2):
                    dispatch.send([call_id], timestamp)


@pytest.fixture
def restored():
    """Redis and the database, up again whatever happened."""
    yield
    if redis_server.process.poll() is None:
        redis_server.process.send_signal(signal.SIGCONT)
    else:
        redis_server.start()
    if KIND == "postgresql" and postgres.process.poll() is not None:
        postgres.run()


ANSWERS = "/one-of/ok,ok,ok,delay-0.3,503,503,500,404,cut,drop"
KINDS = {       # of targets: what may be repeated, what may not, and what is held back
    "once": {"delays": [0.5, 1, 2]},
    "often": {"delays": [0.5, 1], "repeatable": True},
    "get": {"method": "GET", "body": "", "delays": [0.5, 1]},
    "few": {"delays": [1], "max_at_once": 3, "repeatable": True},
    "slow": {"delays": [1], "rate": "40/s"},
}
SURELY_NOT_DONE = "/status/503"


def check_attempts(requests, rows, targets):
    """What arrived at the API for calls of targets.

    requests: {id of a call: its requests, as the stand-in saw them, in order}
    """
    for call_id, seen in requests.items():
        target = targets[rows[call_id].target_id]
        story = f"call {call_id}, {target.name}, {rows[call_id].status} ({rows[call_id].error}): " + ", ".join(
            f"{one['at']:.3f}-{one['end']:.3f} {one['answer']}" for one in seen)
        assert len(seen) <= 1 + len(target.delays), f"no more often than the list says: {story}"
        for before, after, delay in zip(seen, seen[1:], target.delays):
            assert after["at"] >= before["end"], f"never two at once: {story}"
            assert after["at"] >= before["end"] + 0.75 * delay, f"never earlier than the list says: {story}"
            assert target.safe or before["answer"] == SURELY_NOT_DONE, f"never again what was perhaps done: {story}"
        assert seen[-1]["at"] < rows[call_id].ended_at.timestamp() + 1, f"none after its end: {story}"
    few = [one for call_id, seen in requests.items() if targets[rows[call_id].target_id].max_at_once for one in seen]
    most = max((sum(other["at"] <= one["at"] < other["end"] for other in few) for one in few), default=0)
    assert most <= KINDS["few"]["max_at_once"]


def test_random_faults(restored, stack, api, log):
    print(f"SCHEDULER_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    stack.celery = [str(Path(__file__).with_name("marked_worker.py"))]
    stack.start("web", "worker1", "worker2", "beat1", "beat2", LEASE=5, WRITE_RATE="100000/min",
                TARGET_NETWORKS="127.0.0.0/8")
    targets = {one.id: one for one in Target.objects.bulk_create(
        [Target(name=name, url=api.url + ANSWERS, **{"method": "POST", "body": "{{call.id}}", **fields}) for name, fields in KINDS.items()])}
    faults = Faults(stack, rng)
    accepted = {}
    end = time.monotonic() + (LONG or SHORT)
    next_fault = 0.0
    while time.monotonic() < end:
        faults.mend()
        if time.monotonic() > next_fault:
            faults.one()
            next_fault = time.monotonic() + rng.uniform(0.2, 2)
        due = machine() + timedelta(seconds=rng.uniform(1, 8))
        if rng.random() < 0.5:
            due = due.replace(microsecond=0) + timedelta(seconds=1)
        times = [due + timedelta(milliseconds=rng.choice([0, 0, 0, 250, 900])) for _ in range(rng.randint(1, 40))]
        with suppress(requests.RequestException):
            answer = requests.post(stack.url + "/api/schedule-api/", timeout=1, json={"calls": [
                {"timestamp": time.isoformat(), **({"target": kind} if (kind := rng.choice([None, *KINDS])) else {})}
                for time in times]})
            if answer.status_code == 201:
                accepted |= {call["id"]: call["timestamp"] for call in answer.json()}
        rng.random()
        time.sleep(0.05)        # the pace of those who schedule; nothing is waited for
    faults.mend(everything=True)

    def all_ended():
        try:
            return not ScheduledCall.objects.exclude(status__in=ScheduledCall.FINISHED).exists()
        except DatabaseError:
            connections.close_all()
    until(all_ended, 150, "every row ended")
    seen, of_targets = {}, {}
    for request in api.seen:
        if "webhook-id" in request["headers"]:
            of_targets.setdefault(int(request["headers"]["webhook-id"].split("_")[1]), []).append(request)
        else:
            seen.setdefault(int(request["headers"]["X-Call"]), []).append(request["at"])
    rows = {call.id: call for call in ScheduledCall.objects.all()}
    last = dict(Attempt.objects.order_by("call", "number").values_list("call", "started_at"))
    for row in rows.values():
        row.fired_at = last.get(row.id) or row.started_at or row.ended_at
    interrupted = faults.workers_killed + faults.counts.get("database away", 0)
    print(f"seed {SEED}: {faults.counts}, {len(accepted)} accepted, {len(rows)} rows, {statuses()}, {len(log())} lines",
          file=sys.stderr)

    assert accepted.keys() <= rows.keys(), "accepted = kept"
    assert [i for i, times in seen.items() if len(times) > 1] == [], "at most once"
    assert [i for i, times in seen.items() if times[0] < rows[i].timestamp.timestamp()] == [], "never early"
    assert [i for i, times in seen.items() if times[0] > rows[i].ended_at.timestamp() + 1] == [], "none after its end"
    check_attempts(of_targets, rows, targets)
    seen |= {i: [request["at"] for request in some] for i, some in of_targets.items()}
    assert [i for i, times in seen.items() if times[0] < rows[i].timestamp.timestamp()] == [], "never early"
    assert [i for i, row in rows.items() if row.status == "Succeeded" and i not in seen] == []
    assert [i for i in seen if rows[i].status in ("Missed", "Cancelled", "Pending")] == []
    assert [i for i, row in rows.items() if row.started_at and row.started_at < row.timestamp] == []
    # One line each; a process that dies between a commit and its line, as README says, may owe some.
    lines = Counter(log(max(0, len(rows) - interrupted * worker.UNKNOWN)))
    expected = Counter(call_log.line(row.status, row.timestamp, row.fired_at, row.error).strip() for row in rows.values())
    assert lines - expected == Counter(), "no line twice, and none that is not of a row"
