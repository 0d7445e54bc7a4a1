"""What becomes of calls that name a target: claimed, held back, tried again, given up. The database alone."""
import uuid
from bisect import bisect_left
from datetime import timedelta
from random import Random

import pytest
from conftest import KIND, make, statuses
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings
from test_transitions import at_once

from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger, limits, log as call_log, outcomes
from scheduler.calls.attempt import Outcome
from scheduler.models import Attempt, CallRequest, Schedule, ScheduledCall, Target

NOTHING, REFUSED, UNKNOWN, ANSWERED = outcomes.NOTHING, outcomes.REFUSED, outcomes.UNKNOWN, outcomes.ANSWERED


def target(name="billing", **fields):
    return Target.objects.create(name=name, url="https://api.example.org/run", **{"method": "POST", **fields})


def prepare(calls):
    return [ledger.Prepared(call.id, call.target_id, call.target and call.target.version, (call.attempts_made or 0) + 1)
            for call in calls]


def claim(calls, token=None, limited=()):
    token = token or uuid.uuid4().hex
    return token, ledger.claim_prepared(prepare(calls), token, limited)


def outcome(call, status="Failed", failure=UNKNOWN, kept=None, number=1, started=True, error="why"):
    now = utcnow()
    if status == "Succeeded":
        failure = error = ""
    return Outcome(call.id, call.timestamp, status, now if started else None, now, 200, error, failure, None, number,
                   call.target_id, call.target.name if call.target else "", 1, kept if kept is not None else {"version": 1, "request": {"method": "POST", "body": "x"}})


def running(of, seconds=-1, **fields):
    """A call that is under way, its token."""
    call = make(seconds, target=of, **fields)
    token, claimed = claim([call])
    assert claimed.won == {call.id}
    call.refresh_from_db()
    return call, token


def retrying(of, error="HTTP status 503", **fields):
    """A call that is Retrying, and due now."""
    return make(-30, target=of, status="Retrying", next_attempt_at=utcnow() - timedelta(seconds=1), attempts_made=1,
                error=error, **fields)


def schedule(**fields):
    return Schedule.objects.create(**{"name": "nightly", "times": "12:30:00", "zone": "UTC", **fields})


# --- Scheduling -------------------------------------------------------------------------------

def test_calls_are_scheduled_with_what_is_sent_or_not_at_all():
    billing, when = target(), utcnow()
    calls = ledger.schedule(by="ann", via="API", calls=[
        ledger.NewCall(when, "its own", billing, '{"id": 7}', {"X-A": "b"}, {"k": 1}, when + timedelta(seconds=5)),
        ledger.NewCall(when, target=billing), ledger.NewCall(when)])
    rows = [ScheduledCall.objects.get(id=call.id) for call in calls]
    assert [(row.target, row.note, row.scheduled_by) for row in rows] == [
        (billing, "its own", "ann"), (billing, "", "ann"), (None, "", "ann")]
    assert rows[0].expires_at == when + timedelta(seconds=5) and rows[1].expires_at is None
    assert list(CallRequest.objects.values_list("call", "body", "headers", "data")) == [
        (rows[0].id, '{"id": 7}', {"X-A": "b"}, {"k": 1})]
    with pytest.raises(TypeError):
        ledger.schedule(calls=[ledger.NewCall(when, target=billing, data={"no JSON": when})])
    assert ScheduledCall.objects.count() == 3


def test_calls_made_again_are_made_with_what_was_sent_and_no_faster_than_the_rate():
    billing, nightly = target(rate="2/s"), schedule()
    olds = ledger.schedule(calls=[ledger.NewCall(utcnow(), f"{i}", billing, f"body {i}", {}, {"i": i}, schedule=nightly)
                                  for i in range(3)])
    plain = make(-1, note="plain")
    calls = ledger.again([*(old.id for old in olds), plain.id, 10 ** 9], by="ann", via="API")
    assert [(call.note, call.again_of, call.target, call.schedule) for call in calls] == [
        *((f"{i}", olds[i].id, billing, nightly) for i in range(3)), ("plain", plain.id, None, None)]
    assert [call.request.body for call in calls[:3]] == ["body 0", "body 1", "body 2"]
    assert [(call.timestamp - calls[0].timestamp).total_seconds() for call in calls] == [0, 0.5, 1, 0]
    assert calls[2].expires_at - calls[2].timestamp > timedelta(seconds=60) and calls[3].expires_at is None


