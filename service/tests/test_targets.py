"""The API of targets, from outside."""
import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import requests
from conftest import make, person, until
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client
from rest_framework.authtoken.models import Token
from test_transitions import at_once

from scheduler.base.clock import utcnow
from scheduler.base.secrets import decrypt
from scheduler.calls import targets
from scheduler.models import Schedule, ScheduledCall, Target

PATH = "/api/targets/"
BILLING = {"name": "billing", "url": "https://api.example.org/v1/run"}
KEY, OTHER_KEY = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
ALL = ("view_target", "add_target", "change_target", "delete_target", "use_target", "see_request")


def may(*names, name="ann"):
    """A client whose user has these permissions."""
    user = person(name, may=())
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def client():
    return may(*ALL)


def sent(answer, code):
    assert answer.status_code == code, answer.content
    return answer.json()


def post(client, code=201, **body):
    return sent(client.post(PATH, json.dumps(BILLING | body), "application/json"), code)


def patch(client, code=200, **body):
    return sent(client.patch(f"{PATH}billing/", json.dumps(body), "application/json"), code)


def test_a_target_is_made_and_is_there(client):
    made = post(client)
    assert made == {
        **BILLING, "method": "GET", "headers": {}, "secret_headers": {}, "body": "", "auth": {"kind": "none"},
        "connect_timeout": None, "timeout": None, "success": {"statuses": "100-399", "contains": "", "not_contains": ""},
        "follow_redirects": True, "retries": {"delays": [], "max_age": None}, "repeatable": False, "max_at_once": None,
        "rate": None, "signing_key": None, "previous_signing_key": None,
        "keep": {"failures": 16384, "successes": 0, "days": 30}, "notify": None, "notify_after": 1, "paused": None, "version": 1,
        "created_at": made["created_at"], "created_by": "ann"}
    assert client.get(f"{PATH}billing/").json() == made
    post(client, name="a.b-c_9")
    found = client.get(PATH).json()
    assert [one["name"] for one in found["results"]] == ["a.b-c_9", "billing"] and found["next"] is None


def test_everything_that_can_be_said_of_one(client):
    said = {"method": "POST", "headers": {"Content-Type": "application/json", "X-Call": "{{call.id}}"},
            "body": '{"id": {{call.id}}, "o": "{{data.order}}"}', "connect_timeout": 2.5, "timeout": 20,
            "success": {"statuses": "200-299, 404", "contains": "ok", "not_contains": "error"}, "follow_redirects": False,
            "retries": {"delays": [10, 60, 600], "max_age": 3600}, "repeatable": True, "max_at_once": 20, "rate": "300/min",
            "keep": {"failures": 100, "successes": 10, "days": 7}}
    made = post(client, **said)
    assert {key: made[key] for key in said} == said
    changed = patch(client, success={"contains": "done"}, retries={"delays": []}, rate="5 / second", keep={"days": 1})
    assert changed["success"] == {"statuses": "200-299, 404", "contains": "done", "not_contains": "error"}
    assert changed["retries"] == {"delays": [], "max_age": 3600} and changed["rate"] == "5/s"
    assert changed["keep"] == {"failures": 100, "successes": 10, "days": 1} and changed["headers"] == said["headers"]
    assert changed["version"] == made["version"] + 1
    assert patch(client, rate="5/s")["version"] == changed["version"], "nothing was changed"
    assert patch(client, rate=None, max_at_once=None, timeout=None)["rate"] is None


def test_a_body_of_json_says_so_in_its_headers(client):
    made = post(client, method="POST", body={"id": "{{call.id}}", "n": [1, None]})
    assert json.loads(made["body"]) == {"id": "{{call.id}}", "n": [1, None]}
    assert made["headers"] == {"Content-Type": "application/json"}
    made = patch(client, body={"a": 1}, headers={"content-type": "application/vnd.x+json"})
    assert made["headers"] == {"content-type": "application/vnd.x+json"}
    assert patch(client, body=None)["body"] == ""


