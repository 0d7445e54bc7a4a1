"""The real parts that the tests use, and how to get them.

Environment: SCHEDULER_TEST_DATABASE is `sqlite` (default) or `postgresql`. A Redis server, a
PostgreSQL server where asked for, and the API's stand-in are started here on free ports of the
loopback, in a temporary folder, and ended by their process ids. The tests and the processes they
start share one database, migrated once and emptied before every test.
"""
import asyncio
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
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import requests

SERVICE = Path(__file__).resolve().parent.parent
KIND = os.environ.get("SCHEDULER_TEST_DATABASE", "sqlite")
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


class Redis:
    """A Redis server that a test may stop, kill and start again; it keeps nothing on disk."""

    def __init__(self):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", str(WORK)], stdout=subprocess.DEVNULL)
        until(lambda: self.command("ping") == "PONG", what="Redis answers")

    def stop(self, number=signal.SIGTERM):
        end(self.process, number)

    def command(self, *words):
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True,
                              text=True).stdout.strip()


class Postgres:
    """A PostgreSQL server of our own. It refuses to run as root, so root lends it another user."""

    def __init__(self):
        self.port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        self.folder = WORK / "postgres"
        self.process = None
        self.bin = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)

    def start(self):
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if user:
            WORK.chmod(0o755)
            self.folder.mkdir()
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        else:
            self.folder.mkdir()
        self.how = {"cwd": self.folder, "stdout": subprocess.DEVNULL, **user}
        subprocess.run([self.bin / "initdb", "-D", self.folder / "data", "-A", "trust", "-U", "postgres"],
                       check=True, **self.how)
        self.run()
        return self.url

    def run(self):
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder,
             "-c", "listen_addresses=127.0.0.1"], stderr=(WORK / "postgres.log").open("a"), **self.how)
        until(lambda: subprocess.run(
            [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode == 0)

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


def pytest_configure(config):
    """Before Django reads its settings."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)   # end what was started, as on Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)    # a background job's children ignore it
    redis_server.start()
    stand_in.start()
    database = f"sqlite:///{WORK / 'db.sqlite3'}" if KIND == "sqlite" else postgres.start()
    for name in ("DEBUG", "HTTPS", "TRUST_PROXY", "FAILURES_TO", "EMAIL_URL", "DEFAULT_FROM_EMAIL"):
        os.environ.pop(name, None)
    os.environ.update(
        DJANGO_SETTINGS_MODULE="scheduler.settings", SECRET_KEY="k" * 60, ALLOWED_HOSTS="127.0.0.1,testserver",
        HTTPS="false", DATABASE_URL=database, REDIS_URL=redis_server.url, API_URL=stand_in.url + "/ok",
        CALL_LOG=str(WORK / "api_calls.log"), TICK="0.5", STATIC_ROOT=str(WORK / "static"), LEASE="6", TIMEOUT="4", PYTHONUNBUFFERED="1")
    import django
    from django.core.management import call_command
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)


def pytest_unconfigure(config):
    from django.db import connections
    connections.close_all()
    end(redis_server.process)
    postgres.stop()
    shutil.rmtree(WORK, ignore_errors=True)


def pytest_terminal_summary(terminalreporter):
    counts = {name: len(terminalreporter.stats.get(name, [])) for name in ("passed", "failed", "error")}
    summary = f"service-{KIND}: {counts['passed']} passed, {counts['failed'] + counts['error']} failed"
    Path(os.environ.get("SCHEDULER_TEST_SUMMARY", WORK / "summary")).write_text(summary + "\n")


@pytest.fixture(autouse=True)
def clean():
    """Every test begins with an empty database, broker, log and API."""
    from axes.models import AccessAttempt
    from django.contrib.auth.models import User
    from django.core.cache import cache

    from scheduler.calls import log as call_log
    from scheduler.models import Heartbeat, IdempotentAnswer, Notice, Schedule, ScheduledCall, Tally
    redis_server.command("flushall")
    cache.clear()
    for model in (ScheduledCall, Schedule, IdempotentAnswer, Heartbeat, Notice, Tally, AccessAttempt, User):
        model.objects.all().delete()
    stand_in.switched = None
    stand_in.seen.clear()
    call_log._torn = False
    (WORK / "api_calls.log").unlink(missing_ok=True)


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
    """The service's processes, each started as README.md says for machines of their own."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes = {}
        self.outputs = {}
        self.environment = {"DEBUG": "true"}
        self.celery = ["-m", "celery"]
        self.limits = []        # a command that runs the processes, such as prlimit

    def start(self, *names, **environment):
        self.launch(*names, **environment)
        for name in names:
            self.ready(name)
        return self

    def launch(self, *names, **environment):
        """As `start`, without waiting until they are ready."""
        self.environment |= {k: str(v) for k, v in environment.items()}
        commands = {
            "web": ["-m", "gunicorn", "scheduler.wsgi", "--bind", f"127.0.0.1:{self.port}", "--worker-class",
                    "gthread", "--workers", "1", "--threads", "32", "--forwarded-allow-ips", "",
                    "--no-control-socket"],
            "worker": [*self.celery, "-A", "scheduler", "worker", "--without-mingle", "--without-gossip",
                       "--loglevel", "INFO", "--hostname", f"{len(self.outputs)}@test"],
            "beat": ["-m", "celery", "-A", "scheduler", "beat", "--pidfile="],
        }
        for name in names:
            output = self.outputs[name] = WORK / f"{name}-{len(self.outputs)}.log"
            self.processes[name] = subprocess.Popen(
                [*self.limits, sys.executable, *commands[name.rstrip("0123456789")]], cwd=SERVICE,
                env=os.environ | self.environment, stdin=subprocess.DEVNULL,
                stdout=output.open("w"), stderr=subprocess.STDOUT, start_new_session=True)

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
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes.pop(name).wait()

    def stop(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            end(process, seconds=10)

    def post(self, *times, **headers):
        """Schedules calls at these datetimes over HTTP; returns what was created."""
        answer = requests.post(
            self.url + "/api/schedule-api/", headers=headers, timeout=10,
            json={"timestamps": ", ".join(time.isoformat() for time in times)})
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest.fixture
def stack():
    """The service's processes: none, until the test starts them."""
    stack = Stack()
    yield stack
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
    # The window has a least width, which a phone's page is below.
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
    return browser


def log_in(browser, url, name="root"):
    """Logs a user in whose password is PASSWORD."""
    from selenium.webdriver.common.by import By
    browser.get(url + "/admin/")
    browser.find_element(By.NAME, "username").send_keys(name)
    browser.find_element(By.NAME, "password").send_keys(PASSWORD)
    browser.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    until(lambda: browser.find_elements(By.ID, "user-tools"))


def person(name="ann", may=("view", "add", "change"), model="scheduledcall"):
    """A user of the API, made where there is none of that `name`, with these permissions for calls, or
    for another model alone."""
    from django.contrib.auth.models import Permission, User
    user, _ = User.objects.get_or_create(username=name)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{right}_{model}" for right in may]))
    return user


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


def statuses():
    """{status: number of calls} of the whole database."""
    from django.db.models import Count

    from scheduler.models import ScheduledCall
    return dict(ScheduledCall.objects.order_by().values_list("status").annotate(Count("id")))


def all_ended(number, seconds=30):
    """Waits until `number` calls have ended, and returns the statuses."""
    from scheduler.models import ScheduledCall
    until(lambda: ScheduledCall.objects.filter(status__in=ScheduledCall.FINISHED).count() == number,
          seconds, f"{number} ended")
    return statuses()
