"""GET /api/schedule-api/{id}/: a call's attempts, and what of them who may see. And a call between two attempts: it is
listed, tried now, or cancelled."""
from datetime import datetime, timedelta, timezone

import pytest
from conftest import in_seconds, make, person
from django.contrib.auth.models import Permission
from django.test import Client, override_settings

from scheduler.base.clock import utcnow
from scheduler.calls import targets
from scheduler.calls.attempts import attempts_of, durations
from scheduler.models import Attempt, CallRequest, ScheduledCall, Target

URL = "/api/schedule-api/"
DUE = datetime(2026, 8, 1, 14, 30, tzinfo=timezone.utc)
KEPT = {
    "version": 3, "address": "203.0.113.7", "phases": {"name": 1.2, "connect": 8.0, "tls": 14.1, "answer": 188.0},
    "request": {"method": "POST", "url": "https://api.example.org/run", "headers": {"X-Api-Key": "***"}, "body": "{}"},
    "response": {"headers": [["Vary", "A"], ["Content-Type", "text/plain"], ["Vary", "B"]], "body": "busy", "truncated": False}}


@pytest.fixture
def billing():
    return Target.objects.create(name="billing", url="https://api.example.org/run", method="POST", delays=[10, 60])


def client(*more, may=("view", "add", "change")):
    client, user = Client(), person(may=may)
    user.user_permissions.add(*Permission.objects.filter(codename__in=more))
    client.force_login(user)
    return client


def get(client, call):
    answer = client.get(f"{URL}{call.id}/")
    assert answer.status_code == 200, answer.content
    return answer.json()


def attempt(call, number, **fields):
    start = DUE + timedelta(seconds=10 * number)
    return Attempt.objects.create(**{
        "call": call, "number": number, "started_at": start, "ended_at": start + timedelta(milliseconds=212.4),
        "outcome": "Failed", "failure": "refused", "http_status": 503, "error": "HTTP status 503", "kept": KEPT, **fields})


def test_each_attempt_is_there_with_all_that_is_known_of_it(billing):
    call = make(status="Retrying", target=billing, attempts_made=2, next_attempt_at=DUE + timedelta(seconds=80),
                expires_at=DUE + timedelta(hours=1), started_at=DUE + timedelta(seconds=10), failure="refused")
    attempt(call, 2), attempt(call, 1)
    answer = get(client("see_request"), call)
    assert (answer["status"], answer["target"]) == ("Retrying", "billing")
    assert (answer["next_attempt_at"], answer["expires_at"]) == ("2026-08-01T14:31:20Z", "2026-08-01T15:30:00Z")
    assert [attempt["number"] for attempt in answer["attempts"]] == [1, 2]
    assert answer["attempts"][0] == {
        "number": 1, "started_at": "2026-08-01T14:30:10Z", "ended_at": "2026-08-01T14:30:10.212400Z", "duration_ms": 212.4,
        "outcome": "Failed", "class": "refused", "http_status": 503, "error": "HTTP status 503", "version": 3,
        "address": "203.0.113.7", "phases_ms": KEPT["phases"], "request": KEPT["request"],
        "response": {"headers": {"Vary": "A, B", "Content-Type": "text/plain"}, "body": "busy", "truncated": False}}


def test_what_is_sent_to_a_target_and_answered_takes_a_permission(billing):
    call = make(status="Failed", target=billing, attempts_made=1)
    CallRequest.objects.create(call=call, body="secret", data={"a": 1})
    attempt(call, 1)
    seen, unseen = get(client("see_request"), call), get(client("use_target", "view_target"), call)
    assert seen["request"] == {"body": "secret", "headers": {}, "data": {"a": 1}}
    assert (unseen["request"], *(unseen["attempts"][0][key] for key in ("request", "response", "address"))) == (None,) * 4
    for answer in (seen, unseen):
        del answer["request"], answer["attempts"][0]["request"], answer["attempts"][0]["response"], answer["attempts"][0]["address"]
    assert seen == unseen