@pytest.mark.parametrize("fields, number, at_worst", [
    ({"max_at_once": 2, "timeout": 10}, 40, 40 / 2 * 10),                   # two at a time, each as long as it may
    ({"timeout": 10}, 40, 40 / 5 * 10),                                     # half of a worker's threads
    (None, 40, 40 / 10 * 30),                                               # all of them, for API_URL
    ({"rate": "2/s", "timeout": 1}, 20, 20 / 2),
    ({"rate": "30/min", "delays": [5, 300], "timeout": 1}, 2, 305),         # so that GRACE does not end its retries
])
def test_those_made_again_at_once_do_not_expire_before_all_can_have_been_made(fields, number, at_worst):
    of = target(**fields) if fields else None
    with override_settings(CALLS_AT_ONCE=10, TIMEOUT=30, GRACE=5):
        calls = ledger.again([call.id for call in make(-60, number, target=of, status="Failed")])
    assert min(call.expires_at for call in calls) >= calls[0].timestamp + timedelta(seconds=at_worst + 5)
    assert calls[0].expires_at < calls[0].timestamp + timedelta(seconds=3 * at_worst + 60), "and not for ever"
    assert of and of.rate or {call.timestamp for call in calls} == {calls[0].timestamp}


def test_few_that_are_made_again_have_the_grace_of_any_call():
    few = ledger.again([call.id for one in (None, target()) for call in make(-60, 20, target=one, status="Failed")])
    assert {call.expires_at for call in few} == {None}


# --- Claims -----------------------------------------------------------------------------------

def test_each_claim_counts_an_attempt():
    call, token = running(target())
    assert (call.status, call.attempts_made) == ("Running", 1)
    assert ledger.claim([call.id], uuid.uuid4().hex)[0] == set()
    assert claim([call], token)[1].won == {call.id}, "its own, if nothing came back the first time"
    call.refresh_from_db()
    assert call.attempts_made == 1


@pytest.mark.parametrize("limited", [False, True])
def test_a_claim_that_is_made_again_holds_for_as_long_as_a_new_one(limited):
    """What nobody answered for long is about to be given up, and its worker believes that it has just been claimed."""
    call, token = running(target())
    ScheduledCall.objects.update(lease_until=utcnow() + timedelta(seconds=0.1))
    assert claim([call], token, {call.target_id} if limited else ())[1].won == {call.id}
    assert ScheduledCall.objects.get().lease_until > utcnow() + timedelta(seconds=ledger.lease() - 2)


def test_a_call_of_a_target_is_claimed_by_one_of_many():
    calls = make(-1, 40, target=target())
    won = at_once(6, lambda i: sorted(claim(calls)[1].won))
    assert sorted(sum(won, [])) == [call.id for call in calls]


def test_what_was_made_ready_with_another_version_is_made_ready_anew():
    billing = target()
    call = ScheduledCall.objects.select_related("target").get(id=make(-1, target=billing).id)
    Target.objects.update(version=2)
    assert claim([call])[1].anew == {call.id}
    billing.refresh_from_db()
    tried = retrying(billing)
    tried.attempts_made = 0
    assert claim([tried])[1].anew == {tried.id}, "and after an attempt that it does not know of"
    assert statuses() == {"Pending": 1, "Retrying": 1}


def test_another_attempt_is_claimed_once_its_time_has_come_and_keeps_the_first_start():
    started = utcnow() - timedelta(seconds=20)
    due = retrying(target(), started_at=started)
    early = retrying(due.target)
    ScheduledCall.objects.filter(id=early.id).update(next_attempt_at=utcnow() + timedelta(seconds=30))
    _, claimed = claim([due, early])
    assert claimed.won == {due.id} and claimed.pending[early.id] == pytest.approx(30, abs=5)
    due.refresh_from_db()
    assert (due.status, due.attempts_made, due.started_at) == ("Running", 2, started)


