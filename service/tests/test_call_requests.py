"""POST /api/schedule-api/ for a target: calls with a body, headers and data of their own, a delay, an end; many in one
request, all of them or, with one 400 that names every position, none."""
import hashlib
import json
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest
from conftest import person, statuses
from django.contrib.auth.models import Permission, User
from django.test import Client, override_settings
from test_transitions import at_once

from scheduler.base.clock import utcnow
from scheduler.calls import targets
from scheduler.models import CallRequest, IdempotentAnswer, ScheduledCall, Target

URL = "/api/schedule-api/"
ONE = "2096-08-01T14:30:00Z"
DUE = datetime(2096, 8, 1, 14, 30, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def billing():
    return Target.objects.create(name="billing", url="https://api.example.org/run", method="POST")


def post(client, body, **headers):
    return client.post(URL, body if isinstance(body, str) else json.dumps(body), "application/json", headers=headers)


def own(answer):
    """What was kept of what the one call of `answer`, a 201, sends: (body, headers, data)."""
    assert answer.status_code == 201, answer.content
    return CallRequest.objects.filter(call=answer.json()[0]["id"]).values_list("body", "headers", "data").get()


def refused(answer):
    """{key or (position, key): reason} of a 400, after which there is no call."""
    assert answer.status_code == 400, answer.content
    assert statuses() == {}
    said = answer.json()
    for bad in said["errors"]:
        where = f"calls[{bad['position']}].{bad['key']}" if "position" in bad else bad["key"]
        assert f"{where}: {bad['reason']}" in said["detail"]
    return {(bad["position"], bad["key"]) if "position" in bad else bad["key"]: bad["reason"] for bad in said["errors"]}


# A target, and what is sent to it.

def test_the_answer_is_as_ever_and_the_call_names_its_target(ann, billing):
    answer = post(ann, {"timestamps": f"{ONE}, {ONE}", "target": "billing", "note": "month's end"})
    assert answer.status_code == 201
    assert [list(call) for call in answer.json()] == [["id", "timestamp", "status"]] * 2
    assert {(call.target, call.note, call.timestamp) for call in ScheduledCall.objects.all()} == {
        (billing, "month's end", DUE)}
    assert CallRequest.objects.count() == 0, "it sends what its target says, and needs no row for that"


@pytest.mark.parametrize("body, kept", [
    ({"id": 7, "name": "Zoë"}, '{"id": 7, "name": "Zoë"}'),
    ([1, 2.5, True, None], "[1, 2.5, true, null]"), (7, "7"), (False, "false"), ({}, "{}"),
    ({"id": "{{call.id}}"}, '{"id": "{{call.id}}"}'), ({"a": "\0"}, '{"a": "\\u0000"}'),
])
def test_a_body_that_is_no_text_is_sent_as_json(ann, body, kept):
    assert own(post(ann, {"timestamps": ONE, "target": "billing", "body": body})) == (
        kept, {"Content-Type": "application/json"}, {})


@pytest.mark.parametrize("of_target, of_call", [
    ({}, {"content-type": "application/vnd.api+json"}), ({"Content-Type": "application/vnd.api+json"}, {})])
def test_headers_may_call_that_json_something_else(ann, billing, of_target, of_call):
    billing.headers = of_target
    billing.save()
    body, headers, _ = own(post(ann, {"timestamps": ONE, "target": "billing", "body": {"id": 7}, "headers": of_call}))
    assert (body, headers) == ('{"id": 7}', of_call)


def test_a_text_is_sent_as_it_stands(ann):
    said = {"timestamps": ONE, "target": "billing", "body": "{not JSON} é", "headers": {"Content-Type": "text/plain"}}
    assert own(post(ann, said)) == ("{not JSON} é", {"Content-Type": "text/plain"}, {})


def test_a_text_of_no_kind_is_refused(ann):
    assert "Content-Type" in refused(post(ann, {"timestamps": ONE, "target": "billing", "body": "7"}))["body"]


def test_a_text_may_be_of_the_targets_kind(ann, billing):
    billing.headers = {"content-type": "text/csv"}
    billing.save()
    assert own(post(ann, {"timestamps": ONE, "target": "billing", "body": "a,b"})) == ("a,b", {}, {})


def test_null_is_as_if_it_were_left_out(ann):
    answer = post(ann, {"timestamps": ONE, "target": None, "body": None, "headers": None, "data": None, "expires": None})
    assert answer.status_code == 201
    assert ScheduledCall.objects.get().target is None and CallRequest.objects.count() == 0


@pytest.mark.parametrize("key, value, says", [
    ("body", {"id": 7}, "name it as `target`"), ("body", 0, "name it as `target`"), ("headers", {"X-A": "1"}, "name it as `target`"),
    ("data", {"a": 1}, "name it as `target`"), ("target", "nobody", 'no target "nobody"'), ("target", "", 'no target ""'),
    ("target", "a\0\ud800", r'no target "a\x00\ud800"'), ("target", 7, "Must be a string"),
])
def test_without_a_target_there_is_nothing_to_send(ann, key, value, says):
    assert says in refused(post(ann, {"timestamps": ONE, key: value}))[key]


def test_a_deleted_target_is_none_and_a_paused_one_is_taken(ann, billing):
    targets.pause(billing, "ann", "it moves")
    assert post(ann, {"timestamps": ONE, "target": "billing"}).status_code == 201
    ScheduledCall.objects.all().delete()
    targets.delete(billing.pk)
    assert "billing" in refused(post(ann, {"timestamps": ONE, "target": "billing"}))["target"]


def test_one_that_is_being_deleted_is_called_by_nothing():
    user = person()
    user.user_permissions.add(Permission.objects.get(codename="use_target"))
    clients = [Client(), Client(), Client()]
    for client in clients:
        client.force_login(user)
    for i in range(20):
        target = Target.objects.create(name=f"t{i}", url="https://api.example.org/")

        def delete():
            with suppress(targets.InUse):
                targets.delete(target.pk)
        answers = at_once(4, lambda n: post(clients[n - 1], {"timestamps": ONE, "target": target.name}) if n else delete())
        gone = Target.objects.get(pk=target.pk).deleted_at is not None
        assert gone != target.calls.exists()
        assert {answer.status_code for answer in answers[1:]} <= ({400} if gone else {201, 400})


def test_it_takes_a_permission_to_use_targets(ann):
    client = Client()
    client.force_login(person("ben"))
    for body in ({"timestamps": ONE, "target": "billing"}, {"calls": [{"timestamp": ONE}, {"delay": 1, "target": "nobody"}]}):
        answer = post(client, body)
        assert answer.status_code == 403 and "scheduler.use_target" in answer.json()["detail"]
    assert statuses() == {}
    assert post(client, {"timestamps": ONE}).status_code == 201


@override_settings(DEBUG=True)
def test_in_local_development_everybody_may():
    assert post(Client(), {"timestamps": ONE, "target": "billing"}).status_code == 201


@pytest.mark.parametrize("key, value, says", [
    ("headers", {"X-A": "1\r\nX-B: 2"}, "X-A"), ("headers", {"X-A\r\nX-B": "2"}, "no name"),
    ("headers", {"Host": "elsewhere"}, "Host"), ("headers", {"content-length": "1"}, "content-length"),
    ("headers", {"Transfer-Encoding": "chunked"}, "Transfer-Encoding"), ("headers", {"X-A": 1}, "must be a string"),
    ("headers", {f"X-{i}": "" for i in range(10_000)}, "10000"), ("headers", ["X-A"], "object"),
    ("headers", {"X-A": "{{call.secret}}"}, "call.secret"),
    ("body", {"a": "{{7*7}}"}, "7*7"), ("body", {"a": "{{schedule.name"}, "begins no placeholder"),
    ("body", {"a": "{{data.__class__.x}}"}, "there is not"), ("body", {"a": "x" * 262_144}, "bytes"),
    ("body", {"a": "\ud800"}, "no character"),
    ("data", [], "object"), ("data", {"a b": 1}, "no key"), ("data", {"a": "\0"}, "no character"),
    ("data", {f"k{i}": 1 for i in range(10_000)}, "10000"),
    ("expires", 0, "at least"), ("expires", True, "number"), ("expires", "soon", "ISO 8601"), ("expires", 1e300, "too long"),
    ("expires", 3e11, "too long"), ("expires", ONE, "later than the due time"),
])
def test_what_cannot_be_sent_is_refused_in_words(ann, key, value, says):
    assert says in refused(post(ann, {"timestamps": ONE, "target": "billing", key: value}))[key]


def test_a_number_that_json_cannot_hold_is_refused(ann):
    body = '{"timestamps": "%s", "target": "billing", "body": [1e999], "data": {"a": 1e999}}' % ONE
    assert refused(post(ann, body)).keys() == {"body", "data"}


def test_a_body_of_a_megabyte_is_refused_and_so_is_a_large_one_for_thousands(ann):
    answer = post(ann, {"timestamps": ONE, "target": "billing", "body": "x" * 1_000_000})
    assert answer.status_code == 400 and "too large" in answer.json()["detail"]
    answer = post(ann, {"timestamps": ",".join([ONE] * 10_000), "target": "billing", "body": {"a": "x" * 250_000}})
    assert answer.status_code == 400 and "10000 calls with that body" in answer.json()["detail"]
    assert statuses() == {}


@pytest.mark.parametrize("target, call, lacks", [
    ({"url": "https://api.example.org/{{data.order}}"}, {}, ["order"]),
    ({"headers": {"X-A": "{{data.a}}"}, "body": "{{data.b}} {{data.a}}"}, {"data": {"c": 1}}, ["a", "b"]),
    ({}, {"body": {"x": "{{data.x}}"}, "headers": {"X-Y": "{{data.y}}"}, "data": {"y": 1}}, ["x"]),
])
def test_data_that_has_a_place_must_be_there(ann, billing, target, call, lacks):
    Target.objects.filter(pk=billing.pk).update(**target)
    reason = refused(post(ann, {"timestamps": ONE, "target": "billing", **call}))["data"]
    assert f"Lacks {', '.join(lacks)}," in reason


def test_data_is_kept(ann, billing):
    Target.objects.filter(pk=billing.pk).update(url="https://api.example.org/{{data.order}}", body="{{data.b}}")
    said = {"timestamps": ONE, "target": "billing", "body": {"b": "none of b"}, "data": {"order": 7, "more": {"a": [None]}}}
    assert own(post(ann, said))[2] == {"order": 7, "more": {"a": [None]}}


# When.

def test_a_delay_is_from_now(ann):
    before = utcnow()
    answer = post(ann, {"delay": 90.5})
    assert answer.status_code == 201, answer.content
    due = ScheduledCall.objects.get().timestamp
    assert before + timedelta(seconds=90.5) <= due <= utcnow() + timedelta(seconds=90.5)
    assert post(ann, {"delay": 0, "target": "billing"}).json()[0]["status"] == "Pending"


@pytest.mark.parametrize("delay, says", [
    (-1, "at least 0"), ("90", "number"), (None, "number"), (True, "number"), (1e300, "too long"), (3e11, "too long")])
def test_a_delay_that_is_none(ann, delay, says):
    assert says in refused(post(ann, {"delay": delay}))["delay"]


@pytest.mark.parametrize("expires, at", [
    (600, DUE + timedelta(seconds=600)), (0.5, DUE + timedelta(seconds=0.5)),
    ("2096-08-01T17:00:00+02:00", DUE + timedelta(seconds=1800))])
def test_when_a_call_is_of_no_use_any_more(ann, expires, at):
    assert post(ann, {"timestamps": ONE, "expires": expires}).status_code == 201
    assert ScheduledCall.objects.get().expires_at == at


def test_a_timestamp_beside_a_delay_is_refused(ann):
    assert "timestamps" in post(ann, {"timestamps": ONE, "delay": 1}).json()["detail"]
    assert statuses() == {}


# Many in one request.

def test_each_call_has_its_own(ann, billing):
    mail = Target.objects.create(name="mail", url="https://mail.example.org/", method="POST")
    answer = post(ann, {"calls": [
        {"timestamp": ONE, "target": "billing", "body": {"id": 7}, "note": "seven", "expires": 60},
        {"timestamp": "2020-01-01T00:00:00Z", "target": "billing"},
        {"delay": 90, "target": "mail", "headers": {"X-A": "{{data.a}}"}, "data": {"a": 1}},
        {"timestamp": ONE}]})
    assert answer.status_code == 201, answer.content
    assert [call.pop("position") for call in answer.json()] == [0, 2, 3], "the second is past, and ignored"
    calls = [ScheduledCall.objects.get(id=call["id"]) for call in answer.json()]
    assert [(call.target, call.note) for call in calls] == [(billing, "seven"), (mail, ""), (None, "")]
    assert [call.expires_at for call in calls] == [DUE + timedelta(seconds=60), None, None]
    assert [(row.call_id, row.body, row.headers, row.data) for row in CallRequest.objects.order_by("call_id")] == [
        (calls[0].id, '{"id": 7}', {"Content-Type": "application/json"}, {}), (calls[1].id, None, {"X-A": "{{data.a}}"}, {"a": 1})]
    assert len({call.created_at for call in calls}) == 1


def test_every_position_that_is_wrong_is_named(ann):
    found = refused(post(ann, {"calls": [
        {"timestamp": ONE}, {"timestamp": "yesterday"}, {"delay": -1, "note": 7}, {}, {"timestamp": ONE, "delay": 1}, 7,
        {"timestamp": ONE, "url": "http://elsewhere/"}, {"timestamp": None}]}))
    assert list(found) == [(1, "timestamp"), (2, "delay"), (2, "note"), (3, "timestamp"), (4, "delay"), (5, "timestamp"),
                           (6, "url"), (7, "timestamp")]
    found = refused(post(ann, {"calls": [
        {"timestamp": ONE}, {"delay": 1, "target": "nobody"}, {"delay": 1, "target": "billing", "body": "text"}]}))
    assert list(found) == [(1, "target"), (2, "body")]


def test_of_thousands_of_mistakes_the_sentence_names_some(ann):
    answer = post(ann, {"calls": [{"delay": -1}] * 1000})
    said = answer.json()
    assert answer.status_code == 400 and len(said["errors"]) == 1000
    assert said["detail"].endswith(" And 980 more.") and len(said["detail"]) < 2000


@pytest.mark.parametrize("body, says", [
    ({"calls": []}, "must be a list"), ({"calls": {}}, "must be a list"), ({"calls": None}, "must be a list"),
    ({"calls": [{"delay": 1}], "target": "billing"}, "Beside `calls` there is target"),
    ({"calls": [{"delay": 1}] * 11}, "11 calls are too many"),
])
def test_calls_that_are_none(ann, body, says):
    with override_settings(MAX_TIMESTAMPS=10):
        answer = post(ann, body)
    assert answer.status_code == 400 and says in answer.json()["detail"] and statuses() == {}


def test_ten_thousand_with_bodies_of_their_own(ann):
    with override_settings(BODY_MAX=2_000_000, DATA_UPLOAD_MAX_MEMORY_SIZE=2_000_000):
        answer = post(ann, {"calls": [{"timestamp": ONE, "target": "billing", "body": {"id": i}} for i in range(10_000)]})
    assert answer.status_code == 201, answer.content[:500]
    assert [call["position"] for call in answer.json()] == list(range(10_000))
    bodies = dict(CallRequest.objects.values_list("call", "body"))
    assert [bodies[call["id"]] for call in answer.json()] == [f'{{"id": {i}}}' for i in range(10_000)]


# Idempotency-Key.

def test_a_key_covers_all_that_is_asked_for(ann):
    asked = {"timestamps": ONE, "target": "billing", "body": {"a": 1, "b": 2}, "expires": 60}
    first = post(ann, asked, **{"Idempotency-Key": "a"})
    again = post(ann, {**dict(reversed(asked.items())), "timestamps": "2096-08-01T16:30:00+02:00"}, **{"Idempotency-Key": "a"})
    assert first.status_code == again.status_code == 201 and again.json() == first.json()
    for other in ({"body": {"a": 1, "b": 3}}, {"target": None, "body": None}, {"headers": {"X-A": "1"}}, {"expires": 61},
                  {"data": {"a": 1}}, {"note": "x"}):
        assert post(ann, {**asked, **other}, **{"Idempotency-Key": "a"}).status_code == 422, other
    assert statuses() == {"Pending": 1}


@pytest.mark.parametrize("asked", [{"delay": 90}, {"calls": [{"delay": 90, "target": "billing"}, {"timestamp": "2020-01-01T00:00:00Z"}]}])
def test_what_counts_from_now_is_the_same_when_it_is_sent_again(ann, billing, asked):
    first = post(ann, asked, **{"Idempotency-Key": "a"})
    Target.objects.filter(pk=billing.pk).update(url="https://api.example.org/{{data.new}}")
    assert post(ann, asked, **{"Idempotency-Key": "a"}).json() == first.json()
    assert statuses() == {"Pending": 1}


@pytest.mark.parametrize("note", ["", "lunch"])
def test_a_key_of_before_there_were_targets_is_known_still(ann, note):
    """As the version before wrote it: the SHA-256 of the times and, if there was one, the note."""
    said = "2096-08-01T14:30:00+00:00" + (f"\n{note}" if note else "")
    IdempotentAnswer.objects.create(scope=f"user {User.objects.get().pk}", key="a", answer='[{"id": 7}]',
                                    fingerprint=hashlib.sha256(said.encode()).hexdigest())
    assert post(ann, {"timestamps": ONE, "note": note}, **{"Idempotency-Key": "a"}).json() == [{"id": 7}]
    assert statuses() == {}
