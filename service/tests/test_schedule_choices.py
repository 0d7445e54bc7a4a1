"""What a schedule may say beside its times: days to leave out, jitter, catching up, a pause; and what it calls."""
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
from conftest import KIND, statuses, until
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from test_planner import DAY, HOUR, a_day_later, away, change, due, hours, schedule

from scheduler.base.clock import utcnow
from scheduler.calls import ledger, limits, targets
from scheduler.models import Schedule, ScheduledCall, Target
from scheduler.schedules import planner

GRACE = timedelta(seconds=60)


def target(name="billing", **fields):
    made = Target(name=name, url="https://api.example.org/", **fields)
    made.full_clean()
    targets.save(made)
    return made


def calls(**which):
    return {call.occurrence: call for call in ScheduledCall.objects.filter(**which).order_by("timestamp")}


# ------------------------------------------------------------------ exceptions

def test_on_its_exceptions_it_does_not_come():
    tomorrow = utcnow().date() + DAY
    made = schedule(exceptions=[str(tomorrow), "2026-12-25", "2026-12-25"])
    assert made.exceptions == sorted({str(tomorrow), "2026-12-25"})
    assert due() and not {at for at in due() if at.date() == tomorrow}
    assert [at for at in planner.coming([made], utcnow())[made.pk] if at.date() == tomorrow] == []
    change(made, exceptions=[])
    assert due() == hours(utcnow(), made.planned_until)
    change(made, exceptions=[str(tomorrow)])
    assert not {at for at in due() if at.date() == tomorrow}


def test_what_an_older_version_planned_on_an_exception_is_put_right(monkeypatch):
    made = schedule()
    tomorrow = utcnow().date() + DAY
    then = [at for at in due() if at.date() == tomorrow]
    Schedule.objects.filter(pk=made.pk).update(exceptions=[str(tomorrow)])
    a_day_later(monkeypatch)
    planner.compare(60)
    assert due("Cancelled") == then and not set(then) & set(due())


@pytest.mark.parametrize("exceptions", [
    "2026-12-25", ["2026-12-32"], ["25.12.2026"], [20261225], [None], [["2026-12-25"]], ["2026-W01-1"],
    [str(date(2030, 1, 1) + i * DAY) for i in range(367)]])
def test_what_no_exceptions_are(exceptions):
    with pytest.raises(ValidationError) as caught:
        schedule(exceptions=exceptions)
    assert list(caught.value.message_dict) == ["exceptions"]


# ------------------------------------------------------------------ jitter

def test_each_call_is_due_some_seconds_after_its_occurrence_and_always_as_many():
    made = schedule(jitter=1800)
    first = calls()
    assert list(first) == hours(utcnow(), made.planned_until), "all occurrences, before jitter"
    late = {at: call.timestamp - at for at, call in first.items()}
    assert all(timedelta(0) <= by < timedelta(seconds=1800) for by in late.values()) and len(set(late.values())) > 40
    assert min(late.values()) < timedelta(seconds=450) and max(late.values()) > timedelta(seconds=1350)
    change(made, overlap="skip", name="dinner")
    change(made, on=False), change(made, on=True)
    again = calls(status="Pending")
    assert {at: call.timestamp - at for at, call in again.items()} == late
    assert planner.coming([made], utcnow())[made.pk] == sorted(call.timestamp for call in again.values())[:10]
    assert {call.timestamp - at for at, call in calls(schedule=schedule("other", jitter=1800)).items()} != set(late.values())


def test_jitter_beyond_what_is_planned_is_told_in_what_comes_next():
    made = schedule(times="12:00:00", cron="", jitter=600)
    ScheduledCall.objects.all().delete()
    at = planner.upcoming(made.rule, made.planned_until, 1)[0]
    assert planner.coming([made], utcnow())[made.pk][0] == planner.due_at(made, at) != at


def test_a_change_while_one_waits_for_its_jitter_neither_loses_it_nor_calls_it_twice(monkeypatch):
    made = schedule(times="12:00:00", cron="", jitter=3600)
    call = ScheduledCall.objects.earliest("timestamp")
    now = call.occurrence + (call.timestamp - call.occurrence) / 2
    monkeypatch.setattr(planner, "asked", lambda: now)
    for jitter in (0, 1, 0):
        change(made, jitter=jitter)
        assert [one.timestamp for one in calls(status="Pending", occurrence=call.occurrence).values()] == [call.timestamp]


