"""Measures the service against its figures, side by side with the obvious design, in one run.

    python3 benchmarks/service.py               # a table, in about 5 minutes
    python3 benchmarks/service.py --json FILE   # the same, and what was measured as JSON
    python3 benchmarks/service.py --smallest    # whether it still works, in a minute or two

Needs redis-server and postgresql, as service/tests/run installs them; what it needs of Python it
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
LAST_OF_1000 = 3.0
ONE_CALL = 0.050
TICK = 0.050
OBVIOUS_PATIENCE = 24       # how long the obvious design is waited for after the due second


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="write what was measured to FILE")
    parser.add_argument("--smallest", action="store_true", help="the least that shows that it still works")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="only this one (default: both)")
    parser.add_argument("--prepared", action="store_true", help=argparse.SUPPRESS)     # see `main`
    return parser.parse_args()


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
        import requests
        body = {"timestamps": ", ".join(f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in timestamps)}
        began = time.perf_counter()
        answer = requests.post(f"http://127.0.0.1:{self.port}/api/schedule-api/", json=body, timeout=120)
        took = time.perf_counter() - began
        assert answer.status_code == 201 and len(answer.json()) == len(timestamps), answer.text[:500]
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


def burst(server, api, number, patience, lead):
    """`number` calls due in the same second.

    Returns the calls' ids, seconds for the POST, and from the due second to the requests that arrived
    within `patience` seconds of it; and how many requests there were, and how many before that second:
    {"ids", "post", "arrived", "first", "median", "last", "requests", "early"}.
    """
    due = seconds(lead)
    took, ids = server.post([due] * number)
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


def ours(environment, api, port, size, repeats):
    """The service's figures: dict."""
    server = Server(SERVICE, "scheduler", environment, port, [
        ["celery", "-A", "scheduler", "worker", "--without-mingle", "--without-gossip", "--loglevel", "ERROR"],
        ["celery", "-A", "scheduler", "beat", "--pidfile=", "--loglevel", "ERROR"]])
    try:
        from scheduler.models import Heartbeat, ScheduledCall
        assert wait_for(Heartbeat.objects.exists, 30), "the dispatcher did not run"
        burst(server, api, 1, 5, 2)                             # everything is warm
        bursts = [burst(server, api, size, 30, 5) for _ in range(repeats)]
        kept = ScheduledCall.objects.filter(status="Succeeded").count() - 1
        # Due later than WINDOW: not handed over by the request.
        from_dispatcher = burst(server, api, size, 30, float(environment["WINDOW"]) + 3)
        singles = [burst(server, api, 1, 10, 2) for _ in range(2 * repeats)]
        every = [*bursts, from_dispatcher, *singles]
        lost, doubled = (sum(numbers) for numbers in zip(*map(faults, every)))
        single = [b["last"] for b in singles if b["arrived"]]       # the others are among the lost
        return {
            "post": max(b["post"] for b in bursts), "arrived": bursts[-1]["arrived"], "kept": kept // repeats,
            "last": max((b["last"] for b in bursts if b["arrived"]), default=None),
            "last by the dispatcher": from_dispatcher["last"],
            "one call": max(single, default=None), "lost": lost, "doubled": doubled,
            "early": sum(b["early"] for b in every)}
    finally:
        server.stop()


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


def fill(finished, pending):
    """That many rows, most of them finished, as they are after a long time of use."""
    from django.db import connection
    table = "scheduler_scheduledcall"
    columns = "(timestamp, status, created_at, ended_at, claim_token, error)"
    with connection.cursor() as cursor:
        for number, status, sign in ((finished, "Succeeded", "-"), (pending, "Pending", "+")):
            if connection.vendor == "sqlite":
                when = f"strftime('%Y-%m-%d %H:%M:%S', 'now', '{sign}' || (3600 + i) || ' seconds')"
                rows = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < {number})"
                source = f"{rows} SELECT {when}, '{status}', {when}, {when}, '', '' FROM n"
                cursor.execute(f"INSERT INTO {table} {columns} {source}")
            else:
                when = f"now() {sign} (3600 + i) * interval '1 second'"
                cursor.execute(f"INSERT INTO {table} {columns} SELECT {when}, '{status}', {when}, {when}, '', ''"
                               f" FROM generate_series(1, {number}) AS i")
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")


