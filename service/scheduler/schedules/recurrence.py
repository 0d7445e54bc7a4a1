"""When a schedule comes: its times of day or its cron expression, as instants. Asks no clock and no
database.

Days are counted in the schedule's zone. What holds where its clocks change:

Times of day, as RFC 5545 (section 3.3.5) has it. One that the clocks jump over comes as if they had not
changed: 02:30 at what is then called 03:30. One that they show twice comes once, at the first. Two that
fall on one instant that way, 02:30 and 03:30, come once. (Samoa went without 30 December 2011: its 12:00
would have come at 12:00 on the 31st, where there is one already.)

Cron expressions, as Debian's cron has it (cron(8), "Notes"). One whose minute and hour both begin with
something other than `*` is meant to come at these times of day: those that the clocks jump over come once,
all together, right after the jump; what they show twice comes at the first. Any other, `*/5 * * * *` or
`0 * * * *`, is meant to come every so often: it comes whenever the clocks show its time, twice too, and
not at all at what they jump over. What the five fields mean is cronsim's to say, which follows Debian's
cron, too; it is asked about the time of day only, as versions up to 2.8 lose some occurrences at midnight
on the days when Australia/Lord_Howe moves its clocks by half an hour.
"""
import re
from datetime import date, datetime, time, timedelta, timezone
from functools import cache
from heapq import merge
from itertools import takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from ..base.words import printable

EVERY_DAY = frozenset(range(7))
DAY = timedelta(days=1)
YEAR = timedelta(days=366)
SECOND = timedelta(seconds=1)
LONGEST_JUMP = DAY      # of a zone's clocks: where one went over to the other side of the date line

# There are no occurrences in the calendar's first and last days, where no zone can be reckoned with.
EARLIEST = datetime(1, 1, 4, tzinfo=timezone.utc)
LATEST = datetime(9999, 12, 28, tzinfo=timezone.utc)

TIME_OF_DAY = re.compile(r"([0-9]{1,2}):([0-9]{2}):([0-9]{2})")

FIELDS = {      # of a cron expression, in their order, under cronsim's names
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, not more than its months have, L for the last or LW for the last weekday",
    "month": "1 to 12 or jan to dec",
    "day-of-week": "0 to 7 or sun to sat (0 and 7 are Sunday), 5#2 for the second Friday or 5L for the last",
}
NICKNAMES = {   # crontab(5); there is no @reboot here
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}


class Rule(NamedTuple):
    """When a schedule comes. It has either `times` or `cron`."""

    times: tuple                    # of datetime.time in whole seconds, as `parse_times` makes them
    cron: str                       # as `parse_cron` makes it, or ""
    zone: ZoneInfo
    days: frozenset = EVERY_DAY     # of the week for `times`, Monday is 0; `cron` has a field for them
    first: date | None = None       # in `zone`, both inclusive; of two days that one instant may
    last: date | None = None        # belong to, the one that the time was meant for


def parse_times(text):
    """The times of day in `text`, such as "12:30:00, 14:15:30", as the script takes them.

    Returns a list of datetime.time, sorted, each once. Raises ValueError naming every piece that is none.
    """
    times, bad = set(), []
    for piece in text.split(","):
        piece = piece.strip().lstrip("\ufeff")      # a file saved on Windows may start with a mark
        if not piece:
            continue
        match = TIME_OF_DAY.fullmatch(piece)
        try:
            if not match:
                raise ValueError("is not HH:MM:SS")
            times.add(time(*map(int, match.groups())))
        except ValueError as error:
            bad.append(f"'{printable(piece, 80)}' {error}")
    if bad:
        raise ValueError("; ".join(bad))
    if not times:
        raise ValueError("no times of day: write them as 12:30:00, 14:15:30")
    return sorted(times)


