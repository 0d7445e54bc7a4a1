"""Among many finished rows, and many that are far ahead, nothing takes longer than among none."""
from datetime import timedelta

import pytest
from conftest import fill, make, rows_read
from django.db import connection, transaction

from scheduler.admin import dashboard
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger, limits, targets
from scheduler.calls.attempts import attempts_of
from scheduler.models import Attempt, Schedule, ScheduledCall, Target
from scheduler.ops import prune

MANY, FEW = 20_000, 5_000       # rows that nobody asks for; rows that may be read for a hundred


@pytest.fixture
def many_rows():
    # So many that PostgreSQL, which knows little of how times and statuses go together, does not find reading all cheaper.
    fill(3 * MANY, -3 * 86400, status="Succeeded", ended_at=utcnow())
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


@pytest.fixture
def many_of_targets():
    """Three targets, one with many calls that were made and as many of which another
    attempt is to come, one with failures alone, and one with a few of each status."""
    three = Target.objects.bulk_create([
        Target(name=name, url="https://a.example/", delays=[60], max_at_once=5) for name in ("busy", "broken", "small")])
    busy, broken, small = three
    later = {"next_attempt_at": utcnow() + timedelta(hours=1), "attempts_made": 1, "started_at": utcnow()}
    fill(MANY // 2, -7200, status="Succeeded", ended_at=utcnow(), target=busy)
    fill(MANY // 2, -600, status="Retrying", target=busy, **later)
    fill(MANY // 2, -7200, status="Failed", ended_at=utcnow(), target=broken)
    make(-3600, 20, status="Failed", ended_at=utcnow(), target=small), make(-5, 5, status="Retrying", target=small, **later)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    return three


def test_a_tick_reads_nothing_of_targets_but_what_it_ends_or_hands_over(many_of_targets):
    for part in (lambda: dispatch.hand_over(lambda ids, first: None), ledger.miss, ledger.reap,
                 lambda: limits.under_way([target.id for target in many_of_targets])):
        assert rows_read(part) < FEW


def test_a_list_of_a_target_reads_no_call_of_others_nor_of_other_statuses(many_of_targets):
    for wanted in ([], ["Failed"], ["Retrying"], ["Running"], ["Pending", "Retrying"], ["Failed", "Missed"], ["Cancelled"]):
        for target in many_of_targets:
            calls = ScheduledCall.objects.for_targets([target.id])
            calls = calls.of(wanted) if wanted else calls
            for order in (["timestamp", "id"], ["-timestamp", "-id"]):
                assert rows_read(lambda: list(calls.order_by(*order)[:100])) < FEW, (wanted, target, order)
        if wanted:
            assert rows_read(lambda: list(ScheduledCall.objects.of(wanted).order_by("timestamp", "id")[:100])) < FEW, wanted


def test_lists_of_targets_are_those_that_a_filter_would_give(many_of_targets):
    ids = [target.id for target in many_of_targets[1:]]
    for order in (["timestamp", "id"], ["-timestamp", "-id"], ["-id"]):
        for calls, plain in ((ScheduledCall.objects.for_targets(ids), ScheduledCall.objects.filter(target__in=ids)),
                             (ScheduledCall.objects.of(["Failed", "Retrying"]).for_targets(ids[1:]),
                              ScheduledCall.objects.filter(target=ids[1], status__in=["Failed", "Retrying"]))):
            for part in (slice(0, 50), slice(15, 40)):
                assert list(calls.order_by(*order)[part]) == list(plain.order_by(*order)[part])
            assert calls.count() == plain.count()
    assert not ScheduledCall.objects.for_targets([]).order_by("id")[:5]


def test_what_uses_a_target_is_counted_without_what_is_over(many_of_targets):
    *_, broken, small = many_of_targets
    for target, calls in ((broken, 0), (small, 5)):
        assert rows_read(lambda: targets.used([target.id])) < FEW
        assert targets.used([target.id])[target.id] == {"calls": calls, "schedules": 0}


def test_what_overlaps_is_found_without_what_is_over(many_rows):
    schedule = Schedule.objects.create(name="lunch", times="12:30:00", zone="UTC", overlap="skip")
    ScheduledCall.objects.filter(status="Succeeded").update(schedule=schedule)
    call = make(-1, schedule=schedule, occurrence=utcnow())
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    prepared = [ledger.Prepared(call.id, None, None, 1)]
    assert rows_read(lambda: ledger.claim_prepared(prepared, "t" * 32)) < FEW
    assert ScheduledCall.objects.get(id=call.id).status == "Running"


def test_attempts_are_read_by_their_call_and_pruned_by_their_age(many_rows):
    calls = list(ScheduledCall.objects.filter(status="Succeeded").order_by("id")[:2 * FEW])
    Attempt.objects.bulk_create([Attempt(call=call, number=1, ended_at=utcnow(), outcome="Failed") for call in calls], batch_size=1000)
    old = Attempt.objects.create(call=calls[0], number=2, ended_at=utcnow() - timedelta(days=31), outcome="Failed")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    assert rows_read(lambda: attempts_of(calls[5])) < 100
    assert rows_read(lambda: prune.prune_attempts(utcnow())) < FEW
    assert not Attempt.objects.filter(id=old.id).exists() and Attempt.objects.count() == 2 * FEW


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


def test_in_order_of_ids_those_of_some_days_are_found_in_an_index_alone(many_rows):
    calls = ScheduledCall.objects.filter(timestamp__gt=utcnow() - timedelta(days=4), timestamp__lt=utcnow() + timedelta(days=1))
    for order in ("id", "-id"):
        for part in (slice(0, 100), slice(MANY - 50, MANY + 50)):
            plain = list(calls.order_by(order).values_list("id", flat=True))[part]
            assert [call.id for call in calls.select_related("target").order_by(order)[part]] == plain
        plan = calls.select_related("target").order_by(order)[:100].explain()
        assert connection.vendor != "sqlite" or "COVERING INDEX call_due" in plan, "PostgreSQL may as well read them by their ids"
    with transaction.atomic():
        assert "IN (SELECT" not in str(calls.select_for_update().order_by("id")[:3].query), "what is locked is what is looked for"
