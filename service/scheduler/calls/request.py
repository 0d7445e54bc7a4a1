"""What is sent for a call, and by what its answer is judged: all that an attempt has to know of a target.

A call that names no target is a GET of API_URL, `default()`. For one that does, `build` puts together what its target,
its schedule and the call itself say, fills in the placeholders (template.py), and adds the secrets.
"""
from dataclasses import dataclass
from functools import cache
from typing import Optional

from django.conf import settings


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
    max_age: float = 86400.0            # seconds
    repeatable: bool = False
    max_at_once: Optional[int] = None
    rate: Optional[tuple] = None        # (number, seconds)
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

    call: has id, timestamp (due), created_at and note, as a ScheduledCall
    target: the Target
    own: its CallRequest, or None
    schedule: its Schedule, or None; what that says of body, headers and data counts when `own` is None
    number: int, of the attempt, from 1
    Raises Unsendable.
    """
    raise NotImplementedError
