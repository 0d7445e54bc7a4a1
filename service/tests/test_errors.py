"""Every error in one shape, and every 500 told to the operator."""
import hashlib
from datetime import datetime, timezone

import pytest
import requests
from conftest import make, person
from django.test import Client
from rest_framework.authtoken.models import Token

from scheduler.models import IdempotentAnswer

CALLS = "/api/schedule-api/"


@pytest.mark.parametrize("debug", ["true", "false"])
def test_a_500_is_json_and_leaves_one_traceback(stack, debug):
    """A row that nobody can have written: an answer that is no JSON."""
    user = person()
    due = datetime(2096, 1, 1, tzinfo=timezone.utc)
    IdempotentAnswer.objects.create(scope=f"user {user.pk}", key="a", answer="{",
                                    fingerprint=hashlib.sha256(due.isoformat().encode()).hexdigest())
    stack.start("web", DEBUG=debug)
    headers = {"Authorization": f"Token {Token.objects.create(user=user).key}", "Idempotency-Key": "a"}
    for number in (1, 2):
        answer = requests.post(stack.url + CALLS, json={"timestamps": due.isoformat()}, headers=headers, timeout=10)
        assert answer.status_code == 500 and "not your request" in answer.json()["detail"]
        output = stack.outputs["web"].read_text()
        assert output.count("Traceback") == output.count("Internal Server Error: /api/schedule-api/") == number
        assert output.count("JSONDecodeError") == number


def test_what_strangers_can_cause_leaves_none(stack):
    many = "?a=" + "&a=" * 1300         # more than Django takes
    stack.start("web", DEBUG="false")
    before = stack.outputs["web"].read_text()
    for path in ("/nowhere", "/admin/nowhere", "/api/nowhere", CALLS, CALLS + many, "/admin/login/" + many):
        assert 300 <= requests.get(stack.url + path, timeout=10, allow_redirects=False).status_code < 500
    assert requests.post(stack.url + "/admin/login/", data={"a": "x" * 3_000_000}, timeout=10).status_code in (400, 403)
    assert stack.outputs["web"].read_text() == before


@pytest.fixture
def get():
    client = Client()
    client.force_login(person())
    return lambda path=CALLS, **query: client.get(path, query)


@pytest.mark.parametrize("query, detail, parameters", [
    ({"status": "Nonsense"}, "status: “Nonsense” is none of Pending, Running", ["status"]),
    ({"status": ""}, "status: “” is none of Pending", ["status"]),
    ({"status": ["Failed", "Nonsense"]}, "“Nonsense” is none of", ["status"]),
    ({"due_from": "soon"}, "due_from: “soon” is not an ISO 8601 date and time", ["due_from"]),
    ({"due_from": "soon", "due_before": "2096-01-01T00:00:00"}, "which zone is meant", ["due_from", "due_before"]),
    ({"due_from": "2096-01-01T00:00:00 05:30"}, "(In a URL a + is written %2B.)", ["due_from"]),
    ({"due_from": "100%d"}, "“100%d” is not", ["due_from"]),
    ({"due_from": ""}, "due_from: “” is empty", ["due_from"]),
    ({"cursor": "abc"}, "Invalid cursor", None),
    ({"cursor": "!!!!"}, "Invalid cursor", None),
    ({"cursor": "%%"}, "Invalid cursor", None),
    ({"cursor": "\0"}, "Invalid cursor", None),
    ({"cursor": "ä"}, "Invalid cursor", None),
    ({"cursor": ""}, "Invalid cursor", None),
    ({"cursor": "aGVsbG8="}, "Invalid cursor", None),
    ({"page_size": "0"}, "page_size must be", None),
    ({"due_from": ["2096-01-01T00:00:00Z", "2097-01-01T00:00:00Z"]}, "due_from stands twice", None),
    ({"page_size": ["1", "2"]}, "page_size stands twice", None),
    ({"&".join(["a"] * 3): "1"}, "There is no parameter", None),
])
def test_one_shape(get, query, detail, parameters):
    answer = get(**query)
    assert answer.status_code in (400, 404) and answer["Content-Type"] == "application/json"
    told = answer.json()
    assert isinstance(told["detail"], str) and detail in told["detail"]
    assert set(told) == ({"detail", "errors"} if parameters else {"detail"})
    if parameters:
        assert [error["parameter"] for error in told["errors"]] == parameters
        assert all(error["reason"] for error in told["errors"])


def test_two_statuses_mean_either(get):
    made = {status: make(status=status).id for status in ("Failed", "Missed", "Pending")}
    answer = get(status=["Failed", "Missed"])
    assert sorted(call["id"] for call in answer.json()["results"]) == sorted([made["Failed"], made["Missed"]])


def test_a_plus_that_is_written_as_one_ought_to(get):
    assert get(CALLS + "?due_from=2096-01-01T00:00:00%2B05:30").status_code == 200
    for time, hint in (("2096-01-01T00:00:00+05:30", True), ("2096-01-01T00:00:00+05", True),
                       ("2096-01-01+00:00:00.5+0530", True), ("20960101T000000+0530", True),
                       ("2096-01-01+14", False), ("2096-01-01+14:30", False)):
        assert ("%2B" in get(CALLS + f"?due_from={time}").json()["detail"]) == hint, time
