"""Idempotency-Key: a POST that is sent again returns the first answer instead of scheduling twice."""
import json
from datetime import timedelta

import pytest
from conftest import guest, person, statuses
from django.core.management import call_command
from django.test import Client
from test_transitions import at_once

from scheduler.base.clock import utcnow
from scheduler.calls import targets
from scheduler.models import IdempotentAnswer, Schedule, ScheduledCall, Target
from scheduler.schedules import planner

ONE = "2096-08-01T14:30:00Z"


def client(name="ann"):
    client = Client()
    client.force_login(person(name))
    return client


def post(client, key, timestamps=ONE):
    return client.post("/api/schedule-api/", json.dumps({"timestamps": timestamps}), "application/json",
                       headers={"Idempotency-Key": key})


def test_repeated_it_is_answered_the_same_and_schedules_nothing():
    ann = client()
    first, again = post(ann, "a"), post(ann, "a")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json() and statuses() == {"Pending": 1}
    ScheduledCall.objects.update(status="Succeeded")
    assert post(ann, "a").content == first.content


def test_another_key_and_no_key_are_other_requests():
    ann = client()
    post(ann, "a"), post(ann, "b")
    ann.post("/api/schedule-api/", json.dumps({"timestamps": ONE}), "application/json")
    assert statuses() == {"Pending": 3}


def test_the_same_key_for_other_timestamps_is_refused():
    ann = client()
    post(ann, "a")
    answer = post(ann, "a", "2096-08-01T14:30:01Z")
    assert answer.status_code == 422 and "new key" in answer.json()["detail"]
    assert statuses() == {"Pending": 1}


def test_another_users_key_is_another_key():
    post(client("ann"), "a"), post(client("bob"), "a")
    assert statuses() == {"Pending": 2}


def test_a_refused_request_does_not_use_the_key_up():
    ann = client()
    assert post(ann, "a", "tomorrow").status_code == 400
    assert post(ann, "a").status_code == 201


def test_many_at_once_schedule_once():
    clients = [client() for _ in range(8)]
    answers = at_once(8, lambda i: post(clients[i], "a", ", ".join([ONE] * 50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert statuses() == {"Pending": 50}


@pytest.fixture
def billing():
    target = Target(name="billing", url="https://api.example.org/", timeout=0.1)
    targets.save(target)
    schedule = Schedule(name="lunch", times="12:30:00", zone="UTC", on=False, target=target)
    planner.save(schedule)
    return schedule


def test_a_run_of_a_schedule_that_is_sent_again_is_one_call(billing):
    ann = guest("change_schedule", "use_target")

    def run(key, note=""):
        return ann.post(f"/api/schedules/{billing.pk}/run/", {"note": note}, "application/json", headers={"Idempotency-Key": key})
    first = run("a")
    targets.pause(billing.target)
    assert run("a").content == first.content and run("a").status_code == first.status_code == 201
    assert run("a", "another").status_code == 422
    assert run("b").status_code == 409 and run("x" * 256).status_code == 400, "what is refused uses no key up"
    targets.resume(billing.target)
    assert run("b").status_code == 201 and statuses() == {"Pending": 2}


def test_a_test_of_a_target_that_is_sent_again_is_one_call(billing):
    ann = guest("use_target")

    def try_it(key, data={}):
        return ann.post("/api/targets/billing/test/", {"data": data}, "application/json", headers={"Idempotency-Key": key})
    first = try_it("a")
    assert first.status_code == 202 and statuses() == {"Pending": 1}
    ScheduledCall.objects.update(status="Succeeded", started_at=utcnow(), ended_at=utcnow(), http_status=200, attempts_made=1)
    again = try_it("a")
    assert (again.status_code, again.json()["call"]) == (201, first.json()["call"]), "it says how that went"
    assert again.json()["attempt"]["http_status"] == 200
    assert try_it("a", {"order": 7}).status_code == 422 and statuses() == {"Succeeded": 1}


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x07", "ä"])
def test_a_key_must_be_reasonable(key):
    assert post(client(), key).status_code == 400
    assert statuses() == {}


def test_prune_forgets_keys_after_a_day():
    ann = client()
    post(ann, "old"), post(ann, "new")
    IdempotentAnswer.objects.filter(key="old").update(created_at=utcnow() - timedelta(hours=25))
    call_command("prune", "30", verbosity=0)
    assert [record.key for record in IdempotentAnswer.objects.all()] == ["new"]
