"""What the API has of a failed attempt, and whether there is another: one table."""
from datetime import datetime, timedelta, timezone

import pytest

from scheduler.calls import outcomes
from scheduler.calls.outcomes import ANSWERED, NOTHING, REFUSED, UNKNOWN

pytestmark = pytest.mark.no_database
DUE = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)

# What happened: (sent, status, whether it is a success by its target's rules). What the API has. Whether it is made
# again if its target has retries; and if the target is repeatable, too.
TABLE = [
    ("no connection, no name, TLS failed", (False, None, False), NOTHING, True, True),
    ("cut off or no answer after sending", (True, None, False), UNKNOWN, False, True),
    *((f"HTTP status {status}", (True, status, False), REFUSED, True, True) for status in (429, 503)),
    *((f"HTTP status {status}", (True, status, False), UNKNOWN, False, True) for status in (408, 500, 502, 504)),
    *((f"HTTP status {status}", (True, status, False), ANSWERED, False, False)
      for status in (101, 200, 204, 302, 303, 304, 400, 401, 403, 404, 409, 410, 422, 425, 499, 501, 505, 507, 599)),
    *((f"a success with {status}", (True, status, True), "", False, False) for status in (200, 204, 302, 404, 500, 503)),
]


@pytest.mark.parametrize("what, happened, failure, again, again_if_repeatable", TABLE, ids=[row[0] for row in TABLE])
def test_table(what, happened, failure, again, again_if_repeatable):
    assert outcomes.classify(*happened) == failure
    for repeatable, expected in ((False, again), (True, again_if_repeatable)):
        assert (following(failure, repeatable=repeatable) is not None) == expected


def following(failure=NOTHING, number=1, now=DUE, expires_at=None, delays=(10, 60, 600), max_age=86400, repeatable=False,
              retry_after=None, chance=0.5):
    """Seconds from `now` to the next attempt, or None."""
    at = outcomes.next_attempt(
        failure, number, now, DUE, expires_at, delays, max_age, repeatable, retry_after, chance)
    return at and (at - now).total_seconds()


def test_the_delays_are_those_of_the_list_and_their_number_ends_it():
    assert [following(number=number) for number in (1, 2, 3, 4)] == [10, 60, 600, None]
    assert following(delays=()) is None


def test_a_delay_is_spread_by_a_fifth():
    assert [following(chance=chance) for chance in (0, 1)] == [8, 12]
    assert len({following(chance=None) for _ in range(50)}) > 40


def test_nothing_starts_after_the_greatest_age_or_when_it_is_of_no_use_any_more():
    late = DUE + timedelta(seconds=86390)
    assert following(now=late) == 10 and following(now=late, chance=1) is None
    assert following(expires_at=DUE + timedelta(seconds=10)) == 10
    assert following(expires_at=DUE + timedelta(seconds=9)) is None
    assert following(now=late, expires_at=DUE + timedelta(days=2), chance=1) is None


@pytest.mark.parametrize("asked, chance, seconds", [
    (None, 0.5, 10), (0, 0.5, 10), (5, 0.5, 10),        # never before the delay
    (15, 0, 15), (15, 1, 18),                           # not before it was told to, and not all at the same moment
    (20, 0.5, 20), (3600, 0.5, 20), (3600, 1, 24),      # nor after twice the delay
])
def test_retry_after_counts_between_once_and_twice_the_delay(asked, chance, seconds):
    for failure in (REFUSED, NOTHING):
        assert following(failure, retry_after=asked, chance=chance) == pytest.approx(seconds)


@pytest.mark.parametrize("value, seconds", [
    ("120", 120), (" 120 ", 120), ("0", 0), ("Thu, 01 Jan 2026 12:01:30 GMT", 90),
    ("Thursday, 01-Jan-26 12:01:30 GMT", 90), ("Thu Jan  1 12:01:30 2026", 90),     # what RFC 9110, 5.6.7 knows beside
    ("Thu, 01 Jan 2026 12:00:00 GMT", 0),
    # negative, absurd, or nothing
    ("-5", None), ("Thu, 01 Jan 2026 11:59:59 GMT", None), ("Fri, 31 Dec 9999 23:59:59 GMT", None),
    ("99999999999999999999", None), ("40000000", None), ("1e3", None), ("1.5", None), ("soon", None), ("", None),
    ("Thu, 99 Jan 2026 12:00:00 GMT", None), ("\u0661\u0662", None), (None, None),
])
def test_what_retry_after_says(value, seconds):
    assert outcomes.retry_after(value, DUE) == seconds


def test_people_are_told_where_nobody_knows():
    assert outcomes.in_words(UNKNOWN, "HTTP status 500", repeatable=False) == "outcome unknown: HTTP status 500"
    assert outcomes.in_words(UNKNOWN, "HTTP status 500", repeatable=True) == "HTTP status 500"
    assert outcomes.in_words(ANSWERED, "HTTP status 400", repeatable=False) == "HTTP status 400"
