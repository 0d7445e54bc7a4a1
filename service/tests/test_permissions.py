"""Who may do what: each endpoint and each page of targets, of what names them, and of what is done with calls, by each
user who lacks one permission."""
import json

import pytest
from conftest import make, person
from django.contrib.auth.models import Permission, User
from django.test import Client

from scheduler.calls import targets
from scheduler.models import Schedule, ScheduledCall, Target

TARGET, CALL, SCHEDULE = "/api/targets/", "/api/schedule-api/", "/api/schedules/"
NEW = {"name": "new", "url": "https://api.example.org"}
PLAN = {"name": "new", "zone": "Europe/Berlin", "times": "10:00:00", "target": "billing"}

# (method, path, what is sent, the permissions that it takes)
API = [
    ("GET", TARGET, None, "view_target"), ("POST", TARGET, NEW, "add_target"),
    ("GET", f"{TARGET}billing/", None, "view_target"), ("PATCH", f"{TARGET}billing/", {"timeout": 5}, "change_target"),
    ("PATCH", f"{TARGET}billing/", {"paused": True}, "change_target"),
    ("PATCH", f"{TARGET}billing/", {"url": "https://other.example.org"}, "change_target see_request"),
    ("DELETE", f"{TARGET}unused/", None, "delete_target"), ("POST", f"{TARGET}paused/test/", {}, "use_target"),
    ("GET", CALL, None, "view_scheduledcall"), ("GET", f"{CALL}CALL/", None, "view_scheduledcall"),
    ("POST", CALL, {"delay": 90}, "add_scheduledcall"),
    ("POST", CALL, {"delay": 90, "target": "billing"}, "add_scheduledcall use_target"),
    ("POST", CALL, {"calls": [{"delay": 90}, {"delay": 90, "target": "billing"}]}, "add_scheduledcall use_target"),
    ("POST", f"{CALL}CALL/again/", None, "add_scheduledcall use_target"),
    ("POST", f"{CALL}again/", {"status": ["Failed"]}, "add_scheduledcall use_target"),
    ("POST", f"{CALL}again/", {"status": ["Failed"], "dry_run": True}, "add_scheduledcall"),
    ("POST", f"{CALL}RETRYING/try-now/", None, "change_scheduledcall"),
    ("DELETE", f"{CALL}RETRYING/", None, "change_scheduledcall"),
    ("POST", SCHEDULE, PLAN, "add_schedule use_target"), ("GET", f"{SCHEDULE}SCHEDULE/", None, "view_schedule"),
    ("PATCH", f"{SCHEDULE}SCHEDULE/", {"times": "11:00:00"}, "change_schedule use_target"),
    ("PATCH", f"{SCHEDULE}SCHEDULE/", {"paused": True}, "change_schedule"),
    ("POST", f"{SCHEDULE}SCHEDULE/run/", {}, "change_schedule use_target"),
    ("DELETE", f"{SCHEDULE}SCHEDULE/", None, "delete_schedule"),
]
FORM = {"name": "billing", "url": "https://api.example.org/v1", "method": "GET", "auth_kind": "none", "statuses": "200",
        "keep_failures": 0, "keep_successes": 0, "keep_days": 1, "notify_after": 1}
# (path, what is posted, the permissions that it takes); who may change a thing may look at it
ADMIN = [
    ("target/TARGET/pause/", {}, "change_target"), ("target/PAUSED/resume/", {}, "change_target"),
    ("target/TARGET/test/", {}, "view_target use_target"), ("target/add/", FORM | {"name": "new"}, "add_target"),
    ("target/TARGET/change/", FORM, "change_target"), ("target/UNUSED/delete/", {"post": "yes"}, "delete_target"),
    ("scheduledcall/PLAIN/again/", {}, "view_scheduledcall add_scheduledcall"),
    ("scheduledcall/RETRYING/try/", {}, "change_scheduledcall"),
    ("scheduledcall/RETRYING/cancel/", {}, "change_scheduledcall"),
    ("schedule/SCHEDULE/pause/", {}, "change_schedule"),
    ("schedule/HELD/resume/", {}, "change_schedule use_target"),
    ("schedule/SCHEDULE/run/", {}, "change_schedule use_target"),
]
EVERYTHING = [f"{right}_{kind}" for right in ("view", "add", "change", "delete")
              for kind in ("target", "scheduledcall", "schedule")] + ["use_target", "see_request"]


@pytest.fixture
def ids():
    billing, unused, paused = (Target.objects.create(name=name, url="https://api.example.org/v1") for name in (
        "billing", "unused", "paused"))
    targets.pause(paused)
    schedule = Schedule.objects.create(name="n", zone="Europe/Berlin", times="10:00:00", target=billing)
    held = Schedule.objects.create(name="held", zone="Europe/Berlin", times="10:00:00", target=billing)
    targets.pause(held)
    return {"HELD": held.pk, "PLAIN": make(-60, status="Failed").pk, "TARGET": billing.pk, "UNUSED": unused.pk, "PAUSED": paused.pk, "SCHEDULE": schedule.pk,
            "CALL": make(-60, target=billing, status="Failed").pk, "RETRYING": make(-60, target=billing, status="Retrying").pk}


