"""A database of the version before, taken over: rows in every state, and its workers still up for a while.

The tables are made by that version's own migration. What its workers did to rows is here as the SQL that
they sent, from its claim, renew, finish and reap.
"""
import base64
import json
import threading
from datetime import timedelta

import psycopg
import pytest
from conftest import KIND, all_ended, empty, make, person, postgres, redis_server, rows_read, statuses, until
from django.core.cache.backends.redis import RedisCache
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.test import Client, override_settings
from test_notices import sent

from scheduler import tasks
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger
from scheduler.calls.attempts import attempts_of
from scheduler.models import CallRequest, Failure, Schedule, ScheduledCall, Target, Told
from scheduler.ops import notify

BEFORE = [("scheduler", "0001_initial")]
TABLE = "scheduler_scheduledcall"


@pytest.fixture
def before():
    """The models as the version before has them, on its tables; migrated again when the test is over."""
    yield go_back()
    call_command("migrate", verbosity=0)


@pytest.fixture(scope="module")
def taken_over():
    """The same models, on tables that were its own and are migrated: once for all tests that begin there."""
    empty()
    model = go_back()
    call_command("migrate", verbosity=0)
    return model


def go_back():
    executor = MigrationExecutor(connection)
    executor.migrate(BEFORE)
    return executor.loader.project_state(BEFORE).apps.get_model("scheduler", "ScheduledCall")


def old(sql, *parameters):
    """Sends SQL as a worker of the version before; returns the number of rows it changed."""
    as_stored = connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        cursor.execute(sql, [as_stored(p) if hasattr(p, "tzinfo") else p for p in parameters])
        return cursor.rowcount


def old_claim(ids, token, now, until, lease=45, grace=60):
    marks = ", ".join(["%s"] * len(ids))
    return old(f"UPDATE {TABLE} SET status = 'Running', claim_token = %s, lease_until = %s, started_at = %s"
               f" WHERE id IN ({marks}) AND status = 'Pending' AND timestamp < %s AND timestamp >= %s",
               token, now + timedelta(seconds=lease), now, *ids, until, now - timedelta(seconds=grace))


def old_finish(call_id, token, now, status="Succeeded"):
    """It read the ids that were still its own, locked, and wrote by id alone."""
    if ScheduledCall.objects.filter(id=call_id, status="Running", claim_token=token).exists():
        return old(f"UPDATE {TABLE} SET status = %s, started_at = %s, ended_at = %s, http_status = 200,"
                   " error = '', lease_until = NULL WHERE id = %s", status, now, now, call_id)
    return 0


@pytest.mark.processes
def test_web_servers_of_both_versions_count_writes_beside_each_other():
    """That version pickles, as Django does by itself, and answers 500 to a POST if it finds JSON."""
    user = person()
    client, old_cache = Client(), RedisCache(redis_server.url, {"KEY_PREFIX": "scheduler", "VERSION": 1})
    client.force_login(user)
    for _ in range(2):
        assert client.post("/api/schedule-api/", {"timestamps": "2096-01-01T00:00:00Z"},
                           content_type="application/json").status_code == 201
        assert len(redis_server.command("keys", f"scheduler:*:throttle_write_{user.pk}").split()) == 1
        assert old_cache.get(f"throttle_write_{user.pk}") is None


