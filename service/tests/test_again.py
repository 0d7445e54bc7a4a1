"""POST .../{id}/again/ and .../again/: what has ended is made again, with what was sent, by a new call."""
import json
from datetime import datetime, timedelta, timezone

import pytest
from conftest import in_seconds, make, person, statuses
from django.test import Client, override_settings
from test_transitions import at_once

from scheduler.base.clock import utcnow
from scheduler.calls import targets
from scheduler.models import CallRequest, Schedule, ScheduledCall, Target
from scheduler.schedules import planner

URL = "/api/schedule-api/"
ENDED = ["Succeeded", "Failed", "Missed", "Cancelled"]


@pytest.fixture
def billing():
    return Target.objects.create(name="billing", url="https://api.example.org/run", method="POST", rate="2/s")


def one(client, call, **headers):
    return client.generic("POST", f"{URL}{call.id}/again/", headers=headers)       # nothing in its body


def many(client, headers={}, **filters):
    return client.post(f"{URL}again/", json.dumps(filters), "application/json", headers=headers)


def made(answer, status=201):
    assert answer.status_code == status, answer.content
    return answer.json()


def new():
    return list(ScheduledCall.objects.filter(again_of__isnull=False).order_by("timestamp", "id"))


# One.

@pytest.mark.parametrize("status", ENDED)
def test_a_new_call_is_due_now_and_says_which_it_repeats(ann, billing, status):
    old = make(-3600, status=status, target=billing, note="lunch", error="as it was", expires_at=in_seconds(-1800))
    CallRequest.objects.create(call=old, body='{"a": 1}', headers={"X-A": "{{data.b}}"}, data={"b": 2})
    before = utcnow()
    answer = made(one(ann, old))
    assert list(answer) == ["id", "timestamp", "status"] and answer["status"] == "Pending"
    call = ScheduledCall.objects.get(id=answer["id"])
    assert before <= call.timestamp <= utcnow()
    assert (call.again_of, call.target, call.note, call.scheduled_by, call.scheduled_via, call.expires_at) == (
        old.id, billing, "lunch", "ann", "API", None)
    assert (call.request.body, call.request.headers, call.request.data) == ('{"a": 1}', {"X-A": "{{data.b}}"}, {"b": 2})
    old.refresh_from_db()
    assert (old.status, old.error) == (status, "as it was")


@pytest.mark.parametrize("status", sorted(set(ScheduledCall.Status.values) - set(ENDED)))
def test_what_has_not_ended_is_not_repeated(ann, status):
    answer = one(ann, make(status=status))
    assert answer.status_code == 409
    assert answer.json()["status"] == status and status in answer.json()["detail"] and statuses() == {status: 1}


def test_there_is_no_such_call(ann):
    assert ann.generic("POST", f"{URL}123/again/").status_code == 404


def test_nothing_is_taken_in_its_body(ann):
    call = make(status="Failed")
    assert ann.post(f"{URL}{call.id}/again/", '{"timestamps": "x"}', "application/json").status_code == 400
    assert ann.post(f"{URL}{call.id}/again/", "{}", "application/json").status_code == 201


def test_a_call_of_a_schedule_is_repeated_with_what_that_sends(ann, billing):
    schedule = Schedule(name="noon", times="12:00:00", zone="UTC", target=billing, body="noon", headers={"X-A": "1"})
    planner.save(schedule)
    old = schedule.calls.order_by("timestamp")[0]
    ScheduledCall.objects.filter(id=old.id).update(status="Missed")
    call = ScheduledCall.objects.get(id=made(one(ann, old))["id"])
    assert call.target == billing
    assert call.schedule == schedule or (call.request.body, call.request.headers) == ("noon", {"X-A": "1"})
    assert call.occurrence is None


def test_a_deleted_target_is_not_called_again(ann, billing):
    old = make(-60, status="Failed", target=billing)
    targets.delete(billing.pk)
    answer = one(ann, old)
    assert answer.status_code == 400 and "billing was deleted" in answer.json()["detail"] and new() == []


