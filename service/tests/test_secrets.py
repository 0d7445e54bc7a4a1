"""Secrets of targets: written once, encrypted, and to be found nowhere."""
import base64
import html
import json
import logging
import os
import subprocess
import sys
from urllib.parse import quote

import pytest
from conftest import KIND, PASSWORD, SERVICE, WORK, make
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings
from standardwebhooks import Webhook
from test_targets import ALL, KEY, OTHER_KEY, PATH, may, patch, post, sent

from scheduler.base import secrets
from scheduler.calls import request, targets
from scheduler.models import Target

SECRETS = {"header": "s3cr3t-<&>'\"-h34d3r", "password": "pässword-&-w0rd", "token": "t0k3n.of~bearer+/==", "value": "own-h34d3r-v4lu3",
           "client_secret": "cl13nt-<s3cr3t>"}
AUTHS = [{"kind": "basic", "username": "ann", "password": SECRETS["password"]}, {"kind": "bearer", "token": SECRETS["token"]},
         {"kind": "header", "name": "X-Own", "value": SECRETS["value"]},
         {"kind": "oauth2", "token_url": "https://id.example.org/token", "client_id": "c", "client_secret": SECRETS["client_secret"]}]
OLD, NEW = "o" * 40, "n" * 40


@pytest.fixture
def client():
    return may(*ALL)


def built():
    target = Target.objects.get()
    return request.build(make(target=target), target, None, None, 1)


@pytest.mark.parametrize("auth, headers", [
    (AUTHS[0], {"Authorization": "Basic " + base64.b64encode(f"ann:{SECRETS['password']}".encode()).decode()}),
    (AUTHS[1], {"Authorization": f"Bearer {SECRETS['token']}"}), (AUTHS[2], {"X-Own": SECRETS["value"]}), (AUTHS[3], {})])
def test_they_are_sent_and_not_shown(client, auth, headers):
    made = post(client, auth=auth, secret_headers={"X-Api-Key": SECRETS["header"]}, signing_key=KEY)
    public, secret = Target.AUTH[auth["kind"]]
    assert {name: made["auth"][name] for name in ("kind", *public) if name in auth} == {
        name: auth[name] for name in auth if name not in secret}
    for shown in (made["secret_headers"]["X-Api-Key"], made["auth"][secret[0]], made["signing_key"]):
        assert shown["value"] == "***" and shown["changed"].startswith("20") and shown["changed"].endswith("Z")
    sent = built()
    assert dict(sent.headers) == headers | {"X-Api-Key": SECRETS["header"]}
    assert sent.secret_headers == {name.lower() for name in dict(sent.headers)}
    assert sent.signing == (KEY,) and {SECRETS["header"], auth[secret[0]], KEY} <= set(sent.secrets)
    if auth["kind"] == "oauth2":
        assert (sent.oauth.url, sent.oauth.client_id, sent.oauth.client_secret) == (
            auth["token_url"], "c", SECRETS["client_secret"])


def test_a_change_keeps_those_that_it_does_not_name(client):
    post(client, secret_headers={"X-A": "secret-a", "X-B": "secret-b"}, auth=AUTHS[1])
    before = client.get(f"{PATH}billing/").json()
    assert patch(client, secret_headers=before["secret_headers"], auth=before["auth"])["version"] == 1
    assert patch(client, secret_headers={"X-A": "***", "x-b": "***"})["version"] == 1
    patch(client, secret_headers={"x-a": "secret-new", "X-B": None}, timeout=9)
    assert dict(built().headers) == {"x-a": "secret-new", "Authorization": f"Bearer {SECRETS['token']}"}
    patch(client, auth={"kind": "bearer"})
    assert patch(client, auth=AUTHS[2])["auth"].keys() == {"kind", "name", "value"}
    assert SECRETS["token"] not in json.dumps(secrets.decrypt(Target.objects.get().secrets))
    assert "Needs token" in patch(client, 400, auth={"kind": "bearer"})["detail"]
    patch(client, auth={"name": "X-Other"})
    assert dict(built().headers) == {"x-a": "secret-new", "X-Other": SECRETS["value"]}
    assert "stands among" in patch(client, 400, headers={"X-A": "plain"})["detail"]
    assert "stands among" in patch(client, 400, secret_headers={"x-OTHER": "secret"})["detail"]
    assert patch(client, auth=None, secret_headers={"X-A": None})["auth"] == {"kind": "none"}
    assert Target.objects.get().secrets == "" and built().headers == ()


ELSEWHERE = ["http://api.example.org/v1/run", "https://evil.example.net/v1/run", "https://api.example.org:444/v1/run"]


