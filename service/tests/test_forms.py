"""The admin's forms: what is sent twice is done once, and an old page undoes nothing."""
import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from html import unescape

import pytest
import requests
from conftest import PASSWORD, Stack, free_port, log_in, make, until
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core import signing
from django.db import connection
from django.test import Client
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select
from test_browser import follow, one

from scheduler.admin import paste
from scheduler.base.clock import utcnow
from scheduler.base.moments import moment
from scheduler.calls import ledger
from scheduler.models import Schedule, ScheduledCall
from scheduler.schedules import planner

CALLS, SCHEDULES = "/admin/scheduler/scheduledcall/", "/admin/scheduler/schedule/"
LUNCH = {"name": "lunch", "times": "12:30:00, 14:15:30", "cron": "", "zone": "Europe/Berlin", "days": Schedule.DAYS,
         "first_date": "", "last_date": "", "on": "on"}
TOLD = "This form was sent twice and is done once."
UNDER_WAY = "This form was sent before, and that is under way, or was broken off."


@pytest.fixture
def client():
    client = Client()
    client.force_login(User.objects.create_superuser("root", password=PASSWORD))
    return client


def hidden(page):
    """{name: value} of the fields of a page's form that nobody sees."""
    return {name: unescape(value) for name, value in re.findall(
        r'<input type="hidden" name="(form_key|opened_with)" value="([^"]*)"', page)}


def opened(client, path):
    """What a browser sends along with the form at that address."""
    return hidden(client.get(path).content.decode())


def new_calls(times="2095-07-01 12:00:00, 2095-07-02 12:00:00"):
    return {"timestamp_0": "", "timestamp_1": "", "times": times, "note": "by hand", "previewed": paste.mark(times)}


def due(at):
    return {"timestamp_0": f"{at:%Y-%m-%d}", "timestamp_1": f"{at:%H:%M:%S}"}


def told(client, answer):
    """The messages on the page to which the answer leads."""
    page = client.get(answer["Location"], follow=True).content.decode()
    return re.findall('(?s)<li class="(?:success|info|warning|error)">(.*?)</li>', page.split('class="messagelist"')[1])


def lunch(**fields):
    schedule = Schedule(**{"name": "lunch", "times": "12:30:00, 14:15:30", "zone": "Europe/Berlin"} | fields)
    planner.save(schedule)
    return schedule


def everything():
    """All that a form can change."""
    return [list(model.objects.order_by("pk").values()) for model in (ScheduledCall, Schedule, LogEntry)]


def chosen(rows, action, **more):
    return {"action": action, "_selected_action": [row.pk for row in rows], "select_across": "0", "index": "0"} | more


