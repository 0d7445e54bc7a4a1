"""Time zone data that change: a country moves its clocks, and the news comes when calls are planned already. Each
occurrence is called once, at the hour that its schedule's clocks will show, whoever finds it out, and whatever
dies while it is put right. The country is Brazil, in files of this test's own.
"""
import os
import struct
import subprocess
import sys
import zoneinfo
from datetime import datetime, timedelta, timezone

import pytest
import tzdata
from conftest import SERVICE
from test_planner import a_day_later, change, due, schedule

from scheduler.base import zones
from scheduler.base.clock import utcnow
from scheduler.calls import ledger
from scheduler.models import Schedule, ScheduledCall
from scheduler.schedules import planner
from scheduler.schedules.recurrence import between

ZONE = "America/Sao_Paulo"
USUAL = -3                      # hours ahead of UTC
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

TICK = "import django; django.setup(); from scheduler import tasks; tasks.dispatch_all()"

# Ticks in children of its own, the first of which dies at its first statement, the next at its second, and so on.
TICKS_THAT_DIE = """
import itertools, os, signal, sys
import django
django.setup()
for number in itertools.count(1):
    child = os.fork()
    if not child:
        from django.db import connection
        from scheduler.schedules import planner
        left = number
        def die(*_):
            global left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        def statement(execute, *arguments):
            die()
            result = execute(*arguments)
            die()
            return result
        commit = connection.commit
        def commits():
            die(), commit(), die()
        connection.commit = commits
        with connection.execute_wrapper(statement):
            planner.compare(60)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        sys.exit(print(number))
"""


def tzif(changes, offset, footer):
    """A zone's file, by RFC 8536.

    changes: [(aware datetime, hours ahead of UTC from then on), ...]; offset: hours before; footer: a POSIX TZ
    string for what comes later
    """
    offsets = sorted({offset, *(hours for _, hours in changes)}, key=lambda hours: hours != offset)

    def block(form, changes):
        return (struct.pack(">4sc15x6l", b"TZif", b"2", 0, 0, 0, len(changes), len(offsets), 4)
                + b"".join(struct.pack(form, int(at.timestamp())) for at, _ in changes)
                + bytes(offsets.index(hours) for _, hours in changes)
                + b"".join(struct.pack(">lbb", hours * 3600, 0, 0) for hours in offsets) + b"-03\0")
    return block(">l", []) + block(">q", changes) + b"\n" + footer.encode() + b"\n"


class Country:
    def __init__(self, folder):
        self.folder = folder
        (folder / "America").mkdir()
        self.says("2099a", USUAL)

    def says(self, release, hours, since=None):
        """Publishes that the clocks are so many hours ahead of UTC, from `since` on, or have been for two days.
        This process goes by it, and those that it starts."""
        changes = [(since or utcnow() - DAY * 2, hours)] if hours != USUAL else []
        (self.folder / ZONE).write_bytes(tzif(changes, USUAL, f"<{hours:+03}>{-hours}"))
        (self.folder / "tzdata.zi").write_text(f"# version {release}\n")
        zones.choose()


@pytest.fixture
def country(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONTZPATH", str(tmp_path))
    monkeypatch.setattr(zones, "OWN", (str(tmp_path),))
    yield Country(tmp_path)
    monkeypatch.undo()
    zones.choose()


def begins(number=1, code=TICK):
    """So many processes begin at the same time, and have a tick each: what they said."""
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=SERVICE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True) for _ in range(number)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert not any(process.returncode for process in processes), said
    return "".join(said)


def local(*hours):
    """So many hours from now each, as the country's clocks showed them in 2099a."""
    now = utcnow().replace(microsecond=0) + USUAL * HOUR
    return ", ".join(f"{now + hour * HOUR:%H:%M:%S}" for hour in hours)


def at_local(*hours, **fields):
    return schedule(zone=ZONE, times=local(*hours), **fields)


def to_come(made):
    made.refresh_from_db()
    return [at for at in between(made.rule, utcnow(), made.planned_until)]


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("hours", [USUAL - 1, USUAL + 1])
def test_what_is_planned_at_an_hour_that_is_wrong_now_is_planned_anew(country, hours, processes, log):
    """Two times an hour apart: at the instant of one of them comes the other, by the new clocks."""
    made = at_local(2, 3)
    were = due()
    country.says("2099b", hours)
    said = begins(processes)
    assert due() == to_come(made) and [at - were[0] for at in due()[:2]] == [(USUAL - hours) * HOUR, (USUAL + 1 - hours) * HOUR]
    assert due("Cancelled") == were and len(log(len(were))) == len(were)
    assert set(ScheduledCall.objects.filter(status="Cancelled").values_list("error", "occurrence", "cancelled_by")) == {
        (ledger.MISPLANNED, None, "")}
    assert said.count("did not come when it was planned to") == 1 and "2099b" in said
    rows = list(ScheduledCall.objects.values())
    assert "planned" not in begins(processes) and list(ScheduledCall.objects.values()) == rows


