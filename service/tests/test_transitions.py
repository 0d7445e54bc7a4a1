"""Every change of status happens once, whoever else tries at the same time."""
import threading
import uuid
from datetime import timedelta

import pytest
from conftest import KIND, make, statuses
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger
from scheduler.calls.attempt import Outcome
from scheduler.models import ScheduledCall


def ids(calls):
    return [call.id for call in calls]


def claim(calls, **how):
    """(token, sorted ids won): a claim of its own."""
    token = uuid.uuid4().hex
    return token, sorted(ledger.claim(ids(calls), token, **how)[0])


def outcomes(won, token, status="Succeeded", error=""):
    return [(Outcome(call_id, utcnow(), status, utcnow(), utcnow(), 200, error), token) for call_id in won]


def at_once(number, work):
    """Runs work(i) in that many threads, released together; returns what they returned."""
    barrier, results = threading.Barrier(number), [None] * number

    def run(i):
        barrier.wait()
        results[i] = work(i)
        connection.close()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_a_call_is_claimed_by_one_of_many():
    calls = make(-1, 100)
    won = at_once(8, lambda i: claim(calls)[1])
    assert sorted(sum(won, [])) == ids(calls)


def test_only_pending_calls_are_claimed():
    for status in set(ScheduledCall.Status.values) - {"Pending"}:
        make(-1, status=status)
    assert claim(ScheduledCall.objects.all())[1] == []


def test_only_calls_that_are_due_and_within_their_grace_are_claimed():
    late, early, good = make(-61), make(30), make(-59)
    won, pending = ledger.claim([late.id, early.id, good.id, -1], "t" * 32)
    assert won == {good.id}
    assert pending.keys() == {late.id, early.id}
    assert pending[early.id] == pytest.approx(30, abs=5) and pending[late.id] < -60
    assert statuses() == {"Pending": 2, "Running": 1}


def test_a_claimed_call_has_not_started():
    call = make(-1, started_at=utcnow())
    assert claim([call])[1] == [call.id]
    assert ScheduledCall.objects.get().started_at is None


def test_a_claim_that_was_not_answered_is_made_again():
    """The connection broke after the database had done it: what it won is still its own, and nobody else's."""
    first, second = make(-1), make(-1)
    assert ledger.claim([first.id], "a" * 32)[0] == {first.id}
    assert ledger.claim([first.id, second.id], "a" * 32)[0] == {first.id, second.id}
    assert ledger.claim([first.id, second.id], "b" * 32) == (set(), {})


def test_what_was_certainly_not_sent_is_released_and_handed_over_anew(log):
    token, won = claim(make(-1, 2, handed_over_at=utcnow()))
    ledger.release(won, ["somebody else's"])
    assert statuses() == {"Running": 2}
    ScheduledCall.objects.filter(id=won[0]).update(status="Failed")
    ledger.release(won, [token])
    assert statuses() == {"Failed": 1, "Pending": 1} and log() == []
    assert dispatch.hand_over(lambda ids, first: None) == 1
    assert ledger.finish(outcomes(won, token)) == set()


def test_finish_writes_all_and_logs_a_line_for_each(log):
    token, won = claim(make(-1, 3))
    assert len(ledger.finish(outcomes(won[:2], token) + outcomes(won[2:], token, "Failed", "why"))) == 3
    assert statuses() == {"Succeeded": 2, "Failed": 1}
    failed = ScheduledCall.objects.get(status="Failed")
    assert (failed.error, failed.http_status, failed.lease_until) == ("why", 200, None)
    assert failed.started_at and failed.ended_at
    assert len(log()) == 3 and sum("Failed to call API at" in line for line in log()) == 1


def test_finish_with_another_token_changes_nothing(log):
    token, won = claim(make(-1, 2))
    assert ledger.finish(outcomes(won, "somebody else")) == set()
    assert statuses() == {"Running": 2} and log() == []
    ScheduledCall.objects.filter(id=won[0]).update(status="Failed")
    assert ledger.finish(outcomes(won, token)) == {won[1]}
    assert statuses() == {"Failed": 1, "Succeeded": 1} and len(log()) == 1


def test_reap_takes_only_what_has_no_lease_any_more(log):
    _, won = claim(make(-1, 2))
    assert ledger.reap() == 0
    ScheduledCall.objects.filter(id=won[0]).update(lease_until=utcnow() - timedelta(seconds=1))
    assert sum(at_once(4, lambda i: ledger.reap())) == 1
    assert ScheduledCall.objects.get(id=won[0]).error == "worker lost, outcome unknown"
    assert statuses() == {"Failed": 1, "Running": 1} and len(log()) == 1


def test_renew_keeps_a_call_from_being_reaped():
    token, won = claim(make(-1, 2))
    ScheduledCall.objects.update(lease_until=utcnow() - timedelta(seconds=1))
    ScheduledCall.objects.filter(id=won[1]).update(status="Failed")
    started = utcnow()
    assert ledger.renew(won, [token], [(call_id, started) for call_id in won]) == {won[0]}
    assert ledger.reap() == 0
    assert ScheduledCall.objects.get(id=won[0]).started_at == started
    assert ScheduledCall.objects.get(id=won[1]).started_at is None, "what has ended is not written to"


def test_a_renewed_lease_outlasts_a_database_that_is_away_for_LEASE():
    """Also one that goes away just before the next renewal."""
    claim(make(-1, 1))
    left = (ScheduledCall.objects.get().lease_until - utcnow()).total_seconds()
    assert left - ledger.RENEW_EVERY > settings.LEASE + 1


