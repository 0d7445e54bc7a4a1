"""The seed end to end, with the commands of the README: `manage.py up`, curl, the log, the admin;
and what `up` says when something is not as it should be."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import bootstrap
import pytest
import redis
from conftest import PASSWORD, SERVICE, WORK, all_ended, end, free_port, in_seconds, redis_server, until
from django.contrib.auth.models import User

from scheduler.base import broker as notes
from scheduler.models import ScheduledCall


class Up:
    """`python3 manage.py up` as a user runs it, with nothing configured but where the tests' parts are."""

    def __init__(self, *arguments, name="up", **environment):
        self.port = free_port()
        self.output = WORK / f"{name}.log"
        self.environment = {k: v for k, v in (os.environ | environment).items() if v is not None
                            and (k in environment or k not in ("SECRET_KEY", "ALLOWED_HOSTS", "DEBUG", "HTTPS"))}
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--bind", f"127.0.0.1:{self.port}", *arguments],
            cwd=SERVICE, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=self.output.open("w"), stderr=subprocess.STDOUT)

    def says(self):
        """What it has written, but for which time zone data it goes by, where there are two on the machine."""
        return re.sub(r"(?m)^worker +[|] the time zone data .*\n", "", self.output.read_text())

    def since(self):
        """What it has written since it is ready: without its first lines."""
        return self.says().partition("--body ")[2].partition("\n")[2]

    def ready(self):
        until(lambda: self.curl("/healthz")[0] == 200 or self.process.poll() is not None, 40, "up is ready")
        assert self.process.poll() is None, self.says()
        return self

    def curl(self, path, *arguments):
        """(status, body), by the real curl."""
        result = subprocess.run(
            ["curl", "-s", "-w", "\n%{http_code}", *arguments, f"http://127.0.0.1:{self.port}{path}"],
            capture_output=True, text=True, timeout=20)
        body, _, status = result.stdout.rpartition("\n")
        return int(status), body

    def children(self):
        return [int(pid) for pid in subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True).stdout.split()]


@pytest.fixture
def up():
    started = []

    def start(*arguments, **environment):
        started.append(Up(*arguments, **environment))
        return started[-1]
    yield start
    for one in started:
        end(one.process, signal.SIGTERM, 30)


