#!/usr/bin/env python3
"""Call an API at the times you name: on time, once each, with a log line for every call.

    python api_scheduler.py "12:30:00, 14:15:30"
    python api_scheduler.py 2026-08-01T14:30:00Z --url https://example.org/hook
    python api_scheduler.py "09:00:00" -- -X POST --data @body.json

What is called and where the log lies is set in config.py, beside this file. Needs Python
3.6 or later and curl, nothing else. The file reads in the order in which a call is made:
parse the times, plan when each is due, wait, call, log; then main() ties it together.

How a call is on time: starting a curl takes many milliseconds, so each curl is started
shortly before its time ("armed") and waits, reading its configuration from a pipe. At the
due instant it is given the URL ("fired"). An armed curl has no URL: if this program dies,
the curl reads end-of-file, finds nothing to call, and ends.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for Ctrl-C while this starts

import argparse
import collections
import datetime
import math
import os
import queue
import re
import select
import shutil
import subprocess
import sys
import threading
import time
import warnings

try:
    import resource  # POSIX only
except ImportError:
    resource = None

__version__ = "1.0.0"

HERE = os.path.dirname(os.path.realpath(__file__))
WINDOWS = os.name == "nt"

DEFAULT_TIMEOUT = 30  # seconds for one call
DEFAULT_GRACE = 60  # seconds after its time in which a call may still be started

LONGEST_SLEEP = 1.0  # seconds; how soon a stepped clock or a resumed laptop is noticed
LONGEST_SLEEP_WINDOWS = 0.1  # seconds; there a sleep does not end when a signal arrives
PROBE_TIMEOUT = 10.0  # seconds for curl to read its options
KILL_AFTER = 5.0  # seconds past its timeout that a curl may live
RETRY_START = 0.1  # seconds until the next try when a curl could not be started

ARM_MARGIN = 2.0  # seconds between the end of arming and the due time
ARM_SECONDS_PER_CALL = 0.02  # starting one curl; 2 to 10 ms were measured, 30 on slow machines
ARM_EARLIEST = 60.0  # seconds before its time that a group is armed at the earliest
CURL_MEMORY = 2 * 1024 * 1024  # bytes; an armed curl holds about 1.4 MB of its own
ASSUMED_MEMORY = 2 * 1024 ** 3  # bytes; where the system does not tell
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
CURL_DESCRIPTORS = 2  # held here for each curl: its standard input and standard error
SPARE_DESCRIPTORS = 32  # for the log, the standard streams, and a curl that is being started
MOST_DESCRIPTORS = (65536, 10240)  # asked for in turn; macOS grants no more than the second

LONGEST_URL = 8000  # bytes; RFC 9110 section 4.1 asks for this much. Escaped it fits into one
# pipe buffer of any system, so that firing never blocks and is never cut in two.
STDERR_KEPT = 8192  # bytes of what a curl says; the reason for a failure is at the end
MOST_LINES = 1000  # that are logged in one piece
PATIENCE = 1.0  # seconds for the log, or for what reads standard output, after a signal
LONGEST_REASON = 500  # characters of curl's words in a log line


class SetupError(Exception):
    """Something the user must mend before anything can be scheduled; its text says what."""


# ---------------------------------------------------------------------------- parse

TIME_OF_DAY = re.compile(r"([0-9]{1,2}):([0-9]{2}):([0-9]{2})")
DATE_TIME = re.compile(
    r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})"  # 2026-08-01 or 20260801
    r"[Tt ]([0-9]{2})(:?)([0-9]{2})(?:\6([0-9]{2})(?:\.([0-9]{1,6})[0-9]*)?)?"  # 14:30:00.5
    r"(?:([Zz])|([+-])([0-9]{2})(?::?([0-9]{2}))?)?"  # Z, +05:30, +0530, +05
)


def parse_time(text):
    """Return the ``datetime.time`` or the aware ``datetime.datetime`` that `text` names.

    Raises ValueError, with a reason to show to the user, if it names neither. ISO 8601
    date-times without an offset are local; around a change of the clocks they are read as
    `due_time` reads times of day.
    """
    match = TIME_OF_DAY.fullmatch(text)
    if match:
        return datetime.time(*map(int, match.groups()))
    match = DATE_TIME.fullmatch(text)
    if not match:
        raise ValueError("neither HH:MM:SS nor an ISO 8601 date-time")
    year, _, month, day, hour, _, minute, second, fraction, z, sign, *offset = match.groups()
    moment = datetime.datetime(
        *map(int, (year, month, day, hour, minute, second or 0, (fraction or "0").ljust(6, "0")))
    )
    try:
        if not z and not sign:
            # Not moment.astimezone(), which in the gap of a clock change reads the time otherwise.
            utc = datetime.timezone.utc
            return datetime.datetime.fromtimestamp(moment.timestamp(), utc).astimezone()
        hours, minutes = (int(part or 0) for part in offset)
        offset = datetime.timedelta(hours=hours, minutes=minutes)
        moment = moment.replace(tzinfo=datetime.timezone(-offset if sign == "-" else offset))
        time.localtime(moment.timestamp())
        return moment
    except (OverflowError, OSError):
        raise ValueError("outside the years that this system's clock knows") from None


def read_times(arguments):
    """Yield ``(text, time, reason)`` for each entry of comma-separated `arguments`.

    `time` is what `parse_time` returned, or None, and then `reason` says why. Empty
    entries (a trailing comma, an empty line of a file) are passed over.
    """
    for argument in arguments:
        for text in argument.split(","):
            text = text.strip().lstrip("\ufeff")  # a file saved on Windows may start with a mark
            if text:
                try:
                    yield text, parse_time(text), None
                except ValueError as error:
                    yield text, None, str(error)


def parse_timestamps(timestamps, suppress_print=False):
    """Return the list of valid times in `timestamps`, in the order given.

    `timestamps` is a comma-separated string, or several in a list. ``HH:MM:SS`` becomes a
    ``datetime.time``, an ISO 8601 date-time an aware ``datetime.datetime``. Each invalid
    entry is left out with a warning on standard error, unless `suppress_print`.
    """
    times = []
    for text, when, reason in read_times(
        [timestamps] if isinstance(timestamps, str) else timestamps
    ):
        if when is not None:
            times.append(when)
        elif not suppress_print:
            warn(skipped_words(text, reason))
    return times


# ----------------------------------------------------------------------------- plan


def due_time(when, now, today=False):
    """Return the instant at which `when` is due, in seconds since the epoch.

    `when` is a ``datetime.time`` (local time of day) or a ``datetime.datetime`` (local if
    naive); `now` is in seconds since the epoch. A time of day is due at its next
    occurrence, today or tomorrow, or only today if `today`. The second that `now` lies in
    counts as not yet passed. Raises ValueError, with a reason, if the time has passed.

    Local times in the gap of a clock change are read with the offset before it, and of two
    in the fold the first is meant (RFC 5545 section 3.3.5). That is how Python reads naive
    datetimes with fold=0 (PEP 495).
    """
    this_second = math.floor(now)
    if isinstance(when, datetime.datetime):
        due = when.timestamp()
        if due < this_second:
            raise ValueError("it has passed")
        return due
    date = datetime.date.fromtimestamp(now)
    due = datetime.datetime.combine(date, when).timestamp()
    if due < this_second:
        if today:
            raise ValueError("it has passed today")
        due = datetime.datetime.combine(date + datetime.timedelta(days=1), when).timestamp()
    return due


def plan(arguments, now, today=False):
    """Return what to do for `arguments`: ``(groups, skipped)``.

    `groups` is a list of ``(due, calls)``, seconds since the epoch and a count, in order of
    time; `skipped` is a list of ``(text, reason)``.
    """
    dues, skipped = [], []
    for text, when, reason in read_times(arguments):
        try:
            if when is None:
                raise ValueError(reason)
            dues.append(due_time(when, now, today))
        except ValueError as error:
            skipped.append((text, str(error)))
    groups = [(due, len(calls)) for due, calls in sorted(group_by_time(dues).items())]
    return groups, skipped


def group_by_time(times):
    """Return a dict from each time in `times` to the list of those identical to it."""
    groups = {}
    for when in times:
        groups.setdefault(when, []).append(when)
    return groups


def arming_times(groups):
    """Return when to begin arming each of `groups`, in seconds since the epoch.

    Groups are armed one after another, so an early one must make room for a large one
    behind it: the times are worked out from the last to the first.
    """
    times = []
    room = math.inf  # when the group behind begins
    for due, calls in reversed(groups):
        room = min(due - ARM_MARGIN, room) - calls * ARM_SECONDS_PER_CALL
        room = max(room, due - ARM_EARLIEST)
        times.append(room)
    times.reverse()
    return times


# ----------------------------------------------------------------------------- wait


def wait_until(when, timefunc=time.time, delayfunc=time.sleep, stopped=lambda: False):
    """Return True once `when` has come by the wall clock, False as soon as `stopped()`.

    `when` is in seconds since the epoch, or anything that `due_time` takes. Sleeps are
    short and the clock is read after each, so that neither a stepped clock nor a suspended
    machine makes it early, or later than `LONGEST_SLEEP`. `timefunc` and `delayfunc` are as
    in the standard library's ``sched.scheduler``.
    """
    due = when if isinstance(when, (int, float)) else due_time(when, timefunc())
    while not stopped():
        left = due - timefunc()
        if left <= 0:
            return True
        delayfunc(min(left, LONGEST_SLEEP))
    return False


# ----------------------------------------------------------------------------- call


def check_url(url):
    """Raise SetupError if `url` is nothing that can be called, without ever repeating it.

    It may hold a password, and a control character could end the line of the curl
    configuration that it is written to.
    """
    if not isinstance(url, str):
        raise SetupError("API_URL in config.py must be text")
    if not url:
        raise SetupError("the URL is missing: set API_URL in config.py or give --url")
    if any(char.isspace() or not char.isprintable() for char in url):
        raise SetupError(
            "the URL holds a space or a control character: write it percent-encoded, as %20"
        )
    if len(url.encode("utf-8")) > LONGEST_URL:
        raise SetupError("the URL is longer than %d bytes" % LONGEST_URL)
    match = re.match(r"(?i)https?://([^/?#]*)", url)
    if not match:
        raise SetupError("the URL must begin with http:// or https://")
    userinfo, at_sign, host = match.group(1).rpartition("@")
    valid = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(:[0-9]*)?", host)
    if not valid or (valid.group(2) and not at_sign and "@" in url):  # me:12/34@host
        raise SetupError(
            "the URL has no valid host and port, or an @ behind them: in a user name or "
            "password write / ? # @ percent-encoded, as %2F %3F %23 %40"
        )


def without_password(url):
    """Return `url` with the password in it, if there is one, replaced by ``***``."""
    return re.sub(r"^([^:]+://)([^/?#]*)(?=@)", hide_password, url)


def hide_password(match):
    scheme, userinfo = match.groups()
    return scheme + userinfo.partition(":")[0] + (":***" if ":" in userinfo else "")


def curl_config(url):
    """Return the bytes that fire an armed curl: one line of its configuration file.

    In double quotes curl reads backslash escapes (curl's manual, "--config"), so the quote
    and the backslash are escaped. `check_url` has refused everything that ends a line.
    """
    quoted = url.replace("\\", "\\\\").replace('"', '\\"')
    return ('url = "%s"\n' % quoted).encode("utf-8")


SHORT_OPTIONS_WITH_VALUE = "AbcCdDeEFHKmoPQrtTuUwxXyYz"  # curl's manual


def options_of(curl_options):
    """Yield ``(name, value)`` for each of `curl_options`: ``("--max-time", "5")``.

    Which long options take a value depends on curl's version: whatever follows one and does
    not begin with a dash is yielded as its value. A value that does counts as an option too.
    """
    waiting = iter(list(curl_options) + [""])
    option = next(waiting)
    for following in waiting:
        value = None if following.startswith("-") and following != "-" else following
        if option.startswith("--"):
            yield option, value
        elif option.startswith("-"):
            for place, letter in enumerate(option[1:], 2):
                if letter in SHORT_OPTIONS_WITH_VALUE:
                    if place == len(option):
                        yield "-" + letter, following
                        following = next(waiting, "")
                    else:
                        yield "-" + letter, option[place:]
                    break
                yield "-" + letter, None
        option = following


def means(given, *names):
    """Whether an option is one of `names`, in full or, as curl takes it, cut short."""
    return any(given == name or (len(given) > 2 and name.startswith(given)) for name in names)


def names_any(curl_options, *names):
    """Whether `curl_options` hold one of `names`."""
    return any(means(given, *names) for given, _ in options_of(curl_options))


def curl_command(curl, timeout, curl_options, extra=()):
    """Return the command line of an armed curl: our defaults, then the user's options.

    --globoff, because one call is one request: curl would expand ``[1-9]`` in a URL.
    """
    fail = [] if names_any(curl_options, "--fail-with-body") else ["--fail"]
    defaults = ["--silent", "--show-error", "--location", "--globoff"] + fail
    only_http = ["--proto", "=http,https", "--proto-redir", "=http,https"]
    limit = ["--max-time", "%.3f" % timeout]
    return (
        [curl] + defaults + only_http + limit + list(extra) + list(curl_options) + ["--config", "-"]
    )


def check_curl(curl_options):
    """Return ``(path, warnings)``: where curl is, and what it says of the user's options.

    Raises SetupError if curl is not there, refuses an option, or was given a URL of its
    own, which an armed curl would call even when it is not fired. To find out, curl is run
    as it will be, but with every protocol disabled, and fired without a URL.
    """
    curl = shutil.which("curl")
    if not curl:
        raise SetupError(
            "curl was not found in PATH (%s): install it (Debian: apt-get install curl)"
            % os.environ.get("PATH", "")
        )
    refuse_what_cannot_work(curl_options)
    no_protocol = ["--proto", "-all"]
    command = curl_command(curl, DEFAULT_TIMEOUT, curl_options, no_protocol)
    command.remove("--silent")  # ours, the first, so that warnings are heard
    probe = None
    try:
        probe = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **own_session()
        )
        said = probe.communicate(b'proto = "-all"\n', timeout=PROBE_TIMEOUT)[1]
    except subprocess.TimeoutExpired:
        raise SetupError("curl does not come back from reading its options") from None
    except (OSError, ValueError) as error:
        raise SetupError("curl could not be started (%s): %s" % (curl, reason_of(error))) from None
    finally:
        if probe and probe.poll() is None:
            probe.kill()
            probe.communicate()
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    said = "\n".join(lines)
    if probe.returncode == 1 or "curl: (1)" in said:
        raise SetupError(
            "the curl options (or a .curlrc) hold a URL of their own: it is given with --url"
        )
    if probe.returncode == 0:
        raise SetupError("with the curl options given, curl prints something and calls nothing")
    if "no URL specified" in said:
        return curl, [line for line in lines if line.startswith("Warning:")]
    named = [line for line in lines if line.startswith("curl:")] or lines
    raise SetupError(
        "curl refuses its options, or the last one lacks its value: %s"
        % (named[0] if named else "exit code %d" % probe.returncode)
    )


def refuse_what_cannot_work(curl_options):
    """Raise SetupError for options that take away the URL, or a pipe to or from the curl."""
    if "--" in curl_options or names_any(curl_options, "-:", "--next"):
        raise SetupError("among the curl options, -- and --next cannot be used: a call has one URL")
    if names_any(curl_options, "--stderr"):
        raise SetupError("curl's --stderr would keep from the log why a call failed: leave it out")
    for name, value in options_of(curl_options):
        value = value or ""
        is_config = means(name, "-K", "--config")
        if is_config and os.path.isfile(value):
            try:
                with open(value, "rb") as file:
                    if re.search(rb"(?m)^[ \t]*(-:|(--)?next\b)", file.read()):
                        raise SetupError('%s holds "next": a call has one URL' % value)
            except OSError:
                pass  # curl will say so
        if (
            value == "/dev/stdin"
            or (value in ("@-", "@/dev/stdin") and name != "--data-raw")
            or (means(name, "--data-urlencode") and value.endswith(("@-", "@/dev/stdin")))
            or (means(name, "-F", "--form") and re.search(r"=[@<]-(;|$)", value))
            or (means(name, "-T", "--upload-file") and value in ("-", "."))
            or ((is_config or means(name, "-b", "--cookie")) and value == "-")
        ):
            raise SetupError(
                "curl's %s reads standard input, which is not there for it: name a file" % name
            )


CHOOSES_TRUST = re.compile(
    r"-[kKq]|--(ca|ins|no-ins|conf|dis|crl|ssl|tls|curv|ciph|eng|proxy-).*"  # also cut short
)
SYSTEM_FOLDERS = ("/usr/bin", "/bin")  # a curl from elsewhere may bring its own authorities


def fast_trust(curl, url, curl_options, environ=os.environ, trust=None):
    """Return curl options that look up the CA of a server without changing who is trusted.

    A curl linked to OpenSSL parses the whole CA bundle for every HTTPS call, about 100 ms
    of processor time. The same certificates often lie in a hashed directory, where OpenSSL
    finds the one it needs by name (OpenSSL's manual, "X509_LOOKUP_hash_dir"). Naming one
    small certificate of it as the bundle keeps curl from reading the large one.

    An empty list, which leaves all to curl, unless all of this holds: HTTPS, an OpenSSL
    curl of the system's, no choice of trust by the user (options, environment, a curlrc),
    and a directory with exactly the certificates of the bundle. `trust` is a pair of paths,
    the bundle and the directory; OpenSSL's own if None.
    """
    chosen = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
    if not url.lower().startswith("https:") or any(environ.get(name) for name in chosen):
        return []
    if any(CHOOSES_TRUST.fullmatch(name) for name, _ in options_of(curl_options)):
        return []
    if os.path.dirname(os.path.realpath(curl)) not in SYSTEM_FOLDERS:
        return []
    homes = [environ.get(name) for name in ("CURL_HOME", "XDG_CONFIG_HOME", "HOME")]
    homes += [os.path.expanduser("~"), os.path.expanduser("~/.config")]
    names = (".curlrc", "_curlrc", "curlrc")
    if any(home and os.path.exists(os.path.join(home, name)) for home in homes for name in names):
        return []
    try:
        version = subprocess.check_output([curl, "--version"], stdin=subprocess.DEVNULL)
        if not re.search(rb"\sOpenSSL/", version):  # one in brackets is built in, but not used
            return []
        if trust is None:
            import ssl  # here, because it would double what waiting holds in memory

            paths = ssl.get_default_verify_paths()
            trust = paths.openssl_cafile, paths.openssl_capath
        bundle, directory = trust
        hashed = {}
        for name in os.listdir(directory):
            if re.fullmatch(r"[0-9a-f]{8}\.[0-9]+", name):
                path = os.path.join(directory, name)
                found = frozenset(certificates(path))
                if found:
                    hashed.setdefault(found, path)
        in_directory = frozenset().union(*hashed)
        if not in_directory or in_directory != frozenset(certificates(bundle)):
            return []
    except (OSError, ImportError, subprocess.SubprocessError):
        return []
    return ["--capath", directory, "--cacert", min(hashed.values(), key=os.path.getsize)]


def certificates(path):
    """Return the certificates in a PEM file, each as the bytes of its base64 text."""
    with open(path, "rb") as file:
        found = re.findall(rb"-----BEGIN[^-]*CERTIFICATE-----([^-]+)-----END", file.read())
    return [b"".join(text.split()) for text in found]


def own_session():
    """Return Popen arguments that keep the terminal's Ctrl-C, or a window, from a curl."""
    if WINDOWS:
        new_group, no_window = 0x00000200, 0x08000000  # named in subprocess from 3.7 on only
        return {"creationflags": new_group | no_window}
    return {"start_new_session": True}


class Gate:
    """Keeps the curls of a large group from ending while others of it have yet to send.

    Ending a curl costs more processor time than sending its request does, and those that
    end compete with those that wait to be served. So the standard output of the whole group
    is one pipe, filled to the brim: a curl with its answer in hand waits there to write it
    until the gate opens. From then on whatever they write is read and dropped. On two
    processors the last of 1000 requests arrived after 0.1 s with it, 0.3 to 0.4 s without.
    """

    # The gate stays shut for this share of the time that arming took, which makes it longer on
    # a slow machine: sending takes a tenth of it, and with TLS, for the handshake, a third.
    HOLD = {"http": 1 / 8, "https": 1 / 2}
    LONGEST_HOLD = 1 / 4  # of a call's timeout, which runs on for a curl that is held

    def __init__(self):
        """Raises OSError or RuntimeError if there is no room for a pipe or a thread."""
        self.opened = threading.Event()
        self.hold = 0.0
        self.reader, self.writer = os.pipe()
        try:
            os.set_blocking(self.writer, False)
            try:
                while True:
                    os.write(self.writer, bytes(4096))
            except BlockingIOError:
                os.set_blocking(self.writer, True)  # the curls share this setting
            start_thread(self.drain)
        except (OSError, RuntimeError):
            os.close(self.reader)
            os.close(self.writer)
            raise

    @classmethod
    def for_group(cls, group):
        """Return a gate for a group, or None if it is too small for one, late, or on Windows."""
        if WINDOWS or group.untaken <= (os.cpu_count() or 1):
            return None
        try:
            gate = cls()
        except (OSError, RuntimeError):
            return None  # it is a help, not a need
        with group.lock:
            group.gate = gate
            if group.begun:
                gate.open(0)
        return gate

    def open(self, hold):
        """Let the curls through in `hold` seconds."""
        self.hold = hold
        self.opened.set()

    def close_writer(self):
        """Say that no more curls will be started with it; the last to end ends `drain`."""
        os.close(self.writer)

    def drain(self):
        self.opened.wait()
        time.sleep(self.hold)
        while os.read(self.reader, 65536):
            pass
        os.close(self.reader)


class Call:
    """One call of the API: a curl that is armed, then fired or abandoned.

    An armed call leaves that state once: FIRED by the thread that writes its URL, ABANDONED
    by the one that gives it up, or DEAD if its curl ends first. Whoever moves it owes the
    log its line, and so there is exactly one.
    """

    ARMED, FIRED, ABANDONED, DEAD = "armed", "fired", "abandoned", "dead"

    def __init__(self, group, tries):
        self.group = group
        self.tries = tries  # how often it may be armed anew if its curl ends by itself
        self.lock = threading.Lock()  # guards the state
        self.state = self.ARMED
        self.fired_at = None  # seconds since the epoch
        self.killed = None  # why, if it was killed after it was fired
        self.ended = False

    def arm(self, command, stdout):
        """Start the curl. Raises OSError if the system has no room for it, or no curl."""
        self.curl = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            **own_session()
        )

    def fire(self, config, now):
        """Give the curl its URL. False if the curl is dead: then it has called nothing."""
        with self.lock:
            if self.state == self.ARMED:
                try:
                    self.curl.stdin.write(config)
                    self.state = self.FIRED
                    self.fired_at = now
                except OSError:
                    pass  # `settle` will find it dead
                self.close()
            return self.state == self.FIRED

    def abandon(self):
        """End a curl without firing it. False if it was dead before."""
        with self.lock:
            if self.state == self.ARMED:
                self.state = self.ABANDONED
                self.kill()  # first, because closing fires a curl whose user hid a URL in a file
                self.close()
            return self.state == self.ABANDONED

    def settle(self):
        """Wait for the curl to end. Return its exit code and the end of what it said."""
        said = b""
        while True:
            chunk = os.read(self.curl.stderr.fileno(), 65536)
            if not chunk:
                break
            said = (said + chunk)[-STDERR_KEPT:]
        code = self.curl.wait()
        self.ended = True
        self.curl.stderr.close()
        with self.lock:
            if self.state == self.ARMED:
                self.state = self.DEAD
                self.close()
        return code, said.decode("utf-8", "replace")

    def kill(self, why=None):
        self.killed = why
        try:
            if not self.ended:  # its process id may belong to another by then
                self.curl.kill()
        except OSError:
            pass  # it has ended by itself

    def close(self):
        try:
            self.curl.stdin.close()
        except OSError:
            pass  # it has ended by itself


class Group:
    """The calls that are due at the same instant."""

    def __init__(self, due, calls):
        self.due = due  # seconds since the epoch
        self.untaken = calls  # how many the arming thread has yet to take in hand
        self.arming = 0.0  # seconds that arming took so far
        self.lock = threading.Lock()  # guards what follows
        self.gate = None
        self.armed = []  # calls that wait for their time
        self.begun = False  # their time has come: a call armed from now on is fired at once


class Scheduler:
    """Makes the calls of a plan and reports what became of each, exactly once.

    The thread that runs it waits and fires, and does nothing that could keep it from being
    on time. A second thread arms, others log and print (`Reporter`, `Printer`), and each call
    has a thread that waits for its curl to end. `timefunc` is the wall clock.
    """

    def __init__(self, groups, settings, reporter, timefunc=time.time):
        self.waiting = list(zip(arming_times(groups), groups))
        self.waiting.reverse()  # it is popped from its end
        self.settings = settings
        self.curl = None  # its path, once it is known to work
        self.config = curl_config(settings.url)
        self.command = None  # of an armed curl
        self.trust = []  # its options for HTTPS
        self.grace = settings.grace
        # A user who sets curl's own limits puts curl in charge of them.
        own_limits = names_any(
            settings.curl_options, "-m", "--max-time", "--retry", "-K", "--config"
        )
        self.kill_after = math.inf if own_limits else settings.timeout + KILL_AFTER
        self.reporter = reporter
        self.timefunc = timefunc
        self.handed = collections.deque()  # groups handed to the arming thread, not yet begun
        self.to_arm = queue.Queue()
        self.places = threading.Semaphore(places())  # for curls that are up at once
        self.in_flight = collections.deque()  # (when to kill it by time.monotonic(), call)
        self.signals = []  # those received, in order
        self.wake_reader, self.wake_writer = os.pipe()
        if not WINDOWS:
            os.set_blocking(self.wake_reader, False)
            os.set_blocking(self.wake_writer, False)  # signal.set_wakeup_fd wants it so

    def close(self):
        os.close(self.wake_reader)
        os.close(self.wake_writer)

    def run(self):
        """Make every call of the plan, or after a signal cancel those not yet made."""
        start_thread(self.arm_groups)
        while not self.stopped() and (self.waiting or self.handed):
            arm_at, (next_due, _) = self.waiting[-1] if self.waiting else (math.inf, (math.inf, 0))
            fire_at = self.handed[0].due if self.handed else math.inf
            self.reporter.next_due = min(fire_at, next_due)
            if not wait_until(min(arm_at, fire_at), self.timefunc, self.nap, self.stopped):
                break
            if arm_at <= fire_at:
                group = Group(*self.waiting.pop()[1])
                self.handed.append(group)
                self.to_arm.put(group)
            else:
                self.fire_group(self.handed.popleft())
        self.reporter.next_due = None
        cancelled, give_up = False, math.inf
        while not self.reporter.all_reported() and time.monotonic() < give_up:
            if self.stopped() and not cancelled:
                self.cancel()
                cancelled = True
            if len(self.signals) > 2:  # somebody insists; all that is left is to log
                give_up = min(give_up, time.monotonic() + PATIENCE)
            self.nap(LONGEST_SLEEP)
        self.to_arm.put(None)  # its thread ends

    def stopped(self):
        return bool(self.signals)

    def nap(self, seconds):
        """Do what is to be done each second, then sleep, at most until `wake` or a signal."""
        self.kill_overdue()
        self.reporter.tick()
        if WINDOWS:
            time.sleep(min(seconds, LONGEST_SLEEP_WINDOWS))
        elif select.select([self.wake_reader], [], [], seconds)[0]:
            os.read(self.wake_reader, 4096)

    def wake(self):
        """End the main thread's `nap`."""
        try:
            if not WINDOWS:
                os.write(self.wake_writer, b"!")
        except OSError:
            pass  # the pipe is full: it will wake

    def kill_overdue(self):
        """Kill curls that outlive even their own time limit; after a second signal, all."""
        ending = len(self.signals) > 1
        for _ in range(len(self.in_flight)):
            kill_at, call = self.in_flight[0]
            if not call.ended:
                if ending:
                    call.kill("ended by a second signal")
                elif time.monotonic() >= kill_at:
                    call.kill("killed, no end after %g s" % self.kill_after)
                else:
                    break
            self.in_flight.popleft()

    def fire_group(self, group):
        """Fire all calls of a group that are armed; those that come late fire themselves.

        In one loop, because a thread for each that wakes at the due time would compete for
        the interpreter and the processors with the curls.
        """
        with group.lock:
            group.begun = True
            armed, group.armed = group.armed, []
        for call in armed:
            self.fire(call, self.nap)
        if group.gate:
            scheme = self.settings.url.partition(":")[0].lower()
            longest = self.settings.timeout * Gate.LONGEST_HOLD
            group.gate.open(min(group.arming * Gate.HOLD[scheme], longest))

    def fire(self, call, delayfunc):
        """Fire one armed call as soon as it is due, or report why not."""
        due = call.group.due
        if not wait_until(due, self.timefunc, delayfunc, self.stopped):
            if call.abandon():
                self.reporter.report(CANCELLED, due)
            return
        now = self.timefunc()
        if now - due > self.grace:
            if call.abandon():
                self.reporter.report(MISSED, due)
        elif call.fire(self.config, now):
            self.in_flight.append((time.monotonic() + self.kill_after, call))

    def cancel(self):
        """Report what has not been fired as cancelled, and end the armed curls."""
        dues = []
        for group in self.handed:
            with group.lock:
                group.begun = True
                armed, group.armed = group.armed, []
            dues += [group.due for call in armed if call.abandon()]
            if group.gate:
                group.gate.open(0)
        for _, (due, calls) in reversed(self.waiting):
            dues += [due] * calls
        for due in dues:
            self.reporter.report(CANCELLED, due)
        self.places.release()  # the arming thread may wait for one, and shall see the signal
        in_flight = sum(not call.ended for _, call in list(self.in_flight))
        if in_flight:
            self.reporter.warn(
                "stopping once %s in flight ended; a second signal ends them" % how_many(in_flight)
            )

    def arm_groups(self):
        """Arm one group after another, each as soon as it is handed over."""
        while True:
            group = self.to_arm.get()
            if group is None:
                return
            began = time.monotonic()
            self.make_command()
            gate = Gate.for_group(group)
            while group.untaken:
                self.places.acquire()
                group.untaken -= 1
                self.make(group, 1, gate.writer if gate and not group.begun else subprocess.DEVNULL)
                group.arming = time.monotonic() - began
            if gate:
                gate.close_writer()

    def make_command(self):
        """Make the command line, again if a certificate that it names has been removed."""
        url, options = self.settings.url, self.settings.curl_options
        if self.command is None or not all(map(os.path.exists, self.trust[1::2])):
            self.trust = fast_trust(self.curl, url, options)
            self.command = curl_command(self.curl, self.settings.timeout, options, self.trust)

    def make(self, group, tries, stdout=subprocess.DEVNULL):
        """Arm one call, for which there is a place; fire it if its group has begun."""
        call = Call(group, tries)
        if self.start(call, stdout):
            with group.lock:
                late = group.begun
                if not late:
                    group.armed.append(call)
            if late:
                self.fire(call, time.sleep)

    def start(self, call, stdout):
        """Start the curl of a call. False, and reported, if its time runs out before that.

        When processes, memory or descriptors run out, or curl itself is just being replaced
        by a newer one, it is tried again until there is room.
        """
        group, trouble = call.group, ""
        while not self.stopped() and self.timefunc() - group.due <= self.grace:
            call.curl = None
            try:
                call.arm(self.command, stdout)
                start_thread(self.await_end, call)
                return True
            except Exception as error:  # whatever it is, the call gets its line
                trouble = "curl could not be started: %s" % reason_of(error)
                if call.curl:
                    call.curl.kill()
                    call.curl.communicate()
                time.sleep(RETRY_START)
        self.places.release()
        self.reporter.report(CANCELLED if self.stopped() else MISSED, group.due, trouble)
        return False

    def await_end(self, call):
        """The thread of one call: wait for its curl to end, and report the outcome."""
        code, said = call.settle()
        if call.state == Call.DEAD and code < 0:  # killed, perhaps because memory ran out
            time.sleep(RETRY_START)
            return self.make(call.group, call.tries)  # in the same place
        if call.state == Call.DEAD and call.tries:
            return self.make(call.group, call.tries - 1)
        self.places.release()
        if call.state == Call.ABANDONED:
            return
        reason = call.killed or self.reporter.without_secrets(curl_words(said))
        words = "" if code == 0 else "exit code %d: %s" % (code, reason)
        if call.state == Call.DEAD:
            words = "not called, curl ended before its time with " + words
        self.reporter.report(FAILED if words else CALLED, call.group.due, words, call.fired_at)


def start_thread(target, *args):
    """Start a thread that does not keep the program alive. Raises RuntimeError."""
    threading.Thread(target=target, args=args, daemon=True).start()


def places():
    """Return how many curls may be up at once on this machine, at least 1.

    Half of its memory is theirs, and the soft limit of descriptors is raised to the hard.
    """
    most = memory() // 2 // CURL_MEMORY
    if resource:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in MOST_DESCRIPTORS:
            wanted = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
            if soft != resource.RLIM_INFINITY and soft < wanted:
                try:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                    soft = wanted
                except (ValueError, OSError):
                    pass
        if soft != resource.RLIM_INFINITY:
            most = min(most, (soft - SPARE_DESCRIPTORS) // CURL_DESCRIPTORS)
    return max(1, most)


def memory():
    """Return the memory that this program may use, in bytes."""
    limits = []
    try:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        limits.append(ASSUMED_MEMORY)
    for path in CGROUP_LIMITS:
        try:
            with open(path) as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):
            pass  # not there, or "max"
    return min(limits)


# ------------------------------------------------------------------------------ log

CALLED, FAILED = "Successfully called", "Failed to call"
MISSED, CANCELLED = "Missed call to", "Cancelled call to"


def log_line(what, url, stamp, due, words=""):
    """Return one line of the log, without its end.

    `stamp` and `due` are in seconds since the epoch; `words` give the reason if there is
    one. `url` must be free of passwords.
    """
    if what in (MISSED, CANCELLED):
        words = "due %s%s" % (local(due), "; " + words if words else "")
    line = stamped(stamp, "%s API at %s" % (what, url))
    return line + (" (%s)" % words if words else "")


def local(moment):
    """Return seconds since the epoch as local date and time, with what there is of a fraction."""
    fraction = ("%.6f" % (moment % 1))[1:].rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) + fraction


