"""`python3 manage.py call now`: schedules one call, and says how it ended."""
import re
import sys
import time
from datetime import timedelta

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection, transaction

from scheduler.api import new_calls
from scheduler.api.errors import Refusal
from scheduler.base.clock import utcnow
from scheduler.base.moments import from_person, moment
from scheduler.base.words import printable
from scheduler.calls import dispatch, ledger, targets
from scheduler.models import ScheduledCall, Target, rules

WAITED_FOR = 60         # seconds: who schedules a call for later than that does not wait for it
SILENT = 30             # seconds without a tick: it seems that nobody makes calls
STARTS = 5              # seconds for which the service may only be starting


class Command(BaseCommand):
    help = "Schedules one call. Waits, if it is due within a minute, and says how it ended; the status is 1 if not well."

    def add_arguments(self, parser):
        parser.add_argument("when", metavar="WHEN", help="now, +10s, +5m, +1h30m, or a date and time: 2026-08-01T14:30:00Z, "
                                                         "or without an offset in TIME_ZONE")
        parser.add_argument("--target", metavar="NAME", help="what is called; without it API_URL, with GET")
        parser.add_argument("--body", metavar="TEXT", help="instead of the target's: JSON, or a text if its Content-Type says other")
        parser.add_argument("--header", action="append", metavar="'NAME: VALUE'", default=[],
                            help="beside the target's; may be given several times")
        parser.add_argument("--data", metavar="JSON", help="what {{data.KEY}} stands for: an object")
        parser.add_argument("--note", default="", help="what it is for, in one line")
        parser.add_argument("--no-wait", action="store_true", help="ends once the call is scheduled")

    def handle(self, *, when, no_wait, **options):
        delay = delay_of(when)
        call = self.scheduled({"delay": delay.total_seconds()} if delay is not None else {"timestamps": instant(when)}, options)
        soon = call.timestamp <= utcnow() + timedelta(seconds=WAITED_FOR)
        self.stdout.write(f"Call {call.id} is due at {call.due}.")
        self.stdout.flush()
        if soon and not no_wait:
            sys.exit(self.wait(call.id))
        self.say_if_nobody_is_there()

    def say_if_nobody_is_there(self):
        age = dispatch.since_beat()
        if age is None or age > SILENT:
            self.stdout.write("No dispatcher has run of late: is the service up (python3 manage.py up)?")
            self.stdout.flush()

    def scheduled(self, asked, options):
        """The ScheduledCall that was made. Raises CommandError, saying what to mend."""
        for key in ("target", "note"):
            if options[key]:
                asked[key] = options[key]
        if options["header"]:
            headers = [header(text) for text in options["header"]]
            asked["headers"] = dict(headers)
            if len(asked["headers"]) < len(headers):
                raise CommandError("--header: a name stands twice; which is meant?")
        if options["data"]:
            asked["data"] = parsed(options["data"], "--data")
        if options["body"] is not None:
            asked = with_type({**asked, "body": options["body"]})
        try:
            wanted = new_calls.read(asked).calls(utcnow(), lambda: None)
        except Refusal as error:
            raise CommandError(str(error.detail["detail"]).replace("`timestamps`", "WHEN"))
        if not wanted:
            raise CommandError(f"That time is past: it is now {moment(utcnow())}.")
        try:
            with transaction.atomic():
                call, = ledger.schedule(calls=[new for _, new in wanted], via="command")
                dispatch.created([call])
        except Target.DoesNotExist as error:
            raise CommandError(f"{error} Nothing was scheduled.")
        return call

    def wait(self, call_id):
        """Waits until the call has ended, and says how, and of each attempt before the last. Returns the exit status."""
        ask_at, told = time.monotonic() + STARTS, 0
        try:
            while True:
                try:
                    call = ScheduledCall.objects.get(id=call_id)
                    if call.status in ScheduledCall.FINISHED:
                        break
                    if call.status == ScheduledCall.Status.RETRYING and call.attempts_made != told:
                        told = call.attempts_made
                        self.stdout.write(f"Attempt {told} failed: {printable(call.error)}. The next is at {moment(call.next_attempt_at)}.")
                        self.stdout.flush()
                    if ask_at is not None and time.monotonic() > ask_at:
                        ask_at = None
                        self.say_if_nobody_is_there()
                except OperationalError:
                    connection.close()          # the service waits for it as well
                time.sleep(0.05)
        except KeyboardInterrupt:
            self.stdout.write(f"\nCall {call_id} stays scheduled.")
            return 130
        late = [] if call.lateness is None else [f"{call.lateness * 1000:.0f} ms after its time"]
        why = call.error or call.http_status and f"HTTP status {call.http_status}"
        self.stdout.write(f"{call.status}: " + ", ".join([*filter(None, [why and printable(why)]), *late]))
        return 0 if call.status == ScheduledCall.Status.SUCCEEDED else 1


def delay_of(when):
    """The timedelta that "now" and "+1h30m" name, None if it is a time. Raises CommandError."""
    if when == "now":
        return timedelta(0)
    if not when.startswith("+"):
        return None
    parts = re.fullmatch(r"\+(?=.)(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6}(?:\.\d{1,3})?)s)?", when, re.ASCII)
    if not parts:
        raise CommandError(f"{printable(when)} is no delay such as +10s, +5m or +1h30m.")
    return timedelta(**dict(zip(("days", "hours", "minutes", "seconds"), (float(part or 0) for part in parts.groups()))))


def instant(when):
    """The time that a person wrote, as the API takes it. Raises CommandError."""
    try:
        return from_person(when).isoformat()
    except ValueError as error:
        raise CommandError(f"{printable(when)} {error} (or now, or +10s).")


def header(text):
    """(name, value). Raises CommandError."""
    name, colon, value = text.partition(":")
    if not colon:
        raise CommandError(f"--header {printable(text)}: write it as in 'X-Name: value'.")
    return name.strip(), value.strip()


def parsed(text, name):
    """What the JSON says. Raises CommandError."""
    try:
        return rules.parsed(text)
    except ValueError as error:
        raise CommandError(f"{name} is no JSON: {error}.")


def with_type(asked):
    """`asked` with a Content-Type for its body, if it and the target name none: JSON if it is."""
    headers = asked.get("headers", {})
    target = targets.there().filter(name=asked.get("target")).first()
    if target and not rules.content_type({**target.headers, **headers}):
        try:
            rules.parsed(asked["body"])
            kind = "application/json"
        except ValueError:
            kind = "text/plain; charset=utf-8"
        asked["headers"] = {**headers, "Content-Type": kind}
    return asked