# (path of the page, path to which it is sent, fields), of each form that there is.
FORMS = {
    "one call": lambda: (f"{CALLS}add/", new_calls("2095-07-01 12:00:00")),
    "several calls": lambda: (f"{CALLS}add/", new_calls()),
    "and another": lambda: (f"{CALLS}add/", new_calls() | {"_addanother": "x"}),
    "move a call": lambda: (f"{CALLS}{make(6000).pk}/change/", due(utcnow() + timedelta(days=3))),
    "cancel a call": lambda: (f"{CALLS}{make(6000).pk}/cancel/", {}),
    "call again": lambda: (f"{CALLS}{make(-600, status='Failed').pk}/again/", {}),
    "cancel some": lambda: (CALLS, chosen(make(6000, 3), "cancel")),
    "call some again": lambda: (CALLS, chosen(make(6000, 3), "schedule_again")),
    "a schedule": lambda: (f"{SCHEDULES}add/", LUNCH),
    "change a schedule": lambda: (f"{SCHEDULES}{lunch().pk}/change/", LUNCH | {"times": "11:00:00", "_continue": "x"}),
    "delete a schedule": lambda: (f"{SCHEDULES}{lunch().pk}/delete/", {"post": "yes"}),
    "switch some off": lambda: (SCHEDULES, chosen([lunch(), lunch(name="dinner")], "switch_off")),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_done_once(client, form):
    path, fields = FORMS[form]()
    fields |= opened(client, path)
    assert fields["form_key"]
    before = everything()
    first = client.post(path, fields)
    after, said = everything(), told(client, first)
    assert first.status_code == 302 and after != before and said
    second = client.post(path, fields)
    assert (second.status_code, second["Location"], everything()) == (302, first["Location"], after)
    *again, last = told(client, second)
    assert again == said and last.startswith(TOLD)
    if "/change/" not in path and "/cancel/" not in path and "/delete/" not in path:
        anew = fields | opened(client, path) | ({"name": "supper"} if "name" in fields else {})
        assert client.post(path, anew)["Location"] and (everything() != after) == (form not in ("cancel some", "switch some off"))


def test_a_question_uses_nothing_up(client):
    """Django asks before it deletes what is selected, at the same address."""
    fields = chosen([lunch()], "delete_selected") | opened(client, SCHEDULES)
    for _ in range(2):
        page = client.post(SCHEDULES, fields)
        assert "all its calls are kept" in page.content.decode()
    assert Schedule.objects.get().deleted_at is None
    fields |= hidden(page.content.decode()) | {"post": "yes"}
    first = client.post(SCHEDULES, fields)
    assert Schedule.objects.get().deleted_at and client.post(SCHEDULES, fields)["Location"] == first["Location"]
    assert TOLD in client.get(SCHEDULES).content.decode() and LogEntry.objects.count() == 1


def test_a_form_with_errors_is_sent_again(client):
    """With the key that it had (the Back button) and with that of the page that told of the errors."""
    first = opened(client, f"{CALLS}add/")
    page = client.post(f"{CALLS}add/", new_calls("noon") | first).content.decode()
    assert "“noon” is not a date" in page
    for key, number in ((first, 2), (hidden(page), 4)):
        assert client.post(f"{CALLS}add/", new_calls() | key).status_code == 302
        assert ScheduledCall.objects.count() == number
    key = opened(client, f"{SCHEDULES}add/")
    assert client.post(f"{SCHEDULES}add/", LUNCH | key | {"_preview": "x"}).status_code == 200
    assert client.post(f"{SCHEDULES}add/", LUNCH | key).status_code == 302 and Schedule.objects.count() == 1


def test_who_goes_back_and_changes_something_asks_for_something_new(client):
    key = opened(client, f"{CALLS}add/")
    for times in ("2095-07-01 12:00:00", "2095-07-02 12:00:00", "2095-07-01 12:00:00"):
        assert client.post(f"{CALLS}add/", new_calls(times) | key).status_code == 302
    assert [f"{call.timestamp:%d}" for call in ScheduledCall.objects.order_by("id")] == ["01", "02"]
    calls, key = make(6000, 2), opened(client, CALLS)
    for call in calls:
        client.post(CALLS, chosen([call], "cancel") | key)
    assert ScheduledCall.objects.filter(status="Cancelled").count() == 2


def test_two_tabs_and_two_people_have_keys_of_their_own(client):
    first, second = opened(client, f"{CALLS}add/"), opened(client, f"{CALLS}add/")
    assert first["form_key"] != second["form_key"]
    other = Client()
    other.force_login(User.objects.create_superuser("ann"))
    for who, key in ((client, first), (client, second), (other, first)):
        assert who.post(f"{CALLS}add/", new_calls("2095-07-01 12:00:00") | key).status_code == 302
    assert ScheduledCall.objects.count() == 3


def test_a_page_of_the_version_before_has_no_key(client):
    for _ in range(2):
        assert client.post(f"{CALLS}add/", new_calls("2095-07-01 12:00:00")).status_code == 302
    assert ScheduledCall.objects.count() == 2


def test_what_failed_can_be_sent_again(client, monkeypatch):
    """A database that goes away, say, before all is written."""
    client.raise_request_exception = False
    fields = new_calls() | opened(client, f"{CALLS}add/")
    with monkeypatch.context() as patched:
        patched.setattr(LogEntry._meta, "db_table", "no_such_table")
        assert client.post(f"{CALLS}add/", fields).status_code >= 500
    assert not ScheduledCall.objects.exists()
    assert client.post(f"{CALLS}add/", fields).status_code == 302 and ScheduledCall.objects.count() == 2


def test_an_action_that_was_broken_off_is_not_begun_again_by_the_same_page(client, monkeypatch):
    """Some of its thousands of rows may be changed; a call is made once rather than twice."""
    client.raise_request_exception = False
    calls, again = make(6000, 3), chosen(make(-60, 2, status="Failed"), "schedule_again")
    fields = again | opened(client, CALLS)
    with monkeypatch.context() as patched:
        patched.setattr(LogEntry._meta, "db_table", "no_such_table")
        assert client.post(CALLS, fields).status_code >= 500
    assert ScheduledCall.objects.filter(again_of__isnull=False).count() == 2
    assert "under way, or was broken off" in told(client, client.post(CALLS, fields))[0]
    assert ScheduledCall.objects.filter(again_of__isnull=False).count() == 2
    assert client.post(CALLS, chosen(calls, "cancel") | opened(client, CALLS)).status_code == 302


@pytest.mark.parametrize("form", ["several calls", "call again", "call some again"])
def test_two_at_the_same_time(client, monkeypatch, form):
    """The first waits, before it does anything, for the second to come as far: it does not."""
    path, fields = FORMS[form]()
    fields |= opened(client, path)
    before, schedule, both = ScheduledCall.objects.count(), ledger.schedule, threading.Barrier(2)

    def meet(*arguments, **named):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return schedule(*arguments, **named)
    monkeypatch.setattr(ledger, "schedule", meet)

    def click():
        try:
            return client.post(path, fields).status_code
        finally:
            connection.close()
    with ThreadPoolExecutor(2) as pool:
        assert [done.result() for done in [pool.submit(click) for _ in range(2)]] == [302, 302]
    assert ScheduledCall.objects.count() - before == {"several calls": 2, "call again": 1, "call some again": 3}[form]


def test_two_web_processes_share_the_keys(client, stack):
    """Ten forms, each sent to both at the same time."""
    other = Stack()
    other.port = free_port()
    other.url = f"http://127.0.0.1:{other.port}"
    try:
        stack.start("web"), other.start("web")
        session = {"scheduler_sessionid": client.cookies["scheduler_sessionid"].value}

        def send(answer, url, fields):
            return requests.post(f"{url}{CALLS}add/", fields, cookies=answer.cookies.get_dict() | session, timeout=20,
                                 allow_redirects=False)
        with ThreadPoolExecutor(2) as pool:
            for i in range(10):
                page = requests.get(f"{stack.url}{CALLS}add/", cookies=session, timeout=20)
                token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]
                fields = new_calls() | hidden(page.text) | {"csrfmiddlewaretoken": token}
                answers = list(pool.map(lambda url: send(page, url, fields), [stack.url, other.url]))
                assert [answer.status_code for answer in answers] == [302, 302]
                assert answers[0].headers["Location"] == answers[1].headers["Location"]
                assert ScheduledCall.objects.count() == 2 * (i + 1)
    finally:
        other.stop()


