"""Every change of status happens once, whoever else tries at the same time."""
import threading
from datetime import timedelta

import pytest
from conftest import make, statuses
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from scheduler import transitions
from scheduler.caller import Outcome, utcnow
from scheduler.models import ScheduledCall


def ids(calls):
    return [call.id for call in calls]


def claim(calls, seconds=3600):
    return transitions.claim(ids(calls), utcnow(), utcnow() + timedelta(seconds=seconds))


def outcomes(won, status="Succeeded", error=""):
    return [Outcome(call_id, due, status, utcnow(), utcnow(), 200, error) for call_id, due in won]


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
    calls = make(number=100)
    won = at_once(8, lambda i: claim(calls)[1])
    assert sorted(call_id for some in won for call_id, _ in some) == ids(calls)


def test_only_pending_calls_are_claimed():
    for status in set(ScheduledCall.Status.values) - {"Pending"}:
        make(status=status)
    assert claim(ScheduledCall.objects.all())[1] == []


def test_calls_past_their_grace_or_moved_to_later_are_not_claimed():
    late, moved, good = make(-61), make(30), make(-59)
    assert ids_of(claim([late, moved, good], seconds=1)) == [good.id]
    assert statuses() == {"Pending": 2, "Running": 1}


def ids_of(claimed):
    return [call_id for call_id, _ in claimed[1]]


def test_finish_writes_all_and_logs_a_line_for_each(log):
    token, won = claim(make(number=3))
    assert len(transitions.finish(outcomes(won[:2]) + outcomes(won[2:], "Failed", "why"), token)) == 3
    assert statuses() == {"Succeeded": 2, "Failed": 1}
    failed = ScheduledCall.objects.get(status="Failed")
    assert (failed.error, failed.http_status, failed.lease_until) == ("why", 200, None)
    assert failed.started_at and failed.ended_at
    assert len(log()) == 3 and sum("Failed to call API at" in line for line in log()) == 1


def test_finish_with_another_token_changes_nothing(log):
    token, won = claim(make(number=2))
    assert transitions.finish(outcomes(won), "somebody else") == set()
    assert statuses() == {"Running": 2} and log() == []
    ScheduledCall.objects.filter(id=won[0][0]).update(status="Failed")
    assert transitions.finish(outcomes(won), token) == {won[1][0]}
    assert statuses() == {"Failed": 1, "Succeeded": 1} and len(log()) == 1


def test_reap_takes_only_what_has_no_lease_any_more(log):
    _, won = claim(make(number=2))
    assert transitions.reap(utcnow()) == 0
    ScheduledCall.objects.filter(id=won[0][0]).update(lease_until=utcnow() - timedelta(seconds=1))
    assert sum(at_once(4, lambda i: transitions.reap(utcnow()))) == 1
    assert ScheduledCall.objects.get(id=won[0][0]).error == "worker lost, outcome unknown"
    assert statuses() == {"Failed": 1, "Running": 1} and len(log()) == 1


def test_renew_keeps_a_call_from_being_reaped():
    token, won = claim(make(number=1))
    ScheduledCall.objects.update(lease_until=utcnow() - timedelta(seconds=1))
    transitions.renew([won[0][0]], token)
    assert transitions.reap(utcnow()) == 0


def test_miss_takes_only_pending_calls_past_their_grace(log):
    make(-61, 3), make(-59), make(-61, status="Succeeded")
    with override_settings(GRACE=60):
        assert sum(at_once(4, lambda i: transitions.miss(utcnow()))) == 3
    assert statuses() == {"Missed": 3, "Pending": 1, "Succeeded": 1}
    assert len(log()) == 3 and all("Missed call to API at" in line for line in log())


def test_miss_goes_on_past_one_batch():
    make(-100, 2500)
    assert transitions.miss(utcnow()) == 2500


def test_a_cancelled_call_is_not_claimed_and_a_claimed_one_not_cancelled():
    calls = make(number=40)

    def either(i):
        if i % 2:
            return claim(calls)[1]
        return [call.id for call in calls if transitions.cancel(call.id, utcnow())]
    results = at_once(4, either)
    cancelled = [c for some in results[::2] for c in some]
    claimed = [c for some in results[1::2] for c, _ in some]
    assert sorted(cancelled + claimed) == ids(calls)


def test_two_dispatchers_hand_over_each_call_once():
    make(5, 2500)
    sent = []
    at_once(4, lambda i: transitions.hand_over(lambda ids, first: sent.append(ids), utcnow()))
    assert len(sum(sent, [])) == 2500 == len(set(sum(sent, [])))


def test_only_what_is_due_within_the_window_is_handed_over():
    soon = make(29)
    make(31), make(5, status="Cancelled"), make(5, status="Running")
    sent = []
    assert transitions.hand_over(lambda ids, first: sent.append((ids, first)), utcnow()) == 1
    assert sent == [([soon.id], soon.timestamp)]


def test_chunks_are_of_one_second_and_of_a_bounded_size():
    now = utcnow().replace(microsecond=0) + timedelta(seconds=5)
    ScheduledCall.objects.bulk_create(
        [ScheduledCall(timestamp=now + timedelta(seconds=s, milliseconds=ms)) for s in (0, 1) for ms in range(150)])
    sent = []
    transitions.hand_over(lambda ids, first: sent.append((len(ids), first)), utcnow())
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
        transitions.hand_over(send, utcnow())
    assert ScheduledCall.objects.filter(handed_over_at=None).count() == 150
    assert transitions.hand_over(lambda ids, first: sent.append(ids), utcnow()) == 150
    assert len(set(sum(sent, []))) == 250


def test_a_call_whose_message_was_lost_is_handed_over_again_but_not_all_the_time():
    make(-1), make(-10)
    count = lambda now: transitions.hand_over(lambda ids, first: None, now)
    now = utcnow()
    assert count(now) == 2
    assert count(now + timedelta(seconds=0.5)) == 0
    assert count(now + transitions.AGAIN_AFTER + timedelta(seconds=1)) == 2


def test_a_moved_call_is_handed_over_anew_for_its_new_time():
    call = make(5)
    transitions.hand_over(lambda ids, first: None, utcnow())
    assert transitions.move(call.id, call.timestamp + timedelta(seconds=10))
    sent = []
    transitions.hand_over(lambda ids, first: sent.append(first), utcnow())
    assert sent == [call.timestamp + timedelta(seconds=10)]
    ScheduledCall.objects.update(status="Running")
    assert not transitions.move(call.id, call.timestamp)
