"""Times as they are written and read: by programs as ISO 8601 with an offset, by people on the admin's pages in
TIME_ZONE, unless they say another."""
import re
from datetime import MAXYEAR, datetime
from datetime import timezone as zones

from django.utils import timezone

# What is taken for a date and a time: ISO 8601, with a day of the calendar or of a week, hyphens and colons or none,
# and as RFC 3339 (section 5.6) has it with a blank for the T, or in small letters.
OFFSET = r"([Zz]|[+-]\d\d(:?[0-5]\d)?)?"
SHAPE = re.compile(r"(\d{4}-(\d\d-\d\d|[Ww]\d\d-\d)[Tt ]\d\d(:\d\d(:\d\d([.,]\d+)?)?)?"
                   r"|\d{4}(\d{4}|[Ww]\d{3})[Tt ]\d\d(\d\d(\d\d([.,]\d+)?)?)?)" + OFFSET, re.ASCII)


def moment(at, zone=None):
    """The aware datetime `at` as people read it, on every page: 2026-08-01 14:30:00 UTC, in `zone`, a tzinfo,
    or TIME_ZONE."""
    return f"{timezone.localtime(at, zone):%Y-%m-%d %H:%M:%S %Z}"


def precise(at, zone=None):
    """As `moment`, to the millisecond where it is no whole second: 2026-08-01 14:30:00.250 UTC."""
    if not at.microsecond:
        return moment(at, zone)
    local = timezone.localtime(at, zone)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03} {local:%Z}"


def _read(text):
    """The datetime, aware or not, that `text` names. Raises ValueError if it names none."""
    if not SHAPE.fullmatch(text):       # Python takes any character for the T, and an offset of +14:60
        raise ValueError
    return datetime.fromisoformat(text.upper())


def _utc(when):
    """The aware datetime `when` in UTC. Raises ValueError if that is in no calendar."""
    try:
        return when.astimezone(zones.utc)
    except OverflowError:
        raise ValueError("is not a time that a calendar can hold") from None


def instant(text):
    """The aware datetime, in UTC, that `text` (ISO 8601 or RFC 3339) names. Raises ValueError saying why not."""
    if not text:
        raise ValueError("is empty")
    try:
        when = _read(text)
    except ValueError:
        raise ValueError("is not an ISO 8601 date and time such as 2026-08-01T14:30:00Z") from None
    if when.tzinfo is None:
        raise ValueError("does not say which zone is meant: end it with Z for UTC, or an offset "
                         "such as +05:30")
    return _utc(when)


def showable(when):
    """The date or datetime `when`. Raises ValueError if it is of the calendar's last year: east of UTC that ends
    too late for a page to show it."""
    if when.year == MAXYEAR:
        raise ValueError(f"is too far ahead: the year must be below {MAXYEAR}")
    return when


def from_person(text, *, later=False):
    """The aware datetime, in UTC, that `text` names: ISO 8601 with an offset, as in the API, or
    "2026-08-01 14:30:00", seconds or not, by the clocks of TIME_ZONE.

    later: which of two is meant where clocks are set back, and an hour comes twice; else the earlier
    Raises ValueError saying why not, also for a time that the clocks of TIME_ZONE leave out.
    """
    zone = timezone.get_default_timezone()
    try:
        local = _read(re.sub("(?<=[-T ])[0-9](?=[- :])", r"0\g<0>", text))      # a month or an hour of one digit
    except ValueError:
        raise ValueError("is not a date and time such as 2026-08-01 14:30:00 or 2026-08-01T14:30:00+02:00") from None
    if local.tzinfo is not None:
        when = _utc(local)
    else:
        when = _utc(local.replace(tzinfo=zone, fold=int(later)))
        if when.astimezone(zone).replace(tzinfo=None) != local:
            raise ValueError(f"does not exist in {zone}: the clocks are set forward over it")
    try:
        when.astimezone(zone)       # for the pages that will show it
    except OverflowError:
        raise ValueError("is not a time that a calendar can hold") from None
    return when


def comes_twice(when):
    """Whether the clocks of TIME_ZONE show the time of the aware datetime `when` twice, and this is the first."""
    local = timezone.localtime(when)
    second = local.replace(fold=1)
    return local.fold == 0 and second.utcoffset() != local.utcoffset() and (
        second.astimezone(zones.utc).astimezone(local.tzinfo).replace(tzinfo=None) == local.replace(tzinfo=None))


def many_from_person(text):
    """[(piece, aware datetime or ValueError), ...] of times on lines of their own, or between commas."""
    found = []
    for piece in re.split(r"[,\n]", text):
        if piece := piece.strip():
            try:
                found.append((piece, from_person(piece)))
            except ValueError as error:
                found.append((piece, error))
    return found
