#!/usr/bin/env python3
"""Call an API at the times you name: on time, once each, and log every call.

    python3 api_scheduler.py +10s
    python3 api_scheduler.py "12:30:00, 14:15:30"
    python3 api_scheduler.py 2026-08-01T14:30:00Z --url https://example.org/hook
    python3 api_scheduler.py "09:00:00" -- --data @body.json

A time is written as
  12:30:00, 12:30, 2:30 PM   local time of day, at its next occurrence: today or tomorrow
  2026-08-01T14:30:00Z       ISO 8601 date-time; with +05:30 in that zone, with nothing local
  now, +10s, +5m, +1h        counted from the start
  @times.txt                 times from a file, one or more a line
What is called and where the log lies is set in config.py, beside this file. Behind -- stand
options for curl; README.md names those that can be used.

The exit status is 0 if every call was made and succeeded; 1 if one failed or was missed, a
time was skipped, or a line could not be logged; 2 if nothing was started, the message says
why; 130 after Ctrl-C, 143 after SIGTERM, 129 when its terminal closes, 149 after Ctrl-Break.

How it works

It needs Python 3.6 or later and curl, nothing else. The file reads in the order in which a
call is made: parse the times, plan when each is due, wait, call, log; then main() ties it
together.

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
import getopt
import glob
import math
import os
import queue
import re
import runpy
import shutil
import subprocess
import sys
import threading
import time
import warnings

WINDOWS = os.name == "nt"
if WINDOWS:
    import msvcrt
else:
    import resource

__version__ = "3.0.0"

HERE = os.path.dirname(os.path.realpath(__file__))

LONGEST_SLEEP = 0.25  # seconds; how soon a signal, a stepped clock or a resumed laptop is noticed
LAST_SLEEP = 0.02  # seconds; being awake so shortly before makes a single call 0.3 ms earlier
ASK_TIMEOUT = 10.0  # seconds for curl to read its options
KILL_AFTER = 5.0  # seconds past its timeout that a curl may live
RETRY = 0.1  # seconds until the next try to start a curl, or to write the log
PATIENCE = 2.0  # seconds for whoever holds the log, or does not read standard output, at the end

ARM_MARGIN = ASK_TIMEOUT + 2.0  # seconds between the end of arming and the due time
ARM_SECONDS_PER_CALL = 0.06 if WINDOWS else 0.02  # starting one curl; Linux takes 2 to 10 ms
ARM_EARLIEST = 60.0  # seconds before its time that a group is armed at the earliest
CURL_MEMORY = 2 * 1024 * 1024  # bytes; an armed curl holds about 1.4 MB of its own
CURL_DESCRIPTORS = 2  # held here for each curl: its standard input and standard error
SPARE_DESCRIPTORS = 32  # for the log, the standard streams, and a curl that is being started
MOST_DESCRIPTORS = 10240  # macOS grants no more

LONGEST_URL = 8000  # bytes; RFC 9110 section 4.1 asks for this much
LONGEST_CONFIG = 4000  # bytes; the pipe to a curl that does not read yet holds 4096 on any system
LOCK, UNLOCK = 2, 0  # msvcrt.LK_NBLCK and LK_UNLCK


class SetupError(Exception):
    """Something the user must mend before anything can be scheduled; its text says what."""


# ---------------------------------------------------------------------------- parse

FROM_NOW = re.compile(r"(?i)now|[+](?=[0-9])(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:[.][0-9]+)?)s)?")
TIME = re.compile(
    r"(?i)(?:([0-9]{4})-([0-9]{2})-([0-9]{2})(?:T|\s+))?"  # 2026-08-01
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.]([0-9]{1,6}))?)?"  # 14:30, 14:30:00, 14:30:00.5
    r"(?:\s*([AP])[.]?M[.]?)?"  # PM
    r"(?:\s*(Z|UTC|GMT)|\s*([+-])([0-9]{2}):?([0-5][0-9])?)?"  # Z, +05:30, +0530, +05
)
# What may be a URL, with a password in it; a zone (Asia/Tokyo) and a date (2026/11/22) are none.
URL_LIKE = re.compile(r".*(?:://|@)|\s*(?![A-Z]\w+/[A-Z])(?:[a-zA-Z][^/\s]*|[^/\s.]*\.[^/\s]*)/")
PART = re.compile(  # no time, but maybe a part of one: a date, AM, May, friday, CET, (Berlin), +02:00, utc, .5
    r"[A-Z]{0,5}[+-]\d\d?(?::?\d\d)?$|(?!-?\d\d?:\d|\d{4}-\d\d-\d\dT\d)(?:\W*[A-Z]|.*\d|.*[^\0-\x7f])"
    r"|(?i:\W*(?:[ap]\W*m?|z|utc|[a-z]{1,4}t|today|tomorrow|yesterday|midnight|morning|afternoon|evening|weekdays?"
    r"|week|(?:mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*)\W*$)"
)
TORN = "unclear what belongs together: write 2026-08-01T14:30:00 or 14:30:00, and commas between times"
UNKNOWN_YEAR = "outside the years that this system's clock knows"


def parse_time(text):
    """Return what `text` names: a ``datetime.time``, an aware ``datetime.datetime``, a ``timedelta``.

    The first is a local time of day, the last counts from now. Raises ValueError, with a reason
    to show to the user, if it names none. A date-time without an offset is local; around a change
    of the clocks it is read as `due_time` reads times of day.
    """
    from_now, match = FROM_NOW.fullmatch(text), TIME.fullmatch(text)
    if not from_now and not match:
        raise ValueError("neither HH:MM:SS nor an ISO 8601 date-time")
    try:
        if from_now:
            hours, minutes, seconds = (float(number or 0) for number in from_now.groups())
            return datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)
        year, month, day, hour, minute, second, fraction, half, utc, sign, *offset = match.groups()
        if half and not 1 <= int(hour) <= 12:
            raise ValueError("before AM and PM the hour must be in 1..12")
        hour = int(hour) % 12 + 12 * (half in "Pp") if half else int(hour)
        clock = datetime.time(hour, int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")))
        if not year and (utc or sign):
            raise ValueError("a time with an offset needs a date")
        if not year:
            return clock
        moment = datetime.datetime.combine(datetime.date(int(year), int(month), int(day)), clock)
        if not utc and not sign:
            # Not moment.astimezone(), which in the gap of a clock change reads the time otherwise.
            return datetime.datetime.fromtimestamp(moment.timestamp(), datetime.timezone.utc).astimezone()
        hours, minutes = (int((sign or "") + (number or "0")) for number in offset)
        return moment.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=hours, minutes=minutes)))
    except (OverflowError, OSError):
        raise ValueError(UNKNOWN_YEAR) from None


def read_time(text):
    """Return ``(text, time, None)`` with what `parse_time` returns, or ``(text, None, reason)``."""
    try:
        return text, parse_time(text), None
    except ValueError as error:
        return text, None, str(error)


def read_times(arguments):
    """Yield ``(text, time, reason)``, as `read_time` returns them, for all in `arguments`.

    Commas stand between times; empty ones (a trailing comma, an empty line) are passed over.
    What a shell or a table has torn apart, such as a date and its time, is joined where that has
    one meaning only. Where it has not, nothing that may belong to it is taken for a time: what
    stands between the same commas is skipped, and if that is no time, what is next to it, too.
    """
    phrases = [[]]  # what stands between two commas: times, and parts of times
    for argument in arguments:
        for number, text in enumerate(argument.split(",")):
            if number:
                phrases.append([])
            whole = read_time(text.strip())  # what was quoted is one, whatever stands beside it
            entries = [whole] if whole[1] is not None else [read_time(word) for word in text.split()]
            unknown = [word for word, when, _ in entries if when is None]
            if unknown and ("@" in argument or URL_LIKE.match(text)):
                yield re.match(r"\s*([^:/?@]*.?)", text).group(1) + "...", None, "a URL is given with --url; the rest is not read"
                break  # what follows may be its password
            if not all(map(PART.match, unknown)):
                entries = [whole]
            if len(entries) == 1 and entries[0][1] is None and not any(map(PART.match, text.split())):
                yield entries[0]
            else:
                phrases[-1] += entries
    phrases = list(filter(None, phrases))
    lone = [all(when is None for _, when, _ in phrase) for phrase in phrases]
    for number, phrase in enumerate(phrases):
        text = " ".join(word for word, _, _ in phrase)
        skipped = [(text, None, phrase[0][2] or TORN)]
        if any(when is None for _, when, _ in phrase):
            found = list(TIME.finditer(text))
            forms = {tuple(map(bool, match.group(1, 8, 9, 10))) for match in found}
            joined = len(forms) == 1 and " ".join(match.group() for match in found) == text
            phrase = [read_time(match.group()) for match in found] if joined else skipped
        yield from skipped if any(lone[max(0, number - 1) : number + 2]) else phrase


def parse_timestamps(timestamps, suppress_print=False):
    """Return the list of valid times in `timestamps`, in the order given.

    `timestamps` is a comma-separated string, or several in a list; the times are as `parse_time`
    returns them. Each invalid entry is left out with a warning on standard error, unless `suppress_print`.
    """
    found = list(read_times([timestamps] if isinstance(timestamps, str) else timestamps))
    for text, when, reason in found:
        if when is None and not suppress_print:
            warn(skipped_words(text, reason))
    return [when for _, when, _ in found if when is not None]


# ----------------------------------------------------------------------------- plan


def due_time(when, now, today=False):
    """Return the instant at which `when` is due, in seconds since the epoch.

    `when` is a ``datetime.time`` (local time of day), a ``datetime.datetime`` (local if naive)
    or a ``datetime.timedelta`` (from now on); `now` is in seconds since the epoch. A time of day
    is due at its next occurrence, today or tomorrow, or only today if `today`. The second that
    `now` lies in counts as not yet passed. Raises ValueError, with a reason, if the time has
    passed, or lies outside the years that the system's clock knows.

    Local times in the gap of a clock change are read with the offset before it, and of two
    in the fold the first is meant (RFC 5545 section 3.3.5). That is how Python reads naive
    datetimes with fold=0 (PEP 495).
    """
    this_second = math.floor(now)
    try:
        if isinstance(when, datetime.timedelta):
            due = math.ceil((now + when.total_seconds()) * 1000) / 1000  # in milliseconds, to be shown
        elif isinstance(when, datetime.datetime):
            due = when.timestamp()
        else:
            date = datetime.date.fromtimestamp(now)
            due = datetime.datetime.combine(date, when).timestamp()
            if due < this_second and not today:
                due = datetime.datetime.combine(date + datetime.timedelta(days=1), when).timestamp()
        datetime.datetime.fromtimestamp(due)
    except (OverflowError, OSError, ValueError):
        raise ValueError(UNKNOWN_YEAR) from None
    if due < this_second:
        raise ValueError("it has passed" + " today" * isinstance(when, datetime.time))
    return due


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
        if isinstance(when, datetime.time) and due_time(when, now - min(grace, 43200)) < math.floor(now):
            tomorrow[text] = due
    return sorted(collections.Counter(dues).items()), skipped, tomorrow


def warn_of_zone(environ=os.environ):
    """Print the zone that the variable TZ names, if the system does not know it.

    Then the system's times are UTC without a word (tzset(3)). A rule, as EST5EDT, needs no file;
    on Windows there are none.
    """
    zone = environ.get("TZ", "").lstrip(":")
    paths = [os.path.join(folder, "zoneinfo", zone) for folder in ("/usr/share", "/usr/lib", "/etc", "/share")]
    known = not WINDOWS and (time.timezone or time.daylight or any(map(os.path.isfile, paths)))
    if not known and not re.match("(?i)$|(?:Etc/)?(?:UTC|GMT|UCT|Zulu)$|(?:<[^>]+>|[A-Za-z]{3,})[+-]?[0-9]", zone):
        warn("TZ names a zone that is not known here, %s: local times are taken for UTC" % zone)


def group_by_time(times):
    """Return a dict from each time in `times` to the list of those identical to it, for programs that import this."""
    return {when: [when] * count for when, count in collections.Counter(times).items()}


def arming_times(groups):
    """Return when to begin arming each of `groups`, in seconds since the epoch.

    Groups are armed one after another, so an early one must make room for a large one behind
    it: the times are worked out from the last to the first.
    """
    times = []
    room = math.inf  # when the group behind begins
    for due, calls in reversed(groups):
        room = min(due - ARM_MARGIN, room) - calls * ARM_SECONDS_PER_CALL
        room = max(room, due - ARM_EARLIEST)
        times.append(room)
    return times[::-1]


def warn_of_too_many(groups, most):
    """Print which of `groups` is the first that will be late by arming, if any will be.

    More than `most` curls cannot be up at once.
    """
    busy = -math.inf  # until when the groups before are being armed
    for (due, calls), begin in zip(groups, arming_times(groups)):
        begin = max(busy, begin)
        busy = begin + calls * ARM_SECONDS_PER_CALL
        if calls > most or busy > due:
            words = "%d calls are due at %s, and about %d can be made ready in time: the last will be late"
            ready = min(most, max(0, int((due - begin) / ARM_SECONDS_PER_CALL)))
            return warn(words % (calls, local(due), ready))


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


# ----------------------------------------------------------------- call: what is asked

# The options of curl that can be used: what has to do with one HTTP call, and nothing that
# adds a call or a URL, takes options from elsewhere, or hides why a call failed. A letter in
# front is the short form; with = behind it an option takes a value, and FILES says of which
# kinds the value may name a file that is read; that of the kind "new" is written.
CURL_OPTIONS = """
    X:request= G:get I:head H:header=@ d:data=@ data-ascii=@ data-binary=@ data-raw= data-urlencode=name@
    json=@ F:form=form form-string= form-escape T:upload-file=file url-query=query A:user-agent= e:referer=
    b:cookie=cookie r:range= request-target= path-as-is compressed expect100-timeout=
    u:user= basic digest ntlm negotiate anyauth delegation= oauth2-bearer= aws-sigv4= n:netrc netrc-optional
    netrc-file=file k:insecure cacert=file capath= ca-native crlfile=file E:cert= cert-type= cert-status key=
    key-type= pass= pinnedpubkey= ciphers= tls13-ciphers= curves= tlsv1.2 tlsv1.3 tls-max= ssl-no-revoke
    ssl-revoke-best-effort x:proxy= U:proxy-user= noproxy= p:proxytunnel preproxy= socks5= socks5-hostname=
    proxy-header=@ proxy-basic proxy-digest proxy-ntlm proxy-negotiate proxy-anyauth proxy-insecure
    proxy-cacert=file proxy-capath= proxy-cert= proxy-key= proxy-pass= resolve= connect-to= interface=
    unix-socket= 4:ipv4 6:ipv6 happy-eyeballs-timeout-ms= keepalive-time= 0:http1.0 http1.1 http2
    http2-prior-knowledge http3 L:location no-location location-trusted max-redirs= post301 no-post301 post302
    no-post302 post303 m:max-time= connect-timeout= retry= retry-delay= retry-max-time= retry-connrefused
    retry-all-errors limit-rate= max-filesize= Y:speed-limit= y:speed-time= f:fail no-fail fail-with-body
    s:silent S:show-error g:globoff o:output=new remove-on-error D:dump-header=new i:include
    w:write-out=@ v:verbose
