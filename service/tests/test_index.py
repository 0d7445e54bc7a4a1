"""The dispatcher's queries are served by the partial indexes, which finished rows have left."""
from datetime import timedelta

import pytest
from conftest import make
from django.db import connection
from django.test.utils import CaptureQueriesContext

from scheduler import transitions
from scheduler.clock import utcnow


def plans(work):
    """What EXPLAIN says of every SELECT and UPDATE on the calls that work() makes."""
    with CaptureQueriesContext(connection) as queries:
        work()
    found = []
    for query in queries:
        if "scheduler_scheduledcall" in query["sql"] and query["sql"].startswith(("SELECT", "UPDATE")):
            with connection.cursor() as cursor:
                prefix = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
                cursor.execute(f"{prefix} {query['sql']}".replace("%", "%%"), ())
                found.append("\n".join(str(row[-1]) for row in cursor.fetchall()))
    return found


@pytest.fixture(autouse=True)
def many_rows():
    make(-86400, 20_000, status="Succeeded", ended_at=utcnow())
    make(86400, 2_000)
    make(60, 20, status="Running", lease_until=utcnow() + timedelta(minutes=1))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


@pytest.mark.parametrize("work, index", [
    (lambda: transitions.hand_over(lambda ids, first: None), "call_pending"),
    (transitions.miss, "call_pending"),
    (transitions.reap, "call_running"),
])
def test_the_index_is_used(work, index):
    first = plans(work)[0]
    assert index in first, first
    assert "Seq Scan" not in first and "SCAN scheduler_scheduledcall" not in first
