"""The API of schedules, from outside."""
import json
import socket
from datetime import timedelta

import pytest
import requests
from conftest import all_ended, in_seconds, make, person, statuses, until
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from rest_framework.authtoken.models import Token
from rest_framework.throttling import SimpleRateThrottle
from test_transitions import at_once

from scheduler.base.clock import utcnow
from scheduler.calls import ledger, targets
from scheduler.models import Schedule, ScheduledCall, Target
from scheduler.schedules import planner

PATH = "/api/schedules/"
LUNCH = {"name": "lunch", "times": "12:30:00, 14:15:30", "zone": "Europe/Berlin"}
ALL = ("view", "add", "change", "delete")


@pytest.fixture
def client():
    client = Client()
    client.force_login(person(may=ALL, model="schedule"))
    return client


def post(client, code=201, **body):
    answer = client.post(PATH, json.dumps(body or LUNCH), "application/json")
    assert answer.status_code == code, answer.content
    return answer.json()


def patch(client, made, code=200, **body):
    answer = client.patch(f"{PATH}{made['id']}/", json.dumps(body), "application/json")
    assert answer.status_code == code, answer.content
    return answer.json()


def test_a_schedule_is_made_and_its_calls_are_there(client):
    made = post(client, **LUNCH | {"days": ["fri", "mon"] * 9, "last_date": "2096-08-01"})
    assert {name: made[name] for name in ("name", "times", "cron", "zone", "days", "first_date", "last_date", "on",
                                          "created_by")} == LUNCH | {
        "cron": None, "days": ["mon", "fri"], "first_date": None, "last_date": "2096-08-01", "on": True,
        "created_by": "ann"}
    assert len(made["next"]) == 10 and made["next"] == sorted(made["next"]) and made["next"][0].endswith("Z")
    assert client.get(f"{PATH}{made['id']}/").json() == made
    assert client.get(PATH).json() == {"next": None, "previous": None, "results": [made]}
    ScheduledCall.objects.all().delete()
    made = post(client, **LUNCH | {"name": "each minute", "times": None, "cron": "* * * * *"})
    assert statuses() == {"Pending": pytest.approx(49 * 60, abs=1)} and made["times"] is None


def test_a_call_says_which_schedule_planned_it_and_the_list_can_be_asked_for_them(client):
    client.force_login(person(may=ALL, model="scheduledcall"))
    other = make()
    made = Schedule(name="lunch", times="12:30:00", zone="UTC")
    planner.save(made)
    calls = client.get(f"/api/schedule-api/?schedule={made.pk}").json()["results"]
    assert [call["timestamp"] for call in calls] == [
        f"{call.timestamp:%Y-%m-%dT%H:%M:%SZ}" for call in ScheduledCall.objects.filter(schedule=made)]
    assert calls[0].keys() == {"id", "timestamp", "status"}
    assert client.get(f"/api/schedule-api/{calls[0]['id']}/").json()["schedule"] == {"id": made.pk, "name": "lunch"}
    assert client.get(f"/api/schedule-api/{other.pk}/").json()["schedule"] is None
    planner.delete(made.pk)
    assert len(client.get(f"/api/schedule-api/?schedule={made.pk}&status=Cancelled").json()["results"]) == len(calls)
    for bad in ("0", "x", "9" * 30, "1.5", "", "%D9%A1"):
        answer = client.get(f"/api/schedule-api/?schedule={bad}")
        assert answer.status_code == 400 and " no " in answer.json()["detail"], answer.content


