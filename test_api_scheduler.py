"""Tests of api_scheduler.py:  python3 -m unittest
Those of them that wait for nothing:  python3 -m unittest test_api_scheduler.Quick

Needs Python and curl, as the script does; no network, no root, no packages. Decisions about
time are tested with a pretend clock; what only real parts show (arming, signals, descriptors,
the terminal) with the real script, real curl and a server on this machine.
"""

import collections
import concurrent.futures
import contextlib
import ctypes
import datetime
import errno
import http.server
import io
import os
import re
import shutil
import signal
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

import api_scheduler
from api_scheduler import SetupError, due_time, local, parse_time, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
CURL = shutil.which("curl")
POSIX = os.name == "posix"
WINE = not POSIX and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
PATIENCE = 30  # seconds until a test gives up waiting; nothing takes this long when it works
SOON = r"SOON\+([0-9.]+)"
LATER = "2199-01-01T00:00:00"  # a time that is always to come, and has not just passed
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
NEW_YORK = "EST5EDT,M3.2.0,M11.1.0"  # 2026: clocks go forward on 8 March, back on 1 November


# ------------------------------------------------------------------- what tests are made of

# Runs the script as a program. SOON+1.5 stands for 1.5 seconds after it is up, so that no
# test depends on how fast it starts: what the script imports is loaded by then.
RUNNER = """
import datetime, os, re, sys, time
path = sys.argv[1]
with open(path, encoding="utf-8") as file:
    code = compile(file.read(), path, "exec")
exec(code, {"__name__": "loaded", "__file__": path})
base = time.time() + 0.2
with open(path + ".base", "w") as file:
    file.write(repr(base))
def moment(match):
    when = base + float(match.group(1))
    return datetime.datetime.fromtimestamp(when, datetime.timezone.utc).isoformat()
sys.argv = [re.sub(%r, moment, argument) for argument in sys.argv[1:]]
exec(code, {"__name__": "__main__", "__file__": path})
""" % SOON


def setUpModule():
    """Have signals as in a terminal: nohup and a shell's job in the background ignore some."""
    for name in ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def soon(after=0.2):
    """Return the time in so many seconds."""
    return datetime.datetime.fromtimestamp(time.time() + after, datetime.timezone.utc).isoformat()


def instant(text):
    return parse_time(text).timestamp()


def set_zone(test, name):
    """Set the local time zone, as a POSIX zone string, until the test ends."""
    if not hasattr(time, "tzset"):
        test.skipTest("the zone cannot be set here")
    patch = mock.patch.dict(os.environ, TZ=name)
    patch.start()
    test.addCleanup(time.tzset)  # the last to be done
    test.addCleanup(patch.stop)
    time.tzset()


