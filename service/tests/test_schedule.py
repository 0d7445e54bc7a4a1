"""POST /api/schedule-api/: what is asked for is created, all of it or, with one clear 400, nothing."""
import gzip
import json
from datetime import datetime, timedelta, timezone

import pytest
from conftest import person, statuses
from django.test import Client, override_settings

from scheduler.base.words import printable
from scheduler.models import ScheduledCall

URL = "/api/schedule-api/"


@pytest.fixture
def client():
    client = Client()
    client.force_login(person())
    return client


def post(client, body, content_type="application/json"):
    return client.post(URL, body if isinstance(body, (str, bytes)) else json.dumps(body), content_type)


def as_it_is(client, body, content_type):
    """A POST of these bytes (or text, in UTF-8), which Django's client would bring into the charset."""
    return client.generic("POST", URL, body, content_type)


def test_the_answer_is_what_was_created(client):
    answer = post(client, {"timestamps": "2096-08-01T14:30:00Z, 2096-08-01T15:00:00Z"})
    assert answer.status_code == 201 and answer.reason_phrase.upper() == "CREATED"
    first, second = ScheduledCall.objects.order_by("id")
    assert answer.content.decode() == (
        f'[{{"id":{first.id},"timestamp":"2096-08-01T14:30:00Z","status":"Pending"}},'
        f'{{"id":{second.id},"timestamp":"2096-08-01T15:00:00Z","status":"Pending"}}]')
    assert first.timestamp == datetime(2096, 8, 1, 14, 30, tzinfo=timezone.utc)


