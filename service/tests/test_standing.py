"""How targets and schedules have been doing, and what a pause of one does, as their pages say it."""
import re
from datetime import date, timedelta
from html import unescape

from conftest import fill, guest, make, rows_read
from django.contrib.auth.models import User

from scheduler.admin.outcomes import LAST, Outcomes, of_schedules, of_targets
from scheduler.base.clock import utcnow
from scheduler.calls import ledger, targets
from scheduler.models import Attempt, Schedule, ScheduledCall, Target
from scheduler.schedules import planner

TARGETS, SCHEDULES, CALLS = (f"/admin/scheduler/{name}/" for name in ("target", "schedule", "scheduledcall"))


def words(page):
    return unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page.content.decode())))


def called(seconds, status="Succeeded", took=None, **fields):
    """A call that was due so many seconds ago, and took so many milliseconds."""
    at = utcnow() - timedelta(seconds=seconds)
    times = {} if took is None else {"started_at": at, "ended_at": at + timedelta(milliseconds=took)}
    return ScheduledCall.objects.create(timestamp=at, status=status, **times | fields)


def of_target(target):
    return Outcomes(Target.objects.annotate(**of_targets()).get(pk=target.pk))


def of_schedule(schedule):
    return Outcomes(Schedule.objects.annotate(**of_schedules(utcnow())).get(pk=schedule.pk))


def billing(**fields):
    return Target.objects.create(**{"name": "billing", "url": "https://api.example/"} | fields)


def nightly(**fields):
    schedule = Schedule(**{"name": "nightly", "cron": "*/30 * * * *", "zone": "UTC"} | fields)
    planner.save(schedule)
    return schedule


def test_the_last_calls_are_bars_a_rate_and_durations(client):
    target, other = billing(), billing(name="other")
    for i in range(97):
        called(1000 + i, took=100 + i, target=target)
    called(900, "Failed", target=target), called(800, "Missed", target=target), called(700, "Cancelled", target=target)
    called(600, "Failed", took=5, target=other), called(-600, "Pending", target=target)
    found = of_target(target)
    assert [status for _, status in found.bars] == ["Succeeded"] * 18 + ["Failed", "Missed"]
    assert (found.number, found.succeeded, found.rate) == (99, 97, "97 %") and found.durations == ("148.0 ms", "196.0 ms")
    row = re.search('(?s)<tr>(?:(?!<tr>).)*>billing<.*?</tr>', client.get(TARGETS).content.decode())[0]
    assert 'aria-label="The last 20: 18 Succeeded, 1 Failed, 1 Missed; the latest Missed"' in row and row.count('class="bar ') == 20
    assert '<span class="rate">97 %</span>' in row and "148.0 ms, 196.0 ms" in row
    page = client.get(f"{TARGETS}{target.pk}/change/")
    assert "97 % of the last 99 succeeded, median 148.0 ms, 99th percentile 196.0 ms" in words(page)
    for pk, status in found.bars:
        assert f'<a href="{CALLS}{pk}/change/" tabindex="-1" title="call {pk}: {status}"' in page.content.decode()
    assert "href" not in re.search('(?s)class="bars".*?</span>', guest("view_target").get(f"{TARGETS}{target.pk}/change/").content.decode())[0]


def test_no_more_than_the_last_hundred_count():
    target, schedule = billing(), Schedule.objects.create(name="n", cron="* * * * *", zone="UTC")
    for i in range(LAST + 50):
        called(i, "Succeeded" if i < LAST - 1 else "Failed", target=target, schedule=schedule)
    for found in (of_target(target), of_schedule(schedule)):
        assert (found.number, found.succeeded) == (LAST, LAST - 1)


def test_a_duration_is_that_of_the_last_attempt_where_it_is_known():
    target = billing()
    call = called(600, took=500_000, target=target, attempts_made=2)
    Attempt.objects.create(call=call, number=2, started_at=call.ended_at - timedelta(milliseconds=7), ended_at=call.ended_at, outcome="Succeeded")
    assert of_target(target).took == [7]
    called(500, "Failed", took=45_000, target=target, attempts_made=1)
    given_up = called(400, "Failed", took=9_000, target=target, attempts_made=1)
    assert of_target(target).took == [7], "of a worker that was lost nobody knows"
    Attempt.objects.create(call=given_up, number=1, started_at=given_up.started_at, outcome="Failed",
                           ended_at=given_up.started_at + timedelta(milliseconds=3))
    called(300, took=5, target=target, attempts_made=1)
    assert of_target(target).took == [3, 5, 7]


def test_of_a_schedule_what_a_change_cancelled_does_not_count(client):
    schedule = nightly()
    for i, status in enumerate(["Failed", "Succeeded", "Cancelled"]):
        called(900 - i, status, took=9, schedule=schedule, occurrence=utcnow() - timedelta(seconds=900 - i))
    called(800, "Cancelled", schedule=schedule)
    found = of_schedule(schedule)
    assert [status for _, status in found.bars] == ["Failed", "Succeeded", "Cancelled"] and found.rate == "50 %"
    assert "50 %" in words(client.get(SCHEDULES)) and "50 % of the last 2 succeeded" in words(client.get(f"{SCHEDULES}{schedule.pk}/change/"))


