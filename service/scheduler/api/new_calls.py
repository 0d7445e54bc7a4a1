"""What a POST asks for: calls at given times, or some seconds from now, with what is sent to their targets.

It is read in two steps. `read` looks at the request alone, and raises Refusal for what cannot be meant. What it returns
knows the request's fingerprint, for an Idempotency-Key, and has `calls`, which asks the database for the targets.
"""
import hashlib
import json
from datetime import timedelta
from math import isfinite

from django.conf import settings
from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers

from ..base.moments import instant, showable
from ..base.words import one_line, printable
from ..calls import template
from ..calls.ledger import NewCall
from ..models import NOTE_MAX, Target
from .errors import Refusal

COMMON = ("note", "target", "body", "headers", "data", "expires")
COPIES = 100        # of the longest body that one request may ask for
NAMED = 20          # mistakes that the sentence names; `errors` has all
TO_A_TARGET = ("body", "headers", "data")


# What the document says. A request is read by the functions below, whose words are for people.

class _WhatSerializer(serializers.Serializer):
    note = serializers.CharField(
        required=False, allow_blank=True, max_length=NOTE_MAX,
        help_text="What these calls are for, in one line; kept with each of them.")
    target = serializers.CharField(
        required=False, allow_null=True,
        help_text="The name of what is called; left out, it is the API of the service's own configuration.")
    body = serializers.JSONField(
        required=False, allow_null=True,
        help_text="Instead of the target's body. Text is sent as it stands, and its Content-Type must be among the "
                  "headers, here or of the target; anything else is sent as JSON, with `application/json` if they name "
                  "no Content-Type. Placeholders such as {{call.id}} and {{data.KEY}} are filled in.")
    headers = serializers.DictField(
        child=serializers.CharField(allow_blank=True), required=False, allow_null=True,
        help_text="Beside the target's, and instead of those of the same name.")
    data = serializers.DictField(
        child=serializers.JSONField(allow_null=True), required=False, allow_null=True,
        help_text="What {{data.KEY}} stands for in the target's URL, headers and body, and in those here: a text or "
                  "a number for each key.")
    expires = serializers.JSONField(
        required=False, allow_null=True,
        help_text="When a call that has not started is of no use any more: a number of seconds after it is due, or an "
                  "ISO 8601 date and time. Left out, it is the service's GRACE.")


class CallsAtTimesSerializer(_WhatSerializer):
    timestamps = serializers.CharField(
        help_text="ISO 8601 dates and times, each with its offset from UTC, separated by commas. "
                  "Those in the past are ignored; one that stands twice is called twice.")


class CallLaterSerializer(_WhatSerializer):
    delay = serializers.FloatField(min_value=0, help_text="Seconds from now.")


class OneCallSerializer(_WhatSerializer):
    """One of `calls`: with a `timestamp` or a `delay`."""

    timestamp = serializers.CharField(
        required=False, help_text="An ISO 8601 date and time with its offset from UTC. A call in the past is ignored.")
    delay = serializers.FloatField(required=False, min_value=0, help_text="Seconds from now.")


class ManyCallsSerializer(serializers.Serializer):
    calls = OneCallSerializer(
        many=True, allow_empty=False,
        help_text="Each with a request of its own. In the answer, and in `errors`, `position` is the place in this "
                  "list, from 0.")


NEW_CALLS = PolymorphicProxySerializer(
    "NewCalls", [CallsAtTimesSerializer, CallLaterSerializer, ManyCallsSerializer], resource_type_field_name=None)


# How it is read.

def read(data):
    """The Asked of `data`, of json.loads. Raises Refusal, which names everything that is wrong."""
    if not isinstance(data, dict):
        raise Refusal('The body must be a JSON object: {"timestamps": "2026-08-01T14:30:00Z"}')
    if "calls" in data:
        return _many(data)
    when = "delay" if "delay" in data else "timestamps"
    if when not in data:
        raise Refusal("`timestamps` is missing: ISO 8601 dates and times, separated by commas.")
    if unknown := _unknown(data, when):
        raise Refusal(f"There is no key {unknown}; there are `{when}` and, if you like, {_listed(COMMON)}.")
    problems = Problems()
    what = problems.of(None, _what, data)
    problems.refuse()
    if when == "delay":
        what["delay"] = problems.of(None, lambda data, found: _read(_delay, data, "delay", found), data)
        problems.refuse()
        return Asked(_fingerprint(data), [what])
    times = _timestamps(data["timestamps"])
    if (size := len(times) * sum(len(_json(what.get(key, ""))) for key in TO_A_TARGET)) > COPIES * settings.BODY_MAX:
        raise Refusal(f"{len(times)} calls with that body are {size} characters: at most {COPIES * settings.BODY_MAX} are "
                      "taken. Let the target have the body.")
    # Of what could be asked for when there were no targets it is as it was then: a retry may come after an update.
    old = not set(data) - {"timestamps", "note"}
    fingerprint = _sha256("\n".join([",".join(time.isoformat() for time in times), *filter(None, [what.get("note")])]))
    return Asked(fingerprint if old else _fingerprint(data | {"timestamps": [time.isoformat() for time in times]}),
                 [{**what, "due": time} for time in times])


