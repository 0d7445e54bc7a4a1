"""Tests of api_scheduler.py:  python -m unittest

Needs Python and curl, as the script does; no network, no root, no packages. Decisions about
time are tested with a pretend clock; what only real processes show (arming, signals,
descriptors, the terminal) with the real script, real curl and a server on this machine.
"""

import contextlib
import ctypes
import datetime
import errno
import http.server
import io
import os
import re
import select
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
from api_scheduler import SetupError

HERE = os.path.dirname(os.path.abspath(__file__))
CURL = shutil.which("curl")
POSIX = os.name == "posix"
WINE = not POSIX and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
PATIENCE = 30  # seconds until a test gives up waiting; nothing takes this long when it works
SOON = r"(SOON|CLOCK)\+([0-9.]+)"  # what `soon` returns, and the same as a time of day
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


# ------------------------------------------------------------------- what tests are made of

# Runs the script as a program. Times that `soon` stands for are made once it is up, so that
# no test depends on how fast it starts; ARM_EARLY has it arm at once what is due much later.
RUNNER = """
import datetime, os, re, sys, time
import api_scheduler
if os.environ.get("ARM_EARLY"):
    api_scheduler.ARM_MARGIN, api_scheduler.ARM_EARLIEST = 600, 9000
if "@soon.txt" in sys.argv:
    with open("soon.txt") as file:
        sys.argv[sys.argv.index("@soon.txt")] = file.read()
base = time.time() + 0.2
with open(os.path.join(api_scheduler.HERE, "base"), "w") as file:
    file.write(repr(base))
def moment(match):
    when = base + float(match.group(2))
    if match.group(1) == "CLOCK":
        return time.strftime("%%H:%%M:%%S", time.localtime(when))
    return datetime.datetime.fromtimestamp(when, datetime.timezone.utc).isoformat()
arguments = [re.sub(%r, moment, argument) for argument in sys.argv[1:]]
api_scheduler.leave(api_scheduler.main(arguments))
""" % SOON


def setUpModule():
    """Have signals as in a terminal: nohup and a shell's background job ignore some, for all that they start."""
    for name in ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def soon(after=0.0):
    """Return what stands for the time at which the script is up, or that many seconds after."""
    return "SOON+%.3f" % after


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """An HTTP server on this machine that remembers when it was asked for what."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, certificate=None):
        self.requests = []  # (time, method, path, headers, body)
        self.news = threading.Condition()
        self.release = threading.Event()  # until then /slow does not answer
        super().__init__(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            scheme = "https"
        self.url = "%s://127.0.0.1:%d" % (scheme, self.server_port)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc_info):
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
            self.server.requests.append(
                (time.time(), self.command, self.path, self.headers, body)
            )
            self.server.news.notify_all()
        status, location = 200, None
        if self.path.startswith("/status/"):
            status = int(self.path[8:])
        elif self.path == "/redirect":
            status, location = 302, "/arrived"
        elif self.path.startswith("/redirect-to-"):
            status, location = 302, self.path[len("/redirect-to-") :]
        elif self.path == "/slow":
            self.server.release.wait(PATIENCE)
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        content = bytes(1 << 20) if self.path == "/large" else b"ok"
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_HEAD = answer

    def log_message(self, *args):
        pass


class Folder(unittest.TestCase):
    """A test with a folder of its own, in which the script lies with a config.py."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.script = self.path("api_scheduler.py")
        shutil.copy(os.path.join(HERE, "api_scheduler.py"), self.script)
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not re.match(r"(?i).*_proxy$|CURL|SSL_CERT|XDG|NO_COLOR|PYTHON|TERM$", name)
        }
        homes = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA"), self.folder)  # where curl looks for its own
        self.environ.update(homes, PYTHONDONTWRITEBYTECODE="1", TERM="xterm")

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def config(self, url, **settings):
        settings = dict({"API_URL": url, "LOG_FILE": "test.log"}, **settings)
        self.write("config.py", "".join("%s = %r\n" % item for item in settings.items()))

    def log(self, name="test.log"):
        """Return the lines of the log, none if there is no log."""
        if not os.path.exists(self.path(name)):
            return []
        with open(self.path(name), encoding="utf-8") as file:
            return file.read().splitlines()

    def command(self, *arguments):
        if not re.search(SOON, "".join(arguments)) and "@soon.txt" not in arguments:
            return [sys.executable, self.script] + list(arguments)
        return [sys.executable, self.write("runner.py", RUNNER)] + list(arguments)

    def due(self, text):
        """Return when that was, which `soon` returned, in seconds since the epoch."""
        with open(self.path("base")) as file:
            return float(file.read()) + float(re.match(SOON, text).group(2))

    def start(self, *arguments, **options):
        """Start the script; it is gone when the test ends."""
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        settings = dict(streams, env=self.environ, cwd=self.folder, stdin=subprocess.DEVNULL)
        settings.update(options)
        program = subprocess.Popen(
            self.command(*arguments), universal_newlines=True, **settings
        )
        self.addCleanup(end, program)
        return program

    def run_script(self, *arguments, **options):
        """Run the script to its end; return its exit status, standard output and error."""
        program = self.start(*arguments, **options)
        out, err = program.communicate(timeout=PATIENCE)
        self.assertNotRegex(err or "", "Traceback|internal error")
        return program.returncode, out, err

    def spy_on_curl(self):
        """Have each armed curl announced; return a function that waits for the next ones.

        The function returns their process ids. They are real: a shell becomes curl.
        """
        if not POSIX:
            self.skipTest("a shell script in the place of curl needs POSIX")
        os.mkfifo(self.path("armed"))
        announced = os.open(self.path("armed"), os.O_RDWR)
        self.addCleanup(os.close, announced)
        os.mkdir(self.path("bin"))
        self.write(
            "bin/curl",
            '#!/bin/sh\ncase "$*" in *--no-silent*|"-q "*|--version) ;; *) echo $$ >"%s" ;; esac\n'
            'exec "%s" "$@"\n' % (self.path("armed"), CURL),
        )
        os.chmod(self.path("bin", "curl"), 0o755)
        self.environ["PATH"] = self.path("bin") + os.pathsep + self.environ["PATH"]

        def next_ones(count):
            lines = b""
            while lines.count(b"\n") < count:
                if not select.select([announced], [], [], PATIENCE)[0]:
                    raise AssertionError("no curl was armed")
                lines += os.read(announced, 1)
            return [int(line) for line in lines.split()]

        return next_ones


def end(program):
    if program.poll() is None:
        program.kill()
    program.wait()
    for stream in (program.stdout, program.stderr):
        if stream:
            stream.close()


def curl_takes(*options):
    """Whether the curl here knows `options`: then a URL is all that it misses."""
    command = [CURL, "-q"] + list(options)
    said = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).communicate()[1]
    return b"no URL specified" in said


def instant(text):
    return api_scheduler.parse_time(text).timestamp()


