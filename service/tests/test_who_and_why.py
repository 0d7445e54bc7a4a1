"""Who scheduled a call, why, and who cancelled it: by the API."""
import hashlib
import json

import pytest
from conftest import make, person, statuses
from django.contrib.auth.models import User
from django.test import Client, override_settings

from scheduler.calls import ledger
from scheduler.models import IdempotentAnswer, ScheduledCall

URL = "/api/schedule-api/"
ONE = "2096-08-01T14:30:00Z"


@pytest.fixture
def ann():
    client = Client()
    client.force_login(person())
    return client


def post(client, body, **headers):
    return client.post(URL, json.dumps(body), "application/json", headers=headers)


def test_it_is_kept_with_each_call_and_stands_in_its_detail(ann):
    answer = post(ann, {"timestamps": f"{ONE}, {ONE}", "note": "Nightly import, ünïcode & <b>"})
    assert answer.status_code == 201
    for call in answer.json():
        assert list(call) == ["id", "timestamp", "status"], "the answer stays as it was"
        detail = ann.get(f"{URL}{call['id']}/").json()
        assert (detail["scheduled_by"], detail["scheduled_via"]) == ("ann", "API")
        assert (detail["note"], detail["again_of"]) == ("Nightly import, ünïcode & <b>", None)
    assert len({call.created_at for call in ScheduledCall.objects.all()}) == 1


def test_who_cancelled_it(ann):
    call = make()
    assert ann.delete(f"{URL}{call.id}/").status_code == 200
    detail = ann.get(f"{URL}{call.id}/").json()
    assert (detail["status"], detail["cancelled_by"], detail["scheduled_by"]) == ("Cancelled", "ann", "")


def test_the_name_outlives_the_user(ann):
    post(ann, {"timestamps": ONE})
    User.objects.all().delete()
    assert ScheduledCall.objects.get().scheduled_by == "ann"


@override_settings(DEBUG=True)
def test_nobody_is_known_in_local_development():
    assert post(Client(), {"timestamps": ONE}).status_code == 201
    assert (ScheduledCall.objects.get().scheduled_by, ScheduledCall.objects.get().scheduled_via) == ("", "API")


# Persian with its joiner, a Japanese blank, a joined emoji, a flag of tags, French and Hebrew with theirs, and a
# character of a Unicode that is newer than Python's.
WRITTEN = ["می\u200cخواهم", "会議\u3000東京", "👩\u200d💻 deploys", "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
           "prêt\u202f!", "שלום\u200f!", "\U0001fae9", "نسخ احتياطي"]


@pytest.mark.parametrize("note", ["x" * 200, "ü" * 200, "𝄞" * 200, "", " ", "مرحبا", "=1+1", "%s {}", *WRITTEN])
def test_a_note_that_is_taken(ann, note):
    assert post(ann, {"timestamps": ONE, "note": note}).status_code == 201
    assert ScheduledCall.objects.get().note == note


@pytest.mark.parametrize("note, says", [
    ("x" * 201, "`note` has 201 characters; at most 200 are taken."), ("𝄞" * 201, "201 characters"),
    ("a\nb", "`note` holds U+000A (character 2), a control character: take it out."), ("a\0", "U+0000 (character 2)"),
    ("\x1b[2J", "U+001B (character 1)"), ("a\x85b", "U+0085"), ("\ud800", "U+D800 (character 1), half of a character"),
    ("a\u2028b", "U+2028 LINE SEPARATOR (character 2), which ends a line"), ("a\u2029b", "U+2029 PARAGRAPH SEPARATOR"),
    *((f"a{c}b", f"U+{ord(c):04X} {name} (character 2), which turns the direction of reading") for c, name in (
        ("\u202a", "LEFT-TO-RIGHT EMBEDDING"), ("\u202b", "RIGHT-TO-LEFT EMBEDDING"),
        ("\u202c", "POP DIRECTIONAL FORMATTING"), ("\u202d", "LEFT-TO-RIGHT OVERRIDE"),
        ("\u202e", "RIGHT-TO-LEFT OVERRIDE"), ("\u2066", "LEFT-TO-RIGHT ISOLATE"),
        ("\u2067", "RIGHT-TO-LEFT ISOLATE"), ("\u2068", "FIRST STRONG ISOLATE"),
        ("\u2069", "POP DIRECTIONAL ISOLATE"))),
    (None, "`note` must be a string."), (1, "must be a string"), (["a"], "must be a string")])
def test_a_note_that_is_refused(ann, note, says):
    answer = post(ann, {"timestamps": ONE, "note": note})
    assert answer.status_code == 400 and says in answer.json()["detail"]
    assert statuses() == {}


def test_a_misspelt_key_is_refused(ann):
    assert "there are `timestamps` and" in post(ann, {"timestamps": ONE, "notes": "x"}).json()["detail"]


def test_a_repeated_request_is_the_same_only_with_the_same_note(ann):
    key = {"Idempotency-Key": "a"}
    first = post(ann, {"timestamps": ONE, "note": "x"}, **key)
    assert post(ann, {"timestamps": ONE, "note": "x"}, **key).content == first.content
    for body in ({"timestamps": ONE, "note": "y"}, {"timestamps": ONE}, {"timestamps": ONE + "," + ONE, "note": "x"}):
        answer = post(ann, body, **key)
        assert answer.status_code == 422 and "or another note" in answer.json()["detail"]
    assert statuses() == {"Pending": 1}


def test_a_request_from_before_an_update_is_known_after_it(ann):
    """What was kept then is the SHA-256 of its times alone."""
    call = make()
    answer = [{"id": call.id, "timestamp": ONE, "status": "Pending"}]
    IdempotentAnswer.objects.create(
        scope=f"user {User.objects.get().pk}", key="a", answer=json.dumps(answer),
        fingerprint=hashlib.sha256(b"2096-08-01T14:30:00+00:00").hexdigest())
    assert post(ann, {"timestamps": ONE}, **{"Idempotency-Key": "a"}).json() == answer
    assert post(ann, {"timestamps": ONE, "note": ""}, **{"Idempotency-Key": "a"}).json() == answer
    assert statuses() == {"Pending": 1}


def test_many_are_cancelled_at_once_and_each_has_its_line(log):
    pending, running = make(60, 2500), make(status="Running")
    ids = [call.id for call in pending] + [running.id, 10 ** 9]
    assert sorted(ledger.cancel(ids, by="ann")) == sorted(call.id for call in pending)
    assert ledger.cancel(ids) == [] == ledger.cancel([])
    assert statuses() == {"Cancelled": 2500, "Running": 1} and len(log()) == 2500
    assert {(call.status, call.cancelled_by, call.ended_at is None) for call in ScheduledCall.objects.all()} == {
        ("Cancelled", "ann", False), ("Running", "", True)}
