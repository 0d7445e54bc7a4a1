"""The admin of calls that name a target: their page with its attempts, what may be done, and the form that adds them."""
import re
from datetime import timedelta

import pytest
from conftest import make, person, statuses
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client

from scheduler.admin import paste
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


def test_its_attempts(target):
    shown = page(client("see_request"), tried(target))
    said = words(shown.split('id="attempts"')[1].split("</fieldset>")[0])
    for text in ("1 Failed HTTP status 503 it refused 503 ", "212.4 ms 203.0.113.7", "name 1.2, connection 8.0, TLS 14.1, answer 188.0",
                 "What was sent POST https://api.example/run?&lt;b&gt; X-Api-Key: *** {&quot;id&quot;: 7}",
                 "What came back HTTP status 503 Retry-After: 5 &lt;script&gt;busy&lt;/script&gt; Only the beginning was kept."):
        assert text in said, text
    assert re.search(r"The next attempt is made at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", said)
    assert '<div class="readonly"><bdi>billing</bdi></div>' in shown and "it refused</div>" in shown


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