"""
REST = '(?=(?:;(?:type|filename|encoder)=(?:"[^"]*"|[^;,]*))*$)'  # of a form's part; else it is no file of ours
FILES = {  # the file in a value of each kind, if the value is of that form
    "": "(?!)", "new": "(?!)", "@": "@(.*)", "name@": "[^=@]*@([^=]*)$", "query": "(?![+])[^=@]*@([^=]*)$",
    "form": '[^=]*=(?:[@<](?:"([^"]*)"%s|([^;,]*)%s|(.*))|.*; *headers=[@<](.*))' % (REST, REST),
    "cookie": "@?([^=]+)$", "file": "(.*)",
}  # fmt: skip
PARSED = re.findall(r"(?:(\S):)?([a-z0-9.-]+)(=?)(\S*)", CURL_OPTIONS)
LONG_NAMES = {"-" + letter: "--" + name for letter, name, _, _ in PARSED if letter}
KINDS = {name: kind for _, name, _, kind in PARSED}
# getopt takes a part of a name for the whole, and --ssl is another option: a second name prevents that.
WHOLE_NAMES = [name + end for _, name, value, _ in PARSED for end in (value, "\0")]
BEGINS_ANOTHER = re.compile("(?i)[\0-\x08\n-\x1f\x7f]|^(?:content-length|transfer-encoding) *[:;]")  # request
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


def parse_curl_options(words):
    """Return what curl's command line says in `words`: a list of ``(long name, value)``.

    The value is "" for a switch. Raises SetupError for what is not in CURL_OPTIONS, what
    would ask for a password, and what has no room in the pipe to a curl.
    """
    letters = "".join(letter + value.replace("=", ":") for letter, _, value, _ in PARSED if letter)
    try:
        found, rest = getopt.getopt(words, letters, WHOLE_NAMES)
    except getopt.GetoptError as error:
        words = error.msg.replace(error.opt, re.match(r".?[\w.-]*", error.opt).group())  # no password
        raise SetupError("the curl %s; README.md tells which can be used" % words) from None
    if rest:
        raise SetupError("a word among the curl options is none of them; a URL is given with --url")
    options = [(LONG_NAMES.get(name, name)[2:], value) for name, value in found]
    names = [name for name, _ in options]
    if any(name in ("user", "proxy-user") and ":" not in value for name, value in options):
        raise SetupError("curl would ask for a password: write --user NAME:PASSWORD")
    sent = set(re.findall("(?m)^(data|form|upload|head$)", "\n".join(names).replace("json", "data")))
    if len(sent - {"data" if "get" in names else ""}) > 1:
        raise SetupError("curl can send one of --data, --form and --upload-file, or ask for the --head")
    for name, value in options:
        if not name.startswith(("data", "json", "form", "write-out")) and BEGINS_ANOTHER.search(value):
            raise SetupError("--%s holds a control character or a length, which may begin another request" % name)
    if len(curl_config(options)) > LONGEST_CONFIG:
        raise SetupError("the curl options are too long: put the longest into a file, as --data @body.json")
    return [option for option in options if option[0] != "silent"]


def check_files(options):
    """Raise SetupError unless curl can read the files that `options` name, and write those that they make.

    Curl before 8.3 only warns of a missing one, and calls without it; and one that cannot be
    written is told after the call.
    """
    for name, value in options:
        match = re.match(FILES[KINDS[name]], value, re.DOTALL)
        told = match.group(match.lastindex) if match else value
        path = told.encode("utf-8", "surrogateescape")  # as curl gets it
        readable = path != b"-" and os.path.isfile(path) and os.access(path, os.R_OK)
        if match and (not readable or re.match(b"/+(?:dev/(?:std|fd)|proc/)", os.path.abspath(path))):
            raise SetupError("--%s names %s, no file that can be read (nor is standard input)" % (name, told))
        place = path if os.path.exists(path) else os.path.dirname(os.path.abspath(path))
        if KINDS[name] == "new" and (not path or os.path.isdir(path) or not os.access(place, os.W_OK)):
            raise SetupError("--%s names %s, which is no file that curl can write" % (name, told))


def curl_config(options):
    """Return the lines of curl's configuration for ``(long name, value)`` in `options`, as bytes.

    In double quotes curl reads backslash escapes (curl's manual, "--config"), so that no
    value ends its line. A switch takes the empty value, too.
    """
    lines = ('%s = "%s"\n' % (name, value.translate(ESCAPES)) for name, value in options)
    return "".join(lines).encode("utf-8", "surrogateescape")


def check_url(url):
    """Raise SetupError if `url` is nothing that can be called, without ever repeating it.

    It may hold a password.
    """
    if not url or not isinstance(url, str):
        raise SetupError("the URL is missing: set API_URL in config.py to a text, or give --url")
    if any(char.isspace() or not char.isprintable() for char in url):
        raise SetupError("the URL holds a space or a control character: write it percent-encoded, as %20")
    if len(url.encode("utf-8")) > LONGEST_URL:
        raise SetupError("the URL is longer than %d bytes" % LONGEST_URL)
    match = re.match(r"(?i)https?://([^/?#]*)", url)
    if not match:
        raise SetupError("the URL must begin with http:// or https://")
    host = r"(?:[^@]*@)?(?:\[[0-9A-Fa-f:.]+(?:%[^\]]+)?\]|[^:@\[\]]+)(?::([0-9]{0,5}))?"
    valid = re.fullmatch(host, match.group(1))
    behind = valid and valid.group(1) and "@" in url and "@" not in match.group(1)  # me:12/34@host
    if not valid or behind or int(valid.group(1) or 0) > 65535:
        raise SetupError("the URL has no valid host and port; in a password write / ? # @ as %2F %3F %23 %40")


def without_password(url):
    """Return `url` with the password in it, if there is one, replaced by ``***``."""
    return re.sub(r"^([^:]+://[^:/?#]*:)[^/?#]*(?=@)", r"\1***", url)


# ------------------------------------------------------------------------ call: curl


def ask_curl(settings):
    """Return curl's path, and its options as `parse_curl_options` returns them.

    Curl is asked whether it takes the options by running it as it will be armed, and closing
    the pipe: a URL is all that it should miss. What it warns of is printed. Raises SetupError
    if curl is not there or does not come back, or if it or we refuse an option or the URL.
    """
    check_url(settings.url)
    options = parse_curl_options(settings.curl_options)
    check_files(options)
    path = find_curl()
    try:
        curl = Curl(curl_command(path, options, settings.timeout), curl_config(options))
    except (OSError, ValueError) as error:
        raise SetupError("curl could not be started (%s): %s" % (path, reason_of(error))) from None
    alarm = threading.Timer(ASK_TIMEOUT, curl.kill, ["it does not come back when asked"])
    alarm.start()
    curl.process.stdin.close()
    code, said = curl.end()
    alarm.cancel()
    said = re.sub(r"\r?\nWarning: (?![A-Z<])", "", said)  # curl 7 breaks long lines
    complete, refused = "no URL specified" in said, "<stdin>" in said  # curl before 8.7 only warns of these
    runs = re.search("(?m)^(?:curl: |Warning: )", said)  # neither the loader nor a shell says so
    for name, value in options:
        if len(value) > 3 and KINDS[name] != "file":
            said = said.replace(value, "***")
    lines = re.findall(r"(?m)^(?!.*(?:no URL specified|--help)).*\S", without_secrets(said))
    if refused or not complete:
        words = curl.killed or " ".join(lines) or "exit code %d" % code
        raise SetupError("%s: %s" % ("curl refuses its options" if runs else path + " does not run", words))
    for line in lines:
        warn("curl: " + line)
    return path, options


def find_curl():
    """Return the path of curl. Raises SetupError if none of the folders in PATH has it.

    Not by shutil.which, which on Windows prefers a curl in the current folder.
    """
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, "curl.exe" if WINDOWS else "curl")
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise SetupError("curl was not found in PATH, which is %r: install it" % os.environ.get("PATH", ""))


def curl_command(curl, options, timeout, trust=()):
    """Return the command line of every curl: our defaults, which its configuration may override.

    --globoff, because one call is one request: curl would expand ``[1-9]`` in a URL. --post301
    and --post302, because a redirect would drop method and body, and still count as a success.
    """
    names = [name for name, _ in options]
    fail = [] if "fail-with-body" in names else ["--fail"]
    # On Windows curl takes NUL as standard output for a terminal, and refuses to write an image to it.
    output = ["--output", os.devnull] if WINDOWS and "output" not in names else []
    ours = ["--show-error", "--location", "--post301", "--post302", "--globoff", "--proto", "=http,https"]
    return [curl, "-q", *ours, *fail, *output, "--max-time", "%.3f" % timeout, *trust, "--config", "-"]


CA_BUNDLE, CA_FOLDER = "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs"  # in Debian, Alpine and Arch


def fast_trust(curl, options, url, environ=os.environ, bundle=CA_BUNDLE, directory=CA_FOLDER):
    """Return curl options that look up the CA of a server without changing who is trusted.

    A curl linked to OpenSSL parses the whole CA bundle for every HTTPS call, about 100 ms
    of processor time. The same certificates often lie in a hashed directory, where OpenSSL
    finds the one it needs by name (OpenSSL's manual, "X509_LOOKUP_hash_dir"). Naming one
    small certificate of it as the bundle keeps curl from reading the large one.

    An empty list, which leaves all to curl, unless all of this holds: HTTPS, an OpenSSL
    curl of the system's, no choice of trust by options, and a directory with exactly the
    certificates of the bundle, and of what the environment names in its place.
    """
    system = os.path.dirname(os.path.realpath(curl)) in ("/usr/bin", "/bin")  # others may bring authorities
    chosen = any(re.match("(?:proxy-)?(?:ca|crl|insecure)", name) for name, _ in options)
    if not url.lower().startswith("https:") or not system or chosen:
        return []
    try:
        version = subprocess.check_output([curl, "-q", "--version"], stderr=subprocess.DEVNULL, timeout=ASK_TIMEOUT)
        if b" OpenSSL/" not in version:  # one in brackets is built in, but not used
            return []
        bundles = [bundle, *filter(None, map(environ.get, ("CURL_CA_BUNDLE", "SSL_CERT_FILE")))]
        paths = glob.glob(os.path.join(directory, "[0-9a-f]" * 8 + ".[0-9]"))
        hashed = {certificates(path): path for path in sorted(paths, reverse=True)}
        hashed.pop(frozenset(), None)
        same_directory = os.path.samefile(directory, environ.get("SSL_CERT_DIR") or directory)
        if not same_directory or {frozenset().union(*hashed)} != set(map(certificates, bundles)):
            return []
        return ["--capath", directory, "--cacert", min(hashed.values(), key=os.path.getsize)]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []  # ValueError: there is no certificate at all


def certificates(path):
    """Return the certificates in a PEM file, a frozenset of the bytes of their base64 texts."""
    with open(path, "rb") as file:
        found = re.findall(rb"-----BEGIN[^-]*CERTIFICATE-----([^-]+)-----END", file.read())
    return frozenset(b"".join(text.split()) for text in found)


# The terminal's Ctrl-C is not for the curls. The first is CREATE_NEW_PROCESS_GROUP | DETACHED_PROCESS.
OWN_SESSION = {"creationflags": 0x00000208} if WINDOWS else {"start_new_session": True}


# Curl decodes a host beyond ASCII by the locale: in cron's it fails, in a Latin-1 one another host is
# called. And curl 7.74 reads numbers by it, so that in a German one 30.000 is none.
UTF_8 = {} if WINDOWS else {"LC_ALL": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"}


class Curl:
    """A curl that waits for its URL. Whether it was given it is all its state: `fired_at`.

    `fire` and `kill` come from other threads than `end`; `Scheduler.lock` is held for them.
    """

    def __init__(self, command, config, stdout=subprocess.DEVNULL, due=0):
        """Raises OSError if the system has no room for it, or no curl."""
        self.due = due
        self.fired_at = None  # seconds since the epoch
        self.kill_at = math.inf  # by time.monotonic()
        self.killed = None  # why, if it was killed for a reason
        pipes = {"stdin": subprocess.PIPE, "stdout": stdout, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, bufsize=0, env={**os.environ, **UTF_8}, **pipes, **OWN_SESSION)
        with contextlib.suppress(OSError):  # it has ended by itself
            self.process.stdin.write(config)  # at most LONGEST_CONFIG, so this never blocks

    def fire(self, config, now, kill_at):
        """Give it its URL, unless it has it already, or has ended: then it has called nothing."""
        if self.fired_at is None and not self.process.stdin.closed:
            self.fired_at, self.kill_at = now, kill_at  # first: an exception may come behind it
            try:
                self.process.stdin.write(config)
            except OSError:
                self.fired_at = None
            self.process.stdin.close()

    def kill(self, why=None):
        """End it, and if it is a wrapper script, its curl too."""
        self.killed = self.killed or why
        with contextlib.suppress(OSError):  # it has ended by itself
            if WINDOWS:
                self.process.kill()
            elif self.process.returncode is None:  # else its id may belong to another by now
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self):
        """Wait for its end. Return its exit code and what it said."""
        with self.process.stderr as stderr:
            said = stderr.read()
        return self.process.wait(), said.decode("utf-8", "replace")


class Gate:
    """Keeps the curls of a large group from ending while others of it have yet to send.

    Ending a curl costs more processor time than sending its request does, and those that
    end compete with those that wait to be served. So the standard output of the whole group
    is one pipe, filled to the brim: a curl with its answer in hand waits there to write it
    until the gate opens. From then on whatever they write is read and dropped. On two
    processors the last of 1000 requests arrived after 0.1 s with it, 0.3 to 0.4 s without.
    """

    def __init__(self, url):
        """Raises OSError or RuntimeError if there is no room for a pipe or a thread."""
        # The gate stays shut for this share of the time that arming took, which makes it longer on
        # a slow machine: sending takes a tenth of it, and with TLS, for the handshake, a third.
        self.share = 1 / 2 if url.lower().startswith("https:") else 1 / 8
        self.began = self.armed = time.monotonic()
        self.opened = threading.Event()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writer, bytes(4096))
        os.set_blocking(self.writer, True)  # the curls share this setting
        start_thread(self.drain)

    def open(self, longest):
        """Let the curls through once about all of them must have sent, in `longest` seconds at most.

        At once if not all are armed yet: the others may wait for the places of these.
        """
        self.hold = min((self.armed - self.began) * self.share, longest)
        self.opened.set()

    def drain(self):
        self.opened.wait()
        time.sleep(self.hold)
        while os.read(self.reader, 65536):
            pass
        os.close(self.reader)


# ------------------------------------------------------------------- call: all of them


class Scheduler:
    """Makes the calls of a plan and has each reported, exactly once.

    The thread that runs it waits and fires, and does nothing that could keep it from being
    on time. A second thread arms, and each call has a thread that owns it (`make`). The
    first two go over the same plan, side by side. `timefunc` is the wall clock.
    """

    def __init__(self, groups, settings, asked, reporter, places, signals, timefunc=time.time):
        """`asked` is what `ask_curl` returned, `places` how many curls may be up at once.

        Once there is something in the list `signals`, it stops.
        """
        self.groups = groups
        self.settings = settings
        self.asked = asked
        self.reporter = reporter
        self.timefunc = timefunc
        self.trust = None  # curl's options for HTTPS, once they are known
        self.arming = curl_config([("silent", "")] + asked[1])
        self.firing = curl_config([("url", settings.url)])
        own_limits = {"max-time", "retry"}.intersection(name for name, _ in asked[1])
        self.kill_after = math.inf if own_limits else settings.timeout + KILL_AFTER  # seconds
        self.signals = signals  # those received, in order
        self.stopped = lambda: bool(signals)
        self.places = threading.Semaphore(places)
        self.lock = threading.Lock()  # guards what follows
        self.up = set()  # the curls that are armed or in flight
        self.begun = -math.inf  # the due time of the last group whose time has come
        self.gates = {}  # by due time, of groups that have not begun

    def run(self):
        """Make every call of the plan, or after a signal cancel those not yet made.

        Raises RuntimeError if there is no room for a thread. After any exception nothing goes
        on behind the caller's back.
        """
        start_thread(self.arm_groups)
        try:
            for due, _ in self.groups:
                self.reporter.next_due = due
                if not wait_until(due, self.timefunc, self.nap, self.stopped):
                    break
                self.fire_group(due)
            self.reporter.next_due = None
            while not self.stopped() and not self.reporter.finished.wait(LONGEST_SLEEP):
                self.sweep()
        except BaseException:  # raised by a signal handler of a program that calls us, say
            self.signals += [0, 0]
            raise
        finally:
            with self.lock:
                in_flight = sum(curl.fired_at is not None for curl in self.up)
            if in_flight:
                self.reporter.warn("stopping after %s in flight; a second signal ends it" % how_many(in_flight))
            while not self.reporter.finished.wait(RETRY):
                self.sweep()

    def nap(self, seconds):
        """Sleep; if it is long, see first to what is up."""
        if seconds > 2 * LAST_SLEEP:
            self.sweep()
        time.sleep(seconds)

    def sweep(self):
        """Kill what waits once stopped, what is in flight after a second signal or too long."""
        with self.lock:
            for curl in self.up:
                if curl.fired_at is None and self.stopped():
                    curl.kill()
                elif curl.fired_at is not None and len(self.signals) > 1:
                    curl.kill("ended by a second signal")
                elif time.monotonic() >= curl.kill_at:
                    curl.kill("killed, no end after %g s" % self.kill_after)

    def fire_group(self, due):
        """Fire all calls of a group that are armed; those that come late fire themselves.

        In one loop, because a thread for each that wakes at the due time would compete for
        the interpreter and the processors with the curls.
        """
        with self.lock:
            self.begun = due
            curls = [curl for curl in self.up if curl.due == due]
        for curl in curls:
            self.fire(curl)
        gate = self.gates.pop(due, None)
        if gate:
            gate.open(self.settings.timeout / 4)  # it runs on for a curl that is held

    def fire(self, curl):
        """Fire one curl as soon as it is due. If that is too late, or stopped, end it instead."""
        waited = wait_until(curl.due, self.timefunc, self.nap, self.stopped)  # the clock may be set back
        with self.lock:
            now = self.timefunc()
            if waited and now - curl.due <= self.settings.grace:
                curl.fire(self.firing, now, time.monotonic() + self.kill_after)
            elif curl.fired_at is None:
                curl.kill()

    def arm_groups(self):
        """The thread that arms: start a curl for one call after another, each group at its time."""
        cancelled = []
        for (due, calls), arm_at in zip(self.groups, arming_times(self.groups)):
            wait_until(arm_at, self.timefunc, stopped=self.stopped)
            gate = self.gate(due, calls)
            for left in range(calls, 0, -1):
                while not self.stopped() and not self.places.acquire(timeout=LONGEST_SLEEP):
                    pass
                if self.stopped():
                    cancelled += [(CANCELLED, due, "", None)] * left
                    break
                armed = self.arm(due, gate.writer if gate else subprocess.DEVNULL)
                try:
                    start_thread(self.make, due, *armed)
                except RuntimeError:  # no room for a thread, so none for another call either
                    self.make(due, *armed)
            if gate:
                gate.armed = time.monotonic()
                os.close(gate.writer)  # the last of its curls to end ends `drain`
        self.reporter.report(cancelled)

    def gate(self, due, calls):
        """Return a gate for a group, or None if it is too small for one, late, or on Windows."""
        with self.lock:
            if not WINDOWS and calls > (os.cpu_count() or 1) and due > self.begun and not self.stopped():
                with contextlib.suppress(OSError, RuntimeError):  # it is a help, not a need
                    self.gates[due] = Gate(self.settings.url)
            return self.gates.get(due)

    def arm(self, due, stdout):
        """Start a curl; return it, or None and an outcome if its time runs out, or stopped.

        When processes, memory or descriptors run out, a file that curl shall read is missing,
        or curl itself is just being replaced, it is tried again until that is mended. Trust is
        looked up again if a certificate that it names has been removed.
        """
        trouble = ""
        while not self.stopped() and self.timefunc() - due <= self.settings.grace:
            try:
                check_files(self.asked[1])
                if self.trust is None or not all(map(os.path.exists, self.trust[1::2])):
                    self.trust = fast_trust(*self.asked, self.settings.url)
                command = curl_command(*self.asked, self.settings.timeout, self.trust)
                curl = Curl(command, self.arming, stdout, due)
                with self.lock:
                    self.up.add(curl)
                return curl, None
            except Exception as error:
                trouble = "curl could not be started: %s" % reason_of(error)
                time.sleep(RETRY)
        return None, (CANCELLED if self.stopped() else MISSED, due, trouble, None)

    def make(self, due, curl, why_not):
        """Make one call, from its arming to its line in the log: all that its thread does."""
        try:
            outcome = self.outcome(due, curl, why_not)
        except Exception as error:  # whatever it is, the call gets its line
            outcome = FAILED, due, "internal error, please report it: %r" % error, None
        self.places.release()
        self.reporter.report([outcome])

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
                self.fire(curl)
            code, said = curl.end()
            with self.lock:
                self.up.remove(curl)
                curl.process.stdin.close()
            tries -= code >= 0
            if code == 0 and curl.fired_at is not None:
                return CALLED, due, "", curl.fired_at
            words = "exit code %d: %s" % (code, curl.killed or without_secrets(curl_words(said), self.settings.url))
            if curl.fired_at is not None:
                return FAILED, due, words, curl.fired_at
            if not tries and not self.stopped():
                return FAILED, due, "not called, curl ended before its time with " + words, None
            if code < 0:
                time.sleep(RETRY)
            curl, why_not = self.arm(due, subprocess.DEVNULL)
        return why_not


def start_thread(target, *args):
    """Start a thread that does not keep the program alive. Raises RuntimeError."""
    threading.Thread(target=target, args=args, daemon=True).start()


@contextlib.contextmanager
def places(calls):
    """Give how many curls may be up at once on this machine for that many `calls`, at least 1.

    Half of its memory is theirs, and the descriptors, whose soft limit is raised for as long as
    this lasts, if need be.
    """
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 2 * 1024 ** 3
    most = memory // 2 // CURL_MEMORY
    if WINDOWS:
        yield most
        return
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (MOST_DESCRIPTORS if n == resource.RLIM_INFINITY else n for n in limits)
    wanted = max(soft, min(CURL_DESCRIPTORS * calls + SPARE_DESCRIPTORS, hard, MOST_DESCRIPTORS))
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, limits[1]))
    try:
        yield max(1, min(most, (wanted - SPARE_DESCRIPTORS) // CURL_DESCRIPTORS))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def caught_signals(received):
    """Append the numbers of signals that stop us to the list `received`, for as long as this lasts.

    Those that whoever started this has set to be ignored (nohup, a shell's background job)
    stay ignored; but for SIGCHLD, which would keep the curls' exit codes from us. Outside the main
    thread Python allows none of this, and nothing is done.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGCHLD"):
            number = getattr(signal, name, None)
            handler = signal.SIG_DFL if name == "SIGCHLD" else lambda got, _: received.append(got)
            if number and (signal.getsignal(number) == signal.SIG_IGN) == (name == "SIGCHLD"):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was not set from Python


# ------------------------------------------------------------------------------ log

CALLED, FAILED = "Successfully called", "Failed to call"
MISSED, CANCELLED = "Missed call to", "Cancelled call to"
WARNING = "api_scheduler: %s\n"


def local(moment, offset=""):
    """Return seconds since the epoch as local date and time, with what there is of a fraction.

    `offset` may be a format of time.strftime for what comes behind, as " %z".
    """
    fraction = ("%.6f" % (moment % 1))[1:].rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%d %H:%M:%S" + fraction + offset, time.localtime(moment))


def curl_words(said):
    """Return the reason for a failure out of what curl wrote to standard error."""
    named = re.findall(r"(?m)^curl: (?!try )(?:\([0-9]+\) )?(.*)", said)  # and nothing that -v tells
    return printable((named or ["curl gave no reason"])[-1].strip())[:500]


def without_secrets(words, url=""):
    """Return `words` from outside without what may be a password.

    That is the one in `url`, and whatever stands before an @. A short one is not looked for
    by itself: taken out of common words, it would be told.
    """
    password = re.match(r"[^:]+://[^/?#:]*:([^/?#]{4,})@", url)
    if password:
        words = words.replace(password.group(1), "***")
    before, at, behind = words.rpartition("@")  # `behind` would be searched again from each of its characters
    return re.sub(r"\S*//.*@|'[^']*@|\S+@", "***@", before + at) + behind


def printable(text):
    """Return `text` in one line, with each character that is not printable as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def reason_of(error):
    """Return what went wrong in the system's own words, without number or path."""
    if isinstance(error, UnicodeError):
        return "it must be UTF-8 text (%s)" % error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def stamped(moment, words):
    """Return a line of the log, without its end; `moment` is in seconds since the epoch."""
    return "%s: %s" % (local(int(moment)), words)


def skipped_words(text, reason):
    return "Skipped '%s' (%s)" % (printable(without_secrets(text[:1000])[:80]), reason)


def how_many(count, what="call"):
    return "1 " + what if count == 1 else "%d %ss" % (count, what)


def say(stream, text):
    """Write `text` to a standard stream; False if nobody can read it there any more."""
    try:
        spelt = stream.encoding or "utf-8"
        stream.write(text.encode(spelt, "backslashreplace").decode(spelt))
        stream.flush()
        return True
    except (OSError, ValueError, AttributeError):  # its reader is gone, it is closed, or None
        return False


def warn(text):
    say(sys.stderr, WARNING % printable(text))


class Log:
    """Appends lines to a file, which is opened anew each time: it may be rotated meanwhile.

    Each write is one append, so that several programs can share the file and no line is
    torn. Lines that could not be written are kept, and written before the next ones.
    """

    def __init__(self, path, only_look=False):
        """Raises SetupError if the file cannot be opened. If `only_look`, nothing is ever written."""
        self.path = path
        self.only_look = only_look
        self.unwritten = b""  # whole lines
        self.torn = (), 0  # st_ino and st_size of the file with a part of a line at its end, and that part's bytes
        self.warned = False
        try:
            if not os.path.exists(path) and not os.access(os.path.join(os.path.dirname(path), ""), os.W_OK):
                raise OSError("its folder is not there, or cannot be written to")
            if not only_look or os.path.exists(path):
                open(path, "ab").close()
        except (OSError, ValueError) as error:
            raise SetupError("the log file %s cannot be opened: %s" % (path, reason_of(error))) from None

    def write(self, lines, warn=warn):
        """Append `lines`, which have no ends, and any that are still unwritten."""
        if self.only_look:
            return
        self.unwritten += b"".join(line.encode("utf-8", "backslashreplace") + b"\n" for line in lines)
        unwritten = self.unwritten
        try:
            with open(self.path, "ab", buffering=0) as file:
                self.lock(file, LOCK)
                while self.unwritten:
                    self.append(file)
                self.lock(file, UNLOCK)
        except OSError as error:
            self.unwritten = self.unwritten or unwritten  # network shares tell only at the end: rather twice
            words = "the log file %s cannot be written: %s; the calls go on, and so will the log once it can"
            if not self.warned:
                warn(words % (self.path, reason_of(error)))
            self.warned = True

    def append(self, file):
        """Write what is unwritten in one piece. A line that fits only in part is completed later.

        Or written again as a whole, if the file is another one by then, or was emptied.
        """
        place, there = self.torn
        there = there if place == os.fstat(file.fileno())[1:7:5] else 0
        done = there + file.write(self.unwritten[there:])
        whole = self.unwritten.rfind(b"\n", 0, done) + 1
        self.unwritten = self.unwritten[whole:]
        self.torn = os.fstat(file.fileno())[1:7:5], done - whole

    def lock(self, file, mode):
        """On Windows take the file for this program alone, or give it back.

        There O_APPEND is a seek and then a write, and another program's line may come between.
        """
        give_up = time.monotonic() + PATIENCE
        while WINDOWS:
            try:
                file.seek(2 ** 31 - 2)  # a byte far behind its end stands for the file
                return msvcrt.locking(file.fileno(), mode, 1)
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.005)

    def finish(self):
        """Try a while longer to write what is unwritten: another program may hold the file."""
        give_up = time.monotonic() + PATIENCE
        while self.unwritten and time.monotonic() < give_up:
            time.sleep(RETRY)
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
        self.finished = threading.Event()  # every call has its line, or a warning has said why not
        self.next_due = None
        self.texts = queue.Queue()  # (stream, text): what to print, and None at the end
        self.printing = threading.Thread(target=self.print_texts, daemon=True)

    def report(self, outcomes):
        """Log, count and print what became of calls.

        `outcomes` are tuples: CALLED, FAILED, MISSED or CANCELLED, the due time, a reason or
        "", and when the call was fired or None, both times in seconds since the epoch.
        """
        with self.lock:
            lines, now = [], self.timefunc()
            for what, due, words, stamp in outcomes:
                if what in (MISSED, CANCELLED):
                    words = "due %s%s" % (local(due), "; " + words if words else "")
                line = "%s API at %s%s" % (what, self.url, " (%s)" % words if words else "")
                lines.append(stamped(stamp or now, line))
                if what != CALLED or not self.quiet:
                    self.texts.put((sys.stdout, lines[-1] + "\n"))
                self.counts[what] += 1
            try:
                self.log.write(lines, self.warn)
            finally:
                if sum(self.counts.values()) >= self.calls:
                    self.finished.set()

    def warn(self, text):
        """Have a warning printed, above the status line if there is one."""
        self.texts.put((sys.stderr, WARNING % printable(text)))

    def close(self, stopped):
        """Wait until all is printed, but not for ever once `stopped()`."""
        self.texts.put((sys.stdout, None))
        self.printing.join(PATIENCE)
        while self.printing.is_alive() and not stopped():
            self.printing.join(PATIENCE)

    def print_texts(self):
        """The thread that prints, and redraws the status line each second."""
        text = status = ""  # the second is what stands in the terminal's last line
        while text is not None:
            try:
                stream, text = self.texts.get(timeout=1)
            except queue.Empty:
                stream, text = sys.stdout, ""
            draws = self.draws()
            if status:
                say(sys.stdout, "\r%s\r" % (" " * len(status)))
            say(stream, text or "")
            status = self.status_line() if draws and text is not None else ""
            say(sys.stdout, status)

    def draws(self):
        """Whether there is a terminal for a status line, and no shell's prompt stands there."""
        try:
            ours = WINDOWS or os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
            return ours and not self.quiet and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        except (OSError, AttributeError, ValueError):  # it is not ours, there is none, or it is closed
            return False

    def status_line(self):
        """Return the status: what is next, and how many calls are done, failed and to go."""
        next_due, made, all_made = self.next_due, self.counts[CALLED], sum(self.counts.values())
        text = "%d done, %d failed, %d to go" % (made, all_made - made, self.calls - all_made)
        if next_due is not None:
            wait = datetime.timedelta(seconds=max(0, math.ceil(next_due - self.timefunc())))
            text = "next %s, in %s | %s" % (local(int(next_due)), wait, text)
        return text[: (shutil.get_terminal_size().columns or 80) - 1]  # 0 where a terminal does not know


# ----------------------------------------------------------------------------- main

SPELLING = 'write it in UTF-8, and in a path / and not \\, as in "C:/logs/test.log"'

Settings = collections.namedtuple("Settings", "url log_file timeout grace curl_options")


def parse_arguments(argv):
    """Return the parsed command line. Raises SystemExit as argparse does, and SetupError.

    What follows a bare ``--`` becomes `curl_options`, and argparse does not see it.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    usage = "%(prog)s [options] TIME[, TIME ...] [@FILE ...] [-- CURL_OPTION ...]"
    parser = argparse.ArgumentParser("api_scheduler.py", usage, allow_abbrev=False)
    parser.description = __doc__.partition("\nHow it works")[0]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.error = lambda words: argparse.ArgumentParser.error(parser, without_secrets(words))
    parser.add_argument("--url", type=as_typed, help="what to call (API_URL in config.py)")
    parser.add_argument("--log-file", metavar="FILE", help="where to log, from here (LOG_FILE in config.py)")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="longest time for a call (TIMEOUT)")
    parser.add_argument("--today", action="store_true", help="skip times of day that have passed")
    parser.add_argument("--quiet", action="store_true", help="print only what goes wrong; the log is the same")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and call nothing")
    parser.add_argument("--version", action="version", version="%(prog)s " + __version__)
    arguments, times = parser.parse_known_args(argv[:end])
    unknown = [text for text in times if re.match("-(?![0-9])", text)]  # -05:00 is an offset
    if unknown:
        parser.error("unrecognized argument: %s" % re.match(r"--?[\w-]*", unknown[0]).group())  # no password
    if not times:
        parser.error('no times given; for example: %s "12:30:00, 14:15:30"' % parser.prog)
    arguments.times = list(with_files(times))
    arguments.curl_options = list(map(as_typed, argv[end + 1 :]))
    return arguments


def as_typed(word):
    """Return a word of the command line as UTF-8, whatever the locale took its bytes for: curl's way."""
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def with_files(times):
    """Yield `times` with the lines of ``FILE``, but for comments, in the place of each ``@FILE``.

    A line's end parts times as a comma does. Raises SetupError if a file cannot be read.
    """
    for text in times:
        if text.startswith("@"):
            try:
                with open(text[1:], encoding="utf-8-sig") as file:
                    yield from ("," + line for line in file if not line.lstrip().startswith("#"))
                yield ","
            except (OSError, ValueError) as error:
                raise SetupError("the file %s cannot be read: %s" % (text[1:], reason_of(error))) from None
        else:
            yield text


def read_config(path):
    """Return what config.py sets, a dict, empty if it is not there. Raises SetupError."""
    if not os.path.exists(path):
        return {}  # then the options must say everything
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own show the line, and a password in it
            return runpy.run_path(path)  # not imported: no stale bytecode
    except (Exception, SystemExit) as error:
        hint = "; " + SPELLING if isinstance(error, (SyntaxError, ValueError)) else ""
        reason = "%s: %s%s" % (type(error).__name__, error, hint)
    raise SetupError("%s cannot be read: %s" % (path, without_secrets(reason)))


def load_settings(url=None, log_file=None, timeout=None, curl_options=()):
    """Return the Settings: what is given here, and the rest from config.py beside this file.

    Raises SetupError, naming the setting, if one is missing or wrong.
    """
    values = read_config(os.path.join(HERE, "config.py"))
    given = log_file is not None
    name = "--log-file" if given else "LOG_FILE in config.py"
    log_file = path_in(name, log_file if given else values.get("LOG_FILE"), "" if given else HERE)
    more_options = values.get("CURL_OPTIONS", [])
    for name, words in ("CURL_OPTIONS in config.py", more_options), ("curl_options", curl_options):
        if type(words) not in (list, tuple) or not all(isinstance(w, str) and "\0" not in w for w in words):
            raise SetupError('%s must be a list of texts, as ["-X", "POST"]' % name)
    timeout = values.get("TIMEOUT", 30) if timeout is None else timeout
    grace = values.get("GRACE", 60)
    for name, value in ("TIMEOUT (or --timeout)", timeout), ("GRACE", grace):
        if type(value) not in (int, float) or not 0.001 <= value <= 1e9:
            raise SetupError("%s must be seconds, from 0.001 to 1e9, not %r" % (name, value))
    url = values.get("API_URL", "") if url is None else url
    return Settings(url, log_file, timeout, grace, [*more_options, *curl_options])


def path_in(name, value, folder=""):
    """Return the full path that a setting holds. Raises SetupError if it holds none."""
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else ""
    if not path or not isinstance(path, str) or min(path) < " ":
        raise SetupError("%s must be the path of a file, not %r; %s" % (name, value, SPELLING))
    try:
        return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))
    except OSError:
        raise SetupError("the working directory is gone: give --log-file a full path") from None


