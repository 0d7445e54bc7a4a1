"""The admin of calls that name a target: their page with its attempts, what may be done, and the form that adds them."""
import json
import re
from datetime import timedelta
from html import unescape

import pytest
from conftest import examples, make, person, statuses
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.admin import paste
from scheduler.admin.attempts import laid_out
from scheduler.base.clock import utcnow
from scheduler.calls import ledger
from scheduler.models import Attempt, CallRequest, ScheduledCall, Target

LIST = "/admin/scheduler/scheduledcall/"
ROOT = ("view", "add", "change")
KEPT = {"version": 3, "address": "203.0.113.7", "phases": {"name": 1.25, "connect": 8, "tls": 14.1, "answer": 188},
        "request": {"method": "POST", "url": "https://api.example/run?<b>", "headers": {"X-Api-Key": "***"}, "body": "{\"id\": 7}"},
        "response": {"headers": [["Retry-After", "5"]], "body": "<script>busy</script>", "truncated": True}}


@pytest.fixture
def target():
    return Target.objects.create(name="billing", url="https://api.example/run", method="POST")


def client(*may):
    """Somebody of the staff with these permissions for targets, and the usual ones for calls."""
    user = person("ann", may=ROOT)
    user.is_staff = True
    user.save()
    user.user_permissions.add(*Permission.objects.filter(codename__in=may))
    client = Client()
    client.force_login(user)
    return client


