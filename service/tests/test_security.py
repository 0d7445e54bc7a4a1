"""What somebody who may little, or nothing, can do: look, guess, listen at the door."""
import contextlib
import pickle
import re
import stat
import subprocess
from datetime import timedelta

import pytest
import requests
from axes.models import AccessAttempt
from conftest import (
    PASSWORD, SERVICE, WORK, all_ended, certificate, end, free_port, in_seconds, make, person, redis_server,
    statuses, until)
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client, override_settings
from django.urls import path
from rest_framework.authtoken.models import Token
from rest_framework.throttling import SimpleRateThrottle
from test_access import ENDPOINTS, ask, manage

from scheduler.calls import log as call_log

# What each request needs, as the admin asks for it.
NEEDS = {"get": "view", "post": "add", "delete": "change"}


@pytest.mark.parametrize("by", ["token", "session"])
@pytest.mark.parametrize("method, path", [*ENDPOINTS, ("get", "/metrics")])
def test_each_request_needs_the_permission_that_the_admin_asks_for(by, method, path):
    call, client, how = make(), Client(), {}
    if by == "session":
        client.force_login(person())
    else:
        how = {"headers": {"Authorization": f"Token {Token.objects.create(user=person()).key}"}}
    path = path.replace("/1/", f"/{call.id}/")
    person(may={"view", "add", "change"} - {NEEDS[method]})
    answer = ask(client, method, path, **how)
    assert answer.status_code == 403
    if (path, by) == ("/api/docs/", "session"):     # for people, a page
        assert answer["Content-Type"].startswith("text/html")
    else:
        assert f"scheduler.{NEEDS[method]}_scheduledcall" in answer.json()["detail"]
    assert statuses() == {"Pending": 1}
    person(may=[NEEDS[method]])
    assert ask(client, method, path, **how).status_code in (200, 201)


def test_in_local_development_a_user_is_held_to_the_same():
    with override_settings(DEBUG=True):
        client = Client()
        client.force_login(person(may=["view"]))
        assert ask(client, "post", "/api/schedule-api/").status_code == 403


def test_health_tells_its_parts_only_to_those_who_may_look():
    client = Client()
    client.force_login(person(may=["add"]))
    assert set(client.get("/healthz").json()) == {"status"}
    person(may=["view"])
    assert "database" in client.get("/healthz").json()


def test_the_permissions_stand_in_the_document():
    client = Client()
    client.force_login(person())
    document = client.get("/api/schema/?format=json").json()
    for where, method, right in (("/api/schedule-api/", "post", "add"), ("/api/schedule-api/", "get", "view"),
                                ("/api/schedule-api/{id}/", "delete", "change"), ("/api/schedule-api/{id}/", "get", "view")):
        assert f"`{right}_scheduledcall`" in document["paths"][where][method]["description"]


class Bomb:
    def __reduce__(self):
        return open, (str(WORK / "exploded"), "w")


def test_what_lies_in_redis_is_never_run():
    """Whoever can write there could make Django's own cache run code."""
    client = Client()
    client.force_login(person())
    assert ask(client, "post", "/api/schedule-api/").status_code == 201
    keys = redis_server.command("keys", "scheduler:*").split()
    assert len(keys) == 1 and isinstance(cache.get(keys[0].split(":", 2)[2]), list)
    subprocess.run(["redis-cli", "-p", str(redis_server.port), "-x", "set", keys[0]], check=True,
                   input=pickle.dumps(Bomb()), stdout=subprocess.DEVNULL)
    assert ask(client, "post", "/api/schedule-api/").status_code == 201
    assert not (WORK / "exploded").exists()
    assert isinstance(cache.get(keys[0].split(":", 2)[2]), list)


@pytest.mark.parametrize("lies_there", [
    "[" * 100_000, "[1e999]", "[NaN]", "[-1e308]", "[9e99]", f"[{10 ** 400}]", "[1, \"2\"]", "7", "{", "\udcff"])
