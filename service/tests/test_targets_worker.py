"""Calls of targets, made by real workers at a real API."""
from bisect import bisect_left
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import all_ended, free_port, in_seconds, make, redis_server, statuses, until
from django.test.utils import override_settings

from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger
from scheduler.models import Attempt, ScheduledCall, Target

LOOPBACK = {"TARGET_NETWORKS": "127.0.0.0/8"}


def target(api, path="/ok", name="billing", **fields):
    return Target.objects.create(name=name, url=api.url + path, **{"method": "POST", "body": "{}", **fields})


def plan(when, *targets, number=1):
    """`number` calls for each of these targets at an aware datetime (or at several)."""
    whens = when if isinstance(when, list) else [when] * number
    return ledger.schedule(calls=[ledger.NewCall(at, target=one) for at in whens for one in targets])


@pytest.fixture
def stack(stack):
    """Worker and beat go on from test to test."""
    stack.kept = ("web", "worker", "beat")
    return stack


def times(api, path):
    return sorted(request["at"] for request in api.seen if request["path"] == path)


def test_a_call_is_made_with_what_its_target_and_it_say(stack, api, log):
    billing = target(api, method="PUT", body="hello {{call.note}} {{data.who}}", headers={"X-A": "b"})
    stack.start("worker", "beat", **LOOPBACK)
    when = in_seconds(3)
    call, = ledger.schedule(calls=[ledger.NewCall(when, "note", billing, data={"who": "ann"})])
    assert all_ended(1) == {"Succeeded": 1}
    call.refresh_from_db()
    request, = api.seen
    assert 0 <= request["at"] - when.timestamp() < 0.3
    assert request["headers"]["X-A"] == "b" and request["headers"]["webhook-id"].startswith(f"call_{call.id}_")
    assert (call.attempts_made, call.next_attempt_at, call.failure) == (1, None, None) and call.trace["version"] == 1
    assert len(log(1)) == 1


def test_a_refused_call_is_tried_again_as_often_as_the_list_says(stack, api, log):
    billing = target(api, "/status/503", delays=[1, 2])
    stack.start("worker", "beat", **LOOPBACK)
    when = in_seconds(3)
    plan(when, billing)
    assert all_ended(1) == {"Failed": 1}
    first, second, third = (at - when.timestamp() for at in times(api, "/status/503"))
    assert 0 <= first < 0.3 and 0.8 <= second - first < 1.7 and 1.6 <= third - second < 2.9
    call = ScheduledCall.objects.get()
    assert (call.attempts_made, call.failure, call.http_status) == (3, "refused", 503)
    assert list(Attempt.objects.values_list("number", "outcome", "failure")) == [(n, "Failed", "refused") for n in (1, 2, 3)]
    assert abs((call.started_at - when).total_seconds() - first) < 0.2, "the row says when it was first sent"
    assert len({request["headers"]["webhook-id"] for request in api.seen}) == 1 and len(log(1)) == 1


def test_what_has_perhaps_been_done_is_repeated_only_where_that_is_allowed(stack, api):
    targets = [target(api, "/status/500?once", "once", delays=[1]), target(api, "/status/500?twice", "twice", delays=[1], repeatable=True),
               target(api, "/status/500?get", "get", delays=[1], method="GET"), target(api, "/status/404", "wrong", delays=[1], repeatable=True)]
    stack.start("worker", "beat", **LOOPBACK)
    plan(in_seconds(3), *targets)
    assert all_ended(4) == {"Failed": 4}
    assert Counter(request["path"] for request in api.seen) == {
        "/status/500?once": 1, "/status/500?twice": 2, "/status/500?get": 2, "/status/404": 1}
    assert ScheduledCall.objects.get(target__name="once").error.startswith("outcome unknown")


def test_a_call_that_cannot_be_put_together_fails_and_sends_nothing(stack, api):
    billing = target(api, secrets="no secrets of this service")
    stack.start("worker", "beat", **LOOPBACK)
    when = in_seconds(3)
    plan(when, billing, target(api, name="good"))
    assert all_ended(2) == {"Failed": 1, "Succeeded": 1}
    assert len(api.seen) == 1 and ScheduledCall.objects.get(target=billing).failure == "nothing"


def test_at_most_so_many_at_once_over_two_workers(stack, api):
    slow = target(api, "/delay/0.4", max_at_once=3)
    stack.start("worker1", "worker2", "beat", **LOOPBACK)
    when = in_seconds(4)
    plan(when, slow, number=18)
    assert all_ended(18, 40) == {"Succeeded": 18}
    seen = times(api, "/delay/0.4")
    assert max(sum(at <= other < at + 0.39 for other in seen) for at in seen) <= 3
    assert seen[-1] - when.timestamp() < 8, "nobody waits for long when there is a place"