Request = collections.namedtuple("Request", "time method path headers body")


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """An HTTP server on this machine that remembers when it was asked for what."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, certificate=None):
        self.requests = []
        self.news = threading.Condition()
        self.release = threading.Event()  # until then /slow does not answer
        super().__init__(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = "%s://127.0.0.1:%d" % ("https" if certificate else "http", self.server_port)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self):
        self.release.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a curl that was killed, or that did not trust the certificate

    def wait_for(self, count):
        """Return the first `count` requests, as soon as they have come."""
        with self.news:
            if not self.news.wait_for(lambda: len(self.requests) >= count, PATIENCE):
                raise AssertionError("%d requests, not %d" % (len(self.requests), count))
            return self.requests[:count]


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.news:
            self.server.requests.append(Request(time.time(), self.command, self.path, self.headers, body))
            self.server.news.notify_all()
        what, _, rest = self.path[1:].partition("/")
        if what == "slow":
            self.server.release.wait(2 * PATIENCE)
        moved = {"moved": 301, "redirect": 302}.get(what)
        self.send_response(int(rest) if what == "status" else moved or 200)
        if moved:
            self.send_header("Location", rest)
        content = bytes(1 << 20) if what == "large" else b"ok"
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = answer

    def log_message(self, *args):
        pass


class Folder(unittest.TestCase):
    """A test with a folder of its own for the script, config.py and the log, and a server to call."""

    def setUp(self):
        if POSIX:  # a test that hangs fails
            signal.signal(signal.SIGALRM, lambda *_: self.fail("it hangs"))
            signal.alarm(2 * PATIENCE)
            self.addCleanup(signal.alarm, 0)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not re.match(r"(?i).*_proxy$|CURL|SSL_CERT|XDG|NO_COLOR|PYTHON|TERM$", name)
        }
        homes = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA"), self.folder)  # where curl looks for its own
        self.environ.update(homes, PYTHONDONTWRITEBYTECODE="1", TERM="xterm")
        self.server = Server()
        self.addCleanup(self.server.close)
        self.config()
        self.script = self.path("api_scheduler.py")
        shutil.copy(os.path.join(HERE, "api_scheduler.py"), self.script)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        return self.path(name)

    def config(self, path="", **settings):
        """Write a config.py that calls `path` of the server."""
        settings = dict({"API_URL": self.server.url + path, "LOG_FILE": "test.log"}, **settings)
        self.write("config.py", "".join("%s = %r\n" % item for item in settings.items()))

    def log(self, name="test.log"):
        """Return the lines of the log, none if there is no log."""
        if not os.path.exists(self.path(name)):
            return []
        with open(self.path(name), encoding="utf-8") as file:
            return file.read().splitlines()

    def main(self, *arguments):
        """Run the script to its end, in this process; return exit status, standard output and error."""
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.dict(os.environ, self.environ, clear=True):
            with mock.patch.object(api_scheduler, "HERE", self.folder):
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    status = api_scheduler.main(arguments)
        self.assertNotRegex(err.getvalue(), "Traceback|internal error")
        return status, out.getvalue(), err.getvalue()

    def refused(self, *arguments):
        """Run what cannot be started; return what standard error says."""
        status, out, err = self.main("--dry-run", *arguments)
        self.assertEqual((status, out), (2, ""), err)
        return err

    def call(self, path="/", *arguments):
        """Call `path` once, right now; return the exit status and the line in the log."""
        self.config(path)
        status, out, err = self.main(soon(), *arguments)
        self.assertEqual(out, self.log()[-1] + "\n", err)
        return status, self.log()[-1]

    def wrap_curl(self, text, then='exec "%s" "$@"' % CURL):
        """Put a shell script in the place of curl, which does what `text` says, and then becomes curl."""
        if not POSIX:
            self.skipTest("a shell script in the place of curl needs POSIX")
        if not os.path.exists(self.path("bin")):
            os.mkdir(self.path("bin"))
            os.mkfifo(self.path("alive"))  # it and what it starts hold this open for as long as they live
            self.alive = os.open(self.path("alive"), os.O_RDONLY | os.O_NONBLOCK)
            self.addCleanup(os.close, self.alive)
        text = '#!/bin/sh\nexec 9<>"%s"\n%s\n%s\n' % (self.path("alive"), text, then)
        path = self.write(os.path.join("bin", "curl"), text)
        os.chmod(path, 0o755)
        self.environ["PATH"] = self.path("bin") + os.pathsep + os.environ["PATH"]

    def wait_for_the_end_of_curls(self):
        os.set_blocking(self.alive, True)
        self.assertEqual(os.read(self.alive, 1), b"")

    def spy_on_curl(self, asked=False):
        """Have each armed curl announced; return a function that waits for the next ones.

        The function returns a dict from their process ids, as texts, to their command lines. They are
        real: a shell becomes curl. The first curl of each program is only `asked`.
        """
        self.wrap_curl(
            'cd "%s"\ncase "$*" in *--version) ;; *)\n' % self.folder
            + 'if [ -e asked$PPID ]; then echo "$$ $*" >armed; else : >asked$PPID; fi\nesac'
        )
        os.mkfifo(self.path("armed"))
        stream = open(os.open(self.path("armed"), os.O_RDWR))
        self.addCleanup(stream.close)
        if asked:
            self.write("asked%d" % os.getpid(), "")
        return lambda count: dict(stream.readline().split(" ", 1) for _ in range(count))

    def command(self, *arguments):
        return [sys.executable, "-c", RUNNER, self.script] + list(arguments)

    def due(self, text):
        """Return when a time that begins with SOON was due, in the last program that came up."""
        with open(self.script + ".base") as file:
            return float(file.read()) + float(re.match(SOON, text).group(1))

    def start(self, *arguments, shell=None, command=None, **options):
        """Start the script or another command, after what a shell does first, until the test ends."""
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        settings = dict(streams, env=self.environ, cwd=self.folder, stdin=subprocess.DEVNULL)
        settings.update(options)
        command = command or self.command(*arguments)
        if shell:
            command = ["sh", "-c", shell + '; exec "$@"', "sh"] + command
        program = subprocess.Popen(command, universal_newlines=True, **settings)
        self.addCleanup(program.__exit__, None, None, None)
        self.addCleanup(program.kill)  # first
        return program

    def finish(self, program):
        """Wait for the end of a program; return its exit status, standard output and error."""
        out, err = program.communicate(timeout=PATIENCE)
        self.assertNotRegex(err or "", "Traceback|internal error")
        return program.returncode, out, err

    def run_script(self, *arguments, **options):
        return self.finish(self.start(*arguments, **options))


class Parse(unittest.TestCase):
    def parsed(self, timestamps, **options):
        """Return the times in `timestamps`, and what was said about those that are none."""
        with contextlib.redirect_stderr(io.StringIO()) as said:
            times = api_scheduler.parse_timestamps(timestamps, **options)
        return times, said.getvalue()

    def test_times_of_day_come_in_the_order_given_from_a_string_or_a_list_and_can_be_grouped(self):
        noon, late = datetime.time(12), datetime.time(9, 5, 59)
        for given in ("12:00:00, 9:05:59,,12:00:00, ", ["12:00:00", " ,09:05:59, 12:00:00"]):
            self.assertEqual(self.parsed(given), ([noon, late, noon], ""))
        self.assertEqual(api_scheduler.group_by_time([noon, late, noon]), {noon: [noon, noon], late: [late]})

    def test_iso_date_times_become_aware_datetimes(self):
        half_past_two = datetime.datetime(2026, 8, 1, 14, 30, tzinfo=datetime.timezone.utc)
        for text in (
            "2026-08-01T14:30:00Z", "2026-08-01t14:30z", "2026-08-01 14:30:00+00:00",
            "2026-08-01T20:00:00+05:30", "2026-08-01T20:00:00+0530", "2026-08-01T11:30:00-03",
        ):  # fmt: skip
            with self.subTest(text):
                (moment,), said = self.parsed(text)
                self.assertEqual((moment, said), (half_past_two, ""))
                self.assertIsNotNone(moment.tzinfo)
        ((moment,), _) = self.parsed("2026-08-01T14:30:00.25Z")
        self.assertEqual(moment - half_past_two, datetime.timedelta(seconds=0.25))

    def test_an_iso_date_time_without_offset_is_local(self):
        set_zone(self, NEW_YORK)
        ((moment,), _) = self.parsed("2026-08-01T14:30:00")
        self.assertEqual(moment.utcoffset(), datetime.timedelta(hours=-4))

    def test_what_is_no_time_is_left_out_with_a_warning_that_names_it(self):
        for bad in (
            "25:00:00", "12:60:00", "12:00:60", "noon", "12:30:00Z", "-1:00:00", "2026-02-30T00:00:00Z",
            "2026-08-01T14:30:00+25:00", "2026-08-01T14:30:00+05:99", "\u0661\u0662:30:00", "13:00 PM", "14:30 x",
        ):  # fmt: skip
            with self.subTest(bad):
                times, said = self.parsed("12:30:00," + bad)
                self.assertEqual(times, [datetime.time(12, 30)])
                self.assertIn("Skipped '%s' (" % bad.replace("\n", "\\n"), said)
                self.assertEqual(self.parsed(bad, suppress_print=True), ([], ""))

    def test_what_was_torn_apart_is_joined_if_it_has_one_meaning_and_else_skipped_with_all_it_may_belong_to(self):
        set_zone(self, NEW_YORK)
        dated = datetime.datetime(2026, 12, 27, 5, 22, 19, tzinfo=datetime.timezone.utc)
        half_past_two, noon = datetime.time(14, 30), datetime.time(12)
        for given, times in (
            (["2026-12-27", "00:22:19"], [dated]), (["2026-12-27\t00:22:19, 12:00"], [dated, noon]),
            (["2026-12-27", "00:22:19", "2026-12-27", "00:22:19"], [dated, dated]),
            (["2026-12-26 22:22:19 -07:00"], [dated]), (["2026-12-27", "05:22:19", "UTC"], [dated]),
            (["2:30:00", "PM"], [half_past_two]), (["2:30 p.m., 12:00 pm"], [half_past_two, noon]),
            (["12:00:00", "nonsense", "14:30"], [noon, half_past_two]), (["25:00:00", "12:00"], [noon]),
            (["12:00 14:30:00"], [noon, half_past_two]), (["12:00 AM"], [datetime.time()]),
            (["12:00, 2026-12-27, 00:22:19"], []), (["12:00", "2026-12-27", "00:22:19"], []),
            (["2:30:00", "nonsense", "PM", "x"], [half_past_two]), (["2:30", "3:30", "PM"], []),
            (["12:00:00,500"], []), (["2026-12-27T14:30:00,123+02:00"], []), (["Dec 27, 2026 00:22:19"], []), (["12:00", "CET"], []),
            (["12:00", "Europe/Berlin"], []), (["27.12.2026", "12:00"], []), (["12:00", "+02:00"], []),
            (["tomorrow", "12:00"], []), (["2:30,,nonsense, PM, 13:00, 12:00"], [noon]),
            (["12:00 \u5348\u5f8c"], []), (["Sat.", "12:00"], []), (["12:00:00", ".5"], []), (["12:00", "cet"], []),
            (["2026-12-27 00:22:19", "14:30"], [dated, half_past_two]), (["12:00", "(Berlin)"], []),
            (["8:30", "p"], []), (["2026-12-26", "22:22:19", "-07:00"], [dated]), (["on Friday, 12:00"], []),
        ):  # fmt: skip
            with self.subTest(given):
                self.assertEqual(self.parsed(given, suppress_print=True), (times, ""))


class Plan(unittest.TestCase):
    def test_a_time_of_day_is_due_at_its_next_occurrence_also_around_a_clock_change(self):
        set_zone(self, NEW_YORK)
        for now, text, due in (
            ("2026-11-22 12:30:00", "12:30:01", "2026-11-22 12:30:01"),
            ("2026-11-22 12:30:00", "23:59:59", "2026-11-22 23:59:59"),
            ("2026-11-22 12:30:00", "12:30:00", "2026-11-22 12:30:00"),  # this second is not over yet
            ("2026-11-22 12:30:00", "12:29:59", "2026-11-23 12:29:59"),
            ("2026-12-31 12:30:00", "00:00:00", "2027-01-01 00:00:00"),
            ("2026-03-08 00:00:00", "02:30:00", "2026-03-08 03:30:00"),  # 02:00 to 03:00 does not exist
            ("2026-03-08 03:10:00", "02:30:00", "2026-03-08 03:30:00"),
            ("2026-03-07 12:00:00", "02:30:00", "2026-03-08 03:30:00"),
            ("2026-03-07 12:00:00", "11:00:00", "2026-03-08 11:00:00"),  # the day has 23 hours
        ):
            with self.subTest(now=now, text=text):
                self.assertEqual(local(due_time(parse_time(text), instant(now) + 0.9)), due)
        self.assertEqual(instant("2026-03-08T02:30:00"), instant("2026-03-08T03:30:00-04:00"))

    def test_of_a_time_that_comes_twice_the_first_is_meant(self):
        set_zone(self, NEW_YORK)  # 01:00 to 02:00 comes twice on 1 November
        half_past_one, first = datetime.time(1, 30), instant("2026-11-01T01:30:00-04:00")
        self.assertEqual(due_time(half_past_one, instant("2026-11-01 00:00:00")), first)
        self.assertEqual(instant("2026-11-01T01:30:00"), first)
        between = instant("2026-11-01T01:10:00-05:00")  # the first has passed
        self.assertEqual(due_time(half_past_one, between), instant("2026-11-02 01:30:00"))

    def test_what_has_passed_is_refused_if_it_has_a_date_or_only_today_is_meant(self):
        now = instant("2026-08-01T14:30:00.5Z")
        self.assertEqual(due_time(parse_time("2026-08-01T14:30:00Z"), now), now - 0.5)
        with self.assertRaisesRegex(ValueError, "passed"):
            due_time(parse_time("2026-08-01T14:29:59Z"), now)
        noon = datetime.datetime(2026, 8, 1, 12).timestamp()
        self.assertEqual(due_time(datetime.time(12), noon, True), noon)
        with self.assertRaisesRegex(ValueError, "passed today"):
            due_time(datetime.time(11, 59, 59), noon, True)

    def test_groups_come_in_order_of_time_and_the_same_instant_is_one_group(self):
        set_zone(self, "UTC0")
        groups, skipped, _ = api_scheduler.plan(
            ["14:00:00,12:30:00", "noon", "2026-11-22T14:30:00+02:00,12:30:00"],
            instant("2026-11-22 10:00:00"),
        )
        self.assertEqual(groups, [(instant("2026-11-22 12:30:00"), 3), (instant("2026-11-22 14:00:00"), 1)])
        self.assertEqual([text for text, _ in skipped], ["noon"])
        groups, skipped, _ = api_scheduler.plan(["00:00:00"], instant("9999-12-31 12:00:00"))
        self.assertEqual((groups, len(skipped)), ([], 1))

    def test_now_and_what_comes_after_count_from_the_start(self):
        for text, after in (
            ("now", 0), ("NOW", 0), ("+10s", 10), ("+5m", 300), ("+1h", 3600), ("+1h30m", 5400), ("+0.25s", 0.25),
        ):  # fmt: skip
            ((due, count),), skipped, _ = api_scheduler.plan([text], 1000000.0005)
            self.assertEqual((due, count, skipped), (1000000.001 + after, 1, []), text)

    def test_a_time_of_day_that_has_just_passed_is_told(self):
        set_zone(self, "UTC0")
        for now, text, due in (
            ("2026-11-22 12:30:03", "12:30:00", "2026-11-23 12:30:00"),
            ("2026-11-22 12:30:00", "12:30:00", None),  # it is due now
            ("2026-11-22 12:31:03", "12:30:00", None),
            ("2026-11-23 00:00:20", "12:30:00", None),
            ("2026-11-23 00:00:20", "23:59:50", "2026-11-23 23:59:50"),
        ):
            with self.subTest(now=now, text=text):
                _, _, tomorrow = api_scheduler.plan([text], instant(now), grace=60)
                self.assertEqual(tomorrow, {text: instant(due)} if due else {})

    def test_arming_leaves_room_for_every_group_behind(self):
        cost, margin = api_scheduler.ARM_SECONDS_PER_CALL, api_scheduler.ARM_MARGIN
        small, large = api_scheduler.arming_times([(1000, 1), (1001, 500)])
        self.assertAlmostEqual(large, 1001 - margin - 500 * cost)
        self.assertAlmostEqual(small, large - cost)
        self.assertEqual(api_scheduler.arming_times([(1000, 10 ** 6)]), [1000 - api_scheduler.ARM_EARLIEST])

    def test_the_first_group_that_is_late_by_arming_is_told(self):
        if api_scheduler.WINDOWS:
            self.skipTest("the figures are those of 20 ms for each curl")
        for groups, most, told in (
            ([(1000, 1), (1001, 2300)], 5000, None),
            ([(1000, 3500)], 5000, ("3500", "3000")),
            ([(1000, 3500)], 40, ("3500", "40")),
            ([(1000 + n, 2500) for n in range(4)], 5000, ("2500", "550")),
            ([(1000, 2500), (1100, 2500)], 5000, None),
        ):
            with self.subTest(groups), contextlib.redirect_stderr(io.StringIO()) as said:
                api_scheduler.warn_of_too_many(groups, most)
                found = re.search(r"(\d+) calls are due at .* about (\d+) can be made ready", said.getvalue())
                self.assertEqual(found and found.groups(), told)

    @unittest.skipUnless(hasattr(os, "sysconf"), "the system does not tell how much memory it has")
    def test_half_of_the_memory_is_for_curls_but_there_is_always_room_for_one(self):
        for pages, most in ((1 << 14, 16), (0, 1)):
            with mock.patch.object(os, "sysconf", lambda name: pages if "PHYS" in name else 4096):
                with api_scheduler.places(100) as found:
                    self.assertEqual(found, most)

    @unittest.skipUnless(POSIX, "there is no such limit")
    def test_a_limit_on_descriptors_is_raised_for_as_long_as_it_is_needed(self):
        import resource

        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        low = 100, before[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, low)
        with api_scheduler.places(100):
            self.assertGreater(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 200)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), low)


class PretendClock:
    """A wall clock that moves only when told, or when somebody sleeps by it, and then may jump."""

    def __init__(self, now=1000000.0, **jumps):
        self.now, self.jumps = now, jumps
        self.reads = 0
        self.sleeps = []

    def __call__(self):
        self.reads += 1
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds + self.jumps.get("after_%d" % len(self.sleeps), 0)


class Wait(unittest.TestCase):
    def test_it_ends_when_the_time_has_come_and_not_before(self):
        clock = PretendClock()
        self.assertTrue(wait_until(clock.now + 7200.25, clock, clock.sleep))
        self.assertEqual(clock.now, 1000000 + 7200.25)
        self.assertLessEqual(max(clock.sleeps), 1)
        for hour in range(1, 100):  # and nothing adds up
            wait_until(1000000 + 7200.25 + hour, clock, clock.sleep)
            self.assertEqual(clock.now, 1000000 + 7200.25 + hour)

    def test_a_sleep_that_ends_early_is_followed_by_another(self):
        clock = PretendClock()
        wait_until(1000001, clock, lambda seconds: clock.sleep(seconds * 0.9 + 1e-6))
        self.assertGreaterEqual(clock.now, 1000001)

    def test_a_clock_that_is_set_makes_it_no_earlier_and_is_noticed_within_a_second(self):
        clock = PretendClock(after_5=-3600)
        wait_until(1000010, clock, clock.sleep)
        self.assertEqual(clock.now, 1000010)
        self.assertGreater(sum(clock.sleeps), 3600)
        clock = PretendClock(after_5=7200)  # a suspended machine is the same
        wait_until(1007200, clock, clock.sleep)
        self.assertEqual(len(clock.sleeps), 5)

    def test_it_takes_times_of_day_and_date_times(self):
        moment = datetime.datetime.fromtimestamp(1000060)
        for when in (moment, moment.time()):
            clock = PretendClock()
            wait_until(when, clock, clock.sleep)
            self.assertEqual(clock.now, 1000060)

    def test_it_ends_at_once_when_stopped(self):
        self.assertFalse(wait_until(time.time() + 3600, stopped=lambda: True))


class Words(unittest.TestCase):
    def test_what_is_no_http_url_is_refused_and_a_password_in_it_not_repeated(self):
        for url in (
            "http://h", "https://h:8080/a?b=c&d={e}#f", "HTTP://[::1]:80/", "http://me:p%40ss@h/",
            'http://h/"quoted\\', "http://b\u00fccher.example/", "http://h:65535/",
        ):  # fmt: skip
            api_scheduler.check_url(url)
        for url in (
            None, "", 5, "example.org", "ftp://h/", "file:///etc/passwd", "http://", "http:///x",
            "http://h/a b", "http://h/\n", 'http://h/\noutput = "x"', "http://h/\x00", "http://h/\x7f",
            "http://h/\u2028", "http://h:port/", "http://h:65536/", "http://me:12/34@h/",
            "http://me:12#34@h/", b"http://h/", "http://h/" + "x" * 8000, "http://h/\udc80",
            "http://me:sec/ret@h/", "http://me:sec#ret@h/", "http://me:sec ret@h/", "http://me:sec@ret@h/",
        ):  # fmt: skip
            with self.subTest(url):
                with self.assertRaises(SetupError) as caught:
                    api_scheduler.check_url(url)
                self.assertNotRegex(str(caught.exception), "sec|ret@")

    def test_passwords_are_hidden_and_curls_reason_is_found_and_put_into_one_printable_line(self):
        hidden, secrets = api_scheduler.without_password, api_scheduler.without_secrets
        words = api_scheduler.curl_words
        for function, given, result in (
            (hidden, ["http://me:secret@h:80/p?q=1"], "http://me:***@h:80/p?q=1"),
            (hidden, ["http://me:se@cr:et@h/"], "http://me:***@h/"),
            (hidden, ["http://:secret@h/"], "http://:***@h/"),
            (hidden, ["http://me@h/"], "http://me@h/"),
            (hidden, ["https://h/p:q@r"], "https://h/p:q@r"),
            (secrets, ["no host se%63ret or se%63ret@h", "http://me:se%63ret@h/"], "no host *** or ***@h"),
            (secrets, ["Failed to connect to e@h", "http://me:e@h/"], "Failed to connect to ***@h"),
            (secrets, ["Unsupported syntax in 'http://me:sec ret@p:x'"], "Unsupported syntax in ***@p:x'"),
            (secrets, ["bad proxy me:secret@p"], "bad proxy ***@p"),
            (secrets, ["Could not resolve host: h"], "Could not resolve host: h"),
            (words, ["curl: (6) Could not resolve host: x\n"], "Could not resolve host: x"),
            (words, ["* verbose\ncurl: (60) SSL problem\nMore details here: x\n\nand more\n"], "SSL problem"),
            (words, ["curl: no URL specified!\ncurl: try 'curl --help'\n"], "no URL specified!"),
            (words, [""], "curl gave no reason"),
            (words, ["curl: (1) \x1b[31mred\x07\r\n"], "\\x1b[31mred\\x07"),
        ):
            with self.subTest(given):
                self.assertEqual(function(*given), result)


class Setup(Folder):
    def test_a_dry_run_prints_the_plan_and_calls_and_writes_nothing(self):
        self.config(API_URL=self.server.url.replace("://", "://me:secret@"))
        shown = self.server.url.replace("://", "://me:***@")
        times = "2199-01-02T12:30:00, 2199-01-01T12:30:00.5, 2199-01-02T12:30:00"
        status, out, err = self.main("--dry-run", times)
        self.assertEqual((status, err), (0, ""))
        first, second = out.splitlines()
        self.assertRegex(first, r"^2199-01-01 12:30:00\.5.*  1 call to %s$" % re.escape(shown))
        self.assertRegex(second, r"^2199-01-02 12:30:00.*  2 calls to %s$" % re.escape(shown))
        status, _, err = self.main("--dry-run", times, "noon")
        self.assertEqual((status, "Skipped 'noon'" in err), (1, True))
        self.assertEqual((self.server.requests, self.log()), ([], []))

    def test_a_dry_run_finds_what_a_start_would_be_refused_or_warned_for(self):
        crowd = self.write("crowd.txt", "2199-01-01T00:00:00\n" * 6000)
        status, out, err = self.main("--dry-run", "@" + crowd)
        self.assertEqual((status, out.count("6000 calls")), (0, 1))
        self.assertRegex(err, r"6000 calls are due at .*, and about \d+ can be made ready")
        for path in (self.path("nothing", "x.log"), self.path("crowd.txt", "x.log")):
            refused = self.refused(LATER, "--log-file", path)
            self.assertIn("x.log cannot be opened", refused)
            self.assertEqual(self.main(LATER, "--log-file", path)[2], refused)  # a start says the same
            self.assertFalse(os.path.exists(self.path("nothing")))

    def test_a_zone_that_is_not_known_is_told_and_a_dry_run_shows_each_offset(self):
        for zone, offsets, told in (
            (NEW_YORK, ("-0500", "-0400"), False), ("UTC0", ("+0000", "+0000"), False),
            ("Europe/Berln", ("+0000", "+0000"), True), ("utc", ("+0000", "+0000"), False),
        ):  # fmt: skip
            set_zone(self, zone)
            self.environ["TZ"] = zone
            status, out, err = self.main("--dry-run", "2199-01-01 00:00, 2199-07-01 00:00")
            self.assertEqual((status, "TZ" in err and zone in err), (0, told))
            self.assertEqual(re.findall(r"00:00:00 (\S+)  1 call to", out), list(offsets))

    def test_a_curl_that_does_not_run_is_told_with_its_words_and_what_a_loader_warns_of_is_no_refusal(self):
        self.wrap_curl('echo "$0: error while loading shared libraries: libcurl.so.4" >&2', then="exit 127")
        self.assertRegex(self.refused(LATER), "does not run: .*shared libraries: libcurl.so.4")
        self.wrap_curl('echo "curl: /lib/libcurl.so.4: no version information available" >&2')
        self.assertRegex(self.call("/status/404")[1], r"\(exit code 22: .*404")

    def test_100000_times_can_come_from_a_file_with_comments_beside_others(self):
        first = datetime.datetime(2199, 1, 1)
        times = [(first + datetime.timedelta(seconds=n)).isoformat() for n in range(100000)]
        self.write("times.txt", "\ufeff%s\n\n# a comment\n%s" % ("\n".join(times[9:]), ",".join(times[:9])))
        status, out, err = self.main("2199-12-31T00:00:00", "--dry-run", "@" + self.path("times.txt"))
        self.assertEqual((status, out.count("  1 call to "), err), (0, 100001, ""))

    def test_without_a_valid_time_nothing_is_started_and_each_is_named_and_logged_once(self):
        bad = "25:00:00", "\\x1b[31mred", "2020-01-01T00:00:00Z", "2026/11/22 12:00:00"
        urls = "http://me:hun,ter2@h/", "me:ter2,hun@h", "127.0.0.1/x?key=hunter2", "localhost:80/hunter2"
        status, out, err = self.main(", ".join(bad).replace("\\x1b", "\x1b"), *urls)
        self.assertEqual((status, out), (2, ""))
        for word in bad:
            for said in (err, "".join(self.log())):
                self.assertEqual(said.count("Skipped '%s' (" % word), 1)
        self.assertEqual(len([line for line in self.log() if "a URL is given with --url" in line]), 4)
        self.assertRegex(self.log()[-1], "^%s: Not started .*nothing to do" % STAMP)
        self.assertNotRegex(err + "".join(self.log()), "\x1b|ter2")

    def test_a_time_of_day_that_has_passed_is_tomorrow_and_told_or_skipped_if_today_is_meant(self):
        self.environ["TZ"] = "XXX%+d" % (time.gmtime().tm_hour - 12)  # where it is about noon
        set_zone(self, self.environ["TZ"])
        passed = time.strftime("%H:%M:%S", time.localtime(time.time() - 3))
        status, out, err = self.main("--dry-run", passed)
        self.assertEqual(status, 0)
        self.assertIn("planned for " + out[:19], err)
        self.assertIn("passed today", self.refused("--today", "00:00:00"))

    def test_what_is_wrong_in_config_py_is_told_by_name(self):
        for settings, words in (
            ({"TIMEOUT": 0}, "TIMEOUT"), ({"TIMEOUT": 0.0005}, "from 0.001 to 1e9, not 0.0005"),
            ({"TIMEOUT": "30"}, "TIMEOUT"), ({"GRACE": -1}, "GRACE"), ({"GRACE": True}, "GRACE"),
            ({"CURL_OPTIONS": "-k"}, "CURL_OPTIONS"), ({"CURL_OPTIONS": [1]}, "CURL_OPTIONS"),
            ({"CURL_OPTIONS": ["-A", "a\0b"]}, "CURL_OPTIONS"), ({"LOG_FILE": 5}, "LOG_FILE"),
            ({"LOG_FILE": "C:\temp"}, "C:/logs/test.log"), ({"LOG_FILE": ""}, "LOG_FILE"),
            ({"LOG_FILE": b"x"}, "LOG_FILE"), ({"LOG_FILE": "a\0b"}, "LOG_FILE"),
            ({"LOG_FILE": "missing/test.log"}, "missing"), ({"LOG_FILE": "."}, "cannot be opened"),
            ({"API_URL": ""}, "API_URL"), ({"API_URL": "h"}, "http://"),
        ):  # fmt: skip
            with self.subTest(settings):
                self.config(**settings)
                self.assertIn(words, self.refused(LATER))

    def test_a_config_py_that_cannot_be_read_is_named_with_the_reason_and_without_passwords(self):
        for text, words in (
            ("API_URL = 'http://h/'\nLOG_FILE = \n", r"config\.py .*line 2"),
            ('LOG_FILE = "C:\\Users\\me\\test.log"', "C:/logs/test.log"),
            ("LOG_FILE = 'x'\nTOKEN = open('/missing/token')\n", "/missing/token"),
            ("API_URL = int('http://me:sec/ret@h/')", "config.py"),
            ("import nothing_of_this_name", "nothing_of_this_name"),
            ("raise SystemExit", "SystemExit"),
            ("", "LOG_FILE"),
        ):
            with self.subTest(text):
                self.write("config.py", text)
                err = self.refused(LATER, "--url", "http://h/")
                self.assertRegex(err, words)
                self.assertNotIn("sec/ret", err)
        with open(self.path("config.py"), "w", encoding="utf-16") as file:  # as PowerShell's > writes it
            file.write("API_URL = 'http://h/'\n")
        self.assertIn("UTF-8", self.refused(LATER))
        os.remove(self.path("config.py"))
        self.assertIn("LOG_FILE", self.refused(LATER))
        self.write("config.py", "API_URL = 'http://me:se\\cret@h/'\nLOG_FILE = 'test.log'")
        self.assertEqual(self.main("--dry-run", LATER)[::2], (0, ""))

    def test_what_is_wrong_on_the_command_line_is_told_by_name(self):
        with open(self.path("latin1"), "wb") as file:
            file.write(b"12:30:00 # \xe9")
        with open(self.path("utf16"), "wb") as file:
            file.write("12:30:00\n\u20ac".encode("utf-16"))
        self.write("option", "--url=%s\n" % self.server.url)
        for arguments, words in (
            ([], "no times"), ([LATER, "--no-such"], "--no-such"), ([LATER, "--timeout", "nan"], "--timeout"),
            ([LATER, "--timeout", "never"], "--timeout"), ([LATER, "--url", "http://h/\n"], "URL"),
            ([LATER, "--url", "http://[zz]/"], "no valid host"), (["@missing.txt"], "missing.txt"),
            ([LATER, "--ur=http://me:hunter2@h/"], "unrecognized"), (["@" + self.path("utf16")], "UTF-8"),
            (["@" + self.path("latin1")], "latin1"), (["@" + self.path("option")], "Skipped"),
            (["@."], "directory" if POSIX else "denied"),
        ):  # fmt: skip
            with self.subTest(arguments):
                err = self.refused(*arguments)
                self.assertIn(words, err)
                self.assertNotIn("hunter2", err)

    def test_settings_from_python_that_are_none_are_refused(self):
        for arguments in (
            {"curl_options": [5]}, {"curl_options": "-k"}, {"log_file": 5}, {"log_file": b"x"},
            {"timeout": "1"}, {"url": 5}, {"url": "http://h/\ud800"},
        ):  # fmt: skip
            with self.subTest(arguments), mock.patch.object(api_scheduler, "HERE", self.folder):
                with self.assertRaises(SetupError):
                    api_scheduler.call_api(**arguments)

    def test_curl_is_taken_from_path_and_not_from_the_current_folder_and_must_run(self):
        name = "curl" if POSIX else "curl.exe"
        for folder in (self.folder, self.path("bin")):
            os.makedirs(folder, exist_ok=True)
            shutil.copy(CURL, os.path.join(folder, name))
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        with mock.patch.dict(os.environ, PATH=os.pathsep + self.path("bin")):
            self.assertEqual(os.path.dirname(api_scheduler.find_curl()), self.path("bin"))
        os.chdir(HERE)
        self.write(os.path.join("bin", name), "\x00 no program")
        self.environ["PATH"] = self.path("bin")
        self.assertIn("curl could not be started", self.refused(LATER))
        os.remove(self.path("bin", name))
        self.assertRegex(self.refused(LATER), "curl was not found .*install it")
        os.rmdir(self.path("bin"))
        self.wrap_curl("sleep 9")
        with mock.patch.object(api_scheduler, "ASK_TIMEOUT", 0.1):
            self.assertIn("does not come back", self.refused(LATER))

    def test_a_mistake_of_ours_is_one_line_too(self):
        stderr = io.StringIO()
        with mock.patch.object(api_scheduler, "plan", side_effect=ZeroDivisionError("why")):
            with contextlib.redirect_stderr(stderr):
                status = api_scheduler.main([LATER, "--dry-run"])
        self.assertEqual(status, 1)
        self.assertRegex(stderr.getvalue(), r"^api_scheduler: internal error, .*why.*\n$")

    def test_version_and_help(self):
        self.assertEqual(self.main("--version"), (0, "api_scheduler.py %s\n" % api_scheduler.__version__, ""))
        status, out, _ = self.main("--help")
        self.assertEqual((status, "--dry-run" in out), (0, True))


class Options(Folder):
    """What stands behind -- for curl. Nothing of it can make more or less than one call."""

    def test_what_is_refused_is_named_at_once_without_a_password_and_nothing_is_called(self):
        other, missing = self.server.url, self.path("folder" * 20, "missing.json")
        cases = [
            ("a URL is given with --url", ["http://h/"], ["-H", "-s", other], ["--", other], ["-"], [""]),
            ("no file", ["-T/dev/stdin"], ["-F", 'a=@"/dev/stdin";type=x'], ["-F", "a=@/dev/stdin"]),
            ("no file", ["-T-"], ["-F", "a=@-;type=text/plain"], ["-F", "a=<-"], ["-T", "/dev/fd/0"]),
            ("no file", ["-T", "."], ["--data", "@-"], ["-d@-"], ["-b", "-"], ["-d", "@/dev/fd/0"]),
            ("no file", ["--data-urlencode", "a\x1b\n2026-01-01 forged@-"]),
            ("no file", ["--data", "@" + self.folder], ["-d", "@x"], ["-s", "-H", "@x.txt"], ["-T", "x"]),
            (missing, ["--data", "@" + missing]),  # not cut, however long
            ("password", ["-u", "me"], ["-U", "me"]),
            ("too long", ["-d", "x" * 5000]),
            ("-K", ["-Kx"], ["-A", "-K", "-K", "x"], ["-ume:passK", "-K", "x"]),
            ("--url", ["--url", other], [other, "--next", "-s"]),
            ("--proto", ["--proto", "=http", other], ["--proto-default", "foo"]),
            ("--usr", ["--usr=me:a hunter2"], ["--usr me:hunter2"]),
            ("--user", ["--user:me:hunter2"], ["--users=me:hunter2"]),
            ("-o requires", ["-o"]), ("-H requires", ["-v", "-H"]), ("-Z", ["-sZ"]), ("-:", ["-s:"]),
            ("-q", ["-sq"]), ("--conf", ["--conf=x"]), ("insecure", ["--insecure=x"]),
            ("--ssl", ["--ssl"]), ("--reque", ["--reque", "POST"]),  # whole names only
            ("control", ["-H", "X: a\r\n\r\nGET /second HTTP/1.1"], ["-X", "GET /a\r\nX: y"], ["-H", "content-length: 0"]),
            ("one of", ["-d", "a", "-F", "a=b"], ["-I", "--json", "{}"], ["-T", self.script, "-d", "a"]),
            ("no file", ["-F", "a=@%s,-" % self.script], ["-F", "a=b;headers=@/dev/stdin"], ["-F", "a=@x;headers=@y"]),
            ("can write", ["-o", missing], ["-D", self.folder], ["-o", ""]),
            ("--", ["-k-insecure"]),
            # These curl itself refuses:
            ("max-time", ["--max-time", "never"], ["-A", "stdin", "--max-time", "never"]), ("tls-max", ["--tls-max", "9"]),
            ("form", ["-F", "novalue"]), ("limit-rate", ["--limit-rate", "1q"]),
        ]  # fmt: skip
        names = "-K -O -q --CONFIG --NEXT --config --disable --expand-stderr --libcurl --next --no-globoff"
        names += " --no-silent --no-show-error --no-such --parallel --skip-existing --stderr --version"
        cases += [(name, [name, "x"]) for name in names.split()]
        for words, *given in cases:
            for options in given:
                with self.subTest(options):
                    err = self.refused(LATER, "--", *options)
                    self.assertIn(words, err)
                    self.assertNotRegex(err, "hunter2|passK|\x1b")
        self.assertEqual(self.server.requests, [])

    def value(self, name):
        """Return what an option that takes a value can be tried with."""
        nobody, pin = "127.0.0.1:1", "sha256//" + "A" * 43 + "="
        given = {
            "json": "{}", "request": "PUT", "noproxy": "*", "proxy": self.server.url, "preproxy": "socks5://" + nobody,
            "range": "0-1", "aws-sigv4": "aws:amz:eu-west-1:s3",
            "pinnedpubkey": pin, "ciphers": "ECDHE-RSA-AES128-GCM-SHA256", "tls13-ciphers": "TLS_AES_128_GCM_SHA256",
            "curves": "X25519", "tls-max": "1.3", "resolve": "a.example:80:127.0.0.1", "delegation": "none",
            "connect-to": "a.example:80:" + nobody, "interface": "127.0.0.1", "unix-socket": self.path("socket"),
            "limit-rate": "1M", "socks5": nobody, "socks5-hostname": nobody, "request-target": "/request-target",
        }  # fmt: skip
        for pattern, value in (
            ("max-filesize", "1000"), ("max-redirs|time|retry|limit", "9"), ("file$|cert$|key$", self.path("body")),
            ("capath", self.folder), ("output|dump", self.path("out." + name)), ("cert-|key-", "PEM"), ("header", "X: a"),
            ("form|data|query|cookie", "a=b"), ("", "me:word"),
        ):  # fmt: skip
            if re.search(pattern, name):
                return given.get(name, value)

    def test_each_option_of_the_table_makes_one_call_if_this_curl_has_it(self):
        body, nobody = self.write("body", "a=b"), ["--noproxy", "*"]  # speaks SOCKS here: it is passed by
        beside = {"socks5": nobody, "socks5-hostname": nobody, "preproxy": nobody, "get": ["-d", "a=b"],
                  "netrc": ["--netrc-file", body], "ipv6": ["-4"], "http2-prior-knowledge": ["--http1.1"],
                  "remove-on-error": ["-o", self.path("out")]}  # fmt: skip
        table = {name: value for _, name, value, _ in api_scheduler.PARSED if POSIX or name != "unix-socket"}
        if POSIX:  # the same server, by a socket that has a name
            kinds = socketserver.ThreadingMixIn, socketserver.UnixStreamServer
            local_server = type("Local", kinds, {"daemon_threads": True})(self.path("socket"), Handler)
            vars(local_server).update(requests=self.server.requests, news=self.server.news, release=self.server.release)
            threading.Thread(target=local_server.serve_forever, args=(0.01,), daemon=True).start()
            self.addCleanup(local_server.server_close)
            self.addCleanup(local_server.shutdown)
        newer = "json aws-sigv4 fail-with-body url-query form-escape remove-on-error ca-native ssl-revoke-best-effort"
        newer += " ntlm proxy-ntlm negotiate proxy-negotiate delegation http2 http2-prior-knowledge http3 compressed"

        def call(name):
            """Return None if it makes one call, or what happened. In curl's words it may lack what is newer."""
            words = ["--" + name] + ([self.value(name)] if table[name] else []) + beside.get(name, [])
            settings = api_scheduler.Settings("%s/%s" % (self.server.url, name), "", PATIENCE, 60, words)
            try:
                path, options = api_scheduler.ask_curl(settings)
            except SetupError as error:
                lacks = name in newer.split() and re.search("is unknown|the installed libcurl", str(error))
                return None if lacks else str(error)
            curl = api_scheduler.Curl(api_scheduler.curl_command(path, options, PATIENCE), b"")
            config = api_scheduler.curl_config([("silent", "")] + options + [("url", settings.url)])
            curl.fire(config, time.time(), time.monotonic() + PATIENCE)
            code, said = curl.end()
            made = [request for request in self.server.requests if re.search("/%s(?:[?]|$)" % name, request.path)]
            return None if (code, len(made)) == (0, 1) else "%d calls, exit code %d: %s" % (len(made), code, said)

        with concurrent.futures.ThreadPoolExecutor(8) as pool, contextlib.redirect_stderr(io.StringIO()):
            found = dict(zip(table, pool.map(call, table)))
        self.assertEqual({name: what for name, what in found.items() if what}, {})

    def test_what_only_looks_like_a_url_an_option_or_standard_input_is_let_through(self):
        for options in (
            ["-d", "a\n--\nb"], ["-d", "a\n--next\n"], ["-d", '{"x": "/dev/stdin"}'], ["-d", "x /dev/fd/0"],
            ["-H", "X: see /dev/fd/01"], ["-H", "X: a@-"], ["--data-raw", "@-"], ["-u", "me:hunter2@-"],
            ["-d", "@" + self.script], ["--data-urlencode", "a@b=c"], ["-G", "-I", "-d", "a"], ["-o", os.devnull],
            ["-F", 'a=@"%s";type=text/x-python' % self.script.replace("\\", "/"), "-F", "b=<" + self.script],
        ):  # fmt: skip
            with self.subTest(options):
                self.assertEqual(self.main(LATER, "--dry-run", "--", *options)[::2], (0, ""))
        status, _, err = self.main("--dry-run", LATER, "--", "--output", "-hunter2")
        self.assertEqual((status, "looks like a flag" in err, "hunter2" in err), (0, True, False))