def gone(pid):
    """Wait for a process to end; it may stay behind as a zombie that nobody collects."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            with open("/proc/%d/stat" % pid) as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError as error:
            if error.errno != errno.ENOENT or os.path.isdir("/proc/self"):
                return True
        time.sleep(0.01)  # there is no event for the end of somebody else's child
    return False


@contextlib.contextmanager
def zone(name):
    """Set the local time zone, as a POSIX zone string."""
    if not hasattr(time, "tzset"):
        raise unittest.SkipTest("the zone cannot be set here")
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


ASKED = api_scheduler.Asked(CURL, "", [], "", 0.0, 0.02)
NEW_YORK = "EST5EDT,M3.2.0,M11.1.0"  # 2026: clocks go forward on 8 March, back on 1 November


def at(text):
    """Return the seconds since the epoch of a local date and time, written as in the log."""
    return datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S").timestamp()


# ---------------------------------------------------------------------------------- parse


class Parse(unittest.TestCase):
    def test_times_of_day_become_times(self):
        self.assertEqual(
            api_scheduler.parse_timestamps("12:30:00, 14:15:30,9:05:59"),
            [datetime.time(12, 30), datetime.time(14, 15, 30), datetime.time(9, 5, 59)],
        )

    def test_a_list_of_strings_is_taken_too(self):
        self.assertEqual(
            api_scheduler.parse_timestamps(["00:00:00", "23:59:59, 00:00:00"]),
            [datetime.time(0, 0), datetime.time(23, 59, 59), datetime.time(0, 0)],
        )

    def test_iso_date_times_become_aware_datetimes(self):
        utc = datetime.timezone.utc
        half_past_two = datetime.datetime(2026, 8, 1, 14, 30, tzinfo=utc)
        for text in (
            "2026-08-01T14:30:00Z",
            "2026-08-01t14:30z",
            "2026-08-01 14:30:00+00:00",
            "2026-08-01T20:00:00+05:30",
            "2026-08-01T20:00:00+0530",
            "2026-08-01T11:30:00-03",
            "20260801T143000Z",
        ):
            with self.subTest(text):
                (moment,) = api_scheduler.parse_timestamps(text)
                self.assertEqual(moment, half_past_two)
                self.assertIsNotNone(moment.tzinfo)
        (moment,) = api_scheduler.parse_timestamps("2026-08-01T14:30:00.25Z")
        self.assertEqual(moment - half_past_two, datetime.timedelta(seconds=0.25))

    def test_an_iso_date_time_without_offset_is_local(self):
        with zone(NEW_YORK):
            (moment,) = api_scheduler.parse_timestamps("2026-08-01T14:30:00")
        self.assertEqual(moment.utcoffset(), datetime.timedelta(hours=-4))

    def test_what_is_no_time_is_left_out_with_a_warning_that_names_it(self):
        for bad in (
            "25:00:00", "12:60:00", "12:00:60", "12:30", "noon", "12:30:00Z", "-1:00:00",
            "2026-02-30T00:00:00Z", "2026-08-01", "2026-08-01T14:30:00+25:00", "2026-08-01T14:30:00+05:99",
            "12:30:00\n13:00:00", "\u0661\u0662:30:00",
        ):  # fmt: skip
            with self.subTest(bad):
                stderr = io.StringIO()
                with contextlib.redirect_stderr(stderr):
                    times = api_scheduler.parse_timestamps("12:30:00," + bad)
                self.assertEqual(times, [datetime.time(12, 30)])
                self.assertIn("Skipped '%s' (" % bad.replace("\n", "\\n"), stderr.getvalue())

    def test_suppress_print_suppresses_the_warning(self):
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            self.assertEqual(api_scheduler.parse_timestamps("noon", suppress_print=True), [])
        self.assertEqual(stderr.getvalue(), "")

    def test_empty_entries_are_passed_over(self):
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            self.assertEqual(len(api_scheduler.parse_timestamps(" ,12:30:00,, ")), 1)
        self.assertEqual(stderr.getvalue(), "")

    def test_identical_times_are_grouped(self):
        noon, one = datetime.time(12), datetime.time(13)
        self.assertEqual(
            api_scheduler.group_by_time([noon, one, noon]), {noon: [noon, noon], one: [one]}
        )


# ----------------------------------------------------------------------------------- plan


class Plan(unittest.TestCase):
    def due(self, text, now, today=False):
        when = api_scheduler.parse_time(text)
        return api_scheduler.local(api_scheduler.due_time(when, now, today))

    def test_a_time_of_day_is_due_at_its_next_occurrence(self):
        with zone(NEW_YORK):
            now = at("2026-11-22 12:30:00") + 0.9
            for text, due in (
                ("12:30:01", "2026-11-22 12:30:01"),
                ("23:59:59", "2026-11-22 23:59:59"),
                ("12:30:00", "2026-11-22 12:30:00"),  # this second is not over yet
                ("12:29:59", "2026-11-23 12:29:59"),
                ("00:00:00", "2026-11-23 00:00:00"),
            ):
                with self.subTest(text):
                    self.assertEqual(self.due(text, now), due)

    def test_today_refuses_what_has_passed(self):
        with zone(NEW_YORK):
            now = at("2026-12-31 12:30:00")
            self.assertEqual(self.due("12:30:00", now, True), "2026-12-31 12:30:00")
            with self.assertRaisesRegex(ValueError, "passed today"):
                self.due("12:29:59", now, True)

    def test_an_iso_date_time_in_the_past_is_refused(self):
        now = instant("2026-08-01T14:30:00.5Z")
        self.assertEqual(api_scheduler.due_time(api_scheduler.parse_time("2026-08-01T14:30:00Z"), now), now - 0.5)
        with self.assertRaisesRegex(ValueError, "passed"):
            api_scheduler.due_time(api_scheduler.parse_time("2026-08-01T14:29:59Z"), now)

    def test_in_the_gap_the_offset_before_it_counts(self):
        with zone(NEW_YORK):  # 02:00 to 03:00 does not exist on 8 March
            self.assertEqual(self.due("02:30:00", at("2026-03-08 00:00:00")), "2026-03-08 03:30:00")
            self.assertEqual(self.due("02:30:00", at("2026-03-08 03:10:00")), "2026-03-08 03:30:00")
            self.assertEqual(self.due("02:30:00", at("2026-03-07 12:00:00")), "2026-03-08 03:30:00")
            self.assertEqual(instant("2026-03-08T02:30:00"), instant("2026-03-08T03:30:00-04:00"))

    def test_in_the_fold_the_first_one_counts(self):
        with zone(NEW_YORK):  # 01:00 to 02:00 comes twice on 1 November
            first = instant("2026-11-01T01:30:00-04:00")
            half_past_one = datetime.time(1, 30)
            self.assertEqual(api_scheduler.due_time(half_past_one, at("2026-11-01 00:00:00")), first)
            self.assertEqual(instant("2026-11-01T01:30:00"), first)
            between = instant("2026-11-01T01:10:00-05:00")  # the first has passed
            self.assertEqual(
                api_scheduler.due_time(half_past_one, between), at("2026-11-02 01:30:00")
            )

    def test_a_day_with_a_clock_change_is_not_24_hours_long(self):
        with zone(NEW_YORK):
            noon = at("2026-03-07 12:00:00")
            self.assertEqual(api_scheduler.due_time(datetime.time(11), noon) - noon, 22 * 3600)

    def test_groups_come_in_order_of_time_and_the_same_instant_is_one_group(self):
        with zone("UTC0"):
            groups, skipped, _ = api_scheduler.plan(
                ["14:00:00,12:30:00", "noon", "2026-11-22T14:30:00+02:00,12:30:00"],
                at("2026-11-22 10:00:00"),
            )
            self.assertEqual(
                groups, [(at("2026-11-22 12:30:00"), 3), (at("2026-11-22 14:00:00"), 1)]
            )
            self.assertEqual([text for text, _ in skipped], ["noon"])

    def test_arming_leaves_room_for_every_group_behind(self):
        cost, margin = api_scheduler.ARM_SECONDS_PER_CALL, api_scheduler.ARM_MARGIN
        small, large = api_scheduler.arming_times([(1000, 1), (1001, 500)])
        self.assertAlmostEqual(large, 1001 - margin - 500 * cost)
        self.assertAlmostEqual(small, large - cost)
        self.assertEqual(api_scheduler.arming_times([(1000, 10 ** 6)]), [1000 - api_scheduler.ARM_EARLIEST])

    def test_the_first_group_that_is_late_by_arming_is_known(self):
        def found(*groups, most=5000):
            return api_scheduler.too_many(groups, 0.0, 0.02, most)
        self.assertIsNone(found((1000, 1), (1001, 2900)))
        self.assertEqual(found((1000, 3500)), (1000, 3500, 3000))
        self.assertEqual(found((1000, 3500), most=40), (1000, 3500, 40))
        groups = [(1000 + n, 2500) for n in range(4)]  # each alone would have the time, all together have not
        self.assertEqual(found(*groups), (1001, 2500, 550))
        self.assertIsNone(found((1000, 2500), (1100, 2500)))

    def test_a_curl_that_starts_slowly_is_armed_that_much_earlier(self):
        (usual,), (slow,) = (api_scheduler.arming_times([(1000, 1)], start) for start in (0, 3))
        self.assertAlmostEqual(usual - slow, 3)

    def test_a_time_of_day_that_has_just_passed_is_told(self):
        with zone("UTC0"):
            for now, grace, told in (
                ("2026-11-22 12:30:03", 60, True),
                ("2026-11-22 12:30:00", 60, False),  # it is due now
                ("2026-11-22 12:31:03", 60, False),
                ("2026-11-23 00:00:20", 60, False),
            ):
                with self.subTest(now):
                    groups, _, tomorrow = api_scheduler.plan(["12:30:00"], at(now), grace=grace)
                    self.assertEqual(tomorrow, {"12:30:00": groups[0][0]} if told else {})
            _, _, tomorrow = api_scheduler.plan(["23:59:50"], at("2026-11-23 00:00:20"), grace=60)
            self.assertEqual(tomorrow, {"23:59:50": at("2026-11-23 23:59:50")})

    def test_the_last_day_of_the_calendar_is_a_time_that_is_refused(self):
        with zone("UTC0"):
            groups, skipped, _ = api_scheduler.plan(["00:00:00"], at("9999-12-31 12:00:00"))
        self.assertEqual((groups, len(skipped)), ([], 1))


# ----------------------------------------------------------------------------------- wait


class PretendClock:
    """A wall clock that moves only when told, or when somebody sleeps by it."""

    def __init__(self, now=1000000.0):
        self.now = now
        self.reads = 0
        self.sleeps = []

    def __call__(self):
        self.reads += 1
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


class Wait(unittest.TestCase):
    def test_it_ends_when_the_time_has_come_and_not_before(self):
        clock = PretendClock()
        self.assertTrue(api_scheduler.wait_until(clock.now + 86400.25, clock, clock.sleep))
        self.assertEqual(clock.now, 1000000 + 86400.25)
        self.assertLessEqual(max(clock.sleeps), 1)

    def test_a_sleep_that_ends_early_is_followed_by_another(self):
        clock = PretendClock()
        due = clock.now + 1
        api_scheduler.wait_until(due, clock, lambda seconds: clock.sleep(seconds * 0.9 + 1e-6))
        self.assertGreaterEqual(clock.now, due)

    def test_a_clock_set_back_makes_it_no_earlier(self):
        clock = PretendClock()
        due = clock.now + 10

        def sleep(seconds):
            clock.sleep(seconds)
            if len(clock.sleeps) == 5:
                clock.now -= 3600

        api_scheduler.wait_until(due, clock, sleep)
        self.assertEqual(clock.now, due)
        self.assertGreater(sum(clock.sleeps), 3600)

    def test_a_clock_set_forward_or_a_suspended_machine_is_noticed_within_a_second(self):
        clock = PretendClock()
        due = clock.now + 7200

        def sleep(seconds):
            clock.sleep(seconds)
            if len(clock.sleeps) == 5:
                clock.now += 7200

        api_scheduler.wait_until(due, clock, sleep)
        self.assertEqual(len(clock.sleeps), 5)

    def test_it_takes_times_of_day_and_date_times(self):
        for when in (datetime.datetime.fromtimestamp(1000060), datetime.datetime.fromtimestamp(1000060).time()):
            clock = PretendClock()
            api_scheduler.wait_until(when, clock, clock.sleep)
            self.assertEqual(clock.now, 1000060)

    def test_it_ends_at_once_when_stopped(self):
        self.assertFalse(api_scheduler.wait_until(time.time() + 3600, stopped=lambda: True))

    def test_a_year_of_hours_each_on_time(self):
        clock = PretendClock()
        groups = [(clock.now + 3600 * hour, 1) for hour in range(1, 8761)]
        fired = []

        def fire_group(due):
            fired.append((due, clock.now))
            scheduler.report([(api_scheduler.CALLED, due, "", clock.now)])

        log = mock.Mock(unwritten=[])
        reporter = api_scheduler.Reporter(log, "http://localhost/", len(groups), timefunc=clock)
        settings = api_scheduler.Settings("http://localhost/", "", 30, 60, [])
        scheduler = api_scheduler.Scheduler(groups, settings, reporter, 1, clock)
        self.addCleanup(scheduler.close)
        scheduler.fire_group = fire_group
        scheduler.nap = clock.sleep
        with mock.patch.object(api_scheduler, "LONGEST_SLEEP", 10 ** 9):
            with mock.patch.object(api_scheduler, "start_thread"):  # nothing is armed
                scheduler.run(ASKED)
        self.assertEqual([due for due, _ in fired], [due for due, _ in groups])
        self.assertTrue(all(now == due for due, now in fired))


class Steps(Folder):
    """A real curl, armed and fired by a clock that the test sets."""

    def setUp(self):
        super().setUp()
        self.clock = PretendClock(now=float(int(time.time())))
        self.server = Server().__enter__()
        self.addCleanup(self.server.__exit__)
        self.armed = self.spy_on_curl()

    def begin(self, *groups, armed=None, places=100):
        """Start a scheduler for ``(seconds from now, calls)``; return the pids of armed curls."""
        groups = [(self.clock.now + after, count) for after, count in groups]
        settings = api_scheduler.Settings(self.server.url, self.path("test.log"), 30, 60, [])
        log = api_scheduler.Log(settings.log_file)
        self.reporter = api_scheduler.Reporter(
            log, settings.url, sum(n for _, n in groups), quiet=True, timefunc=self.clock
        )
        self.scheduler = api_scheduler.Scheduler(groups, settings, self.reporter, places, self.clock)
        self.addCleanup(self.scheduler.close)
        asked = ASKED._replace(curl=self.path("bin", "curl"))
        self.thread = threading.Thread(target=self.scheduler.run, args=(asked,), daemon=True)
        self.thread.start()
        return self.armed(sum(n for _, n in groups) if armed is None else armed)

    def set_clock(self, now):
        """Set the clock, and wait until the scheduler has read it several times."""
        self.clock.now = now
        reads = self.clock.reads
        deadline = time.monotonic() + PATIENCE
        while self.clock.reads < reads + 5 and self.thread.is_alive():
            self.scheduler.wake()
            self.assertLess(time.monotonic(), deadline)

    def finish(self):
        """Wait for the end; return the log."""
        self.thread.join(PATIENCE)
        self.assertFalse(self.thread.is_alive())
        return self.log()

    def test_not_a_millisecond_early_and_then_at_once(self):
        self.begin((1, 3))
        due = self.clock.now + 1
        self.set_clock(due - 0.001)
        self.assertEqual(self.server.requests, [])
        self.set_clock(due)
        self.server.wait_for(3)
        log = self.finish()
        line = "%s: Successfully called API at %s" % (api_scheduler.local(due), self.server.url)
        self.assertEqual(log, [line] * 3)
        self.assertEqual(len(self.server.requests), 3)

    def test_a_clock_set_back_while_armed_calls_nothing(self):
        self.begin((1, 2))
        due = self.clock.now + 1
        self.set_clock(due - 3600)
        self.assertEqual(self.server.requests, [])
        self.set_clock(due)
        self.assertEqual(len(self.finish()), 2)

    def test_late_within_the_grace_time_is_called(self):
        self.begin((1, 1))
        self.set_clock(self.clock.now + 1 + 60)
        self.server.wait_for(1)
        self.assertRegex(self.finish()[0], "Successfully called")

    def test_later_than_the_grace_time_is_missed_and_not_called(self):
        (pid, other) = self.begin((1, 2))
        due = self.clock.now + 1
        self.set_clock(due + 60.001)
        log = self.finish()
        line = "%s: Missed call to API at %s (due %s)"
        line %= api_scheduler.local(due + 60), self.server.url, api_scheduler.local(due)
        self.assertEqual(log, [line] * 2)
        self.assertEqual(self.server.requests, [])
        self.assertTrue(gone(pid) and gone(other))

    def test_after_a_suspend_what_is_long_past_is_missed_and_the_rest_called(self):
        now = self.clock.now
        self.begin((1, 1), (100, 2), (500, 1), armed=1)
        self.set_clock(now + 505)
        log = self.finish()
        self.assertEqual(sorted("Missed" in line for line in log), [False] + [True] * 3)
        self.assertEqual(len(self.server.requests), 1)

    def test_armed_curls_that_are_killed_are_replaced_and_the_call_made_once(self):
        (pid,) = self.begin((1, 1))
        for _ in range(3):
            os.kill(pid, signal.SIGKILL)
            (pid,) = self.armed(1)
        self.set_clock(self.clock.now + 1)
        self.assertRegex(self.finish()[0], "Successfully called")
        self.assertEqual(len(self.server.requests), 1)

    def test_an_armed_curl_that_ends_by_itself_is_replaced_once_and_then_a_failure(self):
        self.write("bin/curl", '#!/bin/sh\necho 1 >"%s"\necho "curl: (43) why" >&2\nexit 43\n' % self.path("armed"))
        self.begin((1, 1), armed=2)
        deadline = time.monotonic() + PATIENCE
        while not self.reporter.all_reported() and time.monotonic() < deadline:
            self.set_clock(self.clock.now)
        self.set_clock(self.clock.now + 1)
        (line,) = self.finish()
        self.assertRegex(line, r"Failed to call .* \(not called, curl ended .* exit code 43: why\)$")
        self.assertEqual(self.server.requests, [])

    def test_when_curl_cannot_be_started_it_is_tried_until_there_is_room(self):
        popen, refusals = subprocess.Popen, [errno.EAGAIN, errno.ENOMEM, errno.EMFILE]

        def refuse(*args, **kwargs):
            if refusals:
                raise OSError(refusals[0], os.strerror(refusals.pop(0)))
            return popen(*args, **kwargs)

        with mock.patch.object(api_scheduler.subprocess, "Popen", refuse):
            with mock.patch.object(api_scheduler, "RETRY_START", 0.001):
                self.begin((1, 2))
        self.set_clock(self.clock.now + 1)
        self.assertEqual(len(self.finish()), 2)
        self.assertEqual(len(self.server.requests), 2)

    def test_when_no_thread_can_be_started_no_call_is_lost_or_made_twice(self):
        start, refusals = api_scheduler.start_thread, [RuntimeError("can't start new thread")] * 2

        def refuse(target, *args):
            if target.__name__ == "make" and refusals:
                raise refusals.pop()
            start(target, *args)

        with mock.patch.object(api_scheduler, "start_thread", refuse):
            with mock.patch.object(api_scheduler, "RETRY_START", 0.001):
                (first,) = self.begin((1, 2), armed=1)  # in the arming thread, as there is no other
                os.kill(first, signal.SIGKILL)  # and replaced there, too
                self.armed(1)
        self.set_clock(self.clock.now + 1)
        self.assertEqual(len(self.finish()), 2)
        self.assertEqual(len(self.server.requests), 2)

    def test_when_curl_cannot_be_started_in_time_the_call_is_missed_and_says_why(self):
        tried = threading.Event()

        def refuse(*args, **kwargs):
            tried.set()
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

        with mock.patch.object(api_scheduler.subprocess, "Popen", refuse):
            with mock.patch.object(api_scheduler, "RETRY_START", 0.001):
                self.begin((1, 1), armed=0)
                self.assertTrue(tried.wait(PATIENCE))
                self.set_clock(self.clock.now + 100)
                (line,) = self.finish()
        self.assertRegex(line, r"Missed .*could not be started: Resource temporarily unavailable")

    def test_with_few_places_the_calls_are_made_as_places_free_up(self):
        self.begin((1, 7), armed=2, places=2)
        self.set_clock(self.clock.now + 1)
        self.assertEqual(len(self.finish()), 7)
        self.assertEqual(len(self.server.requests), 7)

    def test_a_curl_that_outlives_its_time_limit_is_killed_and_logged(self):
        with mock.patch.object(api_scheduler, "KILL_AFTER", 0.1 - 30):
            (pid,) = self.begin((1, 1))
        os.kill(pid, signal.SIGSTOP)  # so that --max-time does not end it
        self.set_clock(self.clock.now + 1)
        (line,) = self.finish()
        self.assertRegex(line, r"Failed to call .* \(exit code -9: killed, no end after 0.1 s\)")


# ----------------------------------------------------------------------------------- call


class Url(unittest.TestCase):
    def test_what_curl_would_call_is_accepted(self):
        for url in (
            "http://h", "https://h:8080/a?b=c&d={e}#f", "HTTP://[::1]:80/", "http://me:p%40ss@h/",
            'http://h/"quoted\\', "http://b\u00fccher.example/",
        ):  # fmt: skip
            with self.subTest(url):
                api_scheduler.check_url(url)

    def test_what_is_no_http_url_is_refused(self):
        for url in (
            None, "", 5, "example.org", "ftp://h/", "file:///etc/passwd", "http://", "http:///x",
            "http://h/a b", "http://h/\n", 'http://h/\noutput = "x"', "http://h/\x00", "http://h/\x7f",
            "http://h/\u2028", "http://h:port/", "http://me:12/34@h/", "http://me:12#34@h/", "http://me:p@ss@h/", b"http://h/", "http://h/" + "x" * 8000, "http://h/\udc80",
        ):  # fmt: skip
            with self.subTest(url):
                with self.assertRaises(SetupError):
                    api_scheduler.check_url(url)

    def test_a_password_that_breaks_the_url_is_not_repeated(self):
        for url in ("http://me:sec/ret@h/", "http://me:sec#ret@h/", "http://me:sec ret@h/", "http://me:sec@ret@h/"):
            with self.assertRaises(SetupError) as caught:
                api_scheduler.check_url(url)
            self.assertNotIn("sec", str(caught.exception))

    def test_a_password_is_hidden_and_nothing_else(self):
        for url, shown in (
            ("http://me:secret@h:80/p?q=1", "http://me:***@h:80/p?q=1"),
            ("http://me:se@cr:et@h/", "http://me:***@h/"),
            ("http://:secret@h/", "http://:***@h/"),
            ("http://me@h/", "http://me@h/"),
            ("https://h/p:q@r", "https://h/p:q@r"),
        ):
            with self.subTest(url):
                self.assertEqual(api_scheduler.without_password(url), shown)

    def test_a_port_that_is_none_is_refused(self):
        with self.assertRaises(SetupError):
            api_scheduler.check_url("http://h:65536/")
        api_scheduler.check_url("http://h:65535/")


class Calls(Folder):
    """The script against a real server, with real curls."""

    def setUp(self):
        super().setUp()
        self.server = Server().__enter__()
        self.addCleanup(self.server.__exit__)

    def call(self, path="/", *arguments):
        """Call `path` once; return exit status and what was logged."""
        self.write("test.log", "")
        self.config(self.server.url + path)
        status, out, err = self.run_script(soon(), *arguments)
        self.assertEqual(out.splitlines(), self.log(), err)
        return status, self.log()

    def test_a_call_is_made_at_its_time_and_its_line_is_to_the_letter(self):
        self.config(self.server.url)
        status, out, err = self.run_script("CLOCK+1.5")
        due = int(self.due("CLOCK+1.5"))
        line = "%s: Successfully called API at %s\n" % (api_scheduler.local(due), self.server.url)
        self.assertEqual((status, out, err), (0, line, ""))
        self.assertEqual("\n".join(self.log()) + "\n", line)
        ((arrived, method, path, _, _),) = self.server.requests
        self.assertGreaterEqual(arrived, due)
        self.assertEqual((method, path), ("GET", "/"))

    def test_status_400_and_above_is_a_failure(self):
        for code in (400, 500):
            status, log = self.call("/status/%d" % code)
            self.assertEqual(status, 1)
            self.assertRegex(
                log[-1],
                r"^%s: Failed to call API at http://127.0.0.1:\d+/status/%d "
                r"\(exit code 22: .*%d.*\)$" % (STAMP, code, code),
            )

    def test_a_dead_server_is_a_failure_in_curls_own_words(self):
        self.server.shutdown()
        self.server.server_close()
        status, log = self.call()
        self.assertEqual(status, 1)
        self.assertRegex(log[0], r"^%s: Failed to call API at \S+ \(exit code 7: .*[Cc]onnect.*\)$" % STAMP)

    def test_redirects_are_followed_but_only_to_http(self):
        self.assertEqual(self.call("/redirect")[0], 0)
        self.assertEqual([request[2] for request in self.server.requests], ["/redirect", "/arrived"])
        for scheme, rest in (("ftp", "127.0.0.1/"), ("file", "/etc/hostname")):
            status, log = self.call("/redirect-to-%s://%s" % (scheme, rest))
            self.assertEqual(status, 1)
            self.assertRegex(log[-1], r"\(exit code 1: .*%s.*\)" % scheme)

    def test_brackets_in_the_url_are_one_call(self):
        self.assertEqual(self.call("/[1-3]/{a,b}")[0], 0)
        self.assertEqual([request[2] for request in self.server.requests], ["/[1-3]/{a,b}"])

    def test_quotes_and_backslashes_reach_the_server_as_they_are(self):
        self.call('/"\\n\\"')
        self.assertEqual(self.server.requests[0][2], '/"\\n\\"')

    def test_the_url_cannot_break_out_of_the_config_line(self):
        victim = self.path("victim")
        self.config(self.server.url + '/\noutput = "%s"' % victim)
        status, _, err = self.run_script(soon())
        self.assertEqual(status, 2)
        self.assertIn("control character", err)
        self.call('/"%20--output%20' + victim + '"')
        self.call('/\\"\\')
        self.assertFalse(os.path.exists(victim))

    def test_curl_options_go_to_curl_and_win(self):
        self.write("body.json", '{"a": 1}')
        options = ["--", "-X", "POST", "-H", "X-Test: a b", "--data", "@body.json", "--no-fail"]
        status, _ = self.call("/status/500", *options)
        self.assertEqual(status, 0)
        ((_, method, _, headers, body),) = self.server.requests
        self.assertEqual((method, headers["X-Test"], body), ("POST", "a b", b'{"a": 1}'))

    def test_options_of_the_command_line_come_behind_those_of_config_py(self):
        self.config(self.server.url, CURL_OPTIONS=["-A", "config", "-H", "X-Test: kept"])
        self.assertEqual(self.run_script(soon(), "--", "-A", "command line")[0], 0)
        headers = self.server.requests[0][3]
        self.assertEqual((headers["User-Agent"], headers["X-Test"]), ("command line", "kept"))

    def test_a_curl_that_is_killed_before_its_time_calls_nothing_even_if_it_knows_a_url(self):
        command = [CURL, "--silent", self.server.url, "--config", "-"]
        curl = api_scheduler.Curl(command, subprocess.DEVNULL, 0)
        curl.kill()
        self.assertEqual(curl.end()[0], -signal.SIGKILL if POSIX else 1)
        curl.close()
        curl.fire(b"", time.time(), 0)
        self.assertIsNone(curl.fired_at)
        self.assertEqual(self.server.requests, [])

    def test_an_answer_can_be_kept_in_a_file(self):
        for count in (1, 9):  # alone, and at the gate of a group
            self.config(self.server.url)
            answer = self.path("answer%d" % count)
            self.run_script(",".join([soon()] * count), "--", "-o", answer)
            with open(answer) as file:
                self.assertEqual(file.read(), "ok")

    def test_what_only_looks_like_standard_input_is_let_through(self):
        for options in (["-u", "me:hunter2@-"], ["--data-raw", "@-"], ["-H", "X: a@-"]):
            self.assertEqual(self.call("/", "--", *options)[0], 0, options)

    def test_what_curl_warns_of_is_told_at_once_also_by_a_dry_run(self):
        self.config(self.server.url)
        status, _, err = self.run_script("--dry-run", "23:59:59", "--", "--output", "-foo")
        self.assertEqual(status, 0)
        self.assertIn("foo", err)

    def test_a_curlrc_with_a_mistake_is_named(self):
        self.config(self.server.url)
        self.write(".curlrc", "bogus = 5\n")
        self.assertIn(".curlrc:1", self.run_script("--dry-run", "23:59:59")[2])

    def test_a_proxy_that_is_none_is_not_told_with_its_password(self):
        self.environ["http_proxy"] = "http://me:hunter2@localhost:port"
        status, log = self.call()
        self.assertEqual(status, 1)
        self.assertRegex(log[0], "Failed to call")
        self.assertNotIn("hunter2", log[0])

    def test_a_curl_that_starts_slowly_is_known(self):
        self.spy_on_curl()
        with open(self.path("bin", "curl"), "a+") as file:
            file.seek(0)
            text = file.read().replace("#!/bin/sh\n", "#!/bin/sh\nsleep 0.5\n")
            file.truncate(0)
            file.write(text)
        with mock.patch.dict(os.environ, self.environ, clear=True):
            asked = api_scheduler.check_curl(api_scheduler.Settings(self.server.url, "", 30, 60, []))
            self.assertGreaterEqual(asked.start, 0.5)
            with mock.patch.object(api_scheduler, "ASK_TIMEOUT", 0.1):
                with self.assertRaisesRegex(SetupError, "does not come back"):
                    api_scheduler.check_curl(api_scheduler.Settings(self.server.url, "", 30, 60, []))

    def test_who_sets_limits_of_time_is_left_alone_with_them(self):
        for options in (["-m", "5"], ["-sm5"], ["--max-time", "5"], ["--retry", "3"], ["-K", self.write("a", "retry = 3")]):
            self.assertRegex(api_scheduler.all_options(CURL, options)[1], api_scheduler.SETS_LIMITS)
        for options in (["-X", "POST"], ["--data", "retry"], ["-umary:pw"], ["-Fimage=@x.png"], ["-d", "a\n-item"], ["-K", self.write("a", "# retry")], ["-H", "retry-after: 5"]):
            self.assertNotRegex(api_scheduler.all_options(CURL, options)[1], api_scheduler.SETS_LIMITS)

    @unittest.skipUnless(curl_takes("--fail-with-body"), "this curl, before 7.76, has no such option")
    def test_fail_with_body_can_take_the_place_of_fail(self):
        status, log = self.call("/status/404", "--", "--fail-with-body")
        self.assertEqual(status, 1)
        self.assertIn("exit code 22", log[0])

    def test_curl_retries_when_told_to(self):
        status, log = self.call("/status/503", "--", "--retry", "1", "--retry-delay", "1")
        self.assertEqual((status, len(log), len(self.server.requests)), (1, 1, 2))

    def test_what_curl_refuses_is_told_at_once(self):
        self.config(self.server.url)
        self.write("next", "noproxy = *\nurl = %s\nnext\n" % self.server.url)
        self.write("nested", 'config = "%s"\n' % self.path("next").replace("\\", "/"))
        for options, words in (
            (["--no-such-option"], "--no-such-option"),
            (["--max-time", "never"], "--max-time"),
            (["http://elsewhere.invalid/"], "URL of their own"),
            (["--url", "http://elsewhere.invalid/"], "URL of their own"),
            ([self.server.url], "URL of their own"),
            ([self.server.url, "--next", "-s"], "one URL"),
            (["--proto", "=http", self.server.url], "URL of their own"),
            (["-K", self.path("next")], "URL of its own"),
            (["-K" + self.path("next")], "URL of its own"),
            (["--CONFIG", self.path("next")], "URL of its own"),
            (["--config=" + self.path("next")], "URL of its own"),
            (["--conf=" + self.path("nested")], "names another file"),
            (["--proto-default", "foo"], "--proto-default"),
            (["--libcurl", "code.c"], "--libcurl"),
            (["--data", "@" + self.folder], "it is a folder"),
            (["-K", self.path("missing.cfg")], "missing.cfg"),
            (["-T/dev/stdin"], "standard input"),
            (["-H", "-s", self.server.url], "URL of their own"),
            (["-w", "curl: option no URL specified", self.server.url], "curl refuses its options"),
            (["--url", "@" + self.path("next")], "URL of their own"),
            (["--no-globoff"], "--no-globoff"),
            (["--skip-existing"], "--skip-existing"),
            (["-sZ"], "--parallel"),
            (["--parallel"], "--parallel"),
            (["--expand-stderr", "v"], "--stderr"),
            (["--expand-libcurl", "v"], "--libcurl"),
            (["-A", "-K", "-K", self.path("next")], "URL of its own"),
            (["-ume:passK", "-K", self.path("next")], "URL of its own"),
            (["-K=" + self.path("next")], "URL of its own"),
            (["-K", self.write("commented", "upload-file = - # x")], "standard input"),
            (["-K", self.write("zeros", "u\0\nrl = %s" % self.server.url)], "not a text file"),
            (["--usr=me:a hunter2"], "--usr"),
            (["--user:me:hunter2"], "--user:***"),
            (["-F", 'a=@"/dev/stdin";type=x'], "standard input"),
            (["--proto-default", "dict", "--noproxy", "*", self.server.url[7:]], "URL of their own"),
            (["--noproxy", "*", "dict://" + self.server.url[7:]], "URL of their own"),
            (["-x", self.server.url, "dict.invalid/"], "URL of their own"),
            (["--NEXT"], "one URL"),
            (["--expand-url", "x"], "--expand-url"),
            (["-K", self.write("stdin", 'upload-file = "-"')], "standard input"),
            (["-F", "a=@/dev/stdin"], "standard input"),
            (["-T", "/dev/fd/0"], "standard input"),
            (["--users=me:hunter2"], "--users"),
            (["--", self.server.url], "one URL"),
            (["-o"], "-o, lacks its value"),
            (["-v", "-H"], "-H, lacks its value"),
            (["-K"], "-K, lacks its value"),
            (["--output", "-foo", "--bogus"], "curl: option --bogus"),
            (["--version"], "calls nothing"),
            (["--stderr", "/dev/null", "--bogus"], "--stderr"),
            (["-K", "/dev/stdin"], "standard input"),
            (["--conf", "-"], "standard input"),
            (["--data", "@-"], "standard input"),
            (["-d@-"], "standard input"),
            (["-T-"], "standard input"),
            (["-u", "me:hunter2", "-d", "@/dev/stdin" if POSIX else "@-"], "standard input"),
            (["-F", "a=@-;type=text/plain"], "standard input"),
            (["--data-urlencode", "a\x1b\n2026-01-01 forged@-"], "standard input"),
            (["-b", "-"], "standard input"),
            (["-s:"], "one URL"),
            (["-K", self.path("nested")], "names another file"),
            (["-d", "@/dev/fd/0" if POSIX else "@-"], "standard input"),
            (["-d", "@missing.json"], "missing.json" if POSIX else "cannot read"),
            (["-s", "-H", "@missing.txt"], "missing.txt"),
            (["-u", "me"], "password"),
        ):
            with self.subTest(options):
                status, _, err = self.run_script("23:59:59", "--", *options)
                self.assertEqual(status, 2)
                self.assertIn(words, err)
                self.assertRegex(self.log()[-1], "^%s: Not started " % STAMP)
        self.assertNotIn("hunter2", "".join(self.log()))
        for text, words in (
            ("url = {0}", "URL of its own"),
            ("\ufeffnoproxy = *\nproto = =http\n --url={0}", "URL of its own"),
            ("noproxy = *\nurl = {0}\nnext\nnoproxy = *\nurl = {0}\n--next", "URL of its own"),
            ("expand-url = {0}", "URL of its own"),
            ("NEXT", "one URL"),
            ("-s:", "one URL"),
            ('stderr = "x"', "--stderr"),
            ("-K other", "names another file"),
            ("CONFIG = other", "names another file"),
        ):
            self.write(".curlrc", text.format(self.server.url))
            status, _, err = self.run_script("23:59:59", "--dry-run")
            self.assertEqual(status, 2)
            self.assertIn(words, err)
        self.assertEqual(self.server.requests, [])
        self.write(".curlrc", "data = @missing.json")  # curl 8 only warns, and makes a GET of it
        self.assertIn("missing.json", self.run_script("23:59:59", "--dry-run")[2])

    def test_what_only_looks_like_an_option_is_a_body(self):
        self.config(self.server.url)
        bodies = ["a\n--\nb", "a\n--next\n", '{"path": "/dev/stdin"}', "see /dev/fd/0"]
        headers = ["X: see /dev/fd/01"]
        for option, value in [("-d", body) for body in bodies] + [("-H", header) for header in headers]:
            self.assertEqual(self.run_script("23:59:59", "--dry-run", "--", option, value)[::2], (0, ""), value)
        status, _ = self.call("/", "--", "--data", bodies[0])
        self.assertEqual((status, self.server.requests[0][4]), (0, bodies[0].encode()))

    @unittest.skipUnless(POSIX, "needs pwd")
    def test_a_curlrc_in_the_home_that_the_system_knows_is_looked_at_too(self):
        """There curl looks for it, if HOME names another folder, which has none."""
        self.write(".curlrc", "url = http://h/")
        home = mock.Mock(pw_dir=self.folder)
        with mock.patch.dict(os.environ, {"HOME": os.path.dirname(self.folder)}):
            with mock.patch.object(api_scheduler.pwd, "getpwuid", return_value=home):
                with self.assertRaisesRegex(SetupError, "URL of its own"):
                    api_scheduler.all_options(CURL, [])

    def test_curl_is_asked_for_its_version_without_a_curlrc(self):
        self.config(self.server.url)
        self.write(".curlrc", 'stderr = "%s"' % self.write("x", "kept").replace("\\", "/"))
        self.assertEqual(self.run_script("23:59:59", "--dry-run")[0], 2)
        with open(self.path("x")) as file:
            self.assertEqual(file.read(), "kept")

    def test_much_that_means_nothing_is_passed_over_at_once(self):
        self.write("blank", "\n" * 100000 + "referer = x\n")
        self.assertIn("--referer", api_scheduler.all_options(CURL, ["-K", self.path("blank")])[1])
        api_scheduler.refuse_what_cannot_work(api_scheduler.all_options(CURL, ["-K", self.path("blank")])[1])
        self.assertEqual(api_scheduler.without_secrets("-" * 100000), "-" * 100000)

    def test_what_curl_repeats_of_a_value_is_hidden(self):
        self.config(self.server.url)
        said = self.run_script("23:59:59", "--dry-run", "--", "-K", self.write("secret", "--user:me:hunter2"))[2]
        self.assertRegex(said, "curl: .*--user")
        self.assertNotIn("hunter2", said)
        for said in ("curl: option --user=me:a hunter2: is unknown", "Warning: '--user=me:hunter2' is unknown",
                     "Warning: The argument '\u201cme:hunter2\u201d' starts with a Unicode quote"):
            self.assertNotIn("hunter2", api_scheduler.without_values(said))
        self.assertNotIn("se cret", api_scheduler.without_secrets("Unsupported proxy syntax in 'me:se cret@127.0.0.1:1'"))
        kept = "curl: option -o: requires parameter"
        self.assertEqual(api_scheduler.without_values(kept), kept)

    def test_the_name_of_a_missing_file_is_not_cut(self):
        self.config(self.server.url)
        name = self.path("folder" * 20, "body.json")
        self.assertIn(name, self.run_script("23:59:59", "--dry-run", "--", "--data", "@" + name)[2])

    def test_a_hung_api_fails_after_the_timeout(self):
        status, log = self.call("/slow", "--timeout", "0.3")
        self.assertEqual(status, 1)
        self.assertRegex(log[0], r"\(exit code 28: .*timed out.*\)")

    def test_a_group_does_not_wait_for_the_slow_calls_of_an_earlier_one(self):
        self.config(self.server.url + "/slow")
        first, second = soon(), soon(0.3)
        program = self.start(first, first, second)
        arrived = [request[0] for request in self.server.wait_for(3)]
        self.assertEqual(self.log(), [])  # none has been answered
        self.assertGreaterEqual(arrived[2], self.due(second))
        self.server.release.set()
        self.assertEqual(program.wait(PATIENCE), 0)
        self.assertEqual(len(self.log()), 3)

    def test_a_large_group_is_called_at_once_each_once_and_never_early(self):
        self.config(self.server.url + "/slow")
        due = soon(1.4)
        program = self.start(", ".join([due] * 60))
        arrived = [request[0] for request in self.server.wait_for(60)]  # all, with none answered
        self.server.release.set()
        program.communicate(timeout=PATIENCE)  # 60 lines: more than a pipe of Windows holds
        self.assertEqual(program.returncode, 0)
        self.assertGreaterEqual(min(arrived), self.due(due))
        self.assertEqual((len(self.server.requests), len(self.log())), (60, 60))

    @unittest.skipUnless(POSIX, "needs ulimit")
    def test_300_calls_in_one_second_succeed_with_128_descriptors(self):
        self.config(self.server.url)
        self.write("soon.txt", ",".join([soon(0.4)] * 300))
        shell = 'ulimit -Sn 64; ulimit -Hn 128; exec "$@"'
        command = ["sh", "-c", shell, "sh"] + self.command("@soon.txt")
        program = subprocess.Popen(
            command, env=self.environ, cwd=self.folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, universal_newlines=True,
        )  # fmt: skip
        self.addCleanup(end, program)
        _, err = program.communicate(timeout=PATIENCE)
        self.assertEqual(program.returncode, 0)
        self.assertIn("about 48 can be made ready", err)
        self.assertEqual((len(self.server.requests), len(self.log())), (300, 300))

    def test_a_password_is_neither_logged_nor_shown_nor_in_the_process_list(self):
        url = self.server.url.replace("://", "://me:se%63ret@")
        self.config(url + "/status/401")
        pids = self.spy_on_curl()
        program = self.start(soon(0.4))
        (pid,) = pids(1)
        if os.path.isdir("/proc/self"):
            for name in ("cmdline", "environ"):
                with open("/proc/%d/%s" % (pid, name), "rb") as file:
                    self.assertNotIn(b"127.0.0.1", file.read())
        out, err = program.communicate(timeout=PATIENCE)
        self.assertEqual(self.server.requests[0][3]["Authorization"], "Basic bWU6c2VjcmV0")
        for text in (out, err, self.log()[0]):
            self.assertNotIn("se%63ret", text)
            self.assertNotIn("secret", text)
        self.assertIn("me:***@127.0.0.1", self.log()[0])

    def test_the_gate_is_not_in_the_way_of_large_answers(self):
        self.config(self.server.url + "/large")
        self.assertEqual(self.run_script(",".join([soon(0.4)] * 8))[0], 0)


class Https(Folder):
    """Looking up a CA in a hashed directory must not change who is trusted."""

    def setUp(self):
        super().setUp()
        for name, text in CERTIFICATES.items():
            self.write(name, text)
        os.mkdir(self.path("hashed"))
        shutil.copy(self.path("inside.pem"), self.path("hashed", INSIDE_HASH))
        shutil.copy(self.path("other.pem"), self.path("hashed", OTHER_HASH))
        self.bundle = self.write("bundle.pem", CERTIFICATES["inside.pem"] + CERTIFICATES["other.pem"])
        self.trust = self.bundle, self.path("hashed")
        version = subprocess.check_output([CURL, "--version"]).decode()
        self.asked = ASKED._replace(version=version)
        self.fast = bool(re.search(r"\sOpenSSL/", version)) and os.path.dirname(os.path.realpath(CURL)) in ("/usr/bin", "/bin")

    def options(self, *curl_options, url="https://127.0.0.1/", **environ):
        return api_scheduler.fast_trust(self.asked, url, curl_options, environ, self.trust)

    def get(self, certificate, options):
        """Call a server with that certificate; return curl's exit code."""
        with Server(self.path(certificate)) as server:
            command = api_scheduler.curl_command(CURL, 10, [], options)
            curl = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=self.environ,
            )  # fmt: skip
            curl.communicate(api_scheduler.curl_config(server.url + "/"))
            return curl.returncode

    @unittest.skipUnless(POSIX, "there curl asks the system, not a bundle or a hashed directory")
    def test_a_server_of_the_systems_store_is_trusted_and_one_outside_it_is_not(self):
        options = self.options()
        self.assertEqual(bool(options), self.fast)
        options = options or ["--cacert", self.bundle]  # a curl that is left alone
        self.assertEqual(self.get("server-inside.pem", options), 0)
        self.assertEqual(self.get("server-outside.pem", options), 60)

    def test_the_large_bundle_is_not_read(self):
        if self.fast:
            self.assertNotIn(self.bundle, self.options())
            self.assertIn(self.path("hashed", OTHER_HASH), self.options())  # the smallest

    def test_what_the_user_chose_is_left_alone(self):
        for options in (["--cacert", "x"], ["--capath=x"], ["-k"], ["-sk"], ["--insecure"], ["--ca-native"], ["--insec"], ["-K", "x"]):
            self.assertEqual(self.options(*options), [], options)
        self.assertEqual(self.options(url="http://127.0.0.1/"), [])
        self.asked = self.asked._replace(files=[".curlrc"])
        self.assertEqual(self.options(), [])

    def test_what_the_environment_names_counts_by_what_it_holds(self):
        copy = self.write("copy.pem", CERTIFICATES["other.pem"] + CERTIFICATES["inside.pem"])
        for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            self.assertEqual(bool(self.options(**{name: copy})), self.fast, name)
            self.assertEqual(self.options(**{name: self.path("inside.pem")}), [], name)
            self.assertEqual(self.options(**{name: "missing"}), [], name)
        self.assertEqual(bool(self.options(SSL_CERT_DIR=self.path("hashed"))), self.fast)
        self.assertEqual(self.options(SSL_CERT_DIR=self.folder), [])

    def test_a_directory_that_trusts_others_than_the_bundle_is_left_alone(self):
        self.write("bundle.pem", CERTIFICATES["inside.pem"])
        self.assertEqual(self.options(), [])
        self.write("bundle.pem", CERTIFICATES["inside.pem"] + CERTIFICATES["outside.pem"])
        self.assertEqual(self.options(), [])
        os.remove(self.bundle)
        self.assertEqual(self.options(), [])

    @unittest.skipUnless(POSIX, "to make a symbolic link is a privilege there")
    def test_a_curl_from_elsewhere_is_left_alone(self):
        os.symlink(CURL, self.path("curl"))  # what counts is where it is really
        self.asked = self.asked._replace(curl=self.path("curl"))
        self.assertEqual(bool(self.options()), self.fast)
        with mock.patch.object(api_scheduler, "SYSTEM_FOLDERS", ("/elsewhere",)):
            self.assertEqual(self.options(), [])

    def test_a_python_without_ssl_leaves_it_alone(self):
        self.trust = None
        with mock.patch.dict(sys.modules, {"ssl": None}):
            self.assertEqual(self.options(), [])

    def test_an_empty_file_is_not_chosen(self):
        self.write(os.path.join("hashed", "00000000.0"), "")
        self.assertNotIn(self.path("hashed", "00000000.0"), self.options())

    def test_a_certificate_that_is_removed_is_chosen_anew(self):
        settings = api_scheduler.Settings("https://127.0.0.1/", "", 30, 60, [])
        scheduler = api_scheduler.Scheduler([], settings, None, 1)
        scheduler.asked = self.asked
        self.addCleanup(scheduler.close)
        chosen = [["--capath", self.folder, "--cacert", self.path(name)] for name in ("inside.pem", "other.pem")]
        with mock.patch.object(api_scheduler, "fast_trust", side_effect=chosen):
            scheduler.make_command()
            self.assertIn(self.path("inside.pem"), scheduler.make_command())
            os.remove(self.path("inside.pem"))
            self.assertIn(self.path("other.pem"), scheduler.make_command())

    def test_a_directory_that_is_not_hashed_is_left_alone(self):
        os.rename(self.path("hashed", INSIDE_HASH), self.path("hashed", "inside.pem"))
        self.assertEqual(self.options(), [])

    @unittest.skipIf(WINE, "Wine takes any certificate for good")
    def test_the_script_refuses_a_server_outside_the_systems_store(self):
        with Server(self.path("server-outside.pem")) as server:
            self.config(server.url)
            status, _, _ = self.run_script(soon())
        self.assertEqual(status, 1)
        self.assertIn("exit code 60", self.log()[0])
        self.assertEqual(server.requests, [])