@pytest.mark.parametrize("key, value, says", [
    ("name", "", "blank"), ("name", "a b", "letters"), ("name", "..", "letters"), ("name", "x" * 65, "64"), ("name", "ä", "letters"),
    ("name", 7, "string"), ("name", "a\n", "letters"),
    ("url", "ftp://example.org/", "http://"), ("url", "/v1/run", "http://"), ("url", "https://", "http://"),
    ("url", "https://ann:pw@example.org/", "user name"), ("url", "https://example.org/a b", "spaces"),
    ("url", "https://example.org/a\r\nHost: x", "spaces"), ("url", "https://{{data.host}}/", "path and the query"),
    ("url", "https://example.org:0/", "http://"), ("url", "https://example.org:99999/", "http://"),
    ("url", "https://example.org/{{call.ip}}", "{{call.ip}}"), ("url", "https://example.org/{{call.id", "begins no placeholder"),
    ("url", "https://example.org/a/../b", '".."'), ("url", "https://example.org/#x", "#"), ("url", "https://[::1", "http://"),
    ("url", "https://example.org\\@evil.example/", "backslashes"), ("url", "https://example.org/" + "x" * 2000, "2000"),
    ("method", "BREW", "one of GET, HEAD"), ("method", "get", "one of GET, HEAD"), ("method", None, "one of GET, HEAD"),
    ("headers", [], "object"), ("headers", {"a b": "x"}, "no name"), ("headers", {"X": "a\r\nY: b"}, "ASCII"),
    ("headers", {"X\r\nY": "a"}, "no name"), ("headers", {"X": "é"}, "ASCII"), ("headers", {"X": 7}, "string"),
    ("headers", {"Host": "x"}, "connection"), ("headers", {"content-LENGTH": "1"}, "connection"),
    ("headers", {"Transfer-Encoding": "chunked"}, "connection"), ("headers", {"Connection": "close"}, "connection"),
    ("headers", {"webhook-id": "x"}, "each request"), ("headers", {"Idempotency-Key": "x"}, "each request"),
    ("headers", {"Authorization": "Bearer x"}, "secret"), ("headers", {"X": "1", "x": "2"}, "twice"),
    ("headers", {"X": "{{call.ip}}"}, "{{call.ip}}"),
    ("headers", {f"X-{i}": "" for i in range(10_000)}, "at most 100"), ("headers", {"X": "x" * 20_000}, "16384"),
    ("secret_headers", {"Host": "x"}, "connection"), ("secret_headers", {"X": "a\nb"}, "ASCII"),
    ("secret_headers", {"X": "***"}, "not there yet"), ("secret_headers", {"X": "1", "x": "2"}, "twice"), ("secret_headers", "x", "object"), ("secret_headers", {"X": 7}, "string"),
    ("secret_headers", {f"X-{i}": "" for i in range(10_000)}, "at most 100"),
    ("body", "text", "Content-Type"), ("body", "x" * 300_000, "262144"),
    ("auth", {"kind": "digest"}, "none, basic"), ("auth", "bearer", "object"), ("auth", {"kind": "bearer"}, "token"),
    ("auth", {"kind": "bearer", "token": "a b"}, "token"), ("auth", {"kind": "bearer", "token": "a\nb"}, "token"),
    ("auth", {"kind": "bearer", "token": ["x"]}, "token"), ("auth", {"kind": ["x"]}, "kind"), ("auth", {"kind": "bearer", "user": "x", "token": "x"}, "no user"),
    ("auth", {"kind": "basic", "password": "x"}, "username"), ("auth", {"kind": "basic", "username": "a:b", "password": "x"}, "colon"),
    ("auth", {"kind": "basic", "username": "a"}, "password"), ("auth", {"kind": "header", "name": "Host", "value": "x"}, "connection"),
    ("auth", {"kind": "header", "value": "x"}, "name"), ("auth", {"kind": "oauth2", "client_id": "x", "client_secret": "y"}, "token_url"),
    ("auth", {"kind": "oauth2", "client_id": "x", "client_secret": "y", "token_url": "x"}, "token_url"),
    ("connect_timeout", 0, "0.1 to 60"), ("connect_timeout", "x", "0.1 to 60"), ("timeout", 1e9, "0.1 to 900"), ("timeout", True, "0.1 to 900"),
    ("success", {"statuses": "ok"}, "200-299"), ("success", {"statuses": "299-200"}, "200-299"), ("success", {"status": "200"}, "contains"),
    ("success", {"contains": "x" * 501}, "500"), ("success", {"contains": "a\0"}, "U+0000"), ("success", {"statuses": ""}, "blank"), ("success", 200, "object"),
    ("follow_redirects", "yes", "true or false"), ("repeatable", None, "true or false"),
    ("retries", {"delays": [0]}, "1 to 604800"), ("retries", {"delays": "10"}, "list"), ("retries", {"delays": [10] * 21}, "20"),
    ("retries", {"delays": [True]}, "1 to 604800"), ("retries", {"delays": [None]}, "1 to 604800"), ("retries", {"max_age": 1.5}, "whole"),
    ("max_at_once", 0, "1 to"), ("max_at_once", 1.5, "whole"), ("max_at_once", "1", "whole"),
    ("rate", "many", "300/min"), ("rate", "0/s", "300/min"), ("rate", "300/year", "300/min"), ("rate", 5, "string"),
    ("signing_key", "secret", "whsec_"), ("signing_key", "whsec_AAAA", "24 to 64"), ("signing_key", "whsec_" + "é" * 40, "whsec_"), ("signing_key", 7, "whsec_"), ("signing_key", {}, "whsec_"),
    ("previous_signing_key", KEY, "null"), ("keep", {"failures": -1}, "0 to"),
    ("notify", "s3cr3t", "Apprise"), ("notify", ["json://h/"], "string"), ("notify_after", 0, "1 to"), ("notify_after", None, "number"), ("keep", {"days": None}, "number"), ("keep", {"hours": 1}, "days"),
    ("paused", "yes", "true, false"), ("paused", {"until": "2020-01-01T00:00:00Z"}, "passed"), ("paused", {"until": "noon"}, "ISO 8601"),
    ("paused", {"reason": "a\nb"}, "control character"), ("paused", {"reason": "x" * 201}, "200"), ("paused", {"why": "x"}, "until"),
])
def test_what_is_wrong_is_named(client, key, value, says):
    answer = post(client, 400, **{key: value})
    assert all(bad["key"].split(".")[0] == key for bad in answer["errors"]), answer
    assert says in answer["detail"] and len(answer["detail"]) < 3000
    assert not Target.objects.exists()