class Log(Folder):
    def test_a_relative_log_lies_beside_config_py_or_in_the_users_folder_by_option(self):
        elsewhere = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, elsewhere)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(elsewhere)
        self.main("noon")  # nothing is started, which is logged
        self.assertEqual((len(self.log()), os.listdir(elsewhere)), (2, []))
        self.main("noon", "--log-file", "mine.log")
        self.main("noon", "--log-file", os.path.join("~", "home.log"))
        self.assertEqual((len(self.log()), len(self.log("home.log"))), (2, 2))
        self.assertEqual(os.listdir(elsewhere), ["mine.log"])

    def test_lines_that_cannot_be_written_are_kept_for_when_they_can_or_the_end(self):
        os.mkdir(self.path("logs"))
        path = self.path("logs", "test.log")
        log = api_scheduler.Log(path)
        shutil.rmtree(self.path("logs"))  # there is no such folder: it cannot be opened
        with contextlib.redirect_stderr(io.StringIO()) as said:
            log.write(["one"])
            log.write(["two"])
        self.assertEqual(said.getvalue().count("cannot be written"), 1)
        os.mkdir(self.path("logs"))
        log.write(["three"])
        os.rename(path, path + ".1")  # a log that is rotated is made anew
        self.assertEqual((self.log(path + ".1"), log.unwritten), (["one", "two", "three"], b""))
        os.rename(self.path("logs"), self.path("away"))
        log.write(["four"])
        back = lambda _: os.rename(self.path("away"), self.path("logs"))
        with mock.patch.object(time, "sleep", back):
            log.finish()
        self.assertEqual((self.log(path), log.unwritten), (["four"], b""))

    @unittest.skipIf(POSIX, "only there can a program keep others from opening a file")
    def test_a_log_that_another_program_holds(self):
        self.write("test.log", "")
        log = api_scheduler.Log(self.path("test.log"))
        create = ctypes.windll.kernel32.CreateFileW
        create.restype = ctypes.c_void_p
        held = create(self.path("test.log"), 0x80000000, 0, None, 3, 0, None)  # shared with nobody
        with contextlib.redirect_stderr(io.StringIO()) as said:
            log.write(["one"])
        self.assertIn("cannot be written", said.getvalue())
        ctypes.windll.kernel32.CloseHandle(ctypes.c_void_p(held))
        log.finish()
        self.assertEqual(self.log(), ["one"])

    def test_a_line_cut_by_a_full_disk_is_completed_or_written_again_whole(self):
        room = [6]

        class Full(io.FileIO):
            def write(self, data):
                if not room[0]:
                    raise OSError(errno.ENOSPC, "No space left on device")
                data = data[: room[0]]
                room[0] -= len(data)
                return super().write(data)

        truncate = lambda: self.write("test.log", "")
        for meanwhile, lines in (lambda: None, ["one", "two", "three"]), (truncate, ["two", "three"]):
            room[0] = 6
            truncate()
            log = api_scheduler.Log(self.path("test.log"))
            with mock.patch.object(api_scheduler, "open", lambda path, *_, **__: Full(path, "a"), create=True):
                with contextlib.redirect_stderr(io.StringIO()):
                    log.write(["one", "two"])
            self.assertEqual((self.log(), log.unwritten), (["one", "tw"], b"two\n"))
            meanwhile()
            log.write(["three"])
            self.assertEqual(self.log(), lines)

    def test_a_line_of_which_closing_tells_that_it_was_not_written_is_kept(self):
        class Share(io.FileIO):  # as a network share does
            def close(self):
                if not self.closed:
                    os.ftruncate(self.fileno(), 0)
                    super().close()
                    raise OSError(errno.EDQUOT, "Disk quota exceeded")

        log = api_scheduler.Log(self.path("test.log"))
        with mock.patch.object(api_scheduler, "open", lambda path, *_, **__: Share(path, "a"), create=True):
            with contextlib.redirect_stderr(io.StringIO()) as said:
                log.write(["one"])
        self.assertIn("Disk quota exceeded", said.getvalue())
        log.write(["two"])
        self.assertEqual((self.log(), log.unwritten), (["one", "two"], b""))

    def test_programs_that_append_at_once_lose_no_line(self):
        code = (
            "import sys, api_scheduler\nlog = api_scheduler.Log(sys.argv[1])\n"
            "for n in range(200): log.write([sys.argv[2] * 3000])"
        )
        command = [sys.executable, "-c", code, self.path("test.log")]
        programs = [subprocess.Popen(command + [letter], cwd=HERE) for letter in "abc"]
        self.assertEqual([program.wait(PATIENCE * 4) for program in programs], [0, 0, 0])
        self.assertEqual(sorted(self.log()), [letter * 3000 for letter in "abc" for _ in range(200)])


