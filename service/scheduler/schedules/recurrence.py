"""When a schedule comes: its times of day or its cron expression, as instants. Asks no clock and no
database.

Days are counted in the schedule's zone. Where its clocks change, what a time there means is PEP 495's to say
(datetime's `fold`), and which of its meanings are asked for is the schedule's:

Times of day, as RFC 5545 (section 3.3.5) has it. One that the clocks jump over comes as if they had not
changed: 02:30 at what is then called 03:30. One that they show twice comes once, at the first. Two that
fall on one instant that way, 02:30 and 03:30, come once. (Samoa went without 30 December 2011: its 12:00
would have come at 12:00 on the 31st, where there is one already.)

Cron expressions, as Debian's cron has it (cron(8), "Notes"). One whose minute and hour both begin with
something other than `*` is meant to come at these times of day: those that the clocks jump over come once,
all together, right after the jump; what they show twice comes at the first. Any other, `*/5 * * * *` or
`0 * * * *`, is meant to come every so often: it comes whenever the clocks show its time, twice too, and
not at all at what they jump over. Which days and times the five fields name is cronsim's to say, which
follows Debian's cron, too. It is asked without a zone: with one, version 2.8 loses an occurrence where
Australia/Lord_Howe moves its clocks by half an hour, and finds no end where those of St. John's went back
to the day before.
"""
import re
from bisect import bisect_left
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from heapq import heappop, heappush
from itertools import takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ..base import zones
from ..base.words import printable

EVERY_DAY = frozenset(range(7))
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

# There are no occurrences in the calendar's first and last days, where no zone can be reckoned with.
EARLIEST = datetime(1, 1, 4, tzinfo=timezone.utc)
LATEST = datetime(9999, 12, 28, tzinfo=timezone.utc)

TIME_OF_DAY = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?(?: ?([AaPp])\.?[Mm]\.?)?")

FIELDS = {      # of a cron expression, in their order, under cronsim's names
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, not more than its months have, L for the last or LW for the last weekday",
    "month": "1 to 12 or jan to dec",
    "day-of-week": "0 to 7 or sun to sat (0 and 7 are Sunday), 5#2 for the second Friday or 5L for the last",
}
LAST = (59, 23, 31, 12, 7)      # value of each field
NICKNAMES = {   # crontab(5); there is no @reboot here
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}
NUMBERS = {name: str(number) for first, names in ((0, "sun mon tue wed thu fri sat"),
                                                  (1, "jan feb mar apr may jun jul aug sep oct nov dec"))
           for number, name in enumerate(names.split(), first)}

# A range from a value to itself, with a step. cronsim 2.8 reads it as one from there to the field's end.
RANGE_OF_ONE = re.compile(r"(?<![^ ,])(\w+)-(\w+)/0*[1-9][0-9]*(?![^ ,])")


class Rule(NamedTuple):
    """When a schedule comes. It has either `times` or `cron`."""

    times: tuple                    # of datetime.time in whole seconds, as `parse_times` makes them
    cron: str                       # as `parse_cron` makes it, or ""
    zone: ZoneInfo
    days: frozenset = EVERY_DAY     # of the week for `times`, Monday is 0; `cron` has a field for them
    first: date | None = None       # in `zone`, both inclusive; of two days that one instant may
    last: date | None = None        # belong to, the one that the time was meant for
    exceptions: frozenset = frozenset()     # dates, of which the same is true, on which it does not come
    since: datetime | None = None   # an aware one, before which it does not come

    @property
    def every_so_often(self):
        """Whether its clocks' time is only a way to count, and not what it is meant to come at."""
        return "*" in [field[0] for field in self.cron.split()[:2]]