def test_a_change_of_clocks_in_a_day_leaves_what_comes_before_it(country):
    made = at_local(3)
    country.says("2099b", USUAL + 1, since=utcnow() + DAY)
    begins()
    first, second = due()
    assert due() == to_come(made) and second - first == 23 * HOUR and len(due("Cancelled")) == 1


def test_what_was_called_already_does_not_come_twice(country):
    made = at_local(-0.5)
    at = due()[0] - DAY
    done = ScheduledCall.objects.create(schedule=made, occurrence=at, timestamp=at, status="Succeeded",
                                        utc_offset=USUAL * 3600)
    country.says("2099b", USUAL - 1)        # so that it would have come in half an hour
    begins()
    assert to_come(made)[0] - at == HOUR and due() == to_come(made)[1:]
    done.refresh_from_db()
    assert (done.status, done.timestamp, done.occurrence) == ("Succeeded", at, at + HOUR)


def test_what_should_have_come_already_is_not_lost(country):
    """It comes when it was planned to, late, as nobody knew."""
    made = at_local(0.5)
    first, *others = due()
    country.says("2099b", USUAL + 1)        # so that it was to come half an hour ago
    begins()
    assert due() == [first, *to_come(made)] and to_come(made)[0] == others[0] - HOUR
    assert due("Cancelled") == others


def test_what_a_person_cancelled_or_moved_stays_so(country):
    made = at_local(2, 3, 4)
    cancelled, moved = made.calls.order_by("timestamp")[:2]
    ledger.cancel([cancelled.pk], by="ann")
    put = moved.timestamp + timedelta(minutes=7)
    ledger.move(moved.pk, put)
    country.says("2099b", USUAL - 1)
    begins(2)
    first, second, *others = to_come(made)
    assert due() == [put, *others], "neither of them at its new hour"
    cancelled.refresh_from_db(), moved.refresh_from_db()
    assert (cancelled.status, cancelled.cancelled_by, cancelled.occurrence) == ("Cancelled", "ann", first)
    assert (moved.status, moved.occurrence) == ("Pending", second)
    change(made, zone="UTC"), change(made, zone=ZONE)
    assert first not in due() and second in due(), "as with every change of a schedule"


def test_what_the_clocks_jump_over_for_a_while_is_known_again(country):
    made = at_local(3, 9)
    cancelled = made.calls.earliest("timestamp")
    ledger.cancel([cancelled.pk], by="ann")
    country.says("2099b", USUAL + 1, since=cancelled.timestamp - HOUR / 2)
    begins()
    country.says("2099c", USUAL - 1)
    begins()
    cancelled.refresh_from_db()
    assert cancelled.occurrence == to_come(made)[0] and due() == to_come(made)[1:]


@pytest.mark.parametrize("cron", ["*/20 * * * *", "0 * * * *"])
def test_what_comes_every_so_often_has_no_hour_to_be_wrong(country, cron):
    schedule(zone=ZONE, cron=cron)
    rows = list(ScheduledCall.objects.values())
    country.says("2099b", USUAL - 1)
    begins()
    assert list(ScheduledCall.objects.values()) == rows


def test_every_so_often_within_some_hours_loses_one_and_gets_another(country):
    made = schedule(zone=ZONE, cron="*/30 9-17 * * *")
    country.says("2099b", USUAL - 1)
    begins()
    assert due() == to_come(made) and 0 < len(due("Cancelled")) <= 3 * 2


def test_whatever_it_dies_at_each_comes_once(country):
    """kill -9 at any statement, and before and after any commit."""
    made = at_local(2, 3)
    gone = made.calls.earliest("timestamp")
    ledger.cancel([gone.pk])
    country.says("2099b", USUAL + 1)
    assert int(begins(code=TICKS_THAT_DIE)) > 20
    assert due() == to_come(made)[1:]


@pytest.mark.parametrize("zone_data", [None, "2099a"])
def test_calls_that_the_version_before_planned_are_put_right(country, zone_data):
    """It does not write what its clocks showed; and beside a new process it goes on planning by what it knows."""
    made = at_local(2, 3)
    ScheduledCall.objects.update(utc_offset=None)
    Schedule.objects.update(zone_data=zone_data)
    country.says("2099b", USUAL - 1)
    begins()
    assert due() == to_come(made) and len(due("Cancelled")) == len(set(due("Cancelled"))) > 0


