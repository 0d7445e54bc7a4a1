"""GET /healthz: whether database, broker and dispatcher are alive."""
import contextlib
import re
import sqlite3
from datetime import timedelta

import pytest
from conftest import KIND, person, redis_server
from django.conf import settings
from django.test import Client, override_settings

from scheduler import tasks
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch


@pytest.fixture
def health():
    client = Client()
    client.force_login(person())
    return lambda: client.get("/healthz")


@pytest.mark.processes
def test_all_is_well(health):
    tasks.dispatch_all()
    answer = health()
    assert answer.status_code == 200
    told = answer.json()
    assert 0 <= told.pop("dispatcher_last_tick_seconds") < 5
    assert told == {"status": "ok", "database": "ok", "broker": "ok", "dispatcher": "ok"}


def test_the_dispatcher_has_never_run_or_stopped(health):
    assert health().status_code == 503 and "never" in health().json()["dispatcher"]
    dispatch.beat(utcnow() - timedelta(seconds=100))
    assert health().status_code == 503 and re.search("10[0-4] s", health().json()["dispatcher"])
    assert 99 < health().json()["dispatcher_last_tick_seconds"] < 105


def test_a_sign_of_life_that_lies_in_the_future_is_none(health):
    """Of a machine of the version before, which went by its own clock, or the database's was set back."""
    dispatch.beat(utcnow() + timedelta(seconds=100))
    assert health().status_code == 503 and re.search("(100|9[6-9]) s from now", health().json()["dispatcher"])


def test_the_broker_is_down(health):
    dispatch.beat()
    redis_server.stop()
    try:
        answer = health()
    finally:
        redis_server.start()
    assert answer.status_code == 503
    assert answer.json()["broker"] != "ok" and answer.json()["dispatcher"] == "ok"


def test_the_database_is_gone(health, monkeypatch):
    from django.db import OperationalError

    def gone():
        raise OperationalError("gone")
    monkeypatch.setattr(dispatch, "since_beat", gone)
    assert health().status_code == 503 and health().json()["database"] != "ok"


@pytest.mark.skipif(KIND == "postgresql", reason="test_failover.py has it for that")
def test_the_database_can_be_read_and_not_written(health):
    with contextlib.closing(sqlite3.connect(settings.DATABASES["default"]["NAME"])) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = health()
        assert answer.status_code == 503 and "cannot be written" in answer.json()["database"]


@pytest.mark.parametrize("credentials", [{"Authorization": "Token abc"}, {"Cookie": "scheduler_sessionid=abc"}])
def test_the_database_is_gone_and_credentials_come_with_the_question(monkeypatch, credentials):
    from django.db import DatabaseError
    from django.db.backends.utils import CursorWrapper

    def gone(*_):
        raise DatabaseError("gone")
    monkeypatch.setattr(CursorWrapper, "execute", gone)
    answer = Client().get("/healthz", headers=credentials)
    assert (answer.status_code, answer.json()) == (503, {"status": "failing"})


@pytest.mark.processes
def test_without_credentials_only_the_sum_is_told():
    dispatch.beat()
    answer = Client().get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    with override_settings(SECURE_SSL_REDIRECT=True):
        assert Client().get("/healthz").status_code == 200


@pytest.mark.processes
@pytest.mark.parametrize("path, form", [("/healthz", "application/json"), ("/metrics", "text/plain; version=0.0.4; charset=utf-8")])
@pytest.mark.parametrize("accepted", ["text/plain", "application/openmetrics-text", "text/html;q=0.5", "nonsense"])
def test_whoever_watches_gets_what_there_is_whatever_he_accepts(path, form, accepted):
    client = Client()
    client.force_login(person())
    tasks.dispatch_all()
    answer = client.get(path, headers={"Accept": accepted})
    assert (answer.status_code, answer["Content-Type"]) == (200, form)
    refused = Client().get("/metrics", headers={"Accept": accepted})
    assert refused.status_code == 401 and "credentials" in refused.json()["detail"]