class Asked:
    """What a request asks for."""

    def __init__(self, fingerprint, wanted, positions=False):
        """fingerprint: str, the same for each request that asks for the same
        wanted: [{"due": aware datetime or "delay": seconds, and of COMMON what was given}, ...]
        positions: whether these are of `calls`"""
        self.fingerprint = fingerprint
        self.positions = positions
        self._wanted = wanted

    def calls(self, now, may_use):
        """[(position in `calls` or None, NewCall), ...] of those that are not past, in the order given.

        now: aware datetime, from which a delay counts
        may_use(): raises what is to be answered if the user may not use targets
        Raises Refusal, which names all that is wrong.
        """
        names = {one["target"] for one in self._wanted if "target" in one}
        if names:
            may_use()
        known = _of_names(names)
        needs = {name: _Needs(target) for name, target in known.items()}
        problems, calls = Problems(), []
        for position, one in enumerate(self._wanted):
            new = problems.of(position if self.positions else None, _new, one, now, needs)
            if new and new.timestamp >= now:
                calls.append((position if self.positions else None, new))
        problems.refuse()
        return calls


class Problems:
    """All that is wrong with a request."""

    def __init__(self):
        self.errors = []

    def of(self, position, work, *arguments):
        """What work(*arguments, found) returns, which appends (key, what is wrong with it) to the list `found`; None
        if it did.

        position: in `calls`, None if it is of the whole request
        """
        found = []
        result = work(*arguments, found)
        where = {} if position is None else {"position": position}
        self.errors += [{**where, "key": key, "reason": reason} for key, reason in found]
        return None if found else result

    def refuse(self):
        """Raises the Refusal, if there is something wrong."""
        if not self.errors:
            return
        said = [(f"calls[{bad['position']}]: " if "position" in bad else "") + f"`{bad['key']}` {bad['reason']}"
                for bad in self.errors[:NAMED]]
        more = [f"and {len(self.errors) - NAMED} more"] if len(self.errors) > NAMED else []
        raise Refusal("; ".join(said + more) + ".", self.errors)


def _of_names(names):
    """{name: Target} of those that there are."""
    names = [name for name in names if len(name) <= NAME_MAX and name.isprintable()]      # others no database is asked for
    return {target.name: target for i in range(0, len(names), BATCH)
            for target in Target.objects.filter(name__in=names[i:i + BATCH], deleted_at=None)}


# What it comes to, by its targets.

class _Needs:
    """What a target asks of the calls for it."""

    def __init__(self, target):
        self.target = target
        names = {name.lower() for name in (*target.headers, *target.secret_names.get("headers", ()))}
        self.says_what = "content-type" in names
        self.around = _keys(target.url, *target.headers.values())
        self.body = _keys(target.body)


def _new(one, now, needs, found):
    """The NewCall, with what `one`, of `_what` and a time, asks for."""
    due, expires_at = _times(one, now, found)
    if "target" not in one:
        found += [(key, "is for a target, and none is named: name one as `target`") for key in TO_A_TARGET if one.get(key)]
        return NewCall(due, one.get("note", ""), expires_at=expires_at)
    need = needs.get(one["target"])
    if need is None:
        found.append(("target", f"names none that there is: {printable(one['target'], 80)}"))
        return None
    body, is_json = one.get("body", (None, False))
    headers, data = one.get("headers", {}), one.get("data", {})
    if body is not None and not need.says_what and not any(name.lower() == "content-type" for name in headers):
        if is_json:
            headers = {**headers, "Content-Type": "application/json"}
        else:
            found.append(("body", "is text, and nothing says of what kind: put its Content-Type, such as text/plain, into "
                                  "`headers`"))
    wanted = need.around | _keys(*headers.values()) | (need.body if body is None else _keys(body))
    if lacking := sorted(wanted - set(data)):
        found.append(("data", f"lacks {_listed(lacking)}, for which there is a place in what is sent"))
    return NewCall(due, one.get("note", ""), need.target, body, headers, data, expires_at)


def _times(one, now, found):
    """(when it is due, when it expires or None)"""
    try:
        due = one["due"] if "due" in one else showable(now + one["delay"])
    except (ValueError, OverflowError):
        found.append(("delay", "is too long"))
        return now, None
    expires = one.get("expires")
    try:
        expires_at = showable(due + expires) if isinstance(expires, timedelta) else expires
    except (ValueError, OverflowError):
        found.append(("expires", "is too long"))
        return due, None
    if expires_at is not None and expires_at <= due:
        found.append(("expires", "must be later than the due time"))
    return due, expires_at


# What it says, without the database.

