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

Who does what: one thread arms group after group, the main thread fires group after group,
and each call has a thread that owns it from its arming to its line in the log
(`Scheduler.make`). One more prints, because only standard output may block.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for Ctrl-C while this starts

import argparse
import collections
import contextlib
import datetime
import errno
import math
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings

try:
    import msvcrt  # Windows only
except ImportError:
    msvcrt = None
try:
    import pwd  # POSIX only, and so is the other
    import resource
except ImportError:
    pwd = resource = None

__version__ = "2.0.0"

HERE = os.path.dirname(os.path.realpath(__file__))
WINDOWS = os.name == "nt"

DEFAULT_TIMEOUT = 30  # seconds for one call
DEFAULT_GRACE = 60  # seconds after its time in which a call may still be started
MOST_NESTED = 100  # files of times that name one another

LONGEST_SLEEP = 1.0  # seconds; how soon a stepped clock or a resumed laptop is noticed
LAST_SLEEP = 0.02  # seconds; being awake so shortly before makes a single call 0.3 ms earlier
SWEEP = 0.1  # seconds between two looks at what is still to be ended after a signal
ASK_TIMEOUT = 10.0  # seconds for curl to read its options
KILL_AFTER = 5.0  # seconds past its timeout that a curl may live
RETRY_START = 0.1  # seconds until the next try when a curl could not be started

ARM_MARGIN = 2.0  # seconds between the end of arming and the due time
ARM_SECONDS_PER_CALL = 0.06 if WINDOWS else 0.02  # starting one curl; Linux takes 2 to 10 ms
ARM_EARLIEST = 60.0  # seconds before its time that a group is armed at the earliest
CURL_MEMORY = 2 * 1024 * 1024  # bytes; an armed curl holds about 1.4 MB of its own
ASSUMED_MEMORY = 2 * 1024 ** 3  # bytes; where the system does not tell
CURL_DESCRIPTORS = 2  # held here for each curl: its standard input and standard error
SPARE_DESCRIPTORS = 32  # for the log, the standard streams, and a curl that is being started
MOST_DESCRIPTORS = (65536, 10240)  # asked for in turn; macOS grants no more than the second

LONGEST_URL = 8000  # bytes; RFC 9110 section 4.1 asks for this much. Escaped it fits into one
# pipe buffer of any system, so that firing never blocks and is never cut in two.
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
STDERR_KEPT = 8192  # bytes of what a curl says; the reason for a failure is at the end
PATIENCE = 1.0  # seconds for the log, or for what reads standard output, after a signal
LOG_PATIENCE = 2.0  # seconds for whoever holds the log when the last lines are to be written
LOCKED_BYTE = 2 ** 31 - 2  # of the log, on Windows: far behind its end
LONGEST_REASON = 500  # characters of curl's words in a log line


class SetupError(Exception):
    """Something the user must mend before anything can be scheduled; its text says what."""


# ---------------------------------------------------------------------------- parse

TIME_OF_DAY = re.compile(r"([0-9]{1,2}):([0-9]{2}):([0-9]{2})")
DATE_TIME = re.compile(
    r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})"  # 2026-08-01 or 20260801
    r"[Tt ]([0-9]{2})(:?)([0-9]{2})(?:\6([0-9]{2})(?:\.([0-9]{1,6})[0-9]*)?)?"  # 14:30:00.5
    r"(?:([Zz])|([+-])([0-9]{2})(?::?([0-5][0-9]))?)?"  # Z, +05:30, +0530, +05
)
UNKNOWN_YEAR = "outside the years that this system's clock knows"


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
        raise ValueError(UNKNOWN_YEAR) from None


URL_LIKE = r".*://|(?:[a-zA-Z][^/\s]*|[^/\s]*\.[^/\s]*)/"  # and not 2026/11/22