def page(client, call, way="change"):
    answer = client.get(f"{LIST}{call.pk}/{way}/", follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def words(html):
    return " ".join(re.sub("<[^>]+>", " ", html).split())


def tried(target, **fields):
    """A call that was refused once, and is to be tried again."""
    call = make(-60, target=target, **{
        "status": "Retrying", "next_attempt_at": utcnow() + timedelta(minutes=9), "attempts_made": 1, "failure": "refused",
        "http_status": 503, "error": "HTTP status 503", "started_at": utcnow() - timedelta(seconds=60), **fields})
    began = utcnow() - timedelta(seconds=59)
    Attempt.objects.create(
        call=call, number=1, started_at=began, ended_at=began + timedelta(milliseconds=212.4), outcome="Failed",
        failure="refused", http_status=503, error="HTTP status 503", kept=KEPT)
    return call


def attempts(html):
    """What the page says of the attempts."""
    found = html.split('id="attempts"')[1].split("<fieldset")[0]
    return unescape(words("<p " + re.sub("</?b>|</?bdi>", "", found)))


def test_its_attempts(target):
    shown = page(client("see_request"), tried(target))
    said = attempts(shown)
    for text in ("Failed HTTP status 503 212.4 ms name 1.2 ms connection 8.0 ms TLS 14.1 ms answer 188.0 ms started 2",
                 "the API it refused address 203.0.113.7 target's version 3",
                 "What came back <script>busy</script> Only its beginning was kept. Headers Retry-After: 5",
                 'What was sent POST https://api.example/run?<b> X-Api-Key: *** { "id": 7 }'):
        assert text in said, (text, said)
    assert re.search(r"The next attempt is made at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", said)
    assert 'aria-label="name 1.2 ms, connection 8.0 ms, TLS 14.1 ms, answer 188.0 ms"' in shown
    assert [float(part) for part in re.findall(r"flex-grow: ([0-9.]+)", shown)] == [1.2, 8, 14.1, 188], "a bar with a part for each"
    assert '{\n  &quot;id&quot;: 7\n}</pre>' in shown, "JSON is laid out"
    assert '<div class="readonly"><bdi>billing</bdi></div>' in shown and shown.count("it refused") == 1
    assert shown.index('id="attempts"') < shown.index('class="form-row field-how'), "first the answer, then the rest"


def test_the_last_attempt_is_open_and_what_was_sent_with_the_one_that_failed(target):
    call = tried(target, status="Succeeded", attempts_made=3, next_attempt_at=None, http_status=200, error="", ended_at=utcnow())
    for number, outcome in ((2, "Failed"), (3, "Succeeded")):
        Attempt.objects.create(call=call, number=number, started_at=utcnow(), ended_at=utcnow(), outcome=outcome, kept=KEPT,
                               http_status=503 if outcome == "Failed" else 200, error="busy" if outcome == "Failed" else "")
    shown = page(client("see_request"), call)
    assert re.findall(r'<details class="attempt"( open)?>(?:.|\n)*?attempt (\d)', shown) == [(" open", "3"), ("", "2"), ("", "1")]
    assert re.findall(r'<details class="sent"( open)?>', shown) == ["", " open", ""]
    assert "3 attempts, the last first" in shown and "busy HTTP status 503" in attempts(shown)


@pytest.mark.parametrize("of_target", [True, False])
def test_the_same_words_do_not_stand_twice(target, of_target):
    at = utcnow()
    call = make(-60, status="Failed", http_status=500, error="HTTP status 500", started_at=at, failure="unknown", attempts_made=1,
                ended_at=at + timedelta(milliseconds=1250), target=target if of_target else None)
    shown = page(client("see_request"), call)
    assert shown.count("HTTP status") == 1 and not re.search(r"(?<![.\d])500\b", shown.split("HTTP status 500")[1].split("</form>")[0])
    assert "HTTP status 500 1,250 ms" in attempts(shown) and shown.count("perhaps done it") == 1
    for field in ("error", "http_status", "started", "ended", "has_of_it", "attempts_made"):
        assert f"field-{field}" not in shown, field


def test_an_error_that_no_attempt_has_stands_first():
    shown = page(client(), make(-90, status="Missed", error="not started within 60 s of its time", ended_at=utcnow()))
    assert 'id="attempts"' not in shown and shown.count("not started within 60 s") == 1
    assert shown.index("field-error") < shown.index("How it went")


def test_what_is_not_kept_is_said(target):
    call = make(-60, status="Succeeded", http_status=200, started_at=utcnow(), ended_at=utcnow(), target=target, trace={
        "request": {"method": "GET", "url": "https://api.example/", "headers": {}, "body": None},
        "response": {"headers": {"Date": "today"}, "body": "", "truncated": True}})
    assert "Its body was not kept: its target says how much of a success is." in attempts(page(client("see_request"), call))
    assert "are shown to those who may see what is sent to targets." in attempts(page(client(), call))
    plain = make(-60, status="Succeeded", http_status=200, started_at=utcnow(), ended_at=utcnow())
    assert "Of a success without a target nothing more is kept." in attempts(page(client(), plain))
    ScheduledCall.objects.filter(id=call.id).update(trace=call.trace | {"response": {"headers": {}, "body": "", "truncated": False}})
    assert "Its body was empty." in attempts(page(client("see_request"), call))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@settings(max_examples=examples(200), deadline=None)
@given(JSON, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_json_is_laid_out_and_stays_the_same(value, indent, plain):
    """Python's own indentation is the measure."""
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    if isinstance(value, (dict, list)):
        assert laid_out(text) == json.dumps(value, indent=2, ensure_ascii=plain)
    else:
        assert laid_out(text) == text


@pytest.mark.parametrize("text, laid", [
    ('{"a":1.00,"a":12345678901234567890123,"b":"x\\"{"}', '{\n  "a": 1.00,\n  "a": 12345678901234567890123,\n  "b": "x\\"{"\n}'),
    ("{oops}", "{oops}"), ("<p>{</p>", "<p>{</p>"), ("", ""), ("[" * 5000, "[" * 5000), ("[" * 40 + "]" * 40, "[" * 40 + "]" * 40),
    ("[1," * 99_999 + "1]", "[1," * 99_999 + "1]")])
def test_what_is_laid_out_keeps_its_digits_and_what_is_no_json_its_form(text, laid):
    assert laid_out(text) == laid


def test_the_beginning_of_json_is_laid_out_as_far_as_it_goes():
    assert laid_out('{"a": [1, "two', whole=False) == '{\n  "a": [\n    1,\n    "two'


def test_what_was_sent_is_seen_only_with_the_permission(target):
    call = tried(target)
    CallRequest.objects.create(call=call, body="to be <seen>", headers={"X-One": "1"}, data={"order": 7})
    assert "What is sent with it" in page(client("see_request"), call) and "to be &lt;seen&gt;" in page(client("see_request"), call)
    shown = page(client("use_target"), call)
    for text in ("api.example", "203.0.113.7", "X-Api-Key", "busy", "Retry-After", "be &lt;seen", "X-One", "What was sent", "What came back"):
        assert text not in shown, text
    assert "it refused" in shown and "HTTP status 503" in shown


def test_a_call_without_a_target_has_no_more_on_its_page_than_it_had():
    shown = page(client("see_request"), make(60))
    assert "What is called" not in shown and 'id="attempts"' not in shown and "What is sent" not in shown


def test_one_that_is_retrying_is_cancelled_from_its_page(target):
    ann, call = client(), tried(target)
    assert f'href="{LIST}{call.pk}/cancel/"' in page(ann, call) and "Cancel this call?" in page(ann, call, "cancel")
    assert "1 cancelled." in ann.post(f"{LIST}{call.pk}/cancel/", follow=True).content.decode()
    assert statuses() == {"Cancelled": 1} and ScheduledCall.objects.get().cancelled_by == "ann"
    assert f'href="{LIST}{call.pk}/try/"' not in page(ann, call)


def test_one_that_is_retrying_is_tried_now(target):
    ann, call = client(), tried(target)
    assert f'href="{LIST}{call.pk}/try/"' in page(ann, call)
    asked = page(ann, call, "try")
    assert "Make the next attempt now?" in asked and ScheduledCall.objects.get().next_attempt_at == call.next_attempt_at
    key = re.search('name="form_key" value="([^"]+)"', asked)[1]
    assert f"Call {call.pk} is tried now." in ann.post(f"{LIST}{call.pk}/try/", {"form_key": key}, follow=True).content.decode()
    call.refresh_from_db()
    assert call.next_attempt_at <= utcnow() and LogEntry.objects.get().change_message == "Tried now."
    again = ann.post(f"{LIST}{call.pk}/try/", {"form_key": key}, follow=True).content.decode()
    assert "This form was sent twice and is done once." in again and LogEntry.objects.count() == 1
    ScheduledCall.objects.update(status="Failed")
    for answer in (ann.get(f"{LIST}{call.pk}/try/", follow=True), ann.post(f"{LIST}{call.pk}/try/", follow=True)):
        assert "is no longer to be tried again." in answer.content.decode()
    reader = client()
    person("ann", may=["view"])
    assert reader.post(f"{LIST}{call.pk}/try/").status_code == 403


def test_what_names_a_target_is_scheduled_again_by_those_who_may_use_it(target):
    call = tried(target, status="Failed", next_attempt_at=None)
    CallRequest.objects.create(call=call, body="seven", data={"order": 7})
    plain = make(-60, status="Failed")
    both = {"action": "schedule_again", "_selected_action": [call.pk, plain.pk]}
    answer = client().post(LIST, both, follow=True).content.decode()
    assert "1 not scheduled again: they name a target, and you may not use targets." in answer
    assert ScheduledCall.objects.get(status="Pending").again_of == plain.pk
    client("use_target").post(f"{LIST}{call.pk}/again/")
    new = ScheduledCall.objects.get(again_of=call.pk)
    assert (new.target, new.request.body, new.request.data) == (target, "seven", {"order": 7})
    Target.objects.update(deleted_at=utcnow())
    answer = client("use_target").post(f"{LIST}{call.pk}/again/", follow=True).content.decode()
    assert "1 not scheduled again: their target was deleted." in answer


def test_a_target_that_is_deleted_while_calls_are_added_for_it_gets_none(target, monkeypatch):
    made = ledger.schedule

    def deleted_meanwhile(**what):
        Target.objects.update(deleted_at=utcnow())
        return made(**what)
    monkeypatch.setattr(ledger, "schedule", deleted_meanwhile)
    assert "The target billing was deleted. Nothing was scheduled." in add(client("use_target"), to_target=target.pk)
    assert not ScheduledCall.objects.exists()


def add(client, **fields):
    due = utcnow() + timedelta(days=1)
    empty = dict.fromkeys(("times", "note", "to_target", "body", "headers", "data", "expires_0", "expires_1"), "")
    return words(client.post(f"{LIST}add/", empty | {
        "timestamp_0": f"{due:%Y-%m-%d}", "timestamp_1": f"{due:%H:%M:%S}",
        "previewed": paste.mark(fields.get("times", ""))} | fields, follow=True).content.decode())


def test_adding_calls_for_a_target(target):
    Target.objects.create(name="gone", url="https://api.example/", deleted_at=utcnow())
    ann = client("use_target")
    form = ann.get(f"{LIST}add/").content.decode()
    assert ">billing</option>" in form and ">gone</option>" not in form
    add(ann, to_target=target.pk, body='{"id": {{data.order}}}', headers='{"Content-Type": "application/json"}',
        data='{"order": 7}', note="seven", times="2095-07-01 12:00:00", expires_0="2096-01-01", expires_1="00:00:00")
    calls = list(ScheduledCall.objects.select_related("request"))
    assert len(calls) == 2 and statuses() == {"Pending": 2}
    for call in calls:
        assert (call.target, call.note, call.scheduled_by, call.scheduled_via) == (target, "seven", "ann", "admin")
        assert (call.request.body, call.request.headers, call.request.data) == (
            '{"id": {{data.order}}}', {"Content-Type": "application/json"}, {"order": 7})
        assert f"{call.expires_at:%Y-%m-%d}" == "2096-01-01"


@pytest.mark.parametrize("fields, says", [
    ({"headers": "x"}, "This is no JSON, such as"), ({"headers": "[1]"}, "Must be an object of names and values"),
    ({"headers": '{"Host": "x"}'}, "Host is for the connection"), ({"headers": r'{"X": "a\r\nY: b"}'}, "The value of X"),
    ({"data": '{"a b": 1}'}, "is no key"), ({"body": "{{no.such}}", "headers": '{"Content-Type": "text/plain"}'}, "which there is not"),
    ({"body": "text"}, "Needs to say what it is"), ({"body": "{{data.order}}", "headers": '{"Content-Type": "text/plain"}'},
                                                    "Lacks order, to be filled in."),
    ({"expires_0": "2020-01-01", "expires_1": "00:00:00"}, "This must be later than the time at which it is due."),
    ({"to_target": "", "body": "text"}, "This is for a target; choose one."), ({"to_target": "999"}, "Select a valid choice"),
])
def test_what_cannot_be_sent_is_refused_with_words(target, fields, says):
    assert says in add(client("use_target"), **{"to_target": target.pk} | fields).replace("&quot;", '"')
    assert not ScheduledCall.objects.exists()


def test_who_may_not_use_targets_schedules_no_call_for_one(target):
    ann = client("see_request")
    assert "to_target" not in ann.get(f"{LIST}add/").content.decode()
    add(ann, to_target=target.pk, body="x")
    assert ScheduledCall.objects.get().target is None and not CallRequest.objects.exists()