def test_nothing_is_claimed_for_a_paused_target():
    billing = target(paused_at=utcnow())
    first, again = make(-1, target=billing), retrying(billing)
    assert claim([first, again])[1].won == set()
    Target.objects.update(paused_until=utcnow() - timedelta(seconds=0.5))
    later = make(-0.1, target=billing)
    assert claim([first, again, later])[1].won == {again.id, later.id}, "what fell due in the pause is not made after it"


def test_a_call_that_expires_has_no_grace_beside():
    billing, now = target(), utcnow()
    gone = make(-5, target=billing, expires_at=now - timedelta(seconds=1))
    patient = make(-500, target=billing, expires_at=now + timedelta(seconds=500))
    plain = make(-500, expires_at=now + timedelta(seconds=500))
    assert claim([gone, patient, plain])[1].won == {patient.id, plain.id}
    assert ledger.miss() == 1
    gone.refresh_from_db()
    plain.refresh_from_db()
    assert (gone.status, gone.error) == ("Missed", "not started before it expired, 4 s after its time")
    assert plain.attempts_made is None


def test_at_most_so_many_at_once_whoever_claims():
    billing, mail = target(max_at_once=7), target("mail")
    calls, others = make(-1, 40, target=billing), make(-1, 5, target=mail)
    won = at_once(6, lambda i: claim(calls, limited={billing.id})[1])
    assert sum(len(claimed.won) for claimed in won) == 7
    assert any(claimed.held_back for claimed in won)
    _, claimed = claim([*calls, *others], limited={billing.id})
    assert claimed.won == {call.id for call in others} and claimed.running == {billing.id: 7}
    ScheduledCall.objects.filter(status="Running", target=billing).update(status="Succeeded")
    assert len(claim(calls, limited={billing.id})[1].won) == 7


def test_a_rate_gives_each_call_its_instant():
    billing, now = target(rate="10/s"), utcnow()
    slots, free = limits.reserve({billing.id: [now] * 30})[billing.id]
    apart = [(b - a).total_seconds() for a, b in zip(slots, slots[1:])]
    assert len(slots) in (10, 11) and apart == pytest.approx([0.1] * len(apart))
    more, _ = limits.reserve({billing.id: [now + timedelta(seconds=5)] * 30})[billing.id]
    assert more[0] == now + timedelta(seconds=5) and len(more) == 11
    Target.objects.update(rate="1/day")
    Target.objects.update(free_at=now + timedelta(days=1))
    assert limits.reserve({billing.id: [now]})[billing.id][0] == []
    Target.objects.update(rate="10/s")
    assert limits.reserve({billing.id: [now]})[billing.id][1] < utcnow() + timedelta(seconds=4), "another rate holds soon"


def test_an_instant_is_given_once_also_to_those_that_ask_before_they_are_due():
    """Two workers ask at once for what is due in half a second, and a third for what is due already."""
    billing, now = target(rate="10/s"), utcnow()
    due = now + timedelta(seconds=0.5)
    given = sorted(slot for at in (due, due, now) for slot in limits.reserve({billing.id: [at] * 20})[billing.id][0])
    assert len(given) > 10 and min(after - before for before, after in zip(given, given[1:])) >= timedelta(seconds=0.0999)


def test_a_rate_holds_for_all_workers():
    billing, now = target(rate="20/s"), utcnow()
    slots = sorted(sum(at_once(6, lambda i: limits.reserve({billing.id: [now] * 10})[billing.id][0]), []))
    assert len(slots) == len(set(slots)) and all(
        (b - a).total_seconds() > 0.0499 for a, b in zip(slots, slots[1:]))