# What somebody else changed meanwhile


def errors(page):
    return re.sub(r"\s+", " ", unescape(re.sub("<[^>]+>", " ", " ".join(re.findall(r'(?s)<ul class="errorlist.*?</ul>', page)))))


def values(page):
    """{name: value} of the fields that are to be seen, of the boxes those that are ticked."""
    found = {}
    for tag in re.findall("<input [^>]*>", page):
        attribute = dict(re.findall(r'([a-z]+)="([^"]*)"', tag))
        if attribute.get("type") == "checkbox" and "checked" in tag:
            found.setdefault(attribute["name"], []).append(attribute.get("value", "on"))
        elif attribute.get("type") in ("text", "date"):
            found[attribute["name"]] = unescape(attribute.get("value", ""))
    return found | {name: unescape(text).strip() for name, text in re.findall(r'(?s)<textarea name="(\w+)"[^>]*>(.*?)</textarea>', page)}


def test_an_old_page_does_not_switch_a_schedule_on_again(client):
    schedule = lunch()
    path = f"{SCHEDULES}{schedule.pk}/change/"
    old = LUNCH | opened(client, path)
    schedule.on = False
    planner.save(schedule)
    before = everything()
    page = client.post(path, old | {"name": "dinner"}).content.decode()
    assert everything() == before, "nothing is saved"
    assert "Nothing was saved: somebody else changed this" in errors(page)
    assert "Somebody changed this from yes to no; here stands what is there now." in errors(page)
    assert values(page)["name"] == "dinner" and "on" not in values(page)
    again = {name: value for name, value in old.items() if name != "on"} | {"name": "dinner"} | hidden(page)
    assert client.post(path, again).status_code == 302
    saved = Schedule.objects.get()
    assert (saved.name, saved.on) == ("dinner", False)