@pytest.mark.parametrize("catch_up, by, expires", [("none", 5 * HOUR, None), ("last", 5 * HOUR, DAY), ("last", 30 * HOUR, None)])
def test_a_call_that_waits_where_a_person_moved_it_is_not_lost_by_a_change(monkeypatch, catch_up, by, expires):
    """Its own time is past: it is not planned anew for that."""
    made = schedule(times="12:00:00", cron="", catch_up=catch_up)
    call = ScheduledCall.objects.earliest("timestamp")
    ledger.move(call.pk, call.occurrence + by)
    monkeypatch.setattr(planner, "asked", lambda: call.occurrence + HOUR)
    change(made, exceptions=[str(call.occurrence.date() + 30 * DAY)])
    anew = calls(status="Pending")[call.occurrence]
    assert anew.timestamp == call.occurrence + by and anew.expires_at == (expires and call.occurrence + expires)


def test_jitter_is_no_move_by_a_person_and_a_move_is_one(monkeypatch):
    """When what is planned turns out to be wrong."""
    made = schedule(jitter=1800)
    moved, *others = calls().values()
    ledger.move(moved.pk, moved.timestamp + timedelta(minutes=1))
    days = sorted({str(at.date()) for at in calls()})
    Schedule.objects.filter(pk=made.pk).update(exceptions=days)
    a_day_later(monkeypatch)
    planner.compare(60)
    assert due() == [moved.timestamp + timedelta(minutes=1)] and statuses()["Cancelled"] == len(others)


def test_with_jitter_what_a_person_moved_is_planned_anew_by_a_change():
    made = schedule(jitter=600)
    call = list(calls().values())[3]
    ledger.move(call.pk, call.timestamp + 5 * HOUR)
    change(made, zone="Etc/UTC")
    assert calls(status="Pending")[call.occurrence].timestamp == call.timestamp


# ------------------------------------------------------------------ catching up

def test_a_call_to_be_caught_up_with_may_start_until_the_next_is_due():
    schedule(catch_up="last")
    some = list(calls().values())
    assert [call.expires_at for call in some[:-1]] == [call.timestamp for call in some[1:]]
    assert some[-1].expires_at == some[-1].timestamp + HOUR, "the next, which is not planned yet"


def test_it_may_start_for_a_week_at_most_and_for_no_less_than_grace():
    schedule("often", times="12:00:00, 12:00:20", cron="", catch_up="last")
    first = ScheduledCall.objects.earliest("timestamp")
    assert first.expires_at == first.timestamp + (GRACE if first.timestamp.second == 0 else DAY - timedelta(seconds=20))
    at = utcnow().replace(microsecond=0) + 2 * HOUR
    seldom = schedule("seldom", cron=f"{at.minute} {at.hour} {at.day} {at.month} *", catch_up="last")
    call = seldom.calls.get()
    assert call.expires_at == call.timestamp + planner.LATE


def test_of_what_fell_due_while_nothing_ran_the_last_is_made_and_the_others_are_missed():
    made, other = schedule(catch_up="last"), schedule("other")
    some = list(calls(schedule=made).values())
    back = some[5].timestamp + HOUR / 2
    ledger.miss(now=back)
    assert due("Missed") == sorted([call.timestamp for call in some[:5]] + [call.timestamp for call in some[:6]])
    assert made.calls.filter(status="Pending").earliest("timestamp").pk == some[5].pk
    assert other.calls.filter(status="Pending").earliest("timestamp").timestamp == some[6].timestamp


@pytest.mark.parametrize("catch_up, made", [("last", 1), ("none", 0)])
def test_of_what_nobody_had_planned_the_last_is_made(catch_up, made, log):
    now = utcnow()
    away(20, catch_up=catch_up)
    planner.plan(seconds=60)
    then = hours(now - 20 * HOUR, now)
    late = [at for at in due() if at < now - GRACE]
    assert late == then[len(then) - made:] or now - then[-1] < GRACE
    assert len(due("Missed")) == len(then) - len(late) or now - then[-1] < GRACE
    planner.plan(seconds=60)
    assert [at for at in due() if at < now - GRACE] == late, "once"


def test_what_fell_due_days_ago_is_caught_up_with_for_a_week(log):
    """Of what is older than two days, the others are only counted."""
    now = utcnow().replace(microsecond=0)
    for days, made in ((5, True), (8, False)):
        at = now - days * DAY
        one = away(24 * 14, name=f"{days} days ago", cron=f"{at.minute} {at.hour} {at.day} {at.month} *", catch_up="last")
        planner.plan(seconds=60)
        assert [call.occurrence for call in one.calls.all()] == ([at.replace(second=0)] if made else [])
    assert sum("Missed 1 calls" in line for line in log()) == 1


def test_a_change_before_the_dispatcher_is_back_still_catches_up():
    now = utcnow()
    made = away(5, catch_up="last")
    change(made, days="mon,tue,wed,thu,fri,sat,sun", jitter=1)
    late = [call for at, call in calls(status="Pending").items() if at < now]
    assert [call.occurrence for call in late] == hours(now - 5 * HOUR, now)[-1:]