def test_what_lies_in_redis_stops_no_write(lies_there, monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"write": "1/min"})
    client = Client(raise_request_exception=False)
    client.force_login(person())
    ask(client, "post", "/api/schedule-api/")
    key, = redis_server.command("keys", "scheduler:*").split()
    subprocess.run(["redis-cli", "-p", str(redis_server.port), "-x", "set", key], check=True,
                   input=lies_there.encode("utf-8", "surrogateescape"), stdout=subprocess.DEVNULL)
    assert ask(client, "post", "/api/schedule-api/").status_code == 201
    assert len(cache.get(key.split(":", 2)[2])) == 1


@pytest.fixture
def redis_over_tls(work):
    """The URL of a Redis server that speaks TLS and asks for a password."""
    trusted, key = certificate(work)
    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--requirepass", "hunter2",
         "--tls-cert-file", trusted, "--tls-key-file", key, "--tls-ca-cert-file", trusted,
         "--tls-auth-clients", "no", "--save", "", "--dir", work], stdout=subprocess.DEVNULL)
    yield f"rediss://:hunter2@127.0.0.1:{port}/0?ssl_ca_certs={trusted}"
    end(process)


def test_redis_with_a_password_over_tls(stack, redis_over_tls, api):
    """As the README shows it: broker, cache and /healthz take the same URL."""
    token = Token.objects.create(user=person()).key
    stack.start("web", "worker", "beat", REDIS_URL=redis_over_tls, DEBUG="false")
    stack.post(*[in_seconds(1)] * 3, Authorization=f"Token {token}")
    assert all_ended(3) == {"Succeeded": 3}
    health = until(lambda: requests.get(stack.url + "/healthz", headers={"Authorization": f"Token {token}"}, timeout=5))
    assert health.json()["broker"] == "ok"
    assert "cannot be reached" not in stack.outputs["web"].read_text()


def log_in(password, name="root", **request):
    return Client(**request).post("/admin/login/?next=/admin/", {"username": name, "password": password}, **request)


def test_logins_are_limited():
    """For one name from one address, and for a while; also while Redis is down, and not because of it."""
    User.objects.create_superuser("root", password=PASSWORD)
    User.objects.create_superuser("ann", password=PASSWORD)
    redis_server.stop()
    try:
        codes = [log_in("wrong").status_code for _ in range(20)]
        assert codes == [200] * 9 + [429] * 11
        answer = log_in(PASSWORD)
        assert answer.status_code == 429 and "Wait ten minutes" in answer.content.decode()
        assert log_in(PASSWORD, "ann").status_code == 302
        assert log_in(PASSWORD, REMOTE_ADDR="192.0.2.1").status_code == 302
        with override_settings(AXES_COOLOFF_TIME=timedelta(0)):
            assert log_in(PASSWORD).status_code == 302
    finally:
        redis_server.start()


def test_behind_a_proxy_the_address_that_it_adds_is_the_one_that_counts():
    User.objects.create_superuser("root", password=PASSWORD)
    forged = iter(range(1000))

    def attempt(password, address):
        return log_in(password, HTTP_X_FORWARDED_FOR=f"203.0.113.{next(forged)}, {address}").status_code
    with override_settings(TRUST_PROXY=True):
        assert [attempt("wrong", "192.0.2.1") for _ in range(12)][-1] == 429
        assert attempt(PASSWORD, "192.0.2.2") == 302
        assert attempt(PASSWORD, "192.0.2.1") == 429


