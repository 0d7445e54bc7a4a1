"""When a schedule comes. What others have written has the last word: python-dateutil for times of day,
croniter for what an expression's fields mean, cronsim itself for Debian's rule at clock changes; and so
has each rule's own definition, worked out minute by minute.
"""
import sys
from datetime import date, datetime, time, timedelta, timezone
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from conftest import examples, some
from croniter import croniter
from cronsim import CronSim
from dateutil import rrule, tz
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.schedules import recurrence
from scheduler.schedules.recurrence import DAY, EVERY_DAY, Rule, between, parse_cron, parse_times, zone

pytestmark = pytest.mark.no_database
UTC = timezone.utc
MINUTE = timedelta(minutes=1)

# Where each year holds what the schedules of a team could stumble over.
YEARS = [(name, year) for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
                                   "Africa/Casablanca", "Africa/Cairo") for year in range(2024, 2028)]
YEARS += [("Antarctica/Troll", 2026),       # two hours at once
          ("America/Sao_Paulo", 2018),      # at midnight, forwards and back
          ("America/St_Johns", 2008),       # back at 00:01, so that two days take turns
          ("Asia/Beirut", 2023),
          ("Pacific/Apia", 2011)]           # a day that was not

# The same, and older things, as instants to look around at.
ODD = [("Europe/Berlin", datetime(2026, 3, 29)), ("Europe/Berlin", datetime(2026, 10, 25)),
       ("America/New_York", datetime(2026, 3, 8)), ("America/New_York", datetime(2026, 11, 1)),
       ("Australia/Lord_Howe", datetime(2026, 4, 4)), ("Australia/Lord_Howe", datetime(2026, 10, 3)),
       ("Africa/Casablanca", datetime(2026, 2, 15)), ("Africa/Casablanca", datetime(2026, 3, 22)),
       ("Africa/Cairo", datetime(2026, 4, 23)), ("Africa/Cairo", datetime(2026, 10, 29)),
       ("Antarctica/Troll", datetime(2026, 3, 29)), ("Antarctica/Troll", datetime(2026, 10, 25)),
       ("America/Sao_Paulo", datetime(2018, 2, 18)), ("America/Sao_Paulo", datetime(2018, 11, 4)),
       ("America/St_Johns", datetime(2008, 11, 2)), ("Asia/Beirut", datetime(2023, 3, 29)),
       ("Pacific/Apia", datetime(2011, 12, 30)), ("Pacific/Kwajalein", datetime(1993, 8, 21)),
       ("Pacific/Kwajalein", datetime(1969, 9, 30))]      # 23 hours twice


def rule(times="", cron="", where="UTC", **more):
    return Rule(tuple(parse_times(times)) if times else (), parse_cron(cron) if cron else "", zone(where), **more)


def local(rule, start, end):
    """What the clocks of its zone show at each occurrence, as "29 03:30"."""
    return [f"{at.astimezone(rule.zone):%d %H:%M}" for at in between(rule, start, end)]


def utc(*numbers):
    return datetime(*numbers, tzinfo=UTC)


# ------------------------------------------------------------------------------ what is taken

def test_times_are_taken_as_people_write_them():
    assert parse_times("14:15:30, 9:00:00,\n14:15:30,,\ufeff12:30:00 ,") == [
        time(9), time(12, 30), time(14, 15, 30)]
    assert parse_times("9:00, 6:00 PM, 12:05 am, 12:05:30 p.m., 18:00:00") == [
        time(0, 5), time(9), time(12, 5, 30), time(18)]


def test_every_bad_time_is_named():
    with pytest.raises(ValueError) as error:
        parse_times("12:30:00, 25:00:00, noon, 12, 13:30 PM, 12:30:00Z, 12:00:60, 2026-08-01T14:30:00Z, \x1b[2J")
    assert str(error.value) == (
        "'25:00:00' hour must be in 0..23; 'noon' is not HH:MM or HH:MM:SS; '12' is not HH:MM or HH:MM:SS; "
        "'13:30 PM' hour must be in 1..12 with AM or PM; '12:30:00Z' is not HH:MM or HH:MM:SS; "
        "'12:00:60' second must be in 0..59; '2026-08-01T14:30:00Z' is not HH:MM or HH:MM:SS; '\\x1b[2J' is not HH:MM or HH:MM:SS")


