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
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import requests
from conftest import KIND, LONG, SEED, postgres, redis_server, statuses, until
from django.conf import settings
from django.db import DatabaseError, connections
from standardwebhooks import Webhook

from scheduler import tasks
from scheduler.base.clock import machine
from scheduler.base.secrets import encrypt
from scheduler.calls import dispatch, ledger, log as call_log, worker
from scheduler.calls.attempts import attempts_of
from scheduler.models import ScheduledCall, Target

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
KINDS = {       # of targets: what may be repeated, what may not, what is held back, and what proves who sends it
    "single": {"method": "PUT"},
    "once": {"delays": [0.5, 1, 2]},
    "often": {"delays": [0.5, 1], "repeatable": True},
    "get": {"method": "GET", "body": "", "delays": [0.5, 1]},
    "few": {"delays": [1, 1], "max_at_once": 3, "rate": "40/s"},
    "slow": {"delays": [1], "rate": "40/s", "repeatable": True},
    "signed": {"delays": [0.5, 1], "secrets": {"signing": ["whsec_" + "c2lnbmVk" * 4]}},
    "oauth": {"delays": [0.5, 1], "secrets": {"auth": {"client_secret": "of a test"}},
              "auth": {"kind": "oauth2", "token_url": "/token/5", "client_id": "test"}, "url": ANSWERS + ",401"},
}
# Answers that say that the API has not done it. (After a 401 a request with a new token is of the same attempt.)
NOT_DONE = {"/status/503", "/status/401"}


def make_targets(api):
    """{id: Target}, one of each of KINDS."""
    made = []
    for name, fields in KINDS.items():
        fields = {"method": "POST", "body": "{{call.id}}", "url": ANSWERS, "secrets": {}, "auth": {}, **fields}
        fields |= {"url": api.url + fields["url"], "secrets": encrypt(fields["secrets"])}
        if url := fields["auth"].get("token_url"):
            fields["auth"] = fields["auth"] | {"token_url": api.url + url}
        made.append(Target.objects.create(name=name, headers={"X-Attempt": "{{call.attempt}}"}, **fields))
    return {target.id: target for target in made}


def check_attempts(requests, rows, targets):
    """What arrived at the API for calls of targets, and what the calls say of it.

    requests: {id of a call: its requests, as the stand-in saw them, in order}
    """
    for call_id, row in rows.items():
        if row.target_id is None:
            continue
        target, seen, attempts = targets[row.target_id], requests.get(call_id, []), attempts_of(row)
        story = f"call {call_id}, {target.name}, {row.status} ({row.error}), {row.attempts_made}: " + "; ".join(
            [f"{one['headers']['X-Attempt']} {one['at']:.3f}-{one['end']:.3f} {one['answer']}" for one in seen]
            + [f"{one['number']} {one['started_at']} {one['ended_at']} {one['error']}" for one in attempts])
        numbers = [int(one["headers"]["X-Attempt"]) for one in seen]
        made = row.attempts_made or 0
        if row.status == "Missed":      # one may have been claimed, and not been sent in time
            assert made <= 1 and not seen, story
            continue
        assert [one["number"] for one in attempts] == list(range(1, made + 1)), f"each once: {story}"
        written = list(row.attempts.values_list("number", flat=True))
        assert len(written) == len(attempts) or row.status == "Succeeded" and made == 1, f"each is written: {story}"
        assert len(attempts) <= 1 + len(target.delays), f"no more often than the list says: {story}"
        assert bool(attempts) == (row.status in ("Succeeded", "Failed")), story
        assert numbers == sorted(numbers) and set(numbers) <= {one["number"] for one in attempts}, story
        for before, after in zip(seen, seen[1:]):
            assert after["at"] >= before["end"], f"never two at once: {story}"
            assert target.safe or before["answer"] in NOT_DONE, f"never again what was perhaps done: {story}"
            if after["headers"]["X-Attempt"] == before["headers"]["X-Attempt"]:
                assert target.name == "oauth" and before["answer"] == "/status/401", f"an attempt is one request: {story}"
        for before, after, delay in zip(attempts, attempts[1:], target.delays):
            came = [one["at"] for one in seen if int(one["headers"]["X-Attempt"]) == after["number"]]
            assert not came or came[0] >= before["ended_at"].timestamp() + 0.75 * delay, f"never earlier than the list says: {story}"
        for attempt in attempts:
            of = [one for one in seen if int(one["headers"]["X-Attempt"]) == attempt["number"]]
            for one in of:
                assert not attempt["started_at"] or one["at"] > attempt["started_at"].timestamp() - 0.01, story
                assert one["at"] < attempt["ended_at"].timestamp() + 1, f"none after its end: {story}"
            assert of or attempt["outcome"] == "Failed" and not attempt["http_status"], f"a success that the API knows of: {story}"
            if attempt["http_status"] or attempt["outcome"] == "Succeeded":
                good = of[-1]["answer"] in ("/ok", "/delay/0.3")
                assert (attempt["outcome"] == "Succeeded") == good, story
                assert attempt["http_status"] == (200 if good else int(of[-1]["answer"].split("/")[2])), story
        if row.status in ("Succeeded", "Failed"):
            assert row.status == attempts[-1]["outcome"], story
    few = [one for call_id, seen in requests.items() if targets[rows[call_id].target_id].max_at_once for one in seen]
    most = max((sum(other["at"] <= one["at"] < other["end"] for other in few) for one in few), default=0)
    assert most <= KINDS["few"]["max_at_once"]