def parse_times(text):
    """The times of day in `text`, such as "12:30, 14:15:30, 6:00 PM", as people write them.

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
                raise ValueError("is not HH:MM or HH:MM:SS")
            hour, half = int(match[1]), (match[4] or "").lower()
            if half:
                if not 1 <= hour <= 12:
                    raise ValueError("hour must be in 1..12 with AM or PM")
                hour = hour % 12 + (12 if half == "p" else 0)
            times.add(time(hour, int(match[2]), int(match[3] or 0)))
        except ValueError as error:
            bad.append(f"'{printable(piece, 80)}' {error}")
    if bad:
        raise ValueError("; ".join(bad))
    if not times:
        raise ValueError("no times of day: write them as 12:30, 14:15:30")
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
        next(_cronsim(cron, datetime(2000, 1, 1)))
    except StopIteration:
        raise ValueError("names a day that never comes") from None
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        field = fields[list(FIELDS).index(name)]
        raise ValueError(f"'{printable(field, 80)}' is no {name}: {FIELDS[name]}; also *, ranges (1-5, from the "
                         "lower to the higher), steps (*/5) and lists (1,3)") from None
    for field, name, last in zip(fields, FIELDS, LAST):
        for term in field.split(","):
            start, step, number = term.partition("/")
            if step and start != "*" and "-" not in start:      # crontab(5) has none, and cron takes none
                like = f"{start}-{last}/{number}" if start[0] not in "Ll" else f"1-{last}/{number}"
                raise ValueError(f"'{printable(field, 80)}' is no {name}: a step follows * or a range, "
                                 f"as in */{number} or {like}")
    return cron


def _cronsim(cron, after):
    """The datetimes after `after`, a naive one, that `cron` names: iterator, of naive ones."""
    def one(match):
        first, last = (NUMBERS.get(value.lower(), value).lstrip("0") for value in match.groups())
        return match[1] if first == last else match[0]
    return CronSim(RANGE_OF_ONE.sub(one, cron), after)


def zone(name):
    """The ZoneInfo called `name`, such as "Europe/Berlin". Raises ValueError for what is no IANA zone."""
    if not zones.names():
        raise ValueError("cannot be looked up: this machine has no time zones (pip install tzdata)")
    if name not in zones.names():
        raise ValueError(f"'{printable(name, 80)}' is no IANA time zone such as Europe/Berlin or UTC")
    return ZoneInfo(name)


def between(rule, start, end):
    """The instants at which `rule` comes, from `start` to before `end` (aware datetimes): iterator of
    aware datetimes in UTC, each later than the one before."""
    return (at for at, _ in with_walls(rule, start, end))


def with_walls(rule, start, end):
    """As `between`, each with the naive datetime that was asked for, by the clocks of the zone. They show another
    where they jump over it; of two that fall on one instant it is the earlier."""
    start = max(start, rule.since or start)
    start, end = (min(max(at, EARLIEST), LATEST).astimezone(timezone.utc) for at in (start, end))
    opens, before, after = (at.astimezone(rule.zone).replace(tzinfo=None) for at in (start, start - DAY, start + DAY))
    if after - before != 2 * DAY:   # the clocks change (by a day at most, and never twice within a week):
        opens = before              # what they show at `start` may come after what they show later
    last = None
    for at, wall in _in_order(rule, opens, end):
        if start <= at < end and at != last:
            yield at, wall
        last = at


def _in_order(rule, opens, end):
    """All instants, with what was asked for, from `opens`, a naive datetime, to `end`, an aware one, in order: two
    times that fall on one instant are two."""
    found = []
    for wall in _wall_times(rule, opens):
        instants = _instants(wall, rule.zone)
        while found and found[0][0] < min(instants):    # which none of the walls to come is before
            yield heappop(found)
        if min(instants) >= end:
            return
        for at in _meant(rule, *instants):
            heappush(found, (at, wall))
    yield from sorted(found)


def _instants(wall, zone):
    """What the naive datetime `wall` can mean in `zone`: [by the offset before, by that after a change], in UTC.
    They are the same at most times, in order where the clocks show it twice, and not where they jump over it."""
    return [wall.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1)]


def _meant(rule, first, second):
    """Those instants at which `rule` comes for a time that may be either, of `_instants`: list."""
    if first == second or rule.times:
        return [first]
    if rule.every_so_often:
        return [first, second] if first < second else []
    return [first if first < second else _jump(rule.zone, second, first)]


def _jump(zone, start, end):
    """The instant from `start` to `end`, aware datetimes in whole seconds, at which the clocks of `zone` change."""
    seconds = range(int(start.timestamp()), int(end.timestamp()))

    def changed(at):
        return datetime.fromtimestamp(at, zone).utcoffset() != start.astimezone(zone).utcoffset()
    return datetime.fromtimestamp(seconds.start + bisect_left(seconds, True, key=changed), timezone.utc)


def _wall_times(rule, opens):
    """What the rule asks for, without a thought of clock changes: iterator of naive datetimes in its zone, in
    order, from `opens`, or the whole second that it lies in."""
    return (wall for wall in _days_and_times(rule, opens) if wall.date() not in rule.exceptions)


def _days_and_times(rule, opens):
    """As `_wall_times`, on exceptions too."""
    opens = max(opens, datetime.combine(rule.first or date.min, time.min))
    last = min(rule.last or date.max, LATEST.date() + DAY)
    if rule.cron:
        with suppress(OverflowError):       # it comes no more before the calendar ends
            yield from takewhile(lambda wall: wall.date() <= last, _cronsim(rule.cron, opens - SECOND))
        return
    for number in range(opens.toordinal(), last.toordinal() + 1):
        day = date.fromordinal(number)
        if day.weekday() in rule.days:
            for at in rule.times:
                yield datetime.combine(day, at)