def test_rows_in_every_state_are_taken_over(before, stack, api, log):
    now = utcnow()
    second = timedelta(seconds=1)
    ended = {"ended_at": now - 60 * second, "created_at": now - 90 * second}
    rows = {name: before.objects.create(**fields) for name, fields in {
        "far": {"timestamp": now + 3600 * second},
        "soon": {"timestamp": now + 15 * second},
        "handed over, its message lost": {"timestamp": now + 8 * second, "handed_over_at": now - 20 * second},
        "just past, nobody came": {"timestamp": now - 5 * second, "handed_over_at": now - 30 * second},
        "past its grace": {"timestamp": now - 500 * second},
        "its worker is dead": {"timestamp": now - 50 * second, "status": "Running", "claim_token": "d" * 32,
                               "started_at": now - 50 * second, "lease_until": now - second},
        "its worker is alive": {"timestamp": now - second, "status": "Running", "claim_token": "a" * 32,
                                "started_at": now - second, "lease_until": now + 45 * second},
        "good": {"timestamp": now - 70 * second, "status": "Succeeded", "started_at": now - 69 * second,
                 "http_status": 200, **ended},
        "bad": {"timestamp": now - 70 * second, "status": "Failed", "started_at": now - 69 * second,
                "http_status": 500, "error": "HTTP status 500", **ended},
        "started before it was due": {
            "timestamp": now - 70 * second, "status": "Failed", "started_at": now - 71 * second,
            "error": ledger.WORKER_LOST, **ended},
        "missed": {"timestamp": now - 200 * second, "status": "Missed", "error": "not started", **ended},
        "cancelled": {"timestamp": now + 200 * second, "status": "Cancelled", **ended},
    }.items()}
    kept = [rows[name].id for name in ("good", "bad", "missed", "cancelled")]
    were = list(before.objects.filter(id__in=kept).order_by("id").values())
    old("INSERT INTO scheduler_heartbeat (name, at) VALUES ('dispatcher', %s)", now + 120 * second)

    call_command("migrate", verbosity=0)
    stack.start("web", "worker", "beat")
    until(lambda: old_finish(rows["its worker is alive"].id, "a" * 32, utcnow()) or True)
    all_ended(len(rows) - 1)
    assert {name: ScheduledCall.objects.get(id=row.id).status for name, row in rows.items()} == {
        "far": "Pending", "soon": "Succeeded", "handed over, its message lost": "Succeeded",
        "just past, nobody came": "Succeeded", "past its grace": "Missed", "its worker is dead": "Failed",
        "its worker is alive": "Succeeded", "good": "Succeeded", "bad": "Failed",
        "started before it was due": "Failed", "missed": "Missed", "cancelled": "Cancelled"}
    assert list(ScheduledCall.objects.filter(id__in=kept).order_by("id").values(*were[0])) == were
    assert set(ScheduledCall.objects.values_list("scheduled_by", "scheduled_via", "note", "again_of", "cancelled_by")) == {
        ("", "", "", None, "")}
    assert ScheduledCall.objects.get(id=rows["started before it was due"].id).started_at is None
    assert len(api.seen) == 3 and len(log(5)) == 5       # three made, one missed, one lost
    assert dispatch.since_beat() < 20, "the heartbeat that lay in the future is overwritten"


def test_workers_of_both_versions_at_once(taken_over):
    """Each call is one worker's, whichever version it is of, and nothing final is written over."""
    ids = [call.id for call in make(-1, 200)]
    won, barrier = {}, threading.Barrier(4)

    def work(number):
        mine = won[number] = []
        barrier.wait()
        for start in range(0, 200, 10):
            some, token = ids[start:start + 10], f"{number}-{start}".ljust(32, "-")
            if number % 2:
                mine += ledger.claim(some, token)[0]
            else:
                old_claim(some, token, utcnow(), utcnow() + timedelta(seconds=1))
                mine += ScheduledCall.objects.filter(id__in=some, claim_token=token).values_list("id", flat=True)
        connections.close_all()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sum(won.values(), [])) == ids
    assert statuses() == {"Running": 200}


def test_an_old_workers_call_is_reaped_by_the_new_dispatcher_and_not_written_over(taken_over, log):
    alive, dead = make(-1), make(-1)
    assert old_claim([alive.id], "a" * 32, utcnow(), utcnow()) == old_claim([dead.id], "d" * 32, utcnow(), utcnow()) == 1
    ScheduledCall.objects.filter(id=dead.id).update(lease_until=utcnow() - timedelta(seconds=1))
    assert ledger.reap() == 1
    assert old_finish(dead.id, "d" * 32, utcnow()) == 0 and old_finish(alive.id, "a" * 32, utcnow()) == 1
    assert statuses() == {"Failed": 1, "Succeeded": 1} and len(log()) == 1