def curl_words(said):
    """Return the reason for a failure out of what curl wrote to standard error."""
    lines = [line for line in said.splitlines() if line.strip()] or ["curl gave no reason"]
    named = [line for line in lines if re.match(r"curl: \([0-9]+\) ", line)]
    words = re.sub(r"^curl: (\([0-9]+\) )?", "", (named or lines)[-1])
    return printable(words.strip())[:LONGEST_REASON]


def printable(text):
    """Return `text` in one line, with each character that is not printable as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def reason_of(error):
    """Return what went wrong in the system's own words, without number or path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def stamped(moment, words):
    """Return a line of the log, without its end; `moment` is in seconds since the epoch."""
    return "%s: %s" % (local(int(moment)), words)


def skipped_words(text, reason):
    return "Skipped '%s' (%s)" % (printable(text[:80]), reason)


def say(stream, text):
    """Write `text` to a standard stream; False if nobody can read it there any more."""
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode("ascii", "backslashreplace").decode())
        stream.flush()
        return True
    except (OSError, ValueError, AttributeError):  # its reader is gone, it is closed, or None
        return False


def warning_line(text):
    return "api_scheduler: %s\n" % printable(text)


def warn(text):
    say(sys.stderr, warning_line(text))


class Log:
    """Appends lines to a file, which is opened anew each time: it may be rotated meanwhile.

    Each write is one append, so that several programs can share the file and no line is
    torn. Lines that could not be written are kept, and written before the next ones.
    """

    FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)

    def __init__(self, path):
        self.path = path
        self.unwritten = []
        self.torn = None  # (device, inode) of the file in which the last write stopped in a line
        self.warn = warn
        self.warned = False

    def check(self):
        """Raise SetupError if the file cannot be opened."""
        try:
            os.close(os.open(self.path, self.FLAGS, 0o666))
        except (OSError, ValueError) as error:
            raise SetupError(
                "the log file %s cannot be opened: %s" % (self.path, reason_of(error))
            ) from None

    def write(self, lines):
        """Append `lines`, which have no ends, and any that are still unwritten."""
        self.unwritten += lines
        try:
            file = os.open(self.path, self.FLAGS, 0o666)
            try:
                while self.unwritten:
                    self.append(file)
            finally:
                os.close(file)
        except OSError as error:
            if not self.warned:
                self.warned = True
                self.warn(
                    "the log file %s cannot be written: %s; the calls go on, and so will the "
                    "log once this is mended" % (self.path, reason_of(error))
                )

    def append(self, file):
        """Write what is unwritten in one piece; keep what did not fit."""
        encoded = [line.encode("utf-8", "backslashreplace") + b"\n" for line in self.unwritten]
        identity = os.fstat(file)[1:3]
        start = b"\n" if self.torn == identity else b""
        done = os.write(file, start + b"".join(encoded))
        if not done:
            raise OSError("nothing was written")
        done -= len(start)
        whole = 0
        while whole < len(encoded) and done >= len(encoded[whole]):
            done -= len(encoded[whole])
            whole += 1
        del self.unwritten[:whole]
        self.torn = identity if done else None


