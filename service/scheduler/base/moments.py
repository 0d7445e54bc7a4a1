"""Times as people write them on the admin's pages: in TIME_ZONE, unless they say another offset."""
import re
from datetime import timezone as zones

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ..api.common import instant


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