@pytest.mark.parametrize("change, calls_change", [
    ({"times": "11:00:00"}, True), ({"zone": "Asia/Tokyo"}, True), ({"days": ["sun"]}, True), ({"on": False}, True),
    ({"first_date": "2096-01-01"}, True), ({"cron": "*/5 * * * *"}, True),
    ({"name": "dinner"}, False), ({}, False), ({"on": True, "zone": "Europe/Berlin", "times": "14:15:30,12:30:00"}, False),
])
def test_a_change_plans_anew_and_another_name_does_not(client, log, change, calls_change):
    made = post(client)
    before = statuses()
    changed = patch(client, made, **change)
    assert (statuses().get("Cancelled") == before["Pending"] == len(log())) is calls_change
    assert changed["name"] == change.get("name", "lunch")
    if "cron" in change:
        assert changed["times"] is None and changed["cron"] == "*/5 * * * *"
        assert patch(client, made, times="12:00:00")["cron"] is None
    if change == {"on": False}:
        assert changed["next"] == [] and changed["planned_until"] is None and "Pending" not in statuses()
        assert patch(client, made, on=True)["next"] == made["next"]


def test_deleting_cancels_what_is_pending_and_keeps_the_rest(client, log):
    made = post(client)
    done = ScheduledCall.objects.order_by("timestamp")[0]
    ScheduledCall.objects.filter(pk=done.pk).update(status="Failed")
    assert client.delete(f"{PATH}{made['id']}/").status_code == 204
    assert statuses() == {"Failed": 1, "Cancelled": len(log())} and len(log()) >= 1
    for method in (client.get, client.delete, client.patch):
        assert method(f"{PATH}{made['id']}/", content_type="application/json").status_code == 404
    assert client.get(PATH).json()["results"] == []
    post(client)


def test_a_cancelled_call_is_not_next_and_a_moved_one_is_where_it_was_moved_to(client):
    made = post(client, **LUNCH | {"times": "00:00:00, 06:00:00, 12:00:00, 18:00:00"})
    first, second = ScheduledCall.objects.order_by("timestamp")[:2]
    ledger.cancel([first.pk]), ledger.move(second.pk, second.timestamp + timedelta(seconds=1))
    answer = client.get(f"{PATH}{made['id']}/").json()
    assert answer["next"][0] == f"{second.timestamp + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"
    assert len(answer["next"]) == 10


@pytest.mark.parametrize("name", ["می\u200cخواهم", "会議\u3000東京", "👩\u200d💻", "\U0001fae9"])
def test_a_name_as_people_write_it(client, name):
    assert post(client, **LUNCH | {"name": name})["name"] == name
    assert Schedule.objects.get().name == name


def test_a_name_can_be_taken_once(client):
    made = post(client)
    says = post(client, 409)["detail"]
    assert f'There is a schedule "lunch" already, its id is {made["id"]}' in says
    other = post(client, **LUNCH | {"name": "other"})
    assert patch(client, other, 409, name="lunch", times="01:00:00")["detail"] == says
    assert client.get(f"{PATH}{other['id']}/").json() == other, "nothing of it was done"
    assert patch(client, made, name="lunch")["id"] == made["id"]