def carry_out(groups, settings, log, quiet=False):
    """Make the calls of a plan, or print it if `log` may not be written; return the exit status.

    Raises SetupError before any waiting.
    """
    calls = sum(count for _, count in groups)
    signals = []
    with caught_signals(signals), places(calls) as most:
        asked = ask_curl(settings)
        reporter = Reporter(log, settings.url, calls, quiet)
        warn_of_too_many(groups, most)
        coming = ("%s  %s to %s\n" % (local(due, " %z"), how_many(n), reporter.url) for due, n in groups)
        if log.only_look:
            return 0 if say(sys.stdout, "".join(coming)) else 1
        if reporter.draws():
            reporter.texts.put((sys.stdout, next(coming)))
        reporter.printing.start()
        try:
            Scheduler(groups, settings, asked, reporter, most, signals).run()
        finally:
            log.finish()
            reporter.close(lambda: signals)
    if log.unwritten:
        warn("%s could not be logged to %s" % (how_many(log.unwritten.count(b"\n"), "line"), log.path))
    return 128 + signals[0] if signals else int(reporter.counts[CALLED] != calls)


def call_api(url=None, log_file=None, timeout=None, curl_options=()):
    """Call the API once, now; log and print its line. Return whether the call succeeded.

    What is not given is as in config.py. Raises SetupError, and KeyboardInterrupt after Ctrl-C.
    """
    settings = load_settings(url, log_file, timeout, curl_options)
    status = carry_out([(time.time(), 1)], settings, Log(settings.log_file))
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    return status == 0