@pytest.mark.parametrize("text", ["", " , ,", "\ufeff"])
def test_no_times_are_none(text):
    with pytest.raises(ValueError, match="no times of day"):
        parse_times(text)


@pytest.mark.parametrize("text, taken", [
    ("  */5  9-17 * * mon-fri\n", "*/5 9-17 * * mon-fri"), ("@Daily", "0 0 * * *"), ("@hourly", "0 * * * *"),
    ("0 0 L * *", "0 0 L * *"), ("0 0 * * 5#2", "0 0 * * 5#2"), ("0 0 * 2 MON#5", "0 0 * 2 MON#5"),
])
def test_cron_expressions_that_are_taken(text, taken):
    assert parse_cron(text) == taken == parse_cron(taken)


@pytest.mark.parametrize("text, reason", [
    ("", "has 0 fields, and five are taken"),
    ("* * * *", "has 4 fields"),
    ("30 0 12 * * *", r"has 6 fields, .*no seconds"),
    ("0 0 1 1 * * 2027", "has 7 fields"),
    ("@reboot", "has 1 fields, .*@hourly"),
    ("60 * * * *", "'60' is no minute: 0 to 59"),
    ("-1 * * * *", "'-1' is no minute"),
    ("* 24 * * *", "'24' is no hour: 0 to 23"),
    ("0 22-2 * * *", "'22-2' is no hour: .*from the lower to the higher"),
    ("0 0 ? * mon", r"'\?' is no day-of-month"),
    ("0 0 15W * *", "'15W' is no day-of-month"),
    ("0 0 30 2 *", "'30' is no day-of-month: .*not more than its months have"),
    ("0 0 * 13 *", "'13' is no month: 1 to 12 or jan to dec"),
    ("0 0 * * 8", "'8' is no day-of-week: 0 to 7"),
    ("0 0 * * fri-mon", "'fri-mon' is no day-of-week"),
    ("0 0 * * L", "'L' is no day-of-week"),
    ("*/0 * * * *", "'[*]/0' is no minute"),
    ("0 0 */20 * 1L", "names a day that never comes"),
    ("0 0 * * \u017fun", "a character that cron does not know"),
    ("\u0663 * * * *", "a character that cron does not know"),
    ("\0 * * * *", r"'\\x00' is no minute"),
    ("5/10 * * * *", r"'5/10' is no minute: a step follows \* or a range, as in \*/10 or 5-59/10"),
    ("0 0 * * mon/2", "'mon/2' is no day-of-week: a step follows .* or mon-7/2"),
    ("0 1,2/3 * * *", "'1,2/3' is no hour: .* 2-23/3"),
    ("0 0 L/2 * *", "'L/2' is no day-of-month: a step follows .* or 1-31/2"),
    ("5-5/0 * * * *", "'5-5/0' is no minute: 0 to 59"),
])
def test_cron_expressions_that_are_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_cron(text)


@pytest.mark.parametrize("cron, hours", [
    ("0 9-9/1 * * *", [9]), ("0 09-9/5,11-12/3 * * *", [9, 11]), ("0 0-0/15 * * *", [0]), ("0 0-00/15 * * *", [0]),
    ("0 23-23/23 * * *", [23]), ("0 3-9/90 * * *", [3]), ("0 3-9/3 * * *", [3, 6, 9]), ("0 */90 * * *", [0]),
])
def test_a_range_has_nothing_beyond_its_end(cron, hours):
    """Which is so in Debian's cron; cronsim by itself goes on to the end of the day where the range has one value."""
    day = utc(2026, 8, 3), utc(2026, 8, 4)      # a Monday
    assert [at.hour for at in between(rule(cron=cron), *day)] == hours