def test_what_a_tick_ends_is_stamped_with_its_end(log):
    """And not with the beginning of the tick, which may have waited for a lock since."""
    make(-100), make(-5, status="Running", lease_until=utcnow() - timedelta(seconds=1))
    began = utcnow()
    assert (ledger.miss(), ledger.reap()) == (1, 1)
    for call in ScheduledCall.objects.all():
        assert began - timedelta(milliseconds=2) <= call.ended_at <= utcnow(), "SQLite's clock has milliseconds"
    at = utcnow() + timedelta(days=1)
    late = make(0)
    ledger.miss(at)
    assert ScheduledCall.objects.get(id=late.id).ended_at == at


def test_miss_takes_only_pending_calls_past_their_grace(log):
    make(-61, 3), make(-59), make(-61, status="Succeeded")
    with override_settings(GRACE=60):
        assert sum(at_once(4, lambda i: ledger.miss())) == 3
    assert statuses() == {"Missed": 3, "Pending": 1, "Succeeded": 1}
    assert len(log()) == 3 and all("Missed call to API at" in line for line in log())


def test_miss_goes_on_past_one_batch():
    make(-100, 2500)
    assert ledger.miss() == 2500


def test_a_cancelled_call_is_not_claimed_and_a_claimed_one_not_cancelled():
    calls = make(-1, 40)

    def either(i):
        if i % 2:
            return claim(calls)[1]
        return [call.id for call in calls if ledger.cancel([call.id])]
    results = at_once(4, either)
    cancelled = [c for some in results[::2] for c in some]
    claimed = sum(results[1::2], [])
    assert sorted(cancelled + claimed) == ids(calls)


def test_two_dispatchers_hand_over_each_call_once():
    make(5, 2500)
    sent = []
    at_once(4, lambda i: dispatch.hand_over(lambda ids, first: sent.append(ids)))
    assert len(sum(sent, [])) == 2500 == len(set(sum(sent, [])))


def test_only_what_is_due_within_the_window_is_handed_over():
    soon = make(9)
    make(11), make(5, status="Cancelled"), make(5, status="Running")
    sent = []
    assert dispatch.hand_over(lambda ids, first: sent.append((ids, first))) == 1
    assert sent == [([soon.id], soon.timestamp)]


def test_chunks_are_of_one_second_and_of_a_bounded_size():
    now = utcnow().replace(microsecond=0) + timedelta(seconds=5)
    ScheduledCall.objects.bulk_create(
        [ScheduledCall(timestamp=now + timedelta(seconds=s, milliseconds=ms)) for s in (0, 1) for ms in range(150)])
    sent = []
    dispatch.hand_over(lambda ids, first: sent.append((len(ids), first)))
    assert sent == [(100, now), (50, now + timedelta(milliseconds=100)),
                    (100, now + timedelta(seconds=1)), (50, now + timedelta(seconds=1, milliseconds=100))]


def test_a_broker_that_fails_half_way_leaves_the_rest_to_be_handed_over_again():
    make(5, 250)
    sent = []

    def send(ids, first):
        if sent:
            raise OSError("the broker is gone")
        sent.append(ids)
    with pytest.raises(OSError):
        dispatch.hand_over(send)
    assert ScheduledCall.objects.filter(handed_over_at=None).count() == 150
    assert dispatch.hand_over(lambda ids, first: sent.append(ids)) == 150
    assert len(set(sum(sent, []))) == 250


def test_a_call_whose_message_was_lost_is_handed_over_again_but_not_all_the_time():
    make(-1), make(-10)
    count = lambda now: dispatch.hand_over(lambda ids, first: None, now=now)
    now = utcnow()
    assert count(now) == 2
    assert count(now + timedelta(seconds=0.5)) == 0
    assert count(now + dispatch.AGAIN_AFTER + timedelta(seconds=1)) == 2


def test_a_moved_call_is_handed_over_anew_for_its_new_time():
    call = make(5)
    dispatch.hand_over(lambda ids, first: None)
    assert ledger.move(call.id, call.timestamp + timedelta(seconds=3))
    sent = []
    dispatch.hand_over(lambda ids, first: sent.append(first))
    assert sent == [call.timestamp + timedelta(seconds=3)]
    ScheduledCall.objects.update(status="Running")
    assert not ledger.move(call.id, call.timestamp)


def test_an_outcome_whose_answer_was_lost_is_written_once_and_has_its_line(log):
    """PostgreSQL carried the statement out, and the worker asks again."""
    call, token, now = make(-1), "t" * 32, utcnow()
    ledger.claim([call.id], token)
    outcome = Outcome(call.id, call.timestamp, "Succeeded", now, now, 200, "")
    ScheduledCall.objects.filter(id=call.id).update(
        status="Succeeded", started_at=now, ended_at=now, http_status=200, lease_until=None)
    if KIND == "postgresql":
        assert ledger.finish([(outcome, token)]) == {call.id} and len(log()) == 1
    other = outcome._replace(status="Failed", ended_at=now + timedelta(seconds=1))
    assert ledger.finish([(other, token)]) == set()
    assert statuses() == {"Succeeded": 1}


def test_what_reap_gave_up_stands_even_in_the_same_instant(log):
    call, token, now = make(-1), "t" * 32, utcnow()
    ledger.claim([call.id], token)
    late = now + timedelta(seconds=2 * ledger.lease())
    assert ledger.reap(late) == 1
    outcome = Outcome(call.id, call.timestamp, "Failed", now, late, 503, "HTTP status 503")
    assert ledger.finish([(outcome, token)]) == set() and len(log()) == 1
    assert ScheduledCall.objects.get().error == ledger.WORKER_LOST
