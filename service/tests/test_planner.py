"""Schedules become calls: each occurrence once, 48 hours ahead, whoever else plans or changes it, and
whatever dies in between."""
import itertools
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from conftest import KIND, SERVICE, rows_read, statuses, until
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from test_transitions import at_once

from scheduler import tasks
from scheduler.base.clock import steady, utcnow
from scheduler.calls import dispatch, ledger
from scheduler.models import Schedule, ScheduledCall
from scheduler.ops import metrics
from scheduler.schedules import planner

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# Of each hour, the minute at which a schedule comes, and another half an hour later: none while a test looks at it.
MINUTE, OTHER = ((utcnow().minute + later) % 60 for later in (50, 20))


def schedule(name="lunch", **fields):
    """A schedule as a request makes it: at MINUTE of each hour, unless `fields` say otherwise."""
    if not fields.keys() & {"times", "cron"}:
        fields["cron"] = f"{MINUTE} * * * *"
    made = Schedule(name=name, **{"zone": "UTC"} | fields)
    made.full_clean()
    planner.save(made)
    return made


def change(made, **fields):
    for name, value in fields.items():
        setattr(made, name, value)
    made.full_clean()
    return planner.save(made)


def away(hours, **fields):
    """A schedule that was planned up to so many hours ago, and no further."""
    made = schedule(**fields)
    ScheduledCall.objects.all().delete()
    Schedule.objects.filter(pk=made.pk).update(planned_until=utcnow() - hours * HOUR)
    made.refresh_from_db()
    return made


days = itertools.count(1)


def a_day_later(monkeypatch):
    """By the clock that says when plans are compared with their rules."""
    ahead = next(days) * planner.COMPARED_EVERY
    monkeypatch.setattr(planner, "steady", lambda: steady() + ahead)


def due(status="Pending"):
    return list(ScheduledCall.objects.filter(status=status).order_by("timestamp").values_list("timestamp", flat=True))


def hours(start, end):
    """MINUTE of each hour from `start` to before `end`."""
    first = start.replace(minute=MINUTE, second=0, microsecond=0) - HOUR
    return [at for at in (first + i * HOUR for i in range(200)) if start <= at < end]


def test_a_new_schedule_is_planned_48_hours_ahead_by_the_request_itself():
    before = utcnow()
    made = schedule()
    assert hours(before, before + 48 * HOUR) == due()[:48]
    assert due()[-1] < made.planned_until <= utcnow() + 49 * HOUR
    assert set(ScheduledCall.objects.values_list("schedule", flat=True)) == {made.pk}


def test_the_dispatcher_plans_on_and_each_occurrence_once():
    made = schedule()
    now = utcnow()
    for i in range(12):
        planner.plan(now + i * 5 * HOUR)
        assert set(hours(now, now + (48 + i * 5) * HOUR)) <= set(due())
    end = Schedule.objects.get().planned_until
    assert due() == hours(now, end) and end >= now + 103 * HOUR
    assert Schedule.objects.get().version == made.version


def test_a_tick_with_nothing_to_plan_is_one_query_that_reads_no_schedule():
    Schedule.objects.bulk_create([Schedule(name=str(i), planned_until=utcnow() + 49 * HOUR) for i in range(3000)])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    with CaptureQueriesContext(connection) as queries:
        planner.plan()
    assert len(queries) == 1
    assert rows_read(planner.plan) < 1000


def test_two_dispatchers_plan_each_occurrence_once():
    for i in range(30):
        schedule(str(i))
    start = utcnow()
    for i in range(1, 4):
        at_once(4, lambda _: planner.plan(start + i * 20 * HOUR, 60))
    assert set(Schedule.objects.values_list("planned_until", flat=True)) == {start + 109 * HOUR}
    assert ScheduledCall.objects.count() == 30 * len(hours(start, start + 109 * HOUR))


def test_below_it_all_the_database_refuses_a_second_call_for_an_occurrence():
    made = schedule()
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.plan([ledger.PlannedCall(made.pk, due()[0], 0, due()[0])], utcnow())