def check_signature(request):
    """By who has the key, whenever that is."""
    key, = KINDS["signed"]["secrets"]["signing"]
    headers = {name.lower(): value for name, value in request["headers"].items()}
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), timezone.utc)
    assert headers["webhook-signature"] == Webhook(key).sign(headers["webhook-id"], at, request["body"])
    # It is made before its worker claims the call, which a database that is away holds up.
    assert -2 < request["at"] - at.timestamp() < settings.GRACE


def test_random_faults(restored, stack, api, log):
    print(f"SCHEDULER_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    stack.celery = [str(Path(__file__).with_name("marked_worker.py"))]
    stack.start("web", "worker1", "worker2", "beat1", "beat2", LEASE=5, WRITE_RATE="100000/min",
                TARGET_NETWORKS="127.0.0.0/8")
    targets = make_targets(api)
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
        if request["path"].startswith("/token/"):
            continue
        if "webhook-id" in request["headers"]:
            of_targets.setdefault(int(request["headers"]["webhook-id"].split("_")[1]), []).append(request)
        else:
            seen.setdefault(int(request["headers"]["X-Call"]), []).append(request["at"])
    rows = {call.id: call for call in ScheduledCall.objects.all()}
    interrupted = faults.workers_killed + faults.counts.get("database away", 0)
    print(f"seed {SEED}: {faults.counts}, {len(accepted)} accepted, {len(rows)} rows, {statuses()}, {len(log())} lines",
          file=sys.stderr)

    assert accepted.keys() <= rows.keys(), "accepted = kept"
    assert [i for i, times in seen.items() if len(times) > 1] == [], "at most once"
    assert [i for i, times in seen.items() if times[0] < rows[i].timestamp.timestamp()] == [], "never early"
    assert [i for i, times in seen.items() if times[0] > rows[i].ended_at.timestamp() + 1] == [], "none after its end"
    check_attempts(of_targets, rows, targets)
    for i, some in of_targets.items():
        assert len({request["headers"]["webhook-id"] for request in some}) == 1, "one name, whatever the attempt"
        for request in some:
            if targets[rows[i].target_id].name == "signed":
                check_signature(request)
    seen |= {i: [request["at"] for request in some] for i, some in of_targets.items()}
    assert [i for i, times in seen.items() if times[0] < rows[i].timestamp.timestamp()] == [], "never early"
    assert [i for i, row in rows.items() if row.status == "Succeeded" and i not in seen] == []
    assert [i for i in seen if rows[i].status in ("Missed", "Cancelled", "Pending")] == []
    assert [i for i, row in rows.items() if row.started_at and row.started_at < row.timestamp] == []
    # One line each; a process that dies between a commit and its line, as README says, may owe some.
    lines = Counter(log(max(0, len(rows) - interrupted * worker.UNKNOWN)))
    expected = Counter(log_line(row, targets) for row in rows.values())
    assert lines - expected == Counter(), "no line twice, and none that is not of a row"


def log_line(row, targets):
    """The line that `row` should have: stamped with the start of its last attempt, or when it was given up."""
    last = attempts_of(row)[-1:] if row.target_id else []
    fired = last[0]["started_at"] if last and ledger.NOT_AGAIN not in row.error else None if row.target_id else row.started_at
    return call_log.line(row.status, row.timestamp, fired or row.ended_at, row.error,
                         row.target_id and targets[row.target_id].name).strip()