@pytest.mark.parametrize("rate", ["20/s", "200/s", "1000/s"])
def test_a_worker_that_is_busy_now_and_then_sends_in_no_second_more_than_the_rate(rate):
    """However long its claims take, and whatever it does between them: what it has taken is sent when that is over."""
    number, chance = limits.in_a_second(Target(rate=rate)), Random(17)
    pace, now, sent, busy = limits.Pace(), 1000.0, [], False
    while now < 1060:
        taken, busy = 0, chance.random() < (0.5 if busy else 0.002)
        while taken < 25 and pace.takes(number, now):
            taken += 1
        now += (0.2 if busy else 0.005) * chance.random() if taken else 0.3 / number
        won = taken - (taken > 1)       # one was somebody else's, and costs nothing
        pace.sent(taken, won, now)
        sent += [now] * won
    most = max(bisect_left(sent, at + 1) - i for i, at in enumerate(sent))
    assert most <= number, f"{most} in a second"
    assert len(sent) > 0.95 * 60 * number, "nor much less than it may"


def test_a_rate_that_has_become_another_holds_at_once_for_a_worker_too():
    pace = limits.Pace()
    assert limits.in_a_second(Target(rate="1/h")) == 1 and limits.in_a_second(Target(rate="90/min")) == 2
    assert pace.takes(1, 1000.0) and not pace.takes(1, 1000.1)
    assert pace.takes(3, 1000.2) and not pace.takes(2, 1000.3) and pace.takes(3, 1000.4) and not pace.takes(3, 1000.5)
    assert pace.takes(0, 1000.6), "and one that is gone"


# --- Overlap ----------------------------------------------------------------------------------

@pytest.mark.parametrize("of_target", [True, False])
@pytest.mark.parametrize("before", ["Running", "Retrying", "Pending"])
def test_a_call_is_skipped_while_one_before_has_not_ended(log, before, of_target):
    nightly, other = schedule(overlap="skip"), schedule(name="other", overlap="skip")
    billing = target() if of_target else None
    make(-20, schedule=nightly, status=before, target=billing, next_attempt_at=utcnow() + timedelta(seconds=99),
         lease_until=utcnow() + timedelta(seconds=99))
    call, free = make(-1, schedule=nightly, target=billing), make(-1, schedule=other, target=billing)
    assert claim([call, free])[1].won == {free.id}
    call.refresh_from_db()
    assert (call.status, call.error, bool(call.ended_at)) == ("Missed", "the one before still runs", True)
    assert len(log(1)) == 1 and "Missed" in log()[0]
    ScheduledCall.objects.filter(status=before).exclude(id=free.id).update(status="Succeeded")
    assert claim([later := make(-0.5, schedule=nightly, target=billing)])[1].won == {later.id}


def test_of_two_that_are_claimed_together_the_second_is_skipped_and_overlap_allow_skips_none():
    nightly, often = schedule(overlap="skip"), schedule(name="often")
    calls = [make(-2, schedule=nightly), make(-1, schedule=nightly), make(-2, schedule=often), make(-1, schedule=often)]
    assert claim(calls)[1].won == {calls[0].id, calls[2].id, calls[3].id}


# --- How they end -----------------------------------------------------------------------------

def test_an_attempt_that_is_followed_by_another_writes_a_row_and_no_line(log):
    call, token = running(target(), handed_over_at=utcnow())
    first, again = outcome(call), utcnow() + timedelta(seconds=30)
    for _ in range(2):          # the second time as after an answer that was lost
        ledger.finish([(first, token)], {call.id: again})
    call.refresh_from_db()
    assert (call.status, call.ended_at, call.error, call.failure, call.next_attempt_at) == ("Retrying", None, "why", UNKNOWN, again)
    assert call.started_at == first.started_at and call.handed_over_at is None and log() == []
    assert list(Attempt.objects.values_list("call", "number", "outcome", "failure", "error")) == [
        (call.id, 1, "Failed", UNKNOWN, "why")]
    ScheduledCall.objects.update(next_attempt_at=utcnow())
    call.refresh_from_db()
    token, claimed = claim([call])
    assert ledger.finish([(outcome(call, "Succeeded", number=2), token)]) == {call.id}
    call.refresh_from_db()
    assert (call.status, call.next_attempt_at, call.failure, call.started_at) == ("Succeeded", None, None, first.started_at)
    assert call.trace is None and Attempt.objects.filter(call=call, outcome="Succeeded", number=2).count() == 1
    assert len(log(1)) == 1 and "Successfully" in log()[0]


