"""The dispatcher's queries are served by the partial indexes, which finished rows have left."""
from datetime import timedelta

import pytest
from conftest import make
from django.db import connection
from django.test.utils import CaptureQueriesContext

from scheduler.admin import dashboard
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger
from scheduler.models import ScheduledCall


def plans(work):
    """What EXPLAIN says of every SELECT and UPDATE on the calls that work() makes."""
    with CaptureQueriesContext(connection) as queries:
        work()
    found = []
    for query in queries:
        if "scheduler_scheduledcall" in query["sql"] and query["sql"].startswith(("SELECT", "(SELECT", "UPDATE", "WITH")):
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
    (lambda: dispatch.hand_over(lambda ids, first: None), "call_pending"),
    (ledger.miss, "call_pending"),
    (ledger.reap, "call_running"),
])
def test_the_index_is_used(work, index):
    first = plans(work)[0]
    assert index in first, first
    assert "Seq Scan" not in first and "SCAN scheduler_scheduledcall" not in first


@pytest.mark.parametrize("order", [["timestamp", "id"], ["-timestamp", "-id"]])
@pytest.mark.parametrize("wanted", [["Failed"], ["Missed"], ["Running"], ["Failed", "Missed"], ["Pending", "Running"],
                                    ["Succeeded", "Cancelled"], ScheduledCall.Status.values])
def test_a_list_of_some_statuses_reads_those_alone(wanted, order):
    """Of 22,000 calls that lie between, none is read."""
    plan = plans(lambda: list(ScheduledCall.objects.of(wanted).order_by(*order)[:100]))[0]
    for status in wanted:
        assert f"call_{status.lower()}" in plan, plan
    assert "Seq Scan" not in plan and "call_due" not in plan, plan


def test_lists_of_statuses_are_those_that_a_filter_would_give():
    make(-50, 30, status="Failed"), make(-60, 30, status="Missed"), make(-50, 3, status="Cancelled")
    calls = ScheduledCall.objects.filter(timestamp__gt=utcnow() - timedelta(seconds=55))
    for wanted in (["Failed"], ["Failed", "Missed", "Running"], ["Running", "Pending"]):
        for order in (["timestamp", "id"], ["-timestamp", "-id"], ["id"], ["-id"]):
            plain = calls.filter(status__in=wanted).order_by(*order)
            for part in (slice(0, 100), slice(20, 40), slice(60, None)):
                assert list(calls.of(wanted).order_by(*order)[part]) == list(plain[part])
    assert calls.of(["Failed"]).of(["Missed"])[:10].count() == 0 == calls.of(["Failed"]).of(["Missed"]).count()
    assert calls.of(["Failed", "Missed", "Cancelled"])[:31].count() == 31


def test_the_picture_counts_in_the_indexes():
    start = dashboard.floor(utcnow())
    plan = "\n".join(plans(lambda: dashboard.counts([start + timedelta(minutes=30 * i) for i in range(-48, 48)])))
    for status in ScheduledCall.Status.values:
        assert f"call_{status.lower()}" in plan, plan
    assert "Seq Scan on scheduler_scheduledcall" not in plan and "call_due" not in plan, plan
