"""The admin of schedules: what it shows, the preview before anything is saved, and that all it does is
done as by the API."""
import re
from datetime import date, datetime, timedelta, timezone

import pytest
from conftest import PASSWORD, guest, person, statuses, until
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from selenium.webdriver.common.by import By

from scheduler.admin import schedules
from scheduler.base.clock import utcnow
from scheduler.base.moments import moment
from scheduler.calls import ledger, targets
from scheduler.models import Schedule, ScheduledCall, Target
from scheduler.schedules import planner

LIST = "/admin/scheduler/schedule/"
FORM = {"name": "lunch", "times": "12:30:00, 14:15:30", "cron": "", "zone": "Europe/Berlin", "days": Schedule.DAYS,
        "first_date": "", "last_date": "", "exceptions": "", "on": "on", "target": "", "body": "", "headers": "{}",
        "data": "{}", "overlap": "allow", "catch_up": "none", "jitter": "0"}


def made(name="lunch", **fields):
    schedule = Schedule(name=name, **{"times": "12:30:00, 14:15:30", "zone": "Europe/Berlin"} | fields)
    planner.save(schedule)
    return schedule


def text(page):
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", re.sub("(?s)<style>.*?</style>", "", page.content.decode())))


def act(client, action, schedules, **more):
    return client.post(LIST, {"action": action, "_selected_action": [s.pk for s in schedules]} | more, follow=True)


def test_the_preview_shows_the_next_ten_and_saves_nothing(client):
    page = client.post(LIST + "add/", FORM | {"_preview": "Preview", "first_date": "2400-07-01", "days": ["mon", "fri"]})
    shown = text(page)
    assert "In Europe/Berlin In UTC Mon 2400-07-03 12:30:00 CEST 2400-07-03 10:30:00 UTC" in shown
    assert shown.count("CEST") == 10 and "2400-07-17 14:15:30 CEST" in shown
    assert not Schedule.objects.exists() and statuses() == {} and not LogEntry.objects.exists()
    source = page.content.decode()
    assert 'value="2400-07-01"' in source and source.count(" checked") == 3, "what was typed is still there"
    assert "errornote" not in source


def test_the_preview_of_a_change_changes_nothing(client):
    schedule = made()
    before = list(ScheduledCall.objects.values())
    page = client.post(f"{LIST}{schedule.pk}/change/", FORM | {
        "_preview": "Preview", "times": "", "cron": "0 9 1 1 *", "zone": "Asia/Tokyo"})
    assert f"{utcnow().year + 1}-01-01 09:00:00 JST" in text(page)
    assert list(ScheduledCall.objects.values()) == before
    assert Schedule.objects.get().times == schedule.times
    assert "14:15:30 CE" in text(client.get(f"{LIST}{schedule.pk}/change/")), "it opens with what is saved"


@pytest.mark.parametrize("change, says", [
    ({"times": "noon"}, "&#x27;noon&#x27; is not HH:MM or HH:MM:SS."), ({"times": ""}, "or else a cron expression"),
    ({"cron": "* * * * *"}, "not both"), ({"zone": "Mars"}, "is no IANA time zone"), ({"days": []}, "This field is required"),
    ({"first_date": "2030-01-02", "last_date": "2030-01-01"}, "Lies before the first date."),
    ({"name": "taken"}, "There is a schedule of this name already."), ({"name": ""}, "This field is required"),
    ({"times": "", "cron": "0 0 * * 9"}, "is no day-of-week"),
    ({"times": "", "cron": "0 0 * * *", "days": ["mon"]}, "says its days itself"),
])
@pytest.mark.parametrize("button", ["_save", "_preview"])
def test_what_is_wrong_is_said_at_its_field(client, change, says, button):
    made("taken")
    page = client.post(LIST + "add/", FORM | change | {button: "x"})
    assert says in page.content.decode() and "can be shown once the errors above are mended" in text(page)
    assert Schedule.objects.count() == 1