def test_all_that_is_wrong_is_named_at_once_and_nothing_is_changed(client):
    answer = post(client, 400, name="a b", url="x", headers={"Host": "x", "a b": "c"}, timeout=0, rate="x",
                  retries={"delays": [0]}, auth={"kind": "bearer"}, success={"statuses": "x"})
    assert [bad["key"] for bad in answer["errors"]] == [
        "name", "url", "headers", "auth", "timeout", "success.statuses", "retries.delays", "rate"]
    assert "Host" in answer["detail"] and "a b" in answer["detail"]
    made = post(client)
    assert "There is no key colour" in patch(client, 400, colour="red")["detail"]
    patch(client, 400, method="POST", timeout=0)
    assert client.get(f"{PATH}billing/").json() == made
    assert sent(client.post(PATH, "[]", "application/json"), 400)["detail"].startswith("The body must be a JSON object")
    assert {bad["key"] for bad in sent(client.post(PATH, "{}", "application/json"), 400)["errors"]} == {"name", "url"}
    assert "too large" in sent(client.post(PATH, json.dumps({"body": "x" * 2_000_000}), "application/json"), 400)["detail"]


def test_a_name_can_be_taken_once(client):
    post(client)
    assert 'There is a target "billing" already' in post(client, 409)["detail"]
    post(client, name="other")
    assert "already" in patch(client, 409, name="other", method="PUT")["detail"]
    assert client.get(f"{PATH}billing/").json()["method"] == "GET"
    assert patch(client, name="renamed")["name"] == "renamed"
    assert client.get(f"{PATH}billing/").status_code == 404
    assert client.get(f"{PATH}renamed/").json()["version"] == 2