def read_times(arguments):
    """Yield ``(text, time, reason)`` for each entry of comma-separated `arguments`.

    `time` is what `parse_time` returned, or None, and then `reason` says why. Empty
    entries (a trailing comma, an empty line of a file) are passed over.
    """
    for argument in arguments:
        for text in argument.split(","):
            text = text.strip().lstrip("\ufeff")  # a file saved on Windows may start with a mark
            if not text:
                continue
            try:
                yield text, parse_time(text), None
            except ValueError as error:
                if "@" in argument or re.match(URL_LIKE, text):  # what follows may be a password, too
                    yield re.match("[^:/?]*.?", text).group() + "...", None, "a URL is given with --url"
                    break
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
    counts as not yet passed. Raises ValueError, with a reason, if the time has passed, or
    lies outside the years that the system's clock knows.

    Local times in the gap of a clock change are read with the offset before it, and of two
    in the fold the first is meant (RFC 5545 section 3.3.5). That is how Python reads naive
    datetimes with fold=0 (PEP 495).
    """
    this_second = math.floor(now)
    try:
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
    except (OverflowError, OSError):
        raise ValueError(UNKNOWN_YEAR) from None


def plan(arguments, now, today=False, grace=0):
    """Return what to do for `arguments`: ``(groups, skipped, tomorrow)``.

    `groups` is a list of ``(due, calls)``, seconds since the epoch and a count, in order of
    time; `skipped` is a list of ``(text, reason)``. `tomorrow` is a dict from each time of
    day that passed less than `grace` seconds ago to the instant at which it is due now.
    """
    dues, skipped, tomorrow = [], [], {}
    for text, when, reason in read_times(arguments):
        try:
            if when is None:
                raise ValueError(reason)
            due = due_time(when, now, today)
        except ValueError as error:
            skipped.append((text, str(error)))
            continue
        dues.append(due)
        if isinstance(when, datetime.time) and due - now > 12 * 3600:
            if due_time(when, now - grace) < math.floor(now):
                tomorrow[text] = due
    groups = [(due, len(calls)) for due, calls in sorted(group_by_time(dues).items())]
    return groups, skipped, tomorrow


def group_by_time(times):
    """Return a dict from each time in `times` to the list of those identical to it."""
    groups = {}
    for when in times:
        groups.setdefault(when, []).append(when)
    return groups


def arming_times(groups, start=0.0, each=ARM_SECONDS_PER_CALL):
    """Return when to begin arming each of `groups`, in seconds since the epoch.

    `start` is how long a curl takes to start, `each` how long arming one takes while others
    start beside it, in seconds. Groups are armed one after another, so an early one must make
    room for a large one behind it: the times are worked out from the last to the first.
    """
    times = []
    room = math.inf  # when the group behind begins
    for due, calls in reversed(groups):
        room = min(due - ARM_MARGIN - start, room) - calls * each
        room = max(room, due - ARM_EARLIEST - start)
        times.append(room)
    times.reverse()
    return times


def too_many(groups, start, each, most):
    """Return of the first group that will be late by arming ``(due, calls, how many will be ready)``.

    None if there is no such group. `start` and `each` are as for `arming_times`; more than
    `most` curls cannot be up at once.
    """
    busy = -math.inf  # until when the groups before are being armed
    for (due, calls), begin in zip(groups, arming_times(groups, start, each)):
        begin = max(busy, begin)
        busy = begin + calls * each
        if calls > most or busy > due:
            return due, calls, min(most, max(0, int((due - begin) / each)))
    return None


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
        delayfunc(min(left if left <= 2 * LAST_SLEEP else left - LAST_SLEEP, LONGEST_SLEEP))
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
    valid = re.fullmatch(r"(?:\[[^\]]+\]|[^:\[\]]+)(?::([0-9]*))?", host)
    port = valid and valid.group(1)
    behind = port and not at_sign and "@" in url  # me:12/34@host
    if not valid or "@" in userinfo or behind or int(port or 0) > 65535:
        raise SetupError(
            "the URL has no valid host and port, or an @ behind them: in a user name or "
            "password write / ? # @ percent-encoded, as %2F %3F %23 %40"
        )


def without_password(url):
    """Return `url` with the password in it, if there is one, replaced by ``***``."""
    return re.sub(r"^([^:]+://[^:/?#]*:)[^/?#]*(?=@)", r"\1***", url)


def curl_config(url):
    """Return the bytes that fire an armed curl: one line of its configuration file.

    In double quotes curl reads backslash escapes (curl's manual, "--config"), so the quote
    and the backslash are escaped. `check_url` has refused everything that ends a line.
    """
    quoted = url.replace("\\", "\\\\").replace('"', '\\"')
    return ('url = "%s"\n' % quoted).encode("utf-8")


def curl_command(curl, timeout, curl_options, trust=(), silent="--silent"):
    """Return the command line of an armed curl: our defaults, then the user's options.

    --globoff, because one call is one request: curl would expand ``[1-9]`` in a URL.
    """
    fail = [] if any(option.startswith("--fail-w") for option in curl_options) else ["--fail"]
    defaults = [silent, "--show-error", "--location", "--globoff"] + fail
    only_http = ["--proto", "=http,https", "--proto-redir", "=http,https"]
    limit = ["--max-time", "%.3f" % timeout]
    return [curl] + defaults + only_http + limit + list(trust) + list(curl_options) + [READ_CONFIG]


READ_CONFIG = "-K-"  # in one piece, so that an option that lacks its value takes no half of it
UNUSED = "dict gopher tftp telnet mqtt rtsp pop3 imap smtp ftp file https".split()
INSTALL = {
    "win32": "it comes with Windows 10 and later, or: winget install cURL.cURL",
    "darwin": "it comes with macOS in /usr/bin, or: brew install curl",
    "linux": "Debian, Ubuntu: apt install curl; Fedora: dnf install curl; Alpine: apk add curl",
}

Asked = collections.namedtuple("Asked", "curl version files lines start each")


def check_curl(settings):
    """Return what curl says of the user's options, an Asked; print what it warns of.

    `curl` is its path, `version` the text of ``curl --version``, `files` the paths of the
    configuration files that it reads, `lines` all options, theirs too, `start` and `each` as
    `arming_times` takes them. Raises SetupError if curl is not there, refuses an option, cannot read a file
    that one names, or was given a URL of its own, which an armed curl would call even when
    it is not fired.

    Curl is asked by running it as it will be armed, but with no URL, no protocol to speak
    that anybody would call, and no proxy that answers. Its configuration sends what it says
    to standard output: if that stays empty, an option took the standard input away.
    """
    curl = find_curl()
    version = run_curl([curl, "-q", "--version"])[1]  # else it would read a curlrc, and do its --stderr
    files, lines = all_options(curl, settings.curl_options)
    refuse_what_cannot_work(lines)
    known = version.partition("Protocols:")[2].partition("\n")[0].split()
    nobodys = ["=" + name for name in UNUSED if name in known and name not in lines.lower()]
    end = ["--proto", (nobodys + ["-all"])[0]]
    # One word for one, as it may be the value of the option before: -H -s http://another/
    heard = ["-S" if option in ("-s", "-sS", "--silent") else option for option in settings.curl_options]
    command = curl_command(curl, settings.timeout, heard, silent="--no-silent")
    url = run_curl([curl, "-q", "--globoff"] + end + [READ_CONFIG], curl_config(settings.url))
    if url[0] == 3:
        words = without_secrets(curl_words(url[2]), settings.url)
        raise SetupError("the URL is malformed: %s" % words)
    began = time.monotonic()
    asked = run_curl(command + end, b'stderr = "-"\n')
    start = time.monotonic() - began
    if heard and not asked[1]:  # perhaps the last option took ours for its value
        again = run_curl(command + [READ_CONFIG] + end, b'stderr = "-"\n')
        if "no URL specified" in again[1] or READ_CONFIG in asked[2]:
            raise SetupError("the last of the curl options, %s, lacks its value" % heard[-1])
    said = re.sub(r"\r?\nWarning: (?![A-Z])", "", asked[2])  # curl 7 breaks them, whatever COLUMNS says
    refuse_what_curl_refuses(*asked[:2], said)
    for line in filter(None, said.splitlines()):
        warn("curl: " + without_secrets(without_values(line)))
    each = max(ARM_SECONDS_PER_CALL, start / (os.cpu_count() or 1))  # each processor starts one
    return Asked(curl, version, files, lines, start, each)


def refuse_what_curl_refuses(code, out, err):
    """Raise SetupError unless curl, asked as above, only lacked a URL."""
    if code == 0:
        raise SetupError("with the curl options given, curl prints something and calls nothing")
    if (code == 1 or "curl: (1)" in out) and "curl: option" not in out + err:
        raise SetupError(
            "the curl options (or a .curlrc) hold a URL of their own: it is given with --url"
        )
    if "password for user" in out + err:
        raise SetupError("curl would ask for a password: give it as -u NAME:PASSWORD")
    unread = re.search(r"(?i)(?:warning|curl): ((couldn't read|failed to (open|read)|error trying read).*)", err)
    if unread and "no URL specified" in out:  # else curl refuses it by itself
        raise SetupError("curl cannot read a file that its options name: %s" % unread.group(1))
    if code == 2 and "no URL specified" in out:  # else a --write-out says so
        return
    if "no URL specified" in err:
        raise SetupError(
            "a curl option reads standard input, which is not there for it: name a file"
        )
    lines = [line for line in (err + out).splitlines() if line.strip() and "--help" not in line]
    named = [line for line in lines if line.startswith("curl:")] or lines
    words = without_secrets(" ".join(map(without_values, named))) or "exit code %d" % code
    raise SetupError("curl refuses its options: %s" % words)


def without_values(line):
    """Return a line of what curl says of options without a value that it repeats: a password, perhaps."""
    line = re.sub(r"(The argument ').*(' starts)", r"\1***\2", line)  # a quote of a web page
    return re.sub(r"(option |')(-[^\s=:']*[=:])(?!\s).*(?=' |: )", r"\1\2***", line)  # --user=me:secret


def find_curl():
    """Return the path of curl. Raises SetupError if none of the folders in PATH has it.

    Not by shutil.which, which on Windows prefers a curl in the current folder.
    """
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, "curl.exe" if WINDOWS else "curl")
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise SetupError(
        "curl was not found in PATH (%s): install it (%s)"
        % (os.environ.get("PATH", ""), INSTALL.get(sys.platform, "package curl"))
    )


def run_curl(command, config=b""):
    """Run curl with `config` as its standard input; return exit code, standard output, error.

    Raises SetupError if it cannot be started, or does not come back.
    """
    environ = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environ["COLUMNS"] = "5000"  # else curl breaks its warnings into lines
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with socket.socket() as nobody:  # a proxy that refuses all connections
        nobody.bind(("127.0.0.1", 0))
        environ["all_proxy"] = "http://127.0.0.1:%d" % nobody.getsockname()[1]
        try:
            curl = subprocess.Popen(command, env=environ, **pipes, **OWN_SESSION)
            try:
                out, err = curl.communicate(config, ASK_TIMEOUT)
            finally:
                if curl.returncode is None:
                    kill_group(curl)
                    curl.communicate()
        except subprocess.TimeoutExpired:
            raise SetupError("curl does not come back from reading its options") from None
        except (OSError, ValueError) as error:
            words = "curl could not be started (%s): %s" % (command[0], reason_of(error))
            raise SetupError(words) from None
    return curl.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


# What these find among all options, one on a line without blanks around it. Curl 7 takes long
# ones in capitals too, and most curls take them cut short.
FLAGS = r"-[^-\sAbcCdDeEFHhKmoPQrtTuUwxXyYz]*"  # short options without a value, behind which another may stand
NAMES_CONFIG = re.compile(r"(?s)(?:-[^-\sK]*K|(?i:--(?:expand-)?conf[^\s=]*))(=?(.*))")
NAMES_DATA = re.compile(r"(?m)^(?:-[^-\s]*d|(?i:--(?:da|json)[^\s=@]*))?[\s=:\"]*@([^\"\n]+)")
SETS_LIMITS = re.compile(r"(?m)^(?:%sm|(?i:--(?:max-t|retr)))" % FLAGS)
STDIN = r'(?:^(?:--?[\w-]+[\s=:]*"?)?|[@<]"?)(?:/dev/stdin|/dev/fd/0|/proc/self/fd/0)(?=[\s";,]|$)'
CANNOT_WORK = (  # and what to say
    (
        r"^(?:--$|(?i:--nex)|%s:)" % FLAGS,
        "among the curl options, -- and --next cannot be used: a call has one URL",
    ),
    (
        r"^(?i:--url)(?![\w-])",
        "the curl options hold a URL of their own: it is given with --url before the --",
    ),
    (r"^(?i:--no-gl)", "curl's --no-globoff would make several calls of one: leave it out"),
    (r"^(?i:--skip)", "with curl's --skip-existing a call may not be made: leave it out"),
    (
        r"^(?:%sZ|(?i:--parallel)(?![\w-]))" % FLAGS,
        "with curl's --parallel a failure may look like a success: leave it out",
    ),
    (r"^(?i:--(?:expand-)?std)", "curl's --stderr would keep from the log why a call failed: leave it out"),
    (
        r'^(?:-[^-\s]*[TbK]|(?i:--(?:expand-)?(?:up[\w-]*|cookie|conf\w*)))[\s=:]*"?\\?[-.](?:["\s]|$)|' + STDIN,
        "a curl option reads standard input, which is not there for it: name a file",
    ),
    (r"^(?i:--(?:expand-)?libc)", "curl's --libcurl would write its file when curl is only asked: leave it out"),
    (r"^(?i:--expand-(?:conf|url(?![\w-])))", "curl's --expand-config and --expand-url cannot be used: what they "
     "name is not known before the call"),
)  # fmt: skip


def all_options(curl, curl_options):
    """Return the configuration files that curl will read, and all options as text, one a line.

    The files are a curlrc, in whichever place curl looks for it (curl's manual, "--config"),
    and those that the options name. Raises SetupError for a file with a URL, or that names
    another file: what stands behind ``next`` there would really be called when curl is asked.
    """
    homes = ("CURL_HOME", "XDG_CONFIG_HOME", "HOME", "USERPROFILE", "APPDATA")
    homes = [os.environ.get(name) for name in homes] + [os.path.dirname(curl)]
    homes += [os.path.expanduser("~"), os.path.expanduser("~/.config")]
    if pwd:  # curl looks there too if HOME names another folder, which has none
        with contextlib.suppress(KeyError):
            homes.append(pwd.getpwuid(os.geteuid()).pw_dir)
    names = (".curlrc", "_curlrc", "curlrc")
    paths = [os.path.join(home, name) for home in homes if home for name in names]
    for option, behind in zip(curl_options, curl_options[1:] + [""]):
        match = NAMES_CONFIG.match(option)
        if match:  # which of the three depends on the option and on curl
            paths += [match.group(1), match.group(2), behind]
    files = [path for path in paths if os.path.isfile(path)]
    lines = [option.replace("\n", " ").strip() for option in curl_options]
    for path in files:
        with contextlib.suppress(OSError):  # curl will say so
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                text = "\n".join(filter(None, map(str.strip, file)))
            if "\0" in text:  # curl 7 goes on in the next line behind it
                raise SetupError("%s is not a text file" % path)
            text = re.sub(r"(?m)^(?=\w)", "--", text)  # there they may lack the dashes
            if re.search(r"(?im)^--(?:expand-)?url?(?![\w-])", text):
                raise SetupError("%s holds a URL of its own: it is given with --url" % path)
            if re.search(r"(?m)^(?:-[^-\sK]*K|(?i:--(?:expand-)?conf))", text):
                raise SetupError("%s names another file for curl: give it with -K" % path)
            lines.append(text)
    return files, "\n".join(lines)


def refuse_what_cannot_work(lines):
    """Raise SetupError for options that add a call, or take away a pipe to or from the curl.

    Only for those that curl cannot be asked about.
    """
    for pattern, words in CANNOT_WORK:
        if re.search("(?m)" + pattern, lines):
            raise SetupError(words)
    for path in filter(os.path.isdir, NAMES_DATA.findall(lines)):
        raise SetupError("curl cannot read %s, which its options name: it is a folder" % path)


CHOOSES_TRUST = re.compile(
    r"-[^-]*[kKq].*"  # long ones may be cut short
    r"|(?i:--(?:expand-)?(?:ca|ins|no-ins|conf|dis|crl|ssl|tls|curv|ciph|eng|proxy-)).*"
)
SYSTEM_FOLDERS = ("/usr/bin", "/bin")  # a curl from elsewhere may bring its own authorities


def fast_trust(asked, url, curl_options, environ=os.environ, trust=None):
    """Return curl options that look up the CA of a server without changing who is trusted.

    A curl linked to OpenSSL parses the whole CA bundle for every HTTPS call, about 100 ms
    of processor time. The same certificates often lie in a hashed directory, where OpenSSL
    finds the one it needs by name (OpenSSL's manual, "X509_LOOKUP_hash_dir"). Naming one
    small certificate of it as the bundle keeps curl from reading the large one.

    An empty list, which leaves all to curl, unless all of this holds: HTTPS, an OpenSSL
    curl of the system's, no choice of trust by options or a curlrc, and a directory with
    exactly the certificates of the bundle, and of what the environment names in its place.
    `trust` is a pair of paths, the bundle and the directory; OpenSSL's own if None.
    """
    system = os.path.dirname(os.path.realpath(asked.curl)) in SYSTEM_FOLDERS
    openssl = re.search(r"\sOpenSSL/", asked.version)  # one in brackets is built in, but not used
    chosen = asked.files or any(map(CHOOSES_TRUST.fullmatch, curl_options))
    if not url.lower().startswith("https:") or not system or not openssl or chosen:
        return []
    try:
        if trust is None:
            import ssl  # here, because it would double what waiting holds in memory

            paths = ssl.get_default_verify_paths()
            trust = paths.openssl_cafile, paths.openssl_capath
        bundle, directory = trust
        bundles = [bundle] + list(filter(None, map(environ.get, ("CURL_CA_BUNDLE", "SSL_CERT_FILE"))))
        hashed = {}
        for name in os.listdir(directory):
            if re.fullmatch(r"[0-9a-f]{8}\.[0-9]+", name):
                path = os.path.join(directory, name)
                hashed.setdefault(certificates(path), path)
        hashed.pop(frozenset(), None)
        same_directory = os.path.samefile(directory, environ.get("SSL_CERT_DIR") or directory)
        if not same_directory or {frozenset().union(*hashed)} != set(map(certificates, bundles)):
            return []
        return ["--capath", directory, "--cacert", min(hashed.values(), key=os.path.getsize)]
    except (OSError, ImportError, ValueError):  # the last: there is no certificate at all
        return []


def certificates(path):
    """Return the certificates in a PEM file, a frozenset of the bytes of their base64 texts."""
    with open(path, "rb") as file:
        found = re.findall(rb"-----BEGIN[^-]*CERTIFICATE-----([^-]+)-----END", file.read())
    return frozenset(b"".join(text.split()) for text in found)


if WINDOWS:  # named in subprocess from 3.7 on only: CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS
    OWN_SESSION = {"creationflags": 0x00000200 | 0x00000008}
else:
    OWN_SESSION = {"start_new_session": True}  # the terminal's Ctrl-C is not for the curls


def kill_group(process):
    """Kill what was started with `OWN_SESSION`: if it is a wrapper script, its curl too."""
    with contextlib.suppress(OSError):  # it has ended by itself
        if WINDOWS:
            process.kill()
        elif process.returncode is None:  # else its id may belong to another by now
            os.killpg(process.pid, signal.SIGKILL)


class Gate:
    """Keeps the curls of a large group from ending while others of it have yet to send.

    Ending a curl costs more processor time than sending its request does, and those that
    end compete with those that wait to be served. So the standard output of the whole group
    is one pipe, filled to the brim: a curl with its answer in hand waits there to write it
    until the gate opens. From then on whatever they write is read and dropped. On two
    processors the last of 1000 requests arrived after 0.1 s with it, 0.3 to 0.4 s without.

    A gate without a share is open from the start, and only drops. Windows needs one for every
    curl, as curl takes NUL there for a terminal, and refuses to write an image to it.
    """

    # The gate stays shut for this share of the time that arming took, which makes it longer on
    # a slow machine: sending takes a tenth of it, and with TLS, for the handshake, a third.
    HOLD = {"http": 1 / 8, "https": 1 / 2}
    LONGEST_HOLD = 1 / 4  # of a call's timeout, which runs on for a curl that is held

    def __init__(self, share=0):
        """Raises OSError or RuntimeError if there is no room for a pipe or a thread."""
        self.share = share
        self.began = self.last_armed = time.monotonic()
        self.hold = 0.0
        self.opened = threading.Event()
        self.reader, self.writer = os.pipe()
        try:
            if share:
                os.set_blocking(self.writer, False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(self.writer, bytes(4096))
                os.set_blocking(self.writer, True)  # the curls share this setting
            else:
                self.opened.set()
            start_thread(self.drain)
        except (OSError, RuntimeError):
            os.close(self.reader)
            os.close(self.writer)
            raise

    def open(self, longest):
        """Let the curls through once about all of them must have sent, in `longest` seconds at most.

        Waiting for a place, after the last was armed, does not count as arming.
        """
        self.hold = min((self.last_armed - self.began) * self.share, longest)
        self.opened.set()

    def drain(self):
        self.opened.wait()
        time.sleep(self.hold)
        while os.read(self.reader, 65536):
            pass
        os.close(self.reader)


class Curl:
    """A curl that waits for its URL. Whether it was given it is all its state: `fired_at`.

    `fire` and `kill` come from other threads than `end`; `Scheduler.lock` is held for them.
    """

    def __init__(self, command, stdout, due):
        """Raises OSError if the system has no room for it, or no curl."""
        self.due = due
        self.fired_at = None  # seconds since the epoch
        self.kill_at = math.inf  # by time.monotonic()
        self.killed = None  # why, if it was killed after it was fired
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            **OWN_SESSION
        )

    def fire(self, config, now, kill_at):
        """Give it its URL, unless it has it already, or has ended: then it has called nothing."""
        if self.fired_at is None and not self.process.stdin.closed:
            self.fired_at, self.kill_at = now, kill_at  # first: an exception may come behind it
            try:
                self.process.stdin.write(config)
            except OSError:
                self.fired_at = None
            self.close()

    def kill(self, why=None):
        kill_group(self.process)
        self.killed = self.killed or why

    def close(self):
        with contextlib.suppress(OSError):  # it has ended by itself
            self.process.stdin.close()

    def end(self):
        """Wait for its end. Return its exit code and the end of what it said."""
        said = b""
        for chunk in iter(lambda: os.read(self.process.stderr.fileno(), 65536), b""):
            said = (said + chunk)[-STDERR_KEPT:]
        code = self.process.wait()
        self.process.stderr.close()
        return code, said.decode("utf-8", "replace")


class Scheduler:
    """Makes the calls of a plan and has each reported, exactly once.

    The thread that runs it waits and fires, and does nothing that could keep it from being
    on time. A second thread arms, and each call has a thread that owns it (`make`). The
    first two go over the same plan, side by side. `timefunc` is the wall clock.
    """

    def __init__(self, groups, settings, reporter, places, timefunc=time.time):
        """`places` is how many curls may be up at once."""
        self.groups = groups
        self.settings = settings
        self.reporter = reporter
        self.timefunc = timefunc
        self.asked = None  # what check_curl returned
        self.command = None  # of an armed curl
        self.trust = []  # its options for HTTPS
        self.config = b""  # what fires a curl
        self.kill_after = math.inf  # seconds
        self.sink = subprocess.DEVNULL  # where curls write that have no gate
        self.lock = threading.Lock()  # guards what follows
        self.up = set()  # the curls that are armed or in flight
        self.begun = -math.inf  # the due time of the last group whose time has come
        self.gates = {}  # by due time, of groups that have not begun
        self.places = threading.Semaphore(places)
        self.signals = []  # those received, in order
        self.stopping = threading.Event()  # the same, for the thread that arms
        self.alarm, self.bell = socket.socketpair()  # a signal or a `wake` ends a `nap`
        self.bell.setblocking(False)  # signal.set_wakeup_fd wants it so

    def close(self):
        self.alarm.close()
        self.bell.close()

    @contextlib.contextmanager
    def caught_signals(self):
        """Let signals stop it, for as long as this lasts.

        Those that whoever started this has set to be ignored (nohup, a shell's background job)
        stay ignored, but for SIGCHLD: with it the system would keep the exit codes of the curls
        from us. Outside the main thread Python allows none of this, and nothing is done.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        stop = {name: lambda got, _: self.signals.append(got) for name in STOP_SIGNALS}
        handlers = dict(stop, SIGCHLD=signal.SIG_DFL)
        before = {}
        for name, handler in handlers.items():
            number = getattr(signal, name, None)
            ignored = number is not None and signal.getsignal(number) == signal.SIG_IGN
            if number is not None and ignored == (name == "SIGCHLD"):
                before[number] = signal.signal(number, handler)
        descriptor = signal.set_wakeup_fd(self.bell.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                if handler is not None:  # it was not set from Python
                    signal.signal(number, handler)

    def run(self, asked):
        """Make every call of the plan, or after a signal cancel those not yet made.

        `asked` is what `check_curl` returned. Raises RuntimeError if there is no room for a
        thread. After any exception nothing goes on behind the caller's back.
        """
        self.asked = asked
        self.config = curl_config(self.settings.url)
        if not SETS_LIMITS.search(asked.lines):  # else curl alone is in charge of them
            self.kill_after = self.settings.timeout + KILL_AFTER
        sink = Gate() if WINDOWS else None
        try:
            if sink:
                self.sink = sink.writer
            start_thread(self.arm_groups, arming_times(self.groups, asked.start, asked.each))
            for due, _ in self.groups:
                self.reporter.next_due = due
                if not wait_until(due, self.timefunc, self.nap, self.stopped):
                    break
                self.fire_group(due)
            self.finish()
        except BaseException:  # raised by a signal handler of a program that calls us, say
            self.signals += [0, 0, 0]
            self.finish()
            raise
        finally:
            if sink:
                os.close(sink.writer)

    def finish(self):
        """Wait until every call is reported; after a signal, see to it that they end."""
        self.reporter.next_due = None
        give_up = math.inf
        while not self.reporter.all_reported() and time.monotonic() < give_up:
            if self.stopped() and not self.stopping.is_set():
                self.stop()
            if len(self.signals) > 2:  # somebody insists; all that is left is to log
                give_up = min(give_up, time.monotonic() + PATIENCE)
            self.nap(SWEEP if self.stopped() else LONGEST_SLEEP)

    def stop(self):
        self.stopping.set()
        self.places.release()  # the arming thread may wait for one, and shall see it
        with self.lock:
            for gate in self.gates.values():
                gate.open(0)
            in_flight = sum(curl.fired_at is not None for curl in self.up)
        if in_flight:
            self.reporter.warn(
                "stopping once %s in flight ended; a second signal ends them" % how_many(in_flight)
            )

    def stopped(self):
        return bool(self.signals)

    def nap(self, seconds):
        """Sleep, at most until `wake` or a signal; if it is long, see first to what is up."""
        if seconds <= 2 * LAST_SLEEP:
            time.sleep(seconds)  # exact, where waiting for a socket counts in milliseconds
            return
        self.sweep()
        self.reporter.tick()
        self.alarm.settimeout(seconds)
        with contextlib.suppress(OSError):  # nothing came
            self.alarm.recv(4096)

    def wake(self):
        """End the main thread's `nap`."""
        with contextlib.suppress(OSError):  # it is full, so it will wake; or all is over
            self.bell.send(b"!")

    def sweep(self):
        """Kill what waits once stopped, what is in flight after a second signal or too long."""
        now = time.monotonic()
        with self.lock:
            for curl in self.up:
                if curl.fired_at is None:
                    if self.stopped():
                        curl.kill()
                elif len(self.signals) > 1:
                    curl.kill("ended by a second signal")
                elif now >= curl.kill_at:
                    curl.kill("killed, no end after %g s" % self.kill_after)

    def fire_group(self, due):
        """Fire all calls of a group that are armed; those that come late fire themselves.

        In one loop, because a thread for each that wakes at the due time would compete for
        the interpreter and the processors with the curls.
        """
        with self.lock:
            self.begun = due
            curls = [curl for curl in self.up if curl.due == due]
            gate = self.gates.pop(due, None)
        try:
            for curl in curls:
                self.fire(curl, self.nap)
        finally:
            if gate:
                gate.open(self.settings.timeout * Gate.LONGEST_HOLD)

    def fire(self, curl, delayfunc):
        """Fire one curl as soon as it is due. If that is too late, or stopped, end it instead."""
        waited = wait_until(curl.due, self.timefunc, delayfunc, self.stopped)
        with self.lock:
            now = self.timefunc()
            if waited and now - curl.due <= self.settings.grace:
                curl.fire(self.config, now, time.monotonic() + self.kill_after)
            elif curl.fired_at is None:
                curl.kill()

    def arm_groups(self, times):
        """The thread that arms: start a curl for one call after another, each group at its time."""
        cancelled = []
        for (due, calls), arm_at in zip(self.groups, times):
            wait_until(arm_at, self.timefunc, self.stopping.wait, self.stopped)
            gate = self.gate(due, calls)
            for begun in range(calls):
                self.places.acquire()
                if self.stopped():
                    self.places.release()
                    cancelled += [(CANCELLED, due, "", None)] * (calls - begun)
                    break
                armed = self.arm(due, gate.writer if gate else self.sink)
                if gate:
                    gate.last_armed = time.monotonic()
                try:
                    start_thread(self.make, due, *armed)
                except RuntimeError:  # no room for a thread, so none for another call either
                    self.make(due, *armed)
            if gate:
                os.close(gate.writer)  # the last of its curls to end ends `drain`
        if cancelled:
            self.report(cancelled)

    def gate(self, due, calls):
        """Return a gate for a group, or None if it is too small for one, late, or on Windows."""
        if WINDOWS or calls <= (os.cpu_count() or 1):
            return None
        with self.lock:
            if self.stopped() or due <= self.begun:
                return None
            with contextlib.suppress(OSError, RuntimeError):  # it is a help, not a need
                self.gates[due] = Gate(Gate.HOLD[self.settings.url.partition(":")[0].lower()])
            return self.gates.get(due)

    def make(self, due, curl, why_not):
        """Make one call, from its arming to its line in the log: all that its thread does."""
        try:
            outcome = self.outcome(due, curl, why_not)
        except Exception as error:  # whatever it is, the call gets its line
            outcome = FAILED, due, "internal error, please report it: %r" % error, None
        self.places.release()
        self.report([outcome])

    def outcome(self, due, curl, why_not):
        """Return what became of a call, as `Reporter.report` takes it, once it is over.

        `curl` and `why_not` are what `arm` returned. A curl that ends before it is fired has
        called nothing, and another is armed: once if it ended by itself, and as often as it
        takes if something killed it (the system short of memory, or we, because it shall not
        be fired any more).
        """
        tries = 2
        while curl:
            if due <= self.begun:  # it came late
                self.fire(curl, time.sleep)
            code, said = curl.end()
            with self.lock:
                self.up.remove(curl)
                curl.close()
            tries -= code >= 0
            words = without_secrets(curl_words(said), self.settings.url)
            words = "exit code %d: %s" % (code, curl.killed or words)
            if curl.fired_at is not None:
                return (FAILED if code else CALLED), due, words if code else "", curl.fired_at
            if not tries and not self.stopped():
                return FAILED, due, "not called, curl ended before its time with " + words, None
            if code < 0:
                time.sleep(RETRY_START)
            curl, why_not = self.arm(due, self.sink)
        return why_not

    def arm(self, due, stdout):
        """Start a curl; return it, or None and an outcome if its time runs out, or stopped.

        When processes, memory or descriptors run out, or curl itself is just being replaced
        by a newer one, it is tried again until there is room.
        """
        trouble = ""
        while not self.stopped() and self.timefunc() - due <= self.settings.grace:
            try:
                curl = Curl(self.make_command(), stdout, due)
                with self.lock:
                    self.up.add(curl)
                return curl, None
            except Exception as error:
                trouble = "curl could not be started: %s" % reason_of(error)
                time.sleep(RETRY_START)
        return None, (CANCELLED if self.stopped() else MISSED, due, trouble, None)

    def make_command(self):
        """Make the command line, again if a certificate that it names has been removed."""
        if self.command is None or not all(map(os.path.exists, self.trust[1::2])):
            url, options = self.settings.url, self.settings.curl_options
            self.trust = fast_trust(self.asked, url, options)
            self.command = curl_command(self.asked.curl, self.settings.timeout, options, self.trust)
        return self.command

    def report(self, outcomes):
        if self.reporter.report(outcomes):
            self.wake()


def start_thread(target, *args):
    """Start a thread that does not keep the program alive. Raises RuntimeError."""
    threading.Thread(target=target, args=args, daemon=True).start()


@contextlib.contextmanager
def places(calls):
    """Give how many curls may be up at once on this machine, at least 1.

    Half of its memory is theirs, and the descriptors. If these are too few for that many
    `calls`, the soft limit is raised to the hard one for as long as this lasts.
    """
    most = memory() // 2 // CURL_MEMORY
    if resource:
        soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in MOST_DESCRIPTORS:
            wanted = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
            enough = CURL_DESCRIPTORS * calls + SPARE_DESCRIPTORS
            if soft != resource.RLIM_INFINITY and soft < min(wanted, enough):
                with contextlib.suppress(ValueError, OSError):
                    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                    soft = wanted
        if soft != resource.RLIM_INFINITY:
            most = min(most, (soft - SPARE_DESCRIPTORS) // CURL_DESCRIPTORS)
    try:
        yield max(1, most)
    finally:
        if resource:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def memory(groups="/proc/self/cgroup", mounted="/sys/fs/cgroup"):
    """Return the memory that this program may use, in bytes.

    The control group that it is in may have a limit, and so may each that this one lies in
    (Linux's manual, cgroups(7)). `groups` is where it is named, `mounted` where they lie.
    """
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        limits = [ASSUMED_MEMORY]
    with contextlib.suppress(OSError, ValueError), open(groups) as file:
        for line in file:
            _, controllers, group = line.strip().split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            version = ("memory/", "memory.limit_in_bytes") if controllers else ("", "memory.max")
            parts = group.strip("/").split("/")
            for depth in range(len(parts) + 1):
                path = os.path.join(mounted, version[0], *parts[:depth], version[1])
                with contextlib.suppress(OSError, ValueError), open(path) as limit:
                    limits.append(int(limit.read()))  # not there, or "max"
    return min(limits)


# ------------------------------------------------------------------------------ log

CALLED, FAILED = "Successfully called", "Failed to call"
MISSED, CANCELLED = "Missed call to", "Cancelled call to"


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


def without_secrets(words, url=""):
    """Return `words` from outside without what may be a password.

    That is the one in `url`, and whatever stands before an @. A short one is not looked for
    by itself: taken out of common words, it would be told.
    """
    password = re.match(r"[^:]+://[^/?#:]*:([^/?#]{4,})@", url)
    if password:
        from urllib.parse import unquote  # here, because hardly anybody needs it

        for secret in (password.group(1), unquote(password.group(1))):
            words = words.replace(secret, "***")
    before, at, behind = words.rpartition("@")  # `behind` would be searched again from each of its characters
    return re.sub(r"\S*//.*@|'[^']*@|\S+@", "***@", before + at) + behind


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
    return "Skipped '%s' (%s)" % (printable(without_secrets(text)[:80]), reason)


def how_many(count, what="call"):
    return "1 " + what if count == 1 else "%d %ss" % (count, what)


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


def warn(text):
    say(sys.stderr, "api_scheduler: %s\n" % printable(text))


class Log:
    """Appends lines to a file, which is opened anew each time: it may be rotated meanwhile.

    Each write is one append, so that several programs can share the file and no line is
    torn. Lines that could not be written are kept, and written before the next ones.
    """

    FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for name in ("O_NONBLOCK", "O_BINARY", "O_NOINHERIT"):  # POSIX has the first, Windows the others
        FLAGS |= getattr(os, name, 0)

    def __init__(self, path):
        self.path = path
        self.unwritten = []
        self.torn = None  # (device, inode) of the file in which the last write stopped in a line
        self.warn = warn
        self.warned = False

    def check(self, only_look=False):
        """Raise SetupError if the file cannot be opened. Unless `only_look`, it is there afterwards."""
        try:
            if only_look and not os.path.exists(self.path):
                folder = os.path.join(os.path.dirname(self.path), "")
                if os.stat(folder) and not os.access(folder, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            else:
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
                self.lock(file)
                while self.unwritten:
                    self.append(file)
                self.lock(file, False)
            finally:
                os.close(file)
        except OSError as error:
            if not self.warned:
                self.warned = True
                self.warn(
                    "the log file %s cannot be written: %s; the calls go on, and so will the "
                    "log once this is mended" % (self.path, reason_of(error))
                )

    def lock(self, file, locked=True):
        """On Windows take the file for this program alone, or give it back.

        There O_APPEND is a seek and then a write, and another program's line may come between.
        """
        give_up = time.monotonic() + PATIENCE
        while msvcrt:
            try:
                os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
                return msvcrt.locking(file, msvcrt.LK_NBLCK if locked else msvcrt.LK_UNLCK, 1)
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.005)

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

    def finish(self):
        """Try a while longer to write what is unwritten: another program may hold the file."""
        give_up = time.monotonic() + LOG_PATIENCE
        while self.unwritten and time.monotonic() < give_up:
            time.sleep(RETRY_START)
            self.write([])


class Reporter:
    """Logs, counts and prints what became of each call.

    Whoever reports writes the log. One thread prints and, on a terminal, redraws a status
    line: a full pipe or a terminal stopped with Ctrl-S may block it, and that must hold up
    neither a call nor the log.
    """

    def __init__(self, log, url, calls, quiet=False, timefunc=time.time):
        self.log = log
        self.url = without_password(url)
        self.calls = calls  # how many are to be reported
        self.quiet = quiet  # print only what went wrong
        self.timefunc = timefunc
        self.lock = threading.Lock()  # guards the log, the counts and the order of the lines
        self.counts = collections.Counter()
        self.next_due = None
        self.stdout = sys.stdout
        self.texts = queue.Queue()  # (standard output, standard error): what to print on each
        self.printing = threading.Thread(target=self.print_texts, daemon=True)

    def start(self):
        """Raises RuntimeError if no thread can be started."""
        self.printing.start()
        self.log.warn = self.warn

    def report(self, outcomes):
        """Log, count and print what became of calls; return `all_reported()`.

        `outcomes` are tuples: CALLED, FAILED, MISSED or CANCELLED, the due time, a reason or
        "", and when the call was fired or None, both times in seconds since the epoch.
        """
        with self.lock:
            lines, shown, now = [], [], self.timefunc()
            for what, due, words, stamp in outcomes:
                if what in (MISSED, CANCELLED):
                    words = "due %s%s" % (local(due), "; " + words if words else "")
                line = "%s API at %s%s" % (what, self.url, " (%s)" % words if words else "")
                lines.append(stamped(stamp or now, line))
                if what != CALLED or not self.quiet:
                    shown.append(lines[-1] + "\n")
            self.log.write(lines)
            self.texts.put(("".join(shown), ""))
            self.counts.update(what for what, _, _, _ in outcomes)
        return self.all_reported()

    def warn(self, text):
        """Have a warning printed, above the status line if there is one."""
        self.texts.put(("", text))

    def tick(self):
        """Have the status line redrawn."""
        if self.draws() and self.texts.empty():
            self.texts.put(("", ""))

    def all_reported(self):
        """Whether every call has its line in the log, or a warning has said why not."""
        return sum(self.counts.values()) >= self.calls

    def close(self, stopped=lambda: False):
        """Wait until all is logged and printed, but not for ever once `stopped()`."""
        if self.all_reported():
            self.log.finish()
        self.texts.put(None)
        last = False
        while self.printing.is_alive() and not last:
            last = stopped()
            self.printing.join(PATIENCE)
        self.log.warn = warn

    def draws(self):
        """Whether there is a terminal for a status line, and no shell's prompt stands there."""
        try:
            if self.quiet or not self.stdout.isatty() or os.environ.get("TERM") == "dumb":
                return False
            return WINDOWS or os.tcgetpgrp(self.stdout.fileno()) == os.getpgrp()
        except (AttributeError, ValueError):  # there is no standard output, or it is closed
            return False
        except OSError:
            return True  # it is a terminal, but not the one that controls us

    def print_texts(self):
        """The thread that prints."""
        status = ""  # what stands in the terminal's last line
        listening = True  # somebody reads standard output
        entry = "", ""
        while entry:
            entry = self.texts.get()
            text, warning = entry or ("", "")
            draws = self.draws()
            wipe = "\r%s\r" % (" " * len(status)) if draws else ""
            status = self.status_line() if draws and entry else ""
            if warning:
                say(self.stdout, wipe)
                warn(warning)
                wipe = ""
            text = wipe + text + status
            if text and listening:
                listening = say(self.stdout, text)

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
  130 after Ctrl-C, 143 after SIGTERM, 129 when its terminal closes (Windows: 149 after
  Ctrl-Break)
"""
OPTIONS = (
    ("--url", {"help": "what to call (API_URL in config.py)"}),
    ("--log-file", {"metavar": "FILE", "help": "where to log, from here (LOG_FILE in config.py)"}),
    ("--timeout", {"metavar": "SECONDS", "type": float, "help": "longest time for a call (TIMEOUT)"}),
    ("--today", {"action": "store_true", "help": "skip times of day that have passed"}),
    ("--quiet", {"action": "store_true", "help": "print only what goes wrong; the log is the same"}),
    ("--dry-run", {"action": "store_true", "help": "print the plan and call nothing"}),
    ("--version", {"action": "version", "version": "%(prog)s " + __version__}),
)
SLASHES = 'in a path write / and not \\, as in "C:/logs/test.log"'

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
        if name in inside or len(inside) == MOST_NESTED:
            raise SetupError(
                "the file %s names itself with @, or is the last of too many that name others" % name
            )
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
    parser.error = lambda words: argparse.ArgumentParser.error(parser, without_secrets(words))
    parser.add_argument("times", nargs="*", metavar="TIME", help=argparse.SUPPRESS)
    for name, settings in OPTIONS:
        parser.add_argument(name, **settings)
    arguments, rest = parser.parse_known_args(expand(argv[:end]))
    for text in rest:  # argparse leaves times that stand behind an option
        if text.startswith("-"):
            parser.error("unrecognized argument: %s" % printable(text))
        arguments.times.append(text)
    if not arguments.times:
        parser.error('no times given; for example: %(prog)s "12:30:00, 14:15:30"' % vars(parser))
    arguments.curl_options = argv[end + 1 :]
    return arguments


def read_config(path):
    """Return what config.py sets, a dict, empty if it is not there. Raises SetupError."""
    values = {"__name__": "config", "__file__": path}
    try:
        try:
            with open(path, "rb") as file:
                source = file.read()
        except FileNotFoundError:
            return values  # then the options must say everything
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own show the line, and a password in it
            exec(compile(source, path, "exec"), values)  # not imported: no stale bytecode
    except SyntaxError as error:
        cut = re.search("unicodeescape|string literal", error.msg)  # also by a backslash before the quote
        hint = "; " + SLASHES if cut else ""
        reason = "%s, line %s%s" % (error.msg, error.lineno, hint)
        raise SetupError("%s cannot be read: %s" % (path, reason)) from None
    except (Exception, SystemExit) as error:
        words = reason_of(error), getattr(error, "filename", "") or ""
        reason = without_secrets("%s: %s %s" % (type(error).__name__, *words))
        raise SetupError("%s cannot be read: %s" % (path, reason)) from None
    return values


def load_settings(url=None, log_file=None, timeout=None, curl_options=()):
    """Return the Settings: what is given here, and the rest from config.py beside this file.

    Raises SetupError, naming the setting, if one is missing or wrong.
    """
    values = read_config(os.path.join(HERE, "config.py"))
    if log_file is None:
        log_file = path_in("LOG_FILE in config.py", values.get("LOG_FILE", ""), HERE)
    else:
        log_file = path_in("--log-file", log_file)
    if isinstance(url, str):
        with contextlib.suppress(UnicodeError):  # `check_url` will refuse it
            # In the C locale Python 3.6 does not take the command line for UTF-8.
            url = os.fsencode(url).decode("utf-8", "surrogateescape")
    joined = []
    for name, options in (
        ("CURL_OPTIONS in config.py", values.get("CURL_OPTIONS", [])),
        ("curl_options", curl_options),
    ):
        if not isinstance(options, (list, tuple)) or not all(
            isinstance(option, str) and "\0" not in option for option in options
        ):
            raise SetupError('%s must be a list of texts, as ["-X", "POST"]' % name)
        joined += options
    given = timeout is not None
    timeout = timeout if given else values.get("TIMEOUT", DEFAULT_TIMEOUT)
    grace = values.get("GRACE", DEFAULT_GRACE)
    for name, value in (("--timeout" if given else "TIMEOUT", timeout), ("GRACE", grace)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0.001 <= value <= 1e9:
            raise SetupError("%s must be seconds, from 0.001 to 1e9, not %r" % (name, value))
    url = values.get("API_URL", "") if url is None else url
    return Settings(url, log_file, timeout, grace, joined)


def path_in(name, value, folder=""):
    """Return the full path that a setting holds. Raises SetupError if it holds none."""
    path = None
    with contextlib.suppress(Exception):  # whatever somebody's own type of path raises
        path = os.fspath(value)
    if not isinstance(path, str):
        raise SetupError("%s must be text" % name)
    if not path:
        raise SetupError("the log file is missing: set LOG_FILE in config.py or give --log-file")
    if any(char < " " for char in path):
        raise SetupError(
            "the log file in %s cannot be opened: it holds a control character; %s" % (name, SLASHES)
        )
    try:
        return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))
    except OSError:
        raise SetupError("the working directory is gone: give --log-file a full path") from None
    except ValueError as error:
        raise SetupError("the log file in %s cannot be opened: %s" % (name, error)) from None


def carry_out(groups, settings, log, quiet=False):
    """Make the calls of a plan; return the exit status. Raises SetupError before any waiting."""
    check_url(settings.url)
    reporter = Reporter(log, settings.url, sum(count for _, count in groups), quiet)
    with places(reporter.calls) as most, contextlib.closing(
        Scheduler(groups, settings, reporter, most)
    ) as scheduler, scheduler.caught_signals():
        asked = check_curl(settings)
        warn_of_too_many(groups, asked, most)
        try:
            reporter.start()
            scheduler.run(asked)
        except RuntimeError as error:
            raise SetupError("the system has no room for a thread: %s" % error) from None
        finally:
            reporter.close(scheduler.stopped)
    unlogged = max(len(log.unwritten), reporter.calls - sum(reporter.counts.values()))
    if unlogged:
        warn("%s could not be logged to %s" % (how_many(unlogged, "line"), log.path))
    if scheduler.signals:
        return 128 + scheduler.signals[0]
    return 0 if reporter.counts[CALLED] == reporter.calls else 1


def warn_of_too_many(groups, asked, most):
    found = too_many(groups, asked.start, asked.each, most)
    if found:
        due, calls, ready = found
        warn(
            "%d calls are due at %s, and about %d can be made ready here before their time: "
            "the last of them will be late" % (calls, local(due), ready)
        )


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


def main(argv=None):
    """Do what the command line says; return the exit status (see ``--help``)."""
    now = time.time()  # first of all, so that a time typed for this second is still due now
    logs = []  # the log, once it can be opened
    try:
        return schedule(sys.argv[1:] if argv is None else list(argv), now, logs)
    except SystemExit as end:  # argparse has said what there is to say
        return end.code or 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SetupError as error:
        status, words, logged = 2, str(error), "Not started (%s)" % error
    except Exception as error:  # a mistake in this file; who runs it gets a line all the same
        line = error.__traceback__
        while line.tb_next:
            line = line.tb_next
        logged = "internal error in line %d, please report it: %r" % (line.tb_lineno, error)
        status, words = 1, logged
    warn(words)
    for log in logs:
        log.write([stamped(now, printable(logged))])
        log.finish()
    return status


def schedule(argv, now, logs):
    """Plan, and wait and call or only show the plan; return the exit status.

    Raises SetupError, and what argparse raises. The log is appended to `logs` once it can
    be opened.
    """
    arguments = parse_arguments(argv)
    settings = load_settings(
        arguments.url, arguments.log_file, arguments.timeout, arguments.curl_options
    )
    groups, skipped, tomorrow = plan(arguments.times, now, arguments.today, settings.grace)
    skipped = [skipped_words(text, reason) for text, reason in skipped]
    for words in skipped:
        warn(words)
    for text, due in tomorrow.items():
        day = "tomorrow" if local(due)[:10] != local(now)[:10] else "its next time"
        warn("'%s' has just passed: it is planned for %s, %s" % (text, day, local(due)))
    log = Log(settings.log_file)
    log.check(arguments.dry_run)
    if not arguments.dry_run:
        logs.append(log)
        log.write([stamped(now, words) for words in skipped])
    if not groups:
        raise SetupError("nothing to do: none of the times is valid and still to come")
    if arguments.dry_run:
        check_url(settings.url)
        with places(sum(calls for _, calls in groups)) as most:
            warn_of_too_many(groups, check_curl(settings), most)
        what = " to %s\n" % without_password(settings.url)
        plans = ["%s  %s" % (local(due), how_many(calls)) for due, calls in groups]
        return 0 if say(sys.stdout, what.join(plans + [""])) else 1
    if arguments.url and without_password(arguments.url) != arguments.url:
        warn("other users can see a password given with --url: set API_URL in config.py")
    quiet = arguments.quiet
    del arguments  # 100,000 times take much memory, and waiting is long
    status = carry_out(groups, settings, log, quiet)
    return status or (1 if skipped or log.unwritten else 0)


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
    if hasattr(signal, "SIGTTOU"):  # it would stop us, and make us late, where `stty tostop` is set
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    leave(main())
