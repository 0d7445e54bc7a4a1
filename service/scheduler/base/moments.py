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


# As spreadsheets and letters have dates, and times with AM and PM: 28.11.2026 14:00, 11/28/2026 2:00 PM, 28-Nov-26 14:00.
DAYS = [re.compile(shape, re.ASCII) for shape in (
    r"(?P<day>\d{1,2})\. ?(?P<month>\d{1,2})\. ?(?P<year>\d{4}|\d\d)",
    r"(?P<day>\d{1,2})\.?[- ](?P<name>[A-Za-z]{3,9})\.?,?[- ](?P<year>\d{4}|\d\d)",
    r"(?P<name>[A-Za-z]{3,9})\.? (?P<day>\d{1,2}),? (?P<year>\d{4})",
    r"(?P<year>\d{4})(?P<sign>[/.])(?P<month>\d{1,2})(?P=sign)(?P<day>\d{1,2})",
    r"(?P<one>\d{1,2})(?P<sign>[/-])(?P<other>\d{1,2})(?P=sign)(?P<year>\d{4})")]
TIME = re.compile(r"(?P<hour>\d{1,2})(:(?P<rest>[0-5]\d(:[0-5]\d([.,]\d{1,6})?)?))?( ?(?P<half>[AaPp])\.?[Mm]\.?)?"
                  r" ?(?P<offset>[Zz]|UTC|GMT|[+-]\d\d(:?[0-5]\d)?)?", re.ASCII)
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
          "december")
ZONED = re.compile(r"([Zz]|UTC|GMT|[+-]\d\d(:?[0-5]\d)?)$", re.ASCII)


class Ambiguous(ValueError):
    """A date that could be two."""


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


def has_offset(text):
    """Whether a time as a person wrote it says itself how far it is from UTC."""
    return bool(ZONED.search(text))


def _split(text):
    """(the match of one of DAYS or None, what follows it) of a date and a time as people write them."""
    for shape in DAYS:
        if found := shape.match(text):
            return found, text[found.end():].lstrip(", ")
    return None, text


def days_first(texts):
    """Of a column of texts such as 28/11/2026 14:00, whether the day stands before the month in it: True or False if
    one of them can be read in no other way, None if none can, or they say this and that."""
    said = set()
    for text in texts:
        if (found := _split(text.strip())[0]) and "one" in found.re.groupindex:
            one, other = int(found["one"]), int(found["other"])
            said |= {True} if other <= 12 < one else {False} if one <= 12 < other else set()
    return said.pop() if len(said) == 1 else None


def _as_iso(text, day_first):
    """What people write, as ISO 8601 has it; what is none of it as it is. Raises Ambiguous, or ValueError for a
    date alone."""
    found, rest = _split(text)
    time = found and TIME.fullmatch(rest)
    if not time or not (time["rest"] or time["half"]):
        if found and not rest:
            raise ValueError("is a date without a time of day")
        # A month or an hour of one digit; and a zone, as the pages here have it.
        return re.sub("(?<=[-T ])[0-9](?=[- :])", r"0\g<0>", re.sub(" (UTC|GMT|[Zz])$", "Z", text))
    parts = found.groupdict()
    year, day, month = int(parts["year"]), parts.get("day"), parts.get("month")
    if name := parts.get("name"):
        known = [i for i, whole in enumerate(MONTHS, 1) if name.lower() in (whole, whole[:3], whole[:4] if i == 9 else whole)]
        if not known:
            return text
        month = known[0]
    elif parts.get("one"):
        one, other = int(parts["one"]), int(parts["other"])
        if one <= 12 and other <= 12 and one != other and day_first is None:
            raise Ambiguous(f"could be the {one} {MONTHS[other - 1].capitalize()} or the {other} {MONTHS[one - 1].capitalize()}: "
                             f"write the month as a word, or the year first, such as {year}-{other:02}-{one:02}")
        day, month = (one, other) if one > 12 or one <= 12 and other <= 12 and day_first else (other, one)
    hour, half = int(time["hour"]), (time["half"] or "").lower()
    if half and not 1 <= hour <= 12:
        return text
    hour = hour % 12 + (12 if half == "p" else 0) if half else hour
    offset = "Z" if time["offset"] in ("UTC", "GMT") else time["offset"] or ""
    return f"{year + 2000 if year < 100 else year:04}-{int(month):02}-{int(day):02} {hour:02}:{time['rest'] or '00'}{offset}"


def from_person(text, *, later=False, day_first=None, zone=None):
    """The aware datetime, in UTC, that `text` names: ISO 8601 with an offset, as in the API, or
    "2026-08-01 14:30:00", seconds or not, by the clocks of `zone`; or as spreadsheets have it, with the month as a
    word (in English) or between dots, or between slashes where it can be no day.

    later: which of two is meant where clocks are set back, and an hour comes twice; else the earlier
    day_first: whether 01/02/2026 is a day of February or of January; None for neither
    zone: a tzinfo; None for that of TIME_ZONE
    Raises ValueError saying why not, also for a time that the clocks of `zone` leave out; Ambiguous is one.
    """
    zone = zone or timezone.get_default_timezone()
    text = " ".join(text.split())
    iso = _as_iso(text, day_first)
    try:
        local = _read(iso)
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