@pytest.mark.parametrize("cron, dates", [
    ("0 0 * * mon-1/2", [3, 10, 17, 24, 31]), ("0 0 * * 7-7/3", [2, 9, 16, 23, 30]), ("0 0 3-3/4 * *", [3]),
    ("0 0 1 AUG-8/2 *", [1]),
])
def test_so_it_is_with_days_and_names(cron, dates):
    found = between(rule(cron=cron), utc(2026, 8, 1), utc(2026, 12, 31))
    assert [at.day for at in found if at.month == 8] == dates
    if "AUG" in cron:
        assert not list(between(rule(cron=cron), utc(2026, 8, 2), utc(2027, 8, 1)))


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.text("0123456789*/-,#LW?aunmo@ \0\u0663", max_size=8), max_size=6))
def test_no_text_breaks_the_reading_of_cron(fields):
    try:
        cron = parse_cron(" ".join(fields))
    except ValueError:
        return
    assert next(between(rule(cron=cron), utc(2026, 1, 1), utc(2054, 2, 1)))


@pytest.mark.parametrize("name", [
    "", ".", "..", "../etc/passwd", "/usr/share/zoneinfo/UTC", "localtime", "posixrules", "Factory", "Europe",
    "Europe/", "europe/berlin", "UTC+2", "+02:00", "CEST", "Europe/Berlin\0", "Europe/Berlin ", "zone.tab",
    "\ud800", "x" * 100_000])
def test_what_is_no_zone(name):
    with pytest.raises(ValueError, match="is no IANA time zone"):
        zone(name)


