"""The real parts that the tests use, and how to get them.

Environment: SCHEDULER_TEST_DATABASE is `sqlite` (default) or `postgresql`. A Redis server, a
PostgreSQL server where asked for, and the API's stand-in are started here on free ports of the
loopback, in a temporary folder, and ended by their process ids. The tests and the processes they
start share one database, migrated once and emptied before a test if anything was written.

SCHEDULER_TEST_QUICK: only what needs no second process, as `tests/run --quick`. What uses the fixture
`stack` or starts one itself is left out; what needs Redis must be marked `processes`.
"""
import asyncio
import ctypes
import http.server
import itertools
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import redis
import requests

SERVICE = Path(__file__).resolve().parent.parent
KIND = os.environ.get("SCHEDULER_TEST_DATABASE", "sqlite")
QUICK = "SCHEDULER_TEST_QUICK" in os.environ
WORK = Path(tempfile.mkdtemp(prefix="scheduler-tests-"))
PASSWORD = "a password made for tests"
# Of tests/long: seconds for the run of random faults, and the seed that repeats its choices.
LONG = float(os.environ.get("SCHEDULER_TEST_LONG", 0))
SEED = int(os.environ.get("SCHEDULER_TEST_SEED", time.time()))

sys.path[:0] = [str(SERVICE), str(Path(__file__).parent)]
from api_server import ApiServer  # noqa: E402


def free_port():
    """A port on which nothing listens. None of those that the system gives to outgoing connections
    (ip_local_port_range, tcp(7)): one of them, or one's own, could have it by the time it is used."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", 10000 + secrets.randbelow(20000)))
            return probe.getsockname()[1]


def examples(number):
    """How many examples a search by chance takes: a fourth where there is a minute for everything."""
    return number // 4 if QUICK else number


def some(cases):
    """Of many cases of one kind, as many as that."""
    return cases[::4] if QUICK else cases


def until(condition, seconds=20, what=None):
    """Waits until `condition()` is true, and returns what it returned; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or condition}", pytrace=True)
        time.sleep(0.02)
    return result


def end(process, number=signal.SIGTERM, seconds=20):
    """Ends a process that we started, by its id."""
    if process and process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def die_with_us():
    """In a child on Linux: it is killed when the tests are, also when it is frozen."""
    if _prctl:
        _prctl(1, signal.SIGKILL)       # 1 is PR_SET_PDEATHSIG


class Redis:
    """A Redis server that a test may stop, kill and start again; it keeps nothing on disk."""

    def __init__(self):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", str(WORK)], stdout=subprocess.DEVNULL, preexec_fn=die_with_us)
        until(lambda: self.command("ping") == "PONG", what="Redis answers")

    def stop(self, number=signal.SIGTERM):
        end(self.process, number)

    def command(self, *words):
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True,
                              text=True).stdout.strip()

    def empty(self):
        """Without a process for it, as each test does so."""
        with redis.Redis(port=self.port) as client:
            client.flushall()


class Postgres:
    """A PostgreSQL server of our own. It refuses to run as root, so root lends it another user."""

    def __init__(self, name="postgres"):
        self.port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        self.folder = WORK / name
        self.process = None
        self.bin = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)

    def start(self):
        self._make("initdb", "--no-sync", "-A", "trust", "-U", "postgres")
        return self.url

    def follow(self, other):
        """Starts as the standby of another, a copy of it that takes no writes."""
        self._make("pg_basebackup", "--no-sync", "--checkpoint=fast", "--write-recovery-conf",
                   "-h", "127.0.0.1", "-p", str(other.port), "-U", "postgres")

    def _make(self, command, *arguments):
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self.folder.mkdir()
        if user:
            WORK.chmod(0o755)
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.how = {"cwd": self.folder, "stdout": subprocess.DEVNULL, **user}
        subprocess.run([self.bin / command, "-D", self.folder / "data", *arguments], check=True, **self.how)
        self.run()

    def run(self):
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder,
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"], stderr=(WORK / "postgres.log").open("a"),
            preexec_fn=die_with_us, **self.how)
        until(lambda: subprocess.run(
            [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode == 0)

    def ask(self, *statements):
        """Carries them out, each in a transaction of its own; returns the first value of the last, or None."""
        import psycopg
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def stop(self):
        end(self.process, signal.SIGINT)    # its "fast" shutdown: open connections are closed

    def signal_all(self, number):
        """SIGSTOP freezes the server and every process of a connection, SIGCONT lets them go on."""
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)],
                                  capture_output=True, text=True).stdout.split()
        for pid in [self.process.pid, *map(int, children)]:
            with suppress(ProcessLookupError):      # a connection that has just been closed
                os.kill(pid, number)


