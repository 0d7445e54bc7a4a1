"""A PostgreSQL server that takes no writes any more: after a failover old connections may still lead to it, or its
operator has made it so for a while. It is as good as none, and nobody has to restart anything."""
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from conftest import KIND, Postgres, in_seconds, make, postgres, until
from django.db import DataError, OperationalError, connection, connections

pytestmark = pytest.mark.skipif(KIND == "sqlite", reason="is one file")
READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = {}", "SELECT pg_reload_conf()"


@pytest.fixture
def read_only():
    """Has the server take no writes, also over connections that are open; or take them again."""
    def switch(state):
        # Its own transactions are told otherwise, or it could not be switched back.
        postgres.ask("SET default_transaction_read_only = off", *(line.format(state) for line in READ_ONLY))
        until(lambda: postgres.ask("SHOW default_transaction_read_only") == state)
    yield switch
    switch("off")


@pytest.fixture
def standby():
    """A copy of the server, which follows it."""
    standby = Postgres("standby")
    standby.follow(postgres)
    yield standby
    standby.stop()


def ask(stack, method="GET", path="/api/schedule-api/", **more):
    return requests.request(method, stack.url + path, timeout=20, **more)


def post(stack, seconds=86400):
    return ask(stack, "POST", json={"timestamps": in_seconds(seconds).isoformat()})


def ended(stack, call_id):
    """Waits until the call has ended, and returns how. (In a database that is not this process's.)"""
    def status():
        answer = ask(stack, path=f"/api/schedule-api/{call_id}/")
        return answer.status_code == 200 and answer.json()["status"] not in ("Pending", "Running") and answer.json()["status"]
    return until(status, 30, f"call {call_id} has ended")


def many_connections(stack):
    """In the pools of the web server, of the worker and of the dispatcher."""
    with ThreadPoolExecutor(8) as threads:
        assert {answer.status_code for answer in threads.map(lambda _: post(stack), range(32))} == {201}
    first = post(stack, 1).json()[0]["id"]
    assert ended(stack, first) == "Succeeded"
    until(lambda: ask(stack, path="/healthz").status_code == 200, what="the dispatcher runs")


def test_after_a_failover_all_goes_on_at_the_other_server(stack, api, read_only, standby):
    """Its connections stay open, so nothing but a refused write tells of it."""
    stack.start("web", "worker", "beat", DATABASE_URL=(
        f"postgres://postgres@127.0.0.1:{postgres.port},127.0.0.1:{standby.port}/postgres"))
    many_connections(stack)
    waiting = post(stack, 6).json()[0]["id"]
    until(lambda: standby.ask(f"SELECT count(*) FROM scheduler_scheduledcall WHERE id = {waiting}"), what="it has followed")
    read_only("on")
    standby.ask("SELECT pg_promote()")
    until(lambda: standby.ask("SHOW transaction_read_only") == "off")
    made = until(lambda: (answer := post(stack, 3)).status_code == 201 and answer.json(), 15, "a POST is taken")[0]["id"]
    assert standby.ask(f"SELECT count(*) FROM scheduler_scheduledcall WHERE id = {made}") == 1
    assert ended(stack, made) == ended(stack, waiting) == "Succeeded"
    until(lambda: ask(stack, path="/healthz").status_code == 200, 15, "all is well")
    assert all(post(stack).status_code == 201 for _ in range(40)), "none of the old connections is left"
    for name in stack.processes:
        assert "Traceback" not in stack.says(name) and stack.says(name).count("the database cannot be reached") <= 1


def test_while_it_takes_no_writes_it_is_away(stack, api, read_only):
    stack.start("web", "worker", "beat")
    many_connections(stack)
    waiting = post(stack, 5).json()[0]["id"]
    read_only("on")
    health = ask(stack, path="/healthz")
    assert health.status_code == 503 and "cannot be written" in health.json()["database"]
    assert post(stack).status_code == 503
    assert ask(stack).status_code == 503, "what can be read there may be old"
    until(lambda: "the database cannot be reached" in stack.says("worker"), what="the worker says so")
    read_only("off")
    assert until(lambda: post(stack, 1).status_code == 201, 15, "a POST is taken")
    assert ended(stack, waiting) == "Succeeded"
    until(lambda: ask(stack, path="/healthz").status_code == 200, 15, "all is well")
    for name in ("web", "worker"):
        says = until(lambda: "the database is back" in stack.says(name) and stack.says(name) or ask(stack) and None, 20, name)
        assert says.count("the database cannot be reached") == says.count("the database is back") == 1, says
        assert "read-only" in says and "Traceback" not in says, says


def server_process():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


@pytest.mark.parametrize("state, error, dropped", [
    ("25006", OperationalError, True), ("57P01", OperationalError, True), ("57P03", OperationalError, True),
    ("08006", OperationalError, True), ("25P03", OperationalError, True), ("22012", DataError, False),
])
def test_which_errors_a_connection_does_not_outlive(state, error, dropped):
    connections.close_all()
    first = server_process()
    with pytest.raises(error), connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{state}'; END $$")
    connection.close()
    there = lambda: postgres.ask(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {first}")
    if dropped:
        until(lambda: not there())
    else:
        assert there()


def test_not_only_the_connection_that_found_out_is_dropped(read_only):
    """Nor one that somebody has in his hands meanwhile is used again."""
    connections.close_all()
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(server_process).result()
        read_only("on")
        with pytest.raises(OperationalError):
            make()
        connection.close()
        read_only("off")
        thread.submit(connections.close_all).result()
        assert other not in {thread.submit(server_process).result(), server_process()}
        thread.submit(connections.close_all).result()