@pytest.mark.parametrize("body, keys, says", [
    ([], None, "The body must be a JSON object"),
    ({}, ["name", "times", "zone"], "name: is missing. times: Give times of day"),
    (LUNCH | {"time": "12:00:00"}, None, "There is no key time; there are name, times, cron"),
    (LUNCH | {"id": 1}, None, "There is no key id"),
    (LUNCH | {"times": "noon, 14:15:30, 99:00:00"}, ["times"], "'noon' is not HH:MM or HH:MM:SS; '99:00:00'"),
    (LUNCH | {"times": ["12:30:00"]}, ["times"], "times: Must be a string or null."),
    (LUNCH | {"times": "12:30:00," * 10_000}, ["times"], "There are too many: at most 1440 a day."),
    (LUNCH | {"times": None}, ["times"], "or else a cron expression"),
    (LUNCH | {"cron": "* * * * *"}, ["times"], "not both"),
    (LUNCH | {"times": None, "cron": "* * * * * *"}, ["cron"], "Has 6 fields, and five are taken"),
    (LUNCH | {"times": None, "cron": "61 * * * *"}, ["cron"], "is no minute"),
    (LUNCH | {"times": None, "cron": "0 0 30 2 *"}, ["cron"], "cron: "),
    (LUNCH | {"times": None, "cron": "0 0 * * *", "days": ["mon"]}, ["days"], "says its days itself"),
    (LUNCH | {"zone": "../../etc/passwd"}, ["zone"], "is no IANA time zone"),
    (LUNCH | {"zone": "x" * 100}, ["zone"], "zone: "), (LUNCH | {"zone": None}, ["zone"], "Must be a string."),
    (LUNCH | {"zone": "UTC\n"}, ["zone"], "is no IANA time zone"),
    (LUNCH | {"name": "\x1b[31m"}, ["name"], "name: Holds U+001B (character 1), a control character: take it out."),
    (LUNCH | {"name": " \u200b\u3000"}, ["name"], "name: Must be text to read."),
    (LUNCH | {"name": "a\0"}, ["name"], "name: "), (LUNCH | {"name": "\ud800"}, ["name"], "name: "),
    (LUNCH | {"name": "x" * 101}, ["name"], "at most 100"), (LUNCH | {"name": 5}, ["name"], "Must be a string."),
    (LUNCH | {"days": []}, ["days"], "Must be a list with some of mon, tue"),
    (LUNCH | {"days": "mon"}, ["days"], "Must be a list"), (LUNCH | {"days": [{}]}, ["days"], "Must be a list"),
    (LUNCH | {"first_date": "2026-02-30"}, ["first_date"], "Must be a date such as 2026-08-01, or null."),
    (LUNCH | {"first_date": "2026-W01-1"}, ["first_date"], "Must be a date"),
    (LUNCH | {"first_date": 20260801}, ["first_date"], "Must be a date"),
    (LUNCH | {"last_date": "9999-12-31"}, ["last_date"], "must be below 9999"),
    (LUNCH | {"first_date": "2030-01-02", "last_date": "2030-01-01"}, ["last_date"], "Lies before the first date."),
    (LUNCH | {"on": "yes"}, ["on"], "Must be true or false."), (LUNCH | {"on": None}, ["on"], "true or false"),
    ({"name": "", "times": "x", "zone": 1, "on": 1}, ["name", "times", "zone", "on"], "zone: Must be a string."),
])
def test_what_is_refused_and_why(client, body, keys, says):
    answer = client.post(PATH, json.dumps(body), "application/json")
    assert answer.status_code == 400 and says in answer.json()["detail"], answer.content
    assert [bad["key"] for bad in answer.json().get("errors", [])] == (keys or [])
    assert len(answer.content) < 20_000
    assert not Schedule.objects.exists() and statuses() == {}


# ------------------------------------------------------------------ what it calls, and how it behaves

def billing(**fields):
    target = Target(name="billing", url="https://api.example.org/v1/run", method="POST", **fields)
    targets.save(target)
    return target


def may(*codenames):
    """The client of somebody who has all rights for schedules, and these."""
    client, user = Client(), person("ben", may=ALL, model="schedule")
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    return client


MORE = {"target": "billing", "body": {"shop": "{{data.shop}}"}, "headers": {"X-Shop": "7"}, "data": {"shop": 7},
        "overlap": "skip", "catch_up": "last", "except": ["2026-12-26", "2026-12-25"], "jitter": 60}


def test_a_schedule_says_what_it_calls_and_how_it_behaves():
    billing()
    client = may("use_target", "see_request")
    made = post(client, **LUNCH | MORE)
    shown = MORE | {"body": '{"shop": "{{data.shop}}"}', "except": ["2026-12-25", "2026-12-26"],
                    "headers": {"X-Shop": "7", "Content-Type": "application/json"}, "paused": None}
    assert {key: made[key] for key in shown} == shown
    assert set(ScheduledCall.objects.values_list("target__name", flat=True)) == {"billing"}
    changed = patch(client, made, body="<shop/>", headers={"Content-Type": "text/xml"}, data=None, overlap="allow", jitter=0)
    assert (changed["body"], changed["headers"], changed["data"], changed["jitter"]) == (
        "<shop/>", {"Content-Type": "text/xml"}, {}, 0)
    changed = patch(client, made, target=None, **{"except": None})
    assert {changed[key] for key in ("target", "body")} == {None} and changed["headers"] == changed["data"] == {}
    assert changed["except"] == [] and set(ScheduledCall.objects.filter(status="Pending").values_list("target")) == {(None,)}


