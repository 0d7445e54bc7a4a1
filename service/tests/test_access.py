"""Who may use it: everybody on this machine in local development, otherwise only with a token or an
admin session; and nothing starts half configured."""
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import SERVICE, make, person, redis_server, statuses
from django.test import Client, override_settings
from rest_framework.authtoken.models import Token
from rest_framework.throttling import SimpleRateThrottle

ENDPOINTS = [("get", "/api/schedule-api/"), ("post", "/api/schedule-api/"), ("get", "/api/schedule-api/1/"),
             ("delete", "/api/schedule-api/1/"), ("get", "/api/schema/"), ("get", "/api/docs/")]
BODY = json.dumps({"timestamps": "2096-08-01T14:30:00Z"})


def ask(client, method, path, **extra):
    body = {"data": BODY, "content_type": "application/json"} if method == "post" else {}
    return getattr(client, method)(path, **body, **extra)


@pytest.mark.parametrize("method, path", ENDPOINTS[:-1])        # the page asks to log in
def test_without_credentials_nothing_goes(method, path):
    make()
    answer = ask(Client(), method, path)
    assert answer.status_code == 401 and answer["WWW-Authenticate"] == "Token"
    assert statuses() == {"Pending": 1}


@pytest.mark.parametrize("method, path", ENDPOINTS)
def test_with_a_token(method, path):
    call = make()
    token = Token.objects.create(user=person())
    answer = ask(Client(), method, path.replace("/1/", f"/{call.id}/"),
                 headers={"Authorization": f"Token {token.key}"})
    assert answer.status_code in (200, 201)


def test_with_a_wrong_token():
    assert ask(Client(), *ENDPOINTS[0], headers={"Authorization": "Token wrong"}).status_code == 401


def test_a_session_must_prove_that_its_own_page_asks():
    client = Client(enforce_csrf_checks=True)
    client.force_login(person())
    assert ask(client, "get", "/api/schedule-api/").status_code == 200
    assert ask(client, "post", "/api/schedule-api/").status_code == 403
    assert statuses() == {}


@override_settings(DEBUG=True)
def test_local_development_is_open_to_this_machine_only():
    assert ask(Client(), "post", "/api/schedule-api/").status_code == 201
    for elsewhere in ({"REMOTE_ADDR": "192.0.2.1"}, {"HTTP_X_FORWARDED_FOR": "192.0.2.1"},
                      {"HTTP_FORWARDED": "for=192.0.2.1"}, {"REMOTE_ADDR": ""}):
        assert ask(Client(), "post", "/api/schedule-api/", **elsewhere).status_code == 401
    assert ask(Client(REMOTE_ADDR="::1"), "post", "/api/schedule-api/").status_code == 201
    assert statuses() == {"Pending": 2}


def test_the_admin_asks_who_it_is():
    assert "/admin/login/" in Client().get("/admin/").url
    with override_settings(DEBUG=True):
        assert "/admin/login/" in Client().get("/admin/scheduler/scheduledcall/").url


@pytest.fixture
def three_a_minute(monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"write": "3/min"})


@pytest.mark.processes
def test_writes_are_throttled_for_each_user(three_a_minute):
    ann, bob = Client(), Client()
    ann.force_login(person())
    bob.force_login(person("bob"))
    assert [ask(ann, "post", "/api/schedule-api/").status_code for _ in range(4)] == [201, 201, 201, 429]
    assert ask(ann, "get", "/api/schedule-api/").status_code == 200
    assert ask(bob, "post", "/api/schedule-api/").status_code == 201


def test_without_redis_nobody_is_throttled(three_a_minute):
    ann = Client()
    ann.force_login(person())
    redis_server.stop()
    try:
        assert {ask(ann, "post", "/api/schedule-api/").status_code for _ in range(5)} == {201}
    finally:
        redis_server.start()


def manage(*arguments, **environment):
    base = {k: v for k, v in os.environ.items()
            if k not in ("SECRET_KEY", "ALLOWED_HOSTS", "DEBUG", "HTTPS", "API_URL")}
    return subprocess.run([sys.executable, *arguments], cwd=SERVICE, env=base | environment, timeout=60,
                          capture_output=True, text=True)