class Trust(Folder):
    """Looking up a CA in a hashed directory must not change who is trusted."""

    def setUp(self):
        super().setUp()
        for name, text in CERTIFICATES.items():
            self.write(name, text)
        os.mkdir(self.path("hashed"))
        self.inside = shutil.copy(self.path("inside.pem"), self.path("hashed", INSIDE_HASH))
        self.other = shutil.copy(self.path("other.pem"), self.path("hashed", OTHER_HASH))
        self.bundle = self.write("bundle.pem", CERTIFICATES["inside.pem"] + CERTIFICATES["other.pem"])
        version = subprocess.check_output([CURL, "--version"]).decode()
        self.curl = CURL
        of_the_system = os.path.dirname(os.path.realpath(CURL)) in ("/usr/bin", "/bin")
        self.fast = [self.other] if of_the_system and re.search(r"\sOpenSSL/", version) else []

    def chosen(self, *curl_options, url="https://127.0.0.1/", **environ):
        """Return which bundle curl shall read in place of the large one, in a list that may be empty."""
        given = api_scheduler.parse_curl_options(curl_options)
        options = api_scheduler.fast_trust(self.curl, given, url, environ, self.bundle, self.path("hashed"))
        self.assertEqual(options[:2], ["--capath", self.path("hashed")][: len(options)])
        return options[3:]

    @unittest.skipUnless(POSIX, "there curl asks the system, not a bundle or a hashed directory")
    def test_a_server_of_the_systems_store_is_trusted_and_one_outside_it_is_not(self):
        server = Server(self.path("server.pem"))
        self.addCleanup(server.close)
        for bundle, code in ((self.bundle, 0), (self.path("other.pem"), 60)):
            if code:  # the store without the authority of this server
                self.bundle = bundle
                os.remove(self.inside)
            self.assertEqual(self.chosen(), self.fast)
            trust = ["--capath", self.path("hashed")] if self.fast else []
            trust += ["--cacert", self.other if self.fast else bundle]
            command = api_scheduler.curl_command(CURL, [], 10, trust)
            curl = self.start(command=command, stdin=subprocess.PIPE)
            curl.communicate('url = "%s"\n' % server.url)
            self.assertEqual(curl.returncode, code)
        self.config(API_URL=server.url)  # with the store of this machine
        self.assertEqual(self.main(soon())[0], 1)
        self.assertRegex(self.log()[0], r"\(exit code 60: ")

    def test_a_choice_of_the_users_is_left_alone_unless_it_comes_to_the_same(self):
        self.assertEqual(self.chosen(), self.fast)
        copy = self.write("copy.pem", CERTIFICATES["other.pem"] + CERTIFICATES["inside.pem"])
        for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            self.assertEqual(self.chosen(**{name: copy}), self.fast, name)
            for path in (self.path("inside.pem"), "missing"):
                self.assertEqual(self.chosen(**{name: path}), [], name)
        self.assertEqual(self.chosen(SSL_CERT_DIR=self.path("hashed")), self.fast)
        self.assertEqual(self.chosen(SSL_CERT_DIR=self.folder), [])
        for options in (
            ["--cacert", "x"], ["--capath", "x"], ["-k"], ["-sk"], ["--insecure"], ["--proxy-insecure"],
            ["--proxy-cacert", "x"], ["--crlfile", "x"],
        ):  # fmt: skip
            self.assertEqual(self.chosen(*options), [], options)
        self.assertEqual(self.chosen(url="http://127.0.0.1/"), [])

    def test_a_directory_that_trusts_others_than_the_bundle_or_a_curl_from_elsewhere_is_left_alone(self):
        self.write(os.path.join("hashed", "00000000.0"), "")  # an empty file holds nobody, and is not chosen
        inside, other, server = (CERTIFICATES[name] for name in ("inside.pem", "other.pem", "server.pem"))
        for bundle, chosen in ((inside, []), (inside + server, []), ("", []), (inside + other, self.fast)):
            self.write("bundle.pem", bundle)
            self.assertEqual(self.chosen(), chosen)
        if POSIX:  # elsewhere to make a symbolic link is a privilege
            self.curl = self.path("link")
            os.symlink(CURL, self.curl)  # what counts is where it is really
            self.assertEqual(self.chosen(), self.fast)
        self.curl = shutil.copy(CURL, self.path("copy"))
        self.assertEqual(self.chosen(), [])
        self.curl = CURL
        os.rename(self.inside, self.path("hashed", "inside.pem"))
        self.assertEqual(self.chosen(), [])