def test_of_two_that_change_it_at_once_neither_is_lost(client):
    post(client)
    clients, keys = [may(*ALL) for _ in range(2)], ("timeout", "connect_timeout")
    at_once(2, lambda i: patch(clients[i], **{keys[i]: 7}))
    found = client.get(f"{PATH}billing/").json()
    assert (found["timeout"], found["connect_timeout"], found["version"]) == (7, 7, 3)


def test_a_pause_has_a_name_and_a_reason_and_may_end_by_itself(client):
    post(client)
    paused = patch(client, paused={"reason": "it is being moved"})
    assert paused["paused"] == {"since": paused["paused"]["since"], "until": None, "by": "ann", "reason": "it is being moved"}
    assert paused["version"] == 1, "it is asked for the same"
    assert patch(client, timeout=5)["paused"] == paused["paused"]
    assert patch(client, paused=False)["paused"] is None
    assert patch(client, paused=True)["paused"]["reason"] == ""
    until = (utcnow() + timedelta(hours=1)).isoformat()
    assert patch(client, paused={"until": until})["paused"]["until"] == until.replace("+00:00", "Z")
    now = utcnow()
    assert list(Target.objects.filter(targets.paused_q(now))) == [Target.objects.get()]
    later = now + timedelta(hours=2)
    assert not Target.objects.filter(targets.paused_q(later)) and not Target.objects.get().is_paused(later)
    Target.objects.update(paused_until=now)
    assert client.get(f"{PATH}billing/").json()["paused"] is None


def test_one_that_is_in_use_is_not_deleted(client):
    post(client)
    target = Target.objects.get()
    calls = make(number=3, target=target)
    Schedule.objects.create(name="nightly", cron="0 0 * * *", zone="UTC", target=target)
    assert "3 pending calls and 1 schedule name it" in sent(client.delete(f"{PATH}billing/"), 409)["detail"]
    Schedule.objects.all().delete()
    for status in ("Running", "Retrying"):
        ScheduledCall.objects.filter(pk=calls[0].pk).update(status=status)
        assert "3 pending calls name it" in sent(client.delete(f"{PATH}billing/"), 409)["detail"]
    ScheduledCall.objects.filter(pk=calls[0].pk).update(status="Pending")
    ScheduledCall.objects.exclude(pk=calls[0].pk).update(status="Succeeded")
    assert "1 pending call names it" in sent(client.delete(f"{PATH}billing/"), 409)["detail"]
    ScheduledCall.objects.update(status="Cancelled")
    assert client.delete(f"{PATH}billing/").status_code == 204
    for method in (client.get, client.delete, client.patch):
        assert method(f"{PATH}billing/", content_type="application/json").status_code == 404
    assert ScheduledCall.objects.filter(target=target).count() == 3 and client.get(PATH).json()["results"] == []
    post(client)
    assert targets.prune() == 0, "its calls name it"
    ScheduledCall.objects.all().delete()
    assert targets.prune() == 1 and Target.objects.get().name == "billing"


def test_who_schedules_for_one_that_is_being_deleted_is_told(client):
    post(client)
    target = Target.objects.get()
    with transaction.atomic():
        targets.still_there([target.pk])
    targets.delete(target.pk)
    with pytest.raises(Target.DoesNotExist), transaction.atomic():
        targets.still_there([target.pk])
    with pytest.raises(Target.DoesNotExist):
        targets.save(target)