def alive(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def test_the_seed_row_by_row(up, api, log):
    service = up(DJANGO_SUPERUSER_USERNAME="root", DJANGO_SUPERUSER_PASSWORD=PASSWORD).ready()
    root = User.objects.get(username="root")
    assert root.is_superuser and root.check_password(PASSWORD)

    due = in_seconds(4)
    text = f"{due:%Y-%m-%dT%H:%M:%SZ}"
    status, body = service.curl(
        "/api/schedule-api/", "-X", "POST", "-H", "Content-Type: application/json",
        "-d", json.dumps({"timestamps": f"{text}, 2096-08-01T15:00:00Z, 2020-01-01T00:00:00Z"}))
    first, second = json.loads(body)
    assert status == 201
    assert body == (f'[{{"id":{first["id"]},"timestamp":"{text}","status":"Pending"}},'
                    f'{{"id":{second["id"]},"timestamp":"2096-08-01T15:00:00Z","status":"Pending"}}]')
    assert all_ended(1) == {"Succeeded": 1, "Pending": 1}
    lateness = api.arrivals(due)
    assert len(lateness) == 1 and 0 <= lateness[0] < 1
    assert log(1) == [f"{due:%Y-%m-%d %H:%M:%S}: Successfully called API at {api.url}/ok"]

    api.switched = "/status/503"
    failing = in_seconds(2)
    service.curl("/api/schedule-api/", "-H", "Content-Type: application/json",
                 "-d", json.dumps({"timestamps": f"{failing:%Y-%m-%dT%H:%M:%SZ}"}))
    assert all_ended(2) == {"Succeeded": 1, "Failed": 1, "Pending": 1}
    assert log(2)[1] == f"{failing:%Y-%m-%d %H:%M:%S}: Failed to call API at {api.url}/ok (HTTP status 503)"
    until(lambda: len(service.since().splitlines()) == 2)
    assert service.since().splitlines() == log(), "it shows the lines of the log"

    assert service.curl("/admin/login/")[0] == 200
    status, body = service.curl(f"/api/schedule-api/{first['id']}/")
    assert json.loads(body)["http_status"] == 200

    children = service.children()
    assert len(children) == 3
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(30) == 130
    until(lambda: not any(alive(pid) for pid in children))
    assert re.search(r"^(web|worker|beat) +\| ", service.says(), re.M)

    due = in_seconds(12)
    ScheduledCall.objects.filter(status="Pending").update(timestamp=due)
    service = up("--quiet").ready()
    assert all_ended(3, 40) == {"Succeeded": 1, "Failed": 2}, "what waited survived the restart"
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 143
    assert len(log(3)) == 3 and "called API" not in service.since() and "Stopping." in service.since()


def test_when_one_dies_all_stop_and_it_says_which(up):
    service = up().ready()
    children = service.children()
    worker = next(pid for pid in children if b"\0worker\0" in open(f"/proc/{pid}/cmdline", "rb").read())
    os.kill(worker, signal.SIGKILL)
    assert service.process.wait(40) == 1
    assert "worker ended (signal 9)" in service.says()
    until(lambda: not any(alive(pid) for pid in children))


def command(service, *arguments):
    """(exit status, output) of another command in a second terminal, with the environment of an `Up`."""
    result = subprocess.run([sys.executable, "manage.py", *arguments], cwd=SERVICE, env=service.environment, stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=40)
    return result.returncode, result.stdout + result.stderr


def test_with_no_redis_it_has_a_broker_of_its_own(up, work, api):
    """Which is started again when it dies, is found by other commands, and ends with `up`, also by kill -9."""
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", 6379)) == 0:
            pytest.skip("a Redis answers at localhost:6379")
    other = notes.note(work, "redis://localhost:1/0")       # of another `up` in this folder, which ends later
    service = up(REDIS_URL=None, CALL_LOG=str(work / "calls.log")).ready()
    assert notes.noted(work) == "redis://localhost:1/0"
    os.close(other)
    until(lambda: notes.noted(work))
    assert "The broker is its own, redis-server, as" in service.says()
    assert re.search("Succeeded: HTTP status 200, [0-9]+ ms", command(service, "call", "now")[1])
    url, = re.findall("redis://.*", (work / ".broker").read_text())
    shown_to_all = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in service.children()}
    pid = next(pid for pid, words in shown_to_all.items() if "redis-server" in words)
    assert not any(urlsplit(url).password in words for words in shown_to_all.values())
    os.kill(pid, signal.SIGKILL)
    until(lambda: "The broker ended (signal 9), and is started again." in service.since())
    until(lambda: service.curl("/healthz")[0] == 200)
    api.switched = "/status/503"
    assert command(service, "call", "+1s", "--note", "the second")[0] == 1
    until(lambda: re.search("^[0-9: -]+ Failed to call API at .* [(]HTTP status 503[)]$", service.since(), re.M))
    children = service.children()
    assert len(children) == 5, "web, worker, beat, the broker and its watcher"
    service.process.kill()
    until(lambda: not answers(url), 1, "the broker is gone")
    until(lambda: not any(alive(pid) for pid in children), 30)


def test_ctrl_c_while_it_starts(up, work):
    """It is let no further than to where it would migrate; its broker is up by then."""
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", 6379)) == 0:
            pytest.skip("a Redis answers at localhost:6379")
    with bootstrap.alone():
        service = up(REDIS_URL=None, CALL_LOG=str(work / "calls.log"))
        broker, watcher = until(lambda: (found := service.children()) and len(found) == 2 and found)
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(20) == 130 and service.says() == ""
    until(lambda: not alive(broker) and not alive(watcher))


def test_two_at_once(up, work):
    """On a new database: one makes it, and the account."""
    new = f"sqlite:///{work / 'db.sqlite3'}"
    with bootstrap.alone():
        both = [up(DATABASE_URL=new, name=name) for name in ("one", "two")]
    until(lambda: all("--body" in service.says() for service in both), 60)
    said = [service.says() for service in both]
    assert sum("The admin's account, shown this once" in text for text in said) == 1