def test_past_timestamps_are_ignored(client):
    answer = post(client, {"timestamps": "2020-01-01T00:00:00Z,2096-01-01T00:00:00Z"})
    assert [call["timestamp"] for call in answer.json()] == ["2096-01-01T00:00:00Z"]
    answer = post(client, {"timestamps": "2020-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()) == (201, [])
    assert statuses() == {"Pending": 1}


@pytest.mark.parametrize("given, stored", [
    ("2096-08-01T20:00:00+05:30", "2096-08-01T14:30:00Z"),
    ("2096-08-01T14:30:00.25Z", "2096-08-01T14:30:00.250000Z"),
    ("2096-08-01 14:30:00-00:00", "2096-08-01T14:30:00Z"),
    ("2096-08-01T14:30Z,", "2096-08-01T14:30:00Z"),
    ("2096-08-01t14:30:00z", "2096-08-01T14:30:00Z"),
    ("20960801T143000Z", "2096-08-01T14:30:00Z"),
    ("2096-W31-3T14:30:00+0000", "2096-08-01T14:30:00Z"),
    ("2096-08-01T14+00", "2096-08-01T14:00:00Z"),
    ("2096-08-01T14:30:00.123456789Z", "2096-08-01T14:30:00.123456Z"),
])
def test_forms_of_a_timestamp(client, given, stored):
    assert [call["timestamp"] for call in post(client, {"timestamps": given}).json()] == [stored]


def test_order_and_repetition_are_kept(client):
    answer = post(client, {"timestamps": "2096-01-02T00:00:00Z,2096-01-01T00:00:00Z,2096-01-02T00:00:00Z"})
    assert [call["timestamp"][:10] for call in answer.json()] == ["2096-01-02", "2096-01-01", "2096-01-02"]


@pytest.mark.parametrize("body, says", [
    ("{", "JSON"),
    ("", "missing"),
    ("[" * 100_000, "nested"),
    ("[1]", "object"),
    ("null", "object"),
    ({}, "`timestamps` is missing"),
    ({"timestamps": None}, "one string"),
    ({"timestamps": 5}, "one string"),
    ({"timestamps": ["2096-01-01T00:00:00Z"]}, "one string"),
    ({"timestamps": ""}, "empty"),
    ({"timestamps": "2096-01-01T00:00:00Z,,2096-01-01T00:00:00Z"}, "is empty"),
    ({"timestamps": "9999-12-31T23:59:59-12:00"}, "calendar"),
    ({"timestamps": "9999-01-01T00:00:00Z"}, "too far ahead"),
    ({"timestamps": "2096-02-30T00:00:00Z"}, "'2096-02-30T00:00:00Z' is not an ISO 8601"),
    ({"timestamps": "２０９６-01-01T00:00:00Z"}, "is not an ISO 8601"),
    ({"timestamps": "2096-01-01T00:00:00"}, "which zone"),
    ({"timestamps": "2096-01-01"}, "is not an ISO 8601"),
    ({"timestamps": "2096-03-04914:30:00Z"}, "'2096-03-04914:30:00Z' is not an ISO 8601"),
    ({"timestamps": "2096-03-04T14:30:00+14:60"}, "is not an ISO 8601"),
    ({"timestamps": "2096-03-04T14:30:00+24:00"}, "is not an ISO 8601"),
    ({"timestamps": "2096-03-04T14:30:00+05:30:15"}, "is not an ISO 8601"),
    ({"timestamps": "2096-03-04T14:30:00 +05:30"}, "is not an ISO 8601"),
    ({"timestamps": "2096-03-04\t14:30:00Z"}, "is not an ISO 8601"),
    ({"timestamps": "2096-3-4T4:30:00Z"}, "is not an ISO 8601"),
    ({"timestamps": "20960304T14:30:00Z"}, "is not an ISO 8601"),
    ({"timestamps": "2096-03-04T14:30:00.Z"}, "is not an ISO 8601"),
    ('{"timestamps": "\\ud800\\u0007"}', "is not an ISO 8601"),
    ({"timestamps": "2096-01-01T00:00:00Z," * 11}, "11 timestamps are too many"),
    ({"timestamps": "2096-01-01T00:00:00Z" + " " * 5000}, "too large"),
])
def test_a_bad_request_is_one_clear_400_and_creates_nothing(client, body, says):
    with override_settings(MAX_TIMESTAMPS=10, BODY_MAX=5000,
                           DATA_UPLOAD_MAX_MEMORY_SIZE=200_000 if "nested" in says else 5000):
        answer = post(client, body)
    assert answer.status_code == 400, answer.content
    assert says in answer.json()["detail"]
    assert not answer.json()["detail"].count("\a")
    assert ScheduledCall.objects.count() == 0


ONE = '{"timestamps": "2096-01-01T00:00:00Z", "note": "é"}'


@pytest.mark.parametrize("body, says", [
    ('{"timestamps": "2096-01-01T00:00:00Z", "timestamps": "2097-01-01T00:00:00Z"}', 'The key "timestamps" stands twice; which is meant?'),
    ('{"timestamps": "2096-01-01T00:00:00Z", "note": {"a": 1, "b\\u001b": 2, "b\\u001B": 3}}', r'The key "b\x1b" stands twice'),
    (ONE.encode("utf-16"), "The body is UTF-16; send it as UTF-8."), (ONE.encode("utf-16-le"), "The body is UTF-16;"),
    (ONE.encode("utf-16-be"), "The body is UTF-16;"), (ONE.encode("utf-32"), "The body is UTF-32;"),
    (ONE.encode("latin-1"), "The body is not UTF-8: its byte 49 is 0xe9."),
    (gzip.compress(ONE.encode(), mtime=0), "The body is compressed (gzip); send it as plain JSON."),
    (bytes.fromhex("28b52ffd04"), "The body is compressed (zstd)"),
    ('{"timestamps": NaN}', "JSON parse error"),
])
def test_a_body_in_another_form_is_refused_in_words_that_name_it(client, body, says):
    for content_type in ("application/json", "application/json; charset=latin-1"):
        answer = as_it_is(client, body, content_type)
        assert answer.status_code == 400 and says in answer.json()["detail"], answer.json()
    assert statuses() == {}


@pytest.mark.parametrize("coding, says", [("gzip", "compressed (gzip)"), (" BR ", "compressed (br)"), ("identity", None)])
def test_what_a_header_says_of_the_body_is_told(client, coding, says):
    answer = client.post(URL, ONE, "application/json", headers={"Content-Encoding": coding})
    assert (answer.status_code == 201) == (says is None) and (says is None or says in answer.json()["detail"])


def test_a_byte_order_mark_is_skipped_and_a_charset_has_no_meaning(client):
    for content_type in ("application/json", "application/json; charset=latin-1"):
        assert as_it_is(client, "\ufeff" + ONE, content_type).status_code == 201
    assert [call.note for call in ScheduledCall.objects.all()] == ["é", "é"]


def test_every_bad_timestamp_is_named(client):
    answer = post(client, {"timestamps": "2096-01-01T00:00:00Z, yesterday, 2096-01-01T00:00:00, 25:00"})
    assert answer.status_code == 400
    assert [bad["timestamp"] for bad in answer.json()["errors"]] == ["yesterday", "2096-01-01T00:00:00", "25:00"]
    for name in ("yesterday", "2096-01-01T00:00:00", "25:00", "3 of 4"):
        assert name in answer.json()["detail"]
    assert ScheduledCall.objects.count() == 0


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_only_json_is_taken(client, content_type):
    """A web page may post the others from a visitor's browser without asking."""
    answer = post(client, "timestamps=2096-01-01T00:00:00Z", content_type)
    assert answer.status_code == 400 and "application/json" in answer.json()["detail"]
    assert ScheduledCall.objects.count() == 0


@pytest.mark.parametrize("key", ["url", "API_URL", "timestamp", "Timestamps", "a\x07"])
def test_no_request_chooses_what_is_called_and_a_misspelt_key_is_told(client, key):
    answer = post(client, {"timestamps": "2096-01-01T00:00:00Z", key: "http://elsewhere/"})
    assert answer.status_code == 400 and printable(key) in answer.json()["detail"]
    assert statuses() == {}


def test_ten_thousand_in_one_transaction(client):
    answer = post(client, {"timestamps": ",".join(["2096-01-01T00:00:00Z"] * 10_000)})
    assert answer.status_code == 201 and len({call["id"] for call in answer.json()}) == 10_000


@pytest.mark.processes
def test_what_is_due_soon_is_handed_over_on_commit_and_the_rest_is_left_to_the_dispatcher(client):
    now = datetime.now(timezone.utc)
    post(client, {"timestamps": f"{now + timedelta(seconds=9):%FT%TZ}, {now + timedelta(seconds=90):%FT%TZ}"})
    soon, later = ScheduledCall.objects.order_by("timestamp")
    assert soon.handed_over_at and not later.handed_over_at


def test_a_chunked_body_is_refused_with_the_reason(client):
    answer = client.post(URL, json.dumps({"timestamps": "2096-01-01T00:00:00Z"}), "application/json",
                         headers={"Transfer-Encoding": "chunked"})
    assert answer.status_code == 400 and "Content-Length" in answer.json()["detail"]
