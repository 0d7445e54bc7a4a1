"""What a POST asks for: calls at given times, or some seconds from now, with what is sent to their targets.

It is read in two steps. `read` looks at the request alone, and raises Refusal for what cannot be meant. What it returns
knows the request's fingerprint, for an Idempotency-Key, and has `calls`, which asks the database for the targets.
"""
import hashlib
import json
from datetime import timedelta

from django.conf import settings
from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers

from ..base.moments import instant, showable
from ..base.words import one_line, printable
from ..calls import targets, template
from ..calls.ledger import NewCall, batches
from ..models import NOTE_MAX, rules
from .errors import Refusal
from .idempotency import fingerprint

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
        raise Refusal("`timestamps` is missing: ISO 8601 dates and times, separated by commas (or in its place `delay`, or `calls`).")
    if {"delay", "timestamps"} <= set(data):
        raise Refusal("`delay` and `timestamps` both say when: give one of them.")
    if unknown := _unknown(data, when):
        raise Refusal(f"There is no key {unknown}; {_keys(when)}")
    if "note" in data:
        try:
            _note(data["note"])
        except ValueError as error:
            raise Refusal(f"`note` {error}.") from None
    problems = Problems()
    what = problems.of(None, _what, data, when)
    problems.refuse()
    if when == "delay":
        return Asked(fingerprint(data), [what])
    times = _timestamps(data["timestamps"])
    size = sum(len(json.dumps(what[key])) for key in TO_A_TARGET if key in what) * len(times)
    if size > COPIES * settings.BODY_MAX:
        raise Refusal(f"{len(times)} calls with that body are {size} characters: at most {COPIES * settings.BODY_MAX} are "
                      "taken. Give it to the target, or ask for fewer calls.")
    # Of what could be asked for before there were targets it is as it was then: a retry may come after an update.
    if set(data) <= {"timestamps", "note"}:
        said = "\n".join([",".join(time.isoformat() for time in times), *filter(None, [what.get("note")])])
        known_as = hashlib.sha256(said.encode()).hexdigest()
    else:
        known_as = fingerprint({**data, "timestamps": [time.isoformat() for time in times]})
    return Asked(known_as, [{**what, "due": time} for time in times])


class Asked:
    """What a request asks for."""

    def __init__(self, fingerprint, wanted, positions=False):
        """fingerprint: str, the same for each request that asks for the same
        wanted: [{"due": aware datetime or "delay": timedelta, and of COMMON what was given}, ...]
        positions: whether these are of `calls`"""
        self.fingerprint = fingerprint
        self.positions = positions
        self._wanted = wanted

    def calls(self, now, may_use):
        """[(position in `calls` or None, NewCall), ...] of those that are not past, in the order given.

        now: aware datetime, from which a delay counts
        may_use(): raises what is to be answered if the user may not use targets
        Raises Refusal, which names everything that is wrong.
        """
        names = {one["target"] for one in self._wanted if "target" in one}
        if names:
            may_use()
        needs = {name: _Needs(target) for name, target in _targets(names).items()}
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
        """What work(*arguments, found) returns, which puts {key: what is wrong with it} into the dict `found`; None if
        it did.

        position: in `calls`, None if it is of the whole request
        """
        found = {}
        result = work(*arguments, found)
        where = {} if position is None else {"position": position}
        self.errors += [{**where, "key": key, "reason": _sentence(reason)} for key, reason in found.items()]
        return None if found else result

    def refuse(self):
        """Raises the Refusal, if there is something wrong."""
        if not self.errors:
            return
        said = [(f"calls[{bad['position']}]." if "position" in bad else "") + f"{bad['key']}: {bad['reason']}"
                for bad in self.errors[:NAMED]]
        more = [f"And {len(self.errors) - NAMED} more."] if len(self.errors) > NAMED else []
        raise Refusal(" ".join(said + more), self.errors)


def _sentence(words):
    return words if words.endswith(".") else f"{words[:1].upper()}{words[1:]}."


# What it says, without the database.

def _many(data):
    if others := sorted(set(data) - {"calls"}):
        raise Refusal(f"Beside `calls` there is {printable(others[0], 80)}; what a call is to have is said with that call.")
    calls = data["calls"]
    if not isinstance(calls, list) or not calls:
        raise Refusal('`calls` must be a list of objects: [{"timestamp": "2026-08-01T14:30:00Z"}, {"delay": 90}]')
    if len(calls) > settings.MAX_TIMESTAMPS:
        raise Refusal(f"{len(calls)} calls are too many for one request: at most {settings.MAX_TIMESTAMPS} are taken.")
    problems = Problems()
    wanted = [problems.of(position, _one, call) for position, call in enumerate(calls)]
    problems.refuse()
    return Asked(fingerprint(data), wanted, positions=True)


