"""GET /api/schedule-api/ and GET .../{id}/: find calls, and everything about one."""
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from conftest import make, person
from django.test import Client

from scheduler.base.words import printable
from scheduler.models import ScheduledCall

URL = "/api/schedule-api/"


@pytest.fixture
def get():
    client = Client()
    client.force_login(person())

    def get(path=URL, **query):
        return client.get(path, query)
    return get


def ids(answer):
    assert answer.status_code == 200, answer.content
    return [call["id"] for call in answer.json()["results"]]


def pages(get, **query):
    """All ids, page by page."""
    answer, found = get(**query), []
    while True:
        found += ids(answer)
        assert len(found) <= ScheduledCall.objects.count(), "pages repeat themselves"
        following = answer.json()["next"]
        if not following:
            return found
        answer = get(following)


def test_by_status(get):
    make(), make(status="Failed")
    assert ids(get(status="Failed")) == [ScheduledCall.objects.get(status="Failed").id]
    assert get(status="Nonsense").status_code == 400


@pytest.mark.parametrize("name", ["state", "Status", "status ", "page", "a\nb"])
def test_a_misspelt_parameter_does_not_list_everything(get, name):
    answer = get(**{name: "Failed"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == (
        f"There is no parameter {printable(name)}; there are status, due_from, due_before, schedule, target, ordering, "
        "cursor, page_size.")


def test_by_time(get):
    at = [datetime(2096, 1, day, tzinfo=timezone.utc) for day in (1, 2, 3)]
    first, second, third = [ScheduledCall.objects.create(timestamp=time).id for time in at]
    assert ids(get(due_from="2096-01-02T00:00:00Z")) == [second, third]
    assert ids(get(due_before="2096-01-02T00:00:00Z")) == [first]
    assert ids(get(due_from="2096-01-01T12:00:00+00:00", due_before="2096-01-03T00:00:00Z")) == [second]
    assert get(due_from="soon").status_code == 400


def test_order(get):
    late, early = make(90).id, make(30).id
    assert ids(get()) == [early, late]
    assert ids(get(ordering="-timestamp")) == [late, early]
    assert ids(get(ordering="id")) == [late, early]
    assert ids(get(ordering="-id")) == [early, late]


@pytest.mark.parametrize("ordering", ["timestamp", "-timestamp", "id"])
def test_pages_hold_every_call_once_even_thousands_of_one_second(get, ordering):
    calls = make(60, 2500) + make(90, 10)
    found = pages(get, page_size=400, ordering=ordering)
    assert len(found) == len(set(found)) == 2510
    assert found == sorted(found, reverse=ordering[0] == "-")
    assert set(found) == {call.id for call in calls}


def test_everything_about_one(get):
    due = datetime(2026, 8, 1, 14, 30, tzinfo=timezone.utc)
    call = ScheduledCall.objects.create(
        timestamp=due, status="Failed", started_at=due + timedelta(milliseconds=20),
        ended_at=due + timedelta(seconds=1), http_status=503, error="HTTP status 503")
    answer = get(f"{URL}{call.id}/").json()
    assert answer == {
        "id": call.id, "timestamp": "2026-08-01T14:30:00Z", "status": "Failed",
        "created_at": answer["created_at"], "handed_over_at": None,
        "started_at": "2026-08-01T14:30:00.020000Z", "ended_at": "2026-08-01T14:30:01Z",
        "lateness": 0.02, "caught_up": False, "http_status": 503, "error": "HTTP status 503",
        "scheduled_by": "", "scheduled_via": "", "note": "", "again_of": None, "cancelled_by": "", "schedule": None,
        "target": None, "request": None, "next_attempt_at": None, "expires_at": None, "attempts": answer["attempts"]}


@pytest.mark.parametrize("call_id", ["1", "99999999999999999999999999", "abc"])
def test_there_is_no_such_call(get, call_id):
    assert get(f"{URL}{call_id}/").status_code == 404


@pytest.mark.parametrize("query", [
    {"page_size": "0"}, {"page_size": "1001"}, {"page_size": "many"}, {"page_size": "9" * 30},
    {"ordering": "error"}, {"ordering": "timestamp,id"}])
def test_a_bad_page_is_a_clear_400(get, query):
    answer = get(**query)
    assert answer.status_code == 400 and list(query)[0] in answer.json()["detail"]


@pytest.mark.parametrize("ordering", ["timestamp", "-timestamp", "id", "-id"])
@pytest.mark.parametrize("position", ["abc", "", "0001-01-01T00:00:00+23:00", "2096-01-01T00:00:00+20:00", "9" * 30])
def test_a_cursor_that_nobody_was_given_is_no_page(get, ordering, position):
    make()
    cursor = b64encode(f"p={quote(position)}".encode()).decode()
    answer = get(ordering=ordering, cursor=cursor)
    assert answer.status_code in (200, 404), "some are as good as true ones"
    assert answer.status_code == 404 or position != "abc"
    if answer.status_code == 404:
        assert answer.json() == {"detail": "Invalid cursor"}