@pytest.mark.parametrize("method, path, needs", [
    ("get", PATH, "view_target"), ("get", f"{PATH}billing/", "view_target"), ("post", PATH, "add_target"),
    ("patch", f"{PATH}billing/", "change_target"), ("delete", f"{PATH}billing/", "delete_target"),
    ("post", f"{PATH}billing/test/", "use_target")])
def test_each_needs_its_own_permission(client, method, path, needs):
    post(client)
    Target.objects.update(paused_at=utcnow())       # which keeps a test from being made
    answer = getattr(may(*set(ALL) - {needs}), method)(path, content_type="application/json")
    assert answer.status_code == 403 and f"scheduler.{needs}" in answer.json()["detail"]
    answer = getattr(may(needs), method)(path, content_type="application/json")
    assert answer.status_code in (200, 204, 400, 409), answer.content
    assert getattr(Client(), method)(path, content_type="application/json").status_code == 401


def test_without_the_permission_for_it_nobody_sees_what_is_sent(client):
    made = post(client, method="POST", headers={"X-Tenant": "acme", "Content-Type": "text/plain"}, body="acme's",
                secret_headers={"X-Acme-Key": "acme-secret"}, auth={"kind": "basic", "username": "acme", "password": "pw-pw-pw"})
    assert made["headers"]["X-Tenant"] == "acme"
    blind = may(*set(ALL) - {"see_request"}, name="bob")
    for answer in (blind.get(f"{PATH}billing/"), blind.get(PATH),
                   blind.patch(f"{PATH}billing/", '{"timeout": 9}', content_type="application/json")):
        assert "acme" not in answer.content.decode().lower() and "api.example" not in answer.content.decode()
    found = blind.get(f"{PATH}billing/").json()
    assert [key for key in found if found[key] is None and made[key] is not None] == [
        "url", "headers", "secret_headers", "body", "auth"]
    assert client.get(f"{PATH}billing/").json()["headers"] == made["headers"]


def test_its_example_can_be_sent_as_it_stands():
    client = may(*ALL, "view_scheduledcall")
    post = client.get("/api/schema/?format=json").json()["paths"]["/api/targets/"]["post"]
    example = next(iter(post["requestBody"]["content"]["application/json"]["examples"].values()))["value"]
    made = sent(client.post(PATH, json.dumps(example), "application/json"), 201)
    assert made["retries"] == example["retries"] and made["auth"].keys() == example["auth"].keys()
    paths = client.get("/api/schema/?format=json").json()["paths"]
    assert {"/api/targets/{name}/", "/api/targets/{name}/test/"} <= paths.keys()


# Trying one


def token():
    return Token.objects.get_or_create(user=User.objects.get(username="ann"))[0].key


def try_it(stack, code, body=None, name="billing", key=None):
    headers = {"Authorization": f"Token {key or token()}"}
    answer = requests.post(f"{stack.url}{PATH}{name}/test/", json=body, timeout=60, headers=headers)
    assert answer.status_code == code, answer.text
    return answer.json()