def test_clock_changes_are_noted():
    def remarks(day, **fields):
        rule = Schedule(**{"name": "x", "zone": "Europe/Berlin"} | fields).rule
        start = datetime(2026, *day, tzinfo=timezone.utc)
        return [(moment(at, rule.zone), schedules.remark(rule, at))
                for at in planner.upcoming(rule, start, 3)]
    assert remarks((3, 28, 12), times="02:30:00, 12:00:00") == [
        ("2026-03-29 03:30:00 CEST", "the clocks jump over 02:30:00"),
        ("2026-03-29 12:00:00 CEST", ""), ("2026-03-30 02:30:00 CEST", "")]
    assert remarks((10, 24, 12), times="02:30:00") == [
        ("2026-10-25 02:30:00 CEST", "the clocks show this time twice, this is the first"),
        ("2026-10-26 02:30:00 CET", ""), ("2026-10-27 02:30:00 CET", "")]
    assert remarks((3, 28, 12), cron="30 2 * * *")[0] == ("2026-03-29 03:00:00 CEST", "the clocks jump here")
    assert [said for _, said in remarks((10, 25, 0), cron="30 * * * *")] == [
        f"the clocks show this time twice, this is the {which}" for which in ("first", "second")] + [""]
    assert remarks((4, 4, 0), times="01:45:00", zone="Australia/Lord_Howe")[0] == (
        "2026-04-05 01:45:00 +11", "the clocks show this time twice, this is the first")


def test_what_is_saved_is_planned_and_what_is_changed_planned_anew(client, log):
    assert client.post(LIST + "add/", FORM).status_code == 302
    schedule = Schedule.objects.get()
    assert schedule.created_by == "root" and statuses().keys() == {"Pending"}
    number = statuses()["Pending"]
    client.post(f"{LIST}{schedule.pk}/change/", FORM | {"name": "dinner"})
    assert statuses() == {"Pending": number}
    client.post(f"{LIST}{schedule.pk}/change/", FORM | {"times": "11:00:00"})
    assert statuses()["Cancelled"] == number == len(log())
    client.post(f"{LIST}{schedule.pk}/change/", {key: value for key, value in FORM.items() if key != "on"})
    assert statuses().keys() == {"Cancelled"}
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("id")] == [
        "Added.", "Changed Name.", "Changed Name and Times.", "Changed Times and On."]


@pytest.mark.parametrize("action", ["switch_off", "delete_selected"])
@pytest.mark.parametrize("bad", ["abc", "1.5", "\0", "9" * 20])
def test_what_is_no_id_is_left_out_of_what_is_selected(client, bad, action):
    made(), made("other")
    page = client.post(LIST, {"action": action, "_selected_action": [bad], "post": "yes"}, follow=True)
    assert "Items must be selected" in page.content.decode()
    assert Schedule.objects.filter(on=True, deleted_at=None).count() == 2


def test_an_action_on_schedules_that_somebody_deleted_says_so(client):
    gone, kept = made("gone"), made()
    planner.delete(gone.pk, "ann")
    shown = text(act(client, "switch_off", [gone, kept]))
    assert "1 of those selected are no longer there." in shown and "1 switched off." in shown


def test_the_list_shows_what_comes_next_and_how_the_last_ones_ended_in_so_many_queries(client):
    schedule, off = made(), made("off", on=False)
    made("far", first_date=date(2400, 7, 3), days="mon")
    past = utcnow().replace(microsecond=0) - timedelta(days=9)
    for i, status in enumerate(["Succeeded", "Failed", "Missed", "Succeeded", "Failed", "Succeeded"]):
        at = past + timedelta(hours=i)
        ScheduledCall.objects.create(schedule=schedule, timestamp=at, occurrence=at, status=status)
    at = past + timedelta(hours=9)
    ScheduledCall.objects.create(schedule=schedule, timestamp=at, status="Cancelled")     # by a change
    page = client.get(LIST)
    shown = text(page)
    soon = ScheduledCall.objects.filter(status="Pending").order_by("timestamp")[0]
    assert f"{moment(soon.timestamp, schedule.rule.zone)} " in shown
    assert "2400-07-03 12:30:00 CEST" in shown and "12:30:00, 14:15:30, mon, from 2400-07-03, Europe/Berlin" in shown
    assert "the latest Succeeded" in page.content.decode(), "the newest is said in a word"
    assert re.findall('bar bar-([A-Z][a-z]*)"', page.content.decode()) == [
        "Succeeded", "Failed", "Missed", "Succeeded", "Failed", "Succeeded"]
    assert client.get(f"/admin/scheduler/scheduledcall/?view=all&schedule={off.pk}").status_code == 200
    numbers = []
    for more in range(2):
        with CaptureQueriesContext(connection) as queries:
            client.get(LIST)
        numbers.append(len(queries))
        for i in range(10):
            made(f"more {more} {i}")
    assert numbers[0] == numbers[1]


