"""The log of calls: exactly one line for each call that ended, in the form of the script's log.

    2025-10-08 12:30:00: Successfully called API at https://ifconfig.co
    2025-10-08 12:30:00: Failed to call API at https://ifconfig.co (HTTP status 503)
    2025-10-08 12:31:01: Missed call to API at https://ifconfig.co (due 2025-10-08 12:30:00)
    2025-10-08 12:29:00: Cancelled call to API at https://ifconfig.co (due 2025-10-08 12:30:00)

With the name of the target, where the call names one, in place of "at" and API_URL: "Successfully called API billing",
and one for what fell due while no dispatcher ran, too long ago for a line each:

    2025-10-08 12:30:00: Missed 96 calls to API at https://ifconfig.co (of schedule "nightly", due before 2025-10-06 12:30:00)

The stamp is the second in which the call was fired (or given up), in the zone TIME_ZONE.
"""
import logging
import os
import threading
from functools import cache

from django.conf import settings
from django.utils import timezone

from ..base.words import in_line, printable, redacted
from ..models import ScheduledCall

logger = logging.getLogger(__name__)
_lock = threading.Lock()
_torn = False               # this process left half a line at the end of the file


@cache
def _api(url, target=None):
    return f"API {target}" if target else f"API at {printable(redacted(url))}"


def _stamp(at):
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}"


def line(status, due, at, error="", target=None):
    """One line of the log, with its newline.

    status: how the call ended, a ScheduledCall.Status
    due, at: aware datetimes, when it should have been made and when it was (or was given up)
    error: why it failed
    target: the name of its target, None for API_URL
    """
    api = _api(settings.API_URL, target)
    if status == ScheduledCall.Status.SUCCEEDED:
        text = f"Successfully called {api}"
    elif status == ScheduledCall.Status.FAILED:
        text = f"Failed to call {api} ({printable(error)})"
    else:
        text = f"{status} call to {api} (due {_stamp(due)})"
    return f"{_stamp(at)}: {text}\n"


def hole(number, schedule, before, at, target=None):
    """The line of occurrences that nobody planned, and that have no row.

    number: str, how many; schedule: str, its name
    before, at: aware datetimes, when the last of them was due, about, and when it was found
    target: the name of their target, None for API_URL
    """
    return (f"{_stamp(at)}: Missed {number} calls to {_api(settings.API_URL, target)} (of schedule "
            f"\"{in_line(schedule)}\", due before {_stamp(before)})\n")


def write(lines):
    """Append `lines`, each with its newline, to CALL_LOG in one write, so that many processes can
    share the file; it is opened anew each time, so that it may be rotated away at any moment.

    Never raises OSError. The outcomes are in the database by then, and a full disk must not undo
    that: lines that cannot be written go to the process's own error output instead.
    """
    global _torn
    data = "".join(lines).encode()
    with _lock:
        written = 0
        try:
            settings.CALL_LOG.parent.mkdir(0o700, parents=True, exist_ok=True)
            fd = os.open(settings.CALL_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if _torn:
                    data = b"\n" + data
                while written < len(data):
                    written += os.write(fd, data[written:])
                _torn = False
            finally:
                os.close(fd)
        except OSError as error:
            if written:
                _torn = data[written - 1:written] != b"\n"
            lost = data[data.rfind(b"\n", 0, written) + 1:].decode(errors="replace")
            logger.error("cannot write to %s: %s. The outcomes are in the database; the lines %s", settings.CALL_LOG,
                         error.strerror, "are:\n" + lost.rstrip("\n") if lost else "come here")