def test_zones():
    assert zone("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    assert zone("UTC") == ZoneInfo("UTC")
    with pytest.raises(ValueError, match=r"^'\\x1b\[2J' is no"):
        zone("\x1b[2J")


def test_a_machine_without_zones_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(recurrence.zones, "names", frozenset)
    with pytest.raises(ValueError, match="pip install tzdata"):
        zone("Europe/Berlin")


# --------------------------------------------------------------- what a person would look up

def test_days_and_dates_are_those_of_the_zone():
    dates = {"first": date(2026, 7, 31), "last": date(2026, 8, 7)}
    weekdays = rule("00:30:00", where="Asia/Tokyo", days=frozenset({0, 4}), **dates)
    assert list(between(weekdays, utc(2026, 1, 1), utc(2027, 1, 1))) == [   # Friday, Monday, Friday
        utc(2026, 7, 30, 15, 30), utc(2026, 8, 2, 15, 30), utc(2026, 8, 6, 15, 30)]
    cron = rule(cron="30 0 * * mon,fri", where="Asia/Tokyo", **dates)
    assert list(between(cron, utc(2026, 1, 1), utc(2027, 1, 1))) == list(
        between(weekdays, utc(2026, 1, 1), utc(2027, 1, 1)))


def test_an_exception_is_a_day_of_the_zone_and_before_a_time_nothing_comes():
    daily = rule("00:30:00", where="Asia/Tokyo", exceptions=frozenset({date(2026, 8, 3)}), since=utc(2026, 8, 1, 15, 30))
    by_cron = rule(cron="30 0 * * *", where="Asia/Tokyo", exceptions=daily.exceptions, since=daily.since)
    for asked in (daily, by_cron):
        assert list(between(asked, utc(2026, 7, 30), utc(2026, 8, 5))) == [
            utc(2026, 8, 1, 15, 30), utc(2026, 8, 3, 15, 30), utc(2026, 8, 4, 15, 30)]


def test_the_end_is_left_out_and_the_start_is_not():
    daily = rule("12:00:00")
    assert list(between(daily, utc(2026, 8, 1, 12), utc(2026, 8, 2, 12))) == [utc(2026, 8, 1, 12)]
    assert list(between(daily, utc(2026, 8, 1, 12, 0, 0, 1), utc(2026, 8, 2, 12, 0, 0, 1))) == [utc(2026, 8, 2, 12)]
    assert list(between(daily, utc(2026, 8, 2, 12), utc(2026, 8, 1))) == []
    by_cron = between(rule(cron="0 12 * * *"), utc(2026, 8, 1, 12, 0, 0, 1), utc(2026, 8, 3, 12))
    assert list(by_cron) == [utc(2026, 8, 2, 12)]


SPRING, AUTUMN = (utc(2026, 3, 28, 23), utc(2026, 3, 29, 22)), (utc(2026, 10, 24, 22), utc(2026, 10, 25, 23))


@pytest.mark.parametrize("times, day, shown", [
    ("01:59:59, 02:00:00, 02:30:00", SPRING, ["29 01:59", "29 03:00", "29 03:30"]),
    ("02:30:00, 03:30:00", SPRING, ["29 03:30"]),
    ("02:59:00, 03:01:00", SPRING, ["29 03:01", "29 03:59"]),
    ("01:59:59, 02:30:00, 03:00:00", AUTUMN, ["25 01:59", "25 02:30", "25 03:00"]),
])
def test_times_of_day_where_the_clocks_change(times, day, shown):
    assert local(rule(times, where="Europe/Berlin"), *day) == shown


@pytest.mark.parametrize("cron, day, shown", [
    ("30 2 * * *", SPRING, ["29 03:00"]),
    ("0,30 2,3 * * *", SPRING, ["29 03:00", "29 03:30"]),
    ("*/30 2 * * *", SPRING, []),
    ("30 */2 * * *", SPRING, [f"29 {hour:02}:30" for hour in range(0, 24, 2) if hour != 2]),
    ("30 2 * * *", AUTUMN, ["25 02:30"]),
    ("*/30 2 * * *", AUTUMN, ["25 02:00", "25 02:30", "25 02:00", "25 02:30"]),
    ("30 * * * *", AUTUMN, [f"25 {hour:02}:30" for hour in sorted([2, *range(24)])]),
])
def test_cron_where_the_clocks_change(cron, day, shown):
    assert local(rule(cron=cron, where="Europe/Berlin"), *day) == shown


def test_the_first_of_the_two_is_the_one_before_the_change():
    assert list(between(rule("02:30:00", where="Europe/Berlin"), *AUTUMN)) == [utc(2026, 10, 25, 0, 30)]
    assert list(between(rule(cron="30 2 * * *", where="Europe/Berlin"), *AUTUMN)) == [utc(2026, 10, 25, 0, 30)]


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("asked", [{"times": "02:30:00"}, {"cron": "30 2 * * *"}])
def test_a_window_that_begins_or_ends_between_the_two(asked, at):
    between_them = utc(2026, 10, 25, 1)
    window = (between_them, AUTUMN[1]) if at == "start" else (AUTUMN[0], between_them)
    assert len(list(between(rule(**asked, where="Europe/Berlin"), *window))) == (at == "end")


def test_half_an_hour_at_midnight_is_shown_twice():
    """Where cronsim by itself loses them: the docstring says so as long as this holds."""
    lord_howe, window = ZoneInfo("Australia/Lord_Howe"), (utc(2026, 4, 4, 12), utc(2026, 4, 4, 16))
    assert local(rule(cron="*/15 1-2 * * *", where="Australia/Lord_Howe"), *window) == [
        "05 01:00", "05 01:15", "05 01:30", "05 01:45", "05 01:30", "05 01:45", "05 02:00", "05 02:15"]
    lost = islice(CronSim("*/15 2 * * *", window[0].astimezone(lord_howe)), 2)
    assert [at.minute for at in lost] == [30, 45]


def test_a_day_that_was_not():
    window = utc(2011, 12, 29, 10), utc(2012, 1, 1, 10)     # Samoa went from the 29th to the 31st
    assert local(rule("12:00:00, 18:00:00", where="Pacific/Apia"), *window) == [
        "29 12:00", "29 18:00", "31 12:00", "31 18:00", "01 12:00", "01 18:00"]
    friday = rule("12:00:00", where="Pacific/Apia", days=frozenset({4}))       # its 30th, called on the 31st
    assert local(friday, *window) == ["31 12:00"]
    assert local(friday._replace(last=date(2011, 12, 30)), *window) == ["31 12:00"]
    assert local(friday._replace(first=date(2011, 12, 31)), *window) == []
    assert local(rule(cron="0 12 30 12 *", where="Pacific/Apia"), *window) == ["31 00:00"]


# ------------------------------------------------------------------- what others have written

def year_of(where, year):
    """From new year to new year there, as aware datetimes."""
    return [datetime(number, 1, 1, tzinfo=ZoneInfo(where)) for number in (year, year + 1)]


def by_their_word(where):
    """dateutil's own reading of the zone's file, but for one where the clocks go back for a summer time:
    there it shows a wrong time (its issue 1048), and only its reading of gaps and folds is asked."""
    return zone(where) if where == "Africa/Casablanca" else tz.gettz(where)


def around_changes(where, year):
    """Windows of two days in which the clocks there change, by dateutil's word."""
    noons = [datetime(year, 1, 1, 12, tzinfo=UTC) + n * DAY for n in range(366)]
    there = by_their_word(where)
    for noon, next_noon in pairwise(noons):
        if noon.astimezone(there).utcoffset() != next_noon.astimezone(there).utcoffset():
            yield noon - DAY / 2, next_noon + DAY / 2


def by_dateutil(times, days, where, start, end):
    there = by_their_word(where)
    first, last = (at.astimezone(there).replace(hour=0, minute=0, tzinfo=None) for at in (start - DAY, end + DAY))
    instants = set()
    for day in rrule.rrule(rrule.DAILY, dtstart=first, until=last, byweekday=days):
        for at in times:
            asked = datetime.combine(day, at, tzinfo=there)
            instants.add(tz.resolve_imaginary(asked).astimezone(UTC))
    return sorted(instant for instant in instants if start <= instant < end)


@pytest.mark.parametrize("where, year", some(YEARS))
def test_a_year_of_times_of_day_is_what_dateutil_has(where, year):
    times = parse_times("00:00:00, 00:15:00, 00:30:00, 01:00:00, 01:30:00, 01:59:59, 02:00:00, 02:15:00, "
                        "02:30:00, 02:59:59, 03:00:00, 03:30:00, 12:00:00, 22:30:00, 23:30:00, 23:59:59")
    days = [0, 1, 2, 3, 5, 6]
    start, end = year_of(where, year)
    asked = Rule(tuple(times), "", zone(where), frozenset(days))
    assert list(between(asked, start, end)) == by_dateutil(times, days, where, start, end)


@pytest.mark.parametrize("where, year", some(YEARS))
def test_each_minute_where_clocks_change_is_what_dateutil_has(where, year):
    times = [time(hour, minute) for hour in range(24) for minute in range(60)]
    for start, end in around_changes(where, year):
        asked = Rule(tuple(times), "", zone(where))
        assert list(between(asked, start, end)) == by_dateutil(times, range(7), where, start, end)


AT_TIMES = ["30 2 * * *", "0,29 0-3 * * sat,sun", "59 23 * * *", "5 0 1-31 * *"]


@pytest.mark.parametrize("where, year", some(YEARS))
def test_a_year_of_cron_at_times_of_day_is_what_cronsim_has(where, year):
    """Over its own arithmetic with zones, which stumbles over none of these."""
    start, end = (at.astimezone(UTC) for at in year_of(where, year))
    for cron in AT_TIMES:
        theirs = []
        for at in CronSim(cron, (start - DAY).astimezone(zone(where))):
            if at.astimezone(UTC) >= end:
                break
            if at.astimezone(UTC) >= start:
                theirs.append(at.astimezone(UTC))
        assert list(between(rule(cron=cron, where=where), start, end)) == theirs


@pytest.mark.parametrize("cron", [
    "*/20 9,17 * * mon-fri", "0 0 * * *", "30 12 1,15 * *", "0 12 29 2 *", "15 6 * 1-3,dec sun", "0 0 13 * fri",
    "7-59/13 22,23 * * 6,7", "@weekly", "@monthly", "@yearly", "0 9 L * *", "0 9 * * 5#2", "0 9 * * fri#5", "0 9 * * 0-2"])
def test_three_years_of_cron_are_what_croniter_has(cron):
    start, end = utc(2026, 1, 1), utc(2029, 1, 1)
    theirs = []
    for at in croniter(cron, start - timedelta(seconds=1), ret_type=datetime):
        if at >= end:
            break
        theirs.append(at)
    assert list(between(rule(cron=cron), start, end)) == theirs


# ------------------------------------------------------------------------- by the definition

def as_defined(rule, start, end):
    """The occurrences, worked out from the definitions in the module's docstring.

    For times of day: how Python reads a naive time with fold=0 (PEP 495). For cron: going through the
    minutes, and looking what the clocks show, and whether they have come past a time.
    """
    start = max(start, rule.since or start)
    days = {(start + n * DAY).date() for n in range(-3, (end - start).days + 5)}
    if not rule.cron:
        asked = (datetime.combine(day, at, tzinfo=rule.zone) for day in days for at in rule.times
                 if day.weekday() in rule.days and within(day, rule))
        return sorted({at.astimezone(UTC) for at in asked if start <= at.astimezone(UTC) < end})
    (minutes, hours, in_month, months, in_week), _ = croniter.expand(rule.cron)
    fields = rule.cron.split()

    def matches(wall):
        by_month = in_month == ["*"] or wall.day in in_month
        by_week = in_week == ["*"] or wall.isoweekday() % 7 in in_week
        starred = fields[2][0] == "*" or fields[4][0] == "*"
        return (within(wall.date(), rule) and (minutes == ["*"] or wall.minute in minutes)
                and (hours == ["*"] or wall.hour in hours) and (months == ["*"] or wall.month in months)
                and (by_month and by_week if starred else by_month or by_week))

    result, shown = [], None
    at = (start - 2 * DAY).replace(second=0, microsecond=0)
    while at < end:
        wall = at.astimezone(rule.zone).replace(tzinfo=None, fold=0)
        if fields[0][0] == "*" or fields[1][0] == "*":
            comes = matches(wall)
        else:
            shown = shown or wall - MINUTE
            passed = (shown + n * MINUTE for n in range(1, (wall - shown) // MINUTE + 1))
            comes = any(map(matches, passed))
            shown = max(shown, wall)
        if comes and at >= start:
            result.append(at)
        at += MINUTE
    return result


def within(day, rule):
    return (rule.first or date.min) <= day <= (rule.last or date.max) and day not in rule.exceptions


some_times = st.lists(st.builds(time, st.integers(0, 23), st.sampled_from([0, 1, 15, 29, 30, 59]),
                                st.sampled_from([0, 0, 59])), min_size=1, max_size=12)
a_minute = st.sampled_from(["0", "30", "*", "*/7", "0,1,59", "10-50/20", "5-59/20"])
an_hour = st.sampled_from(["*", "0", "1", "2", "23", "0-3", "*/2", "1,2,3", "0,12", "22-23"])
a_day = st.sampled_from(["*", "*", "*", "1", "*/2", "20-31"])
a_weekday = st.sampled_from(["*", "*", "*", "mon-fri", "0", "*/3", "sat,sun"])
a_month = st.sampled_from(["*", "*", "3-11"])
some_cron = st.builds("{} {} {} {} {}".format, a_minute, an_hour, a_day, a_month, a_weekday)
odd_places = st.sampled_from(ODD)
seconds = st.integers(-2 * 86400, 2 * 86400).map(lambda n: timedelta(seconds=n))
minutes_away = st.integers(-2 * 1440, 2 * 1440).map(lambda n: timedelta(minutes=n))


@st.composite
def rules_and_instants(draw, how_many):
    """A rule, and so many instants in order near a change of its zone's clocks."""
    where, near = draw(odd_places)
    times = draw(some_times | st.just([]))
    limits = st.none() | st.integers(-3, 3).map(lambda n: near.date() + n * DAY)
    days = st.just(EVERY_DAY) | st.frozensets(st.integers(0, 6), min_size=1)
    asked = Rule(tuple(sorted(set(times))), "" if times else draw(some_cron), zone(where),
                 draw(days) if times else EVERY_DAY, draw(limits), draw(limits),
                 draw(st.frozensets(st.integers(-3, 3).map(lambda n: near.date() + n * DAY), max_size=3)),
                 draw(st.none() | (seconds | minutes_away).map(lambda step: near.replace(tzinfo=UTC) + step)))
    steps = draw(st.lists(seconds | minutes_away, min_size=how_many, max_size=how_many))
    return asked, sorted(near.replace(tzinfo=UTC) + step for step in steps)


@settings(max_examples=examples(200), deadline=None)
@given(rules_and_instants(2))
def test_the_definition_holds(drawn):
    asked, (start, end) = drawn
    assert list(between(asked, start, end)) == as_defined(asked, start, end)


@settings(max_examples=examples(100), deadline=None)
@given(rules_and_instants(3))
def test_two_windows_side_by_side_are_one(drawn):
    """So that it makes no difference how often and how far ahead is planned."""
    asked, (start, middle, end) = drawn
    whole = list(between(asked, start, end))
    assert list(between(asked, start, middle)) + list(between(asked, middle, end)) == whole
    assert all(one < other for one, other in pairwise(whole))
    assert all(start <= at < end and at.tzinfo is UTC for at in whole)


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(sorted(available_timezones())), st.datetimes(datetime(1850, 1, 1), datetime(2100, 1, 1)),
       some_times)
@example("Asia/Manila", datetime(1844, 12, 20), [time(12)])
@example("America/Juneau", datetime(1867, 10, 10), [time(0), time(12), time(23, 59, 59)])
def test_the_definition_holds_anywhere_in_any_year(where, start, times):
    asked = Rule(tuple(sorted(set(times))), "", ZoneInfo(where))
    start = start.replace(tzinfo=UTC)
    end = start + 20 * DAY
    found = list(between(asked, start, end))
    assert found == as_defined(asked, start, end)
    assert len(found) <= 21 * len(asked.times)


@pytest.mark.parametrize("where, at", some(ODD))
@pytest.mark.parametrize("asked", [{"times": "00:00:00, 00:30:00, 01:15:00, 02:30:00, 23:59:59"},
                                   {"cron": "30 0-3,12,23 * * *"}, {"cron": "*/20 * * * *"}])
def test_a_plan_made_minute_by_minute_is_the_one_made_at_once(where, at, asked):
    asked, start = rule(where=where, **asked), at.replace(tzinfo=UTC) - DAY
    pieces = [found for n in range(3 * 96)
              for found in between(asked, start + n * 15 * MINUTE, start + (n + 1) * 15 * MINUTE)]
    assert pieces == list(between(asked, start, start + 3 * DAY))


# -------------------------------------------------------------------------------- the far ends

@pytest.mark.parametrize("where", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Berlin"])
@pytest.mark.parametrize("asked", [{"times": "00:00:00, 12:00:00, 23:59:59"}, {"cron": "0 12 * * *"},
                                   {"cron": "* * * 2 1#5"}, {"times": "12:00:00", "first": date.max},
                                   {"times": "12:00:00", "last": date.max}, {"times": "12:00:00", "last": date.min}])
def test_the_calendar_s_ends_are_no_mistake(where, asked):
    asked = rule(where=where, **asked)
    for hours in (-14, 0, 14):
        there = timezone(timedelta(hours=hours))
        first, last = datetime.min.replace(tzinfo=there), datetime.max.replace(tzinfo=there)
        for start, end in [(first, first + 9 * DAY), (last - 9 * DAY, last), (last, last), (first, first),
                           (last, first)]:
            found = list(between(asked, start, end))
            assert found == sorted(set(found)) and len(found) <= 3 * 9


def test_looking_far_ahead_for_what_seldom_comes_takes_no_time():
    """Counted in lines of Python, as clocks count other programs, too."""
    asked = rule(cron="0 0 * 2 mon#5", where="Europe/Berlin")
    assert lines(lambda: list(between(asked, utc(2026, 1, 1), utc(2026, 1, 3)))) < 20_000
    assert [at.year for at in between(asked, utc(2026, 1, 1), utc(2100, 1, 1))] == [2044, 2072]
    assert lines(lambda: next(between(rule("12:00:00"), utc(2026, 1, 1), utc(9000, 1, 1)))) < 20_000


def lines(do):
    """How many lines of Python `do()` goes through."""
    count = 0

    def trace(*_):
        nonlocal count
        count += 1
        return trace

    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(None)
    return count