@pytest.mark.parametrize("change, key, says", [
    ({"target": "mail"}, "target", 'There is no target "mail".'), ({"target": 7}, "target", "Must be a string."),
    ({"target": "a\0"}, "target", "There is no target"),
    ({"body": {"a": "{{data.b}}"}, "data": {}}, "data", "Lacks b"), ({"body": ["{{call.ip}}"]}, "body", "which there is not"),
    ({"body": ["x" * 300_000]}, "body", "are taken"), ({"headers": {"Content-Length": "1"}}, "headers", "is for the connection"),
    ({"headers": ["X"]}, "headers", "Must be an object"), ({"data": 1}, "data", "Must be an object"),
    ({"overlap": "never"}, "overlap", "Must be allow or skip."), ({"overlap": ["skip"]}, "overlap", "Must be allow or skip."),
    ({"catch_up": True}, "catch_up", "Must be none or last."),
    ({"except": "2026-12-25"}, "except", "Must be a list of dates"), ({"except": [{}]}, "except", "is no date such as"),
    ({"except": [f"{year}-01-01" for year in range(2030, 2397)]}, "except", "There are 367 dates: at most 366"),
    ({"jitter": 3601}, "jitter", "from 0 to 3600"), ({"jitter": -1}, "jitter", "from 0 to 3600"),
    ({"jitter": True}, "jitter", "from 0 to 3600"), ({"jitter": 1.5}, "jitter", "whole number"),
    ({"paused": "yes"}, "paused", "Must be true, false"), ({"paused": {"until": "2001-01-01T00:00:00Z"}}, "paused", "has passed"),
    ({"paused": {"until": "tomorrow"}}, "paused", "`until` is not an ISO 8601"),
    ({"paused": {"why": "x"}}, "paused", "Has no why"), ({"paused": {"reason": "x" * 201}}, "paused", "`reason` has 201"),
])
def test_what_of_it_is_refused(change, key, says):
    billing()
    client = may("use_target", "see_request")
    for method, path in ((client.post, PATH), (client.patch, f"{PATH}{post(client, **LUNCH | {'name': 'other'})['id']}/")):
        answer = method(path, json.dumps((LUNCH | MORE if method == client.post else MORE) | change), "application/json")
        assert answer.status_code == 400 and says in answer.json()["detail"], answer.content
        assert key in [bad["key"] for bad in answer.json()["errors"]]
    assert Schedule.objects.count() == 1


def test_who_may_not_use_targets_has_nothing_more_called():
    billing(headers={"Content-Type": "text/plain"})
    made = post(may("use_target"), **LUNCH | {"target": "billing"})
    client = may()
    client.post(PATH, json.dumps(LUNCH | {"name": "other", "target": "billing"}), "application/json")
    assert Schedule.objects.count() == 1
    for change in ({"times": "11:00:00"}, {"body": "x"}, {"headers": {"X-A": "b"}}, {"jitter": 1}, {"overlap": "skip"}):
        assert "scheduler.use_target for this" in patch(client, made, 403, **change)["detail"]
    for change in ({"name": "dinner"}, {"on": False}, {"paused": {"until": "2400-01-01T00:00:00Z"}}, {"paused": True}):
        patch(client, made, **change)
    for change in ({"on": True}, {"paused": False}, {"paused": {"until": "2400-01-01T00:00:00Z"}}):
        patch(client, made, 403, **change)
    assert client.generic("POST", f"{PATH}{made['id']}/run/").status_code == 403
    patch(client, made, target=None, on=True, paused=False), patch(client, made, 403, target="billing")