def test_a_first_success_is_in_the_row_of_its_call_unless_its_answer_is_kept():
    call, token = running(target())
    ledger.finish([(outcome(call, "Succeeded"), token)])
    call.refresh_from_db()
    assert call.trace == {"version": 1, "request": {"method": "POST", "body": None}} and not Attempt.objects.exists()
    call, token = running(call.target)
    ledger.finish([(outcome(call, "Succeeded", kept={"response": {"body": "ok"}}), token)])
    assert Attempt.objects.get().kept == {"response": {"body": "ok"}}


def test_a_failure_of_a_call_without_a_target_keeps_its_answer():
    call = make(-1)
    ledger.claim([call.id], "t" * 32)
    ledger.finish([(outcome(call, kept={"response": {"body": "no"}}), "t" * 32)])
    assert Attempt.objects.get().call == call


def test_a_retry_that_the_worker_keeps_is_not_handed_over_until_it_is_late():
    call, token = running(target(), handed_over_at=utcnow() - timedelta(seconds=20))
    soon = utcnow() + timedelta(seconds=5)
    ledger.finish([(outcome(call), token)], {call.id: soon}, kept_until=soon)
    assert dispatch.hand_over(lambda ids, first: None) == 0
    assert dispatch.hand_over(lambda ids, first: None, now=soon + timedelta(seconds=3)) == 1


def test_what_is_to_be_made_again_is_handed_over_when_that_is_near():
    call = retrying(target())
    ScheduledCall.objects.update(next_attempt_at=utcnow() + timedelta(seconds=60))
    sent = []
    assert dispatch.hand_over(lambda ids, first: sent.append((ids, first))) == 0
    near = utcnow() + timedelta(seconds=8)
    ScheduledCall.objects.update(next_attempt_at=near)
    assert dispatch.hand_over(lambda ids, first: sent.append((ids, first))) == 1 and sent == [([call.id], near)]
    assert dispatch.hand_over(lambda ids, first: None) == 0


def test_what_a_worker_holds_back_is_not_handed_over_again_until_the_worker_is_silent():
    calls = [make(-10, target=target(), handed_over_at=utcnow() - timedelta(seconds=9)), retrying(Target.objects.get())]
    dispatch.hold_back([call.id for call in calls])
    count = lambda seconds: dispatch.hand_over(lambda ids, first: None, now=utcnow() + timedelta(seconds=seconds))
    assert count(15) == 0 and count(25) == 2


def test_what_was_not_sent_was_no_attempt():
    first, token = running(target())
    again = retrying(first.target, started_at=utcnow())
    second, _ = claim([again])
    ledger.release([first.id, again.id], [token, second])
    assert statuses() == {"Pending": 1, "Retrying": 1}
    assert list(ScheduledCall.objects.order_by("id").values_list("attempts_made", flat=True)) == [0, 1]
    again.refresh_from_db()
    assert again.started_at and claim([again])[1].won == {again.id}


@pytest.mark.parametrize("fields, then", [
    ({"delays": [10]}, "Failed"), ({"delays": [10], "repeatable": True}, "Retrying"),
    ({"delays": [10], "method": "GET"}, "Retrying"), ({"method": "GET"}, "Failed")])
def test_a_lost_worker_has_perhaps_done_it(log, fields, then):
    call, token = running(target(**fields))
    assert ledger.reap() == 0
    ScheduledCall.objects.update(lease_until=utcnow() - timedelta(seconds=1))
    assert ledger.reap() == 1 == Attempt.objects.filter(call=call, number=1, failure=UNKNOWN).count()
    call.refresh_from_db()
    assert (call.status, call.error, call.failure) == (then, ledger.WORKER_LOST, UNKNOWN)
    assert bool(call.next_attempt_at) == (then == "Retrying") != bool(call.ended_at)
    assert len(log()) == (then == "Failed")
    assert ledger.finish([(outcome(call, "Succeeded"), token)]) == set()


