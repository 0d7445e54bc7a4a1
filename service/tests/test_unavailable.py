"""A database or a broker that hangs: every answer comes in time, and in JSON."""
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import requests
from conftest import KIND, in_seconds, person, postgres, redis_server, statuses, until
from django.conf import settings
from django.db import OperationalError, connection, connections, transaction
from rest_framework.authtoken.models import Token

from scheduler.base.database import within
from scheduler.models import Tally

ALL_OF_A_POST = 10      # seconds
CALLS = "/api/schedule-api/"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@contextmanager
def hanging(database=True, broker=False):
    """PostgreSQL frozen, every process of it; SQLite locked by somebody who does not let go."""
    connections.close_all()
    other = None
    if database and KIND == "postgresql":
        postgres.signal_all(signal.SIGSTOP)
    elif database:
        other = sqlite3.connect(settings.DATABASES["default"]["NAME"])
        other.execute("BEGIN EXCLUSIVE")
    if broker:
        redis_server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
        if other:
            other.close()
        elif database:
            postgres.signal_all(signal.SIGCONT)


class Client:
    """A user with a token over a connection that stays open."""

    def __init__(self, url):
        self.url, self.session = url, requests.Session()
        self.session.headers["Authorization"] = f"Token {Token.objects.get_or_create(user=person())[0].key}"

    def ask(self, method, path, **more):
        """(the answer, the seconds it took)"""
        began = time.monotonic()
        answer = self.session.request(method, self.url + path, timeout=60, **more)
        return answer, time.monotonic() - began

    def post(self, *times):
        return self.ask("POST", CALLS, json={"timestamps": ", ".join(time.isoformat() for time in times)})


def is_a_503(answer, says="database does not answer"):
    assert answer.status_code == 503, answer.content
    assert answer.headers["Content-Type"] == "application/json" and int(answer.headers["Retry-After"]) > 0
    assert says in answer.json()["detail"]


def health_is_quick(stack):
    """Within two seconds, in the best of three: this machine may be busy with other things."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        assert requests.get(stack.url + "/healthz", timeout=20).status_code == 503
        took.append(time.monotonic() - began)
    assert min(took) < 2, took


def said_once(stack, part):
    """However many were refused: one line that it is gone, one that it is back, and nothing else of it."""
    lines = [line for line in stack.says("web").splitlines() if "[INFO]" not in line]
    own = [line for line in lines if line.startswith(part)]
    assert len(own) == 2 and own[0].startswith(f"{part} cannot be reached: ") and own[1] == f"{part} is back", lines
    assert all(line.startswith(("the database", "the broker")) and ".. " not in line for line in lines), lines


@pytest.mark.parametrize("broker", [False, True])
def test_a_post_ends_within_ten_seconds_and_health_within_two(stack, broker):
    stack.start("web", DEBUG="false")
    clients = [Client(stack.url) for _ in range(6)]
    due = in_seconds(86400)
    with ThreadPoolExecutor(6) as threads:
        assert {answer.status_code for answer, _ in threads.map(lambda c: c.post(due), clients)} == {201}
        with hanging(broker=broker):
            posts = [threads.submit(client.post, due) for client in clients]
            health_is_quick(stack)
            for post in posts:
                answer, seconds = post.result()
                is_a_503(answer)
                assert seconds < ALL_OF_A_POST
        until(lambda: clients[0].post(due)[0].status_code == 201, 15, "all is well again")
    assert statuses() == {"Pending": 7}
    until(lambda: clients[0].ask("GET", CALLS) and "the database is back" in stack.says("web"), 15, "it says so")
    said_once(stack, "the database")


@pytest.mark.parametrize("broker", [False, True])
def test_frozen_in_the_middle_of_a_statement(stack, broker):
    """SQLite waits for the lock the whole time; PostgreSQL has begun on the statement, and then freezes."""
    stack.start("web", DEBUG="false")
    client = Client(stack.url)
    client.post(in_seconds(86400))
    if KIND == "sqlite":
        with hanging(), ThreadPoolExecutor(1) as thread:
            answer, seconds = thread.submit(client.post, in_seconds(86400)).result()
    else:
        with psycopg.connect(postgres.url) as other, ThreadPoolExecutor(1) as thread:
            other.execute("LOCK TABLE scheduler_scheduledcall")
            post = thread.submit(client.post, in_seconds(86400))
            until(lambda: psycopg.connect(postgres.url).execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0], what="the POST waits")
            with hanging(broker=broker):
                answer, seconds = post.result()
    is_a_503(answer)
    assert seconds < ALL_OF_A_POST
    until(lambda: client.post(in_seconds(86400))[0].status_code == 201, 15, "all is well again")


def test_redis_frozen_alone_delays_a_post_and_no_more(stack):
    stack.start("web", DEBUG="false")
    client = Client(stack.url)
    with hanging(database=False, broker=True):
        for _ in range(2):
            answer, seconds = client.post(in_seconds(5))
            assert answer.status_code == 201 and seconds < ALL_OF_A_POST
        health_is_quick(stack)
    for _ in range(2):
        assert client.post(in_seconds(86400))[0].status_code == 201
    said_once(stack, "the broker")


def test_every_other_answer_below_api_is_a_503_in_json_too(stack):
    """Gone altogether, so that the tests need not wait: who asks cannot be known, whatever is asked."""
    stack.start("web", DEBUG="false")
    client = Client(stack.url)
    with gone():
        for method, path in (("GET", CALLS), ("POST", CALLS), ("GET", CALLS + "1/"), ("DELETE", CALLS + "1/"),
                             ("GET", "/api/schema/"), ("GET", "/api/docs/"), ("GET", "/api/nowhere"),
                             ("GET", "/metrics")):
            answer, _ = client.ask(method, path, **({"json": {"timestamps": ""}} if method == "POST" else {}))
            is_a_503(answer)
    until(lambda: client.ask("GET", CALLS)[0].status_code == 200, 15, "all is well again")


@pytest.mark.parametrize("debug", ["true", "false"])
def test_people_get_a_503_in_a_line_of_text(stack, debug):
    """And no 500, with 160 lines in the output, for each wrong password that somebody tries meanwhile."""
    stack.start("web", DEBUG=debug)
    browser = requests.Session()
    browser.get(stack.url + "/admin/login/", timeout=10)
    form = {"username": "root", "password": "wrong", "csrfmiddlewaretoken": browser.cookies["scheduler_csrftoken"]}

    def is_text(answer):
        assert answer.status_code == 503 and answer.headers["Content-Type"] == "text/plain"
        assert answer.text.count("\n") == 1 and "database does not answer" in answer.text
        assert int(answer.headers["Retry-After"]) > 0
    with gone():
        for _ in range(2):
            is_text(browser.post(stack.url + "/admin/login/", data=form, timeout=20))
            is_text(requests.get(stack.url + "/admin/", cookies={"scheduler_sessionid": "a" * 32}, timeout=20))
    until(lambda: browser.post(stack.url + "/admin/login/", data=form, timeout=20).status_code == 200, 15)
    with hanging():
        is_text(browser.post(stack.url + "/admin/login/", data=form, timeout=20))
    assert stack.says("web").count("the database cannot be reached") <= 2 and "Traceback" not in stack.says("web")


def test_a_database_that_goes_while_a_session_is_saved(monkeypatch, capfd):
    """Outside of any view, after it."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.db import OperationalError
    from django.test import Client, override_settings

    def locked(*_, **__):
        raise OperationalError("database is locked")
    client = Client(raise_request_exception=False)
    client.force_login(person())
    monkeypatch.setattr(SessionStore, "save", locked)
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        answer = client.get("/admin/login/")
        assert answer.status_code == 503 and "database does not answer" in answer.content.decode()
        is_a_503(client.get(CALLS))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(KIND == "sqlite", reason="has no pool, and one lock")