def test_a_process_that_goes_on_finds_it_within_a_day(country, monkeypatch):
    """It reads the data anew, with no restart."""
    made = at_local(2)
    planner.compare(60)
    (country.folder / ZONE).write_bytes(tzif([], USUAL + 1, "<-02>2"))
    planner.compare(60)
    assert due("Cancelled") == []
    a_day_later(monkeypatch)
    planner.compare(60)
    assert due() == to_come(made) and due("Cancelled")


def test_what_a_process_with_older_data_plans_is_put_right_when_it_is_planned_on(country):
    country.says("2099b", USUAL + 1)
    made = at_local(2)
    planner.compare(60)
    country.says("2099a", USUAL)            # a web server that nobody has restarted
    change(made, name="lunch", times=local(3, 9))
    country.says("2099b", USUAL + 1)
    planner.plan(utcnow() + 2 * HOUR, seconds=60)
    assert due() == to_come(made)


def test_plans_by_newer_data_are_left_to_those_who_have_them(country):
    """Two machines would otherwise undo each other's, and a call that one has made the other would plan again."""
    country.says("2099b", USUAL + 1)
    made = at_local(2)
    rows = list(ScheduledCall.objects.values())
    country.says("2099a", USUAL)
    assert "planned by the time zone data 2099b, and this machine has 2099a" in begins()
    planner.plan(utcnow() + 65 * timedelta(minutes=1), seconds=60)
    assert list(ScheduledCall.objects.values()) == rows and Schedule.objects.get().zone_data == "2099b"
    planner.plan(utcnow() + 75 * timedelta(minutes=1), seconds=60)     # there are none any more
    made.refresh_from_db()
    assert made.zone_data == "2099a" and made.planned_until > utcnow() + 49 * HOUR


# -------------------------------------------------------------------- which data a process goes by

CHOICE = """
import zoneinfo, sys
zoneinfo.reset_tzpath(to=sys.argv[1:])
import django
django.setup()
from datetime import datetime
from scheduler.base import zones
at = datetime(2030, 1, 1, tzinfo=zoneinfo.ZoneInfo("America/Sao_Paulo"))
print(f"{zones.release()} {at:%z} {zones.words()}")
"""
PINNED = tzdata.IANA_VERSION


@pytest.mark.parametrize("file, text, own, says", [
    ("tzdata.zi", "# version 2099a\n", True, "the time zone data are those of {} (2099a), newer than those of the package"),
    ("+VERSION", "2099a\n", True, "the time zone data are those of {} (2099a), newer"),
    ("tzdata.zi", "# version 2001a\n", False, "those of the package tzdata ({pinned}), newer than those of {} (2001a)"),
    ("tzdata.zi", "# version {pinned}\n", True, ""),
    ("README", "", False, "newer than those of {} (of an unknown release)"),
])
@pytest.mark.parametrize("wanted", [False, True])
def test_the_newer_data_are_used_and_the_words_say_which(tmp_path, file, text, own, says, wanted):
    (tmp_path / "America").mkdir()
    (tmp_path / ZONE).write_bytes(tzif([], 1, "<+01>-1"))
    (tmp_path / file).write_text(text.replace("{pinned}", PINNED))
    environment = os.environ | ({"PYTHONTZPATH": str(tmp_path)} if wanted else {})
    said = subprocess.run([sys.executable, "-c", CHOICE, tmp_path], cwd=SERVICE, env=environment, text=True,
                          capture_output=True, check=True).stdout
    assert (" +0100 " in said) == (own or wanted), said
    assert "as PYTHONTZPATH says" in said if wanted and says else says.format(tmp_path, pinned=PINNED) in said


def test_where_there_are_no_files_the_package_is_used(tmp_path):
    said = subprocess.run([sys.executable, "-c", CHOICE, tmp_path / "none"], cwd=SERVICE, text=True, capture_output=True,
                          check=True).stdout
    assert said.split() == [PINNED, "-0300"]


def test_a_worker_says_at_its_start_by_which_data_it_plans(country, stack):
    stack.start("worker")
    assert f"the time zone data are those of {country.folder} (2099a), as PYTHONTZPATH says" in stack.says("worker")


def test_this_machine_s_zones_are_at_least_the_pinned_ones():
    assert zones.release() >= PINNED
    assert zoneinfo.ZoneInfo("America/Vancouver").utcoffset(datetime(2027, 1, 15, tzinfo=timezone.utc)) == -7 * HOUR