def test_a_conflict_shows_both(client):
    schedule = lunch()
    path = f"{SCHEDULES}{schedule.pk}/change/"
    old = LUNCH | opened(client, path)
    schedule.times, schedule.name, schedule.days, schedule.first_date = "09:00:00", "breakfast", "mon,fri", (today := utcnow().date())
    planner.save(schedule)
    page = client.post(path, old | {"times": "18:00:00", "zone": "Asia/Tokyo", "first_date": str(today)}).content.decode()
    assert "Somebody changed this from “12:30:00, 14:15:30” to “09:00:00”; here stands what you wrote." in errors(page)
    assert "Somebody changed this from “lunch” to “breakfast”; here stands what is there now." in errors(page)
    assert "to “mon,fri”; here stands what is there now." in errors(page)
    assert errors(page).count("Somebody changed") == 3, "both chose the same first date, and one alone the zone"
    shown = values(page)
    assert (shown["times"], shown["name"], shown["days"], shown["zone"]) == ("18:00:00", "breakfast", ["mon", "fri"], "Asia/Tokyo")
    schedule.refresh_from_db()
    assert schedule.times == "09:00:00"
    schedule.cron, schedule.times, schedule.days = "0 7 * * *", "", ",".join(Schedule.DAYS)
    planner.save(schedule)
    again = old | shown | hidden(page)
    page = client.post(path, again).content.decode()
    assert "from nothing to “0 7 * * *”; here stands what is there now." in errors(page), "and a third time"
    assert "from “09:00:00” to nothing; here stands what you wrote." in errors(page)
    shown = values(page)
    assert client.post(path, old | shown | hidden(page) | {"cron": ""}).status_code == 302
    saved = Schedule.objects.get()
    assert (saved.times, saved.cron, saved.name, saved.zone, saved.days) == (
        "18:00:00", "", "breakfast", "Asia/Tokyo", ",".join(Schedule.DAYS))


def test_a_name_that_somebody_changed_is_not_changed_back(client):
    schedule = lunch()
    path = f"{SCHEDULES}{schedule.pk}/change/"
    old = LUNCH | opened(client, path)
    client.post(path, LUNCH | opened(client, path) | {"name": "dinner"})
    page = client.post(path, old | {"times": "11:00:00"}).content.decode()
    assert "from “lunch” to “dinner”" in errors(page) and Schedule.objects.get().name == "dinner"


def test_what_both_want_is_no_conflict(client):
    schedule = lunch()
    path = f"{SCHEDULES}{schedule.pk}/change/"
    old = LUNCH | opened(client, path)
    schedule.name = "dinner"
    planner.save(schedule)
    assert client.post(path, old | {"name": "dinner", "times": "11:00:00"}).status_code == 302
    assert Schedule.objects.get().times == "11:00:00"