def test_what_is_sent_is_shown_to_who_may_see_it():
    billing()
    made = post(may("use_target"), **LUNCH | MORE)
    assert [made[key] for key in ("body", "headers", "data")] == [None] * 3 and made["target"] == "billing"
    assert "shop" not in may().get(PATH).content.decode()
    assert may("see_request").get(PATH).json()["results"][0]["data"] == {"shop": 7}


def test_who_may_not_see_what_is_sent_has_it_sent_nowhere_else():
    billing()
    targets.save(Target(name="mine", url="https://me.example.org/", headers={"Content-Type": "text/plain"}))
    made, client = post(may("use_target"), **LUNCH | MORE), may("use_target")
    assert "scheduler.see_request for this" in patch(client, made, 403, target="mine")["detail"]
    assert "scheduler.see_request" in patch(client, made, 403, target="mine", body="x", headers={})["detail"]
    anew = patch(client, made, target="mine", body="x", headers={}, data={})
    assert anew["target"] == "mine" and anew["body"] is None
    patch(may("use_target", "see_request"), made, target="billing", body={"shop": 8})


def test_a_pause_says_by_whom_until_when_and_why(client):
    made = post(client)
    number = statuses()["Pending"]
    paused = patch(client, made, paused=True)
    assert paused["paused"] | {"since": 0} == {"since": 0, "by": "ann", "reason": "", "until": None}
    assert paused["on"] is True and paused["next"] == [] and statuses() == {"Cancelled": number}
    until = utcnow().replace(microsecond=0) + timedelta(days=30)
    paused = patch(client, made, paused={"until": f"{until:%Y-%m-%dT%H:%M:%SZ}", "reason": "moving"})
    assert paused["paused"] | {"since": 0} == {"since": 0, "by": "ann", "reason": "moving", "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
    assert paused["next"] == [f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in planner.upcoming(Schedule.objects.get().rule, until)]
    assert client.get(f"{PATH}{made['id']}/").json() == paused
    resumed = patch(client, made, paused=False)
    assert resumed["paused"] is None and resumed["next"] == made["next"] and statuses()["Pending"] == number
    Schedule.objects.update(paused_at=utcnow() - timedelta(days=2), paused_until=utcnow() - timedelta(days=1))
    assert client.get(f"{PATH}{made['id']}/").json()["paused"] is None, "it is over"


def test_a_run_is_a_call_now(client):
    billing()
    made = post(may("use_target"), **LUNCH | {"target": "billing", "on": False})
    client = may("use_target", "view_scheduledcall")
    answer = client.post(f"{PATH}{made['id']}/run/", json.dumps({"note": "to see it"}), "application/json")
    assert answer.status_code == 201, answer.content
    call = client.get(f"/api/schedule-api/{answer.json()['id']}/").json()
    assert {key: call[key] for key in ("status", "scheduled_by", "scheduled_via", "note", "target", "schedule")} == {
        "status": "Pending", "scheduled_by": "ben", "scheduled_via": "schedule", "note": "to see it", "target": "billing",
        "schedule": {"id": made["id"], "name": "lunch"}}
    assert client.generic("POST", f"{PATH}{made['id']}/run/").status_code == 201, "a body is not needed"
    for bad in ({"notes": "x"}, {"note": 1}, {"note": "a\nb"}, [], "now"):
        assert client.post(f"{PATH}{made['id']}/run/", json.dumps(bad), "application/json").status_code == 400
    targets.pause(Target.objects.get(), "ann", "it is moved")
    answer = client.generic("POST", f"{PATH}{made['id']}/run/")
    assert answer.status_code == 409 and 'Its target "billing" is paused by ann: it is moved' in answer.json()["detail"]
    assert client.generic("POST", f"{PATH}999/run/").status_code == 404 and statuses() == {"Pending": 2}


def test_a_target_that_is_deleted_while_a_schedule_is_made(monkeypatch):
    target = billing()
    monkeypatch.setattr(planner, "calls_more", lambda *_: targets.delete(target.pk))
    assert "Somebody has just deleted it" in post(may("use_target"), 400, **LUNCH | {"target": "billing"})["detail"]
    assert not Schedule.objects.exists() and statuses() == {}


@pytest.mark.processes
def test_what_is_due_within_moments_is_handed_over_by_the_request_itself(client):
    soon = in_seconds(8)
    made = post(client, **LUNCH | {"zone": "UTC", "times": f"{soon:%H:%M:%S}"})
    first, *others = ScheduledCall.objects.order_by("timestamp")
    assert first.timestamp == soon and first.handed_over_at and not any(call.handed_over_at for call in others)
    sooner = in_seconds(6)
    patch(client, made, times=f"{sooner:%H:%M:%S}")
    assert ScheduledCall.objects.get(timestamp=sooner).handed_over_at


def test_a_refused_change_changes_nothing(client):
    made = post(client)
    before = list(ScheduledCall.objects.values())
    patch(client, made, 400, times="12:00:00, noon", name="other")
    patch(client, made, 400, times=None)
    assert client.get(f"{PATH}{made['id']}/").json() == made and list(ScheduledCall.objects.values()) == before


@pytest.mark.parametrize("dates, first", [
    ({"last_date": "2001-01-01"}, None), ({"last_date": "0001-01-01"}, None),
    ({"first_date": "9998-12-31"}, "9998-12-31T11:30:00Z"),
    ({"first_date": "2400-02-29", "last_date": "2400-02-29"}, "2400-02-29T11:30:00Z"),
])
def test_a_schedule_that_comes_no_more_or_not_for_long_is_taken_and_says_so(client, dates, first):
    post(client, **LUNCH | {"name": "old", "first_date": "0001-01-01"})
    ScheduledCall.objects.all().delete()
    made = post(client, **LUNCH | dates)
    assert made["next"][:1] == ([first] if first else []) and statuses() == {}
    assert client.get(PATH).json()["results"][1] == made


def test_the_list_is_paged_and_asks_as_much_for_many_as_for_one(client):
    for i in range(7):
        post(client, **LUNCH | {"name": str(i)})
    seen, page = [], client.get(PATH + "?page_size=3").json()
    while True:
        seen += [made["name"] for made in page["results"]]
        if not page["next"]:
            break
        page = client.get(page["next"]).json()
    assert seen == [str(i) for i in range(7)]
    numbers = []
    for size in (1, 7):
        with CaptureQueriesContext(connection) as queries:
            client.get(f"{PATH}?page_size={size}")
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]
    for bad, code in (("page_size=0", 400), ("name=x", 400), ("page_size=1&page_size=2", 400), ("cursor=x", 404)):
        assert client.get(f"{PATH}?{bad}").status_code == code


