"""What is sent for a call, and by what its answer is judged: all that an attempt has to know of a target.

A call that names no target is a GET of API_URL, `default()`. For one that does, `build` puts together what its target,
its schedule and the call itself say, fills in the placeholders (template.py), and adds the secrets.
"""
from base64 import b64encode
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Optional

from django.conf import settings

from ..base.secrets import decrypt, meet
from ..models import rules
from . import template

TEST = "test"               # by which way a call came that tries its target
MAX_AGE = 86400.0           # seconds after its due time in which a retry may start, unless the target says another


def age(max_age):
    """Seconds after its due time in which a retry may start, of a Target's `max_age`."""
    return MAX_AGE if max_age is None else max_age


def delays(call, target):
    """Seconds before the second attempt at a call of a Target, the third and so on: tuple. A test is one attempt."""
    return () if call.scheduled_via == TEST else tuple(target.delays)


def timeout(seconds):
    """Seconds for one attempt, of a Target's `timeout`; None for a call that names no target."""
    return settings.TIMEOUT if seconds is None else seconds


class Unsendable(Exception):
    """Nothing can be sent for this call as things are. Says why, in words that hold no secret."""


@dataclass(frozen=True)
class OAuth:
    """Where an access token is had (RFC 6749, 4.4: client credentials)."""

    url: str
    client_id: str
    client_secret: str
    scope: str = ""


@dataclass(frozen=True)
class Request:
    """One request, ready but for what is made at the moment of sending: an access token, and a signature."""

    method: str
    url: str
    headers: tuple = ()                 # of (name, value), with those of the auth, but for oauth
    body: Optional[bytes] = None
    target_id: Optional[int] = None
    target: str = ""                    # its name, "" for API_URL
    version: int = 0                    # of the target
    number: int = 1                     # of the attempt
    message_id: Optional[str] = None    # webhook-id and Idempotency-Key, the same at each attempt; None for API_URL
    signing: tuple = ()                 # of str, whsec_ and so on; each makes a signature
    connect_timeout: float = 10.0       # seconds
    timeout: float = 30.0               # seconds, for the whole attempt
    statuses: tuple = ((200, 399),)     # of (lowest, highest)
    contains: str = ""
    not_contains: str = ""
    follow_redirects: bool = True
    keep_method: bool = True            # and the body, at a redirect
    guarded: bool = True                # it may only go where networks.py lets it
    secret_headers: frozenset = frozenset()     # of names in small letters, whose values are not kept
    secrets: tuple = ()                 # of str, not to be in anything that is kept or said
    oauth: Optional[OAuth] = None
    delays: tuple = ()                  # seconds
    max_age: float = MAX_AGE            # seconds
    repeatable: bool = False
    keep_failures: int = 16384          # bytes of the body of an answer
    keep_successes: int = 0


@cache
def default():
    """The Request of calls that name no target: as it was before there were any."""
    return Request(
        "GET", settings.API_URL, connect_timeout=settings.CONNECT_TIMEOUT, timeout=settings.TIMEOUT,
        keep_method=False, guarded=False)


def build(call, target, own, schedule, number):
    """The Request of a call that names a target.

    call: has id, timestamp (due), created_at, note and scheduled_via, as a ScheduledCall
    target: the Target
    own: its CallRequest, or None
    schedule: its Schedule, or None; what that says of body, headers and data counts when `own` is None
    number: int, of the attempt, from 1
    Raises Unsendable.
    """
    source = own or schedule
    said = (source.body, source.headers, source.data) if source else (None, {}, {})
    text = target.body if said[0] is None else said[0]
    plain = rules.overlaid(target.headers, said[1])
    values = {
        "call.id": call.id, "call.due": call.timestamp.isoformat().replace("+00:00", "Z"), "call.note": call.note,
        "call.attempt": number, "schedule.name": schedule.name if schedule else "",
        **{f"data.{key}": value for key, value in said[2].items()}}
    try:
        held = _secrets(target.secrets, tuple(settings.SECRETS_KEY))
        url = template.fill(target.url, values, template.URL)
        headers = {name: template.fill(value, values, template.HEADER).strip(" \t") for name, value in plain.items()}
        body = template.fill(text, values, template.kind(rules.content_type(headers))).encode() if text else None
    except ValueError as error:
        raise Unsendable(str(error)) from None
    secret, oauth = dict(held.get("headers", {})), None
    of_auth = held.get("auth", {})
    kind = target.auth.get("kind", "none")
    try:
        if kind == "basic":         # RFC 7617
            pair = f"{target.auth['username']}:{of_auth['password']}".encode()
            secret["Authorization"] = f"Basic {b64encode(pair).decode()}"
        elif kind == "bearer":      # RFC 6750, 2.1
            secret["Authorization"] = f"Bearer {of_auth['token']}"
        elif kind == "header":
            secret[target.auth["name"]] = of_auth["value"]
        elif kind == "oauth2":
            oauth = OAuth(target.auth["token_url"], target.auth["client_id"], of_auth["client_secret"],
                          target.auth.get("scope", ""))
    except KeyError as error:
        raise Unsendable(f"its target has no {error.args[0]}") from None
    signing = tuple(held.get("signing", ()))
    known = (*secret.values(), *of_auth.values(), *signing)
    meet(known)
    return Request(
        target.method, url, tuple(rules.overlaid(headers, secret).items()), body, target_id=target.pk, target=target.name,
        version=target.version, number=number, message_id=message_id(call), signing=signing,
        connect_timeout=settings.CONNECT_TIMEOUT if target.connect_timeout is None else target.connect_timeout,
        timeout=timeout(target.timeout),
        statuses=rules.statuses(target.statuses), contains=target.contains, not_contains=target.not_contains,
        follow_redirects=target.follow_redirects, secret_headers=frozenset(name.lower() for name in secret),
        secrets=tuple(value for value in dict.fromkeys(known) if value), oauth=oauth, delays=delays(call, target),
        max_age=age(target.max_age), repeatable=target.safe,
        keep_failures=target.keep_failures, keep_successes=target.keep_successes)


def message_id(call):
    """What tells a repetition of this call from another call, to whoever is called: the same at each attempt, and
    no other call's, of another database neither."""
    return f"call_{call.id}_{int(call.created_at.timestamp() * 1e6):x}"


@lru_cache(1000)
def _secrets(encrypted, keys):
    return decrypt(encrypted)