def test_it_costs_the_same_among_thousands(client):
    target, schedule = billing(), Schedule.objects.create(name="n", cron="* * * * *", zone="UTC")
    client.get(TARGETS), client.get(SCHEDULES)
    for status in ("Succeeded", "Failed", "Missed", "Cancelled"):
        fill(LAST, -600, status=status, target=target, schedule=schedule)
    before = [rows_read(lambda url=url: client.get(url)) for url in (TARGETS, SCHEDULES)]
    for status in ("Succeeded", "Failed", "Missed", "Pending"):
        fill(5000, 600 if status == "Pending" else -90_000, status=status, target=target, schedule=schedule)
    assert [rows_read(lambda url=url: client.get(url)) for url in (TARGETS, SCHEDULES)] <= [1.3 * rows for rows in before]


def test_a_paused_schedule_says_so_first_and_what_that_cancelled(client):
    schedule = nightly()
    until = utcnow().replace(microsecond=0) + timedelta(hours=24)
    planned = ScheduledCall.objects.filter(status="Pending").count()
    asked = client.get(f"{SCHEDULES}{schedule.pk}/pause/")
    assert f"It has {planned} calls planned for the next 48 hours; what is due before the pause ends will be cancelled." in words(asked)
    client.post(f"{SCHEDULES}{schedule.pk}/pause/", {"until": f"{until:%Y-%m-%dT%H:%M:%S}", "reason": "holidays & <b>"})
    gone = ScheduledCall.objects.filter(status="Cancelled").count()
    page = client.get(f"{SCHEDULES}{schedule.pk}/change/")
    shown = words(page)
    assert re.search(rf"Paused by root since [-\d]+ [:\d]+ UTC, until {until:%Y-%m-%d %H:%M:%S} UTC : holidays & <b>", shown)
    assert f"That cancelled {gone} calls that were planned." in shown and 47 <= gone <= 49 and "Resume it now" in shown
    assert shown.index("Paused by") < shown.index("Time zone"), "first"
    address = unescape(re.search('href="([^"]*status=Cancelled[^"]*)"', page.content.decode())[1])
    assert f"{gone} calls" in words(client.get(address))
    seer = guest("view_schedule").get(f"{SCHEDULES}{schedule.pk}/change/").content.decode()
    assert "Paused" in seer and "Resume it now" not in seer and "status=Cancelled" not in seer
    client.post(f"{SCHEDULES}{schedule.pk}/resume/")
    assert "Paused" not in words(client.get(f"{SCHEDULES}{schedule.pk}/change/"))
    client.post(f"{SCHEDULES}{schedule.pk}/pause/", {"until": "", "reason": "holidays & <b>"})
    assert "until somebody resumes it" in words(client.get(f"{SCHEDULES}{schedule.pk}/change/"))
    assert f"That cancelled {planned} calls that were planned. Nothing is planned until then." in words(
        client.get(f"{SCHEDULES}{schedule.pk}/change/")), "and not what the pause before cancelled"


def test_a_paused_target_says_so_first_and_what_that_missed(client):
    target = billing()
    nightly(target=target, first_date=date(2400, 1, 1))
    make(30, target=target), make(7200, target=target), make(7200)
    assert "2 calls are pending for it, and 1 schedule calls it." in words(client.get(f"{TARGETS}{target.pk}/pause/"))
    targets.pause(target, "ann", "it moves", utcnow() + timedelta(hours=1))
    page = words(client.get(f"{TARGETS}{target.pk}/change/"))
    assert "Paused by ann since" in page and "it moves" in page and page.index("Paused by") < page.index("Timeout")
    assert "So far no call was missed by that." in page and "1 call will be missed, unless" in page and "go on: nightly" in page
    ScheduledCall.objects.filter(target=target, timestamp__lt=utcnow() + timedelta(minutes=1)).update(timestamp=utcnow() - timedelta(seconds=1))
    assert ledger.miss() == 1
    page = client.get(f"{TARGETS}{target.pk}/change/")
    assert "So far 1 call was missed by that." in words(page) and "will be missed, unless" not in words(page)
    address = unescape(re.search('href="([^"]*status=Missed[^"]*)"', page.content.decode())[1])
    assert "1 call " in words(client.get(address)) and "Resume it now" in words(page)
    targets.resume(target)
    assert "Paused" not in words(client.get(f"{TARGETS}{target.pk}/change/"))


def test_who_may_not_have_a_schedule_run_is_not_offered_it():
    schedule = nightly(target=billing())
    path = f"{SCHEDULES}{schedule.pk}/change/"
    assert "Run now" not in words(guest("view_schedule", "change_schedule").get(path))
    User.objects.all().delete()
    assert "Run now" in words(guest("view_schedule", "change_schedule", "use_target").get(path))
