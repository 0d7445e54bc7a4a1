"""The admin of targets: that all it does is done as by the API, and what it shows to whom."""
import re
from datetime import timedelta

import pytest
from conftest import guest, make, statuses
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from test_targets import KEY, OTHER_KEY

from scheduler.base import secrets
from scheduler.base.clock import utcnow
from scheduler.calls import targets
from scheduler.models import CallRequest, Schedule, ScheduledCall, Target

LIST = "/admin/scheduler/target/"
FORM = {"name": "billing", "method": "POST", "url": "https://api.example.org/{{data.order}}",
        "headers": "Content-Type: application/json\nX-Call: {{call.id}}", "body": '{"id": {{call.id}}}',
        "auth_kind": "none", "auth_username": "", "auth_name": "", "auth_token_url": "", "auth_client_id": "", "auth_scope": "", "auth_secret": "",
        "secret_headers": "", "initial-secret_headers": "", "signing_key": "", "keys": "", "connect_timeout": "", "timeout": "20",
        "statuses": "200-299", "contains": "", "not_contains": "", "follow_redirects": "on", "delays": "10, 60", "max_age": "",
        "max_at_once": "", "rate": "300/min", "keep_failures": "16384", "keep_successes": "0", "keep_days": "30",
        "notify": "", "notify_after": "1"}


def text(page):
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", re.sub("(?s)<style>.*?</style>", "", page.content.decode())))


def add(client, **fields):
    page = client.post(LIST + "add/", FORM | fields, follow=True)
    assert Target.objects.count() == 1, text(page)
    return Target.objects.get()


def change(client, **fields):
    """What the page of the only target says after a form with these fields, opened as it stands."""
    path = f"{LIST}{Target.objects.get().pk}/change/"
    return client.post(path, FORM | {"opened_with": opened_with(client)} | fields, follow=True)


def opened_with(client):
    source = client.get(f"{LIST}{Target.objects.get().pk}/change/").content.decode()
    return re.search('name="opened_with" value="([^"]*)"', source)[1]


def held():
    return secrets.decrypt(Target.objects.get().secrets)


def test_a_target_is_added_and_changed(client):
    target = add(client)
    assert (target.headers, target.delays, target.rate, target.auth, target.created_by, target.version) == (
        {"Content-Type": "application/json", "X-Call": "{{call.id}}"}, [10, 60], "300/min", {"kind": "none"}, "root", 1)
    assert "billing" in text(client.get(LIST)) and "10 s, 60 s" in text(client.get(LIST))
    change(client)
    assert Target.objects.get().version == 1, "nothing was changed"
    change(client, auth_kind="oauth2", auth_username="left over", auth_token_url="https://id.example.org/t", auth_client_id="me", auth_secret="oauth-secret")
    target = Target.objects.get()
    assert target.auth == {"kind": "oauth2", "token_url": "https://id.example.org/t", "client_id": "me", "scope": ""}
    assert held()["auth"] == {"client_secret": "oauth-secret"} and target.version == 2
    assert "oauth-secret" not in "".join(LogEntry.objects.values_list("change_message", flat=True))


@pytest.mark.parametrize("fields, says", [
    ({"url": "x"}, "Must be a whole http:// or https:// URL"), ({"headers": "Host: x"}, "is for the connection"),
    ({"headers": "no colon"}, "a name, a colon and a value"), ({"headers": "A: 1\nA: 2"}, "twice"), ({"name": "a b"}, "letters, digits"),
    ({"body": "{{call.ip}}"}, "{{call.ip}}, which there is not"), ({"delays": "soon"}, "10, 60, 600"), ({"delays": "nan"}, "10, 60, 600"), ({"rate": "many"}, "300/min"),
    ({"auth_kind": "bearer"}, "Needs token"), ({"auth_kind": "basic", "auth_secret": "x"}, "needs username"), ({"statuses": "ok"}, "200-299, 404"),
    ({"signing_key": "whsec_x"}, "24 to 64 random bytes"), ({"secret_headers": "X-A:"}, "needs its value"),
    ({"secret_headers": "X-A: 1\nX-A: 2"}, "A name stands twice"), ({"secret_headers": "X-A: 1\nx-a: 2"}, "A name stands twice"),
    ({"secret_headers": "X-A: ***"}, "not there yet"), ({"max_at_once": "0"}, "from 1 to 10000"), ({"auth_kind": "digest"}, "none, basic"),
])
def test_what_is_wrong_is_said(client, fields, says):
    page = client.post(LIST + "add/", FORM | fields)
    assert says in page.content.decode().replace("&quot;", '"') and not Target.objects.exists()