def rights(*codenames):
    return Permission.objects.filter(codename__in=codenames)


def test_an_old_page_gives_nobody_a_right_back(client):
    ann = User.objects.create_user("ann", is_staff=True)
    ann.user_permissions.set(rights("view_schedule", "delete_schedule"))
    path, fields = f"/admin/auth/user/{ann.pk}/change/", {"username": "ann", "is_active": "on", "is_staff": "on"}
    page = client.get(path).content.decode()
    assert ann.password not in page and ann.password not in str(signing.loads(hidden(page)["opened_with"], salt="opened_with"))
    old = fields | {"user_permissions": [right.pk for right in ann.user_permissions.all()]} | hidden(page)
    ann.is_staff = False
    ann.save()
    ann.user_permissions.set(rights("view_schedule"))
    page = client.post(path, old | {"first_name": "Ann"}).content.decode()
    assert "Somebody changed this from yes to no; here stands what is there now." in errors(page)
    assert re.search("to “[^”]*Can view schedule”; here stands what is there now", errors(page))
    assert re.findall('name="user_permissions" value="([0-9]+)"[^>]* checked', page) == [str(rights("view_schedule").get().pk)]
    assert values(page)["first_name"] == "Ann" and not User.objects.get(pk=ann.pk).first_name
    again = {"username": "ann", "is_active": "on", "first_name": "Ann",
             "user_permissions": [rights("view_schedule").get().pk]} | hidden(page)
    assert client.post(path, again).status_code == 302
    saved = User.objects.get(pk=ann.pk)
    assert (saved.first_name, saved.is_staff, list(saved.user_permissions.all())) == ("Ann", False, [*rights("view_schedule")])


def test_nor_a_group(client):
    ops = Group.objects.create(name="ops")
    try:
        ops.permissions.set(rights("view_schedule", "delete_schedule"))
        path = f"/admin/auth/group/{ops.pk}/change/"
        old = {"name": "operators", "permissions": [right.pk for right in ops.permissions.all()]} | opened(client, path)
        ops.permissions.clear()
        page = client.post(path, old).content.decode()
        assert "to nothing; here stands what is there now." in errors(page) and not ops.permissions.exists()
        assert client.post(path, {"name": "operators"} | hidden(page)).status_code == 302
        assert Group.objects.get(pk=ops.pk).name == "operators" and not ops.permissions.exists()
    finally:
        ops.delete()


def test_an_old_page_does_not_move_a_call_back(client):
    call = make(6000)
    path, at = f"{CALLS}{call.pk}/change/", utcnow().replace(microsecond=0) + timedelta(days=2)
    old = due(call.timestamp) | opened(client, path)
    ledger.move(call.pk, at)
    page = client.post(path, old).content.decode()
    assert f"Somebody changed this from {moment(call.timestamp)} to {moment(at)}; here stands what is there now." in errors(page)
    assert {name: values(page)[name] for name in due(at)} == due(at)
    later = at + timedelta(days=1)
    page = client.post(path, old | due(later)).content.decode()
    assert "here stands what you wrote." in errors(page) and values(page)["timestamp_0"] == f"{later:%Y-%m-%d}"
    assert ScheduledCall.objects.get().timestamp == at
    assert client.post(path, due(later) | hidden(page)).status_code == 302
    assert ScheduledCall.objects.get().timestamp == later


def test_of_two_saves_at_the_same_time_the_second_sees_the_first(client, monkeypatch):
    schedule, save, both = lunch(), planner.save, threading.Barrier(2)
    path = f"{SCHEDULES}{schedule.pk}/change/"
    forms = [LUNCH | opened(client, path) | change for change in ({"name": "dinner"}, {"zone": "Asia/Tokyo"})]

    def meet(*arguments):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return save(*arguments)
    monkeypatch.setattr(planner, "save", meet)

    def send(fields):
        try:
            return client.post(path, fields).status_code
        finally:
            connection.close()
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(send, forms)) == [200, 302]