def ticks(finished, pending, due):
    """A dispatcher tick, in seconds, with nothing due and with `due` calls due; and its plans."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext
    from scheduler import transitions
    from scheduler.models import ScheduledCall
    ScheduledCall.objects.all()._raw_delete("default")
    tick_once()
    empty = [tick_once() for _ in range(20)]
    began = time.perf_counter()
    fill(finished, pending)
    filled = time.perf_counter() - began
    idle = [tick_once() for _ in range(20)]
    now, plan = datetime.now(timezone.utc), []
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN (ANALYZE, COSTS OFF) "
    for name, work in (("hand_over", lambda: transitions.hand_over(lambda ids, first: None, now)),
                       ("miss", lambda: transitions.miss(now)), ("reap", lambda: transitions.reap(now))):
        with CaptureQueriesContext(connection) as queries:
            work()
        query = next(q["sql"] for q in queries if "SELECT" in q["sql"] and "scheduledcall" in q["sql"])
        with connection.cursor() as cursor:
            cursor.execute(explain + query.replace("%", "%%"), ())
            plan += [f"{name}: {row[-1]}" for row in cursor.fetchall()]
    busy = []
    for _ in range(5):
        at = datetime.now(timezone.utc) + timedelta(seconds=20)
        calls = ScheduledCall.objects.bulk_create([ScheduledCall(timestamp=at) for _ in range(due)])
        busy.append(tick_once())
        if ScheduledCall.objects.filter(id__in=[call.id for call in calls], handed_over_at=None).exists():
            sys.exit("A dispatcher tick did not hand over what was due.")
        ScheduledCall.objects.filter(id__in=[call.id for call in calls])._raw_delete("default")
    return {"tick, empty table": statistics.median(empty), "tick": max(idle), "tick, median": statistics.median(idle),
            f"tick that hands over {due}": statistics.median(busy), "rows filled in": filled, "plan": plan}


def tick_once():
    """Seconds that one dispatcher tick took. Ends the run if it failed: that can be fast."""
    from scheduler import tasks
    from scheduler.models import Heartbeat
    before = Heartbeat.objects.filter(name="dispatcher").values_list("at", flat=True).first()
    began = time.perf_counter()
    tasks.tick()
    took = time.perf_counter() - began
    if Heartbeat.objects.filter(name="dispatcher").values_list("at", flat=True).first() == before:
        sys.exit("A dispatcher tick failed; its error is above.")
    return took


def growth(size):
    """What limits one database: calls a second through claim and finish, and rows posted a second."""
    from scheduler import transitions
    from scheduler.caller import Outcome, utcnow
    from scheduler.models import ScheduledCall
    now = utcnow()
    began = time.perf_counter()
    calls = transitions.schedule([now] * size)
    scheduled = time.perf_counter() - began
    began = time.perf_counter()
    for i in range(0, size, 100):
        ids = [call.id for call in calls[i:i + 100]]
        token, won = transitions.claim(ids, utcnow(), utcnow() + timedelta(seconds=1))
        transitions.finish([Outcome(c, t, "Succeeded", now, now, 200, "") for c, t in won], token)
    through = time.perf_counter() - began
    ScheduledCall.objects.filter(id__in=[call.id for call in calls])._raw_delete("default")
    return {"rows scheduled per second": size / scheduled, "calls claimed and finished per second": size / through}


def main():
    options = parse()
    use_venv()
    databases = [options.database] if options.database else ["sqlite", "postgresql"]
    if not options.prepared:        # a process for each database, as Django can only be set up once
        results = {}
        for database in databases:
            child = subprocess.run(
                [sys.executable, __file__, "--prepared", "--database", database]
                + (["--smallest"] if options.smallest else []), stdout=subprocess.PIPE, text=True)
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
        common = {"REDIS_URL": conftest.redis_server.url, "API_URL": f"{stand_in.url}/delay/0.1"}
        service = common | {"DEBUG": "true", "TICK": "2", "LEASE": "45", "TIMEOUT": "30",
                            "WINDOW": "5" if options.smallest else "30"}
        size, repeats = (100, 1) if options.smallest else (1000, 3)
        rows = (20_000, 2_000) if options.smallest else (1_000_000, 100_000)
        result = {"ours": ours(service, stand_in, conftest.free_port(), size, repeats)}
        conftest.redis_server.command("flushall")
        obvious_environment = common | {
            "REDIS_URL": common["REDIS_URL"][:-1] + "1",
            "DATABASE_URL": os.environ["DATABASE_URL"].replace("db.sqlite3", "obvious.sqlite3")}
        subprocess.run([sys.executable, "-m", "django", "migrate", "--verbosity", "0"], cwd=OBVIOUS, check=True,
                       env=os.environ | obvious_environment | {
                           "DJANGO_SETTINGS_MODULE": "obvious.settings", "PYTHONPATH": str(OBVIOUS)})
        obvious_environment["DJANGO_SETTINGS_MODULE"] = "obvious.settings"
        result["obvious"] = obvious(obvious_environment, stand_in, conftest.free_port(), size)
        result["growth"] = growth(200 if options.smallest else 5000)
        result["dispatcher"] = ticks(*rows, 100 if options.smallest else 1000)
        result["size"], result["rows"] = size, rows
        print(json.dumps(result))
    finally:
        stand_in.stop()
        conftest.pytest_unconfigure(None)


class Api:
    """The local API in a process of its own; what it saw is fetched from it."""

    def __init__(self):
        import requests
        self.process = subprocess.Popen(
            [sys.executable, str(SERVICE / "tests" / "api_server.py")], stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        self.session = requests.Session()

    @property
    def seen(self):
        return Seen(self)

    def arrivals(self, due):
        return [request["at"] - due.timestamp() for request in self.session.get(self.url + "/seen").json()]

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Seen:
    def __init__(self, api):
        self.api = api

    def __len__(self):
        return len(self.api.session.get(self.api.url + "/seen").json())

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
        mine, other, tick = result["ours"], result["obvious"], result["dispatcher"]
        full = not options.smallest
        row(database, f"POST of {size} timestamps", mine["post"], other["post"], POST_1000 if full else None)
        row(database, f"{size} calls in one second: last request", mine["last"], other["last"],
            LAST_OF_1000 if full else None)
        row(database, f"{size} calls in one second: arrived", mine["arrived"],
            other["arrived"], None, f"within {OBVIOUS_PATIENCE} s")
        row(database, f"{size} calls in one second: outcomes in the database", mine["kept"], other["kept"], None, "")
        row(database, "the same, handed over by the dispatcher: last", mine["last by the dispatcher"], None,
            LAST_OF_1000 if full else None)
        row(database, "calls lost, made twice or early",
            mine["lost"] + mine["doubled"] + mine["early"], None, 0, "")
        row(database, "1 call: worst lateness", mine["one call"], other.get("one call"), ONE_CALL if full else None)
        row(database, f"tick, {pending} pending, {finished} finished rows: worst of 20", tick["tick"], None,
            TICK if full else None)
        row(database, "tick, empty table: median", tick["tick, empty table"], None, None)
        row(database, "tick, all those rows: median", tick["tick, median"], None, None)
        for name in tick:
            if name.startswith("tick that"):
                row(database, name + ": median", tick[name], None, None)
        for name, value in result["growth"].items():
            row(database, name, value, None, None, "/s")
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
        print(f"\nThe dispatcher's queries on {database}, by EXPLAIN:")
        print("\n".join("    " + line for line in result["dispatcher"]["plan"]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