def test_a_schedule_of_which_there_is_nothing_to_say(client):
    schedule = made(on=False)
    page = text(client.get(f"{LIST}{schedule.pk}/change/"))
    assert "Next: – Last calls: – " in page and "Planned until: – " in page and "None" not in page
    assert "It is off: none of them is called." in page


def test_switching_several_off_and_on(client):
    schedules = [made(str(i)) for i in range(3)]
    off = made("off", on=False)
    assert "3 switched off." in text(act(client, "switch_off", [*schedules, off]))
    assert statuses().keys() == {"Cancelled"} and not Schedule.objects.filter(on=True).exists()
    assert "2 switched on." in text(act(client, "switch_on", schedules[:2]))
    assert statuses().keys() == {"Cancelled", "Pending"} and Schedule.objects.filter(on=True).count() == 2
    assert sorted(LogEntry.objects.values_list("change_message", flat=True)) == ["Switched off."] * 3 + ["Switched on."] * 2


def test_deleting_cancels_what_is_pending_and_keeps_all_calls(client):
    schedules = [made(str(i)) for i in range(3)]
    number = ScheduledCall.objects.count()
    page = client.get(f"{LIST}{schedules[0].pk}/delete/")
    assert "0: " in text(page) and "pending calls will be cancelled; all its calls are kept" in text(page)
    client.post(f"{LIST}{schedules[0].pk}/delete/", {"post": "yes"})
    assert client.get(f"{LIST}{schedules[0].pk}/change/").status_code == 302
    assert "are kept" in text(act(client, "delete_selected", schedules))
    act(client, "delete_selected", schedules, post="yes")
    assert statuses() == {"Cancelled": number} and not Schedule.objects.filter(deleted_at=None).exists()
    assert LogEntry.objects.filter(action_flag=3).count() == 3


def test_a_call_that_a_person_cancelled_or_moved_is_told_in_the_preview(client):
    schedule = made(times="00:00:00, 12:00:00", zone="UTC")
    cancelled, moved = ScheduledCall.objects.order_by("timestamp")[1:3]
    ledger.cancel([cancelled.pk], by="ben")
    ledger.move(moved.pk, moved.timestamp + timedelta(hours=1))
    url, form = f"{LIST}{schedule.pk}/change/", FORM | {"times": "00:00:00, 12:00:00", "zone": "UTC", "_preview": "x"}
    told = f"{moment(cancelled.timestamp)} its call was cancelled"
    shown = text(client.get(url))
    assert told in shown and shown.count("its call was") == 2
    assert f"{moment(moved.timestamp)} its call was moved to {moment(moved.timestamp + timedelta(hours=1))}" in shown
    shown = text(client.post(url, form))
    assert told in shown and shown.count("its call was") == 1, "a change plans the moved one anew"


def test_what_a_change_cancelled_says_so_and_a_deleted_schedule_too(client):
    schedule = made()
    call = ScheduledCall.objects.latest("timestamp")
    planner.delete(schedule.pk, "ben")
    for address in ("?view=all", f"{call.pk}/change/"):
        shown = text(client.get(f"/admin/scheduler/scheduledcall/{address}"))
        assert "its schedule was changed, switched off or deleted" in shown and "lunch (deleted)" in shown and "ben" in shown


def test_a_call_shows_its_schedule(client):
    schedule = made()
    call = ScheduledCall.objects.all()[0]
    assert f'{LIST}{schedule.pk}/change/"><bdi>lunch</bdi></a>' in client.get(
        f"/admin/scheduler/scheduledcall/{call.pk}/change/").content.decode()


def test_each_right_is_asked_for():
    schedule = made()
    user = person(may=["view"], model="schedule")
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client()
    client.force_login(user)
    url = f"{LIST}{schedule.pk}/change/"
    assert "lunch" in text(client.get(LIST)) and "14:15:30 CE" in text(client.get(url))
    assert 'name="_preview"' not in client.get(url).content.decode()
    for path in (url, f"{LIST}add/", *(f"{LIST}{schedule.pk}/{name}/" for name in ("delete", "pause", "resume", "run"))):
        assert client.post(path, FORM | {"post": "yes"}).status_code == 403
    act(client, "switch_off", [schedule]), act(client, "delete_selected", [schedule], post="yes")
    assert Schedule.objects.filter(on=True, deleted_at=None).count() == 1
    user.user_permissions.set(Permission.objects.filter(codename="view_scheduledcall"))
    assert client.get(LIST).status_code == 403