def test_secrets_are_written_and_not_shown(client):
    typed = {"auth_kind": "bearer", "auth_secret": "bearer-secret", "secret_headers": "X-A: secret-a\nX-B: secret-b", "signing_key": KEY}
    page = client.post(LIST + "add/", FORM | typed | {"rate": "many"}).content.decode()
    assert not any(secret in page for secret in ("bearer-secret", "secret-a", KEY)) and page.count("Give it again") == 2
    add(client, **typed)
    assert held() == {"headers": {"X-A": "secret-a", "X-B": "secret-b"}, "auth": {"token": "bearer-secret"}, "signing": [KEY]}
    page = client.get(f"{LIST}{Target.objects.get().pk}/change/").content.decode()
    assert not any(secret in page for secret in ("bearer-secret", "secret-a", KEY))
    assert "X-A: ***" in page and "token ***, changed 20" in page
    shown = {"auth_kind": "bearer", "initial-secret_headers": "X-A: ***\r\nX-B: ***"}
    change(client, **shown, secret_headers="X-A: ***\r\nX-B: ***")
    assert Target.objects.get().version == 1
    change(client, **shown, secret_headers="X-A: ***\r\nX-C: secret-c", signing_key=OTHER_KEY)
    assert held() == {"headers": {"X-A": "secret-a", "X-C": "secret-c"}, "auth": {"token": "bearer-secret"}, "signing": [OTHER_KEY, KEY]}
    change(client, **shown | {"initial-secret_headers": "X-A: ***"}, secret_headers="X-A: ***", keys="previous")
    assert held()["headers"] == {"X-A": "secret-a", "X-C": "secret-c"}, "what another has added stays"
    assert held()["signing"] == [OTHER_KEY]
    change(client, **shown, secret_headers="X-A: ***", keys="all")
    assert held()["signing"] == []


def test_what_somebody_else_changed_is_shown_before_it_is_written_over(client):
    add(client)
    opened = opened_with(client)
    target = Target.objects.get()
    target.timeout, target.auth, target.delays = 7, {"kind": "none"}, [1]
    targets.save(target, "other")
    page = change(client, opened_with=opened, body='{"mine": 1}')
    assert "Somebody changed this from “20.0” to “7.0”" in text(page) and Target.objects.get().timeout == 7
    assert Target.objects.get().body == FORM["body"]
    change(client, timeout="7", delays="1", body='{"mine": 1}')
    assert Target.objects.get().body == '{"mine": 1}'


def test_a_name_can_be_taken_once(client):
    add(client)
    assert "There is a target of this name already" in text(client.post(LIST + "add/", FORM))
    Target.objects.update(deleted_at=utcnow())
    client.post(LIST + "add/", FORM)
    assert Target.objects.count() == 2


def test_it_is_paused_with_a_reason_and_resumed(client):
    path = f"{LIST}{add(client).pk}/"
    assert "Yes, pause it" in client.get(path + "pause/").content.decode() and not Target.objects.get().is_paused(utcnow())
    for wrong in ({"until": "noon"}, {"until": "2020-01-01 12:00"}, {"reason": "a\u202eb"}):
        assert 'class="errorlist"' in client.post(path + "pause/", wrong).content.decode()
    page = client.post(path + "pause/", {"reason": "Ann moves it", "until": "2096-08-01 14:30"}, follow=True)
    assert "Target billing is paused." in text(page), "a name is written as it is"
    assert LogEntry.objects.latest("id").change_message == "Paused by root: Ann moves it."
    assert re.search(r"Paused by root since [-\d]+ [:\d]+ UTC, until 2096-08-01 14:30:00 UTC *: Ann moves it", text(page)) and "Resume" in text(page)
    assert "paused by root: Ann moves it" in text(client.get(LIST))
    change(client, timeout="9")
    assert Target.objects.get().is_paused(utcnow()) and Target.objects.get().timeout == 9
    assert "resume it first" in text(client.post(path + "test/", follow=True)) and not ScheduledCall.objects.exists()
    client.post(path + "resume/")
    assert not Target.objects.get().is_paused(utcnow())
    assert [entry.change_message for entry in LogEntry.objects.order_by("id")][-1] == "Resumed."