def _one(data, found):
    """One of `calls`."""
    when = [key for key in ("timestamp", "delay") if isinstance(data, dict) and key in data]
    if not isinstance(data, dict):
        found["timestamp"] = 'is missing: each of `calls` must be an object such as {"timestamp": "2026-08-01T14:30:00Z"}'
    elif not when:
        found["timestamp"] = "is missing: an ISO 8601 date and time, or in its place a `delay` in seconds"
    elif len(when) == 2:
        found["delay"] = "stands beside a timestamp; which is meant?"
    elif unknown := _unknown(data, when[0]):
        found[unknown] = f"is no key here; {_keys(when[0])}"
    else:
        return _what(data, when[0], found)


def _what(data, when, found):
    """{key: value} of what `data` says: a timestamp is in it as "due". What is null is as if it were left out, but for
    a time."""
    what = {}
    for key in ("timestamp", "delay", *COMMON):
        if key in data and (key == when or data[key] is not None):
            try:
                what["due" if key == "timestamp" else key] = READERS[key](data[key])
            except ValueError as error:
                found[key] = str(error)
    return what


def _unknown(data, when):
    unknown = sorted(set(data) - {when, *COMMON})
    return printable(unknown[0], 80) if unknown else None


def _keys(when):
    return f"there are `{when}` and, if you like, {', '.join(f'`{key}`' for key in COMMON)}."


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


def _seconds(value, least):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise ValueError(f"must be a number of seconds, at least {least:g}")
    try:
        return timedelta(seconds=value)
    except OverflowError:
        raise ValueError("is too long") from None


def _delay(value):
    return _seconds(value, 0)


def _expires(value):
    """A timedelta after the due time, or an aware datetime."""
    return _instant(value) if isinstance(value, str) else _seconds(value, 0.001)


def _body(value):
    """(the text, whether it was written as JSON)"""
    if isinstance(value, str):
        return value, False
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False), True
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise ValueError("holds a number that is too large") from None      # 1e999, which is read as infinite


READERS = {"timestamp": _instant, "delay": _delay, "note": _note, "target": _text, "body": _body,
           "headers": rules.headers, "data": rules.data, "expires": _expires}


# What it comes to, by its targets.

def _targets(names):
    """{name: Target} of those that there are."""
    names = [name for name in names if name.isascii() and name.isprintable()]       # PostgreSQL takes no NUL
    return {target.name: target for some in batches(names) for target in targets.there().filter(name__in=some)}


class _Needs:
    """What a target asks of the calls for it."""

    def __init__(self, target):
        self.target = target
        self.kind = rules.content_type(target.headers) or (
            "text/plain" if any(name.lower() == "content-type" for name in target.secret_names.get("headers", ())) else "")
        self.around = _data_in(target.url, *target.headers.values())
        self.body = _data_in(target.body)


def _data_in(*texts):
    """The keys of the data that have a place in the texts."""
    return {name[5:] for text in texts for name in template.names(text) if name.startswith("data.")}


def _new(one, now, needs, found):
    """The NewCall that `one`, of `_what` and with a time, asks for."""
    due, expires_at = _times(one, now, found)
    if "target" not in one:
        for key in TO_A_TARGET:
            if one.get(key):
                found[key] = "is for a target, and the call has none: name it as `target`"
        return NewCall(due, one.get("note", ""), expires_at=expires_at)
    need = needs.get(one["target"])
    if need is None:
        found["target"] = f'there is no target "{printable(one["target"], 80)}"'
        return None
    (body, is_json), headers, data = one.get("body", (None, False)), one.get("headers", {}), one.get("data", {})
    if body is not None:
        kind = rules.content_type(headers) or need.kind
        if is_json and not kind:
            kind = "application/json"
            headers = {**headers, "Content-Type": kind}
        try:
            rules.body(body, kind)
        except ValueError as error:
            found["body"] = str(error)
            return None
    places = need.around | _data_in(*headers.values()) | (need.body if body is None else _data_in(body))
    if lacking := sorted(places - set(data)):
        found["data"] = f"lacks {', '.join(lacking)}, for which there is a place in what is sent"
    return NewCall(due, one.get("note", ""), need.target, body, headers, data, expires_at)


def _times(one, now, found):
    """(when it is due, when it expires or None)"""
    try:
        due = one["due"] if "due" in one else showable(now + one["delay"])
    except (ValueError, OverflowError):
        found["delay"] = "is too long"
        return now, None
    expires_at = one.get("expires")
    try:
        if isinstance(expires_at, timedelta):
            expires_at = showable(due + expires_at)
    except (ValueError, OverflowError):
        found["expires"] = "is too long"
        return due, None
    if expires_at is not None and expires_at <= due:
        found["expires"] = "must be later than the due time"
    return due, expires_at