@pytest.fixture
def proxy(stack, work):
    """The address of nginx, on a port that is not HTTP's own, with the block that the README gives, in front of the
    web server."""
    port, folder = free_port(), work / "nginx"
    folder.mkdir()
    block = re.search(r"    location / \{\n.*?\n    \}\n", (SERVICE / "README.md").read_text(), re.S)[0]
    assert block.count("http://127.0.0.1:8000;") == 1
    paths = "".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}\nhttp {{ access_log off; {paths}\n"
        f"server {{ listen 127.0.0.1:{port};\n{block.replace('http://127.0.0.1:8000', stack.url)} }} }}")
    process = subprocess.Popen(["nginx", "-e", folder / "errors", "-c", folder / "nginx.conf"])
    yield f"http://127.0.0.1:{port}"
    end(process)


def test_behind_the_readmes_proxy_people_log_in_on_any_port(stack, proxy):
    """Browsers name the page's origin, with its port, and Django compares it with the Host."""
    User.objects.create_superuser("root", password=PASSWORD)
    stack.start("web", DEBUG="false", TRUST_PROXY="true")
    session = requests.Session()

    def form():
        with contextlib.suppress(requests.ConnectionError):
            return session.get(f"{proxy}/admin/login/", timeout=10)
    token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', until(form).text)[1]
    answer = session.post(f"{proxy}/admin/login/?next=/admin/", headers={"Origin": proxy}, timeout=10, data={
        "username": "root", "password": PASSWORD, "csrfmiddlewaretoken": token})
    assert answer.status_code == 200 and answer.url == f"{proxy}/admin/" and "Log out" in answer.text
    assert requests.get(f"{proxy}/admin/", headers={"Host": "evil.example"}, timeout=10).status_code == 400


@pytest.mark.parametrize("added, counted", [
    ("192.0.2.1:5678", "192.0.2.1"), ("[2001:db8::1]:5678", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"),
    ("2001:db8::1", "2001:db8::1"), ("fe80::1%eth0", "fe80::1"),
    ("unknown", "198.51.100.7"), ("_hidden", "198.51.100.7"), ("_hidden:1", "198.51.100.7"), ("", "198.51.100.7"),
    ("[::1", "::1"), ("[[:", "198.51.100.7"),
])
@override_settings(TRUST_PROXY=True)
def test_whatever_a_proxy_adds_nobody_is_locked_out_by_it(added, counted):
    """Some add the port, some write what RFC 7239 (section 6) has for who is not told."""
    User.objects.create_superuser("root", password=PASSWORD)
    how = {"HTTP_X_FORWARDED_FOR": f"203.0.113.1, {added}", "REMOTE_ADDR": "198.51.100.7"}
    assert log_in("wrong", **how).status_code == 200
    assert AccessAttempt.objects.get().ip_address == counted
    assert log_in(PASSWORD, **how).status_code == 302


@pytest.mark.parametrize("debug", ["true", "false"])
def test_a_foreign_host_gets_a_400_of_a_line_and_fills_no_log(stack, debug):
    """With DEBUG on, Django's own page would show it the settings: any web page can name this address."""
    stack.start("web", DEBUG=debug)
    before = stack.outputs["web"].read_text()
    for where, form in (("/", "text/plain"), ("/admin/", "text/plain"), ("/nowhere", "text/plain"), ("/apis", "text/plain"),
                       ("/api/schedule-api/", "application/json"), ("/api", "application/json")):
        for _ in range(5):
            answer = requests.get(stack.url + where, headers={"Host": "evil.example"}, timeout=10)
            assert (answer.status_code, answer.headers["Content-Type"]) == (400, form), where
            assert "ALLOWED_HOSTS" in answer.text and len(answer.text) < 100
            assert form == "text/plain" or answer.json().keys() == {"detail"}
    assert stack.outputs["web"].read_text() == before


def test_health_answers_whoever_asks_by_address(stack):
    stack.start("web", DEBUG="true")
    for host in ("10.1.2.3", "10.1.2.3:8000", "evil.example"):
        answer = requests.get(stack.url + "/healthz", headers={"Host": host}, timeout=10)
        assert answer.status_code == 503 and answer.json() == {"status": "failing"}
    assert "database" in requests.get(stack.url + "/healthz", timeout=10).json()


def broken(request):
    connecting_to, also = "rediss://ann:hunter%2F2@h/0", "hunter/2 open/se-me"
    raise RuntimeError(f"cannot connect to {connecting_to} {also}")


urlpatterns = [path("broken", broken)]


def test_the_page_of_an_error_shows_no_password():
    """Neither among the settings, nor in a variable, nor in the words of the error."""
    urls = {"REDIS_URL": "rediss://ann:hunter%2F2@h/0", "CELERY_BROKER_URL": "rediss://ann:hunter%2F2@h/0",
            "API_URL": "https://bob:swordfish@h/?key=sesame-street",
            "EMAIL_URL": "smtp://ops:open%2fse-me@h", "EMAIL_HOST_PASSWORD": "open/se-me",
            "HEARTBEAT_URL": "https://h/s3cr3t-uuid", "NOTIFY": ["json://h/s3cr3t-hook?a=1&b=2"]}
    with override_settings(DEBUG=True, ROOT_URLCONF="test_security", OWN={"made of it": urls["API_URL"]}, **urls):
        page = Client(raise_request_exception=False).get("/broken")
    assert page.status_code == 500 and "CELERY_BROKER_URL" in page.content.decode()
    assert "********@h/0" in page.content.decode()
    for secret in ("hunter", "swordfish", "sesame-street", "se-me", "s3cr3t", "k" * 60):
        assert secret not in page.content.decode(), secret


@pytest.mark.parametrize("url, shown", [
    ("https://h/hook?key=secret", "https://h/hook?key=***"),
    ("https://h/hook?a=secret&b=secret&secret", "https://h/hook?a=***&b=***&***"),
    ("https://ann:secret@h:1/hook?key=", "https://***@h:1/hook?key=***"),
    ("https://h/hook#part", "https://h/hook#part"),
])
def test_a_secret_in_the_url_is_in_no_line(url, shown):
    due = in_seconds(0)
    with override_settings(API_URL=url):
        for status in ("Succeeded", "Failed", "Missed", "Cancelled"):
            line = call_log.line(status, due, due)
            assert f"API at {shown}" in line and "secret" not in line


def rights(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_log_is_its_owners_alone(work):
    with override_settings(CALL_LOG=work / "logs" / "calls.log"):
        call_log.write(["one\n"])
    assert rights(work / "logs" / "calls.log") == 0o600 and rights(work / "logs") == 0o700


@pytest.mark.parametrize("first", [["migrate"], ["prune", "90"], ["createsuperuser", "--noinput"],
                                   ["shell", "-c", "from django.db import connection; connection.cursor()"]])
def test_the_database_is_its_owners_alone_whichever_command_comes_first(work, first):
    manage("manage.py", *first, DEBUG="true", DATABASE_URL=f"sqlite:///{work / 'db.sqlite3'}")
    assert {rights(path) for path in work.glob("db.sqlite3*")} == {0o600}


@pytest.mark.parametrize("length, taken", [(31, False), (32, True)])
def test_a_short_secret_key_is_refused(length, taken):
    for more in ({"ALLOWED_HOSTS": "example.org"}, {"DEBUG": "true"}):
        result = manage("manage.py", "check", SECRET_KEY="x" * length, **more)
        assert (result.returncode == 0) == taken
        assert taken or f"SECRET_KEY has {length} characters" in result.stderr


@pytest.mark.parametrize("environment, header", [
    ({}, "max-age=31536000"),
    ({"HSTS_SUBDOMAINS": "true"}, "max-age=31536000; includeSubDomains"),
    ({"HSTS_SUBDOMAINS": "true", "HSTS_PRELOAD": "true"}, "max-age=31536000; includeSubDomains; preload"),
])
def test_hsts_speaks_for_this_host_alone_unless_asked_to(stack, environment, header):
    stack.start("web", DEBUG="false", HTTPS="true", TRUST_PROXY="true", **environment)
    answer = requests.get(stack.url + "/healthz", headers={"X-Forwarded-Proto": "https"}, timeout=10)
    assert answer.headers["Strict-Transport-Security"] == header