class Places(unittest.TestCase):
    """How many curls may be up at once."""

    def places(self, calls=10 ** 9):
        with api_scheduler.places(calls) as most:
            return most

    def test_a_system_that_refuses_the_first_limit_grants_the_second(self):
        class MacOS:
            RLIMIT_NOFILE, RLIM_INFINITY = 8, -1
            limits = 256, RLIM_INFINITY

            def getrlimit(self, _):
                return self.limits

            def setrlimit(self, _, limits):
                if limits[0] > 10240:
                    raise ValueError("current limit exceeds maximum limit")
                self.limits = limits

        macos = MacOS()
        with mock.patch.object(api_scheduler, "resource", macos):
            with mock.patch.object(api_scheduler, "memory", lambda: 1 << 40):
                self.assertEqual(self.places(), (10240 - 32) // 2)
        self.assertEqual(macos.limits, MacOS.limits)

    def test_half_of_the_memory_bounds_them(self):
        with mock.patch.object(api_scheduler, "memory", lambda: 64 * 1024 * 1024):
            self.assertEqual(self.places(), 16)
        with mock.patch.object(api_scheduler, "memory", lambda: 0):
            self.assertEqual(self.places(), 1)

    def test_the_limit_of_the_control_group_or_of_one_around_it_counts_as_memory(self):
        mounted = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, mounted)

        def write(name, text):
            path = os.path.join(mounted, *name.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text + "\n")
            return path

        def memory(group):
            return api_scheduler.memory(write("group", group), mounted)

        write("memory.max", "max")
        write("user.slice/memory.max", "2097152")
        write("user.slice/api.service/memory.max", "1048576")
        write("memory/docker/memory.limit_in_bytes", "524288")
        self.assertGreater(memory("0::/"), 2097152)
        self.assertEqual(memory("0::/user.slice/other.service"), 2097152)
        self.assertEqual(memory("0::/user.slice/api.service"), 1048576)
        self.assertEqual(memory("5:cpu,memory:/docker\n4:pids:/x"), 524288)
        self.assertGreater(api_scheduler.memory(os.path.join(mounted, "missing"), mounted), 2097152)

    @unittest.skipUnless(api_scheduler.resource, "there are no such limits here")
    def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one_for_a_while(self):
        code = (
            "import resource, api_scheduler; api_scheduler.memory = lambda: 1 << 40\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 232))\n"
            "for calls in (1, 1000):\n"
            "    with api_scheduler.places(calls) as most:\n"
            "        print(most, resource.getrlimit(resource.RLIMIT_NOFILE))\n"
            "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
        )
        said = subprocess.check_output([sys.executable, "-c", code], cwd=HERE)
        self.assertEqual(said.decode().splitlines(), ["16 (64, 232)", "100 (232, 232)", "(64, 232)"])