class Steps(Folder):
    """Real curls, armed and fired by a clock that the test sets."""

    def setUp(self):
        super().setUp()
        self.clock = PretendClock(now=float(int(time.time())))
        self.armed = self.spy_on_curl(asked=True)

    def begin(self, *groups, armed=None, places=100, path=""):
        """Start a scheduler for ``(seconds from now, calls)``; return what `self.armed` does."""
        groups = [(self.clock.now + after, count) for after, count in groups]
        calls = sum(count for _, count in groups)
        settings = api_scheduler.Settings(self.server.url + path, self.path("test.log"), 30, 60, [])
        log = api_scheduler.Log(settings.log_file)
        self.reporter = api_scheduler.Reporter(log, settings.url, calls, quiet=True, timefunc=self.clock)
        asked = self.path("bin", "curl"), []
        scheduler = api_scheduler.Scheduler(groups, settings, asked, self.reporter, places, [], self.clock)
        self.thread = threading.Thread(target=scheduler.run, daemon=True)
        self.thread.start()
        return self.armed(calls if armed is None else armed)

    def set_clock(self, now):
        """Set the clock, and wait until the scheduler has read it several times."""
        self.clock.now = now
        reads = self.clock.reads
        while self.clock.reads < reads + 5 and self.thread.is_alive():
            time.sleep(0.01)

    def finish(self):
        """Wait for the end; return the log."""
        self.thread.join(PATIENCE)
        self.assertFalse(self.thread.is_alive())
        return self.log()

    def test_not_a_millisecond_early_also_when_the_clock_is_set_back_and_then_at_once(self):
        self.begin((1, 3))
        due = self.clock.now + 1
        for now in (due - 0.001, due - 3600):
            self.set_clock(now)
            self.assertEqual(self.server.requests, [])
        self.set_clock(due)
        self.server.wait_for(3)
        line = "%s: Successfully called API at %s" % (local(due), self.server.url)
        self.assertEqual((self.finish(), len(self.server.requests)), ([line] * 3, 3))

    def test_what_is_later_than_the_grace_time_is_missed_and_not_called_also_after_a_suspend(self):
        start, url = self.clock.now, self.server.url
        self.begin((1, 2), (1.25, 1), (200, 2), (500, 1), armed=3)
        while len(self.log()) < 3:
            self.set_clock(start + 61.25)
        self.set_clock(start + 505)
        lines = []
        for now, due in ((61, 1), (505, 200)):
            missed = "%s: Missed call to API at %s (due %s)" % (local(start + now), url, local(start + due))
            lines += [missed, missed, "%s: Successfully called API at %s" % (local(start + now), url)]
        self.assertEqual(sorted(self.finish()), sorted(lines))
        self.assertEqual(len(self.server.requests), 2)
        self.wait_for_the_end_of_curls()

    def test_when_processes_or_threads_run_out_or_curls_are_killed_no_call_is_lost_or_made_twice(self):
        popen, start, testing = subprocess.Popen, threading.Thread.start, threading.current_thread()
        refusals, no_threads = [errno.EAGAIN, errno.ENOMEM, errno.EMFILE], [None] * 2

        def refuse(*args, **kwargs):
            if refusals:
                raise OSError(refusals[0], os.strerror(refusals.pop(0)))
            return popen(*args, **kwargs)

        def refuse_threads(thread):
            if no_threads and threading.current_thread() not in (testing, self.thread, self.server.thread):
                no_threads.pop()
                raise RuntimeError("can't start new thread")
            start(thread)

        with mock.patch.object(subprocess, "Popen", refuse), mock.patch.object(
            threading.Thread, "start", refuse_threads
        ):
            (pid,) = self.begin((1, 2), armed=1)  # by the thread that arms, as there is no other
            for _ in range(3):
                os.kill(int(pid), signal.SIGKILL)
                (pid,) = self.armed(1)
            self.set_clock(self.clock.now + 1)
            log = self.finish()
        self.assertEqual((len(log), len(self.server.requests), refusals, no_threads), (2, 2, [], []))

    def test_when_curl_cannot_be_started_in_time_the_call_is_missed_and_says_why(self):
        trouble = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        with mock.patch.object(subprocess, "Popen", side_effect=trouble) as popen:
            self.begin((1, 1), armed=0)
            while not popen.called:
                time.sleep(0.01)
            self.set_clock(self.clock.now + 100)
            self.assertRegex(self.finish()[0], "Missed .*could not be started: Resource temporarily unav")

    def test_an_armed_curl_that_ends_by_itself_is_replaced_once_and_then_a_failure(self):
        self.wrap_curl('echo "$$ $*" >"%s"; echo "curl: (43) why" >&2' % self.path("armed"), then="exit 43")
        self.begin((1, 1), armed=2)
        self.assertTrue(self.reporter.finished.wait(PATIENCE))
        self.set_clock(self.clock.now + 1)
        (line,) = self.finish()
        self.assertRegex(line, r"Failed to call .* \(not called, curl ended .* exit code 43: why\)$")

    def test_with_few_places_the_calls_are_made_as_places_free_up_but_not_before_a_clock_set_back(self):
        due = self.clock.now + 1
        self.begin((1, 7), armed=2, places=2, path="/slow")
        self.set_clock(due)
        self.server.wait_for(2)
        self.clock.now = due - 3600  # nobody reads it now
        self.server.release.set()
        self.armed(2)  # the next ones
        self.set_clock(due - 0.1)
        self.assertEqual(len(self.server.requests), 2)
        self.set_clock(due)
        self.assertEqual(("".join(self.finish()).count("Successfully"), len(self.server.requests)), (7, 7))

    def test_a_curl_that_outlives_its_time_limit_is_killed_and_logged(self):
        with mock.patch.object(api_scheduler, "KILL_AFTER", 0.1 - 30):
            (pid,) = self.begin((1, 1))
        os.kill(int(pid), signal.SIGSTOP)  # so that --max-time does not end it
        self.set_clock(self.clock.now + 1)
        self.assertRegex(self.finish()[0], r"Failed to call .* \(exit code -9: killed, no end after 0.1 s\)")

    def test_trust_is_looked_up_again_when_a_certificate_is_removed(self):
        old, new = self.write("old", ""), self.write("new", "")
        trusts = [["--cacert", old], ["--cacert", new]]
        with mock.patch.object(api_scheduler, "fast_trust", side_effect=trusts):
            commands = list(self.begin((1, 2), (100, 1), armed=2).values())
            os.remove(old)
            self.set_clock(self.clock.now + 100)
            commands += self.armed(1).values()
            self.assertEqual(len(self.finish()), 3)
        self.assertEqual([new in command for command in commands], [False, False, True])