@pytest.mark.parametrize("what, says", [("name", "has just taken this name"), ("gone", "has just deleted it")])
def test_somebody_else_was_quicker(client, monkeypatch, what, says):
    schedule, save = made(), planner.save

    def late(*arguments):
        if what == "name":
            Schedule.objects.bulk_create([Schedule(name="other", times="12:00:00", zone="UTC")])
        else:
            Schedule.objects.filter(pk=schedule.pk).update(deleted_at=utcnow())
        return save(*arguments)
    monkeypatch.setattr(planner, "save", late)
    page = client.post(f"{LIST}{schedule.pk}/change/", FORM | {"name": "other"}, follow=True)
    assert says in text(page) and "changed successfully" not in text(page)
    assert not LogEntry.objects.exists()


def test_a_zone_that_this_machine_does_not_know_breaks_no_page(client):
    schedule = made()
    Schedule.objects.update(zone="Europe/Atlantis")
    assert "is no IANA time zone" in text(client.get(LIST))
    assert client.get(f"{LIST}{schedule.pk}/change/").status_code == 200


def billing():
    target = Target(name="billing", url="https://api.example.org/v1/run")
    targets.save(target)
    return target


def test_what_it_calls_and_how_it_behaves_is_in_the_form(client):
    target = billing()
    more = {"target": target.pk, "body": "{{data.shop}}", "headers": '{"Content-Type": "text/plain"}', "data": '{"shop": 7}',
            "overlap": "skip", "catch_up": "last", "jitter": "60", "exceptions": "2400-12-26\n2400-12-25, 2400-12-25"}
    assert client.post(LIST + "add/", FORM | more).status_code == 302
    schedule = Schedule.objects.get()
    assert (schedule.target, schedule.body, schedule.headers, schedule.data, schedule.overlap, schedule.catch_up,
            schedule.jitter, schedule.exceptions) == (
        target, "{{data.shop}}", {"Content-Type": "text/plain"}, {"shop": 7}, "skip", "last", 60, ["2400-12-25", "2400-12-26"])
    url = f"{LIST}{schedule.pk}/change/"
    page = client.get(url)
    source = page.content.decode()
    assert "2400-12-25, 2400-12-26</textarea>" in source and "&quot;shop&quot;: 7" in source
    assert "Each call is due up to 60 s later, at random." in text(page) and "its call was moved" not in text(page)
    shown = text(client.get(LIST))
    assert "billing" in shown
    client.post(url, FORM | more | {"exceptions": ""})
    assert LogEntry.objects.latest("id").get_change_message() == "Changed Except."
    client.post(url, FORM)
    schedule.refresh_from_db()
    assert schedule.target is None and schedule.body is None and "API_URL" in text(client.get(LIST))


@pytest.mark.parametrize("change, says", [
    ({"exceptions": "christmas"}, "is no date such as 2026-12-25"), ({"headers": "X: y"}, "This is no JSON"),
    ({"exceptions": "2400-12-26 to 2400-12-24"}, "is no date"), ({"exceptions": "0001-01-01 to 9999-12-31"}, "at most 366 are taken"),
    ({"headers": '["X"]', }, "Must be an object"), ({"data": '{"a": NaN}'}, "number"), ({"jitter": "4000"}, "from 0 to 3600"),
    ({"body": "{{call.ip}}", "headers": '{"Content-Type": "text/plain"}'}, "which there is not"), ({"overlap": "x"}, "not one of"),
    ({"target": "999"}, "not one of the available choices"), ({"target": "", "body": "x"}, "Is for a target, and there is none"),
])
def test_what_of_it_is_wrong_is_said_at_its_field(client, change, says):
    page = client.post(LIST + "add/", FORM | {"target": billing().pk} | change)
    assert says in page.content.decode(), text(page)
    assert not Schedule.objects.exists()


@pytest.mark.parametrize("written", ["2400-12-24 to 2400-12-26", "2400-12-24..2400-12-25\n2400-12-26", "2400-12-24 – 2400-12-26",
                                     "2400-12-26, 2400-12-24 - 2400-12-25"])
