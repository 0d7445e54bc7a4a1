"""`python3 manage.py up`: the whole service on this machine, until Ctrl-C.

Migrates the database, asks for an administrator the first time, then runs web, worker and beat, where there is no
broker one of its own, and shows their output, each line with the name of its process, and the line of each call that
ends. When one of the three ends, all end; the broker is started again.
"""
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

import bootstrap
import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from scheduler.base import broker as notes
from scheduler.base.words import redacted
from scheduler.calls import log
from scheduler.calls.health import try_broker
from scheduler.management import broker

# Seconds for the calls in flight to end after Ctrl-C; they take TIMEOUT at most.
STOP_WITHIN = settings.TIMEOUT + 15
USUAL = "redis://localhost:6379/0"      # where a broker is looked for if REDIS_URL does not say
ADMINISTRATOR = "admin"                 # of a random password


class Command(BaseCommand):
    help = "Runs web, worker and beat together on this machine, until Ctrl-C."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("--bind", default="127.0.0.1:8000", metavar="HOST:PORT",
                            help="where the web server listens (default: %(default)s)")
        parser.add_argument("--workers", type=int, default=1, metavar="N",
                            help="worker processes; one uses one processor (default: %(default)s)")

        parser.add_argument("--quiet", action="store_true", help="no line for each call that ends")

    def handle(self, *, bind, workers, quiet, **options):
        if workers < 1:
            raise CommandError("--workers must be at least 1.")
        check_bind(bind)
        why_own = no_redis()
        own = broker.Broker(say) if why_own else None
        try:
            if own:
                start(own, why_own)
            self.run(bind, workers, quiet, own, why_own)
        finally:
            if own:
                own.stop()

    def run(self, bind, workers, quiet, own, why_own):
        """own: the broker.Broker that was started, or None; why_own: why it was"""
        with bootstrap.alone():         # two that are started at once migrate one after the other
            call_command("migrate", verbosity=0, interactive=False)
        log.write([])                   # there to be watched before the first call ends
        if own:
            own.noted = noted(own.url)
        if not settings.DEBUG:
            try:
                call_command("collectstatic", verbosity=0, interactive=False)
            except OSError as error:
                raise CommandError(f"STATIC_ROOT, {settings.STATIC_ROOT}, cannot be written: {error.strerror}.")
        self.create_administrator()
        connection.close()
        self.stdout.write(f"API Scheduler calls {redacted(settings.API_URL)}. "
                          f"API and admin: http://{bind}/ — Ctrl-C stops.")
        if own:
            self.stdout.write(f"The broker is its own, {os.path.basename(own.program)}, as {why_own}.")
        command = f"{shown_python()} manage.py call"
        self.stdout.write(f"In a second terminal:  cd {shlex.quote(str(settings.BASE_DIR))}\n"
                          f"                       {command} now\n"
                          f"                       {command} +10s --target NAME --body '{{\"invoice\": 7}}'")
        if settings.HTTPS:
            self.stdout.write("Plain http is redirected to https: put a proxy that does TLS in front "
                              "(TRUST_PROXY=true), or set HTTPS=false in a closed network.")
        self.stdout.flush()
        sys.exit(run({
            "web": ["-m", "gunicorn", "scheduler.wsgi", "--bind", bind, "--worker-class", "gthread",
                    "--workers", "2", "--threads", "32", "--graceful-timeout", "10",
                    # Who speaks HTTPS is settled by TRUST_PROXY; gunicorn would believe all of 127.0.0.1.
                    "--forwarded-allow-ips", "", "--no-control-socket", "--log-level", "warning"],
            **{f"worker{number if workers > 1 else ''}": [
                "-m", "celery", "--quiet", "-A", "scheduler", "worker", "--loglevel", "WARNING",
                "--without-mingle", "--without-gossip", "--hostname", f"worker{number}-{os.getpid()}@%h"]
               for number in range(1, workers + 1)},
            "beat": ["-m", "celery", "--quiet", "-A", "scheduler", "beat", "--loglevel", "WARNING",
                     "--pidfile="],
        }, own, None if quiet else Tail(settings.CALL_LOG)))

    def create_administrator(self):
        """No account ships: asks for one the first time, or takes DJANGO_SUPERUSER_*."""
        users = get_user_model().objects
        if users.filter(is_superuser=True).exists():
            return
        name = os.environ.get("DJANGO_SUPERUSER_USERNAME")
        if name and os.environ.get("DJANGO_SUPERUSER_PASSWORD"):
            call_command("createsuperuser", interactive=False, verbosity=0,
                         email=os.environ.get("DJANGO_SUPERUSER_EMAIL", ""))
            self.stdout.write(f"Administrator {name!r} created from DJANGO_SUPERUSER_*.")
            return
        if sys.stdin.isatty() and sys.stdout.isatty():
            self.stdout.write("The admin has no account yet. Choose a name for it, then its password "
                              "(Return: both are chosen for you; Ctrl-C: later).")
            try:
                while name := input("Username: ").strip():
                    try:
                        call_command("createsuperuser", username=name, email="")
                        return
                    except CommandError as error:       # that name is no good, or taken
                        self.stdout.write(str(error))
            except (SystemExit, KeyboardInterrupt, EOFError):
                self.stdout.write(f"\nThe admin has no account yet: {shown_python()} manage.py createsuperuser")
                return
        name, password = ADMINISTRATOR, secrets.token_urlsafe(12)
        with bootstrap.alone():
            if users.filter(is_superuser=True).exists():
                return                  # of another `up` that was started at the same time
            while users.filter(username=name).exists():
                name += "1"
            users.create_superuser(name, password=password)
        self.stdout.write(f"The admin's account, shown this once: {name}, password {password}\n"
                          f"(Another password: {shown_python()} manage.py changepassword {name})")