def test_thirty_requests_that_wait_leave_connections_for_others(stack):
    """Each holds one. In the README's command a process has 32 threads."""
    stack.start("web", DEBUG="false")
    clients = [Client(stack.url) for _ in range(31)]
    clients.pop().ask("GET", CALLS)
    with psycopg.connect(postgres.url) as other, ThreadPoolExecutor(30) as threads:
        other.execute("LOCK TABLE scheduler_scheduledcall")
        posts = [threads.submit(client.post, in_seconds(86400)) for client in clients]
        until(lambda: psycopg.connect(postgres.url).execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0] == 30, 10, "all wait for the lock")
        health = requests.get(stack.url + "/healthz", timeout=10,
                              headers={"Authorization": clients[0].session.headers["Authorization"]})
        other.rollback()
        assert health.json()["database"] == "ok"
        assert {post.result()[0].status_code for post in posts} == {201}


@pytest.mark.skipif(KIND == "sqlite", reason="waits for its lock alone")
def test_the_time_limit_of_a_request_is_for_what_it_waits_for_the_database():
    """And not for what a slow machine itself does meanwhile. Who has used it up is told so, and drops no connection."""
    with within(1), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        time.sleep(1.1)
        cursor.execute("SELECT 1")
    other = connections.create_connection("default")
    other.ensure_connection()
    number = postgres.ask(SESSIONS)
    other.close()
    with within(1), pytest.raises(OperationalError, match="no answer within 0.[0-9] s"), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.6)")
            cursor.execute("SELECT pg_sleep(0.6)")
    assert postgres.ask(SESSIONS) >= number - 1


def test_a_database_that_was_never_migrated(stack, work):
    stack.start("web", DEBUG="true", DATABASE_URL=f"sqlite:///{work / 'new.sqlite3'}")
    for _ in range(2):
        is_a_503(requests.post(stack.url + CALLS, json={"timestamps": "2096-01-01T00:00:00Z"}, timeout=10), "python3 manage.py migrate")
    line, = [line for line in stack.says("web").splitlines() if "[INFO]" not in line]
    assert "no such table" in line and line.endswith("python3 manage.py migrate")


def test_a_pool_of_dead_connections_costs_nobody_a_request():
    """The server was restarted while eight connections lay idle: the first who needs one gets a new one."""
    together = threading.Barrier(8)

    def use(_):
        Tally.objects.exists()
        together.wait(20)
        connections.close_all()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))
    with gone():
        pass
    assert not Tally.objects.exists()


@contextmanager
def gone():
    """PostgreSQL stopped; SQLite's file put away, with what is no database in its place."""
    connections.close_all()
    if KIND == "postgresql":
        postgres.stop()
    else:
        path = Path(settings.DATABASES["default"]["NAME"])
        away = [file.rename(file.with_name("away-" + file.name)) for file in path.parent.glob(path.name + "*")]
        path.write_text("this is no database " * 50)
    try:
        yield
    finally:
        if KIND == "postgresql":
            postgres.run()
        else:
            for file in away:
                file.rename(file.with_name(file.name.removeprefix("away-")))