def test_what_an_old_worker_had_claimed_ahead_of_its_time_has_no_start(taken_over, log):
    """It claimed up to a second early, and wrote that as the start: nobody was called before it was due."""
    calls = make(0.9, 3)
    assert old_claim([call.id for call in calls], "a" * 32, utcnow(), utcnow() + timedelta(seconds=1)) == 3
    begun = utcnow() + timedelta(seconds=1)
    old(f"UPDATE {TABLE} SET lease_until = %s", utcnow() - timedelta(seconds=1))
    old(f"UPDATE {TABLE} SET started_at = %s WHERE id = %s", begun, calls[0].id)
    assert ledger.reap() == 3
    first, *others = ScheduledCall.objects.order_by("id")
    assert abs(first.started_at - begun) < timedelta(milliseconds=1) and first.lateness >= 0
    assert {(call.started_at, call.lateness) for call in others} == {(None, None)}
    assert len(log(3)) == 3


def test_failures_that_the_version_before_writes_are_told(before, monkeypatch):
    """It knows of none to be told: neither when it makes rows, nor when it ends them."""
    now = utcnow()
    before.objects.create(timestamp=now, status="Failed", ended_at=now)
    call_command("migrate", verbosity=0)
    call, good = before.objects.create(timestamp=now), before.objects.create(timestamp=now)
    missed = before.objects.create(timestamp=now, status="Missed", ended_at=now)
    assert old_claim([call.id, good.id], "a" * 32, now, utcnow()) == 2
    assert old_finish(call.id, "a" * 32, utcnow(), "Failed") == old_finish(good.id, "a" * 32, utcnow()) == 1
    assert [failure.call_id for failure in Failure.objects.order_by("id")] == [missed.id, call.id]
    monkeypatch.setattr(notify, "send", lambda notices, within: ["no answer"] * len(notices))
    with override_settings(FAILURES_TO=["ops@example.org"]):
        notify.tell()
        sent()
    assert Told.objects.get().sending["Failed"] == Told.objects.get().sending["Missed"] == 1


@pytest.mark.parametrize("wanted", [True, False])
def test_what_mails_have_not_told_of_is_not_lost(before, wanted):
    """What the version before has not seen yet, and what it has seen and kept for its next mail."""
    executor = MigrationExecutor(connection)
    executor.migrate([("scheduler", "0013_indexes_of_targets")])
    apps = executor.loader.project_state([("scheduler", "0013_indexes_of_targets")]).apps
    Call, second, now = apps.get_model("scheduler", "ScheduledCall"), timedelta(seconds=1), utcnow()

    def ended(age, status="Failed", told=True):
        return Call.objects.create(timestamp=now, status=status, ended_at=now - age * second, told=told).id
    ended(900), ended(700, told=None), ended(300), ended(300, "Succeeded"), ended(10, "Cancelled", None)
    ids = [ended(200), ended(100, "Missed"), ended(60, told=None), ended(5, "Missed", None)]
    waiting = {name: (now - age * second).isoformat() for name, age in (("first", 200), ("last", 100))}
    apps.get_model("scheduler", "Notice").objects.create(
        since=now - 600 * second, seen_at=now - (0 if wanted else 3600) * second, waiting={**waiting, "calls": [], "Failed": 1, "Missed": 1})
    apps.get_model("scheduler", "Heartbeat").objects.create(name="dispatcher", at=now)
    call_command("migrate", verbosity=0)
    assert sorted(Failure.objects.values_list("call_id", flat=True)) == (ids if wanted else [])
    old("DELETE FROM scheduler_notice")


def test_a_migration_that_was_killed_goes_on(before):
    """Indexes are made, and go, outside of transactions, so an attempt may leave one behind."""
    MigrationExecutor(connection).migrate([("scheduler", "0005_told")])
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX call_untold ON {TABLE} (id)")
    MigrationExecutor(connection).migrate([("scheduler", "0014_notices")])
    with connection.cursor() as cursor:
        assert connection.introspection.get_constraints(cursor, TABLE)["call_untold"]["columns"] == ["ended_at"]
    call_command("migrate", verbosity=0)
    make(status="Failed")
    old("DELETE FROM django_migrations WHERE app = 'scheduler' AND name >= '0015'")
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        assert "call_untold" not in connection.introspection.get_constraints(cursor, TABLE)
    make(status="Failed")
    assert Failure.objects.count() == 2, "each is noted once"