class Calls(Folder):
    def test_a_call_is_made_at_its_time_and_its_line_is_to_the_letter(self):
        self.write("test.log", "old\n")
        due = int(time.time()) + 1
        status, out, err = self.main(time.strftime("%H:%M:%S", time.localtime(due)))
        line = time.strftime("%Y-%m-%d %H:%M:%S: Successfully called API at ", time.localtime(due))
        line += self.server.url
        self.assertEqual((status, out, err, self.log()), (0, line + "\n", "", ["old", line]))
        (request,) = self.server.requests
        self.assertGreaterEqual(request.time, due)
        self.assertEqual((request.method, request.path), ("GET", "/"))

    def test_what_is_no_success_is_a_failure_in_curls_own_words(self):
        cases = [
            ("/status/400", [], "22: .*400"),
            ("/status/500", [], "22: .*500"),
            ("/slow", ["--timeout", "0.3"], "28: .*timed out"),
            ("/redirect/ftp://127.0.0.1/", [], "1: .*ftp"),
            ("/redirect/file:///etc/hostname", [], "1: .*file"),
            ("/status/503", ["--", "--retry", "1", "--retry-delay", "1"], "22: .*503"),
        ]
        if b"--fail-with-body" in subprocess.check_output([CURL, "--help", "all"]):  # not before 7.76
            cases.append(("/status/404", ["--", "--fail-with-body"], "22: .*404"))
        for path, options, words in cases:
            with self.subTest(path=path, options=options):
                status, line = self.call(path, *options)
                self.assertEqual(status, 1)
                failed = r"^%s: Failed to call API at http://127.0.0.1:\d+%s \(exit code %s.*\)$"
                self.assertRegex(line, failed % (STAMP, path, words))
        self.assertEqual([request.path for request in self.server.requests].count("/status/503"), 2)
        self.environ["http_proxy"] = "http://me:hunter2@localhost:port"
        status, line = self.call()
        self.assertEqual((status, "Failed to call" in line, "hunter2" in line), (1, True, False))
        del self.environ["http_proxy"]
        self.server.close()
        status, line = self.call()
        self.assertRegex(line, r"Failed to call API at \S+ \(exit code 7: .*[Cc]onnect.*\)$")

    def test_a_url_reaches_the_server_once_as_it_is_whatever_a_curlrc_says_and_redirects_are_followed(self):
        self.write(".curlrc", "url = %s/evil\nnext\nuser-agent = rc\n" % self.server.url)
        path = '/[1-3]/{a,b}/"\\n\\"%20--output%20"' + self.path("victim").replace("\\", "/") + '\\"\\'
        self.assertEqual(self.call(path)[0], 0)
        (request,) = self.server.requests
        self.assertEqual((request.path, "rc" in request.headers["User-Agent"]), (path, False))
        self.assertFalse(os.path.exists(self.path("victim")))
        self.assertEqual(self.call("/redirect//arrived")[0], 0)
        self.assertEqual(self.server.requests[-1].path, "/arrived")
        for moved in "/moved//there", "/redirect//there":  # and neither drops method and body
            for options in (["-d", "a=b"], ["-X", "PATCH", "-d", "a=b"]):
                self.assertEqual(self.call(moved, "--", *options)[0], 0)
                self.assertEqual(self.server.requests[-1][1:3] + self.server.requests[-1][4:],
                                 ("PATCH" if "-X" in options else "POST", "/there", b"a=b"))  # fmt: skip

    def test_curl_options_reach_curl_as_they_are_and_the_last_wins(self):
        nasty = 'a "b" \\ \n\t\r\x0b \u00e9 \u65e5 # = : \\n\n--\n--next\n'
        body = self.write("body", nasty)
        given = ["-A", "mine", "-X", "POST", "--no-fail", "-H", 'X-A: q"\\b\tc', "-H", "X-Empty;"]
        self.config("/status/500", CURL_OPTIONS=["-A", "config", "-H", "X-Kept: yes"])
        given += ["-d", nasty, "-ume:hunter2@-", "--data-binary", "@" + body]
        self.assertEqual(self.main(soon(), "--", *given)[0], 0)
        self.assertEqual(self.call("/", "--", "-A", "", "--data-raw", "@-")[0], 0)
        first, second = self.server.requests
        self.assertEqual((first.method, first.body), ("POST", nasty.encode() + b"&" + nasty.encode()))
        names = "User-Agent", "X-Kept", "X-A", "X-Empty", "Authorization"
        values = ["mine", "yes", 'q"\\b\tc', "", "Basic bWU6aHVudGVyMkAt"]
        self.assertEqual([first.headers[name] for name in names], values)
        self.assertEqual((second.headers["User-Agent"], second.body), (None, b"@-"))

    @unittest.skipUnless(POSIX, "needs a locale")
    def test_a_host_beyond_ascii_is_the_same_in_every_locale(self):
        url = "http://b\u00fccher.example/\u00fc"
        there = "--connect-to", "::127.0.0.1:%d" % self.server.server_port
        lacks = b" IDN" not in subprocess.check_output([CURL, "--version"])
        for locale in ("C", "C.UTF-8", "de_DE.ISO-8859-1", "tr_TR.UTF-8"):
            self.environ.update(LC_ALL=locale, PYTHONCOERCECLOCALE="0")
            given = os.fsencode(self.script), b"+0.1s", b"--url", url.encode(), b"--"
            program = self.start(command=[sys.executable.encode(), *given, *map(str.encode, there)])
            status, _, err = self.finish(program)
            self.assertEqual((status, err), (int(lacks), ""), locale)
        if not lacks:
            hosts = [request.headers["Host"] for request in self.server.requests]
            self.assertEqual(hosts, ["xn--bcher-kva.example"] * 4)

    @unittest.skipUnless(POSIX, "needs a shell script in the place of curl")
    def test_a_python_that_is_taken_away_while_it_waits_changes_no_outcome(self):
        code = (
            "import os, sys, api_scheduler\n"
            "class Gone:\n"
            "    def find_spec(self, name, *_):\n"
            "        if os.path.exists('gone'): raise SystemError(name)\n"
            "sys.meta_path.insert(0, Gone())\n"
            "os._exit(api_scheduler.main(sys.argv[1:]))"
        )
        said = "printf 'curl: (22) a\\033b\\n' >&2"  # and what is not printable is spelt
        self.wrap_curl('>"%s"' % self.path("gone"), then='"%s" "$@" || { code=$?; %s; exit $code; }' % (CURL, said))
        for path, line in ("/", "Successfully called .*"), ("/status/404", r"Failed .* \(exit code 22: a\\x1bb\)$"):
            command = [sys.executable, "-c", code, "+0.1s", "--url", self.server.url + path]
            self.finish(self.start(command=command))
            self.assertRegex(self.log()[-1], line)
            os.remove(self.path("gone"))

    def test_an_answer_can_be_large_and_be_kept_in_a_file(self):
        self.config("/large")
        for count in (1, 9):  # alone, and at the gate of a group
            for options in ([], ["--", "-o", self.path("answer%d" % count)]):
                self.assertEqual(self.main(",".join([soon()] * count), *options)[0], 0)
            with open(self.path("answer%d" % count), "rb") as file:
                self.assertEqual(file.read(), bytes(1 << 20))

    def test_no_password_or_token_is_in_the_process_list_or_told(self):
        url = self.server.url.replace("://", "://me:se%63ret@") + "/status/401"
        self.config(API_URL=url, CURL_OPTIONS=["-H", "X-Token: hunter2"])
        armed = self.spy_on_curl()
        program = self.start("SOON+0.4")
        ((pid, command),) = armed(1).items()
        told = [command]
        if os.path.isdir("/proc/self"):
            with open("/proc/%s/environ" % pid) as file:
                told.append(file.read())
        self.assertNotIn("127.0.0.1", "".join(told))
        told += self.finish(program)[1:] + tuple(self.log())
        self.assertNotRegex("".join(told), "se%63ret|secret|hunter2")
        self.assertIn("me:***@127.0.0.1", self.log()[0])
        (request,) = self.server.requests
        self.assertEqual(request.headers["Authorization"], "Basic bWU6c2VjcmV0")
        self.assertEqual(request.headers["X-Token"], "hunter2")

    def test_a_body_that_is_removed_before_the_call_makes_no_call_without_it(self):
        self.config(GRACE=0.5)
        body = self.write("body.json", "x")
        self.wrap_curl('"%s" "$@"; code=$?; rm -f "%s"' % (CURL, body), then="exit $code")  # once it is asked
        self.assertEqual(self.main(soon(0.5), "--", "-d", "@" + body)[0], 1)
        self.assertRegex(self.log()[0], "Missed .*body.json")
        self.assertEqual(self.server.requests, [])

    def test_a_large_group_is_called_at_once_each_once_and_not_after_the_slow_calls_of_an_earlier_one(self):
        self.config("/slow")
        program = self.start("SOON+0, SOON+0", ", ".join(["SOON+1"] * 40))
        arrived = [request.time for request in self.server.wait_for(42)]
        self.assertEqual(self.log(), [])  # none has been answered
        self.assertGreaterEqual(min(arrived), self.due("SOON+0"))
        self.assertGreaterEqual(min(arrived[2:]), self.due("SOON+1"))
        self.server.release.set()
        self.assertEqual(self.finish(program)[0], 0)
        self.assertEqual((len(self.server.requests), len(self.log())), (42, 42))

    @unittest.skipUnless(POSIX, "needs ulimit")
    def test_100_calls_in_one_second_succeed_with_64_descriptors(self):
        self.wrap_curl('ulimit -Sn >"%s"' % self.path("limit"))
        status, _, err = self.run_script(", ".join(["SOON+0.4"] * 100), shell="ulimit -Sn 48; ulimit -Hn 64")
        with open(self.path("limit")) as file:
            self.assertEqual(file.read(), "64\n")
        self.assertEqual(status, 0)
        self.assertIn("about 16 can be made ready", err)
        self.assertEqual((len(self.server.requests), len(self.log())), (100, 100))

    def test_quiet_prints_only_what_goes_wrong(self):
        self.assertEqual(self.main("--quiet", soon()), (0, "", ""))
        status, out, err = self.main("--quiet", soon(), "noon", "--url", self.server.url + "/status/500")
        self.assertEqual((status, out), (1, self.log()[-1] + "\n"))
        self.assertIn("Failed to call", out)
        self.assertIn("Skipped 'noon'", err)
        self.assertEqual((len(self.log()), "Skipped 'noon'" in self.log()[1]), (3, True))

    @unittest.skipUnless(POSIX and os.path.exists("/dev/full"), "there is no /dev/full")
    def test_a_full_disk_stops_no_call_and_is_told_once_also_when_nothing_is_started(self):
        with mock.patch.object(api_scheduler, "PATIENCE", 0.2):
            status, out, err = self.main(soon(), soon(), "--log-file", "/dev/full")
            self.assertEqual((status, len(out.splitlines()), len(self.server.requests)), (1, 2, 2))
            self.assertEqual((err.count("No space left"), err.count("2 lines could not be logged")), (1, 1))
            status, out, err = self.main(LATER, "--log-file", "/dev/full", "--", "--bogus")
            self.assertEqual((status, "No space left" in err), (2, True))

    def test_without_standard_streams_or_with_one_that_cannot_spell_calls_and_log_go_on(self):
        self.config("/\u00fc")
        reader, writer = os.pipe()
        os.close(reader)
        runs = [{"stdout": writer}, {"env": dict(self.environ, LC_ALL="C", PYTHONIOENCODING="ascii")}]
        if POSIX:
            runs += [{"shell": "exec 2>&-"}, {"shell": "exec <&- >&- 2>&-"}]
        programs = [self.start("noon", "SOON+0.1", "--log-file", "%d.log" % n, **run) for n, run in enumerate(runs)]
        os.close(writer)
        for number, program in enumerate(programs):
            with self.subTest(runs[number]):
                status, out, _ = self.finish(program)
                self.assertEqual((status, "/\\xfc" in (out or "")), (1, number == 1))
                skipped, called = self.log("%d.log" % number)
                self.assertIn("Skipped 'noon'", skipped)
                self.assertIn("Successfully called API at %s/\u00fc" % self.server.url, called)

    def test_a_blocked_reader_of_standard_output_delays_no_call_no_line_and_no_stop(self):
        many = ",".join(["SOON+0.2"] * 12)
        url = self.server.url + "/" + "x" * 7000  # 12 lines of 7 kB are more than a pipe holds
        names = "later.log", "waiting.log", "done.log"
        programs = [
            self.start(many, *more, "--url", url, "--log-file", name)
            for more, name in zip((["SOON+0.9"], ["SOON+999"], []), names)
        ]
        self.server.wait_for(37)
        while [len(self.log(name)) for name in names] != [13, 12, 12]:
            time.sleep(0.01)  # nothing tells that a file has grown
        if POSIX:  # elsewhere terminate() is no signal: nothing can be done before the end
            for program in programs[1:]:
                program.terminate()
            self.assertEqual([program.wait(PATIENCE) for program in programs[1:]], [143, 143])
            self.assertEqual((len(self.log("waiting.log")), len(self.log("done.log"))), (13, 12))
        status, out, _ = self.finish(programs[0])
        self.assertEqual((status, out.splitlines()), (0, self.log("later.log")))


