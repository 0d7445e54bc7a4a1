"""calls/ledger.py, in every order of steps that Hypothesis can find.

Two workers, two dispatchers, a person and a clock take their steps; a worker may die or sleep between any
two of them. The database is real, its clock is the model's. After each step: at most one send for a row that does
not name a target, and for one that does no more than that allows; none early, none after its end, nothing final
changes, each attempt has its place, and there is a line in the log for each row that has ended.
"""
import uuid
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from conftest import LONG, WORK, examples
from django.db.models import DateTimeField, Value
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from scheduler.calls import dispatch, ledger, limits, outcomes, targets
from scheduler.calls.attempt import Outcome
from scheduler.models import Attempt, ScheduledCall, Target

KINDS = {
    "once": {"delays": [1, 3]},
    "often": {"delays": [1, 3], "repeatable": True, "max_age": 20},
    "few": {"delays": [1], "max_at_once": 2, "rate": "2/s"},
    "single": {"method": "GET"},
}
FAILURES = outcomes.NOTHING, outcomes.REFUSED, outcomes.UNKNOWN, outcomes.ANSWERED


class Dies(BaseException):
    """As kill -9 in the middle of a step: nothing tidies up."""


class Claimed:
    def __init__(self, token, lease_end, prepared=None):
        self.token, self.lease_end, self.prepared = token, lease_end, prepared
        self.sent_at = None


