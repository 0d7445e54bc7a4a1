"""Times as they are written and read: by programs as ISO 8601 with an offset, by people on the admin's pages in
TIME_ZONE, unless they say another."""
import re
from datetime import MAXYEAR
from datetime import timezone as zones

from django.utils import timezone
from django.utils.dateparse import parse_datetime


def moment(at, zone=None):
    """The aware datetime `at` as people read it, on every page: 2026-08-01 14:30:00 UTC, in `zone`, a tzinfo,
    or TIME_ZONE."""
    return f"{timezone.localtime(at, zone):%Y-%m-%d %H:%M:%S %Z}"


def instant(text):
    """The aware datetime, in UTC, that `text` (ISO 8601) names. Raises ValueError saying why not."""
    if not text:
        raise ValueError("is empty")
    try:
        when = parse_datetime(text) if text.isascii() else None
    except ValueError:
        when = None
    if when is None:
        raise ValueError("is not an ISO 8601 date and time such as 2026-08-01T14:30:00Z")
    if when.utcoffset() is None:
        raise ValueError("does not say which zone is meant: end it with Z for UTC, or an offset "
                         "such as +05:30")
    try:
        return when.astimezone(zones.utc)
    except OverflowError:
        raise ValueError("is not a time that a calendar can hold")


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
        local = parse_datetime(text) if text.isascii() and text else None
    except ValueError:
        local = None
    if local is None or (local.tzinfo is None and ":" not in text):     # a day alone is no time
        raise ValueError("is not a date and time such as 2026-08-01 14:30:00 or 2026-08-01T14:30:00+02:00")
    try:
        if local.tzinfo is not None:
            when = instant(text)
        else:
            when = local.replace(tzinfo=zone, fold=int(later)).astimezone(zones.utc)
            if when.astimezone(zone).replace(tzinfo=None) != local:
                raise ValueError(f"does not exist in {zone}: the clocks are set forward over it")
        when.astimezone(zone)       # for the pages that will show it
    except OverflowError:
        raise ValueError("is not a time that a calendar can hold")
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