def test_it_takes_the_permissions_to_schedule_and_to_use_the_target(ann, billing):
    old, plain = make(-60, status="Failed", target=billing), make(-60, status="Failed")
    ben, eve = Client(), Client()
    ben.force_login(person("ben"))
    eve.force_login(person("eve", ["view", "change"]))
    for answer in (one(ben, old), many(ben, status=["Failed"])):
        assert answer.status_code == 403 and "scheduler.use_target" in answer.json()["detail"]
    for answer in (one(eve, plain), many(eve, status=["Failed"], dry_run=True)):
        assert answer.status_code == 403 and "add_scheduledcall" in answer.json()["detail"]
    assert new() == [] and one(ben, plain).status_code == 201


def test_sent_twice_with_a_key_it_is_made_once(ann):
    old, other = make(-60, 2, status="Failed")
    key = {"Idempotency-Key": "a"}
    assert one(ann, old, **key).json() == one(ann, old, **key).json()
    assert one(ann, other, **key).status_code == 422
    assert many(ann, key, status=["Failed"]).status_code == 422
    assert len(new()) == 1


# Many.

def test_first_it_says_what_it_would_do(ann, billing):
    olds = [make(-3600 + i, status="Failed", target=billing) for i in range(12)]
    make(-3600, status="Succeeded"), make()
    answer = made(many(ann, status=["Failed"], dry_run=True), 200)
    assert (answer["dry_run"], answer["calls"], answer["more"]) == (True, 12, False)
    assert [call["id"] for call in answer["first"]] == [old.id for old in olds[:10]]
    assert new() == []


def test_then_it_does_it_at_the_rate_of_the_target(ann, billing):
    olds = [make(-3600 + i, status=ENDED[i % 2 + 1], target=billing) for i in range(12)]
    before = utcnow()
    answer = made(many(ann, status=["Failed", "Missed"]))
    calls = new()
    assert (answer["dry_run"], answer["calls"], answer["more"]) == (False, 12, False)
    assert [call["id"] for call in answer["first"]] == [call.id for call in calls[:10]]
    assert [call.again_of for call in calls] == [old.id for old in olds]
    assert before <= calls[0].timestamp <= utcnow()
    for i, call in enumerate(calls):
        assert call.timestamp - calls[0].timestamp == i * timedelta(seconds=0.5)
        assert call.expires_at is None or call.expires_at > call.timestamp + timedelta(seconds=60)


def test_what_the_api_has_perhaps_done_is_counted_and_can_be_left_out(ann, billing):
    refused, unknown = (make(-60, status="Failed", failure=failure, target=billing) for failure in ("refused", "unknown"))
    missed = make(-60, status="Missed", target=billing)
    answer = made(many(ann, status=["Failed", "Missed"], dry_run=True), 200)
    assert (answer["calls"], answer["unknown"]) == (3, 1)
    answer = made(many(ann, **{"status": ["Failed", "Missed"], "class": ["nothing", "refused", "answered"]}))
    assert (answer["calls"], answer["unknown"]) == (1, 0) and [call.again_of for call in new()] == [refused.id]
    assert made(many(ann, status=["Failed", "Missed"]))["unknown"] == 1
    assert {call.again_of for call in new()} == {refused.id, unknown.id, missed.id}


def test_the_filters_of_the_list_choose(ann, billing):
    mail = Target.objects.create(name="mail", url="https://mail.example.org/")
    schedule = Schedule.objects.create(name="noon", times="12:00:00", zone="UTC")
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def call(days, **fields):
        return ScheduledCall.objects.create(timestamp=at + timedelta(days=days), **fields).id
    first, second = call(0, status="Failed", target=billing), call(1, status="Failed", target=mail)
    third, missed = call(2, status="Failed", schedule=schedule), call(3, status="Missed", target=billing)

    def found(**filters):
        answer = made(many(ann, dry_run=True, **filters), 200)
        assert answer["calls"] == len(answer["first"])
        return [call["id"] for call in answer["first"]]
    assert found(status=["Failed"]) == [first, second, third]
    assert found(status=["Missed", "Failed"]) == [first, second, third, missed]
    assert found(status=["Failed", "Missed"], target="billing") == [first, missed]
    assert found(status=["Failed"], schedule=schedule.id) == [third]
    assert found(status=["Failed"], due_from="2026-01-02T00:00:00Z", due_before="2026-01-03T00:00:00Z") == [second]
    assert found(status=["Succeeded"]) == []


def test_each_is_made_again_once_and_what_failed_again_is_a_call_of_its_own(ann):
    make(-60, 3, status="Failed")
    assert made(many(ann, status=["Failed"]))["calls"] == 3
    assert made(many(ann, status=["Failed"]))["calls"] == 0
    ScheduledCall.objects.filter(status="Pending").update(status="Failed")
    assert made(many(ann, status=["Failed"]))["calls"] == 3
    assert len({call.again_of for call in new()}) == 6