redis_server = Redis()
postgres = Postgres()


class Api(ApiServer):
    """The API's stand-in, in a thread of the test process."""

    def start(self, tls=None, port=0):
        loop = asyncio.new_event_loop()
        self.port = loop.run_until_complete(self.serve(port, tls)).sockets[0].getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=loop.run_forever, daemon=True).start()
        return self

    def arrivals(self, due=None):
        """Seconds since the epoch (or since the datetime `due`) of each request so far."""
        zero = due.timestamp() if due else 0
        return [request["at"] - zero for request in self.seen]


stand_in = Api()
tables = []         # those that are empty after migrating


def shares_out(config):
    """Whether this process only gives the tests to others, which run them (pytest-xdist)."""
    return bool(config and config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")


def pytest_configure(config):
    """Before Django reads its settings."""
    if config:      # the benchmarks start the same servers without pytest
        config.addinivalue_line("markers", "processes: needs Redis or another process, and is left out by --quick")
        config.addinivalue_line("markers", "no_database: reaches for no database, which is watched, and so is run once and not on each")
    signal.signal(signal.SIGTERM, signal.default_int_handler)   # end what was started, as on Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)    # a background job's children ignore it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)                # as those under nohup do this
    if shares_out(config):
        return
    if not QUICK:
        redis_server.start()
    stand_in.start()
    database = f"sqlite:///{WORK / 'db.sqlite3'}" if KIND == "sqlite" else postgres.start()
    for name in ("DEBUG", "HTTPS", "TRUST_PROXY", "FAILURES_TO", "EMAIL_URL", "DEFAULT_FROM_EMAIL", "NOTIFY", "HEARTBEAT_URL"):
        os.environ.pop(name, None)
    os.environ.update(
        DJANGO_SETTINGS_MODULE="scheduler.settings", SECRET_KEY="k" * 60, ALLOWED_HOSTS="127.0.0.1,testserver",
        HTTPS="false", DATABASE_URL=database, REDIS_URL=redis_server.url, API_URL=stand_in.url + "/ok",
        CALL_LOG=str(WORK / "api_calls.log"), TICK="0.5", STATIC_ROOT=str(WORK / "static"), LEASE="6", TIMEOUT="4", PYTHONUNBUFFERED="1")
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection
    from django.db.backends.signals import connection_created
    django.setup()
    # The same names; compressing them all takes two seconds.
    settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    settings.WHITENOISE_AUTOREFRESH = True      # or each new test client looks at all static files
    connection_created.connect(without_power_cuts)
    from django.contrib.auth.hashers import PBKDF2PasswordHasher
    PBKDF2PasswordHasher.iterations = 1000      # its number is part of each hash, for whoever reads it
    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    with connection.cursor() as cursor:
        names = connection.introspection.table_names(cursor)
        tables.extend(sorted(set(names) - set(filled(cursor, names))))


def without_power_cuts(connection, **_):
    """In the test process the operating system alone keeps what is committed: nothing waits for the disk."""
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA synchronous = OFF")


def pytest_collection_finish(session):
    if QUICK:
        import hypothesis  # noqa: F401     what it loads starts one, and pytest may load it only at the end
        subprocess.Popen.__init__ = no_process


def no_process(*_, **__):
    pytest.skip("needs a second process")


def needs_processes(item):
    return "stack" in item.fixturenames or item.get_closest_marker("processes") is not None


def pytest_collection_modifyitems(config, items):
    """Files that start processes come first: they take longest, and others can be run beside them."""
    if QUICK:
        left_out = [item for item in items if needs_processes(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
        return
    number = Counter(item.path for item in items if needs_processes(item))
    items.sort(key=lambda item: -number[item.path])


def pytest_unconfigure(config):
    if shares_out(config):
        return
    from django.db import connections
    Stack.discard()
    connections.close_all()
    end(redis_server.process)
    postgres.stop()
    shutil.rmtree(WORK, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.passed = report.passed
    return report


def pytest_terminal_summary(terminalreporter):
    counts = {name: len(terminalreporter.stats.get(name, [])) for name in ("passed", "failed", "error")}
    summary = f"service-{KIND}: {counts['passed']} passed, {counts['failed'] + counts['error']} failed"
    Path(os.environ.get("SCHEDULER_TEST_SUMMARY", WORK / "summary")).write_text(summary + "\n")


@pytest.fixture(autouse=True)
def clean(request, monkeypatch):
    """Every test begins with an empty database, broker, log and API."""
    if "stack" not in request.fixturenames:
        Stack.discard()
    if request.node.get_closest_marker("no_database"):
        if KIND != "sqlite":
            pytest.skip("it is the same on every database, and is run on SQLite")
        monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.ensure_connection", no_connection)
    else:
        empty()
    if not QUICK:
        redis_server.empty()
    stand_in.switched = None
    stand_in.seen.clear()
    (WORK / "api_calls.log").unlink(missing_ok=True)


def no_connection(_):
    raise AssertionError("it is marked no_database, and asks for one")


def empty():
    """Deletes the rows of those tables that have any, beside what migrating left there. Most tests write to few: all
    are asked at once, and not by way of models, which would read tens of thousands first. It may take longer than the
    service waits for anything."""
    from django.db import connection, transaction

    from scheduler.base.database import anew
    connection.close_if_unusable_or_obsolete()      # by the test before, which is none of this one's business
    with anew(60), connection.cursor() as cursor:
        if not (full := filled(cursor, tables)):
            return
        with transaction.atomic():      # foreign keys are looked at when it ends, and so in any order
            if KIND == "postgresql":
                cursor.execute("SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '60s'")
            for table in full:
                cursor.execute(f"DELETE FROM {table}")


def filled(cursor, tables):
    """Those of the tables that have rows."""
    cursor.execute(" UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in tables))
    return [table for table, in cursor.fetchall()]


@pytest.fixture
def api():
    """The API's stand-in."""
    return stand_in


@pytest.fixture
def log():
    """The lines of the log so far, as a function. A line follows its row's commit: who has seen a
    row that another process ended says how many lines must come."""
    def lines(number=0):
        path = WORK / "api_calls.log"
        until(lambda: not number or path.exists() and len(path.read_text().splitlines()) >= number,
              10, f"{number} lines in the log")
        return path.read_text().splitlines() if path.exists() else []
    return lines


@pytest.fixture
def work(tmp_path):
    return tmp_path


class Stack:
    """The service's processes, each started as README.md says for machines of their own.

    A web server outlives a test that went well: the next one that begins with one in the same environment
    takes it over, with an empty output. So do those others that a file's own fixture `stack` puts in `kept`,
    where the test left them nothing to do.
    """

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    parked = []                 # [(what it was started as, process, file of its output), ...]
    number = itertools.count()

    def __init__(self):
        self.processes = {}
        self.outputs = {}
        self.started_as = {}
        self.environment = {"DEBUG": "true"}
        self.celery = ["-m", "celery"]
        self.loglevel = "INFO"          # of the worker and beat
        self.kept = ("web",)
        self.limits = []        # a command that runs the processes, such as prlimit

    def start(self, *names, **environment):
        for name in self.launch(*names, **environment):
            self.ready(name)
        return self

    def launch(self, *names, **environment):
        """As `start`, without waiting until they are ready. Returns the names of those that are new."""
        self.environment |= {k: str(v) for k, v in environment.items()}
        commands = {
            "web": ["-m", "gunicorn", "scheduler.wsgi", "--bind", f"127.0.0.1:{self.port}", "--worker-class",
                    "gthread", "--workers", "1", "--threads", "32", "--forwarded-allow-ips", "",
                    "--no-control-socket"],
            "worker": [*self.celery, "-A", "scheduler", "worker", "--without-mingle", "--without-gossip",
                       "--loglevel", self.loglevel],
            "beat": ["-m", "celery", "-A", "scheduler", "beat", "--pidfile=", "--loglevel", self.loglevel],
        }
        for name in names:
            self.started_as[name] = commands[name.rstrip("0123456789")], dict(self.environment)
        new = [name for name in names if not self._take_over(name)]
        self.discard()
        for name in new:
            number, (command, environment) = next(self.number), self.started_as[name]
            output = self.outputs[name] = WORK / f"{name}-{number}.log"
            self.processes[name] = subprocess.Popen(
                [*self.limits, sys.executable, *command, *(["--hostname", f"{number}@test"] if "worker" in command else [])],
                cwd=SERVICE, env=os.environ | environment, stdin=subprocess.DEVNULL,
                stdout=output.open("a"), stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_us)
        return new

    def _take_over(self, name):
        """Takes one that was parked over as `name`. Returns whether there was one."""
        for one in self.parked:
            started_as, process, output = one
            if started_as == self.started_as[name] and process.poll() is None:
                self.parked.remove(one)
                self.processes[name], self.outputs[name] = process, output
                os.truncate(output, 0)
                return True
        return False

    def ready(self, name):
        says = {"web": "Booting worker", "worker": " ready.", "beat": "is starting"}.get(
            name.rstrip("0123456789"))
        until(lambda: says in self.outputs[name].read_text() or self.processes[name].poll() is not None,
              30, f"{name} has started")
        assert self.processes[name].poll() is None, self.outputs[name].read_text()

    def says(self, name):
        """What it has written so far."""
        return self.outputs[name].read_text()

    def kill(self, name):
        """kill -9, of the process and those it started."""
        kill(self.processes.pop(name))

    def stop(self):
        while self.processes:
            self.kill(next(iter(self.processes)))

    def post(self, *times, **headers):
        """Schedules calls at these datetimes over HTTP; returns what was created."""
        answer = requests.post(
            self.url + "/api/schedule-api/", headers=headers, timeout=10,
            json={"timestamps": ", ".join(time.isoformat() for time in times)})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def park(self):
        """Leaves those of `kept` to the next test; ends the others, which would go on with what they hold."""
        if self.kept != ("web",):
            with suppress(pytest.fail.Exception):
                until(self.all_told, 1)     # a line follows its row's commit
        kept = self.kept if self.all_told() else ("web",)
        for name in [name for name in self.processes if name.rstrip("0123456789") in kept]:
            says = self.says(name)
            if self.processes[name].poll() is None and says.count("cannot be reached") == says.count("is back"):
                self.parked.append((self.started_as[name], self.processes.pop(name), self.outputs[name]))
        self.stop()

    def all_told(self):
        """Whether all calls have ended, and each has its line: a worker holds nothing of them any more."""
        from scheduler.models import ScheduledCall
        log, ended = WORK / "api_calls.log", statuses()
        return set(ended) <= set(ScheduledCall.FINISHED) and sum(ended.values()) <= (
            len(log.read_text().splitlines()) if log.exists() else 0)

    @classmethod
    def discard(cls):
        """Ends what was parked."""
        while cls.parked:
            kill(cls.parked.pop()[1])


def kill(process):
    """kill -9, of a process and those it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def stack(request):
    """The service's processes: none, until the test starts them."""
    stack = Stack()
    yield stack
    if getattr(request.node, "passed", False):
        stack.park()
    else:
        for name in stack.processes:
            print(f"--- {name} says:", *stack.says(name).splitlines()[-40:], sep="\n")
        stack.stop()


def certificate(folder):
    """(file of a certificate for 127.0.0.1 that vouches for itself, file of its key), made in `folder`."""
    files = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
                    "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def chrome(profile, width=1300, height=900):
    """A real browser, without a window, whose pages are that many pixels wide.

    profile: a folder for what it keeps
    """
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    return anew(browser, width, height)


def anew(browser, width, height):
    """The browser as nobody has used it, with pages of another size."""
    browser.get("about:blank")
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    # The window has a least width, which a phone's page is below.
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    return browser


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """The browser that all tests of a process share."""
    browser = chrome(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium):
    return anew(chromium, 1300, 900)


@pytest.fixture
def phone(chromium):
    return anew(chromium, 390, 844)


def log_in(browser, url):
    """Somebody who may do everything has logged in, and is at the start. By a cookie: what the form costs, the password
    hashed in full, is paid where it is the form that counts."""
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import Client
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    name = settings.SESSION_COOKIE_NAME
    browser.execute_cdp_cmd("Network.setCookie", {"url": url, "name": name, "value": client.cookies[name].value})
    browser.get(url + "/admin/")
    assert "user-tools" in browser.page_source


def person(name="ann", may=("view", "add", "change"), model="scheduledcall"):
    """A user of the API, made where there is none of that `name`, with these permissions for calls, or
    for another model alone."""
    from django.contrib.auth.models import Permission, User
    user, _ = User.objects.get_or_create(username=name)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{right}_{model}" for right in may]))
    return user


@pytest.fixture
def client():
    """The client of somebody who has logged in and may do everything."""
    from django.contrib.auth.models import User
    from django.test import Client
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def guest(*codenames, name="ann"):
    """The client of somebody who may log in to the admin, and only do what these permissions say."""
    from django.contrib.auth.models import Permission, User
    from django.test import Client
    client, user = Client(), User.objects.create_user(name, is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    return client


@pytest.fixture
def ann():
    """The client of somebody who may schedule calls, also for targets."""
    from django.contrib.auth.models import Permission
    from django.test import Client
    client, user = Client(), person()
    user.user_permissions.add(Permission.objects.get(codename="use_target"))
    client.force_login(user)
    return client


class Hook:
    """A web server on the loopback that takes notices as JSON. `took` is what it has taken; `says` the HTTP status that it
    answers with; `before` is called with each request before it is answered."""

    def __init__(self):
        self.took, self.says, self.before = [], 200, None

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler):
                notice = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                if self.before:
                    self.before()
                if self.says == 200:
                    self.took.append((handler.path, notice))
                handler.send_response(self.says)
                handler.end_headers()

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"json://127.0.0.1:{self.server.server_port}/hook/t0k3n-0f-th3-hook"

    def titles(self, path="/hook/t0k3n-0f-th3-hook"):
        return [notice["title"] for where, notice in self.took if where == path]

    @property
    def last(self):
        return self.took[-1][1]["message"]


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


def in_seconds(seconds):
    """A whole second, that many seconds ahead: datetime."""
    return datetime.fromtimestamp(int(time.time() + seconds) + 1, timezone.utc)


def make(seconds=60, number=None, **fields):
    """A ScheduledCall due that many seconds from now (or a list of `number`)."""
    from scheduler.models import ScheduledCall
    timestamp = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    calls = ScheduledCall.objects.bulk_create(
        [ScheduledCall(timestamp=timestamp, **fields) for _ in range(number or 1)])
    return calls if number else calls[0]


def fill(number, seconds=60, **fields):
    """As `make`, by the database itself and in a moment: for thousands that nobody looks at one by one."""
    from django.db import connection
    call = make(seconds, **fields)
    table = call._meta.db_table
    columns = ", ".join(field.column for field in call._meta.concrete_fields if not field.primary_key)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({columns}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s)"
            f" SELECT {columns} FROM {table}, n WHERE id = %s AND i > 1", [number, call.id])


def statuses():
    """{status: number of calls} of the whole database."""
    from django.db.models import Count

    from scheduler.models import ScheduledCall
    return dict(ScheduledCall.objects.order_by().values_list("status").annotate(Count("id")))


def rows_read(work):
    """What `work()` costs the database, in rows that it looks at in tables and indexes: a number that depends on
    neither this machine nor what else it does. (Of SQLite: what it takes three steps of its machine for.)"""
    from django.db import connection, transaction
    if KIND == "sqlite":
        connection.ensure_connection()
        steps = itertools.count()
        connection.connection.set_progress_handler(lambda: next(steps) and None, 3)
        try:
            work()
        finally:
            connection.connection.set_progress_handler(None, 3)
        return next(steps)

    def read():
        with connection.cursor() as cursor:
            cursor.execute("SELECT sum(pg_stat_get_xact_tuples_returned(c.oid)) FROM pg_class c"
                           " WHERE relnamespace = 'public'::regnamespace")
            return int(cursor.fetchone()[0])
    with transaction.atomic():
        before = read()
        work()
        return read() - before


def all_ended(number, seconds=30):
    """Waits until `number` calls have ended, and returns the statuses."""
    from scheduler.models import ScheduledCall
    until(lambda: ScheduledCall.objects.filter(status__in=ScheduledCall.FINISHED).count() == number,
          seconds, f"{number} ended")
    return statuses()