def _many(data):
    if others := sorted(set(data) - {"calls"}):
        raise Refusal(f"`calls` stands alone, beside it is {printable(others[0], 80)}: what each call is to have is said "
                      "with that call.")
    calls = data["calls"]
    if not isinstance(calls, list) or not calls:
        raise Refusal('`calls` must be a list of objects: [{"timestamp": "2026-08-01T14:30:00Z"}, {"delay": 90}]')
    if len(calls) > settings.MAX_TIMESTAMPS:
        raise Refusal(f"{len(calls)} calls are too many for one request: at most {settings.MAX_TIMESTAMPS} are taken.")
    problems = Problems()
    wanted = [problems.of(position, _one, call) for position, call in enumerate(calls)]
    problems.refuse()
    return Asked(_fingerprint(data), wanted, positions=True)


def _one(data, found):
    """One of `calls`."""
    if not isinstance(data, dict):
        found.append(("calls", 'must be a list of objects: {"timestamp": "2026-08-01T14:30:00Z"}'))
        return None
    when = [key for key in ("timestamp", "delay") if key in data]
    if len(when) != 1:
        found.append(("timestamp", "stands beside `delay`; which is meant?" if when else
                      "is missing: an ISO 8601 date and time, or in its place a `delay` in seconds"))
        return None
    if unknown := _unknown(data, when[0]):
        found.append((unknown, f"is no key that there is; there are `{when[0]}` and, if you like, {_listed(COMMON)}"))
    what = _what(data, found)
    if when[0] == "delay":
        what["delay"] = _read(_delay, data, "delay", found)
    else:
        what["due"] = _read(_instant, data, "timestamp", found)
    return what


def _what(data, found):
    """{key: value} of what `data` says beside a time. What is null is as if it were left out."""
    return {key: _read(reader, data, key, found) for key, reader in READERS.items()
            if data.get(key) is not None or key == "note" and key in data}


def _read(reader, data, key, found):
    try:
        return reader(data[key])
    except ValueError as error:
        found.append((key, str(error)))
        return None


def _unknown(data, when):
    unknown = sorted(set(data) - {when, *COMMON})
    return printable(unknown[0], 80) if unknown else None


def _listed(keys):
    return ", ".join(f"`{key}`" for key in keys)


def _timestamps(text):
    """List of aware datetimes, in UTC. Raises Refusal."""
    if not isinstance(text, str):
        raise Refusal("`timestamps` must be one string: ISO 8601 dates and times, separated by commas.")
    pieces = [piece.strip() for piece in text.split(",")]
    if pieces[-1] == "":
        pieces.pop()                # a comma at the end is no mistake worth an error
    if not pieces:
        raise Refusal("`timestamps` is empty: ISO 8601 dates and times, separated by commas.")
    if len(pieces) > settings.MAX_TIMESTAMPS:
        raise Refusal(f"{len(pieces)} timestamps are too many for one request: at most "
                      f"{settings.MAX_TIMESTAMPS} are taken.")
    good, bad = [], []
    for piece in pieces:
        try:
            good.append(showable(instant(piece)))
        except ValueError as error:
            bad.append({"timestamp": printable(piece, 80), "reason": str(error)})
    if bad:
        raise Refusal(
            f"{len(bad)} of {len(pieces)} timestamps cannot be scheduled, so none was: "
            + "; ".join(f"'{b['timestamp']}' {b['reason']}" for b in bad), bad)
    return good


def _text(value):
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _note(value):
    return one_line(_text(value), NOTE_MAX)


def _instant(value):
    return showable(instant(_text(value).strip()))


def _seconds(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError("must be a number of seconds")
    try:
        return timedelta(seconds=value)
    except OverflowError:
        raise ValueError("is too long") from None


def _delay(value):
    if (delay := _seconds(value)) < timedelta():
        raise ValueError("must not be negative: it is a number of seconds from now")
    return delay


def _expires(value):
    """A timedelta after the due time, or an aware datetime."""
    if isinstance(value, str):
        return _instant(value)
    try:
        after = _seconds(value)
    except ValueError as error:
        raise ValueError(f"{error} after the due time, or an ISO 8601 date and time" if "number" in str(error)
                         else str(error)) from None
    if after <= timedelta():
        raise ValueError("must be later than the due time")
    return after


def _body(value):
    """(the text, whether it is JSON)"""
    is_json = not isinstance(value, str)
    text = _json(value) if is_json else value
    if "\0" in text or not _encodable(text):
        raise ValueError("holds a NUL, or half of a character, which cannot be kept")
    return text, is_json


def _object(value):
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def _headers(value):
    return checked_headers(_object(value))


def _data(value):
    if "\\u0000" in (text := _json(_object(value))) or not _encodable(text):
        raise ValueError("holds a NUL, or half of a character, which cannot be kept")
    return value


def _json(value):
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise ValueError("holds a number that is too large") from None      # 1e999 is read as infinite
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _encodable(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


READERS = {"note": _note, "target": _text, "body": _body, "headers": _headers, "data": _data, "expires": _expires}