# -------------------------------------------------------------------------------- signals


@unittest.skipUnless(POSIX, "needs POSIX signals")
class Signals(Folder):
    def setUp(self):
        super().setUp()
        self.server = Server().__enter__()
        self.addCleanup(self.server.__exit__)

    def test_kill_9_while_armed_calls_nothing_and_leaves_no_curl(self):
        self.config(self.server.url)
        armed = self.spy_on_curl()
        self.environ["ARM_EARLY"] = "1"
        program = self.start(",".join([soon(300)] * 5))
        pids = armed(5)
        program.kill()
        program.wait()
        for pid in pids:
            self.assertTrue(gone(pid))
        self.assertEqual(self.server.requests, [])

    def test_a_signal_cancels_what_waits_and_what_is_armed(self):
        for number, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            with self.subTest(number):
                shutil.rmtree(self.path("bin"), ignore_errors=True)
                with contextlib.suppress(OSError):
                    os.remove(self.path("armed"))
                    os.remove(self.path("test.log"))
                self.config(self.server.url)
                armed = self.spy_on_curl()
                self.environ["ARM_EARLY"] = "1"
                due, later = soon(300), soon(99999)
                program = self.start(due, due, later)
                pids = armed(2)
                program.send_signal(number)
                out, err = program.communicate(timeout=PATIENCE)
                self.assertEqual((program.returncode, err), (expected, ""))
                lines = [line.partition(": ")[2] for line in self.log()]
                cancelled = "Cancelled call to API at %s (due %s)"
                self.assertEqual(
                    sorted(lines),
                    [cancelled % (self.server.url, api_scheduler.local(self.due(text))) for text in (due, due, later)],
                )
                self.assertEqual(out.splitlines(), self.log())
                for pid in pids:
                    self.assertTrue(gone(pid))
        self.assertEqual(self.server.requests, [])

    def test_ctrl_c_does_not_reach_the_curls_and_calls_in_flight_may_finish(self):
        self.config(self.server.url + "/slow")
        program = self.start(soon(), soon(9999), start_new_session=True)
        self.server.wait_for(1)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        self.assertIn("1 call", program.stderr.readline())
        self.server.release.set()
        self.assertEqual(program.wait(PATIENCE), 130)
        # In either order: the answer may be there before the waiting call is told.
        self.assertEqual(sorted(line.split()[2] for line in self.log()), ["Cancelled", "Successfully"])

    def test_a_second_signal_ends_the_calls_in_flight(self):
        self.config(self.server.url + "/slow")
        program = self.start(soon())
        self.server.wait_for(1)
        program.send_signal(signal.SIGINT)
        self.assertIn("a second signal", program.stderr.readline())
        program.send_signal(signal.SIGINT)
        self.assertEqual(program.wait(PATIENCE), 130)
        self.assertRegex(self.log()[0], r"Failed to call .* \(exit code -9: ended by a second signal\)$")

    def test_a_second_signal_ends_what_a_wrapper_script_started_too(self):
        self.config(self.server.url + "/slow")
        os.mkdir(self.path("bin"))
        child = "sh -c 'echo $$ >\"$0\"; exec \"$@\"' \"%s\" \"%s\" \"$@\" <&3 &" % (self.path("child"), CURL)
        self.write("bin/curl", "#!/bin/sh\nexec 3<&0\n%s\nwait $!\n" % child)
        os.chmod(self.path("bin", "curl"), 0o755)
        self.environ["PATH"] = self.path("bin") + os.pathsep + self.environ["PATH"]
        program = self.start(soon())
        self.server.wait_for(1)
        program.send_signal(signal.SIGINT)
        program.stderr.readline()
        program.send_signal(signal.SIGINT)
        self.assertEqual(program.wait(PATIENCE), 130)
        with open(self.path("child")) as file:
            self.assertTrue(gone(int(file.read())))
        self.assertIn("ended by a second signal", self.log()[0])

    def test_after_an_exception_in_a_program_that_calls_us_nothing_goes_on(self):
        self.config(self.server.url + "/slow")
        code = """
import api_scheduler, resource, signal, threading
class Mine(Exception): pass
def alarm(*_): raise Mine
signal.signal(signal.SIGUSR1, alarm)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
try:
    api_scheduler.call_api()
except Mine:
    print("raised", resource.getrlimit(resource.RLIMIT_NOFILE) == limits)
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(30)
print(threading.active_count())
"""
        pids = self.spy_on_curl()
        program = subprocess.Popen(
            [sys.executable, "-c", code], cwd=self.folder, env=self.environ,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        )  # fmt: skip
        self.addCleanup(end, program)
        (pid,) = pids(1)
        self.server.wait_for(1)
        program.send_signal(signal.SIGUSR1)
        out, err = program.communicate(timeout=PATIENCE)
        self.assertEqual(out.splitlines()[-2:], ["raised True", "1"], err)
        self.assertTrue(gone(pid))
        self.assertEqual(len(self.log()), 1)

    def test_a_program_with_many_files_open_can_call(self):
        self.config(self.server.url)
        code = (
            "import api_scheduler, os, resource\n"
            "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))\n"
            "files = [os.open('/dev/null', os.O_RDONLY) for _ in range(1500)]\n"
            "raise SystemExit(not api_scheduler.call_api())"
        )
        command = [sys.executable, "-c", code]
        self.assertEqual(subprocess.call(command, cwd=self.folder, env=self.environ, stdout=subprocess.DEVNULL), 0)
        self.assertEqual((len(self.server.requests), len(self.log())), (1, 1))

    def test_insisting_loses_no_line_and_leaves_no_curl(self):
        self.config(self.server.url + "/slow")
        pids = self.spy_on_curl()
        program = self.start(",".join([soon(0.6)] * 20))
        pids = pids(20)
        self.server.wait_for(20)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            program.send_signal(number)
        program.communicate(timeout=PATIENCE)
        self.assertIn(program.returncode, (130, 143))
        self.assertEqual(len(self.log()), 20)
        for pid in pids:
            self.assertTrue(gone(pid))

    def test_a_parent_that_ignores_the_end_of_children_changes_nothing(self):
        self.config(self.server.url + "/status/404")
        code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", code] + self.command(soon())
        self.assertEqual(subprocess.call(command, env=self.environ, cwd=self.folder, stdout=subprocess.DEVNULL), 1)
        self.assertIn("exit code 22", self.log()[0])

    def test_what_nohup_ignores_stays_ignored(self):
        self.config(self.server.url)
        armed = self.spy_on_curl()
        command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"] + self.command(soon(0.4))
        program = subprocess.Popen(command, env=self.environ, cwd=self.folder, stdout=subprocess.DEVNULL)
        self.addCleanup(end, program)
        armed(1)
        program.send_signal(signal.SIGHUP)
        self.assertEqual(program.wait(PATIENCE), 0)