def shown_python():
    """What to type for the Python that has the packages: manage.py finds those in `.venv` beside it by itself."""
    return "python3" if sys.prefix == str(settings.BASE_DIR / ".venv") else "python"


def check_bind(bind):
    """Raises CommandError unless `bind` ("host:port") can be listened at, and may be."""
    host, _, port = bind.rpartition(":")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        local = host and address[0] in ("127.0.0.1", "::1")
        if not 1 <= int(port) <= 65535:
            raise ValueError
    except (ValueError, OverflowError, OSError):
        raise CommandError(f"--bind {bind}: give a host and a port from 1 to 65535, such as 127.0.0.1:8000.")
    if settings.DEBUG and not local:
        raise CommandError(
            f"--bind {bind}: with DEBUG on the API is open, so it stays on 127.0.0.1. To serve others "
            "set SECRET_KEY and ALLOWED_HOSTS, and leave DEBUG out (see README.md).")
    with socket.socket(family, kind, proto) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise CommandError(f"Cannot listen at {bind}: {error.strerror}. Choose another with --bind "
                               "HOST:PORT, or stop what listens there.")


def no_redis():
    """Why there is no Redis for this service, so that one is to be started: a text, None if there is one. Raises
    CommandError, saying what to do, if REDIS_URL names one that cannot be used."""
    named = "REDIS_URL" in os.environ
    url = settings.REDIS_URL if named else USUAL
    try:
        try_broker(2, url)
        return None
    except (redis.ResponseError, redis.AuthenticationError) as error:
        said = ("asks for a password that it was not given" if isinstance(error, redis.AuthenticationError) else
                f"takes no writes: {str(error).rstrip('.')} (is its disk or its memory full, is it a replica?)")
        if named:
            raise CommandError(f"Redis at {redacted(url)} answers and {said}. Mend that, or set REDIS_URL to another, or leave it "
                               "out: then `up` starts one of its own.")
        return f"the one at localhost:6379 {said}"
    except (redis.RedisError, ValueError) as error:
        if named:
            raise CommandError(
                f"Redis does not answer at {redacted(url)} ({error}). Start it (Debian: "
                "apt-get install redis-server, then service redis-server start), or set REDIS_URL to another, or leave it "
                "out: then `up` starts one of its own.")
        return "no Redis answers at localhost:6379"


def start(own, why_own):
    """Starts the broker. Raises CommandError, saying what to do, if there is none."""
    try:
        own.start()
    except broker.CannotRun as error:
        raise CommandError(f"{why_own[0].upper()}{why_own[1:]}, and no broker could be started: {error}. "
                           f"{broker.HOW_TO_GET}, or set REDIS_URL.")


def noted(url):
    """Notes for other commands where the broker is, until this process ends. Returns whether there is no more to be done:
    while another `up` in this folder has noted its own, there is."""
    try:
        return notes.note(settings.CALL_LOG.parent, url) is not None
    except OSError as error:
        say(f"Other commands will not find the broker: {settings.CALL_LOG.parent} cannot be written ({error.strerror}).")
        return True