def test_a_test_is_one_attempt_also_if_its_worker_is_lost():
    call = ledger.try_target(target(repeatable=True, delays=[10]), "ann")
    assert claim([call])[1].won == {call.id}
    ScheduledCall.objects.update(lease_until=utcnow() - timedelta(seconds=1))
    assert ledger.reap() == 1 and statuses() == {"Failed": 1}


def test_a_lost_worker_is_tried_again_no_more_often_than_the_list_says(log):
    call = retrying(target(delays=[10], repeatable=True), started_at=utcnow() - timedelta(seconds=29))
    claim([call])
    ScheduledCall.objects.update(lease_until=utcnow() - timedelta(seconds=1))
    ledger.reap()
    call.refresh_from_db()
    assert (call.status, call.attempts_made) == ("Failed", 2)
    assert log() == [call_log.line("Failed", call.timestamp, call.ended_at, call.error, "billing").strip()], "not when it was called first"


# --- Missed, and given up ---------------------------------------------------------------------

def test_what_falls_due_while_its_target_is_paused_is_missed_at_once(log):
    billing = target(paused_at=utcnow(), paused_by="ann", paused_reason="they move house")
    gone = make(-1, target=billing)
    make(30, target=billing), make(-1)      # not due yet; of no target
    tried = retrying(billing, started_at=utcnow() - timedelta(seconds=29))
    assert ledger.miss() == 2
    assert set(ScheduledCall.objects.exclude(ended_at=None).values_list("id", "status", "error")) == {
        (gone.id, "Missed", "its target is paused by ann: they move house"),
        (tried.id, "Failed", "HTTP status 503; not tried again: its target is paused by ann: they move house")}
    missed, given_up = sorted(log(2), key=lambda line: "Failed" in line)
    assert "Missed call to API billing" in missed
    tried.refresh_from_db()
    assert given_up == call_log.line("Failed", tried.timestamp, tried.ended_at, tried.error, "billing").strip(), "when it was given up"
    Target.objects.update(paused_by="", paused_reason="", paused_until=utcnow())
    fell_due_before_that = make(-1, target=billing)
    assert ledger.miss() == 1
    fell_due_before_that.refresh_from_db()
    assert fell_due_before_that.error == "its target is paused"


def test_what_its_target_did_not_take_in_time_says_so():
    calls = [make(-61, target=target("a", max_at_once=2, rate="5/min")), make(-61, target=target("b", rate="1/s")),
             make(-61, target=target("c")), make(-61)]
    assert ledger.miss() == 4
    assert [ScheduledCall.objects.get(id=call.id).error for call in calls] == [
        "not started within 60 s of its time; its target takes at most 2 calls at once and 5/min",
        "not started within 60 s of its time; its target takes at most 1/s",
        "not started within 60 s of its time", "not started within 60 s of its time"]


@pytest.mark.parametrize("fields, call, why", [
    ({"max_age": 20}, {}, "it is older than 20 s"), ({}, {"expires_at": 1}, "it has expired")])
def test_what_is_too_old_is_not_tried_again(log, fields, call, why):
    if "expires_at" in call:
        call = {"expires_at": utcnow() - timedelta(seconds=1)}
    old = retrying(target(**fields), **call)
    retrying(target("other"))
    assert claim([old])[1].won == set()
    assert ledger.miss() == 1
    old.refresh_from_db()
    assert (old.status, old.error) == ("Failed", f"HTTP status 503; not tried again: {why}")
    assert statuses() == {"Failed": 1, "Retrying": 1} and len(log(1)) == 1


def test_a_long_error_leaves_room_for_why_it_is_not_tried_again():
    call = retrying(target(max_age=1), error="x" * 500)
    ledger.miss()
    call.refresh_from_db()
    assert len(call.error) == 500 and call.error.endswith("; not tried again: it is older than 1 s")


