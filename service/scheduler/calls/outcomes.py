"""What a failed attempt means: what the API has of it, and whether there is another. No clock, no database: what is
decided goes by what is given.

| what happened | the class | another attempt, if the target has delays left |
| --- | --- | --- |
| no such host, refused, no connection in time, TLS failed, no token, an address that is not allowed | nothing | yes |
| 429, 503 | refused | yes, not before Retry-After |
| cut off or no answer after sending, half an answer, 408, 500, 502, 504, worker lost | unknown | only if it is repeatable |
| any other status, or an answer that is no success | answered | no |
"""
import random
import re
from datetime import timedelta, timezone
from email.utils import parsedate_to_datetime

NOTHING, REFUSED, UNKNOWN, ANSWERED = "nothing", "refused", "unknown", "answered"
OUTCOME_UNKNOWN = "outcome unknown"         # in the error of a call that the API has perhaps done: people are told of it at once

REFUSALS = {429, 503}                       # it was not even tried (RFC 6585, 4; RFC 9110, 15.6.4)
MAYBE = {408, 500, 502, 504}                # it was begun, or a server between does not know how it ended
SPREAD = 0.2                                # of a delay, up or down, so that a thousand do not come back together
RETRY_AFTER_MAX = 366 * 86400               # seconds; a server that says more does not mean it


def classify(sent, status=None, good=False):
    """The class of an attempt that has ended: str, "" for a success.

    sent: whether a byte of the request may have reached an API that acts on it
    status: int, of the whole answer; None if there was none, or half of one
    good: whether the answer is a success, by its target's rules
    """
    if status is None:
        return UNKNOWN if sent else NOTHING
    if good:
        return ""
    if status in REFUSALS:
        return REFUSED
    return UNKNOWN if status in MAYBE else ANSWERED


def next_attempt(failure, number, now, due, expires_at, delays, max_age, repeatable, retry_after=None, chance=None):
    """When there is another attempt, an aware datetime, or None: not at all.

    failure, number: of the attempt that has ended, its class and its number from 1
    now: aware datetime, when it ended
    due, expires_at: aware datetimes of the call, the latter or None
    delays: seconds before the second attempt, the third and so on
    max_age: seconds after `due` in which an attempt may start
    repeatable: whether the request may be made again although it was perhaps done
    retry_after: seconds that the API asked for, or None
    chance: from 0 to 1, where in its spread the delay is; None: anywhere
    """
    if number > len(delays) or failure not in (NOTHING, REFUSED) and not (failure == UNKNOWN and repeatable):
        return None
    chance = random.random() if chance is None else chance
    delay = delays[number - 1] * (1 - SPREAD + 2 * SPREAD * chance)
    if retry_after is not None:             # nor do they all come back at the second that they were told
        delay = max(delay, min(retry_after * (1 + SPREAD * chance), 2 * delay))
    at = now + timedelta(seconds=delay)
    last = due + timedelta(seconds=max_age)
    return at if at <= (min(last, expires_at) if expires_at else last) else None


def retry_after(value, now):
    """The seconds that a Retry-After says (RFC 9110, 10.2.3): float, None if it says nothing that can be meant.

    value: str, a number of seconds or a date, or None; now: aware datetime
    """
    value = (value or "").strip()
    if re.fullmatch("[0-9]{1,15}", value):
        seconds = float(value)
    else:
        try:
            at = parsedate_to_datetime(value)
            seconds = ((at if at.tzinfo else at.replace(tzinfo=timezone.utc)) - now).total_seconds()
        except (ValueError, OverflowError, TypeError, IndexError):
            return None
    return seconds if 0 <= seconds <= RETRY_AFTER_MAX else None


def in_words(failure, error, repeatable):
    """`error` of an attempt, with what people have to be told: that nobody knows whether the API has done it."""
    return f"{OUTCOME_UNKNOWN}: {error}" if failure == UNKNOWN and not repeatable else error