class Model(RuleBasedStateMachine):
    """Few rules with many steps each: Hypothesis leaves out some rules in each example, and what is worth
    seeing needs all of these."""

    calls = Bundle("calls")

    def __init__(self):
        super().__init__()
        ScheduledCall.objects.all().delete()
        Target.objects.all().delete()
        (WORK / "api_calls.log").unlink(missing_ok=True)
        self.now = datetime(2096, 1, 1, tzinfo=timezone.utc)
        self.targets = {name: Target.objects.create(name=name, url="https://api.example.org/", **{"method": "POST", **fields})
                        for name, fields in KINDS.items()}
        self.named = {target.id: name for name, target in self.targets.items()}
        self.prepared = [{}, {}]        # of each worker: id -> Prepared, as it read the row
        self.holds = [{}, {}]           # of each worker: id -> Claimed
        self.sent = {}                  # id -> how what was sent ended, None while nobody knows
        self.slots = []                 # that the rate gave
        self.final = {}                 # id -> its row

    @initialize(target=calls)
    def some_calls(self):
        return multiple(*self.schedule_at(None, 0, 0.5, 5), *self.schedule_at("once", 0, 0), *self.schedule_at("often", 0, 5),
                        *self.schedule_at("few", 0, 0, 0, 0), *self.schedule_at("single", 0))

    def schedule_at(self, name, *ahead, expires=None):
        return [call.id for call in ledger.schedule(calls=[ledger.NewCall(
            self.now + timedelta(seconds=seconds), target=self.targets.get(name),
            expires_at=None if expires is None else self.now + timedelta(seconds=seconds + expires)) for seconds in ahead])]

    @rule(seconds=st.sampled_from([0.1, 0.4, 1, 1, 3, 3, 11, 61]))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    @rule(target=calls, call=calls, step=st.sampled_from(["schedule", "schedule", "again", "cancel", "move", "try now"]),
          name=st.sampled_from([None, *KINDS]), ahead=st.sampled_from([-1, 0, 0, 1, 20]),
          expires=st.sampled_from([None, None, 0.5, 200]))
    def a_person(self, call, step, name, ahead, expires):
        if step == "schedule":
            return multiple(*self.schedule_at(name, ahead, expires=expires))
        elif step == "again":
            new, = ledger.again([call])     # which is due by the clock of the machine
            ledger.move(new.id, self.now)
            return new.id
        elif step == "cancel":
            ledger.cancel([call], now=self.now)
        elif step == "try now":
            ledger.try_now(call, now=self.now)
        else:
            ledger.move(call, self.now + timedelta(seconds=ahead))
        return multiple()

    @rule(name=st.sampled_from(list(KINDS)), step=st.sampled_from(["change", "pause", "pause for 3 s", "resume", "resume"]))
    def who_looks_after_a_target(self, name, step):
        target = self.targets[name] = Target.objects.get(name=name)
        if step == "change":
            target.headers = {"X-Version": str(target.version)}
            targets.save(target)
        elif step == "resume":
            targets.resume(target)
        else:
            targets.pause(target, "ann", until=self.now + timedelta(seconds=3) if "for" in step else None)

    @rule(step=st.sampled_from(["hand_over", "hand_over and die", "miss", "miss", "reap"]))
    def a_dispatcher(self, step):
        """One of two: they keep nothing, and take their steps in any order."""
        if step == "miss":
            ledger.miss(now=self.now)
        elif step == "reap":
            ledger.reap(now=self.now)
        else:
            def send(ids, first):
                if "die" in step:
                    raise Dies
                assert not self.final.keys() & set(ids)
            with suppress(Dies):
                dispatch.hand_over(send, now=self.now)

    @rule(worker=st.integers(0, 1), some=st.lists(calls, min_size=1, max_size=8), anew=st.sampled_from([False, False, False, True]),
          sleeps=st.sampled_from([0, 0, 0, 0, 3, 11]), twice=st.booleans(), sends=st.booleans())
    def claim(self, worker, some, anew, sleeps, twice, sends):
        """Of whatever messages came: late, or twice, or to both. It may have read the rows long ago. It may sleep
        between its question and the database, and ask again if no answer came."""
        some = [call_id for call_id in dict.fromkeys(some) if call_id not in self.holds[worker]]
        known, token, asked = self.prepared[worker], uuid.uuid4().hex, self.now
        for row in ScheduledCall.objects.filter(id__in=[i for i in some if anew or i not in known]).select_related("target"):
            known[row.id] = ledger.Prepared(row.id, row.target_id, row.target and row.target.version, (row.attempts_made or 0) + 1)
        plain = [i for i in some if known[i].target is None]
        prepared = [known[i] for i in some if known[i].target]
        first = set()
        if twice:
            first, _ = self.ask(plain, prepared, token)
        self.now += timedelta(seconds=sleeps)
        won, claimed = self.ask(plain, prepared, token, first)
        for call_id in won:
            self.holds[worker][call_id] = Claimed(token, asked + timedelta(seconds=ledger.lease()), known.pop(call_id))
        for call_id in claimed.anew:
            del known[call_id]
        if sends:
            for call_id in won:
                self.send(self.holds[worker], call_id)

    def ask(self, plain, prepared, token, before=frozenset()):
        """Claims. Returns (the ids that were won, the Claimed). `before`: what was won with this token already"""
        won, pending = ledger.claim(plain, token, now=self.now)
        claimed = ledger.claim_prepared(prepared, token, {self.targets["few"].id}, now=self.now)
        assert not won & pending.keys() and not claimed.won & (claimed.pending.keys() | claimed.anew | claimed.held_back)
        known = {one.id: one for one in prepared}
        for row in ScheduledCall.objects.filter(id__in=(won | claimed.won) - before).select_related("target"):
            assert (row.status, row.claim_token) == ("Running", token)
            if row.target:
                at = row.timestamp if row.attempts_made == 1 else self.now
                assert not row.target.is_paused(at), "claimed in a pause"
                assert known[row.id][1:] == (row.target_id, row.target.version, row.attempts_made), "made ready with something else"
        return won | claimed.won, claimed

    @rule(worker=st.integers(0, 1),
          step=st.sampled_from(["send all", "send all", "send", "renew", "succeed", *FAILURES, "die"]))
    def work(self, worker, step):
        mine = self.holds[worker] or self.holds[1 - worker]     # one that has nothing has no steps
        sent = {i: claimed for i, claimed in mine.items() if claimed.sent_at}
        if step.startswith("send"):
            for call_id in [i for i in mine if i not in sent][:None if step == "send all" else 1]:
                self.send(mine, call_id)
        elif step == "renew":
            ours = ledger.renew(
                list(mine), [claimed.token for claimed in mine.values()],
                [(i, claimed.sent_at) for i, claimed in sent.items()], now=self.now)
            for call_id, claimed in mine.items():
                claimed.lease_end = self.now + timedelta(seconds=ledger.lease()) if call_id in ours else self.now
        elif step == "die":
            mine.clear()
        else:
            self.finish(mine, sent, "" if step == "succeed" else step)

    def finish(self, mine, sent, failure):
        """What calls/worker.py does with what has ended, all in the same way."""
        ended, retries = [], {}
        for call_id, claimed in sent.items():
            row, number = ScheduledCall.objects.select_related("target").get(id=call_id), claimed.prepared.number
            target = row.target
            ended.append((Outcome(
                call_id, self.now, "Failed" if failure else "Succeeded", claimed.sent_at, self.now, 200, failure, failure,
                None, number, row.target_id, target.name if target else "", claimed.prepared.version or 0,
                {"version": claimed.prepared.version} if target else None), claimed.token))
            if failure and target:
                retries[call_id] = outcomes.next_attempt(
                    failure, number, self.now, row.timestamp, row.expires_at, target.delays, target.max_age or 86400, target.safe)
            if self.sent[call_id][-1] is claimed:
                self.sent[call_id][-1] = failure or "success"
        ours = ledger.finish(ended, {i: at for i, at in retries.items() if at}, self.now + timedelta(seconds=2))
        assert ours <= sent.keys()
        for call_id in sent:
            del mine[call_id]

    def send(self, mine, call_id):
        """What calls/attempt.py does at the gate."""
        claimed = mine[call_id]
        if self.now >= claimed.lease_end:
            ledger.release([call_id], [claimed.token])
            del mine[call_id]
            return
        claimed.sent_at = self.now
        row = ScheduledCall.objects.select_related("target").get(id=call_id)
        before = self.sent.setdefault(call_id, [])
        assert (row.status, row.claim_token) == ("Running", claimed.token), f"sent when it was {row.status}"
        assert row.timestamp <= self.now, "sent early"
        if row.target is None:
            assert not before, "sent twice"
        else:
            assert len(before) <= len(row.target.delays), "sent too often"
            again = (outcomes.NOTHING, outcomes.REFUSED)
            assert row.target.safe or all(one in again for one in before), f"sent again after {before}"
            assert all(one in (*again, outcomes.UNKNOWN) or isinstance(one, Claimed) for one in before), f"sent again after {before}"
        before.append(claimed)

    @rule(step=st.integers(1, 3))
    def a_worker_asks_for_instants(self, step):
        few = self.targets["few"].id
        given, free = limits.reserve({few: [self.now] * step}, now=Value(self.now, DateTimeField()))[few]
        self.slots += given
        assert all(self.now <= at <= self.now + 2 * limits.HORIZON for at in given)
        assert all(b - a >= timedelta(seconds=0.5) for a, b in zip(self.slots, self.slots[1:])), "no more than the rate"

    # What always holds

    @invariant()
    def nothing_final_changes_and_each_has_its_line(self):
        rows = {row["id"]: row for row in ScheduledCall.objects.filter(status__in=ScheduledCall.FINISHED).values()}
        for call_id, row in self.final.items():
            assert rows.get(call_id) == row
        self.final = rows
        for row in rows.values():
            assert row["started_at"] is None or row["started_at"] >= row["timestamp"], "started before it was due"
            assert row["next_attempt_at"] is None and row["lease_until"] is None
        log = WORK / "api_calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        assert len(lines) == len(rows)
        named = Counter(name for line in lines for name in KINDS if f" API {name}" in line)
        assert named == Counter(self.named[row["target_id"]] for row in rows.values() if row["target_id"])

    @invariant()
    def each_attempt_has_its_place(self):
        attempts = {}
        for call_id, number in Attempt.objects.order_by("call", "number").values_list("call", "number"):
            attempts.setdefault(call_id, []).append(number)
        running = Counter()
        for row in ScheduledCall.objects.filter(target__isnull=False):
            made, written = row.attempts_made or 0, attempts.pop(row.id, [])
            if row.status == "Running":
                running[row.target_id] += 1
                assert made >= 1
                made -= 1
            if row.status == "Succeeded" and made == 1:
                assert row.trace is not None and not written
            else:
                assert written == list(range(1, made + 1)), f"{row.status}, {row.attempts_made}: {written}"
            assert made <= 1 + len(KINDS[self.named[row.target_id]].get("delays", ()))
            if row.status in ("Pending", "Retrying"):
                assert bool(made) == (row.status == "Retrying") == bool(row.next_attempt_at)
        assert not attempts, "none of a call without a target"
        assert running[self.targets["few"].id] <= KINDS["few"]["max_at_once"]

    def teardown(self):
        """Whatever the workers do, in the end each call has ended."""
        self.now += timedelta(seconds=500)
        ledger.reap(now=self.now)
        self.now += timedelta(days=2)
        ledger.miss(now=self.now)
        assert not ScheduledCall.objects.exclude(status__in=ScheduledCall.FINISHED).exists()
        self.nothing_final_changes_and_each_has_its_line()
        self.each_attempt_has_its_place()
        for call_id in self.sent:
            row = self.final[call_id]
            assert row["status"] in ("Succeeded", "Failed") or row["status"] == "Cancelled" and row["target_id"], "sent, and not told of"


Model.TestCase.settings = settings(
    max_examples=int(3 * LONG) or examples(30), stateful_step_count=50, deadline=None, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck))
TestModel = Model.TestCase