@pytest.mark.parametrize("url", ELSEWHERE)
@pytest.mark.parametrize("auth", AUTHS)
def test_they_do_not_follow_a_target_elsewhere(client, url, auth):
    """Who may change a target, but has never seen its secrets, would have them sent to himself."""
    post(client, auth=auth, secret_headers={"X-A": "secret-a"})
    secret = {name: auth[name] for name in Target.AUTH[auth["kind"]][1]}
    shown = client.get(f"{PATH}billing/").json()
    for kept in ({}, {"secret_headers": {"x-a": "secret-a"}}, {"auth": secret}, {"auth": auth | dict.fromkeys(secret, "***")},
                 {"secret_headers": shown["secret_headers"], "auth": shown["auth"]}):
        assert "give the secrets that go there again" in patch(client, 400, url=url, **kept)["detail"]
    stands = Target.objects.get()
    assert stands.url == "https://api.example.org/v1/run" and stands.version == 1
    assert patch(client, url="https://API.example.org:443/v2/{{call.id}}")["version"] == 2
    assert patch(client, url=url, secret_headers={"x-a": "secret-a"}, auth=secret)["url"] == url
    patch(client, secret_headers={"x-a": None}, auth=None)
    assert patch(client, url="https://third.example.org")["url"] == "https://third.example.org"


def test_nor_a_token_url(client):
    post(client, auth=AUTHS[3], secret_headers={"X-A": "secret-a"})
    for url in ("https://evil.example.net/token", "http://id.example.org/token", "https://id.example.org:444/token"):
        assert "give the secrets" in patch(client, 400, auth={"token_url": url})["detail"]
        assert "give the secrets" in patch(client, 400, auth={"token_url": url, "client_secret": "***"})["detail"]
    patch(client, auth={"token_url": "https://id.example.org/other"})
    patch(client, auth={"token_url": url, "client_secret": "secret-new"})
    assert built().oauth.url == url


def test_nor_in_the_admin(client):
    post(client, secret_headers={"X-A": "secret-a"}, auth=AUTHS[1])
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    target = Target.objects.get()
    page = f"/admin/scheduler/target/{target.pk}/change/"
    form = {"name": "billing", "url": ELSEWHERE[1], "method": "GET", "auth_kind": "bearer", "secret_headers": "X-A: ***",
            "initial-secret_headers": "X-A: ***", "statuses": "200", "keep_failures": 0, "keep_successes": 0, "keep_days": 1, "notify_after": 1}
    assert "give the secrets that go there again" in root.post(page, form).content.decode()
    assert Target.objects.get().url == target.url
    form |= {"secret_headers": "X-A: secret-a"}
    assert "give the secrets that go there again" in root.post(page, form).content.decode()
    assert root.post(page, form | {"auth_secret": SECRETS["token"]}).status_code == 302
    assert Target.objects.get().url == ELSEWHERE[1]


def test_who_may_not_see_requests_has_none_sent_to_himself(client):
    post(client, headers={"X-Plain": "seen by few"})
    bob = may("view_target", "change_target", "use_target", name="bob")
    assert "scheduler.see_request" in sent(bob.patch(f"{PATH}billing/", json.dumps({"url": ELSEWHERE[1]}), "application/json"), 403)["detail"]
    assert patch(bob, timeout=3)["url"] is None and Target.objects.get().url == "https://api.example.org/v1/run"


def test_two_keys_sign_while_one_is_being_changed(client):
    assert post(client, signing_key=KEY)["previous_signing_key"] is None
    assert patch(client, signing_key=KEY)["previous_signing_key"] is None
    changed = patch(client, signing_key=OTHER_KEY)
    assert changed["signing_key"]["value"] == changed["previous_signing_key"]["value"] == "***"
    assert built().signing == (OTHER_KEY, KEY)
    assert all(Webhook(key).sign("id", Target.objects.get().created_at, "") for key in built().signing)
    assert patch(client, previous_signing_key=None)["previous_signing_key"] is None and built().signing == (OTHER_KEY,)
    assert patch(client, signing_key=None)["signing_key"] is None and built().signing == ()


def test_a_change_of_the_key(client, capsys):
    with override_settings(SECRETS_KEY=[OLD]):
        post(client, secret_headers={"X-A": "secret-a"})
    with override_settings(SECRETS_KEY=[NEW, OLD]):
        assert dict(built().headers) == {"X-A": "secret-a"}
        before = Target.objects.get()
        call_command("reencrypt")
        assert "secrets of 1 targets" in capsys.readouterr().out
        assert Target.objects.get().version == before.version and Target.objects.get().secrets != before.secrets
    with override_settings(SECRETS_KEY=[NEW]):
        assert dict(built().headers) == {"X-A": "secret-a"}
    with override_settings(SECRETS_KEY=[OLD]), pytest.raises(CommandError, match="lacks the key of the secrets of billing"):
        call_command("reencrypt")