def test_two_at_the_same_time_make_them_once():
    make(-60, 50, status="Failed")
    clients = [Client() for _ in range(4)]
    for client in clients:
        client.force_login(person())
    answers = at_once(4, lambda i: many(clients[i], status=["Failed"]))
    assert sum(made(answer)["calls"] for answer in answers) == 50 == len(new())
    assert len({call.again_of for call in new()}) == 50


def test_more_than_one_request_takes_are_for_the_next(ann):
    olds = [make(-3600 + i, status="Failed") for i in range(5)]
    with override_settings(MAX_TIMESTAMPS=3):
        answer = made(many(ann, status=["Failed"], dry_run=True), 200)
        assert (answer["calls"], answer["more"]) == (3, True)
        answer = made(many(ann, status=["Failed"]))
        assert (answer["calls"], answer["more"]) == (3, True)
        answer = made(many(ann, status=["Failed"]))
        assert (answer["calls"], answer["more"]) == (2, False)
    assert [call.again_of for call in sorted(new(), key=lambda call: call.id)] == [old.id for old in olds]


def test_those_of_a_deleted_target_are_left_out(ann, billing):
    make(-60, status="Failed", target=billing)
    plain = make(-60, status="Failed")
    targets.delete(billing.pk)
    made(many(ann, status=["Failed"]))
    assert [call.again_of for call in new()] == [plain.id]


@pytest.mark.parametrize("asked, says", [
    ({}, "status"), ({"dry_run": True}, "status"), ({"status": []}, "status"), ({"status": "Failed"}, "status"),
    ({"status": ["Pending"]}, "only calls that have ended"), ({"status": ["Failed", "Retrying"]}, "only calls that have ended"),
    ({"status": ["Failed", ["Failed"]]}, "status"), ({"status": [{}]}, "status"),
    ({"status": ["Failed"], "dry_run": "true"}, "dry_run"), ({"status": ["Failed"], "dryrun": True}, "dryrun"),
    ({"status": ["Failed"], "target": "nobody"}, "no target “nobody”"), ({"status": ["Failed"], "target": ""}, "no target"),
    ({"status": ["Failed"], "target": "a\0"}, "no target"), ({"status": ["Failed"], "target": None}, "target"),
    ({"status": ["Failed"], "target": 7}, "target"),
    ({"status": ["Failed"], "schedule": 7}, "no schedule 7"), ({"status": ["Failed"], "schedule": "x"}, "number"),
    ({"status": ["Failed"], "schedule": True}, "number"), ({"status": ["Failed"], "schedule": 10**30}, "schedule"),
    ({"status": ["Failed"], "class": "unknown"}, "nothing, refused, unknown, answered"), ({"status": ["Failed"], "class": ["lost"]}, "class: "),
    ({"status": ["Failed"], "class": []}, "class: "), ({"status": ["Failed"], "due_from": "soon"}, "due_from"), ({"status": ["Failed"], "due_before": 7}, "due_before"),
    ({"status": ["Failed"], "due_from": ""}, "due_from"), ({"status": ["Failed"], "due_from": None}, "due_from"),
])
def test_a_request_that_cannot_be_meant_is_a_400_in_words(ann, asked, says):
    make(-60, status="Failed")
    answer = many(ann, **asked)
    assert answer.status_code == 400 and says in answer.json()["detail"], answer.content
    assert new() == []


def test_a_list_is_no_request(ann):
    answer = ann.post(f"{URL}again/", "[]", "application/json")
    assert answer.status_code == 400 and "object" in answer.json()["detail"]


def test_sent_twice_with_a_key_the_answer_is_the_first(ann):
    make(-60, 2, status="Failed")
    key = {"Idempotency-Key": "a"}
    first = made(many(ann, key, status=["Failed"]))
    assert made(many(ann, key, status=["Failed"])) == first and first["calls"] == 2
    assert many(ann, key, status=["Missed"]).status_code == 422


@pytest.mark.processes
def test_what_is_due_now_is_handed_over_at_once(ann):
    made(one(ann, make(-60, status="Failed")))
    assert [call.handed_over_at is not None for call in new()] == [True]