def test_nohup(up):
    """Who closes the terminal does not end it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        service = up()
    finally:
        signal.signal(signal.SIGHUP, before)
    service.ready().process.send_signal(signal.SIGHUP)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 143


def test_a_folder_of_any_name(work):
    folder = work / "a+b c#1 50%25 ü?"
    shutil.copytree(SERVICE / "scheduler", folder / "scheduler")
    for name in ("manage.py", "bootstrap.py", "requirements.txt"):
        shutil.copy(SERVICE / name, folder)
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0", "contenttypes"], cwd=folder, env=environment, check=True)
    assert (folder / "db.sqlite3").stat().st_size


def test_killed_while_it_migrates_it_migrates_again(work):
    """Where Django would note a migration only after it: once it is done."""
    killed = ("import os\nfrom django.db.migrations.recorder import MigrationRecorder as Recorder\nnote = Recorder.record_applied\n"
              "Recorder.record_applied = lambda *told: os._exit(9) if told[1:] == ('scheduler', '0001_initial') else note(*told)\n"
              "import sys, runpy\nsys.argv = ['manage.py', 'migrate', '--verbosity', '0']\nrunpy.run_path('manage.py', run_name='__main__')")
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{work / 'db.sqlite3'}"}
    assert subprocess.run([sys.executable, "-c", killed], cwd=SERVICE, env=environment).returncode == 9
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0", "scheduler"], cwd=SERVICE, env=environment, check=True)


def answers(url):
    try:
        with redis.Redis.from_url(url, socket_timeout=1, retry=None) as client:
            return client.ping()
    except redis.RedisError:
        return False


def test_no_broker_is_to_be_had(up, work):
    (work / "bin").mkdir()
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", 6379)) == 0:
            pytest.skip("a Redis answers at localhost:6379")
    service = up(REDIS_URL=None, PATH=str(work / "bin"))
    assert service.process.wait(20) == 1
    assert len(service.says().splitlines()) == 1 and "apt-get install redis-server" in service.says()
    assert "neither redis-server nor valkey-server is in PATH" in service.says() and "REDIS_URL" in service.says()


def test_redis_is_not_there(up):
    redis_server.stop()
    try:
        service = up()
        assert service.process.wait(20) == 1
    finally:
        redis_server.start()
    assert "apt-get install redis-server" in service.says() and "REDIS_URL" in service.says(), "named, none is started"
    assert "Traceback" not in service.says() and len(service.says().splitlines()) == 1


def test_redis_takes_no_writes(up):
    """At the start that is said at once; later `up` waits for the end of it."""
    redis_server.command("config", "set", "maxmemory", "1")
    try:
        service = up()
        assert service.process.wait(20) == 1
        assert "takes no writes" in service.says() and len(service.says().splitlines()) == 1
        redis_server.command("config", "set", "maxmemory", "0")
        service = up().ready()
        redis_server.command("replicaof", "127.0.0.1", str(free_port()))
        until(lambda: len(re.findall("^(?:worker|beat) +[|] the broker cannot be reached", service.says(), re.M)) == 2)
    finally:
        redis_server.command("config", "set", "maxmemory", "0")
        redis_server.command("replicaof", "no", "one")
    until(lambda: len(re.findall("^(?:worker|beat) +[|] the broker is back", service.says(), re.M)) == 2, 30)
    assert service.process.poll() is None and len(service.since().splitlines()) == 4, service.says()


@pytest.mark.parametrize("arguments, environment, says", [
    (["--bind", "0.0.0.0:1"], {}, "stays on 127.0.0.1"),
    (["--bind", "nonsense"], {}, "give a host and a port"),
    (["--bind", "127.0.0.1:99999"], {}, "give a host and a port from 1 to 65535"),
    (["--bind", "127.0.0.1:0"], {}, "give a host and a port from 1 to 65535"),
    ([], {"DATABASE_URL": f"sqlite:///{SERVICE / 'README.md'}"}, "The database cannot be used: file is not a database."),
    (["--workers", "0"], {}, "at least 1"),
    ([], {"DATABASE_URL": "sqlite:////no/such/folder/db"}, "It is the file /no/such/folder/db; see DATABASE_URL"),
    ([], {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/x"}, "Connection refused"),
])
def test_what_cannot_work_is_said_at_once(up, arguments, environment, says):
    service = up(*arguments, **environment)
    assert service.process.wait(40) == 1
    assert says in service.says() and "Traceback" not in service.says()
    assert len(service.says().splitlines()) == 1


def test_an_older_python_is_told_so(work):
    """By manage.py; and by pip, which stops at a line that names what is needed, and no other does."""
    fake = "import runpy, sys; sys.version_info = (3, 10, 13); sys.argv = ['manage.py', 'up']; runpy.run_path('manage.py', run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", fake], cwd=SERVICE, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert "Python 3.11 or newer is needed, and this is 3.10" in result.stderr
    first = next(line for line in (SERVICE / "requirements.txt").read_text().splitlines() if line[0] != "#")
    requirement, _, marker = first.partition(" ; ")
    (work / "requirements.txt").write_text(requirement)
    result = subprocess.run([sys.executable, "-m", "pip", "install", "--dry-run", "-r", work / "requirements.txt"],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode != 0 and "API-Scheduler-needs-Python-3.11-or-newer" in result.stderr
    assert marker == 'python_version < "3.11"'


def test_the_first_start(up, work):
    """The log is there to be watched before any call; it and the database are nobody else's; and no
    warnings to somebody who runs it as root."""
    service = up(CALL_LOG=str(work / "logs" / "calls.log"), DATABASE_URL=f"sqlite:///{work / 'db.sqlite3'}").ready()
    assert (work / "logs" / "calls.log").read_text() == ""
    assert {path.stat().st_mode & 0o777 for path in [*work.glob("db.sqlite3*"), work / "logs" / "calls.log"]} == {0o600}
    assert "superuser privileges" not in service.says()
    assert len(service.says().splitlines()) == 6, service.says()
    assert service.since() == "", "and nothing but what it is for, the account and what to type"


def test_a_busy_port(up, api):
    service = up("--bind", f"127.0.0.1:{api.port}")
    assert service.process.wait(20) == 1
    assert "Cannot listen at" in service.says() and "Traceback" not in service.says()


def shown(text):
    """(name, password) of the account that was made."""
    return re.search(r"The admin's account, shown this once: ([a-z0-9]+), password (\S+)\s", text).groups()


def test_off_a_terminal_it_makes_an_administrator_once(up):
    User.objects.create_user("admin")
    service = up().ready()
    name, password = shown(service.says())
    user = User.objects.get(username=name)
    assert user.is_superuser and user.check_password(password) and name == "admin1" and len(password) >= 16
    end(service.process)
    assert password not in up().ready().says() and User.objects.count() == 2


@pytest.mark.parametrize("typed", [
    {"Username: ": ""},
    {"Username: ": "bob", "already taken": "ann", "Password: ": PASSWORD, "Password (again): ": PASSWORD}])
def test_on_a_terminal_it_asks_for_an_administrator_and_return_leaves_it_the_choice(typed):
    User.objects.create_user("bob")
    ours, its = os.openpty()
    process = subprocess.Popen([sys.executable, "manage.py", "up", "--bind", f"127.0.0.1:{free_port()}"], cwd=SERVICE,
                               env={**os.environ, "DEBUG": "true"}, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    said = ""
    try:
        for question, answer in (typed | {"--body ": ""}).items():
            while question not in said:
                said += os.read(ours, 10000).decode()
            os.write(ours, answer.encode() + b"\n")
    finally:
        end(process)
        os.close(ours)
    name, password = ("ann", PASSWORD) if "ann" in typed.values() else shown(said)
    assert "Return: both are chosen" in said and name in ("ann", "admin")
    user = User.objects.get(is_superuser=True)
    assert user.username == name and user.check_password(password)


def test_serving_others_it_expects_https_and_says_so(up):
    """A header that says it is HTTPS is believed only where TRUST_PROXY says so, also from 127.0.0.1."""
    serving = {"SECRET_KEY": "k" * 60, "ALLOWED_HOSTS": "127.0.0.1"}
    forwarded = ["/api/schedule-api/", "-H", "X-Forwarded-Proto: https"]
    service = up(**serving).ready()
    assert "set HTTPS=false in a closed network" in service.says()
    assert service.curl(*forwarded)[0] == 301
    end(service.process)
    assert up(**serving, TRUST_PROXY="true").ready().curl(*forwarded)[0] == 401