def test_messages_of_the_version_before_are_understood(taken_over, stack, api):
    """Its dispatcher sent them with a time at which they expire."""
    stack.start("worker")
    call = make(3)
    ScheduledCall.objects.update(handed_over_at=utcnow())
    tasks.make_calls.apply_async(
        ([call.id], call.timestamp.isoformat()), eta=call.timestamp - timedelta(seconds=0.5),
        expires=call.timestamp + timedelta(seconds=90))
    tasks.tick.apply_async(expires=30)
    assert all_ended(1) == {"Succeeded": 1}
    assert len(api.seen) == 1


@pytest.mark.processes
def test_messages_are_what_workers_of_the_version_before_read():
    """They take the ids, and the time of the first as a second argument; with or without an ETA."""
    call = make(5)
    assert dispatch.hand_over(dispatch.send) == 1
    message = json.loads(redis_server.command("lindex", "scheduler.calls", "0"))
    assert message["headers"]["task"] == "scheduler.tasks.make_calls"
    assert json.loads(base64.b64decode(message["body"]))[0] == [[call.id], call.timestamp.isoformat()]
    assert not message["headers"]["eta"] and not message["headers"]["expires"]


@pytest.fixture
def table():
    """Where the table begins, in SQLite's file or in PostgreSQL's folder: elsewhere, once it was written
    anew."""
    def looked_up():
        with connection.cursor() as cursor:
            cursor.execute("SELECT rootpage FROM sqlite_master WHERE name = %s" if connection.vendor == "sqlite"
                           else "SELECT relfilenode FROM pg_class WHERE relname = %s", [TABLE])
            return cursor.fetchone()[0]
    return looked_up


def test_the_table_is_not_written_anew_and_old_processes_may_insert(before, table):
    """A table of millions of rows takes the columns at once, beside a web server of the version before."""
    before.objects.bulk_create([before(timestamp=utcnow()) for _ in range(100)])
    file = table()
    call_command("migrate", verbosity=0)
    assert table() == file
    assert old(f"INSERT INTO {TABLE} (timestamp, status, created_at, claim_token, error)"
               " VALUES (%s, 'Pending', %s, '', '')", utcnow(), utcnow()) == 1
    call = ScheduledCall.objects.latest("id")
    assert (call.scheduled_by, call.scheduled_via, call.note, call.again_of, call.cancelled_by) == ("", "", "", None, "")


def test_a_migration_that_was_interrupted_goes_on(before):
    """It cannot be one transaction, as indexes are built beside the writes of others."""
    old(f"ALTER TABLE {TABLE} ADD COLUMN note varchar(200) NOT NULL DEFAULT ''")
    old(f"CREATE INDEX call_failed ON {TABLE} (timestamp)")
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        indexes = connection.introspection.get_constraints(cursor, TABLE)
    assert indexes["call_failed"]["columns"] == ["timestamp", "id"]
    assert {index.name for index in ScheduledCall._meta.indexes} <= indexes.keys()
    assert make().note == ""


def test_permissions_have_the_names_that_the_admin_shows(before):
    from django.contrib.auth.models import Permission
    view = Permission.objects.get(codename="view_scheduledcall")
    assert view.name == "Can view scheduled call"
    call_command("migrate", verbosity=0)
    view.refresh_from_db()
    assert view.name == "Can view call"


def test_a_web_server_of_the_version_before_still_takes_calls_in(taken_over, log):
    taken_over.objects.bulk_create([taken_over(timestamp=utcnow() + timedelta(seconds=60)) for _ in range(3)])
    assert statuses() == {"Pending": 3}
    assert set(ScheduledCall.objects.values_list("schedule", "occurrence")) == {(None, None)}


def test_schedules_are_planned_after_the_way_back_and_forth_again():
    """SQLite's table is written anew on the way back, without the defaults that 0004 gave its columns."""
    from scheduler.schedules import planner
    from scheduler.models import Schedule
    call_command("migrate", "scheduler", "0006", verbosity=0)
    call_command("migrate", verbosity=0)
    planner.save(Schedule(name="lunch", times="12:30:00", zone="UTC"))
    assert statuses().keys() == {"Pending"}


@pytest.mark.skipif(KIND == "sqlite", reason="SQLite's readers are in nobody's way")
def test_migrate_gives_up_behind_a_backup_and_goes_on_later(before, monkeypatch):
    """Behind its lock every claim would wait: better to come again."""
    monkeypatch.setattr("scheduler.management.commands.migrate.LOCK", 1)
    with psycopg.connect(postgres.url) as backup:
        backup.execute(f"SELECT count(*) FROM {TABLE}")
        with pytest.raises(CommandError, match="migrate again when that is over"):
            call_command("migrate", verbosity=0)
    call_command("migrate", verbosity=0)
    make()


