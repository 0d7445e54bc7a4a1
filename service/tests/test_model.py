"""transitions.py, in every order of steps that Hypothesis can find.

Two workers, two dispatchers, a person and a clock take their steps; a worker may die or sleep between any
two of them. The database is real, its clock is the model's. After each step: at most one send for a row,
none early, none after its end, nothing final changes, and a line in the log for each row that has ended.
"""
import uuid
from datetime import datetime, timedelta, timezone

from conftest import LONG, WORK
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from scheduler import transitions
from scheduler.caller import Outcome
from scheduler.models import ScheduledCall

WORKERS = st.integers(0, 1)
SECONDS = st.sampled_from([0.1, 0.9, 1, 3, 6, 10, 30, 61])


class Dies(BaseException):
    """As kill -9 in the middle of a step: nothing tidies up."""


class Claimed:
    def __init__(self, token, lease_end):
        self.token, self.lease_end = token, lease_end
        self.sent_at = None


class Model(RuleBasedStateMachine):
    calls = Bundle("calls")
    messages = Bundle("messages")

    def __init__(self):
        super().__init__()
        ScheduledCall.objects.all().delete()
        (WORK / "api_calls.log").unlink(missing_ok=True)
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)
        self.holds = [{}, {}]           # of each worker: id -> None, or Claimed
        self.sends = {}                 # id -> number
        self.final = {}                 # id -> its row

    # A person

    @rule(target=calls, number=st.integers(1, 3), ahead=st.sampled_from([-1, 0, 0.5, 5, 40]))
    def schedule(self, number, ahead):
        at = self.now + timedelta(seconds=ahead)
        return multiple(*[call.id for call in transitions.schedule([at] * number)])

    @rule(call=calls)
    def cancel(self, call):
        transitions.cancel(call, now=self.now)

    @rule(call=calls, ahead=st.sampled_from([0, 1, 20]))
    def move(self, call, ahead):
        transitions.move(call, self.now + timedelta(seconds=ahead))

    # Time

    @rule(seconds=SECONDS)
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    # Two dispatchers, whose steps these are, and the web server, in any order

    @rule(target=messages, dies=st.booleans())
    def hand_over(self, dies):
        sent = []

        def send(ids, first):
            if dies:
                raise Dies
            sent.append(ids)
        try:
            transitions.hand_over(send, now=self.now)
        except Dies:
            pass
        return multiple(*sent)

    @rule()
    def miss(self):
        transitions.miss(now=self.now)

    @rule()
    def reap(self):
        transitions.reap(now=self.now)

    # Two workers

    @rule(ids=messages, worker=WORKERS)
    def comes_and_stays_in_the_broker(self, ids, worker):
        """A message may come twice, to the same or to another."""
        for call_id in ids:
            self.holds[worker].setdefault(call_id)

    @rule(ids=consumes(messages), worker=WORKERS)
    def comes(self, ids, worker):
        self.comes_and_stays_in_the_broker(ids, worker)

    @rule(worker=WORKERS, sleeps=st.sampled_from([0, 0, 3, 60]), twice=st.booleans())
    def claim(self, worker, sleeps, twice):
        """It may sleep between its question and the database, and ask again if no answer came."""
        some = [call_id for call_id, claimed in self.holds[worker].items() if claimed is None]
        token, asked = uuid.uuid4().hex, self.now
        if twice:
            transitions.claim(some, token, now=self.now)
            asked = self.now
        self.now += timedelta(seconds=sleeps)
        won, pending = transitions.claim(some, token, now=self.now)
        for call_id in some:
            if call_id in won:
                self.holds[worker][call_id] = Claimed(token, asked + timedelta(seconds=transitions.lease()))
            elif call_id not in pending:
                del self.holds[worker][call_id]

    @rule(worker=WORKERS, data=st.data())
    def send(self, worker, data):
        """What caller.py does at the gate."""
        ready = [i for i, claimed in self.holds[worker].items() if claimed and not claimed.sent_at]
        if not ready:
            return
        call_id = data.draw(st.sampled_from(ready))
        claimed = self.holds[worker][call_id]
        if self.now >= claimed.lease_end:
            transitions.release([call_id], [claimed.token])
            del self.holds[worker][call_id]
            return
        claimed.sent_at = self.now
        row = ScheduledCall.objects.get(id=call_id)
        assert row.status == "Running", f"sent when it was {row.status}"
        assert row.timestamp <= self.now, "sent early"
        self.sends[call_id] = self.sends.get(call_id, 0) + 1
        assert self.sends[call_id] == 1, "sent twice"

    @rule(worker=WORKERS)
    def renew(self, worker):
        mine = {i: claimed for i, claimed in self.holds[worker].items() if claimed}
        ours = transitions.renew(
            list(mine), [claimed.token for claimed in mine.values()],
            [(i, claimed.sent_at) for i, claimed in mine.items() if claimed.sent_at], now=self.now)
        for call_id, claimed in mine.items():
            claimed.lease_end = self.now + timedelta(seconds=transitions.lease()) if call_id in ours else self.now

    @rule(worker=WORKERS, status=st.sampled_from(["Succeeded", "Failed"]))
    def finish(self, worker, status):
        sent = {i: claimed for i, claimed in self.holds[worker].items() if claimed and claimed.sent_at}
        transitions.finish([(Outcome(i, self.now, status, claimed.sent_at, self.now, 200, ""), claimed.token)
                            for i, claimed in sent.items()])
        for call_id in sent:
            del self.holds[worker][call_id]

    @rule(worker=WORKERS)
    def dies(self, worker):
        self.holds[worker].clear()

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
        transitions.miss(now=self.now)
        transitions.reap(now=self.now)
        assert not ScheduledCall.objects.exclude(status__in=ScheduledCall.FINISHED).exists()
        self.nothing_final_changes_and_each_has_its_line()
        assert all(self.final[i]["status"] in ("Succeeded", "Failed") for i in self.sends), "sent, and not told of"


Model.TestCase.settings = settings(
    max_examples=1500 if LONG else 40, stateful_step_count=40, deadline=None, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck))
TestModel = Model.TestCase