class Printer:
    """Prints lines and, on a terminal, redraws a status line below them.

    In a thread of its own, because a full pipe or a terminal stopped with Ctrl-S may block
    it, and that must hold up neither a call nor the log.
    """

    def __init__(self, status_line):
        self.status_line = status_line  # called to make it
        self.status = ""  # what stands in the terminal's last line
        self.terminal = is_terminal(sys.stdout)
        self.stdout = sys.stdout
        self.listening = True  # somebody reads standard output
        self.texts = queue.Queue()  # (lines, warning): what to print on each stream
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        lines = []
        while lines is not None:
            lines, warning = self.texts.get()
            text = "".join(line + "\n" for line in lines or [])
            if self.terminal:
                status = "" if lines is None else self.status_line()
                wipe = "\r%s\r" % (" " * len(self.status))
                if warning:
                    say(self.stdout, wipe)
                    say(sys.stderr, warning)
                    wipe = ""
                text = wipe + text + status
                self.status = status
            elif warning:
                say(sys.stderr, warning)
            if text and self.listening:
                self.listening = say(self.stdout, text)


class Reporter:
    """Logs, counts and prints what became of each call, in a thread of its own."""

    def __init__(self, log, url, calls, timefunc=time.time):
        self.log = log
        self.url = without_password(url)
        self.secrets = secrets_of(url)
        self.calls = calls  # how many are to be reported
        self.timefunc = timefunc
        self.counts = collections.Counter()
        self.next_due = None
        self.when_done = lambda: None
        self.events = queue.Queue()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.printer = Printer(self.status_line)

    def start(self):
        """Raises RuntimeError if no thread can be started."""
        self.printer.thread.start()
        self.log.warn = self.warn
        self.thread.start()

    def report(self, what, due, words="", stamp=None):
        """Have a line written for one call; `stamp` is when it was fired, or else now."""
        self.events.put((what, due, words, stamp or self.timefunc()))

    def warn(self, text):
        """Have a warning printed, above the status line if there is one."""
        self.printer.texts.put(([], warning_line(text)))

    def tick(self):
        """Have the status line redrawn."""
        if self.printer.terminal and self.printer.texts.empty():
            self.printer.texts.put(([], ""))

    def all_reported(self):
        """Whether every call has its line in the log, or a warning has said why not."""
        return sum(self.counts.values()) >= self.calls

    def close(self, stopped=lambda: False):
        """Wait until all is logged and printed; once `stopped()`, `PATIENCE` for each at most."""
        printer = self.printer
        for thread, queued, end in (
            (self.thread, self.events, None),
            (printer.thread, printer.texts, (None, "")),
        ):
            queued.put(end)
            last = False
            while thread.is_alive() and not last:
                last = stopped()
                thread.join(PATIENCE)

    def work(self):
        events = []
        while None not in events:
            events = [self.events.get()]
            while not self.events.empty() and len(events) < MOST_LINES:
                events.append(self.events.get())
            made = [event for event in events if event]
            lines = [
                log_line(what, self.url, stamp, due, words) for what, due, words, stamp in made
            ]
            if lines:
                self.log.write(lines)
            self.counts.update(what for what, _, _, _ in made)
            if lines:
                self.printer.texts.put((lines, ""))
                if self.all_reported():
                    self.when_done()

    def without_secrets(self, words):
        """Return curl's `words` without the password of the URL, should it be in them.

        A short one is looked for with its @ only: taken out of common words, it would be told.
        """
        for secret in self.secrets:
            secret, kept = (secret, "") if len(secret) > 3 else (secret + "@", "@")
            words = words.replace(secret, "***" + kept)
        return words

    def status_line(self):
        """Return the status: what is next, and how many calls are done, failed and to go."""
        next_due = self.next_due
        made = self.counts[CALLED]
        failed = sum(self.counts.values()) - made
        to_go = self.calls - made - failed
        text = "%d done, %d failed, %d to go" % (made, failed, to_go)
        if next_due is not None:
            left = max(0, math.ceil(next_due - self.timefunc()))
            wait = datetime.timedelta(seconds=left)
            text = "next %s, in %s | %s" % (local(int(next_due)), wait, text)
        elif to_go:
            text = "waiting for answers | " + text
        columns = shutil.get_terminal_size().columns or 80  # 0 where a terminal does not know
        return text[: columns - 1]