REQUESTS = {"view": [("get", PATH), ("get", PATH + "{}/"), ("options", PATH)], "add": [("post", PATH)],
            "change": [("patch", PATH + "{}/"), ("post", PATH + "{}/run/")], "delete": [("delete", PATH + "{}/")]}


@pytest.mark.parametrize("right", ALL)
def test_each_request_needs_its_permission(client, right):
    """And those for calls are not enough."""
    made = post(client)
    body = {"post": json.dumps(LUNCH | {"name": "other"}), "patch": "{}"}
    for method, path in REQUESTS[right]:
        def ask(who, **extra):
            data = "{}" if path.endswith("run/") else body.get(method)
            return getattr(who, method)(path.format(made["id"]), data=data, content_type="application/json",
                                        **extra)
        assert ask(Client()).status_code == 401
        with override_settings(DEBUG=True):
            assert ask(Client(), REMOTE_ADDR="192.0.2.1").status_code == 401
        for model, may in (("schedule", set(ALL) - {right}), ("scheduledcall", ALL)):
            person(may=may, model=model)
            answer = ask(client)
            assert answer.status_code == 403 and f"scheduler.{right}_schedule for this" in answer.json()["detail"]
        token = Token.objects.get_or_create(user=person("bob", may=[right], model="schedule"))[0].key
        assert ask(Client(), headers={"Authorization": f"Token {token}"}).status_code in (200, 201, 204)


