"""Idempotency-Key: a POST that is sent again returns the first answer instead of scheduling twice."""
import json
from datetime import timedelta

import pytest
from conftest import person, statuses
from django.core.management import call_command
from django.test import Client
from test_transitions import at_once

from scheduler.base.clock import utcnow
from scheduler.models import IdempotentAnswer, ScheduledCall

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