def main(argv=None):
    """Do what the command line says; return the exit status (see ``--help``)."""
    now, log = time.time(), None  # at once, so that a time typed for this second is still due now
    try:
        args = parse_arguments(sys.argv[1:] if argv is None else list(argv))
        settings = load_settings(args.url, args.log_file, args.timeout, args.curl_options)
        log = Log(settings.log_file, args.dry_run)
        return schedule(args, settings, log, now)
    except SystemExit as end:  # argparse has said what there is to say
        for stream in (sys.stdout, sys.stderr):
            say(stream, "")
        return end.code or 0
    except (SetupError, RuntimeError) as error:  # the second: there is no room for a thread
        status, words = 2, "Not started (%s)" % error
    except Exception as error:  # a mistake in this file; who runs it gets a line all the same
        status, words = 1, "internal error, please report it: %r" % error
    warn(words)
    if log:
        log.write([stamped(now, printable(words))])
        log.finish()
    return status


def schedule(args, settings, log, now):
    """Plan, and wait and call, or only show the plan; return the exit status.

    Raises SetupError.
    """
    warn_of_zone()
    groups, skipped, tomorrow = plan(args.times, now, args.today, settings.grace)
    skipped = [skipped_words(text, reason) for text, reason in skipped]
    for words in skipped:
        warn(words)
    for text, due in tomorrow.items():
        warn("'%s' has just passed: it is planned for %s" % (text, local(due)))
    log.write([stamped(now, words) for words in skipped])
    if not groups:
        raise SetupError("nothing to do: none of the times is valid and still to come")
    if args.url and without_password(args.url) != args.url:
        warn("other users can see a password given with --url: set API_URL in config.py")
    args.times = []  # 100,000 times take much memory, and waiting is long
    status = carry_out(groups, settings, log, args.quiet)
    return status or int(bool(skipped or log.unwritten))


if __name__ == "__main__":
    if not WINDOWS:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it would stop us where `stty tostop` is set
    os._exit(main())  # the interpreter's own way waits for, or complains of, who reads standard output