def test_it_is_tried(client):
    path = f"{LIST}{add(client).pk}/test/"
    assert "Lacks order" in text(client.post(path, {"data": "{}"})) and "This is no JSON" in text(client.post(path, {"data": "{"}))
    form = {"data": '{"order": "7/8"}', "form_key": "k"}
    page = client.post(path, form, follow=True)
    call = ScheduledCall.objects.get()
    assert f"call {call.pk}" in text(page) and (call.scheduled_via, call.scheduled_by, call.target.name) == ("test", "root", "billing")
    assert abs(call.timestamp - utcnow()) < timedelta(seconds=10) and CallRequest.objects.get().data == {"order": "7/8"}
    client.post(path, form)
    assert statuses() == {"Pending": 1}, "a form that is sent twice is done once"


def test_one_in_use_is_not_deleted(client):
    target = add(client)
    make(number=2, target=target)
    Schedule.objects.create(name="nightly", cron="0 0 * * *", zone="UTC", target=target)
    path = f"{LIST}{target.pk}/delete/"
    assert "billing: 2 pending calls and 1 schedule name it" in text(client.get(path))
    client.post(path, {"post": "yes"})
    assert not Target.objects.get().deleted_at
    ScheduledCall.objects.update(status="Succeeded")
    Schedule.objects.all().delete()
    assert "all its calls are kept" in text(client.get(path))
    client.post(path, {"post": "yes"}, follow=True)
    assert Target.objects.get().deleted_at and "billing" not in text(client.get(LIST))


def test_who_may_not_see_the_request_does_not(client):
    target = add(client, auth_kind="basic", auth_username="acme-user", auth_secret="pw-pw-pw", secret_headers="X-Acme: secret-a")
    path = f"{LIST}{target.pk}/"
    for permissions, shows in ((["view_target"], False), (["view_target", "see_request"], True),
                               (["view_target", "change_target"], False), (["view_target", "change_target", "see_request"], True)):
        User.objects.filter(username="ann").delete()
        ann = guest(*permissions)
        shown = ann.get(path + "change/").content.decode()
        assert ("api.example.org" in shown) is ("acme-user" in shown) is ("X-Call" in shown) is shows, permissions
        assert "pw-pw-pw" not in shown and "secret-a" not in shown
        assert ann.get(path + "test/").status_code == 403
        assert ann.get(path + "pause/").status_code == (200 if "change_target" in permissions else 403)
        assert ann.get(path + "delete/").status_code == 403
    ann.logout()
    User.objects.filter(username="ann").delete()
    blind = guest("view_target", "change_target", "use_target")
    blind.post(path + "change/", {name: value for name, value in FORM.items() if name not in (
        "url", "headers", "body", "secret_headers") and not name.startswith("auth")} | {"timeout": "9"})
    changed = Target.objects.get()
    assert (changed.timeout, changed.url, changed.headers, changed.auth) == (9, target.url, target.headers, target.auth)
    assert held()["auth"] == {"password": "pw-pw-pw"} and blind.get(path + "test/").status_code == 200


def test_who_is_told_of_its_failures_is_written_and_not_shown(client):
    """As other secrets: empty leaves them, another takes their place, and a box takes them away."""
    def takes_away():
        return [name for name in ("keys", "notify_no_more") if f'name="{name}"' in client.get(f"{LIST}{path}").content.decode()]
    path = "add/"
    assert takes_away() == [], "what there is not"
    add(client, notify="json://example.org/s3cr3t-hook, json://example.org/2", notify_after="3")
    path = f"{Target.objects.get().pk}/change/"
    assert takes_away() == ["notify_no_more"]
    assert held()["notify"] == ["json://example.org/s3cr3t-hook", "json://example.org/2"] and Target.objects.get().notify_after == 3
    page = change(client, notify="nonsense://s3cr3t-hook")
    assert "Number 1 of 1 is none that Apprise understands." in text(page) and "s3cr3t-hook" not in page.content.decode()
    page = change(client, name="invoices")
    assert len(held()["notify"]) == 2 and "s3cr3t-hook" not in page.content.decode()
    assert "Empty leaves what is there: ***, changed " in text(client.get(f"{LIST}{Target.objects.get().pk}/change/"))
    change(client, notify="json://example.org/3")
    assert held()["notify"] == ["json://example.org/3"]
    change(client, notify_no_more="on")
    assert Target.objects.get().secrets == ""