def is_terminal(stream):
    """Whether a line on `stream` can be redrawn."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def secrets_of(url):
    """Return the password in `url`, as written and decoded, in a list; empty if there is none."""
    match = re.match(r"[^:]+://[^/?#:]*:([^/?#]+)@", url)
    if not match:
        return []
    from urllib.parse import unquote  # here, because hardly anybody needs it

    return [match.group(1), unquote(match.group(1))]


# ----------------------------------------------------------------------------- main

EXAMPLES = """
times:
  HH:MM:SS              local time of day, at its next occurrence: today or tomorrow
  2026-08-01T14:30:00Z  ISO 8601 date-time; with +05:30 in that zone, with nothing local
  @times.txt            times from a file, one or more a line

examples:
  python api_scheduler.py "12:30:00, 14:15:30"
  python api_scheduler.py "09:00:00" -- -X POST --data @body.json

exit status:
  0 every call was made and succeeded; 1 a call failed or was missed, a time was skipped,
  or a line could not be logged; 2 nothing was started, the message says why;
  130 after Ctrl-C, 143 after SIGTERM, 129 when its terminal closes
"""

Settings = collections.namedtuple("Settings", "url log_file timeout grace curl_options")


def expand(argv, inside=()):
    """Return `argv` with the lines of ``FILE`` in the place of each ``@FILE``.

    That is argparse's fromfile_prefix_chars, but in UTF-8 on every system, with comments.
    Raises SetupError if a file cannot be read.
    """
    expanded = []
    for argument in argv:
        if not argument.startswith("@"):
            expanded.append(argument)
            continue
        name = argument[1:]
        if name in inside:
            raise SetupError("the file %s names itself with @" % name)
        try:
            with open(name, encoding="utf-8-sig") as file:
                lines = [line.strip() for line in file]
        except UnicodeError:
            raise SetupError("the file %s is not text in UTF-8" % name) from None
        except (OSError, ValueError) as error:
            raise SetupError("the file %s cannot be read: %s" % (name, reason_of(error))) from None
        lines = [line for line in lines if line and not line.startswith("#")]
        expanded += expand(lines, inside + (name,))
    return expanded


def parse_arguments(argv):
    """Return the parsed command line. Raises SystemExit as argparse does, and SetupError.

    What follows a bare ``--`` becomes `curl_options`, and argparse does not see it.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="api_scheduler.py",
        usage="%(prog)s [options] TIME[, TIME ...] [@FILE ...] [-- CURL_OPTION ...]",
        description="Call an API at given times of day, and log every call.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("times", nargs="*", metavar="TIME", help=argparse.SUPPRESS)
    parser.add_argument("--url", help="what to call (API_URL in config.py)")
    parser.add_argument("--log-file", metavar="FILE", help="where to log (LOG_FILE in config.py)")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, help="longest time for one call (TIMEOUT)"
    )
    parser.add_argument(
        "--today", action="store_true", help="skip times of day that have passed, not tomorrow"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and call nothing")
    parser.add_argument("--version", action="version", version="%(prog)s " + __version__)
    arguments, rest = parser.parse_known_args(expand(argv[:end]))
    for text in rest:  # argparse leaves times that stand behind an option
        if text.startswith("-"):
            parser.error("unrecognized argument: %s" % printable(text))
        arguments.times.append(text)
    if not arguments.times:
        parser.error('no times given; for example: %(prog)s "12:30:00, 14:15:30"' % vars(parser))
    arguments.curl_options = argv[end + 1 :]
    return arguments


def load_settings(url=None, log_file=None, timeout=None, curl_options=()):
    """Return the Settings: what is given here, and the rest from config.py beside this file.

    Raises SetupError, naming the setting, if one is missing or wrong.
    """
    path = os.path.join(HERE, "config.py")
    values = {"__name__": "config", "__file__": path}
    try:
        with open(path, "rb") as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own show the line, and a password in it
            exec(compile(source, path, "exec"), values)  # not imported: no stale bytecode
    except FileNotFoundError:
        pass  # then the options must say everything
    except SyntaxError as error:
        reason = "%s, line %s" % (error.msg, error.lineno)
        raise SetupError("%s cannot be read: %s" % (path, reason)) from None
    except (Exception, SystemExit) as error:
        raise SetupError("%s cannot be read: %s" % (path, reason_of(error))) from None
    if log_file is None:
        log_file = values.get("LOG_FILE", "")
        if not isinstance(log_file, (str, os.PathLike)):
            raise SetupError("LOG_FILE in config.py must be text")
        log_file = log_file and os.path.join(HERE, os.path.expanduser(os.fspath(log_file)))
    if not log_file:
        raise SetupError("the log file is missing: set LOG_FILE in config.py or give --log-file")
    try:
        log_file = os.path.abspath(log_file)
    except OSError:
        raise SetupError("the working directory is gone: give --log-file a full path") from None
    if isinstance(url, str):
        try:  # in the C locale Python 3.6 does not take the command line for UTF-8
            url = os.fsencode(url).decode("utf-8", "surrogateescape")
        except UnicodeError:
            pass  # `check_url` will refuse it
    options = values.get("CURL_OPTIONS", [])
    if not isinstance(options, (list, tuple)) or not all(
        isinstance(option, str) and "\0" not in option for option in options
    ):
        raise SetupError('CURL_OPTIONS in config.py must be a list of texts, as ["-X", "POST"]')
    return Settings(
        url=values.get("API_URL", "") if url is None else url,
        log_file=log_file,
        timeout=seconds("TIMEOUT", values.get("TIMEOUT", DEFAULT_TIMEOUT))
        if timeout is None
        else seconds("--timeout", timeout),
        grace=seconds("GRACE", values.get("GRACE", DEFAULT_GRACE)),
        curl_options=list(options) + list(curl_options),
    )


def seconds(name, value):
    """Return a setting that is a number of seconds. Raises SetupError if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.001 <= value < 1e9:
        raise SetupError("%s must be seconds, above 0 and below 1e9, not %r" % (name, value))
    return value


def how_many(count):
    return "1 call" if count == 1 else "%d calls" % count


def carry_out(groups, settings, log):
    """Make the calls of a plan; return the exit status. Raises SetupError before any waiting."""
    check_url(settings.url)
    reporter = Reporter(log, settings.url, sum(count for _, count in groups))
    scheduler = Scheduler(groups, settings, reporter)
    reporter.when_done = scheduler.wake
    restore = catch_signals(scheduler)
    try:
        scheduler.curl, curl_warnings = check_curl(settings.curl_options)
        for text in curl_warnings:
            warn("curl: " + text)
        try:
            reporter.start()
            scheduler.run()
        except RuntimeError as error:
            raise SetupError("the system has no room for a thread: %s" % error) from None
        reporter.close(scheduler.stopped)
    finally:
        restore()
        scheduler.close()
    if scheduler.signals:
        return 128 + scheduler.signals[0]
    return 0 if reporter.counts[CALLED] == reporter.calls else 1


def call_api(url=None, log_file=None, timeout=None, curl_options=()):
    """Call the API once, now; log and print its line. Return whether the call succeeded.

    What is not given is as in config.py. Raises SetupError, and KeyboardInterrupt after Ctrl-C.
    """
    settings = load_settings(url, log_file, timeout, curl_options)
    log = Log(settings.log_file)
    log.check()
    status = carry_out([(time.time(), 1)], settings, log)
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    return status == 0


def catch_signals(scheduler):
    """Let signals stop `scheduler`; return a function that undoes it.

    Those that whoever started this has set to be ignored (nohup, a shell's background job)
    stay ignored, but for SIGCHLD: with it the system would keep the exit codes of the curls
    from us. Outside the main thread Python allows none of this, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {}
    if not WINDOWS and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, lambda got, _: scheduler.signals.append(got))
    descriptor = -1 if WINDOWS else signal.set_wakeup_fd(scheduler.wake_writer)

    def restore():
        if not WINDOWS:
            signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            if handler is not None:  # it was not set from Python
                signal.signal(number, handler)

    return restore


def main(argv=None):
    """Do what the command line says; return the exit status (see ``--help``)."""
    now = time.time()  # first of all, so that a time typed for this second is still due now
    log = None
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else list(argv))
        settings = load_settings(
            arguments.url, arguments.log_file, arguments.timeout, arguments.curl_options
        )
        groups, skipped = plan(arguments.times, now, arguments.today)
        skipped = [skipped_words(text, reason) for text, reason in skipped]
        for words in skipped:
            warn(words)
        if not arguments.dry_run:
            file = Log(settings.log_file)
            file.check()
            log = file
            log.write([stamped(now, words) for words in skipped])
        if not groups:
            raise SetupError("nothing to do: none of the times is valid and still to come")
        if arguments.dry_run:
            check_url(settings.url)
            for text in check_curl(settings.curl_options)[1]:
                warn("curl: " + text)
            say(sys.stdout, "".join("%s  %s\n" % (local(due), how_many(n)) for due, n in groups))
            return 0
        if arguments.url and secrets_of(arguments.url):
            warn("other users can see a password given with --url: set API_URL in config.py")
        del arguments  # 100,000 times take much memory, and waiting is long
        status = carry_out(groups, settings, log)
        if log.unwritten:
            warn("%d lines could not be logged to %s" % (len(log.unwritten), log.path))
        return status or (1 if skipped or log.unwritten else 0)
    except SystemExit as end:  # argparse has said what there is to say
        return end.code or 0
    except SetupError as error:
        warn(str(error))
        if log:
            log.write([stamped(now, "Not started (%s)" % printable(str(error)))])
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # a mistake in this file; who runs it gets a line all the same
        line = error.__traceback__
        while line.tb_next:
            line = line.tb_next
        words = "internal error in line %d, please report it: %r" % (line.tb_lineno, error)
        warn(words)
        if log:
            log.write([stamped(now, printable(words))])
        return 1


def leave(status):
    """End the program, without the interpreter's own way of flushing standard output.

    That complains if its reader is gone, and waits for ever if it does not read.
    """
    flushing = threading.Thread(
        target=lambda: [say(stream, "") for stream in (sys.stdout, sys.stderr)], daemon=True
    )
    try:
        flushing.start()
        flushing.join(PATIENCE)
    finally:
        os._exit(status)


if __name__ == "__main__":
    leave(main())