def test_a_rate_holds_over_two_workers_without_redis(stack, api):
    """What was handed over before Redis went away is made, no faster than the target takes it."""
    billing = target(api, rate="10/s")
    stack.start("worker1", "worker2", "beat", CHUNK=4, **LOOPBACK)
    when = in_seconds(6)
    plan(when, billing, number=40)

    def taken(worker):
        return sum("make_calls[" in line and " succeeded " in line for line in stack.says(worker).splitlines())
    until(lambda: taken("worker1") + taken("worker2") == 10)
    assert taken("worker1") and taken("worker2")
    redis_server.stop()
    try:
        assert all_ended(40, 40) == {"Succeeded": 40}
    finally:
        redis_server.start()
    seen = [at - when.timestamp() for at in times(api, "/ok")]
    assert seen[0] >= 0 and 3.8 < seen[-1] < 8
    assert most_in_a_second(seen) <= 12, "10, and what a busy machine sends late"


def test_what_cannot_be_sent_to_a_target_with_a_rate_fails_all_the_same(stack):
    """It has ended before it could be claimed."""
    closed = Target.objects.create(name="closed", url=f"http://127.0.0.1:{free_port()}/", rate="20/s")
    stack.start("worker", "beat", **LOOPBACK)
    plan(in_seconds(3), closed, number=5)
    assert all_ended(5) == {"Failed": 5}
    assert set(ScheduledCall.objects.values_list("failure", "error")) == {("nothing", "Connection refused")}


def test_what_a_target_takes_too_slowly_is_missed_and_says_why(stack, api):
    billing = target(api, rate="2/s")
    stack.start("worker", "beat", GRACE=3, **LOOPBACK)
    plan(in_seconds(3), billing, number=30)
    ended = all_ended(30, 40)
    assert 4 <= ended["Succeeded"] <= 9 and ended["Missed"] == 30 - ended["Succeeded"] and len(ended) == 2
    assert {call.error for call in ScheduledCall.objects.filter(status="Missed")} == {
        "not started within 3 s of its time; its target takes at most 2/s"}


