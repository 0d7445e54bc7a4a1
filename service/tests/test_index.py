"""Among many finished rows, and many that are far ahead, nothing takes longer than among none."""
from datetime import timedelta

import pytest
from conftest import fill, make, rows_read
from django.db import connection

from scheduler.admin import dashboard
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger
from scheduler.models import ScheduledCall

MANY, FEW = 20_000, 5_000       # rows that nobody asks for; rows that may be read for a hundred


@pytest.fixture
def many_rows():
    fill(MANY, -3 * 86400, status="Succeeded", ended_at=utcnow())
    fill(MANY // 10, 3 * 86400)
    make(60, 20, status="Running", lease_until=utcnow() + timedelta(minutes=1))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")      # also of rows of other tests


def test_a_tick_reads_neither_what_is_over_nor_what_is_far_ahead(many_rows):
    assert rows_read(lambda: ScheduledCall.objects.filter(note="x").exists()) > MANY, "it is counted"
    for part in (lambda: dispatch.hand_over(lambda ids, first: None), ledger.miss, ledger.reap):
        assert rows_read(part) < FEW


def test_a_list_of_some_statuses_reads_those_alone(many_rows):
    for wanted in (["Failed"], ["Missed"], ["Running"], ["Failed", "Missed"], ["Pending", "Running"],
                   ["Succeeded", "Cancelled"], ScheduledCall.Status.values):
        for order in (["timestamp", "id"], ["-timestamp", "-id"]):
            read = rows_read(lambda: list(ScheduledCall.objects.of(wanted).order_by(*order)[:100]))
            assert read < FEW, (wanted, order)


def test_lists_of_statuses_are_those_that_a_filter_would_give(many_rows):
    make(-50, 30, status="Failed"), make(-60, 30, status="Missed"), make(-50, 3, status="Cancelled")
    calls = ScheduledCall.objects.filter(timestamp__gt=utcnow() - timedelta(seconds=55))
    for wanted in (["Failed"], ["Failed", "Missed", "Running"], ["Running", "Pending"]):
        for order in (["timestamp", "id"], ["-timestamp", "-id"], ["id"], ["-id"]):
            plain = calls.filter(status__in=wanted).order_by(*order)
            for part in (slice(0, 100), slice(20, 40), slice(60, None)):
                assert list(calls.of(wanted).order_by(*order)[part]) == list(plain[part])
    assert calls.of(["Failed"]).of(["Missed"])[:10].count() == 0 == calls.of(["Failed"]).of(["Missed"]).count()
    assert calls.of(["Failed", "Missed", "Cancelled"])[:31].count() == 31


def test_the_picture_reads_no_call_outside_of_its_48_hours(many_rows):
    start = dashboard.floor(utcnow())
    assert rows_read(lambda: dashboard.counts([start + timedelta(minutes=30 * i) for i in range(-48, 48)])) < FEW