def test_exceptions_are_days_and_from_one_to_another(client, written):
    assert client.post(LIST + "add/", FORM | {"exceptions": written}).status_code == 302
    assert Schedule.objects.get().exceptions == ["2400-12-24", "2400-12-25", "2400-12-26"]


def test_an_exception_is_not_in_the_preview(client):
    shown = text(client.post(LIST + "add/", FORM | {
        "_preview": "x", "first_date": "2400-07-03", "exceptions": "2400-07-04", "jitter": "5"}))
    assert "2400-07-03 12:30" in shown and "2400-07-04 12:30" not in shown and "up to 5 s later" in shown


def test_who_may_not_use_targets_has_nothing_more_called():
    target = billing()
    schedule, plain = made(target=target), made("plain")
    client = guest("view_schedule", "change_schedule", "see_request")
    url = f"{LIST}{schedule.pk}/change/"
    same = FORM | {"target": target.pk, "headers": "{}", "data": "{}"}
    assert "scheduler.use_target" in text(client.post(url, same | {"times": "11:00:00"}))
    assert "not one of the available choices" in text(client.post(f"{LIST}{plain.pk}/change/", same | {"name": "plain"}))
    assert client.post(url, same | {"name": "dinner"}).status_code == 302
    for name in ("run", "resume"):
        assert client.post(f"{LIST}{schedule.pk}/{name}/").status_code == 403
    assert client.post(f"{LIST}{schedule.pk}/pause/").status_code == 302
    act(client, "switch_off", [schedule, plain])
    assert "1 not switched on" in text(act(client, "switch_on", [schedule, plain]))
    assert list(Schedule.objects.filter(on=True)) == [plain]


def test_what_is_sent_is_shown_to_who_may_see_it():
    schedule = made(target=billing(), data={"shop": "a word"})
    url = f"{LIST}{schedule.pk}/change/"
    client = guest("view_schedule", "change_schedule", "use_target")
    assert "a word" not in client.get(url).content.decode()
    client.post(url, FORM | {"target": schedule.target_id, "name": "dinner"})
    schedule.refresh_from_db()
    assert schedule.data == {"shop": "a word"} and schedule.name == "dinner"
    User.objects.all().delete()
    assert "a word" in guest("view_schedule", "change_schedule", "see_request").get(url).content.decode()


def test_who_may_not_see_what_is_sent_has_it_sent_nowhere_else():
    other = Target(name="mine", url="https://me.example.org/")
    targets.save(other)
    schedule = made(target=billing(), data={"shop": "a word"})
    url, client = f"{LIST}{schedule.pk}/change/", guest("view_schedule", "change_schedule", "use_target")
    assert "scheduler.see_request" in text(client.post(url, FORM | {"target": other.pk}))
    Target.objects.filter(pk=other.pk).update(body="{{data.order}}", headers={"Content-Type": "text/plain"})
    assert "Lacks order, to be filled in." in text(client.post(url, FORM | {"target": other.pk}))
    assert Schedule.objects.get().target.name == "billing"
    assert client.post(url, FORM | {"target": ""}).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.target, schedule.data) == (None, {}), "it went with its target"


def test_a_pause_is_asked_for_and_shown(client):
    schedule = made()
    url = f"{LIST}{schedule.pk}/"
    page = client.get(url + "change/").content.decode()
    assert f'href="{url}pause/"' in page and f'href="{url}resume/"' not in page
    asked = text(client.get(url + "pause/"))
    assert "Pause this schedule?" in asked and "Until (in Europe/Berlin)" in asked and "under Except" in asked and not Schedule.objects.get().paused_at
    for bad, says in (({"until": "2001-01-01T00:00"}, "has passed"), ({"until": "soon"}, "is not a date and time"),
                      ({"reason": "\u202egnp"}, "turns the direction")):
        assert says in text(client.post(url + "pause/", bad))
    assert client.post(url + "pause/", {"until": "2400-07-03T10:00", "reason": "it is moved"}).status_code == 302
    assert Schedule.objects.get().paused_until == datetime(2400, 7, 3, 8, tzinfo=timezone.utc), "its zone's ten o'clock"
    shown = text(client.get(url + "change/"))
    assert "until 2400-07-03 10:00:00 CEST : it is moved" in shown and "Paused by root since" in shown and "Mon 2400-07-03 12:30:00 CEST" in shown
    assert "paused by root: it is moved , until" in text(client.get(LIST)) and statuses().keys() == {"Cancelled"}
    client.post(url + "pause/", {})
    assert "It is paused: none of them is called until it is resumed." in text(client.get(url + "change/"))
    client.post(url + "resume/", {})
    assert statuses().keys() == {"Cancelled", "Pending"} and not Schedule.objects.get().paused_at
    assert list(LogEntry.objects.order_by("id").values_list("change_message", flat=True)) == [
        "Paused until 2400-07-03 10:00:00 CEST: it is moved.", "Paused.", "Resumed."]