def test_the_answer_to_a_call_without_a_target_is_seen_by_whoever_sees_the_call():
    call = make(status="Failed")
    attempt(call, 1, kept={"address": "203.0.113.7", "response": KEPT["response"]})
    shown = get(client(), call)["attempts"]
    assert len(shown) == 1 and shown[0]["response"]["body"] == "busy" and shown[0]["request"] is None


@override_settings(DEBUG=True)
def test_in_local_development_everybody_sees_it(billing):
    call = make(status="Failed", target=billing)
    attempt(call, 1)
    assert get(Client(), call)["attempts"][0]["request"] == KEPT["request"]


@pytest.mark.parametrize("fields, shown", [
    ({"status": "Succeeded", "http_status": 200}, ["Succeeded", 200, None, 980.0]),
    ({"status": "Failed", "error": "worker lost", "failure": "unknown"}, ["Failed", None, "unknown", 980.0]),
    ({"status": "Failed", "error": "no such host", "started_at": None}, ["Failed", None, None, None])])
def test_of_a_first_attempt_the_calls_own_row_is_enough(fields, shown):
    """As calls of versions that knew no attempts have it."""
    call = make(**{"started_at": DUE + timedelta(milliseconds=20), "ended_at": DUE + timedelta(seconds=1), **fields})
    one, = get(client(), call)["attempts"]
    assert [one["outcome"], one["http_status"], one["class"], one["duration_ms"]] == shown
    assert (one["number"], one["error"], one["ended_at"]) == (1, call.error, "2026-08-01T14:30:01Z")
    assert (one["request"], one["response"], one["phases_ms"], one["version"], one["address"]) == (None, None, {}, None, None)


def test_the_trace_of_a_first_success_is_its_attempt(billing):
    trace = {**KEPT, "request": {**KEPT["request"], "body": None}, "response": {"headers": [["Server", "x"]], "body": "", "truncated": False}}
    call = make(status="Succeeded", target=billing, attempts_made=1, http_status=200, started_at=DUE, ended_at=DUE, trace=trace)
    one, = get(client("see_request"), call)["attempts"]
    assert (one["phases_ms"], one["version"], one["request"]["url"]) == (KEPT["phases"], 3, "https://api.example.org/run")
    assert one["response"]["headers"] == {"Server": "x"}


def test_the_last_of_several_is_in_the_row_of_the_call_where_it_left_none_of_its_own(billing):
    call = make(status="Failed", target=billing, attempts_made=2, started_at=DUE, ended_at=DUE + timedelta(minutes=1),
                error="worker lost", failure="unknown")
    attempt(call, 1)
    first, second = get(client(), call)["attempts"]
    assert (first["number"], second["number"], second["class"], second["error"]) == (1, 2, "unknown", "worker lost")
    assert second["started_at"] is None, "the row's is the first's"


@pytest.mark.parametrize("status", ["Pending", "Running", "Missed", "Cancelled"])
def test_what_was_not_attempted_has_no_attempt(status):
    assert get(client(), make(status=status))["attempts"] == []


def test_one_that_was_given_up_between_two_has_those_that_were(billing):
    call = make(status="Cancelled", target=billing, attempts_made=1, started_at=DUE, ended_at=DUE)
    attempt(call, 1)
    assert [one["number"] for one in get(client(), call)["attempts"]] == [1]


# Lists.

def ids(answer):
    assert answer.status_code == 200, answer.content
    return [call["id"] for call in answer.json()["results"]]


def test_they_are_listed_by_target_and_by_status(billing):
    mail = Target.objects.create(name="mail", url="https://mail.example.org/")
    retrying, failed = make(1, status="Retrying", target=billing), make(2, status="Failed", target=billing)
    other = make(3, status="Retrying", target=mail)
    make(status="Failed")
    ann = client()
    assert ids(ann.get(URL, {"target": "billing"})) == [retrying.id, failed.id]
    assert ids(ann.get(URL, {"status": "Retrying"})) == [retrying.id, other.id]
    assert ids(ann.get(URL, {"status": ["Retrying", "Failed"], "target": "billing", "ordering": "-id"})) == [failed.id, retrying.id]