def test_moved_beyond_its_end_it_may_start_within_grace():
    schedule(catch_up="last")
    call = ScheduledCall.objects.earliest("timestamp")
    ledger.move(call.pk, call.timestamp + timedelta(minutes=5))
    call.refresh_from_db()
    assert call.expires_at == call.timestamp + HOUR - timedelta(minutes=5)
    ledger.move(call.pk, call.timestamp + 5 * HOUR)
    call.refresh_from_db()
    assert call.expires_at is None


def test_after_an_absence_a_worker_calls_the_last_and_says_that_it_is_late(stack, api):
    then = utcnow().replace(second=0, microsecond=0) - timedelta(minutes=20)
    made = schedule(cron=f"{then.minute} * * * *", catch_up="last")
    for call in ScheduledCall.objects.order_by("timestamp"):       # as if planned five hours ago
        ScheduledCall.objects.filter(pk=call.pk).update(**{
            name: getattr(call, name) - 5 * HOUR for name in ("timestamp", "occurrence", "expires_at")})
    stack.start("worker", "beat")
    until(lambda: made.calls.filter(status="Succeeded").exists(), what="it is called")
    until(lambda: made.calls.filter(status="Missed").count() == 4, what="the others are Missed")
    call = made.calls.get(status="Succeeded")
    assert call.timestamp == then and call.caught_up and 1200 <= call.lateness < 1300 and len(api.seen) == 1


# ------------------------------------------------------------------ a pause

def pause(made, **what):
    made.begin_pause("ann", **what)
    planner.save(made, "ann")


def test_until_it_is_resumed_nothing_is_planned_and_nothing_is_missed(log):
    made = schedule()
    then = due()
    pause(made, reason="the API is moved")
    assert due("Cancelled") == then and made.planned_until is None and made.on
    assert set(ScheduledCall.objects.values_list("error", "cancelled_by", "occurrence")) == {
        ("its schedule is paused by ann: the API is moved", "ann", None)}
    planner.plan(utcnow() + 100 * HOUR, seconds=60)
    assert statuses().keys() == {"Cancelled"} and planner.coming([made], utcnow())[made.pk] == []
    made.end_pause()
    planner.save(made, "ben")
    assert due() == hours(utcnow(), made.planned_until) and statuses().keys() == {"Cancelled", "Pending"}


def test_until_a_date_only_what_comes_before_it_is_cancelled_and_it_comes_again_by_itself(log):
    made = schedule()
    then, until = due(), utcnow() + 10 * HOUR
    pause(made, until=until)
    assert due("Cancelled") == [at for at in then if at < until] and len(log(10)) == 10
    assert due() == [at for at in then if at >= until]
    assert planner.coming([made], utcnow())[made.pk][0] == due()[0]
    planner.plan(utcnow() + 20 * HOUR, seconds=60)
    assert due()[0] >= until and len(due()) > len(then), "and is planned on"


def test_paused_for_longer_than_is_planned_ahead_it_is_planned_in_time():
    made, now = schedule(), utcnow()
    until = now + 100 * HOUR
    pause(made, until=until)
    assert due() == []
    planner.plan(now + 40 * HOUR, seconds=60)
    assert due() == []
    planner.plan(now + 60 * HOUR, seconds=60)
    assert due() == hours(until, Schedule.objects.get().planned_until) and len(due()) == 9


def test_after_the_pause_nothing_that_it_left_out_is_missed():
    made, now = schedule(), utcnow()
    pause(made, until=now + 10 * HOUR)
    Schedule.objects.update(planned_until=now + HOUR)
    ScheduledCall.objects.filter(status="Pending").delete()
    planner.plan(now + 15 * HOUR, seconds=60)
    assert due("Missed") == hours(now + 10 * HOUR, now + 15 * HOUR - GRACE)


def test_resumed_early_it_comes_from_now_on_and_a_longer_pause_takes_more_away():
    made, now = schedule(), utcnow()
    then = due()
    pause(made, until=now + 10 * HOUR)
    pause(made, until=now + 20 * HOUR)
    assert due() == [at for at in then if at >= now + 20 * HOUR]
    kept = set(calls(status="Pending"))
    made.end_pause()
    planner.save(made)
    assert due() == then and len(due("Cancelled")) == len(then) - len(kept), "what stood was left alone"


def test_what_a_person_cancelled_is_not_brought_back_by_a_pause():
    made = schedule()
    gone = list(calls().values())[4]
    ledger.cancel([gone.pk], by="ben")
    pause(made), made.end_pause(), planner.save(made)
    assert gone.occurrence not in due()