def test_without_the_key_a_call_fails_and_nothing_else(client):
    with override_settings(SECRETS_KEY=[OLD]):
        post(client, secret_headers={"X-A": "secret-a", "X-B": "secret-b"}, auth=AUTHS[1])
    with override_settings(SECRETS_KEY=[NEW]):
        with pytest.raises(request.Unsendable, match="its secrets cannot be read"):
            built()
        assert len(client.get(PATH).json()["results"]) == 1 and client.get(f"{PATH}billing/").status_code == 200
        root = Client()
        root.force_login(User.objects.create_superuser("root"))
        for page in ("", f"{Target.objects.get().pk}/change/"):
            assert root.get(f"/admin/scheduler/target/{page}").status_code == 200
        assert patch(client, timeout=7, paused=True, headers={"X": "y"})["timeout"] == 7
        assert "cannot be read" in patch(client, 400, secret_headers={"X-A": "secret-new"})["detail"]
        patch(client, secret_headers={"X-A": "secret-new", "X-B": None}, auth={"token": "t-new-t"})
        assert dict(built().headers) == {"X": "y", "X-A": "secret-new", "Authorization": "Bearer t-new-t"}
        Target.objects.update(secrets="no Fernet token")
        with pytest.raises(request.Unsendable, match="its secrets cannot be read"):
            built()


def test_a_deleted_target_forgets_them(client):
    post(client, secret_headers={"X-A": "secret-a"})
    targets.delete(Target.objects.get().pk)
    assert Target.objects.get().secrets == "" and Target.objects.get().secret_names == {}


def forms_of(secret):
    return {secret, quote(secret, safe=""), html.escape(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1],
            base64.b64encode(secret.encode()).decode()}


def test_they_are_found_nowhere(client, monkeypatch, caplog):
    """In no answer, page, file, log or error page; nor in the database's files."""
    said = []
    for number, auth in enumerate(AUTHS):
        said.append(json.dumps(post(client, name=f"t{number}", auth=auth, signing_key=KEY,
                                    secret_headers={"X-Api-Key": SECRETS["header"]})))
    # Refused: what was sent is not said again.
    for wrong in ({"secret_headers": {"X-A": SECRETS["header"] + "\n"}}, {"signing_key": KEY + "=="},
                  {"auth": {"kind": "bearer", "token": SECRETS["token"] + " x"}}):
        said.append(json.dumps(post(client, 400, name="wrong", **wrong)))
    root = Client()
    root.force_login(User.objects.create_superuser("root", password=PASSWORD))
    for one in Target.objects.all():
        request.build(make(target=one), one, None, None, 1)
        said += [b"".join(root.get(page)).decode() for page in (
            f"/admin/scheduler/target/{one.pk}/change/", f"/admin/scheduler/target/{one.pk}/history/",
            "/admin/scheduler/target/", "/admin/scheduler/scheduledcall/csv/?view=all")]
        said += [client.get(f"{PATH}{one.name}/").content.decode(), client.get("/api/schema/").content.decode(), repr(one)]

    def broken(*_, **__):
        raise RuntimeError(f"broken while {SECRETS['header']} was at hand")
    monkeypatch.setattr(targets, "save", broken)
    fields = {"secret_headers": {"X-Api-Key": SECRETS["header"]}, "auth": AUTHS[0], "signing_key": OTHER_KEY}
    client.raise_request_exception = root.raise_request_exception = False
    with override_settings(DEBUG=True):
        said.append(client.patch(f"{PATH}t0/", json.dumps(fields), "application/json").content.decode())
        page = root.post("/admin/scheduler/target/add/", {
            "name": "new", "url": "https://example.org", "method": "GET", "auth_kind": "bearer", "auth_secret": SECRETS["token"],
            "secret_headers": f"X-A: {SECRETS['header']}", "signing_key": KEY, "statuses": "200", "keep_failures": 0,
            "keep_successes": 0, "keep_days": 1, "notify_after": 1})
        assert page.status_code == 500 and "RuntimeError" in page.content.decode()
        said.append(page.content.decode())
    logging.getLogger("urllib3").error("sent %s", SECRETS["header"])
    said.append("\n".join(record.getMessage() for record in caplog.records))
    if KIND == "sqlite":
        connection.close()
        said += [path.read_bytes().decode("latin-1") for path in WORK.glob("db.sqlite3*")]
    else:
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names():
                cursor.execute(f'SELECT t::text FROM "{table}" t')
                said += [row[0] for row in cursor.fetchall()]
    assert len(said) > 20
    for secret in (*SECRETS.values(), KEY, OTHER_KEY):
        for form in forms_of(secret):
            for text in said:
                assert form not in text, text[max(0, text.index(form) - 200):text.index(form) + 200]


@pytest.mark.parametrize("key, says", [("short", "32 random characters"), ("x" * 40 + ",short", "32 random characters"), (" ", "32 random")])
def test_a_key_that_can_be_guessed_is_refused_at_the_start(key, says):
    result = subprocess.run([sys.executable, "manage.py", "check"], cwd=SERVICE, capture_output=True, text=True,
                            env=os.environ | {"SECRETS_KEY": key}, timeout=60)
    assert result.returncode and says in result.stderr and "short" not in result.stderr.replace("shorter", "")