def test_those_of_a_deleted_target_are_found_by_its_name_beside_those_of_the_next(billing):
    old = make(1, status="Failed", target=billing)
    targets.delete(billing.pk)
    new = make(2, target=Target.objects.create(name="billing", url="https://api.example.org/"))
    assert ids(client().get(URL, {"target": "billing"})) == [old.id, new.id]
    assert get(client(), old)["target"] == "billing"


@pytest.mark.parametrize("name", ["nobody", "", "a\0b", "ä", "x" * 5000])
def test_a_target_that_there_is_not_is_no_empty_list(name):
    answer = client().get(URL, {"target": name})
    assert answer.status_code == 400 and answer.json()["errors"][0]["parameter"] == "target"


# Between two attempts.

def test_it_can_be_tried_now(billing):
    call = make(-60, status="Retrying", target=billing, attempts_made=1, next_attempt_at=in_seconds(600))
    answer = client().post(f"{URL}{call.id}/try-now/", "", "application/json")
    assert answer.status_code == 200 and answer.json() == {
        "id": call.id, "timestamp": get(client(), call)["timestamp"], "status": "Retrying"}
    call.refresh_from_db()
    assert call.next_attempt_at <= utcnow() + timedelta(seconds=1)


@pytest.mark.parametrize("status", sorted(set(ScheduledCall.Status.values) - {"Retrying"}))
def test_only_what_is_between_two_can_be_tried_now(status):
    call = make(status=status)
    answer = client().post(f"{URL}{call.id}/try-now/", "", "application/json")
    assert answer.status_code == 409 and answer.json()["status"] == status and status in answer.json()["detail"]


def test_to_try_now_is_a_change(billing):
    call = make(status="Retrying", target=billing, attempts_made=1, next_attempt_at=in_seconds(600))
    answer = client(may=["view", "add"]).post(f"{URL}{call.id}/try-now/", "", "application/json")
    assert answer.status_code == 403 and "change_scheduledcall" in answer.json()["detail"]
    assert client(may=["change"]).post(f"{URL}{call.id}/try-now/", "", "application/json").status_code == 200
    assert client().post(f"{URL}123/try-now/", "", "application/json").status_code == 404


def test_it_can_be_cancelled(billing, log):
    call = make(-60, status="Retrying", target=billing, attempts_made=1, next_attempt_at=in_seconds(600))
    attempt(call, 1)
    assert client().delete(f"{URL}{call.id}/").json()["status"] == "Cancelled"
    answer = get(client(), call)
    assert (answer["status"], answer["cancelled_by"], len(answer["attempts"])) == ("Cancelled", "ann", 1)
    assert len(log()) == 1


def test_durations_are_those_of_the_last_attempts():
    at, target = utcnow(), Target.objects.create(name="a", url="https://a.example/")
    later = at + timedelta(milliseconds=40)
    one = make(-60, status="Succeeded", started_at=at, ended_at=later)
    lost = make(-60, status="Failed", started_at=at, ended_at=at + timedelta(seconds=45), error="worker lost, outcome unknown")
    twice = make(-60, status="Failed", started_at=at, ended_at=at + timedelta(minutes=5), attempts_made=2, target=target)
    again = make(-60, status="Retrying", started_at=at, attempts_made=1, target=target)
    for call, number, ms in ((twice, 2, 70), (twice, 1, 900), (again, 1, 12.5)):
        Attempt.objects.create(call=call, number=number, started_at=at, ended_at=at + timedelta(milliseconds=ms), outcome="Failed")
    calls = [one, lost, twice, again, make(60), make(-60, status="Missed", ended_at=at), make(-1, status="Running", started_at=at)]
    assert durations(calls) == {one.pk: 40, twice.pk: 70, again.pk: 12.5}
    assert attempts_of(lost)[0]["duration_ms"] is None, "when it was noticed says nothing of it"