# ------------------------------------------------------------------------------------ log


class Lines(unittest.TestCase):
    def test_curls_reason_is_found_among_its_words(self):
        for said, words in (
            ("curl: (6) Could not resolve host: x\n", "Could not resolve host: x"),
            ("* verbose\ncurl: (60) SSL problem\nMore details here: x\n\nand more\n", "SSL problem"),
            ("curl: no URL specified!\n", "no URL specified!"),
            ("", "curl gave no reason"),
        ):
            self.assertEqual(api_scheduler.curl_words(said), words)

    def test_control_characters_from_outside_are_escaped(self):
        words = api_scheduler.curl_words("curl: (1) \x1b[31mred\x07\r\n")
        self.assertEqual(words, "\\x1b[31mred\\x07")
        self.assertNotIn("\n", api_scheduler.skipped_words("a\nb\x1b", "no time"))

    def test_secrets_do_not_come_back_in_curls_words(self):
        for password, said, shown in (
            ("se%63ret", "no host secret or se%63ret@h", "no host *** or ***@h"),
            ("e", "Failed to connect to e@h", "Failed to connect to ***@h"),
        ):
            self.assertEqual(api_scheduler.without_secrets(said, "http://me:%s@h/" % password), shown)

    def test_what_stands_before_an_at_sign_may_be_a_password(self):
        for said, shown in (
            ("Unsupported proxy syntax in 'http://me:sec ret@p:x'", "Unsupported proxy syntax in ***@p:x'"),
            ("bad proxy me:secret@p", "bad proxy ***@p"),
            ("Could not resolve host: h", "Could not resolve host: h"),
        ):
            self.assertEqual(api_scheduler.without_secrets(said), shown)