def test_run_now_is_a_call_and_leads_to_it_and_sent_twice_it_is_one(client):
    schedule = made(target=billing(), on=False)
    url = f"{LIST}{schedule.pk}/run/"
    page = client.get(url)
    form = {"note": "to see it", "form_key": re.search('name="form_key" value="([^"]*)"', page.content.decode())[1]}
    pages = [client.post(url, form, follow=True) for _ in range(2)]
    call = ScheduledCall.objects.get()
    assert (call.schedule, call.target, call.note, call.scheduled_by) == (schedule, schedule.target, "to see it", "root")
    assert f"Call {call.pk} is made now." in text(pages[0]) and "sent twice and is done once" in text(pages[1])
    assert LogEntry.objects.get().change_message == f"Run as call {call.pk}."
    targets.pause(schedule.target, "ann", "it is moved")
    assert "Its target billing is paused by ann: it is moved" in text(client.post(url, follow=True))
    assert ScheduledCall.objects.count() == 1


def test_in_a_browser_the_preview_comes_before_saving(stack, browser):  # noqa: F811
    User.objects.create_superuser("root", password=PASSWORD)
    stack.start("web")
    browser.get(stack.url + LIST + "add/")
    browser.find_element(By.NAME, "username").send_keys("root")
    browser.find_element(By.NAME, "password").send_keys(PASSWORD)
    browser.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    until(lambda: browser.find_elements(By.NAME, "times"))
    browser.find_element(By.NAME, "name").send_keys("lunch")
    browser.find_element(By.NAME, "times").send_keys("02:30:00")
    zone = browser.find_element(By.NAME, "zone")
    zone.clear()
    zone.send_keys("Europe/Berlin")
    browser.execute_script("arguments[0].value = '2400-03-25'", browser.find_element(By.NAME, "first_date"))
    browser.find_element(By.NAME, "_preview").click()
    rows = until(lambda: browser.find_elements(By.CSS_SELECTOR, "#preview tbody tr"))
    assert len(rows) == 10
    assert rows[1].text == "Sun 2400-03-26 03:30:00 CEST 2400-03-26 01:30:00 UTC the clocks jump over 02:30:00"
    assert not Schedule.objects.exists()
    assert browser.find_element(By.NAME, "times").get_attribute("value") == "02:30:00"
    browser.find_element(By.NAME, "_save").click()
    until(lambda: Schedule.objects.filter(name="lunch").exists())
    until(lambda: browser.find_elements(By.LINK_TEXT, "lunch"))
    assert "2400-03-25 02:30:00 CET" in browser.page_source


@pytest.mark.parametrize("codename, leads", [("view_scheduledcall", True), ("add_scheduledcall", False)])
def test_its_calls_are_a_link_for_those_who_may_see_them(codename, leads):
    client, schedule = guest("view_schedule", codename), made()
    for address in (LIST, f"{LIST}{schedule.pk}/change/"):
        page = client.get(address)
        assert page.status_code == 200 and (f"schedule={schedule.pk}" in page.content.decode()) == leads
        assert ("so far" in text(page)) == leads


@pytest.mark.parametrize("codename, leads", [("view_schedule", True), ("add_schedule", False)])
def test_a_calls_schedule_is_a_link_for_those_who_may_see_it(codename, leads):
    client, schedule = guest("view_scheduledcall", codename), made()
    page = client.get(f"/admin/scheduler/scheduledcall/{schedule.calls.first().pk}/change/").content.decode()
    assert "<bdi>lunch</bdi>" in page and (f'href="{LIST}{schedule.pk}/change/"' in page) == leads