@pytest.mark.parametrize("environment, says", [
    ({"ALLOWED_HOSTS": "example.org"}, "SECRET_KEY is not set"),
    ({"SECRET_KEY": "x" * 60}, "ALLOWED_HOSTS is not set"),
    ({"DEBUG": "true", "API_URL": "ftp://example.org"}, "API_URL must be"),
    ({"DEBUG": "true", "API_URL": "https://example.org/\nx"}, "API_URL must be"),
    ({"DEBUG": "true", "TIMEOUT": "soon"}, "TIMEOUT='soon' in the environment must be a number"),
    ({"DEBUG": "true", "WRITE_RATE": "lots"}, "WRITE_RATE='lots' in the environment must be a number per"),
    ({"DEBUG": "true", "WRITE_RATE": "5/fortnight"}, "WRITE_RATE="),
    ({"DEBUG": "true", "TICK": "3", "WINDOW": "5"}, "TICK must be at most half of WINDOW"),
    ({"DEBUG": "true", "TICK": "16", "WINDOW": "600"}, "at most 15 s"),
    ({"DEBUG": "true", "DATABASE_URL": "postgress://ann:hunter2@h/x"}, "DATABASE_URL in the environment must be"),
    ({"DEBUG": "true", "DATABASE_URL": "mysql://ann:hunter2@h/x"}, "DATABASE_URL in the environment must be"),
    ({"DEBUG": "true", "DATABASE_URL": "postgres://ann:hunter2@h:many/x"}, "DATABASE_URL in the environment must be"),
    ({"DEBUG": "true", "REDIS_URL": "redis://:hunter2/x@127.0.0.1:6379/0"}, "/ as %2F"),
    ({"DEBUG": "true", "REDIS_URL": "redis://:12/hunter2@127.0.0.1/0"}, "REDIS_URL in the environment must be"),
    ({"DEBUG": "true", "REDIS_URL": "redis://:hunter2@127.0.0.1/0?hunter2=1"}, "REDIS_URL in the environment must be"),
    ({"DEBUG": "true", "REDIS_URL": "amqp://ann:hunter2@127.0.0.1"}, "REDIS_URL in the environment must be"),
    ({"DEBUG": "true", "REDIS_URL": ""}, "REDIS_URL in the environment must be"),
    ({"DEBUG": "true", "TIME_ZONE": "Mars/Olympus"}, "TIME_ZONE='Mars/Olympus' in the environment"),
    ({"DEBUG": "true", "TIME_ZONE": "Europe"}, "TIME_ZONE='Europe'"),
    ({"DEBUG": "true", "TIME_ZONE": "../etc"}, "TIME_ZONE='../etc'"),
    ({"DEBUG": "true", "FAILURES_TO": "ops@example.org,ann"}, "FAILURES_TO: 'ann' is no mail address"),
    ({"DEBUG": "true", "FAILURES_TO": "ops@example.org\nBcc: eve@example.org"}, "is no mail address"),
    ({"DEBUG": "true", "DEFAULT_FROM_EMAIL": "a@example.org\nBcc: eve@example.org"}, "DEFAULT_FROM_EMAIL="),
    ({"DEBUG": "true", "NOTIFY": "json://h/hunter2, hunter2://h/hunter2"}, "Number 2 of 2 is none that Apprise understands."),
    ({"DEBUG": "true", "NOTIFY": "https://h/hunter2"}, "NOTIFY in the environment: Must be one or several addresses of Apprise"),
    ({"DEBUG": "true", "HEARTBEAT_URL": "hc-ping.com/hunter2"}, "HEARTBEAT_URL must be a whole http:// or https:// URL"),
    ({"DEBUG": "true", "EMAIL_URL": "smtps://ann:hunter2@h"}, "EMAIL_URL in the environment must be smtp://"),
    ({"DEBUG": "true", "EMAIL_URL": "smtp://ann:hunter2@h:many"}, "EMAIL_URL in the environment must be"),
    ({"DEBUG": "true", "EMAIL_URL": "smtp://:hunter2@h"}, "EMAIL_URL in the environment must be"),
    ({"DEBUG": "true", "EMAIL_URL": "smtp://ann:hunter2@h/?ssl=1"}, "EMAIL_URL in the environment must be"),
])
def test_it_refuses_to_start_half_configured(environment, says):
    for command in (["manage.py", "check"], ["-m", "gunicorn", "--check-config", "scheduler.wsgi"]):
        result = manage(*command, **environment)
        assert result.returncode != 0 and says in result.stderr, result.stderr
        assert "Traceback" not in result.stderr or command[0] != "manage.py"
        assert "hunter2" not in result.stderr


def test_servers_are_not_open_by_default():
    result = manage("-m", "gunicorn", "--check-config", "scheduler.wsgi")
    assert result.returncode != 0 and "SECRET_KEY is not set" in result.stderr


def test_a_deployment_is_clean():
    result = manage("manage.py", "check", "--deploy", "--fail-level", "INFO",
                    SECRET_KEY="q8-_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz" * 2, ALLOWED_HOSTS="example.org")
    assert result.returncode == 0, result.stderr
    assert "no issues" in result.stdout


def test_no_password_ships():
    for path in SERVICE.rglob("scheduler/**/*.py"):
        assert not re.search(r"password\s*=\s*[\"']\w", path.read_text(), re.I), path


def test_a_path_without_its_slash_or_with_a_typing_error_is_a_404_that_says_so():
    client = Client()
    client.force_login(person())
    for path in ("/api", "/api/", "/api//", "/api/schedule-api", "/api/schedul-api/", "/api/schedule-api/one/"):
        for method in ("get", "post"):
            answer = ask(client, method, path)
            assert answer.status_code == 404 and path in answer.json()["detail"]