class Logs(Folder):
    def setUp(self):
        super().setUp()
        self.server = Server().__enter__()
        self.addCleanup(self.server.__exit__)
        self.config(self.server.url)

    def test_a_relative_log_lies_beside_config_py_or_in_the_users_folder_by_option(self):
        elsewhere = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, elsewhere)
        self.run_script(soon(), cwd=elsewhere)
        self.assertEqual((len(self.log()), os.listdir(elsewhere)), (1, []))
        self.run_script(soon(), "--log-file", "mine.log", cwd=elsewhere)
        self.assertEqual((len(self.log()), os.listdir(elsewhere)), (1, ["mine.log"]))

    def test_a_tilde_in_the_option_is_the_home_folder(self):
        self.run_script(soon(), "--log-file", os.path.join("~", "home.log"))
        self.assertEqual(len(self.log("home.log")), 1)

    def test_a_log_that_somebody_holds_at_the_end_gets_its_lines_when_it_is_free(self):
        log = api_scheduler.Log(self.path("logs", "test.log"))
        with contextlib.redirect_stderr(io.StringIO()):
            log.write(["one"])  # there is no such folder: it cannot be opened
        with mock.patch.object(api_scheduler.time, "sleep", lambda _: os.mkdir(self.path("logs"))):
            log.finish()
        self.assertEqual((self.log(os.path.join("logs", "test.log")), log.unwritten), (["one"], []))

    @unittest.skipIf(POSIX, "only there can a program keep others from opening a file")
    def test_a_log_that_another_program_holds(self):
        import ctypes

        self.write("test.log", "")
        create = ctypes.windll.kernel32.CreateFileW
        create.restype = ctypes.c_void_p
        held = create(self.path("test.log"), 0x80000000, 0, None, 3, 0, None)  # shared with nobody
        log = api_scheduler.Log(self.path("test.log"))
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            log.write(["one"])
        self.assertIn("cannot be written", stderr.getvalue())
        ctypes.windll.kernel32.CloseHandle(ctypes.c_void_p(held))
        log.finish()
        self.assertEqual(self.log(), ["one"])

    def test_programs_that_append_at_once_lose_no_line(self):
        code = (
            "import sys, api_scheduler\nlog = api_scheduler.Log(sys.argv[1])\n"
            "for n in range(200): log.write([sys.argv[2] * 3000])"
        )
        programs = [
            subprocess.Popen([sys.executable, "-c", code, self.path("test.log"), letter], cwd=self.folder)
            for letter in "abc"
        ]
        for program in programs:
            self.assertEqual(program.wait(PATIENCE * 4), 0)
        lines = self.log()
        self.assertEqual(sorted(lines), sorted(letter * 3000 for letter in "abc" for _ in range(200)))

    def test_quiet_prints_only_what_goes_wrong(self):
        status, out, err = self.run_script("--quiet", soon())
        self.assertEqual((status, out, err), (0, "", ""))
        status, out, err = self.run_script("--quiet", soon(), "noon", "--url", self.server.url + "/status/500")
        self.assertEqual((status, out.splitlines()), (1, self.log()[-1:]))
        self.assertIn("Failed to call", out)
        self.assertIn("Skipped 'noon'", err)
        self.assertEqual(len(self.log()), 3)

    def test_it_is_appended_to(self):
        self.write("test.log", "old\n")
        self.run_script(soon())
        self.assertEqual((self.log()[0], len(self.log())), ("old", 2))

    def test_a_renamed_or_removed_log_is_made_anew(self):
        program = self.start(soon(), soon(3))
        program.stdout.readline()  # the first line is written, and the second call far off
        os.rename(self.path("test.log"), self.path("test.log.1"))
        self.assertEqual(program.wait(PATIENCE), 0)
        self.assertEqual((len(self.log("test.log.1")), len(self.log())), (1, 1))

    def test_lines_that_cannot_be_written_are_kept_for_when_they_can(self):
        os.mkdir(self.path("logs"))
        log = api_scheduler.Log(self.path("logs", "test.log"))
        os.rmdir(self.path("logs"))
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr):
            log.write(["one"])
            log.write(["two"])
        self.assertEqual(stderr.getvalue().count("cannot be written"), 1)
        os.mkdir(self.path("logs"))
        log.write(["three"])
        self.assertEqual(self.log(os.path.join("logs", "test.log")), ["one", "two", "three"])
        self.assertEqual(log.unwritten, [])

    def test_a_line_cut_by_a_full_disk_is_written_again_whole(self):
        log = api_scheduler.Log(self.path("test.log"))
        real, room = os.write, [6]

        def write(file, data):
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            data = data[: room[0]]
            room[0] -= len(data)
            return real(file, data)

        with mock.patch.object(os, "write", write), contextlib.redirect_stderr(io.StringIO()):
            log.write(["one", "two"])
        self.assertEqual((self.log(), log.unwritten), (["one", "tw"], ["two"]))
        log.write(["three"])
        self.assertEqual(self.log(), ["one", "tw", "two", "three"])

    @unittest.skipUnless(POSIX and os.path.exists("/dev/full"), "there is no /dev/full")
    def test_a_full_disk_is_told_also_when_nothing_is_started(self):
        status, _, err = self.run_script("23:59:59", "--log-file", "/dev/full", "--", "--bogus")
        self.assertEqual(status, 2)
        self.assertIn("No space left", err)

    @unittest.skipUnless(POSIX and os.path.exists("/dev/full"), "there is no /dev/full")
    def test_a_full_disk_stops_no_call_and_is_told_once(self):
        status, out, err = self.run_script(soon(), soon(0.1), "--log-file", "/dev/full")
        self.assertEqual((status, len(out.splitlines()), len(self.server.requests)), (1, 2, 2))
        self.assertEqual(err.count("No space left"), 1)
        self.assertIn("2 lines could not be logged", err)
        self.assertIn("1 line could not be logged", self.run_script(soon(), "--log-file", "/dev/full")[2])

    def test_two_schedulers_share_a_log(self):
        times = ",".join([soon(0.6)] * 40)
        programs = [self.start(times, "--url", self.server.url + "/" + "ab"[i] * 3000) for i in range(2)]
        for program in programs:
            program.communicate(timeout=PATIENCE)
        lines = self.log()
        self.assertEqual(len(lines), 80)
        for line in lines:
            self.assertRegex(line, r"^%s: Successfully called API at http://[^/]+/(a{3000}|b{3000})$" % STAMP)

    def test_without_a_reader_of_standard_output_calls_and_log_go_on(self):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as stdout:
            status, _, err = self.run_script(soon(), soon(0.1), stdout=stdout)
        self.assertEqual((status, err, len(self.log())), (0, "", 2))

    @unittest.skipUnless(POSIX, "needs a shell")
    def test_with_closed_standard_streams_calls_and_log_go_on(self):
        for closed in ("2>&-", "<&- >&- 2>&-"):
            command = ["sh", "-c", 'exec "$@" ' + closed, "sh"] + self.command(soon(), "noon")
            self.assertEqual(subprocess.call(command, env=self.environ, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 1)
        self.assertEqual(len(self.log()), 4)

    def test_a_url_that_standard_output_cannot_spell(self):
        self.environ.update(LC_ALL="C", PYTHONIOENCODING="ascii")
        self.run_script(soon(), "--url", self.server.url + "/\u00fc")
        self.assertTrue(self.log()[0].endswith("/\u00fc"), self.log())

    def test_a_line_cut_in_a_log_that_was_rotated_leaves_no_empty_line(self):
        log = api_scheduler.Log(self.path("test.log"))
        self.write("test.log", "")
        with open(self.path("test.log"), "a") as file:
            log.torn = os.fstat(file.fileno())[1:3]
        os.rename(self.path("test.log"), self.path("test.log.1"))
        log.write(["one"])
        self.assertEqual(self.log(), ["one"])

    def wait_for_log(self, lines):
        deadline = time.monotonic() + PATIENCE
        while len(self.log()) < lines:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)  # nothing tells that a file has grown

    def test_a_blocked_reader_of_standard_output_delays_neither_call_nor_log(self):
        program = self.start(",".join([soon(0.2)] * 30), soon(1), "--url", self.server.url + "/" + "x" * 7000)
        arrived = [request[0] for request in self.server.wait_for(31)]  # 210 kB, and nobody reads
        self.assertEqual(len(arrived), 31)
        self.wait_for_log(31)
        program.communicate(timeout=PATIENCE)
        self.assertEqual((program.returncode, len(self.log())), (0, 31))

    @unittest.skipUnless(POSIX, "terminate() is no signal there: nothing can be done before the end")
    def test_a_blocked_reader_does_not_keep_it_from_being_stopped_at_the_end(self):
        program = self.start(",".join([soon(0.2)] * 30), "--url", self.server.url + "/" + "x" * 7000)
        self.wait_for_log(30)
        program.terminate()
        self.assertEqual(program.wait(PATIENCE), 143)

    @unittest.skipUnless(POSIX, "terminate() is no signal there: nothing can be done before the end")
    def test_a_blocked_reader_does_not_keep_it_from_being_stopped(self):
        program = self.start(",".join([soon(0.2)] * 30), soon(999), "--url", self.server.url + "/" + "x" * 7000)
        self.wait_for_log(30)
        program.terminate()
        self.assertEqual(program.wait(PATIENCE), 143)
        self.assertEqual(len(self.log()), 31)


