"""`manage.py call`, for those who have no curl: what it takes, and what it says of what it does not. (How it waits:
test_up.py. What is due in half a minute is given to no broker yet.)"""
import threading
from contextlib import closing, suppress
from datetime import datetime, timedelta, timezone
from io import StringIO

import pytest
from conftest import in_seconds, until
from django.core.management import CommandError, call_command
from django.db import connection

from scheduler.models import ScheduledCall, Target


@pytest.fixture(autouse=True)
def billing():
    Target.objects.create(name="billing", url="https://api.example.org/v1", method="POST")


def call(*arguments):
    """(the ScheduledCall, what was said)"""
    out = StringIO()
    call_command("call", *arguments, "--no-wait", stdout=out)
    return ScheduledCall.objects.select_related("request", "target").latest("id"), out.getvalue()


@pytest.mark.parametrize("when, seconds", [("+30s", 30), ("+5m", 300), ("+1h30m", 5400), ("+2d", 172800), ("+20.5s", 20.5)])
def test_it_counts_from_now(when, seconds):
    before = datetime.now(timezone.utc)
    made, said = call(when)
    assert timedelta(0) <= made.timestamp - before - timedelta(seconds=seconds) < timedelta(seconds=5)
    assert f"Call {made.id} is due at {made.due}" in said and "No dispatcher has run of late" in said
    assert made.scheduled_via == "command" and made.target is None


def test_it_takes_a_time_of_the_calendar():
    due = in_seconds(100).replace(microsecond=0)
    assert call(due.isoformat())[0].timestamp == call(f"{due:%Y-%m-%d %H:%M:%S}")[0].timestamp == due


def test_it_takes_what_is_sent():
    made, _ = call("+30s", "--target", "billing", "--body", '{"invoice": 7}', "--header", "X-Run: 1:2", "--note", "the first")
    assert made.target.name == "billing" and made.note == "the first"
    assert made.request.body == '{"invoice": 7}', "as it was typed"
    assert made.request.headers == {"X-Run": "1:2", "Content-Type": "application/json"}
    made, _ = call("+30s", "--target", "billing", "--body", "text of {{data.who}}", "--data", '{"who": "Ann"}')
    assert made.request.headers == {"Content-Type": "text/plain; charset=utf-8"} and made.request.data == {"who": "Ann"}
    Target.objects.update(headers={"content-type": "application/xml"})
    assert call("+30s", "--target", "billing", "--body", "<a/>")[0].request.headers == {}
    Target.objects.update(deleted_at=datetime.now(timezone.utc))
    Target.objects.create(name="billing", url="https://api.example.org/v2", method="POST")
    made, _ = call("+30s", "--target", "billing", "--body", "{}")
    assert made.request.headers == {"Content-Type": "application/json"}, "whatever one says that is deleted"


@pytest.mark.parametrize("arguments, says", [
    (["soon"], "soon is not a date and time"),
    (["+"], "+ is no delay such as +10s"),
    (["+5x"], "no delay such as"),
    (["2020-01-01T00:00:00Z"], "That time is past"),
    (["9999-12-31T00:00:00Z"], "too far ahead"),
    (["+9999999d"], "no delay such as"),
    (["+30s", "--target", "nobody"], "nobody"),
    (["+30s", "--body", "x"], "target"),
    (["+30s", "--target", "billing", "--header", "X"], "X-Name: value"),
    (["+30s", "--target", "billing", "--header", "X-A: 1", "--header", "X-A: 2"], "stands twice"),
    (["+30s", "--target", "billing", "--data", "{"], "--data is no JSON"),
    (["+30s", "--target", "billing", "--data", '{"a": 1, "a": 2}'], 'The key "a" stands twice'),
    (["+30s", "--target", "billing", "--data", "[" * 100_000], "--data is no JSON"),
    (["+30s", "--target", "billing", "--body", "{{call.nothing}}"], "call.nothing"),
    (["+30s", "--note", "two\nlines"], "note"),
])
def test_what_it_does_not_take(arguments, says):
    with pytest.raises(CommandError) as error:
        call(*arguments)
    assert says in str(error.value) and not ScheduledCall.objects.exists()


@pytest.mark.processes
def test_who_waits_in_vain_is_told_so_and_who_waits_a_moment_is_not():
    """A service that is only starting needs some seconds until its first tick."""
    out = StringIO()

    def run():
        with suppress(SystemExit), closing(connection):
            call_command("call", "now", stdout=out)
    waits = threading.Thread(target=run, daemon=True)
    waits.start()
    until(ScheduledCall.objects.exists)
    assert "No dispatcher" not in out.getvalue()
    until(lambda: "No dispatcher has run of late" in out.getvalue())
    ScheduledCall.objects.update(status="Retrying", attempts_made=1, error="HTTP status 503", next_attempt_at=in_seconds(600))
    until(lambda: "Attempt 1 failed: HTTP status 503. The next is at 2" in out.getvalue())
    ScheduledCall.objects.update(status="Succeeded", error="")
    waits.join(10)
    assert out.getvalue().count("No dispatcher") == 1 and "Succeeded" in out.getvalue()