@pytest.mark.skipif(KIND == "sqlite", reason="SQLite's readers are in nobody's way")
def test_who_reads_calls_and_then_schedules_waits_for_no_migration_that_waits_for_it(before):
    """As an old version does with a list of calls, a plan, or a POST: one of the two would end as a deadlock."""
    call_command("migrate", "scheduler", "0010", verbosity=0)

    def migrate():
        call_command("migrate", verbosity=0)
        connections.close_all()
    with psycopg.connect(postgres.url, autocommit=True) as watch, psycopg.connect(postgres.url) as reader:
        reader.execute(f"SELECT count(*) FROM {TABLE}")
        thread = threading.Thread(target=migrate)
        thread.start()
        until(lambda: watch.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass", [TABLE]).fetchone())
        reader.execute("SET statement_timeout = '3s'")
        assert reader.execute("SELECT count(*) FROM scheduler_schedule").fetchone() == (0,)
        reader.commit()
        thread.join()
    make()


def test_the_columns_of_targets_are_added_without_a_look_at_each_row(before):
    """A million rows would be looked at for seconds, in which nobody writes."""
    call_command("migrate", "scheduler", "0011", verbosity=0)
    before.objects.bulk_create([before(timestamp=utcnow()) for _ in range(3000)])
    read = {}

    def counted(execute, sql, *rest):
        if not sql.startswith("ALTER TABLE"):
            return execute(sql, *rest)
        read[sql] = rows_read(lambda: execute(sql, *rest))
    with connection.execute_wrapper(counted):
        call_command("migrate", "scheduler", "0012", verbosity=0)
    assert len(read) >= 6 and max(read.values()) < 3000, read
    call_command("migrate", verbosity=0)
    make(attempts_made=1, trace={"version": 1})


def test_steps_after_a_number_go_on_as_they_came(before):
    """The version before took them, though no cron does; and who has such a schedule can still change it."""
    from scheduler.models import Schedule
    from scheduler.schedules import planner
    call_command("migrate", "scheduler", "0007", verbosity=0)
    crons = {"5/10 1,2/3 * * *": "5-59/10 1,2-23/3 * * *", "0 0 L/2 mar/4 mon/2,5": "0 0 L mar-12/4 mon-7/2,5",
             "*/5 9-17/2 * * 1-5": "*/5 9-17/2 * * 1-5"}
    for cron in crons:
        old("INSERT INTO scheduler_schedule (name, times, cron, zone, days, \"on\", created_at, created_by, version)"
            " VALUES (%s, '', %s, 'UTC', 'mon,tue,wed,thu,fri,sat,sun', %s, %s, '', 0)", cron, cron, True, utcnow())
    call_command("migrate", verbosity=0)
    for schedule in Schedule.objects.all():
        assert schedule.cron == crons[schedule.name]
        schedule.on = False
        schedule.full_clean()
        planner.save(schedule)


# --- The version before targets ---------------------------------------------------------------

def claim_without_targets(ids, token):
    """As its ledger.claim; returns the ids that it then had."""
    now = utcnow()
    which = (f"id IN ({', '.join(map(str, ids))}) AND (status = 'Running' AND claim_token = %s OR status = 'Pending'"
             " AND timestamp <= %s AND timestamp >= %s)")
    change = "SET status = 'Running', claim_token = %s, started_at = NULL, lease_until = %s"
    asked, given = (token, now, now - timedelta(seconds=60)), (token, now + timedelta(seconds=45))
    if connection.vendor == "postgresql":
        old(f"WITH due AS MATERIALIZED (SELECT id FROM {TABLE} WHERE {which} ORDER BY id FOR UPDATE)"
            f" UPDATE {TABLE} AS call {change} FROM due WHERE call.id = due.id", *asked, *given)
    else:
        old(f"UPDATE {TABLE} {change} WHERE {which}", *given, *asked)
    return set(ScheduledCall.objects.filter(status="Running", claim_token=token).values_list("id", flat=True))


def insert_without_targets(**fields):
    """As its ledger.plan and ledger.schedule; returns the ScheduledCall."""
    fields = {"timestamp": utcnow(), "status": "Pending", "error": "", "created_at": utcnow(), "scheduled_via": "schedule",
              "scheduled_by": "", "note": "", "cancelled_by": "", "claim_token": "", **fields}
    old(f"INSERT INTO {TABLE} ({', '.join(fields)}) VALUES ({', '.join(['%s'] * len(fields))})", *fields.values())
    return ScheduledCall.objects.latest("id")


def billing(**fields):
    return Target.objects.create(name="billing", url="https://api.example.org/", method="POST", **fields)


def test_a_worker_that_knows_no_targets_makes_the_other_calls_of_its_message():
    """Those that name one it cannot have, in whatever state; and one that knows them can."""
    target = billing()
    first, plain, last = make(-1, target=target), make(-1), make(-1)
    again = make(-1, target=target, status="Retrying", attempts_made=1, next_attempt_at=utcnow() - timedelta(seconds=1))
    ids = [first.id, plain.id, again.id, last.id]
    assert claim_without_targets(ids, "a" * 32) == {plain.id, last.id}
    assert claim_without_targets(ids, "a" * 32) == {plain.id, last.id}, "nor the second time"
    assert ledger.claim_prepared([ledger.Prepared(first.id, target.id, 1, 1), ledger.Prepared(again.id, target.id, 1, 2)],
                                 "b" * 32).won == {first.id, again.id}
    assert claim_without_targets(ids, "c" * 32) == set()


def test_what_is_tried_again_outlives_a_dispatcher_that_knows_no_targets():
    """It ends what is Pending and late, and what is Running and lost. That is Failed then, as it would be without
    retries, and shown as what it is."""
    target, late = billing(delays=[10], repeatable=True), utcnow() - timedelta(seconds=60)
    retrying = make(-300, target=target, status="Retrying", attempts_made=1, next_attempt_at=utcnow())
    lost = make(-300, target=target, status="Running", attempts_made=2, next_attempt_at=late, lease_until=late, claim_token="a" * 32)
    old(f"UPDATE {TABLE} SET status = 'Missed', ended_at = %s, error = 'not started', lease_until = NULL"
        " WHERE status = 'Pending' AND timestamp < %s", utcnow(), late)
    assert old(f"UPDATE {TABLE} SET status = 'Failed', ended_at = %s, error = %s, lease_until = NULL WHERE status = 'Running'"
               " AND lease_until < %s", utcnow(), ledger.WORKER_LOST, utcnow()) == 1
    assert statuses() == {"Retrying": 1, "Failed": 1}
    lost.refresh_from_db()
    assert [(one["number"], one["error"]) for one in attempts_of(lost)] == [(2, ledger.WORKER_LOST)]
    assert ledger.miss() == ledger.reap() == 0 and dispatch.hand_over(lambda ids, first: None, [retrying.id]) == 1


def test_what_a_dispatcher_that_knows_no_targets_plans_has_its_schedules_target():
    target = billing()
    fields = {"times": "12:30:00", "zone": "UTC", "planned_until": utcnow()}
    of_target, plain = (Schedule.objects.create(name=name, target=one, **fields) for name, one in (("a", target), ("b", None)))
    assert insert_without_targets(schedule_id=of_target.id, occurrence=utcnow(), utc_offset=0).target == target
    assert insert_without_targets(schedule_id=plain.id, occurrence=utcnow(), utc_offset=0).target is None


def test_what_a_web_server_that_knows_no_targets_makes_again_is_sent_to_the_same_target():
    """And not to API_URL."""
    target = billing()
    first, = ledger.schedule(calls=[ledger.NewCall(utcnow(), target=target, body="{}", data={"a": [1]})])
    bare, plain = make(target=target), make()
    again = insert_without_targets(again_of=first.id)
    assert again.target == target and (again.request.body, again.request.headers, again.request.data) == ("{}", {}, {"a": [1]})
    assert insert_without_targets(again_of=bare.id).target == target
    assert insert_without_targets(again_of=plain.id).target is None
    assert insert_without_targets(again_of=10**9).target is None, "of one that was pruned nobody knows it"
    new, = ledger.again([again.id])
    assert new.target == target and CallRequest.objects.count() == 3, "each has its own"