def parse_cron(text):
    """The cron expression `text` with single spaces, and five fields in place of a name like @daily.

    Raises ValueError with the reason for what is none, may be meant in two ways, or never comes.
    """
    fields = text.split()
    if len(fields) == 1:
        fields = NICKNAMES.get(fields[0].lower(), fields[0]).split()
    if len(fields) != len(FIELDS):
        raise ValueError(f"has {len(fields)} fields, and five are taken: minute, hour, day of the month, month, "
                         "day of the week (no seconds, no year), or a name: " + ", ".join(sorted(NICKNAMES)))
    cron = " ".join(fields)
    try:
        if not cron.isascii():
            raise ValueError("has a character that cron does not know")
        # All that the calendar has for it, leap days on each day of the week too, comes within 28 years.
        next(CronSim(cron, datetime(2000, 1, 1)))
    except StopIteration:
        raise ValueError("names a day that never comes") from None
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        field = fields[list(FIELDS).index(name)]
        raise ValueError(f"'{printable(field, 80)}' is no {name}: {FIELDS[name]}; also *, ranges (1-5, from the "
                         "lower to the higher), steps (*/5) and lists (1,3)") from None
    return cron


def zone(name):
    """The ZoneInfo called `name`, such as "Europe/Berlin". Raises ValueError for what is no IANA zone."""
    if not _zones():
        raise ValueError("cannot be looked up: this machine has no time zones (pip install tzdata)")
    if name not in _zones():
        raise ValueError(f"'{printable(name, 80)}' is no IANA time zone such as Europe/Berlin or UTC")
    return ZoneInfo(name)


@cache
def _zones():
    # Not every file beside the zones is one: what the machine's own zone is, differs between machines.
    return available_timezones() - {"localtime", "posixrules", "Factory"}


def between(rule, start, end):
    """The instants at which `rule` comes, from `start` to before `end` (aware datetimes): iterator of
    aware datetimes in UTC, each later than the one before."""
    start, end = (min(max(at, EARLIEST), LATEST).astimezone(timezone.utc).replace(tzinfo=None)
                  for at in (start, end))
    every_so_often = "*" in [field[0] for field in rule.cron.split()[:2]]
    shown = before = last = None    # what the clocks had come to when they changed, and their offset then
    for begins, ends, offset in _spans(rule.zone, start - LONGEST_JUMP, end):
        opens, closes = begins + offset, ends + offset
        moved = []
        if shown and not every_so_often:
            jumped = _wall_times(rule, shown, opens)
            moved = [begins if rule.cron else wall - before for wall in jumped]
            opens = max(opens, shown)
        shown, before = closes, offset
        usual = (wall - offset for wall in _wall_times(rule, max(opens, start + offset), closes))
        for instant in merge(moved, usual):
            if instant != last and start <= instant < end:
                yield instant.replace(tzinfo=timezone.utc)
                last = instant


def _spans(zone, start, end):
    """Cuts the time from `start` to `end`, naive datetimes in UTC, where the clocks of `zone` change.
    Yields (begins, ends, what they are ahead of UTC as a timedelta), at the latest after a year."""
    def ahead(at):
        return at.replace(tzinfo=timezone.utc).astimezone(zone).utcoffset()

    begins = at = start
    while at < end:
        offset, to = ahead(begins), min(at + DAY, end)
        if ahead(to) != offset:
            while to - at > datetime.resolution:    # in the end `to` is the first instant after the change
                middle = at + (to - at) // 2
                if ahead(middle) == offset:
                    at = middle
                else:
                    to = middle
        elif to < end and to - begins < YEAR:       # who only wants the next one need not wait for more
            at = to
            continue
        yield begins, to, offset
        begins = at = to


def _wall_times(rule, opens, closes):
    """What the rule asks for, without a thought of clock changes, as naive datetimes in its zone: from
    `opens`, or the whole second that it lies in, to before `closes`, in order."""
    if rule.first:
        opens = max(opens, datetime.combine(rule.first, time.min))
    if rule.last:
        closes = min(closes, datetime.combine(rule.last, time.max))
    if opens >= closes:
        return
    if rule.cron:
        try:
            yield from takewhile(lambda wall: wall < closes, CronSim(rule.cron, opens - SECOND))
        except OverflowError:       # it comes no more before the calendar ends
            pass
        return
    for number in range(opens.toordinal(), closes.toordinal() + 1):
        day = date.fromordinal(number)
        if day.weekday() in rule.days:
            for at in rule.times:
                wall = datetime.combine(day, at)
                if opens <= wall < closes:
                    yield wall