def filled(path, ids):
    for word, number in ids.items():
        path = path.replace(f"/{word}/", f"/{number}/")
    return path


def user_with(names, csrf=False):
    user = person("ann", may=())
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    User.objects.filter(pk=user.pk).update(is_staff=True)
    client = Client(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client


def state():
    """All that could be changed."""
    return [list(model.objects.order_by("pk").values()) for model in (Target, Schedule, ScheduledCall)]


def ask(client, method, path, data):
    return client.generic(method, path, json.dumps(data) if data is not None else "", content_type="application/json")


@pytest.mark.parametrize("method, path, data, needs", API, ids=lambda value: value if isinstance(value, str) else "")
def test_the_api(ids, method, path, data, needs):
    before, path, needs = state(), filled(path, ids), needs.split()
    assert ask(Client(), method, path, data).status_code == 401
    for lacking in needs:
        answer = ask(user_with(set(EVERYTHING) - {lacking}), method, path, data)
        assert answer.status_code == 403 and lacking in answer.json()["detail"], (lacking, answer.content)
    if method != "GET":         # a session, and no page of ours that asks
        assert ask(user_with(EVERYTHING, csrf=True), method, path, data).status_code == 403
    assert state() == before
    answer = ask(user_with(needs), method, path, data)
    assert answer.status_code in ((409,) if "paused" in path else (200, 201, 204)), answer.content


@pytest.mark.parametrize("path, data, needs", ADMIN, ids=lambda value: value if isinstance(value, str) else "")
def test_the_admin(ids, path, data, needs):
    before, path, needs = state(), "/admin/scheduler/" + filled(path, ids), needs.split()
    assert "/admin/login/" in Client().post(path, data).url
    for lacking in needs:
        client = user_with(set(EVERYTHING) - {lacking, lacking.replace("view", "change")})
        assert client.post(path, data).status_code == 403, lacking
    assert user_with(EVERYTHING, csrf=True).post(path, data).status_code == 403
    client = user_with(EVERYTHING)
    page = client.get(path)
    assert page.status_code == 200 and b"csrfmiddlewaretoken" in page.content
    assert state() == before            # nothing is done by looking
    sent = data | {"form_key": "k" * 22}
    assert user_with({*needs, "see_request"}).post(path, sent).status_code == 302
    after = state()
    assert after != before
    assert client.post(path, sent).status_code == 302 and state() == after       # twice is once


@pytest.mark.parametrize("path", [f"{TARGET}billing/test/", f"{TARGET}billing/", TARGET, f"{CALL}again/", f"{CALL}CALL/again/",
                                  f"{CALL}CALL/try-now/", f"{SCHEDULE}SCHEDULE/run/"])
def test_another_method_or_another_format(ids, path):
    client, path = user_with(EVERYTHING), filled(path, ids)
    before = state()
    for method in ("PUT", "TRACE", "BREW"):
        answer = client.generic(method, path)
        assert answer.status_code == 405 and answer["Content-Type"] == "application/json" and answer["Allow"]
    method = "PATCH" if path.endswith("billing/") else "POST"
    for kind in ("application/xml", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        answer = client.generic(method, path, "a=b", content_type=kind)
        assert answer.status_code in (400, 415) and "JSON" in answer.json()["detail"] or "again" in path or "try" in path
    assert client.get(f"{path}nothing/").status_code == 404 and client.get(f"{path}nothing/")["Content-Type"] == "application/json"
    assert state() == before


@pytest.mark.parametrize("lookup", [
    "target/?url__startswith=https", "target/?headers__has_key=X", "target/?body=", "target/?auth__username=ann", "target/?secrets=",
    "schedule/?body__isnull=True", "schedule/?headers__has_key=X", "schedule/?data__order=7", "schedule/?target__url__startswith=https",
    "scheduledcall/?timestamp__year=x", "scheduledcall/?trace__request__url__startswith=https", "scheduledcall/?request__body__startswith=x", "scheduledcall/?target__url__startswith=https",
    "scheduledcall/?attempts__kept__address=127.0.0.1", "scheduledcall/csv/?trace__isnull=True", "scheduledcall/?status__exact=%00"])
def test_what_is_not_shown_cannot_be_found_out_by_asking_a_list_for_it(ids, lookup):
    """Nor by whoever may see it: a list has filters for what it is asked for."""
    client = user_with(["view_target", "view_schedule", "view_scheduledcall"])
    answer = client.get(f"/admin/scheduler/{lookup}")
    assert answer.status_code == 302 and "__" not in answer.url
    assert client.get(f"/admin/scheduler/{lookup.partition('?')[0]}").status_code == 200


def test_the_filters_of_the_lists_are_taken(ids):
    client = user_with(["view_target", "view_schedule", "view_scheduledcall"])
    for asked in ("schedule/?on__exact=1&q=n", "target/?q=billing&o=1", f"scheduledcall/?target={ids['TARGET']}&status=Failed&schedule={ids['SCHEDULE']}"):
        assert client.get(f"/admin/scheduler/{asked}").status_code == 200