def test_the_plan_of_a_paused_schedule_is_compared_too(monkeypatch):
    """A dispatcher of an older version knows of no pause."""
    made = schedule()
    wrong = due()[2]
    pause(made, until=utcnow() + 10 * HOUR)
    kept = due()
    ledger.plan([ledger.PlannedCall(made.pk, wrong, 0, wrong)], utcnow())
    a_day_later(monkeypatch)
    planner.compare(60)
    assert due() == kept and wrong in due("Cancelled")


def test_off_and_paused_are_two_things():
    made = schedule()
    pause(made, until=utcnow() + 10 * HOUR)
    change(made, on=False)
    made.end_pause()
    planner.save(made)
    assert due() == []
    pause(made, until=utcnow() + 10 * HOUR)
    change(made, on=True)
    assert due()[0] >= made.paused_until


# ------------------------------------------------------------------ what is called

def test_its_calls_carry_its_target_and_a_change_of_what_is_sent_plans_them_anew():
    made = schedule(target=target(method="POST", headers={"Content-Type": "application/json"}))
    assert set(ScheduledCall.objects.values_list("target__name", flat=True)) == {"billing"}
    number = len(due())
    for turn, fields in enumerate([{"body": '{"id": {{call.id}}}'}, {"headers": {"X-Shop": "7"}}, {"data": {"shop": 7}},
                                   {"target": target("mail"), "body": None}], 1):
        change(made, **fields)
        assert len(due("Cancelled")) == turn * number and len(due()) == number
    assert set(ScheduledCall.objects.filter(status="Pending").values_list("target__name", flat=True)) == {"mail"}
    change(made, target=None, headers={}, data={})
    assert set(ScheduledCall.objects.filter(status="Pending").values_list("target", flat=True)) == {None}


@pytest.mark.skipif(KIND == "sqlite", reason="it has one lock")
def test_a_change_waits_for_the_limits_of_its_target_before_it_locks_its_calls():
    """In the order of who claims them, or each of the two would wait for the other."""
    made = schedule(target=target(max_at_once=1))
    with ThreadPoolExecutor(1) as thread:
        with transaction.atomic(), connection.cursor() as cursor:
            assert limits.places([made.target_id], {}) == {made.target_id: 1}

            def somebody_waits():
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                return cursor.fetchone()[0]
            changes = thread.submit(lambda: (change(made, exceptions=["2400-12-25"]), connection.close()))
            until(somebody_waits)
            assert len(made.calls.select_for_update(nowait=True)) > 40
        changes.result()
    assert statuses().keys() == {"Pending", "Cancelled"}


@pytest.mark.parametrize("fields, problem", [
    ({"body": "{{call.ip}}"}, "body"), ({"body": "{", "headers": {"Content-Type": "application/json"}}, "body"),
    ({"headers": {"Host": "x"}}, "headers"), ({"headers": {"X-A": "a\r\nb: c"}}, "headers"),
    ({"headers": {"X-A": "{{data.a}}"}}, "data"), ({"data": {"a b": 1}}, "data"),
])
def test_what_cannot_be_sent_is_refused(fields, problem):
    with pytest.raises(ValidationError) as caught:
        schedule(target=target(), **fields)
    assert list(caught.value.message_dict) == [problem]


@pytest.mark.parametrize("fields", [{"body": "x"}, {"headers": {"X-A": "b"}}, {"data": {"a": 1}}])
def test_without_a_target_nothing_is_sent(fields):
    with pytest.raises(ValidationError, match="Is for a target, and there is none"):
        schedule(**fields)


def test_a_target_that_asks_for_more_by_now_keeps_nobody_from_switching_a_schedule_off():
    made = schedule(target=target())
    Target.objects.update(url="https://api.example.org/{{data.shop}}")
    change(Schedule.objects.get(), on=False)
    with pytest.raises(ValidationError, match="Lacks shop"):
        change(Schedule.objects.get(), headers={"X-A": "b"})
    assert Schedule.objects.get(pk=made.pk).headers == {}


def test_a_run_is_a_call_beside_its_occurrences_that_no_change_takes_away():
    made = schedule(target=target(), on=False)
    call = planner.run(made, "ann", "to see it")
    assert (call.status, call.target.name, call.occurrence, call.scheduled_by, call.scheduled_via, call.note) == (
        "Pending", "billing", None, "ann", "schedule", "to see it")
    assert abs(call.timestamp - utcnow()) < timedelta(seconds=5)
    change(made, on=True), pause(made), planner.delete(made.pk)
    call.refresh_from_db()
    assert call.status == "Pending" and call.schedule_id == made.pk


def test_jitter_is_at_most_an_hour():
    with pytest.raises(ValidationError) as caught:
        schedule(jitter=3601)
    assert list(caught.value.message_dict) == ["jitter"]