# ----------------------------------------------------------------------------------- main


class Main(Folder):
    def setUp(self):
        super().setUp()
        self.config("http://127.0.0.1:9/")

    def refused(self, *arguments, **options):
        """Run what cannot be started; return what standard error says."""
        status, out, err = self.run_script(*arguments, **options)
        self.assertEqual((status, out), (2, ""), err)
        return err

    def test_a_config_py_that_misses_a_file_is_not_taken_for_none(self):
        self.write("config.py", "LOG_FILE = 'x'\nTOKEN = open('/missing/token')\n")
        self.assertIn("/missing/token", self.refused("23:59:59", "--url", "http://127.0.0.1:9/"))

    def test_a_url_that_curl_cannot_read_is_told_at_once(self):
        for url in ("http://[zz]/", "http://me:secret@[zz]/"):
            err = self.refused("23:59:59", "--url", url)
            self.assertIn("malformed", err)
            self.assertNotIn("secret", err)

    def test_a_password_is_not_told_with_a_mistake_on_the_command_line(self):
        err = self.refused("23:59:59", "--ur=http://me:hunter2@h/")
        self.assertIn("unrecognized", err)
        self.assertNotIn("hunter2", err)

    def test_dry_run_prints_the_plan_and_calls_nothing(self):
        with Server() as server:
            self.config(server.url.replace("://", "://me:secret@"))
            shown = server.url.replace("://", "://me:***@")
            times = "2199-01-02T12:30:00, 2199-01-01T12:30:00.5, 2199-01-02T12:30:00"
            status, out, err = self.run_script("--dry-run", times)
            self.assertEqual(
                (status, out, err),
                (0, "2199-01-01 12:30:00.5  1 call to %s\n2199-01-02 12:30:00  2 calls to %s\n" % (shown, shown), ""),
            )
            self.assertEqual(server.requests, [])
            self.assertFalse(os.path.exists(self.path("test.log")))

    def test_dry_run_finds_what_a_start_would_be_refused_or_warned_for(self):
        self.config("http://127.0.0.1:9/")
        crowd = "2199-01-01T00:00:00," * 6000
        status, out, err = self.run_script("--dry-run", "@" + self.write("crowd.txt", crowd.replace(",", "\n")))
        self.assertEqual((status, out.split("  ")[1][:10]), (0, "6000 calls"))
        self.assertRegex(err, r"6000 calls are due at .*, and about \d+ can be made ready")
        for path in (self.path("nothing", "x.log"), self.path("crowd.txt", "x.log")):
            self.assertIn("x.log cannot be opened", self.refused("--dry-run", "23:59:59", "--log-file", path))
            self.assertFalse(os.path.exists(self.path("nothing")))

    def test_times_can_come_from_a_file_and_stand_anywhere(self):
        self.write("times.txt", "\ufeff2199-01-01T00:00:00\n\n# a comment\n2199-01-02T00:00:00, 2199-01-03T00:00:00\n")
        status, out, err = self.run_script("2199-01-04T00:00:00", "--dry-run", "@times.txt", env=dict(self.environ, PYTHONUTF8="1", LC_ALL="C.UTF-8"))
        self.assertEqual((status, len(out.splitlines()), err), (0, 4, ""))

    def test_invalid_times_are_named_logged_and_make_the_exit_status_1(self):
        with Server() as server:
            self.config(server.url)
            status, out, err = self.run_script(soon(), "25:00:00, \x1b[31mred, 2020-01-01T00:00:00Z")
        self.assertEqual((status, len(out.splitlines())), (1, 1))
        for bad in ("25:00:00", "\\x1b[31mred", "2020-01-01T00:00:00Z"):
            self.assertIn("Skipped '%s'" % bad, err)
            self.assertEqual(len([line for line in self.log() if "Skipped '%s' (" % bad in line]), 1)
        self.assertEqual(len(self.log()), 4)
        self.assertNotIn("\x1b", err + "".join(self.log()))

    def test_nothing_valid_is_exit_status_2_and_logged(self):
        self.assertIn("nothing to do", self.refused("noon, 25:00:00"))
        self.assertEqual(len([line for line in self.log() if "Skipped" in line]), 2)

    def test_today_skips_what_has_passed(self):
        self.environ["TZ"] = "UTC0"
        midnight = "00:00:00" if time.time() % 86400 > 1 else "23:59:59"
        self.assertIn("passed today", self.refused("--today", midnight))
        self.assertEqual(self.run_script("--dry-run", midnight)[0], 0)

    def test_what_is_wrong_is_told_at_once_and_by_name(self):
        whole = "23:59:59"
        for settings, words in (
            ({"TIMEOUT": 0}, "TIMEOUT"),
            ({"TIMEOUT": 0.0005}, "from 0.001 to 1e9, not 0.0005"),
            ({"LOG_FILE": "C:\temp\test.log"}, "C:/logs/test.log"),
            ({"TIMEOUT": "30"}, "TIMEOUT"),
            ({"GRACE": -1}, "GRACE"),
            ({"GRACE": True}, "GRACE"),
            ({"CURL_OPTIONS": "-k"}, "CURL_OPTIONS"),
            ({"CURL_OPTIONS": [1]}, "CURL_OPTIONS"),
            ({"CURL_OPTIONS": ["-K", "a\0b"]}, "CURL_OPTIONS"),
            ({"LOG_FILE": 5}, "LOG_FILE"),
            ({"LOG_FILE": ""}, "LOG_FILE"),
            ({"LOG_FILE": b"x"}, "LOG_FILE"),
            ({"LOG_FILE": "a\0b"}, "cannot be opened"),
            ({"LOG_FILE": "missing/test.log"}, "missing"),
            ({"LOG_FILE": "."}, "cannot be opened"),
            ({"API_URL": ""}, "API_URL"),
            ({"API_URL": "example.org"}, "http://"),
        ):
            with self.subTest(settings):
                self.config(**dict({"url": "http://127.0.0.1:9/"}, **{k if k != "API_URL" else "url": v for k, v in settings.items()}))
                self.assertIn(words, self.refused(whole))
        self.config("http://127.0.0.1:9/")
        for arguments, words in (
            ([], "no times"),
            ([whole, "--no-such"], "--no-such"),
            ([whole, "--timeout", "never"], "--timeout"),
            ([whole, "--timeout", "nan"], "--timeout"),
            ([whole, "--url", "http://h/\n"], "URL"),
            (["@missing.txt"], "missing.txt"),
            (["@."], "directory" if POSIX else "denied"),
        ):
            with self.subTest(arguments):
                self.assertIn(words, self.refused(*arguments))

    def test_a_url_in_the_place_of_a_time_is_not_repeated(self):
        urls = "http://me:hun,ter2@h/", "me:ter2,hun@h", "127.0.0.1/x?key=hunter2", "localhost:80/hunter2"
        err = self.refused(*urls, "23:59:5x http://me:hunter2@h/")
        self.assertIn("--url", err)
        self.assertNotIn("ter2", err + "".join(self.log()))
        self.assertEqual(len([line for line in self.log() if "Skipped" in line]), 5)
        self.assertIn("'2026/11/22 12:00:00'", self.refused("2026/11/22 12:00:00"))

    def test_a_time_that_has_just_passed_is_told_with_the_date_it_is_planned_for(self):
        passed = time.strftime("%H:%M:%S", time.localtime(time.time() - 3))
        _, out, err = self.run_script("--dry-run", passed)
        self.assertRegex(err, "planned for (tomorrow|its next time), " + out.split("  ")[0])  # this one after midnight

    def test_files_that_name_files_without_end(self):
        for n in range(1200):
            self.write("f%d" % n, "@f%d" % (n + 1))
        self.assertIn("names itself", self.refused("@f0"))

    def test_settings_from_python_that_are_none(self):
        class Path:
            def __fspath__(self):
                return b"bytes"

        for arguments in ({"curl_options": [5]}, {"curl_options": "-k"}, {"log_file": 5}, {"log_file": Path()}, {"timeout": "1"}, {"url": 5}):
            with self.subTest(arguments):
                with mock.patch.object(api_scheduler, "HERE", self.folder):
                    with self.assertRaises(SetupError):
                        api_scheduler.call_api(**arguments)

    def test_files_of_times_that_cannot_be_read(self):
        with open(self.path("utf16"), "wb") as file:
            file.write("12:30:00\n\u20ac".encode("utf-16"))
        with open(self.path("latin1"), "wb") as file:
            file.write(b"12:30:00 # \xe9")
        self.write("loop", "@again")
        self.write("again", "@loop")
        for name in ("utf16", "latin1", "loop"):
            with self.subTest(name):
                self.assertIn(name, self.refused("@" + name))

    @unittest.skipUnless(POSIX, "needs a folder that can be removed while it is in use")
    def test_a_working_directory_that_is_gone(self):
        command = ["sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$@"', "sh"]
        program = subprocess.Popen(
            command + self.command("23:59:59", "--log-file", "x"),
            cwd=self.folder, env=self.environ, stderr=subprocess.PIPE,
        )  # fmt: skip
        err = program.communicate(timeout=PATIENCE)[1].decode()
        self.assertEqual(program.returncode, 2)
        self.assertIn("full path", err)

    def test_a_broken_config_py_is_named_with_its_line(self):
        self.write("config.py", "API_URL = 'http://h/'\nLOG_FILE = \n")
        self.assertRegex(self.refused("23:59:59"), r"config\.py .*line 2")
        self.write("config.py", 'LOG_FILE = "C:\\Users\\me\\test.log"')
        self.assertIn("C:/logs/test.log", self.refused("23:59:59"))
        self.write("config.py", "API_URL = int('http://me:sec/ret@h/')")
        self.assertNotIn("ret", self.refused("23:59:59").replace("literal", ""))
        self.write("config.py", "import nothing_of_this_name")
        self.assertIn("nothing_of_this_name", self.refused("23:59:59"))
        self.write("config.py", "raise SystemExit")
        self.assertIn("SystemExit", self.refused("23:59:59"))
        os.remove(self.path("config.py"))
        self.assertIn("LOG_FILE", self.refused("23:59:59"))

    def test_a_password_in_config_py_is_not_quoted_by_a_warning_of_pythons(self):
        self.write("config.py", "API_URL = 'http://me:se\\cret@h/'\nLOG_FILE = 'test.log'")
        self.assertEqual(self.run_script("--dry-run", soon(60))[2], "")

    def test_without_curl_it_says_what_to_install(self):
        os.mkdir(self.path("empty"))
        self.environ["PATH"] = self.path("empty")
        self.assertIn("install", self.refused("23:59:59"))
        self.assertIn("Not started (curl was not found", self.log()[0])

    def test_a_curl_in_the_current_folder_is_not_taken(self):
        name = "curl" if POSIX else "curl.exe"
        for folder in (self.folder, self.path("bin")):
            os.makedirs(folder, exist_ok=True)
            shutil.copy(CURL, os.path.join(folder, name))
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        with mock.patch.dict(os.environ, PATH=os.pathsep + self.path("bin")):
            found = api_scheduler.find_curl()
        os.chdir(before)
        self.assertEqual(os.path.dirname(found), self.path("bin"))

    def test_a_curl_that_does_not_run_is_told(self):
        os.mkdir(self.path("bin"))
        name = "curl" if POSIX else "curl.exe"
        self.write(os.path.join("bin", name), "\x00 no program")
        os.chmod(self.path("bin", name), 0o755)
        self.environ["PATH"] = self.path("bin")
        self.assertIn("curl could not be started", self.refused("23:59:59"))

    def test_a_mistake_of_ours_is_one_line_too(self):
        stderr = io.StringIO()
        with mock.patch.object(api_scheduler, "plan", side_effect=ZeroDivisionError("why")):
            with contextlib.redirect_stderr(stderr):
                status = api_scheduler.main(["23:59:59", "--dry-run"])
        self.assertEqual(status, 1)
        self.assertRegex(stderr.getvalue(), r"^api_scheduler: internal error in line \d+, .*why.*\n$")

    def test_version_and_help(self):
        status, out, _ = self.run_script("--version")
        self.assertEqual((status, out), (0, "api_scheduler.py %s\n" % api_scheduler.__version__))
        status, out, _ = self.run_script("--help")
        self.assertEqual(status, 0)
        self.assertIn("--dry-run", out)

    def test_import_has_no_side_effect_and_the_names_are_there(self):
        code = "import api_scheduler as a; a.parse_timestamps, a.group_by_time, a.wait_until, a.call_api, a.main"
        before = sorted(os.listdir(self.folder))
        program = subprocess.Popen([sys.executable, "-c", code], cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual((program.communicate()[0], program.returncode), (b"", 0))
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_it_runs_without_the_modules_that_windows_lacks(self):
        code = (
            "import sys; sys.modules['resource'] = sys.modules['fcntl'] = sys.modules['pwd'] = None\n"
            "import api_scheduler\nwith api_scheduler.places(1) as most: assert most >= 1"
        )
        self.assertEqual(subprocess.call([sys.executable, "-c", code], cwd=self.folder, env=self.environ), 0)

    def test_main_and_call_api_can_be_called_from_python(self):
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        threads = set(threading.enumerate())
        log = self.path("python.log")
        stdout = io.StringIO()
        with Server() as server, contextlib.redirect_stdout(stdout):
            with mock.patch.dict(os.environ, self.environ, clear=True):
                for _ in range(2):
                    due = datetime.datetime.fromtimestamp(time.time() + 0.5, datetime.timezone.utc).isoformat()
                    self.assertEqual(api_scheduler.main([due, "--url", server.url, "--log-file", log]), 0)
                self.assertTrue(api_scheduler.call_api(server.url, log))
                self.assertFalse(api_scheduler.call_api(server.url + "/status/500", log))
                with contextlib.redirect_stderr(io.StringIO()):
                    self.assertEqual(api_scheduler.main(["--no-such-option"]), 2)
                with self.assertRaises(SetupError):
                    api_scheduler.call_api("http://h/\ud800", log)
                with mock.patch.object(api_scheduler, "carry_out", return_value=130):
                    with self.assertRaises(KeyboardInterrupt):
                        api_scheduler.call_api(server.url, log)
        self.assertEqual(len(self.log("python.log")), 4)
        self.assertEqual(stdout.getvalue().splitlines(), self.log("python.log"))
        self.assertEqual([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], handlers)
        left = set(threading.enumerate()) - threads
        for thread in left:
            thread.join(PATIENCE)
        self.assertEqual([thread for thread in left if thread.is_alive()], [])

    def test_100000_times_are_planned(self):
        first = datetime.datetime(2199, 1, 1)
        times = (first + datetime.timedelta(seconds=n) for n in range(100000))
        self.write("times.txt", "\n".join(moment.isoformat() for moment in times))
        status, out, _ = self.run_script("--dry-run", "@times.txt")
        self.assertEqual((status, out.count("  1 call to ")), (0, 100000))


@unittest.skipUnless(POSIX, "needs a pseudo-terminal")
class Terminal(Folder):
    def setUp(self):
        super().setUp()
        self.server = Server().__enter__()
        self.addCleanup(self.server.__exit__)
        self.config(self.server.url)

    def on_terminal(self, *arguments):
        """Run the script on a terminal; return all that it wrote there."""
        master, slave = os.openpty()
        program = self.start(*arguments, stdout=slave, stderr=slave)
        os.close(slave)
        self.addCleanup(os.close, master)
        shown = self.shown_on(master)
        program.wait(PATIENCE)
        return shown

    def shown_on(self, master):
        """Return all that is written to a terminal until nobody has it any more."""
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so when the last writer is gone
            while select.select([master], [], [], PATIENCE)[0]:
                chunk = os.read(master, 4096)
                if not chunk:
                    break
                shown += chunk
        return shown.decode()

    def test_one_status_line_is_redrawn_in_place(self):
        with Server() as server:
            self.config(server.url)
            shown = self.on_terminal(soon(2.5), soon(4))
        self.assertRegex(shown, r"next %s\S*, in 0:00:0\d \| 0 done, 0 failed, 2 to go" % STAMP)
        self.assertIn("1 done, 0 failed, 1 to go", shown)
        self.assertEqual(shown.count("\n"), 2)  # the two lines of the log
        last_line = shown.rpartition("\n")[2].rpartition("\r")[2]
        self.assertEqual(last_line, "")  # it is wiped at the end

    def test_in_the_background_nothing_is_drawn_and_nothing_stops_it(self):
        shell = """
import fcntl, os, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # a terminal of its own
settings = termios.tcgetattr(0)
settings[3] |= termios.TOSTOP
termios.tcsetattr(0, termios.TCSANOW, settings)
job = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=os.setpgrp)
open("armed").read()  # until a curl is asked
job.terminate()
_, status = os.waitpid(job.pid, os.WUNTRACED)
sys.exit(99 if os.WIFSTOPPED(status) else os.WEXITSTATUS(status))
"""
        os.mkfifo(self.path("armed"))
        os.mkdir(self.path("bin"))
        self.write("bin/curl", '#!/bin/sh\ncase "$*" in *--no-silent*) echo >"%s" ;; esac\nexec "%s" "$@"\n' % (self.path("armed"), CURL))
        os.chmod(self.path("bin", "curl"), 0o755)
        self.environ["PATH"] = self.path("bin") + os.pathsep + self.environ["PATH"]
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        program = subprocess.Popen(
            [sys.executable, "-c", shell] + self.command("noon", "2199-01-01T00:00:00"), cwd=self.folder,
            env=self.environ, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        shown = self.shown_on(master).replace("\r\n", "\n").splitlines()
        self.assertEqual(program.wait(PATIENCE), 143)
        self.assertIn("Skipped 'noon'", shown[0])
        self.assertEqual(shown[1:], self.log()[1:])
        self.assertEqual(len(self.log()), 2)

    def test_a_dumb_terminal_gets_the_lines_of_the_log_only(self):
        with Server() as server:
            self.config(server.url)
            self.environ["TERM"] = "dumb"
            shown = self.on_terminal(soon())
        self.assertEqual(shown.replace("\r\n", "\n").splitlines(), self.log())

    def test_off_a_terminal_there_is_no_byte_of_it(self):
        with Server() as server:
            self.config(server.url)
            _, out, err = self.run_script(soon(0.9))
        self.assertEqual((out.splitlines(), err), (self.log(), ""))
        self.assertNotIn("\r", out)


# Two authorities that a system would trust, one that it would not, and a server's certificate
# signed by the first and by the last. Made for these tests, valid for a hundred years.

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
    "outside.pem": """
-----BEGIN CERTIFICATE-----
MIIBezCCASGgAwIBAgIUC3gDJXDN+gNbFW3BNB8e1cDESGkwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHT3V0c2lkZTAgFw0yNjExMjEyMTA0NTRaGA8yMTI2MTAyODIx
MDQ1NFowEjEQMA4GA1UEAwwHT3V0c2lkZTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABHNlnvvRHKiIohFpFxcCIlnvBeEpX80hH55ZAX2zFHd7vSySpqbaEr8G0boG
4pRK3JLZGJfVB2mmXhOXGLy3FAGjUzBRMB0GA1UdDgQWBBRnUTTy+2D0T9gP+60d
w+Q8fBWrcTAfBgNVHSMEGDAWgBRnUTTy+2D0T9gP+60dw+Q8fBWrcTAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIBlIJsAUehdrkJKiS0oNDYnQo1FR
ipJF6gKbs7wnYb08AiEAnuQTkEiSGOxanVxsa8Be6XcdkE17gL3nXsPwOWt3X0U=
-----END CERTIFICATE-----
""",
    "server-inside.pem": SERVER_KEY
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
    "server-outside.pem": SERVER_KEY
    + """
-----BEGIN CERTIFICATE-----
MIIBiTCCAS6gAwIBAgIUcSRyM2k70Iqng2+SG6wBUKWTQJYwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHT3V0c2lkZTAgFw0yNjExMjEyMTA0NTRaGA8yMTI2MTAyODIx
MDQ1NFowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEV0LWpTnzVOu5kpWeHcodzq2gBR75cPvvNlsvYvHfnzQA6sA3r1VGaMtJ
gUznGaLLSlVvZUC668MMD0Cc6G/z8aNeMFwwGgYDVR0RBBMwEYIJbG9jYWxob3N0
hwR/AAABMB0GA1UdDgQWBBT+yHYdqN7unkJAlLYz8RavIPkO1DAfBgNVHSMEGDAW
gBRnUTTy+2D0T9gP+60dw+Q8fBWrcTAKBggqhkjOPQQDAgNJADBGAiEAidiZDifl
aiG+1PLEzZmI30/Q++1dxNQebCMsUUnhplYCIQCHDwqaG3ZlO5G9ZBP8fkYm5DB6
vH0QjlImw5Otl/8aOA==
-----END CERTIFICATE-----
""",
}


if __name__ == "__main__":
    unittest.main()