def test_a_retrying_call_is_cancelled_tried_now_and_not_moved(log):
    call = retrying(target(), handed_over_at=utcnow())
    ScheduledCall.objects.update(next_attempt_at=utcnow() + timedelta(hours=1))
    assert not ledger.move(call.id, utcnow()) and not ledger.try_now(make(1).id)
    assert ledger.try_now(call.id)
    assert dispatch.hand_over(lambda ids, first: None, [call.id]) == 1
    assert ledger.cancel([call.id], by="ann") == [call.id] and ledger.cancel([call.id]) == []
    call.refresh_from_db()
    assert (call.status, call.cancelled_by, call.next_attempt_at) == ("Cancelled", "ann", None)
    assert len(log(1)) == 1 and "Cancelled" in log()[0]


def test_a_changed_schedule_leaves_what_has_begun_and_what_a_person_asked_for():
    nightly, billing = schedule(), target()
    planned = make(30, schedule=nightly, scheduled_via="schedule", occurrence=utcnow() + timedelta(seconds=30))
    begun = retrying(billing, schedule=nightly, scheduled_via="schedule")
    asked = make(30, schedule=nightly, scheduled_via="admin", target=billing)
    ledger.withdraw(nightly.id)
    assert list(ScheduledCall.objects.filter(status="Cancelled")) == [planned]
    assert {begun.id, asked.id} == set(ScheduledCall.objects.exclude(status="Cancelled").values_list("id", flat=True))


# --- What it costs ----------------------------------------------------------------------------

def test_calls_without_targets_are_made_with_as_many_statements_as_ever():
    calls = make(-1, 25)
    with CaptureQueriesContext(connection) as asked:
        ledger.claim([call.id for call in calls], "t" * 32)
    assert len(asked) == 1
    with CaptureQueriesContext(connection) as asked:
        ledger.finish([(outcome(call, "Succeeded")._replace(kept=None), "t" * 32) for call in calls])
    # SQLite: the transaction, what is still to be written, and one statement with 25 rows.
    assert len(asked) == (4 if KIND == "sqlite" else 1), [one["sql"] for one in asked]
    assert statuses() == {"Succeeded": 25}


def test_calls_of_many_targets_are_claimed_with_one_statement():
    """And those that are tried again, of which a storm may have thousands."""
    targets = [target(f"t{i}", rate="5/s") for i in range(5)]
    calls = [call for one in targets for call in make(-1, 4, target=one)] + [retrying(one, started_at=utcnow()) for one in targets]
    calls += make(-1, 5, expires_at=utcnow() + timedelta(seconds=5))
    with CaptureQueriesContext(connection) as asked:
        assert claim(calls)[1].won == {call.id for call in calls}
    assert len(asked) == 1, [one["sql"] for one in asked]
    rows = [ScheduledCall.objects.get(id=call.id) for call in calls]
    assert [row.attempts_made for row in rows] == [1] * 20 + [2] * 5 + [None] * 5
    assert [row.started_at for row in rows] == [call.started_at for call in calls]


@pytest.mark.parametrize("fields, call, won", [
    ({"max_age": 20}, {}, False), ({"max_age": 40}, {}, True), ({}, {}, True),
    ({}, {"expires_at": utcnow() - timedelta(seconds=1)}, False), ({}, {"expires_at": utcnow() + timedelta(days=1)}, True),
])
def test_an_attempt_that_is_too_old_is_not_claimed_with_the_others(fields, call, won):
    tried = retrying(target(**fields), **call)              # 30 s after its time
    assert bool(claim([tried])[1].won) == won and statuses() == {"Running" if won else "Retrying": 1}


def test_what_needs_a_closer_look_does_not_keep_the_others_from_being_claimed():
    billing, nightly = target(), schedule(overlap="skip")
    paused, few = target("paused", paused_at=utcnow()), target("few", max_at_once=1)
    good, skips, early = make(-1, target=billing), make(-1, schedule=nightly), make(60, target=billing)
    no, places, again = make(-1, target=paused), make(-1, 2, target=few), retrying(billing)
    _, claimed = claim([good, skips, early, no, *places, again], limited={few.id})
    assert claimed.won == {good.id, skips.id, places[0].id, again.id}
    assert (set(claimed.pending), claimed.held_back) == ({early.id}, {places[1].id})
    assert ScheduledCall.objects.get(id=good.id).attempts_made == 1 and ScheduledCall.objects.get(id=skips.id).attempts_made is None