@pytest.mark.parametrize("when", ["inserted", "moved on"])
def test_a_dispatcher_that_is_killed_in_the_middle(when):
    """kill -9 between the insertion and the commit: the next one finds nothing done, and does it."""
    away(-10)
    process = subprocess.Popen([sys.executable, "-c", f'''
import django; django.setup()
import time
from django.db.models import QuerySet
from scheduler.calls import ledger
from scheduler.schedules import planner
if {when!r} == "inserted":
    whole = ledger.plan
    def plan(*arguments):
        whole(*arguments)
        print("now", flush=True)
        time.sleep(600)
    ledger.plan = plan
else:
    whole = QuerySet.update
    def update(rows, **values):
        whole(rows, **values)
        print("now", flush=True)
        time.sleep(600)
    QuerySet.update = update
planner.plan()
'''], cwd=SERVICE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "now\n"
    process.kill()
    process.wait()
    assert statuses() == {}
    now = utcnow()
    until(lambda: planner.plan() or statuses())     # once the database has noticed
    made = Schedule.objects.get()
    assert due() == hours(now + 10 * HOUR, made.planned_until) and made.planned_until > now + 48 * HOUR


def test_the_dispatcher_was_away_for_a_while(log):
    """What could not start within its grace any more is Missed, one each; what still can is Pending."""
    now = utcnow()
    made = away(20, cron="* * * * *")
    planner.plan(seconds=60)
    assert len(due("Missed")) == len(log()) == pytest.approx(20 * 60, abs=2)
    assert all("Missed call to API at" in line for line in log())
    assert now - timedelta(seconds=61) < due()[0] <= utcnow()
    assert sorted(due("Missed") + due()) == [
        made.planned_until.replace(second=0, microsecond=0) + timedelta(minutes=i + 1)
        for i in range(ScheduledCall.objects.count())], "without a hole"
    missed = ScheduledCall.objects.filter(status="Missed").first()
    assert missed.error == ledger.UNPLANNED and now <= missed.ended_at <= utcnow() and not missed.started_at


def test_the_dispatcher_was_away_for_longer_than_48_hours(log, caplog):
    now = utcnow()
    away(100)
    with caplog.at_level("WARNING", "scheduler"):
        planner.plan(seconds=60)
    assert due("Missed") == hours(now - 48 * HOUR, now - timedelta(seconds=60))
    first, *others = log()
    assert 'Missed 52 calls to API at' in first and '(of schedule "lunch", due before ' in first
    assert len(others) == len(due("Missed")) and all("Missed call to API at" in line for line in others)
    assert [record.message for record in caplog.records] == [first.partition(": ")[2]]
    planner.plan(seconds=60)
    assert len(log()) == 1 + len(others)


def test_what_is_written_down_late_is_counted_in_the_metrics():
    """They count the past once; that must not be before it was planned."""
    away(20)
    assert metrics.measure()[0]["ended"].get("Missed", 0) == 0
    planner.plan(seconds=60)
    for _ in range(2):
        assert metrics.measure()[0]["ended"]["Missed"] == len(due("Missed")) == pytest.approx(20, abs=1)


def test_what_fell_due_in_years_is_counted_up_to_a_bound(log):
    away(3 * 365 * 24, cron="* * * * *")
    planner.plan(seconds=60)
    assert f"Missed more than {planner.COUNTED} calls" in log()[0]
    assert len(due("Missed")) == len(log()) - 1 == pytest.approx(48 * 60, abs=2)


def test_a_tick_plans_for_no_longer_than_it_may_and_the_next_goes_on():
    for i in range(3):
        away(0, name=str(i), cron="* * * * *")
    planner.plan(seconds=0)
    assert statuses() == {}
    planner.plan(seconds=1e-9)
    assert statuses() in ({}, {"Pending": ledger.BATCH})
    planner.plan(seconds=60)
    assert ScheduledCall.objects.count() == pytest.approx(3 * 49 * 60, abs=6)
    assert Schedule.objects.filter(planned_until__gt=utcnow() + 48 * HOUR).count() == 3


def test_the_tick_of_the_dispatcher_plans():
    away(0)
    tasks.dispatch_all()
    assert len(due()) in (48, 49) and dispatch.since_beat() is not None


def test_a_schedule_that_cannot_be_planned_keeps_no_other_from_it(caplog):
    broken = away(1, name="broken")
    Schedule.objects.filter(pk=broken.pk).update(zone="Europe/Atlantis")
    away(0, name="good")
    with caplog.at_level("ERROR", "scheduler"):
        planner.plan(seconds=60), planner.plan(seconds=60)
    assert Schedule.objects.get(name="good").planned_until > utcnow() + 48 * HOUR
    assert len(caplog.records) == 1, "said once"
    assert "(broken) cannot be planned: 'Europe/Atlantis' is no IANA time zone" in caplog.records[0].message


def test_a_call_that_a_person_cancelled_is_not_planned_again():
    """Whether the schedule is planned on, changed, or switched off and on."""
    made = schedule()
    gone = ScheduledCall.objects.get(timestamp=due()[5])
    ledger.cancel([gone.pk])
    planner.plan(utcnow() + 40 * HOUR)
    assert gone.timestamp not in due()
    change(made, cron=f"{MINUTE},{OTHER} * * * *")
    assert gone.timestamp not in due() and gone.timestamp + HOUR / 2 in due()
    change(made, on=False), change(made, on=True)
    assert gone.timestamp not in due() and gone.timestamp + HOUR in due()
    assert ScheduledCall.objects.get(pk=gone.pk).occurrence == gone.timestamp


def test_a_call_that_was_moved_is_not_planned_again_either():
    made = schedule()
    first, second = due()[3:5]
    moved = ScheduledCall.objects.get(timestamp=first)
    ledger.move(moved.pk, second)
    planner.plan(utcnow() + 40 * HOUR)
    assert due().count(first) == 0 and due().count(second) == 2
    change(made, zone="Asia/Kolkata", cron=f"{OTHER} * * * *")
    assert due().count(first) == due().count(second) == 1, "the move was of a call that is cancelled now"


def test_a_change_cancels_what_was_planned_and_plans_anew(log):
    made = schedule()
    then = due()
    running, failed = ScheduledCall.objects.order_by("timestamp")[:2]
    ScheduledCall.objects.filter(pk=running.pk).update(status="Running")
    ScheduledCall.objects.filter(pk=failed.pk).update(status="Failed")
    change(made, cron=f"{OTHER} * * * *")
    assert due("Cancelled") == then[2:] and due("Running") == [running.timestamp] and due("Failed") == [failed.timestamp]
    assert due() == [at for half in hours(utcnow() - HOUR, made.planned_until)
                     if utcnow() < (at := half + HOUR / 2) < made.planned_until]
    assert len(log()) == len(then) - 2 and all("Cancelled call to API at" in line for line in log())
    change(made, cron=f"{MINUTE} * * * *")
    assert due() == then[2:], "but those of which there is an outcome, or will be"


def test_another_name_changes_nothing_else(log):
    made = schedule()
    rows = list(ScheduledCall.objects.values())
    change(made, name="dinner")
    assert list(ScheduledCall.objects.values()) == rows and log() == []
    assert Schedule.objects.get().name == "dinner"


def test_what_is_due_at_the_moment_of_a_change_is_still_called():
    made = schedule()
    now = utcnow()
    call = ScheduledCall.objects.order_by("timestamp")[0]
    at = now.replace(microsecond=0) - timedelta(seconds=2)
    ScheduledCall.objects.filter(pk=call.pk).update(timestamp=at, occurrence=at)
    soon = change(made, cron="", times=f"{at:%H:%M:%S}, {at + timedelta(hours=1):%H:%M:%S}")
    assert due()[0] == at and soon == [ScheduledCall.objects.get(timestamp=at, status="Pending").pk]
    change(made, times="03:04:05" if at.hour > 4 else "20:04:05")
    assert at not in due(), "unless the schedule asks for it no longer"


def test_switched_off_nothing_is_planned_and_on_again_nothing_was_missed():
    made = schedule()
    change(made, on=False)
    assert statuses().keys() == {"Cancelled"} and made.planned_until is None
    planner.plan(utcnow() + 100 * HOUR)
    assert statuses().keys() == {"Cancelled"}
    change(made, on=True)
    assert statuses().keys() == {"Cancelled", "Pending"}
    assert len(due()) in (48, 49, 50)


@pytest.mark.parametrize("what", [{"cron": f"{OTHER} * * * *"}, {"on": False}, None])
def test_a_change_leaves_no_hole_where_nobody_had_planned(what, log):
    """The dispatcher was away, and a person comes to the schedule before it does."""
    made, now = away(100), utcnow()
    change(made, **what) if what else planner.delete(made.pk)
    assert due("Missed") == hours(now - 48 * HOUR, now - timedelta(seconds=60))
    assert "Missed 52 calls to API at" in log()[0]
    assert sum("Missed call to API at" in line for line in log()) == len(due("Missed"))
    assert len(due()) == (49 if what and "cron" in what else 0)


def test_a_schedule_whose_zone_is_gone_can_be_mended():
    made = away(20)
    Schedule.objects.filter(pk=made.pk).update(zone="Europe/Atlantis")
    change(made, zone="Europe/Berlin", cron=f"{OTHER} * * * *")
    assert len(due()) == 49


def test_a_call_that_is_too_late_already_is_missed_and_not_cancelled():
    made, at = schedule(), utcnow().replace(microsecond=0) - HOUR
    first = ScheduledCall.objects.order_by("timestamp")[0]
    ScheduledCall.objects.filter(pk=first.pk).update(timestamp=at, occurrence=at)
    change(made, on=False)
    ledger.miss()
    assert due("Missed") == [at] and at not in due("Cancelled")


def test_deleting_keeps_what_has_ended_and_the_name_may_be_taken_anew(log):
    made = schedule()
    done = ScheduledCall.objects.order_by("timestamp")[0]
    ScheduledCall.objects.filter(pk=done.pk).update(status="Succeeded", ended_at=utcnow() - 2 * DAY)
    planner.delete(made.pk)
    assert statuses() == {"Succeeded": 1, "Cancelled": len(log())}
    done.refresh_from_db()
    assert done.schedule.name == "lunch"
    planner.plan(utcnow() + 100 * HOUR)
    assert "Pending" not in statuses()
    for late in (lambda: planner.delete(made.pk), lambda: change(made, on=True)):
        with pytest.raises(Schedule.DoesNotExist):
            late()
    schedule()


def test_a_deleted_schedule_is_removed_with_the_last_call_that_names_it():
    made, other = schedule(), schedule("other")
    planner.delete(made.pk)
    call_command("prune", "1")
    assert Schedule.objects.count() == 2
    call_command("prune", "0")
    assert list(Schedule.objects.all()) == [other]


def test_a_change_while_a_dispatcher_is_planning():
    """Either comes first. What the table holds in the end is what the new rule says."""
    for turn in range(8):
        made = away(0, name=str(turn))
        fresh = Schedule.objects.get(pk=made.pk)
        at_once(3, lambda i: change(fresh, cron=f"{OTHER} * * * *") if i == 1 else planner.plan(seconds=60))
        assert {at.minute for at in due()} == {OTHER}
        assert len(due()) == len(set(due())) >= 48
        planner.delete(made.pk)


def test_what_was_computed_for_another_rule_is_not_written(monkeypatch):
    made = away(0)
    since, real = made.planned_until, planner.between

    def meanwhile(*rule_and_window):
        monkeypatch.setattr(planner, "between", real)
        change(made, cron=f"{OTHER} * * * *")
        Schedule.objects.update(planned_until=since)
        ScheduledCall.objects.all().delete()
        return real(*rule_and_window)
    monkeypatch.setattr(planner, "between", meanwhile)
    planner.plan(seconds=60)
    assert statuses() == {}
    planner.plan(seconds=60)
    assert {at.minute for at in due()} == {OTHER}


def test_a_schedule_that_somebody_has_locked_keeps_the_dispatcher_from_no_other():
    if KIND == "sqlite":
        return      # has one lock for all; who waits too long for it is told
    first, second = away(0, name="first"), away(0, name="second")
    with transaction.atomic():
        planner.locked().get(pk=first.pk)
        at_once(1, lambda _: planner.plan(seconds=60))
    assert set(ScheduledCall.objects.values_list("schedule", flat=True)) == {second.pk}
    planner.plan(seconds=60)
    assert ScheduledCall.objects.filter(schedule=first).exists()


def test_what_comes_next():
    made, weekly = schedule(times="12:00:00, 18:00:00", cron=""), schedule(
        "weekly", times="12:00:00", days="mon", first_date=datetime(2400, 1, 1).date())
    now = utcnow()
    off = schedule("off", on=False)
    coming = planner.coming([made, weekly, off], now)
    assert coming[made.pk] == planner.upcoming(made.rule, now) and len(coming[made.pk]) == 10
    assert coming[weekly.pk][0] == datetime(2400, 1, 3, 12, tzinfo=timezone.utc) and coming[off.pk] == []
    first, second, *others = coming[made.pk]
    ledger.cancel([ScheduledCall.objects.get(timestamp=first).pk])
    ledger.move(ScheduledCall.objects.get(timestamp=second).pk, second + timedelta(minutes=1))
    with CaptureQueriesContext(connection) as queries:
        assert planner.coming([made, weekly], now)[made.pk][:9] == [second + timedelta(minutes=1), *others]
    assert len(queries) == 1


@pytest.mark.parametrize("fields, problem", [
    ({"name": " "}, "name"), ({"name": "a\nb"}, "name"), ({"name": "\u202egnp"}, "name"), ({"name": "x" * 101}, "name"),
    ({"times": "12:00:00", "cron": "* * * * *"}, "times"), ({"times": "", "cron": ""}, "times"),
    ({"times": "25:00:00, 12:00:00, noon"}, "times"), ({"times": "12:00:00," * 10_000}, "times"),
    ({"cron": "* * * * * *"}, "cron"), ({"cron": "0 0 30 2 *"}, "cron"), ({"cron": "@reboot"}, "cron"),
    ({"cron": "1" * 501}, "cron"),
    ({"cron": "* * * * *", "days": "mon"}, "days"), ({"days": "", "times": "12:00:00"}, "days"),
    ({"days": "mon,noday", "times": "12:00:00"}, "days"),
    ({"zone": "../../etc/passwd"}, "zone"), ({"zone": ""}, "zone"), ({"zone": "Mars/Olympus"}, "zone"),
    ({"zone": "\0"}, "zone"),
    ({"first_date": datetime(9999, 1, 1).date()}, "first_date"),
    ({"first_date": datetime(2030, 1, 2).date(), "last_date": datetime(2030, 1, 1).date()}, "last_date"),
])
def test_what_no_schedule_can_be(fields, problem):
    with pytest.raises(ValidationError) as caught:
        schedule(**fields)
    assert list(caught.value.message_dict) == [problem]
    assert statuses() == {} and not Schedule.objects.exists()


def test_what_is_written_in_many_ways_is_kept_in_one():
    made = schedule(" lunch ", times="14:15:30,9:00:00, 09:00:00,", days="sun,mon")
    assert (made.name, made.times, made.days) == ("lunch", "09:00:00, 14:15:30", "mon,sun")
    assert schedule("b", cron=" 0  12 * * mon-fri ").cron == "0 12 * * mon-fri"


def test_a_name_is_one_schedules():
    schedule()
    twice = Schedule(name="lunch", cron="* * * * *", zone="UTC")
    with pytest.raises(ValidationError):
        twice.full_clean()
    with pytest.raises(IntegrityError):
        planner.save(twice)


def test_a_clock_that_was_days_ahead_for_a_while_leaves_no_schedule_without_calls():
    schedule()
    Schedule.objects.update(planned_until=utcnow() + 20 * DAY)
    ScheduledCall.objects.filter(timestamp__gt=utcnow() + 10 * HOUR).delete()
    planner.plan()
    planned_until = Schedule.objects.get().planned_until
    assert utcnow() + 48 * HOUR < planned_until < utcnow() + 50 * HOUR
    assert due() == hours(utcnow(), planned_until)


def test_a_change_by_a_machine_whose_clock_is_ahead_drops_no_occurrence(monkeypatch):
    made = schedule()
    before = due()
    monkeypatch.setattr(planner, "utcnow", lambda: utcnow() + 3 * HOUR, raising=False)
    change(made, cron=f"{MINUTE},{OTHER} * * * *")
    assert set(before) <= set(due())


def test_pruning_keeps_what_a_person_cancelled_from_being_planned_again():
    made = schedule()
    gone = made.calls.latest("timestamp")
    ledger.cancel([gone.pk])
    ScheduledCall.objects.filter(pk=gone.pk).update(ended_at=utcnow() - 2 * DAY)
    call_command("prune", "1", verbosity=0)
    change(made, zone="Etc/UTC")
    assert gone.timestamp not in due()