class FromPython(Folder):
    def test_import_has_no_side_effect_and_the_names_are_there(self):
        code = "from api_scheduler import parse_timestamps, group_by_time, wait_until, call_api, main"
        before = sorted(os.listdir(self.folder))
        self.assertEqual(self.run_script(command=[sys.executable, "-c", code]), (0, "", ""))
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_main_and_call_api_leave_handlers_and_threads_as_they_were(self):
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        threads, log, stdout = set(threading.enumerate()), self.path("python.log"), io.StringIO()
        with mock.patch.dict(os.environ, self.environ, clear=True), contextlib.redirect_stdout(stdout):
            for _ in range(2):
                status = api_scheduler.main([soon(), "--url", self.server.url, "--log-file", log])
                self.assertEqual(status, 0)
            self.assertTrue(api_scheduler.call_api(self.server.url, log))
            self.assertFalse(api_scheduler.call_api(self.server.url + "/status/500", log))
        self.assertEqual(len(self.log("python.log")), 4)
        self.assertEqual(stdout.getvalue().splitlines(), self.log("python.log"))
        self.assertEqual([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], handlers)
        for thread in set(threading.enumerate()) - threads:
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive())

    @unittest.skipUnless(POSIX, "needs POSIX signals")
    def test_an_exception_in_a_program_with_many_files_open_ends_all_and_ctrl_c_is_keyboard_interrupt(self):
        self.config("/slow")
        code = (
            "import api_scheduler, os, resource, signal, threading\n"
            "class Mine(Exception): pass\n"
            "def alarm(*_): raise Mine\n"
            "signal.signal(signal.SIGUSR1, alarm)\n"
            "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))\n"
            "files = [os.open('/dev/null', os.O_RDONLY) for _ in range(1500)]\n"
            "try: api_scheduler.call_api()\n"
            "except BaseException as error: print(type(error).__name__)\n"
            "for thread in set(threading.enumerate()) - {threading.main_thread()}: thread.join(30)\n"
            "print(threading.active_count(), resource.getrlimit(resource.RLIMIT_NOFILE) == (2000, hard))"
        )
        self.wrap_curl("")
        programs = [self.start(command=[sys.executable, "-c", code]) for _ in range(2)]
        self.server.wait_for(2)
        programs[0].send_signal(signal.SIGUSR1)
        programs[1].send_signal(signal.SIGINT)
        self.assertIn("a second signal", programs[1].stderr.readline())
        programs[1].send_signal(signal.SIGINT)
        raised = [self.finish(program)[1].splitlines()[-2:] for program in programs]
        self.assertEqual(raised, [["Mine", "1 True"], ["KeyboardInterrupt", "1 True"]])
        self.wait_for_the_end_of_curls()
        self.assertEqual(len(self.log()), 2)