@pytest.mark.parametrize("made_up", ["x", "x:y:z", "", signing.dumps({"name": "x"}), signing.dumps({"none": "x"}, salt="opened_with")],
                         ids=["x", "three parts", "nothing", "no salt", "another field"])
def test_what_is_made_up_breaks_nothing(client, made_up):
    path = f"{SCHEDULES}{lunch().pk}/change/"
    assert client.post(path, LUNCH | {"opened_with": made_up, "form_key": "x" * 1000}).status_code == 302


# In a browser


@pytest.fixture
def browser(browser, stack):
    """Somebody who may do everything has logged in."""
    stack.start("web")
    log_in(browser, stack.url)
    return browser


def click_twice(browser, element, gap):
    ActionChains(browser, duration=0).move_to_element(element).click().pause(gap).click().perform()
    until(lambda: any(words in browser.page_source for words in (TOLD, UNDER_WAY)), what="it came twice")


def test_a_double_click_saves_once(browser, stack):
    """A slow one, and each of many: the server is at work when the second comes."""
    browser.get(f"{stack.url}{CALLS}add/")
    browser.execute_script("arguments[0].value = arguments[1]", one(browser, "[name=times]"), "2095-07-01 12:00:00\n" * 3000)
    follow(browser, one(browser, "[name=_save]"))
    assert "3000 calls to be made" in one(browser, "#pasted").text
    click_twice(browser, one(browser, "[name=_save]"), 0.1)
    assert "3000 calls were added." in one(browser, ".messagelist").text and "&ids=" in browser.current_url
    assert ScheduledCall.objects.count() == 3000 == LogEntry.objects.count()


def test_a_double_click_on_an_action_is_one(browser, stack):
    make(6000, 100)
    browser.get(stack.url + CALLS)
    one(browser, "#action-toggle").click()
    Select(one(browser, "[name=action]")).select_by_visible_text("Schedule again, now")
    click_twice(browser, one(browser, "button[name=index]"), 0.05)
    again = ScheduledCall.objects.filter(again_of__isnull=False)
    assert until(again.count) == 100


def test_the_back_button(browser, stack):
    """To a form that was saved, sent as it is: once. Sent with another time: that too."""
    browser.get(f"{stack.url}{CALLS}add/")

    def save(date):
        for name, text in (("timestamp_0", date), ("timestamp_1", "12:00:00")):
            one(browser, f"[name={name}]").clear()
            one(browser, f"[name={name}]").send_keys(text)
        follow(browser, one(browser, "[name=_save]"))

    save("2095-07-01")
    browser.back()
    save("2095-07-02")
    assert [f"{call.timestamp:%d}" for call in ScheduledCall.objects.order_by("id")] == ["01", "02"]
    browser.back()
    save("soon")
    save("2095-07-03")
    assert ScheduledCall.objects.count() == 3 and TOLD not in browser.page_source


def test_two_windows_on_one_schedule(browser, stack):
    """In one it is switched off, and then the other, which is older, saves another name."""
    path = f"{stack.url}{SCHEDULES}{lunch().pk}/change/"
    browser.get(path)
    old = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(path)
    one(browser, "[name=on]").click()
    follow(browser, one(browser, "[name=_save]"))
    browser.switch_to.window(old)
    one(browser, "[name=name]").clear()
    one(browser, "[name=name]").send_keys("dinner")
    follow(browser, one(browser, "[name=_save]"))
    assert "Nothing was saved: somebody else changed this" in one(browser, ".errorlist.nonfield").text
    assert "Somebody changed this from yes to no" in one(browser, ".field-on .errorlist").text
    assert not one(browser, "[name=on]").is_selected() and one(browser, "[name=name]").get_attribute("value") == "dinner"
    assert Schedule.objects.get().name == "lunch"
    follow(browser, one(browser, "[name=_save]"))
    assert (Schedule.objects.get().name, Schedule.objects.get().on) == ("dinner", False)