class Tail:
    """What is appended to a file from now on, by whole lines, also when it is moved away and begun anew."""

    def __init__(self, path):
        self.path, self.file, self.rest = path, None, b""
        self._open()
        if self.file:
            self.file.seek(0, os.SEEK_END)

    def _open(self):
        try:
            self.file = self.path.open("rb")
        except OSError:
            self.file = None

    def lines(self):
        """The new ones, as texts without their ends."""
        found = self._read() if self.file else []
        try:
            now = os.stat(self.path)
            then = os.fstat(self.file.fileno()) if self.file else None
            if then is None or (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) or now.st_size < self.file.tell():
                if self.file:
                    self.file.close()
                self._open()
                self.rest = b""
                found += self._read() if self.file else []
        except OSError:
            pass                # rotated away; whoever writes next begins it
        return found

    def _read(self):
        try:
            *whole, self.rest = (self.rest + self.file.read()).split(b"\n")
        except OSError:
            return []
        return [line.decode(errors="replace") for line in whole]


def die_with_parent():
    """In a child on Linux: ends it when this process is killed, so that nothing is left behind."""
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)      # 1 is PR_SET_PDEATHSIG


def run(commands, own=None, tail=None):
    """Runs them all until a signal comes or one of them ends.

    commands: dict from a name to arguments of Python
    own: the broker.Broker that they use and that ends with them; tail: the Tail whose lines are shown
    Returns the exit status: 130 or 143 after SIGINT or SIGTERM, otherwise 1.
    """
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:      # that is nohup's
            signal.signal(number, lambda number, frame: signals.append(number))
    children, readers = begin(commands, own)

    def show_calls():
        for line in tail.lines() if tail else []:
            say(line)

    hope = True
    while hope and not signals and all(child.poll() is None for child in children.values()):
        time.sleep(0.1)
        show_calls()
        if own:
            own.noted = own.noted or noted(own.url)
        hope = own is None or own.look_after()
    if signals:
        say(f"Stopping. Calls in flight may end, within {settings.TIMEOUT:g} s; Ctrl-C again ends them now.")
    elif hope:
        name, child = next((n, c) for n, c in children.items() if c.poll() is not None)
        code = f"status {child.returncode}" if child.returncode >= 0 else f"signal {-child.returncode}"
        say(f"{name} ended ({code}); its last lines above say why. Stopping the others.")
    end(children.values(), signals, show_calls)
    for reader in readers:
        reader.join(5)
    show_calls()
    return 128 + signals[0] if signals else 1


def begin(commands, own):
    """Starts the processes of `run`. Returns ({name: subprocess.Popen}, [threading.Thread that shows what one says, ...])."""
    width = max(map(len, commands))
    environment = {**os.environ, "REDIS_URL": own.url if own else os.environ.get("REDIS_URL", USUAL), "PYTHONUNBUFFERED": "1",
                   # Eight lines of Celery, for each of its processes; its messages are JSON and no code.
                   "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}
    children, readers = {}, []
    for name, arguments in commands.items():
        child = children[name] = subprocess.Popen(
            # A session of its own: Ctrl-C on the terminal reaches this process alone, which then
            # stops the others in order.
            [sys.executable, *arguments], start_new_session=True, env=environment,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
            cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        readers.append(threading.Thread(target=show, args=(name.ljust(width), child.stdout), daemon=True))
        readers[-1].start()
    return children, readers


def end(children, signals, meanwhile):
    """Has the processes `children` end, and returns once they have: within STOP_WITHIN, or at once when another signal is
    added to the list `signals`.

    meanwhile: called now and then
    """
    asked, deadline = len(signals), time.monotonic() + STOP_WITHIN
    for child in children:
        if child.poll() is None:
            child.terminate()
    while any(child.poll() is None for child in children):
        if len(signals) > asked or time.monotonic() > deadline:
            for child in children:
                if child.poll() is None:
                    child.kill()
        time.sleep(0.1)
        meanwhile()


def show(name, stream):
    for line in stream:
        say(f"{name} | {line.decode(errors='replace').rstrip()}")


def say(text):
    """Prints a line; a reader that has gone away must not stop the service."""
    try:
        print(text, flush=True)
    except OSError:
        pass