def test_a_test_makes_one_call_and_answers_with_the_attempt(stack, client, api, log):
    stack.start("web", "worker", "beat", TARGET_NETWORKS="127.0.0.0/8", DEBUG="false")
    post(client, url=f"{api.url}/status/200?order={{{{data.order}}}}", method="POST", headers={"Content-Type": "text/plain"},
         body="{{data.order}}", secret_headers={"X-Api-Key": "secret-a"})
    assert "Lacks order" in try_it(stack, 400)["detail"]
    answer = try_it(stack, 201, {"data": {"order": 7}})
    assert (answer["status"], answer["attempt"]["number"], answer["attempt"]["http_status"]) == ("Succeeded", 1, 200)
    assert answer["attempt"]["request"]["url"].endswith("/status/200?order=7")
    assert answer["attempt"]["request"]["headers"]["X-Api-Key"] == "***"
    call = ScheduledCall.objects.get()
    assert (call.id, call.scheduled_via, call.scheduled_by, call.target.name) == (answer["call"], "test", "ann", "billing")
    assert api.seen[0]["headers"]["X-Api-Key"] == "secret-a"
    assert not any("secret-a" in stack.says(name) for name in stack.processes) and "secret-a" not in "".join(log(1))
    may("use_target")                       # the same user, who may not see the request any more
    assert try_it(stack, 201, {"data": {"order": 8}})["attempt"]["request"] is None
    may(*ALL)
    patch(client, url=f"{api.url}/status/503", retries={"delays": [3600]})
    answer = try_it(stack, 201, {"data": {"order": 7}})
    assert (answer["status"], answer["attempt"]["outcome"]) == ("Failed", "Failed"), "and it is not tried again"
    assert answer["attempt"]["http_status"] == 503 and answer["attempt"]["class"] == "refused"
    patch(client, paused={"reason": "it moves"})
    assert "paused by ann: it moves" in try_it(stack, 409, {"data": {"order": 7}})["detail"]
    assert ScheduledCall.objects.count() == 3


def test_a_test_that_no_worker_takes_is_among_the_calls_all_the_same(stack, client, api):
    """Answered within the target's time limit, and longer than the database may take for one request."""
    stack.start("web", DEBUG="false", DATABASE_TIMEOUT="2")
    post(client, url=f"{api.url}/ok", timeout=3)
    began = time.monotonic()
    answer = try_it(stack, 202)
    assert 3 < time.monotonic() - began < 10
    assert answer["status"] == "Pending" and answer["attempt"] is None and "look at call" in answer["detail"]
    assert ScheduledCall.objects.get().status == "Pending"


def test_tests_that_wait_leave_the_web_servers_threads_to_others(stack, client, api):
    """It has 32."""
    stack.start("web", DEBUG="false")
    post(client, url=f"{api.url}/ok", timeout=10)
    key = token()       # once: PostgreSQL has not as many connections for this process
    with ThreadPoolExecutor(40) as many:
        tests = [many.submit(try_it, stack, 202, key=key) for _ in range(40)]
        until(lambda: sum(test.done() for test in tests) > 30, 10)
        assert requests.get(f"{stack.url}/healthz", timeout=5).status_code == 503, "no dispatcher runs"
        assert not all(test.done() for test in tests), "the first of them wait"
    assert {test.result()["status"] for test in tests} == {"Pending"} and ScheduledCall.objects.count() == 40


def test_a_test_without_the_key_of_its_secrets_says_so_and_sends_nothing(stack, client, api):
    stack.start("web", "worker", "beat", TARGET_NETWORKS="127.0.0.0/8", DEBUG="false", SECRETS_KEY="x" * 40)
    post(client, url=f"{api.url}/ok", secret_headers={"X-Api-Key": "secret-a"})
    post(client, url=f"{api.url}/ok", name="other")
    answer = try_it(stack, 201)
    assert (answer["status"], answer["attempt"]["class"]) == ("Failed", "nothing")
    assert "its secrets cannot be read" in answer["attempt"]["error"] and api.seen == []
    assert try_it(stack, 201, name="other")["status"] == "Succeeded"


def test_who_is_told_of_its_failures(client):
    """As other secrets it is never shown, and what is shown may be sent back."""
    made = post(client, notify="json://example.org/s3cr3t-hook json://example.org/2", notify_after=3)
    assert made["notify"]["value"] == "***" and made["notify_after"] == 3 and "s3cr3t-hook" not in json.dumps(made)
    assert patch(client, notify=made["notify"], timeout=9)["notify"] == made["notify"]
    target = Target.objects.get()
    assert decrypt(target.secrets)["notify"] == ["json://example.org/s3cr3t-hook", "json://example.org/2"] and "hook" not in target.secrets
    assert patch(client, notify=None)["notify"] is None and Target.objects.get().secrets == ""