@pytest.mark.parametrize("number_hanging", [1, 3])
def test_targets_that_hang_make_nobody_else_late(stack, api, number_hanging):
    """They have all of their share of the threads, and a long line behind: the others are as late as they are without."""
    hanging, good = [target(api, "/hang", f"hangs{n}") for n in range(number_hanging)], target(api, "/ok", "good")
    stack.start("worker", "beat", CALLS_AT_ONCE=200, TIMEOUT=20 + number_hanging, **LOOPBACK)

    def lateness(number):
        """Seconds, sorted, of that many calls of the good one, ten in each second."""
        when, before = in_seconds(4), len(times(api, "/ok"))
        if number > 50:
            plan(when, *hanging, number=1000 // number_hanging)
        plan([when + timedelta(seconds=0.1 * i) for i in range(number)], good)
        until(lambda: len(times(api, "/ok")) == before + number, 30)
        return sorted(at - when.timestamp() - 0.1 * i for i, at in enumerate(times(api, "/ok")[before:]))
    alone, beside = lateness(50), lateness(80)
    print(f"late: median {alone[25]:.3f}, at most {alone[-1]:.3f} s alone; {beside[40]:.3f} and {beside[-1]:.3f} s beside")
    assert alone[0] >= 0 <= beside[0]
    assert beside[40] < alone[25] + 0.05 and beside[-1] < alone[-1] + 0.5
    least, most = {1: (90, 100), 3: (135, 150)}[number_hanging]     # a half, or a quarter each, but for what the good one had
    assert least <= len(times(api, "/hang")) <= most


def test_a_hundred_targets_are_called_in_the_same_second(stack, api):
    targets = [target(api, f"/ok/{i}", f"t{i}") for i in range(100)]
    stack.start("worker", "beat", **LOOPBACK)
    when = in_seconds(6)
    plan(when, *targets, number=10)
    assert all_ended(1000, 40) == {"Succeeded": 1000}
    late = [at - when.timestamp() for at in api.arrivals()]
    print(f"the last of 1000 after {max(late):.3f} s")
    assert min(late) >= 0 and max(late) < 2.5, "README's figure is measured on a machine that has nothing else to do"


def test_a_paused_target_is_left_alone_and_called_again_after_that(stack, api):
    billing = target(api)
    stack.start("worker", "beat", **LOOPBACK)
    when = in_seconds(4)
    Target.objects.update(paused_at=utcnow(), paused_until=when + timedelta(seconds=2), paused_by="ann", paused_reason="moves")
    plan([when, when + timedelta(seconds=1), when + timedelta(seconds=3)], billing)
    assert all_ended(3) == {"Missed": 2, "Succeeded": 1}
    assert 3 <= api.arrivals(when)[0] < 3.7
    assert {call.error for call in ScheduledCall.objects.filter(status="Missed")} == {"its target is paused by ann: moves"}


def test_a_retrying_call_is_tried_now_and_a_cancelled_one_never(stack, api):
    billing = target(api, "/status/503", delays=[60, 60])
    stack.start("worker", "beat", **LOOPBACK)
    now, never = plan(in_seconds(3), billing, number=2)
    until(lambda: statuses() == {"Retrying": 2})
    assert ledger.cancel([never.id]) == [never.id] and ledger.try_now(now.id)
    dispatch.hand_over_soon([now.id])
    until(lambda: len(api.seen) == 3)
    until(lambda: ScheduledCall.objects.filter(id=now.id, status="Retrying", attempts_made=2).exists())
    assert [request["headers"]["webhook-id"].split("_")[1] for request in api.seen].count(str(never.id)) == 1


def test_who_stops_hands_on_what_is_held_back(stack, api):
    billing = target(api, rate="3/s")
    stack.start("worker1", "beat", **LOOPBACK)
    when = in_seconds(4)
    plan(when, billing, number=30)
    until(lambda: len(api.seen) > 5)
    stack.start("worker2")
    process = stack.processes["worker1"]
    process.terminate()
    assert process.wait(20) == 0
    assert all_ended(30, 40) == {"Succeeded": 30}
    assert len(api.seen) == 30 and times(api, "/ok")[-1] - when.timestamp() < 14


def most_in_a_second(times):
    """How many of these sorted times, in seconds, lie within one second."""
    return max(bisect_left(times, at + 1) - i for i, at in enumerate(times))


def test_a_storm_of_retries_comes_back_at_the_targets_rate(stack, api, work):
    """All have failed at once, and none of them is lost. Neither the API nor the database sees more of it in a second
    than of a small one."""
    number, rate = 1500, 100
    billing = target(api, "/status/503", rate=f"{rate}/s", delays=[2])
    stack.celery = [str(Path(__file__).with_name("counted_worker.py"))]
    stack.start("worker", "beat", STATEMENTS=work / "statements", **LOOPBACK)
    began = utcnow() + timedelta(seconds=6)
    make(-5, number, target=billing, status="Retrying", attempts_made=1, next_attempt_at=began)
    assert all_ended(number, 60) == {"Failed": number}
    seen = [at - began.timestamp() for at in times(api, "/status/503")]
    assert len(seen) == number and seen[0] >= 0
    most, asked = most_in_a_second(seen), most_in_a_second([float(at) for at in (work / "statements").read_text().split()])
    print(f"{number} in {seen[-1]:.1f} s, at most {most} requests and {asked} statements in a second")
    assert seen[-1] < number / rate * 1.5 and most <= 1.3 * rate, "and what a busy machine brings late"
    assert asked < 4 * rate


def test_calls_without_a_target_are_what_they_were(stack, api):
    stack.start("worker", "beat")
    when = in_seconds(3)
    ledger.schedule([ledger.NewCall(when)])
    assert all_ended(1) == {"Succeeded": 1}
    call = ScheduledCall.objects.get()
    assert (call.target, call.attempts_made, call.trace, call.failure, call.next_attempt_at) == (None,) * 5
    assert not Attempt.objects.exists() and not any("webhook" in name.lower() for name in api.seen[0]["headers"])


def test_those_made_again_at_once_wait_for_their_places_longer_than_their_grace(stack, api):
    api.switched = "/delay/0.5"
    few = target(api, max_at_once=2)
    olds = make(-60, 20, target=few, status="Failed") + make(-60, 60, status="Failed")
    stack.start("worker", "beat", CALLS_AT_ONCE=8, GRACE=2, **LOOPBACK)
    with override_settings(CALLS_AT_ONCE=8, GRACE=2):
        ids = [call.id for call in ledger.again([call.id for call in olds])]
    dispatch.hand_over_soon(ids)
    again = ScheduledCall.objects.filter(id__in=ids)
    until(lambda: not again.exclude(status__in=ScheduledCall.FINISHED).exists(), 40)
    assert Counter(again.values_list("status", flat=True)) == {"Succeeded": 80} and len(api.seen) == 80
    assert max((call.started_at - call.timestamp).total_seconds() for call in again) > 3, "or nobody waited"