@unittest.skipUnless(POSIX, "needs POSIX signals")
class Signals(Folder):
    def test_a_signal_cancels_what_waits_and_what_is_armed_and_kill_9_leaves_no_curl(self):
        armed = self.spy_on_curl()
        signals = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
        times = "SOON+10", "SOON+10", "SOON+99999", "SOON+99999"  # two are armed at once
        programs, lines = [], []
        for number in signals:
            programs.append(self.start(*times, "--log-file", "%d.log" % number))
            armed(2)
            cancelled = "Cancelled call to API at %s (due %s)"
            lines.append(sorted(cancelled % (self.server.url, local(self.due(text))) for text in times))
        for number, program in zip(signals, programs):
            program.send_signal(number)
        for number, program, expected in zip(signals, programs, lines):
            status, out, err = self.finish(program)
            self.assertEqual((status, err), (signals[number], ""))
            log = self.log("%d.log" % number)
            self.assertEqual(out.splitlines(), log)
            if number != signal.SIGKILL:
                self.assertEqual(sorted(line.partition(": ")[2] for line in log), expected)
        self.wait_for_the_end_of_curls()
        self.assertEqual(self.server.requests, [])

    def test_ctrl_c_does_not_reach_the_curls_and_calls_in_flight_may_finish(self):
        self.config("/slow")
        program = self.start("SOON+0", "SOON+9999", start_new_session=True)
        self.server.wait_for(1)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        self.assertIn("1 call", program.stderr.readline())
        self.server.release.set()
        self.assertEqual(program.wait(PATIENCE), 130)
        # In either order: the answer may be there before the waiting call is told.
        self.assertEqual(sorted(line.split()[2] for line in self.log()), ["Cancelled", "Successfully"])

    def test_a_second_signal_ends_what_is_in_flight_a_wrapped_curl_too_and_insisting_loses_no_line(self):
        self.config("/slow", TIMEOUT=2 * PATIENCE)
        self.wrap_curl('exec 3<&0; "%s" "$@" <&3 &' % CURL, then="wait $!")
        program = self.start(",".join(["SOON+0.6"] * 12))
        self.server.wait_for(12)
        program.send_signal(signal.SIGINT)
        self.assertIn("12 calls in flight; a second signal", program.stderr.readline())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            program.send_signal(number)
        self.assertEqual(self.finish(program)[0], 130)
        reasons = [line.partition("(")[2] for line in self.log()]
        self.assertEqual(reasons, ["exit code -9: ended by a second signal)"] * 12)
        self.wait_for_the_end_of_curls()

    def test_what_nohup_ignores_stays_ignored_and_of_curls_that_end_it_learns_all_the_same(self):
        self.config("/status/404")
        armed = self.spy_on_curl()
        ignore = lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGCHLD)]
        program = self.start("SOON+0.4", preexec_fn=ignore)
        armed(1)
        program.send_signal(signal.SIGHUP)
        self.assertEqual(self.finish(program)[0], 1)
        self.assertIn("exit code 22", self.log()[0])

    def test_a_working_directory_that_is_gone_is_told(self):
        gone = "mkdir gone; cd gone; rmdir ../gone"
        status, _, err = self.run_script("--log-file", "x", "noon", shell=gone)
        self.assertEqual((status, "full path" in err), (2, True))


@unittest.skipUnless(POSIX, "needs a pseudo-terminal")
class Terminal(Folder):
    def on_terminal(self, *arguments, **options):
        """Start a program on a terminal of its own; return a function that waits for all it writes there."""
        import fcntl, termios

        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
        own = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        program = self.start(*arguments, start_new_session=True, preexec_fn=own, **streams, **options)
        os.close(slave)

        def shown():
            said = b""
            with contextlib.suppress(OSError):  # Linux says so when the last writer is gone
                for chunk in iter(lambda: os.read(master, 4096), b""):
                    said += chunk
            return program.wait(PATIENCE), said.decode().replace("\r\n", "\n")

        return shown

    def test_one_status_line_is_redrawn_in_place_but_not_on_a_dumb_terminal_or_if_quiet(self):
        dumb, failing = dict(self.environ, TERM="dumb"), self.server.url + "/status/500"
        drawn = self.on_terminal("SOON+2", "SOON+2.4")
        others = [
            self.on_terminal("SOON+0.2", "--log-file", "dumb.log", env=dumb),
            self.on_terminal("SOON+0.2", "--log-file", "quiet.log", "--quiet", "--url", failing),
        ]
        for shown, name in zip(others, ("dumb.log", "quiet.log")):
            said = shown()[1]
            self.assertEqual((said.splitlines(), "\r" in said), (self.log(name), False))
        status, said = drawn()
        self.assertEqual(status, 0)
        self.assertRegex(said, r"next %s\S*, in 0:00:0\d \| 0 done, 0 failed, 2 to go" % STAMP)
        self.assertIn("1 done, 0 failed, 1 to go", said)
        self.assertRegex(said, "^%s.* [+-]\\d{4}  1 call to %s\n" % (STAMP, self.server.url))  # what will be done
        self.assertEqual(said.count("\n"), 3)  # that, and the two lines of the log
        for line in self.log():
            self.assertIn("\r%s\n" % line, said)
        self.assertEqual(said.rpartition("\n")[2].rpartition("\r")[2], "")  # it is wiped at the end

    def test_in_the_background_nothing_is_drawn_and_nothing_stops_it(self):
        shell = (
            "import os, signal, subprocess, sys, termios\n"
            "settings = termios.tcgetattr(0)\n"
            "settings[3] |= termios.TOSTOP\n"
            "termios.tcsetattr(0, termios.TCSANOW, settings)\n"
            "job = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=os.setpgrp)\n"
            "open('asked').read()\n"
            "job.terminate()\n"
            "_, status = os.waitpid(job.pid, os.WUNTRACED)\n"
            "sys.exit(99 if os.WIFSTOPPED(status) else os.WEXITSTATUS(status))"
        )
        os.mkfifo(self.path("asked"))
        self.wrap_curl('echo >"%s"' % self.path("asked"))
        command = [sys.executable, "-c", shell] + self.command("noon", "2199-01-01T00:00:00")
        status, said = self.on_terminal(command=command)()
        self.assertEqual(status, 143)
        self.assertIn("Skipped 'noon'", said.splitlines()[0])
        self.assertEqual((said.splitlines()[-1:], "\r" in said, len(self.log())), (self.log()[1:], False, 2))


# The tests that need no waiting, for `python3 -m unittest test_api_scheduler.Quick`.
load = unittest.defaultTestLoader.loadTestsFromTestCase
Quick = unittest.TestSuite(map(load, (Parse, Plan, Wait, Words, Setup, Options, Log)))


# Two authorities, and a server's certificate signed by the first. Made for these tests, valid
# for a hundred years.

INSIDE_HASH, OTHER_HASH = "dcfd90f5.0", "11dd1fd3.0"  # openssl x509 -hash
SERVER_KEY = """
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg6c1OmPwZV0H196k1
FkfIWmKEqKVFQSFOrWRuvvTVwoGhRANCAARXQtalOfNU67mSlZ4dyh3OraAFHvlw
++82Wy9i8d+fNADqwDevVUZoy0mBTOcZostKVW9lQLrrwwwPQJzob/Px
-----END PRIVATE KEY-----
"""
CERTIFICATES = {
    "inside.pem": """
-----BEGIN CERTIFICATE-----
MIICATCCAaegAwIBAgIUdt2iNNknyk/spuWLer/3hSZdlQEwCgYIKoZIzj0EAwIw
VTFCMEAGA1UECgw5QVBJIFNjaGVkdWxlciB0ZXN0cywgdGhlIGF1dGhvcml0eSB0
aGF0IHRoZSBzeXN0ZW0gdHJ1c3RzMQ8wDQYDVQQDDAZJbnNpZGUwIBcNMjYxMTIx
MjEwNDU0WhgPMjEyNjEwMjgyMTA0NTRaMFUxQjBABgNVBAoMOUFQSSBTY2hlZHVs
ZXIgdGVzdHMsIHRoZSBhdXRob3JpdHkgdGhhdCB0aGUgc3lzdGVtIHRydXN0czEP
MA0GA1UEAwwGSW5zaWRlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEE+BsIRoU
acvxYwDfC7nPeTjvO9+frfqHiGtg2cO0oS2ZBwgjAa006oqiG7dQ9ITkClM4Rt0m
EA97Jz3Gwt5peKNTMFEwHQYDVR0OBBYEFJ7pymsXKJRCxkQPJYwpg5v2EFgMMB8G
A1UdIwQYMBaAFJ7pymsXKJRCxkQPJYwpg5v2EFgMMA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDSAAwRQIgPtdI1/w8RjnFPg52XLOqCSJjRkJ7Do84WlKa7wnR
yBICIQCacIstKM3stQfYrH0RUJD8qF/r4faXDIUE8dn6CidD2g==
-----END CERTIFICATE-----
""",
    "other.pem": """
-----BEGIN CERTIFICATE-----
MIIBdjCCAR2gAwIBAgIUXH2uWerQE4rlMtChaWecFSUWgoIwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFT3RoZXIwIBcNMjYxMTIxMjEwNDU0WhgPMjEyNjEwMjgyMTA0
NTRaMBAxDjAMBgNVBAMMBU90aGVyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
01R+1xQ0jc6uMcxmkSGa+wFgaADa8mvxRPZHVy0dCm7626gF5OO87WeaggpDzNvb
5GzjC6FFnYMlIDzZgEwS9KNTMFEwHQYDVR0OBBYEFMOotHaX9t9xxOUKnpDUY7Gv
I1nBMB8GA1UdIwQYMBaAFMOotHaX9t9xxOUKnpDUY7GvI1nBMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgMEu/NQwDCn+1ZaSGKUugUTBNvRiEBKc4
yqqV5GlUlOECIEYu0kKlaw7+vAzxxqvPcvxdnwllYmeRAR3S/qtZ7uh8
-----END CERTIFICATE-----
""",
    "server.pem": SERVER_KEY
    + """
-----BEGIN CERTIFICATE-----
MIIByjCCAXGgAwIBAgIUVIi2j2aedV2F+PvulRl6XoBjs7YwCgYIKoZIzj0EAwIw
VTFCMEAGA1UECgw5QVBJIFNjaGVkdWxlciB0ZXN0cywgdGhlIGF1dGhvcml0eSB0
aGF0IHRoZSBzeXN0ZW0gdHJ1c3RzMQ8wDQYDVQQDDAZJbnNpZGUwIBcNMjYxMTIx
MjEwNDU0WhgPMjEyNjEwMjgyMTA0NTRaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZ
MBMGByqGSM49AgEGCCqGSM49AwEHA0IABFdC1qU581TruZKVnh3KHc6toAUe+XD7
7zZbL2Lx3580AOrAN69VRmjLSYFM5xmiy0pVb2VAuuvDDA9AnOhv8/GjXjBcMBoG
A1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAdBgNVHQ4EFgQU/sh2Haje7p5CQJS2
M/EWryD5DtQwHwYDVR0jBBgwFoAUnunKaxcolELGRA8ljCmDm/YQWAwwCgYIKoZI
zj0EAwIDRwAwRAIgd1pkLaQH30CXp834VjLDIVqwhlvXCDWMTwEsU9Pb9dcCIF/W
50D5tYLn45dTfVcjXTSz42I1JFmNCoBUiQB71MGP
-----END CERTIFICATE-----
""",
}


if __name__ == "__main__":
    unittest.main()
