"""Measures the service against its figures, side by side with the obvious design, in one run.

    python3 benchmarks/service.py               # a table, in about 45 minutes
    python3 benchmarks/service.py --part kill   # only that part: see PARTS below
    python3 benchmarks/service.py --json FILE   # the same, and what was measured as JSON
    python3 benchmarks/service.py --smallest    # whether it still works, in some minutes

Needs redis-server, postgresql and openssl, as service/tests/run installs them; what it needs of Python it
installs into service/.venv. Starts its own Redis, PostgreSQL and a local API that answers in 100 ms,
on free ports of the loopback, and runs everything on SQLite and on PostgreSQL.

The obvious design is `obvious_service/` beside this file: one Celery task for each timestamp, sent
with `apply_async(eta=...)` while the request waits, its outcome kept by a result backend in the
database, and a worker of 100 threads.

Exit status 1 when a figure misses its bar (with --smallest: when calls are lost, made twice or early).
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVICE = HERE.parent / "service"
OBVIOUS = HERE / "obvious_service"

# The bars, in seconds.
POST_1000 = 0.4
ONE_CALL = 0.050
TICK = 0.050
PLANNING = 2.0
LAST_HTTP, LAST_HTTPS = 0.6, 1.2
PAGE, LIST = 1.0, 0.050     # of the admin, and of the API's list in order of time
CANCEL = 1.0                # 10,000 calls
POST_TARGETS = 0.8          # 1,000 calls in one second to 100 targets: last request
GROWTH = 1.1                # of a row of a call that names no target, against the version before targets
UNKNOWN = 50                # calls of which nobody knows how they ended, after kill -9 of a worker

PARTS = ["burst", "https", "post", "failing", "sustained", "storm", "kill", "obvious", "growth", "ticks", "planning", "pages",
         "attempts", "rows"]
OBVIOUS_PATIENCE = 24       # how long the obvious design is waited for after the due second


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="write what was measured to FILE")
    parser.add_argument("--smallest", action="store_true", help="the least that shows that it still works")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="only this one (default: both)")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one (default: all)")
    parser.add_argument("--prepared", action="store_true", help=argparse.SUPPRESS)     # see `main`
    options = parser.parse_args()
    options.part = options.part or PARTS
    return options


def use_venv():
    """Goes on in service/.venv, with what service_requirements.txt asks for."""
    python = SERVICE / ".venv" / "bin" / "python"
    if Path(sys.prefix).resolve() == python.parent.parent.resolve():
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", SERVICE / ".venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r",
                    HERE / "service_requirements.txt"], check=True, stdout=sys.stderr)
    os.execv(python, [str(python), *sys.argv])


def seconds(number):
    """A whole second that far ahead: aware datetime."""
    return datetime.fromtimestamp(int(time.time() + number) + 1, timezone.utc)


def wait_for(condition, limit):
    """Whether `condition()` came true within `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Server:
    """Web server and worker of one design, ended by their ids."""

    def __init__(self, folder, application, environment, port, workers):
        self.port = port
        base = os.environ | environment
        self.processes = [subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=base, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in (
                ["gunicorn", f"{application}.wsgi", "--bind", f"127.0.0.1:{port}", "--worker-class",
                 "gthread", "--workers", "2", "--threads", "8", "--no-control-socket"], *workers)]

    def post(self, timestamps):
        """(seconds, ids): how long one POST of these datetimes took, and the calls that it made."""
        return self.ask({"timestamps": ", ".join(f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in timestamps)}, len(timestamps))

    def ask(self, body, number):
        """The same of any body that asks for `number` calls."""
        import requests
        began = time.perf_counter()
        answer = requests.post(f"http://127.0.0.1:{self.port}/api/schedule-api/", json=body, timeout=120)
        took = time.perf_counter() - began
        assert answer.status_code == 201 and len(answer.json()) == number, answer.text[:500]
        return took, [call["id"] for call in answer.json()]

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def burst(server, api, number, patience, lead, body=None):
    """`number` calls due in the same second.

    body: function of the datetime at which they are due: what is posted, in place of that many timestamps
    Returns the calls' ids, seconds for the POST, and from the due second to the requests that arrived
    within `patience` seconds of it; and how many requests there were, and how many before that second:
    {"ids", "post", "arrived", "first", "median", "last", "requests", "early"}.
    """
    due = seconds(lead)
    took, ids = server.ask(body(due), number) if body else server.post([due] * number)
    wait_for(lambda: time.time() > due.timestamp(), lead + 5)
    wait_for(lambda: len(api.seen) >= number, patience)
    time.sleep(1)               # one that comes twice would come now
    arrivals = sorted(api.arrivals(due))
    late = [at for at in arrivals if at <= patience]
    api.seen.clear()
    return {"ids": ids, "post": took, "requests": len(arrivals), "early": sum(at < 0 for at in arrivals),
            "arrived": len(late), "first": late[0] if late else None,
            "median": statistics.median(late) if late else None, "last": late[-1] if late else None}


def faults(burst):
    """(lost, doubled) of the service's calls in what `burst` returned. By the rows, as no request says
    which call it is: one that is lost must not make up for another that was made twice."""
    from scheduler.models import ScheduledCall
    rows = ScheduledCall.objects.filter(id__in=burst["ids"])
    wait_for(lambda: not rows.exclude(status__in=ScheduledCall.FINISHED).exists(), 10)
    kept = rows.filter(status="Succeeded").count()
    lost = len(burst["ids"]) - min(kept, burst["arrived"])
    return lost, max(0, burst["requests"] - rows.exclude(started_at=None).count())


class Service(Server):
    """Our processes, with that many workers, that call `api`; ready when the dispatcher runs."""

    WORKER = ["celery", "-A", "scheduler", "worker", "--without-mingle", "--without-gossip", "--loglevel", "ERROR"]

    def __init__(self, environment, api, port, workers=1):
        from scheduler.models import Heartbeat
        self.environment = environment | {"API_URL": api.url + "/delay/0.1"} | api.trust
        super().__init__(SERVICE, "scheduler", self.environment, port, [
            *[[*self.WORKER, "--hostname", f"{number}@benchmark"] for number in range(workers)],
            ["celery", "-A", "scheduler", "beat", "--pidfile=", "--loglevel", "ERROR"]])
        self.workers = self.processes[1:1 + workers]
        Heartbeat.objects.all().delete()
        if not wait_for(Heartbeat.objects.exists, 60):
            self.stop()
            sys.exit("the dispatcher did not run")

    def another_worker(self):
        self.processes.append(subprocess.Popen(
            [sys.executable, "-m", *self.WORKER, "--hostname", "another@benchmark"], cwd=SERVICE,
            env=os.environ | self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def bursts(environment, api, port, size, repeats, full):
    """The service's figures for calls of the same second: dict.

    full: also what is handed over by the dispatcher, and single calls
    """
    from scheduler.models import ScheduledCall
    server = Service(environment, api, port)
    try:
        burst(server, api, 1, 5, 2)                             # everything is warm
        some = [burst(server, api, size, 30, 5) for _ in range(repeats)]
        kept = ScheduledCall.objects.filter(
            id__in=[i for b in some for i in b["ids"]], status="Succeeded").count()
        result = {
            "post": max(b["post"] for b in some), "arrived": some[-1]["arrived"], "kept": kept // repeats,
            "last": max((b["last"] for b in some if b["arrived"]), default=None)}
        every = list(some)
        if full:
            # Due later than WINDOW: not handed over by the request.
            from_dispatcher = burst(server, api, size, 30, float(environment["WINDOW"]) + 3)
            singles = [burst(server, api, 1, 10, 2) for _ in range(2 * repeats)]
            every += [from_dispatcher, *singles]
            single = [b["last"] for b in singles if b["arrived"]]       # the others are among the lost
            result |= {"last by the dispatcher": from_dispatcher["last"], "one call": max(single, default=None)}
        lost, doubled = (sum(numbers) for numbers in zip(*map(faults, every)))
        return result | {"lost": lost, "doubled": doubled, "early": sum(b["early"] for b in every)}
    finally:
        server.stop()


def new_targets(api, number, **fields):
    """That many Targets, each another path of the API, which answers in 100 ms."""
    from scheduler.models import Target
    no_calls()
    Target.objects.all().delete()
    return Target.objects.bulk_create([Target(**{
        "name": f"target-{i}", "url": f"{api.url}/delay/0.1?{i}", "method": "POST", "auth": {"kind": "none"},
        "headers": {"Content-Type": "application/json"}, **fields}) for i in range(number)])


def posts(environment, api, port, size, repeats):
    """`size` calls of one second as POST with 1 kB bodies of their own, to one target and to a tenth as many: {number of
    targets: dict}."""
    found = {}
    for number in (1, size // 10):
        names = [target.name for target in new_targets(api, number)]

        def body(due, size=size, names=names):
            return {"calls": [{"timestamp": f"{due:%Y-%m-%dT%H:%M:%SZ}", "target": names[i % len(names)],
                               "body": {"id": i, "text": "x" * 1000}} for i in range(size)]}
        server = Service(environment | {"TARGET_NETWORKS": "127.0.0.0/8", "BODY_MAX": "4000000"}, api, port)
        try:
            burst(server, api, 1, 5, 2)
            some = [burst(server, api, size, 30, 5, body) for _ in range(repeats)]
            lost, doubled = (sum(numbers) for numbers in zip(*map(faults, some)))
            found[number] = {"post": max(one["post"] for one in some), "last": max((one["last"] for one in some if one["arrived"]), default=None),
                             "lost": lost, "doubled": doubled, "early": sum(one["early"] for one in some)}
        finally:
            server.stop()
    return found


def failing(environment, api, port, size, repeats):
    """`size` calls of one second, to each of which the API answers with status 500: how late they are, and how many went
    wrong in another way than that, dict. Each is to be noted once for a notice to a channel that takes none."""
    from scheduler.models import Failure, ScheduledCall, Told

    def forget():
        Failure.objects.all().delete()
        Told.objects.all().delete()
    forget()
    server = Service(environment | {"NOTIFY": "json://127.0.0.1:9/"}, api, port)
    try:
        api.switch("/status/500")
        some = [burst(server, api, number, 30, 5) for number in (1, *[size] * repeats)]
        ids = [i for one in some for i in one["ids"]]
        rows = ScheduledCall.objects.filter(id__in=ids, status="Failed", http_status=500)
        wait_for(lambda: rows.count() == len(ids) and not Failure.objects.exists(), 30)
        noted = sum(told.waiting.get("Failed", 0) + told.sending.get("Failed", 0) for told in Told.objects.all())
        return {"last": max((one["last"] for one in some[1:] if one["arrived"]), default=None),
                "lost": len(ids) - rows.count(), "doubled": max(0, sum(one["requests"] for one in some) - len(ids)),
                "early": sum(one["early"] for one in some), "noted": abs(noted - len(ids))}
    finally:
        server.stop()
        api.switch("")
        forget()


def transactions():
    """How many transactions the database has ended so far; None where it does not count them."""
    from django.db import connection
    if connection.vendor == "sqlite":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
        return cursor.fetchone()[0]


def storm(environment, api, port, size, rate):
    """`size` calls of one target with a `rate` per second have failed at once, and are to be tried again in 8 to 12
    seconds: what the API and the database see of it, dict."""
    from random import uniform

    from scheduler.base.clock import utcnow
    from scheduler.models import ScheduledCall
    target, = new_targets(api, 1, rate=f"{rate}/s", delays=[10])
    server = Service(environment | {"TARGET_NETWORKS": "127.0.0.0/8"}, api, port)
    try:
        burst(server, api, 1, 5, 2)
        now = utcnow()
        calls = ScheduledCall.objects.bulk_create([ScheduledCall(
            target=target, timestamp=now, status="Retrying", started_at=now, attempts_made=1, failure="refused", http_status=503,
            error="HTTP status 503", next_attempt_at=now + timedelta(seconds=uniform(8, 12))) for _ in range(size)], batch_size=1000)
        ids = calls[0].id, calls[-1].id
        ticks = [tick_once() for _ in range(20)]
        wait_for(lambda: utcnow() > now + timedelta(seconds=12), 20)
        began, before = time.monotonic(), transactions()
        rows = ScheduledCall.objects.filter(id__gte=ids[0], id__lte=ids[1])
        while rows.filter(status__in=("Retrying", "Running")).exists() and time.monotonic() < began + 3 * size / rate + 30:
            time.sleep(0.5)
        took, after = time.monotonic() - began, transactions()
        arrivals = sorted(api.arrivals(now))
        # Of each second that begins with a request.
        most, end = 0, 0
        for begin, at in enumerate(arrivals):
            while end < len(arrivals) and arrivals[end] < at + 1:
                end += 1
            most = max(most, end - begin)
        api.seen.clear()
        return {"requests in the worst second": most, "transactions a second": after and (after - before) / took, "tick": max(ticks),
                "lost": size - rows.filter(status="Succeeded").count(), "doubled": max(0, len(arrivals) - size)}
    finally:
        server.stop()


def sustained(environment, api, port, workers, rate, duration):
    """`rate` calls in every second for `duration` seconds: how late the requests arrived, in seconds."""
    from scheduler.models import ScheduledCall
    server = Service(environment, api, port, workers)
    try:
        burst(server, api, workers, 5, 2)
        begin = seconds(15)
        due = [begin + timedelta(seconds=second) for second in range(duration) for _ in range(rate)]
        ids = [i for start in range(0, len(due), 5000) for i in server.post(due[start:start + 5000])[1]]
        rows = ScheduledCall.objects.filter(id__in=(min(ids), max(ids)))
        wait_for(lambda: time.time() > due[-1].timestamp(), duration + 30)
        rows = ScheduledCall.objects.filter(id__gte=min(ids), id__lte=max(ids))
        wait_for(lambda: not rows.exclude(status__in=ScheduledCall.FINISHED).exists(), 90)
        # They are all alike: the first to come is taken for the first that was due.
        arrivals = sorted(api.arrivals(begin))
        late = sorted(at - (when - begin).total_seconds() for at, when in zip(arrivals, due))
        api.seen.clear()
        return {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "max": late[-1],
                "lost": len(due) - rows.filter(status="Succeeded").count(),
                "doubled": max(0, len(arrivals) - len(due)), "early": sum(at < 0 for at in late)}
    finally:
        server.stop()


def killed(environment, api, port, size, after, answers):
    """`size` calls in one second, and kill -9 of the only worker `after` seconds into it; another is
    started. What is known of them when all have ended: dict.

    answers: the path of the API, which says how fast it answers
    """
    from scheduler.models import ScheduledCall
    server = Service(environment, api, port)
    try:
        api.switch(answers)
        burst(server, api, 1, 5, 2)
        due = seconds(5)
        _, ids = server.post([due] * size)
        wait_for(lambda: time.time() > due.timestamp() - 0.2, 10)
        while time.time() < due.timestamp() + after:
            time.sleep(0.001)
        server.workers[0].kill()
        server.workers[0].wait()
        server.another_worker()
        rows = ScheduledCall.objects.filter(id__in=ids)
        wait_for(lambda: not rows.exclude(status__in=ScheduledCall.FINISHED).exists(), 120)
        time.sleep(1)
        made = dict(rows.order_by().values_list("status").annotate(number=models_count()))
        succeeded, arrived = made.get("Succeeded", 0), len(api.arrivals(due))
        api.seen.clear()
        return {"after": after, "unknown": made.get("Failed", 0), "missed": made.get("Missed", 0),
                "unknown, at the API": arrived - succeeded, "not ended": size - sum(made.values())}
    finally:
        server.stop()


def models_count():
    from django.db.models import Count
    return Count("id")


def obvious(environment, api, port, size):
    """The obvious design's figures on the same database server: dict."""
    server = Server(OBVIOUS, "obvious", environment, port, [
        ["celery", "-A", "obvious", "worker", "--pool", "threads", "--concurrency", "100",
         "--without-mingle", "--without-gossip", "--loglevel", "ERROR"]])
    try:
        import requests

        def up():
            try:
                return requests.get(f"http://127.0.0.1:{port}/", timeout=2).status_code
            except requests.RequestException:
                return False
        assert wait_for(up, 30)
        wait_for(lambda: False, 3)                              # its worker says nothing we could wait for
        result = burst(server, api, size, OBVIOUS_PATIENCE, 12 if size >= 1000 else 4)
        wait_for(lambda: False, 5)                              # its last outcomes may be written
        count = "from obvious.models import Call; print(Call.objects.exclude(status='Pending').count())"
        del result["ids"]
        result["kept"] = int(subprocess.run(
            [sys.executable, "-m", "django", "shell", "--no-imports", "-c", count], cwd=OBVIOUS, check=True,
            env=os.environ | environment | {"PYTHONPATH": str(OBVIOUS)}, stdout=subprocess.PIPE).stdout)
        single = [burst(server, api, 1, 10, 2)["last"] for _ in range(3 if size >= 1000 else 1)]
        return result | {"one call": max(single) if None not in single else None}
    finally:
        server.stop()


def numbered(number, seconds):
    """The SQL of (the time that lies `seconds`, an expression of i, from now; a table of i from 1 to `number`)."""
    from django.db import connection
    if connection.vendor == "sqlite":
        return (f"strftime('%Y-%m-%d %H:%M:%S', 'now', CAST({seconds} AS INTEGER) || ' seconds')",
                f"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) SELECT i FROM n)")
    return f"date_trunc('second', now() + ({seconds}) * interval '1 second')", f"generate_series(1, {number}) AS i"


def no_calls():
    """Deletes all calls, without a look at each."""
    from scheduler.models import Attempt, CallRequest, ScheduledCall
    for model in (Attempt, CallRequest, ScheduledCall):
        model.objects.all()._raw_delete("default")


def fill(finished, pending):
    """That many rows, most of them finished, as they are after a long time of use."""
    from django.db import connection
    from scheduler.base.database import unlimited
    table = "scheduler_scheduledcall"
    columns = "(timestamp, status, created_at, ended_at, claim_token, error)"
    with unlimited(), connection.cursor() as cursor:
        for number, status, sign in ((finished, "Succeeded", "-"), (pending, "Pending", "+")):
            when, source = numbered(number, f"{sign}(3600 + i)")
            cursor.execute(f"INSERT INTO {table} {columns} SELECT {when}, '{status}', {when}, {when}, '', '' FROM {source}")
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")


def ticks(finished, pending, due):
    """A dispatcher tick, in seconds, with nothing due and with `due` calls due; and its plans."""
    from django.conf import settings
    from django.db import connection
    from django.test.utils import CaptureQueriesContext
    from scheduler.calls import dispatch, ledger
    from scheduler.models import ScheduledCall
    no_calls()
    tick_once()
    empty = [tick_once() for _ in range(20)]
    began = time.perf_counter()
    fill(finished, pending)
    filled = time.perf_counter() - began
    idle = [tick_once() for _ in range(20)]
    plan = []
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN (ANALYZE, COSTS OFF) "
    for name, work in (("hand_over", lambda: dispatch.hand_over(lambda ids, first: None)),
                       ("miss", ledger.miss), ("reap", ledger.reap)):
        with CaptureQueriesContext(connection) as queries:
            work()
        query = next(q["sql"] for q in queries if "SELECT" in q["sql"] and "scheduledcall" in q["sql"])
        with connection.cursor() as cursor:
            cursor.execute(explain + query.replace("%", "%%"), ())
            plan += [f"{name}: {row[-1]}" for row in cursor.fetchall()]
    busy = []
    for _ in range(5):
        at = datetime.now(timezone.utc) + timedelta(seconds=settings.WINDOW / 2)
        calls = ScheduledCall.objects.bulk_create([ScheduledCall(timestamp=at) for _ in range(due)])
        busy.append(tick_once())
        if ScheduledCall.objects.filter(id__in=[call.id for call in calls], handed_over_at=None).exists():
            sys.exit("A dispatcher tick did not hand over what was due.")
        ScheduledCall.objects.filter(id__in=[call.id for call in calls])._raw_delete("default")
    return {"tick, empty table": statistics.median(empty), "tick": max(idle), "tick, median": statistics.median(idle),
            f"tick that hands over {due}": statistics.median(busy), "rows filled in": filled, "plan": plan}


def planning(finished, pending, number):
    """Seconds to plan `number` schedules of 10 times each a day ahead, and of a dispatcher tick
    without and with them, when there is nothing to plan."""
    from scheduler.base import zones
    from scheduler.base.clock import utcnow
    from scheduler.models import Schedule, ScheduledCall
    from scheduler.schedules import planner
    from scheduler.schedules.recurrence import between
    no_calls()
    fill(finished, pending)
    tick_once()
    without = [tick_once() for _ in range(20)]
    places = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]
    now = utcnow()
    start = now + planner.AHEAD + planner.STEP
    schedules = Schedule.objects.bulk_create([Schedule(
        name=f"schedule {i}", zone=places[i % 4], planned_until=start, zone_data=zones.release(),
        times=", ".join(f"{hour:02}:{i % 60:02}:{i % 59:02}" for hour in range(8, 18))) for i in range(number)])
    took = []
    for days in (1, 2, 3):
        began = time.perf_counter()
        planner.plan(now + timedelta(days=days), seconds=60)
        took.append(time.perf_counter() - began)
    planned = ScheduledCall.objects.exclude(schedule=None)
    asked = {(s.id, at) for s in schedules for at in between(s.rule, start, start + timedelta(days=3))}
    if asked != set(planned.values_list("schedule", "occurrence")):
        sys.exit("Three days' occurrences were not all planned.")
    tick_once()
    idle = [tick_once() for _ in range(20)]
    planned._raw_delete("default")
    Schedule.objects.all()._raw_delete("default")
    no_calls()
    return {"schedules": number, "a day": statistics.median(took), "without": statistics.median(without),
            "tick": max(idle), "tick, median": statistics.median(idle)}


def tick_once():
    """Seconds that one dispatcher tick took. Ends the run if it failed: that can be fast."""
    from scheduler import tasks
    from scheduler.models import Heartbeat
    before = Heartbeat.objects.filter(name="dispatcher").values_list("at", flat=True).first()
    began = time.perf_counter()
    tasks.dispatch_all()
    took = time.perf_counter() - began
    if Heartbeat.objects.filter(name="dispatcher").values_list("at", flat=True).first() == before:
        sys.exit("A dispatcher tick failed; its error is above.")
    return took


def growth(size):
    """What limits one database: calls a second through claim and finish, and rows posted a second."""
    import uuid

    from scheduler.calls import ledger, worker
    from scheduler.calls.attempt import Outcome
    from scheduler.models import ScheduledCall
    now = datetime.now(timezone.utc) - timedelta(seconds=1)
    began = time.perf_counter()
    calls = ledger.schedule([ledger.NewCall(now)] * size)
    scheduled = time.perf_counter() - began
    began = time.perf_counter()
    for i in range(0, size, worker.PORTION):
        token = uuid.uuid4().hex
        won, _ = ledger.claim([call.id for call in calls[i:i + worker.PORTION]], token)
        ledger.finish([(Outcome(c, now, "Succeeded", now, now, 200, ""), token) for c in won])
    through = time.perf_counter() - began
    ScheduledCall.objects.filter(id__in=[call.id for call in calls])._raw_delete("default")
    return {"rows scheduled per second": size / scheduled, "calls claimed and finished per second": size / through}


def size_of(*models):
    """Bytes of these models' tables with their indexes. (SQLite's are those of the whole file.)"""
    from django.db import connection
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("VACUUM")
            cursor.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
            return cursor.fetchone()[0]
        cursor.execute("SELECT " + " + ".join(f"pg_total_relation_size('{model._meta.db_table}')" for model in models))
        return cursor.fetchone()[0]


def row_sizes(number):
    """Bytes of a row of a call that names no target and has ended, with its part of the indexes: in the tables of the
    version before targets, and in those of this one."""
    from django.core.management import call_command
    from django.db import connection
    from scheduler.base.database import unlimited
    from scheduler.models import ScheduledCall
    found = {}
    with unlimited():
        for name, version in (("before", "0009"), ("now", None)):
            with connection.cursor() as cursor:
                # Not by the model, of which the older tables know less.
                cursor.execute("TRUNCATE scheduler_scheduledcall CASCADE" if connection.vendor == "postgresql" else
                               "DELETE FROM scheduler_scheduledcall")
            call_command("migrate", *(["scheduler", version] if version else []), verbosity=0)
            empty = size_of(ScheduledCall)
            when, source = numbered(number, "-(3600 + i)")
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO scheduler_scheduledcall (timestamp, status, created_at, handed_over_at, started_at, ended_at,"
                    " claim_token, http_status, error, scheduled_by, scheduled_via, note, cancelled_by)"
                    f" SELECT {when}, 'Succeeded', {when}, {when}, {when}, {when}, '{'f' * 32}', 200, '', 'ann', 'API', '', ''"
                    f" FROM {source}")
            found[name] = (size_of(ScheduledCall) - empty) / number
    no_calls()
    return found


def with_attempts():
    """Gives each call that is over a target, and two attempts of which what is kept is 1 kB, or 16 kB of those that failed.
    Returns how many attempts there are, and how many bytes they take."""
    from django.db import connection
    from scheduler.base.database import unlimited
    from scheduler.models import Attempt, Target
    Target.objects.get_or_create(name="billing", url="https://api.example/run", method="POST")
    kept = {"version": 1, "address": "203.0.113.7", "phases": {"name": 1.2, "connect": 8.0, "tls": 14.1, "answer": 188.0, "end": 0.3},
            "request": {"method": "POST", "url": "https://api.example/run", "headers": {"X-Api-Key": "***"}, "body": "x" * 300},
            "response": {"headers": [["Content-Type", "application/json"]], "body": "y" * 300, "truncated": False}}
    long = {**kept, "response": {**kept["response"], "body": "y" * 16384}}
    before = size_of(Attempt)
    with unlimited(), connection.cursor() as cursor:
        cursor.execute("UPDATE scheduler_scheduledcall SET target_id = (SELECT id FROM scheduler_target WHERE name = 'billing'),"
                       " attempts_made = CASE WHEN status IN ('Succeeded', 'Failed') THEN 2 END")
        cursor.execute(
            "INSERT INTO scheduler_attempt (call_id, number, started_at, ended_at, outcome, failure, http_status, error, kept)"
            " SELECT id, number, timestamp, timestamp, CASE WHEN number = 1 THEN 'Failed' ELSE status END, 'refused', 503, '',"
            f" CASE WHEN status = 'Failed' THEN %s ELSE %s END{'::jsonb' if connection.vendor == 'postgresql' else ''}"
            " FROM scheduler_scheduledcall, (SELECT 1 AS number UNION ALL SELECT 2) AS numbers"
            " WHERE status IN ('Succeeded', 'Failed')", [json.dumps(long), json.dumps(kept)])
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    return Attempt.objects.count(), size_of(Attempt) - before


def pages(number, some, attempts=False):
    """Seconds for the admin's pages and the API's list among `number` calls within 48 hours, and for cancelling
    `some` at once: {name: (seconds, bar)}. Asked of Django in this process; the median of three, of lists that of
    the slowest filter.

    attempts: whether they are for a target, and have attempts
    """
    from itertools import combinations
    from urllib.parse import urlencode

    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from scheduler.base.database import unlimited
    from scheduler.calls import ledger
    from scheduler.models import ScheduledCall
    no_calls()
    when, source = numbered(number, f"(i - {number / 2}) * {48 * 3600 / number}")
    # One in 500 of what is over failed, as many were missed, and as many are cancelled, past and to come.
    status = (f"CASE WHEN i % 500 = 3 THEN 'Cancelled' WHEN i > {number // 2} THEN 'Pending' WHEN i % 500 = 1 THEN"
              " 'Failed' WHEN i % 500 = 2 THEN 'Missed' ELSE 'Succeeded' END")
    with unlimited(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO scheduler_scheduledcall (timestamp, status, created_at, claim_token, error)"
                       f" SELECT {when}, {status}, {when}, '', '' FROM {source}")
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    kept = with_attempts() if attempts else None

    client = Client(headers={"host": "testserver"})
    client.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])

    def asked(path, **query):
        def once():
            began = time.perf_counter()
            answer = client.get(path, query)
            took = time.perf_counter() - began
            assert answer.status_code == 200, f"{path} {query}: {answer.status_code}"
            return took
        return statistics.median(once() for _ in range(3))

    def iso(hours):
        return (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat()
    admin, a_call = "/admin/scheduler/scheduledcall/", ScheduledCall.objects.filter(status="Failed").first().id
    found = {f"admin: {name}": (asked(path, **query), PAGE) for name, path, query in (
        ("the list, upcoming", admin, {}), ("the list, recent", admin, {"view": "recent"}),
        ("the list, failed and missed", admin, {"view": "trouble"}), ("the list, all", admin, {"view": "all"}),
        ("the list, one bar", admin, {"view": "all", "due_from": iso(-3), "due_before": iso(-2.5)}),
        ("the list, all of one status", admin, {"view": "all", "status": "Succeeded"}),
        ("the list, one id", admin, {"q": a_call}), ("a call", f"{admin}{a_call}/change/", {}),
        ("its history", f"{admin}{a_call}/history/", {}), ("start", "/admin/", {}))}
    if attempts:
        found["attempts"], found["bytes of an attempt"] = (kept[0], None), (kept[1] / kept[0], None)
        target = ScheduledCall.objects.get(id=a_call).target_id
        found |= {name: (asked(path, **query), bar) for name, path, query, bar in (
            ("admin: the list, of a target", admin, {"view": "recent", "target": target}, PAGE),
            ("admin: the list, failed, of a target", admin, {"view": "trouble", "target": target}, PAGE),
            ("API: a call with its attempts", f"/api/schedule-api/{a_call}/", {}, None),
            ("API's list of a target", "/api/schedule-api/", {"target": "billing"}, LIST))}
    statuses = ScheduledCall.Status.values
    filters = [{"status": list(chosen), **times} for size in (0, 1, 2) for chosen in combinations(statuses, size)
               for times in ({}, {"due_from": iso(0)}, {"due_before": iso(0)}, {"due_from": iso(30)},
                             {"due_from": iso(-1), "due_before": iso(1)})]
    for ordering in ("timestamp", "-timestamp", "id", "-id"):
        found[f"API's list by {ordering}: slowest of {len(filters)} filters"] = (
            max(asked("/api/schedule-api/", ordering=ordering, **query) for query in filters),
            LIST if "timestamp" in ordering else None)
    pending = list(ScheduledCall.objects.filter(status="Pending").order_by("timestamp")[:some])
    began = time.perf_counter()
    assert len(ledger.cancel([call.id for call in pending[some // 2:]])) == some // 2
    found[f"cancel {some // 2} calls"] = time.perf_counter() - began, CANCEL
    began = time.perf_counter()
    client.post(f"{admin}?{urlencode({'view': 'upcoming', 'due_before': pending[some // 2].timestamp.isoformat()})}", {
        "action": "cancel", "_selected_action": [1], "select_across": "1"})
    found["admin: cancel as many, with their history"] = time.perf_counter() - began, CANCEL
    no_calls()
    return found


def main():
    options = parse()
    use_venv()
    databases = [options.database] if options.database else ["sqlite", "postgresql"]
    if not options.prepared:        # a process for each database, as Django can only be set up once
        results = {}
        for database in databases:
            child = subprocess.run(
                [sys.executable, __file__, "--prepared", "--database", database]
                + (["--smallest"] if options.smallest else []) + [f"--part={part}" for part in options.part], stdout=subprocess.PIPE, text=True)
            if child.returncode:
                sys.exit(f"The benchmark on {database} did not finish; see above.")
            results[database] = json.loads(child.stdout.splitlines()[-1])
        return report(results, options)

    # The tests' own Redis, PostgreSQL and API; Django is set up on a fresh database.
    os.environ["SCHEDULER_TEST_DATABASE"] = options.database
    sys.path.insert(0, str(SERVICE / "tests"))
    import conftest
    conftest.pytest_configure(None)
    stand_in = Api()
    try:
        common = {"REDIS_URL": conftest.redis_server.url}
        service = common | {"DEBUG": "true", "TICK": "2", "LEASE": "45", "TIMEOUT": "30",
                            "WINDOW": "5" if options.smallest else "10"}
        size, repeats = (100, 1) if options.smallest else (1000, 3)
        rows = (20_000, 2_000) if options.smallest else (1_000_000, 100_000)
        result = {"size": size, "rows": rows}
        if "burst" in options.part:
            result["burst"] = bursts(service, stand_in, conftest.free_port(), size, repeats, True)
        if "https" in options.part:
            with Api(conftest.certificate(conftest.WORK)) as secure:
                result["https"] = bursts(service, secure, conftest.free_port(), size, repeats, False)
        if "post" in options.part:
            result["posts"] = posts(service, stand_in, conftest.free_port(), size, repeats)
        if "failing" in options.part:
            result["failing"] = failing(service, stand_in, conftest.free_port(), size, repeats)
        if "storm" in options.part:
            calls, rate = (200, 50) if options.smallest else (10_000, 200)
            result["storm"] = {"calls": calls, "rate": rate} | storm(service, stand_in, conftest.free_port(), calls, rate)
        if "sustained" in options.part:
            rate, duration = (30, 5) if options.smallest else (300, 120)
            result["rate"] = rate, duration
            result["sustained"] = {workers: sustained(service, stand_in, conftest.free_port(), workers, rate, duration)
                                   for workers in (1, 2)}
        if "kill" in options.part:
            service_kill = service | {"LEASE": "5"}
            result["kill"] = {answers: [
                killed(service_kill, stand_in, conftest.free_port(), size, after, answers)
                for after in ((0.1,) if options.smallest else (0.05, 0.1, 0.25, 0.4))]
                for answers in ("/ok", "/delay/0.1")}
            stand_in.switch("")
        conftest.redis_server.command("flushall")
        obvious_environment = common | {
            "API_URL": f"{stand_in.url}/delay/0.1", "REDIS_URL": common["REDIS_URL"][:-1] + "1",
            "DATABASE_URL": os.environ["DATABASE_URL"].replace("db.sqlite3", "obvious.sqlite3")}
        if "obvious" in options.part:
            subprocess.run([sys.executable, "-m", "django", "migrate", "--verbosity", "0"], cwd=OBVIOUS, check=True,
                           env=os.environ | obvious_environment | {
                               "DJANGO_SETTINGS_MODULE": "obvious.settings", "PYTHONPATH": str(OBVIOUS)})
            obvious_environment["DJANGO_SETTINGS_MODULE"] = "obvious.settings"
            result["obvious"] = obvious(obvious_environment, stand_in, conftest.free_port(), size)
        if "growth" in options.part:
            result["growth"] = growth(200 if options.smallest else 5000)
        if "ticks" in options.part:
            result["dispatcher"] = ticks(*rows, 100 if options.smallest else 1000)
        if "planning" in options.part:
            result["planning"] = planning(*rows, 100 if options.smallest else 1000)
        if "pages" in options.part:
            result["pages"] = pages(*((20_000, 2_000) if options.smallest else (1_000_000, 20_000)))
        if "attempts" in options.part:
            result["attempts"] = pages(*((20_000, 2_000) if options.smallest else (1_000_000, 20_000)), attempts=True)
        if "rows" in options.part:
            result["row sizes"] = row_sizes(20_000 if options.smallest else 200_000)
        print(json.dumps(result))
    finally:
        stand_in.stop()
        conftest.pytest_unconfigure(None)


class Api:
    """The local API in a process of its own; what it saw is fetched from it."""

    def __init__(self, tls=()):
        """tls: what `conftest.certificate` returned, for HTTPS"""
        import requests
        self.process = subprocess.Popen(
            [sys.executable, str(SERVICE / "tests" / "api_server.py"), "0", *map(str, tls)],
            stdout=subprocess.PIPE, text=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.process.stdout.readline().strip()}"
        self.trust = {"REQUESTS_CA_BUNDLE": str(tls[0])} if tls else {}
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(tls[0]) if tls else True

    @property
    def seen(self):
        return Seen(self)

    def arrivals(self, due):
        return [request["at"] - due.timestamp() for request in self.session.get(self.url + "/seen").json()]

    def switch(self, path):
        """From now on it treats every request as one for `path`, or for its own if that is ""."""
        self.session.get(f"{self.url}/switch{path or '/delay/0.1'}")

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Seen:
    def __init__(self, api):
        self.api = api

    def __len__(self):
        return self.api.session.get(self.api.url + "/count").json()

    def clear(self):
        self.api.session.get(self.api.url + "/forget")


def report(results, options):
    """Prints the figures and whether they reach their bars; returns the exit status."""
    rows, good = [], True

    def row(database, work, ours, obvious, bar, unit="s"):
        nonlocal good
        reached = None if bar is None or ours is None else ours <= bar
        good = good and reached is not False
        rows.append({"database": database, "work": work, "service": ours, "obvious design": obvious,
                     "bar": bar, "unit": unit, "reached": reached})

    for database, result in results.items():
        size, (finished, pending) = result["size"], result["rows"]
        full = not options.smallest
        other = result.get("obvious", {})
        if mine := result.get("burst"):
            row(database, f"POST of {size} timestamps", mine["post"], other.get("post"), POST_1000 if full else None)
            row(database, f"{size} calls in one second: last request", mine["last"], other.get("last"),
                LAST_HTTP if full else None)
            row(database, f"{size} calls in one second: arrived", mine["arrived"],
                other.get("arrived"), None, f"within {OBVIOUS_PATIENCE} s")
            row(database, f"{size} calls in one second: outcomes in the database", mine["kept"],
                other.get("kept"), None, "")
            row(database, "the same, handed over by the dispatcher: last", mine["last by the dispatcher"], None,
                LAST_HTTP if full else None)
            row(database, "1 call: worst lateness", mine["one call"], other.get("one call"), ONE_CALL if full else None)
        if secure := result.get("https"):
            row(database, f"{size} calls in one second, HTTPS: last request", secure["last"], None,
                LAST_HTTPS if full else None)
        for number, figures in result.get("posts", {}).items():
            row(database, f"{size} calls in one second, POST with 1 kB, {number} targets: last request", figures["last"], None,
                POST_TARGETS if full and int(number) > 1 else None)
            row(database, f"the same, {number} targets: POST that schedules them", figures["post"], None, None)
        if failed := result.get("failing"):
            row(database, f"{size} calls in one second that all fail: last request", failed["last"], None,
                LAST_HTTP if full else None)
            row(database, "the same: not noted once for a notice", failed["noted"], None, 0, "")
        if gale := result.get("storm"):
            what = f"{gale['calls']} retries at once, {gale['rate']}/s"
            row(database, f"{what}: requests in the worst second", gale["requests in the worst second"], None,
                gale["rate"] * 1.05 if full else None, "")
            row(database, f"{what}: transactions of the database", gale["transactions a second"], None, None, "/s")
            row(database, f"{what}: tick, worst of 20", gale["tick"], None, None)
            row(database, f"{what}: lost or made twice", gale["lost"] + gale["doubled"], None, 0, "")
        for workers, figures in result.get("sustained", {}).items():
            rate, duration = result["rate"]
            for name in ("p50", "p99", "max"):
                row(database, f"{rate} calls in every second for {duration} s, {workers} workers: {name}",
                    figures[name], None, None)
        for answers, kills in result.get("kill", {}).items():
            for kill in kills:
                what = f"{size} calls, kill -9 {kill['after'] * 1000:.0f} ms after, API {answers}"
                row(database, f"{what}: unknown", kill["unknown"], None,
                    UNKNOWN if full and answers == "/ok" else None, "")
                row(database, f"{what}: of these, at the API", kill["unknown, at the API"], None, None, "")
                row(database, f"{what}: missed or not ended", kill["missed"] + kill["not ended"], None, 0, "")
        parts = [*(one for one in (mine, secure, failed) if one), *result.get("sustained", {}).values(),
                 *result.get("posts", {}).values()]
        if parts:
            row(database, "calls lost, made twice or early",
                sum(part["lost"] + part["doubled"] + part["early"] for part in parts), None, 0, "")
        if tick := result.get("dispatcher"):
            row(database, f"tick, {pending} pending, {finished} finished rows: worst of 20", tick["tick"], None,
                TICK if full else None)
            row(database, "tick, empty table: median", tick["tick, empty table"], None, None)
            row(database, "tick, all those rows: median", tick["tick, median"], None, None)
            for name in tick:
                if name.startswith("tick that"):
                    row(database, name + ": median", tick[name], None, None)
        if plans := result.get("planning"):
            row(database, f"{plans['schedules']} schedules, 10 times each: planned a day ahead", plans["a day"],
                None, PLANNING if full else None)
            row(database, "tick, all those rows, and nothing to plan: worst of 20", plans["tick"], None,
                TICK if full else None)
            row(database, "the same: median", plans["tick, median"], None, None)
            row(database, "the same without the schedules: median", plans["without"], None, None)
        for name, value in result.get("growth", {}).items():
            row(database, name, value, None, None, "/s")
        for name, (took, bar) in result.get("pages", {}).items():
            row(database, name, took, None, bar if full else None)
        for name, (value, bar) in result.get("attempts", {}).items():
            row(database, f"with attempts: {name}", value, None, bar if full else None,
                {"attempts": "rows", "bytes of an attempt": "bytes"}.get(name, "s"))
        if sizes := result.get("row sizes"):
            row(database, "a call that names no target, before targets", sizes["before"], None, None, "bytes")
            row(database, "the same now", sizes["now"], None, GROWTH * sizes["before"], "bytes")
    machine = f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "figures": rows, "details": results}, indent=1))

    def show(value, unit):
        if value is None:
            return "-"
        return f"{value:.3f}" if unit == "s" else f"{value:,.0f}"
    print(f"{machine}\n\n| database | work | service | obvious design | bar | reached |\n|---|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['database']} | {r['work']} ({r['unit'] or 'calls'}) | {show(r['service'], r['unit'])} | "
              f"{show(r['obvious design'], r['unit'])} | {show(r['bar'], r['unit'])} | "
              f"{ {None: '', True: 'yes', False: 'NO'}[r['reached']]} |")
    for database, result in results.items():
        if "dispatcher" not in result:
            continue
        print(f"\nThe dispatcher's queries on {database}, by EXPLAIN:")
        print("\n".join("    " + line for line in result["dispatcher"]["plan"]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
