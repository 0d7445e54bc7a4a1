"""calls/ledger.py, in every order of steps that Hypothesis can find.

Two workers, two dispatchers, a person and a clock take their steps; a worker may die or sleep between any
two of them. The database is real, its clock is the model's. After each step: at most one send for a row,
none early, none after its end, nothing final changes, and a line in the log for each row that has ended.
"""
import uuid
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from conftest import LONG, WORK, examples
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from scheduler.calls import dispatch, ledger
from scheduler.calls.attempt import Outcome
from scheduler.models import ScheduledCall


class Dies(BaseException):
    """As kill -9 in the middle of a step: nothing tidies up."""


class Claimed:
    def __init__(self, token, lease_end):
        self.token, self.lease_end = token, lease_end
        self.sent_at = None


class Model(RuleBasedStateMachine):
    """Few rules with many steps each: Hypothesis leaves out some rules in each example, and what is worth
    seeing needs all of these."""

    calls = Bundle("calls")

    def __init__(self):
        super().__init__()
        ScheduledCall.objects.all().delete()
        (WORK / "api_calls.log").unlink(missing_ok=True)
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)
        self.holds = [{}, {}]           # of each worker: id -> Claimed
        self.sent = set()
        self.final = {}                 # id -> its row

    @initialize(target=calls)
    def some_calls(self):
        return self.schedule_at(0, 0, 0.5, 5)

    def schedule_at(self, *ahead):
        return multiple(*[call.id for call in ledger.schedule(
            [self.now + timedelta(seconds=seconds) for seconds in ahead])])

    @rule(seconds=st.sampled_from([0.1, 0.4, 1, 1, 3, 3, 11, 61]))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    @rule(target=calls, call=calls, step=st.sampled_from(["schedule", "schedule", "cancel", "move"]),
          ahead=st.sampled_from([-1, 0, 0, 1, 20]))
    def a_person(self, call, step, ahead):
        if step == "schedule":
            return self.schedule_at(ahead)
        elif step == "cancel":
            ledger.cancel([call], now=self.now)
        else:
            ledger.move(call, self.now + timedelta(seconds=ahead))
        return multiple()

    @rule(step=st.sampled_from(["hand_over", "hand_over and die", "miss", "reap"]))
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

    @rule(worker=st.integers(0, 1), some=st.lists(calls, min_size=1, max_size=8),
          sleeps=st.sampled_from([0, 0, 0, 0, 3, 11]), twice=st.booleans(), sends=st.booleans())
    def claim(self, worker, some, sleeps, twice, sends):
        """Of whatever messages came: late, or twice, or to both. It may sleep between its question and the
        database, and ask again if no answer came."""
        some = [call_id for call_id in dict.fromkeys(some) if call_id not in self.holds[worker]]
        token, asked = uuid.uuid4().hex, self.now
        if twice:
            ledger.claim(some, token, now=self.now)
        self.now += timedelta(seconds=sleeps)
        won, pending = ledger.claim(some, token, now=self.now)
        assert not won & pending.keys()
        for call_id in won:
            self.holds[worker][call_id] = Claimed(token, asked + timedelta(seconds=ledger.lease()))
            if sends:
                self.send(self.holds[worker], call_id)

    @rule(worker=st.integers(0, 1), step=st.sampled_from(["send all", "send", "renew", "finish", "fail", "die"]))
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
        elif step in ("finish", "fail"):
            status = "Succeeded" if step == "finish" else "Failed"
            ledger.finish([(Outcome(i, self.now, status, claimed.sent_at, self.now, 200, ""), claimed.token)
                                for i, claimed in sent.items()])
            for call_id in sent:
                del mine[call_id]
        elif step == "die":
            mine.clear()

    def send(self, mine, call_id):
        """What calls/attempt.py does at the gate."""
        claimed = mine[call_id]
        if self.now >= claimed.lease_end:
            ledger.release([call_id], [claimed.token])
            del mine[call_id]
            return
        claimed.sent_at = self.now
        row = ScheduledCall.objects.get(id=call_id)
        assert row.status == "Running", f"sent when it was {row.status}"
        assert row.timestamp <= self.now, "sent early"
        assert call_id not in self.sent, "sent twice"
        self.sent.add(call_id)

    # What always holds

    @invariant()
    def nothing_final_changes_and_each_has_its_line(self):
        rows = {row["id"]: row for row in ScheduledCall.objects.filter(status__in=ScheduledCall.FINISHED).values()}
        for call_id, row in self.final.items():
            assert rows.get(call_id) == row
        self.final = rows
        for row in rows.values():
            assert row["started_at"] is None or row["started_at"] >= row["timestamp"], "started before it was due"
        log = WORK / "api_calls.log"
        assert (len(log.read_text().splitlines()) if log.exists() else 0) == len(rows)

    def teardown(self):
        """Whatever the workers do, in the end each call has ended."""
        self.now += timedelta(seconds=500)
        ledger.miss(now=self.now)
        ledger.reap(now=self.now)
        assert not ScheduledCall.objects.exclude(status__in=ScheduledCall.FINISHED).exists()
        self.nothing_final_changes_and_each_has_its_line()
        assert all(self.final[i]["status"] in ("Succeeded", "Failed") for i in self.sent), "sent, and not told of"


Model.TestCase.settings = settings(
    max_examples=int(5 * LONG) or examples(100), stateful_step_count=50, deadline=None, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck))
TestModel = Model.TestCase