@override_settings(DEBUG=True)
def test_local_development_is_open():
    assert post(Client())["created_by"] == ""


@pytest.mark.processes
def test_changes_are_throttled_too(client, monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"write": "3/min"})
    made = post(client)
    patch(client, made), patch(client, made)
    assert client.patch(f"{PATH}{made['id']}/", "{}", "application/json").status_code == 429


def test_two_changes_at_once_are_both_made(client):
    made = post(client)
    changes = [{"times": "11:00:00"}, {"zone": "Asia/Tokyo"}, {"days": ["mon", "wed", "fri", "sun"]}, {"name": "dinner"}]

    def work(i):
        mine = Client()
        mine.force_login(person(may=ALL, model="schedule"))
        return patch(mine, made, **changes[i])
    at_once(4, work)
    last = client.get(f"{PATH}{made['id']}/").json()
    assert (last["times"], last["zone"], last["days"], last["name"]) == (
        "11:00:00", "Asia/Tokyo", ["mon", "wed", "fri", "sun"], "dinner")
    made = Schedule.objects.get()
    assert statuses()["Pending"] and sorted(ScheduledCall.objects.filter(status="Pending").values_list("timestamp", flat=True)) == [
        at for at in planner.upcoming(made.rule, utcnow()) if at < made.planned_until]


def test_two_of_one_name_at_once(client):
    def work(i):
        mine = Client()
        mine.force_login(person(may=ALL, model="schedule"))
        return mine.post(PATH, json.dumps(LUNCH), "application/json").status_code
    assert sorted(at_once(4, work)) == [201, 409, 409, 409]
    assert Schedule.objects.count() == 1


def test_an_occurrence_in_some_seconds_is_called_on_time(stack, api, log):
    """Made over HTTP, planned by the web server, called by a worker; then a dispatcher goes on."""
    stack.start("web", "worker", "beat")
    first, second = in_seconds(4), in_seconds(6)
    answer = requests.post(stack.url + PATH, timeout=10, json=LUNCH | {
        "zone": "UTC", "times": f"{first:%H:%M:%S}, {second:%H:%M:%S}"})
    assert answer.status_code == 201 and answer.json()["next"][:2] == [
        f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (first, second)]
    assert all_ended(2) == {"Succeeded": 2, "Pending": len(ScheduledCall.objects.filter(status="Pending"))}
    assert len(api.seen) == 2 and all(0 <= late < 2 for late in (api.arrivals(first)[0], api.arrivals(second)[1]))
    assert sum("Successfully called" in line for line in log(2)) == 2
    calls = requests.get(stack.url + f"/api/schedule-api/?schedule={answer.json()['id']}", timeout=10).json()["results"]
    assert [call["status"] for call in calls[:2]] == ["Succeeded"] * 2
    Schedule.objects.update(planned_until=utcnow())
    ScheduledCall.objects.filter(status="Pending").delete()
    until(lambda: ScheduledCall.objects.filter(status="Pending").exists(), what="the dispatcher plans")


def test_who_sends_half_a_patch_locks_nothing(stack):
    """SQLite has one write lock for all: a body that never comes must not be waited for behind it."""
    stack.start("web")
    planner.save(schedule := Schedule(name="lunch", times="12:30:00", zone="UTC"))
    host, port = stack.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(f"PATCH /api/schedules/{schedule.pk}/ HTTP/1.1\r\nHost: {host}\r\n"
                     "Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{".encode())
        taken = requests.patch(f"{stack.url}/api/schedules/{schedule.pk}/", json={"name": "dinner"}, timeout=20)
        assert taken.status_code == 200, taken.text
        assert requests.post(f"{stack.url}/api/schedule-api/", timeout=20,
                             json={"timestamps": "2030-01-01T00:00:00Z"}).status_code == 201
