"""One call of the API with requests, on time, once, and over within TIMEOUT.

requests alone bounds the wait for each read, so that a server that sends a byte now and then can
hold a call for ever. Here the connection that an attempt uses is known, and `Attempt.check` cuts it.

A call connects before it is anybody's: its thread then stands at a gate, one step from sending, until
the worker has won the row (worker.py). So a claim is followed by the request at once, and a burst's
connections, with their TLS, are made before it is due.
"""
import errno
import socket
import threading
from datetime import datetime, timedelta
from typing import NamedTuple, Optional
from urllib.parse import urlsplit

import requests
from django.conf import settings

from ..base.clock import steady, utcnow
from ..base.words import printable, redacted
from ..models import ScheduledCall
from .request import default
from .connection import Refused, Stale, TooLate, current, drain, shared

Status = ScheduledCall.Status

# EAI_MEMORY and EAI_SYSTEM: looking up a name needs files and memory too.
NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM}


class Outcome(NamedTuple):
    """How a call ended. `started_at` is when its request was about to be sent, None if none was."""

    id: int
    timestamp: datetime
    status: str
    started_at: Optional[datetime]
    ended_at: datetime
    http_status: Optional[int]
    error: str
    failure: str = ""
    retry_after: float = None
    number: int = 1
    target_id: int = None
    version: int = 0
    kept: dict = None


class Attempt:
    """One HTTP exchange for a call, on its way: `make` runs in a thread of its own, while the worker calls
    `check` now and then, and `grant` or `refuse` once it knows whose the call is. Whoever is first to say how
    it ended is believed; `outcome` is None until then.

    Attributes to read: `outcome`; `sent_at`, the aware datetime at which its request was about to be
    sent, or None; `unsent`, that it was granted, and will certainly never be sent; `no_room`, why it ended
    without an outcome although it may be made: this machine had no more room for it (str, "" if it had).
    """

    def __init__(self, call_id, timestamp, request=None, tell=lambda attempt: None, others=lambda: False, last=None, at=None):
        """call_id: int; timestamp: aware datetime, when its call is due
        request: a Request, default() for none
        last, at: aware datetimes: what is not sent by `last` is not sent at all (due + GRACE for None): the call is
            Missed, but after a first attempt this one is `unsent` then; and what it is not sent before, for None the due
            time (it may be a later attempt, or its target's rate may give it a later instant)
        tell(attempt): called from its thread when it may be claimed, as it stands at the gate or
            has ended; when its request is about to be sent; and when it has ended.
        others(): whether there are other calls, soon to come, that could use its connection."""
        self.id = call_id
        self.request = request or default()
        self.at = at or timestamp
        self.last = last or timestamp + timedelta(seconds=settings.GRACE)
        self.timestamp = timestamp
        self.outcome = self.sent_at = self.token = self.lease_end = None
        self.unsent = False
        self.others = others
        self.no_room = ""
        self._tell = tell
        self._gate = threading.Event()
        self._refused = False
        self._at_gate = False
        self._deadline = None           # by steady(), and once it has begun
        self._connection = self._socket = None
        self._lock = threading.Lock()

    def grant(self, token, lease_end):
        """It is this worker's, and may be sent.

        token: str, what it was claimed with
        lease_end: until when, by steady(); nothing is sent after it. May be set anew later.
        """
        self.token, self.lease_end = token, lease_end
        self._gate.set()

    def refuse(self):
        """It is somebody else's, or nobody's any more."""
        self._refused = True
        self._gate.set()

    def make(self):
        """Makes the call, unless it is refused or its grace time is over. Never raises."""
        self._deadline = steady() + settings.TIMEOUT + max(0.0, self._early())
        current.attempt = self
        try:
            while not self._try():
                pass
        except TooLate:
            self.unsent = self.sent_at is None and self.outcome is None
            if not self.unsent:
                self._end(Status.FAILED, error="given up: its worker was suspended for longer than its lease")
        except Exception as error:      # whatever it is, the call has ended, and is to be accounted for
            if self.sent_at is None and lacks_room(error):
                self.no_room, self.unsent = reason(error), True
            else:
                self._end(Status.FAILED, error=reason(error))
        finally:
            current.attempt = None
            self._tell(self)

    def _try(self):
        """Returns whether it has ended. Raises what went wrong, if there is no time for another try."""
        try:
            session, prepared, options = shared()
            with session.send(prepared.copy(), **options) as response:
                drain(response, settings.BODY_LIMIT)
                code = response.status_code
            if 200 <= code < 400:
                self._end(Status.SUCCEEDED, code)
            else:
                self._end(Status.FAILED, code, f"HTTP status {code}")
        except Stale:
            return False
        except TooLate:
            raise
        except Exception:
            early = self._early()
            if early <= 0 or self.sent_at or self.outcome:
                raise
            self._gate.wait(early)      # no connection before it was due: what counts is whether there is one then
            return self._refused
        return True

    def check(self):
        """Ends the call if it has taken more than TIMEOUT."""
        with self._lock:
            if self.outcome or self._deadline is None or self._at_gate or steady() < self._deadline:
                return
            self._end_locked(
                Status.FAILED, error=f"no complete answer within {settings.TIMEOUT:g} s")
        self._tell(self)
        # Its thread comes free when its connection is cut.
        for sock in (self._socket, getattr(self._connection, "sock", None)):
            if sock is not None:
                try:
                    # What urllib3 makes of TLS through a proxy's TLS is no socket, and has one.
                    socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)
                except OSError:
                    pass                # closed already

    def uses(self, connection):
        """Called by the connection that is made for this call. Raises TooLate when the call has ended
        in the meantime."""
        self._connection, self._socket = connection, connection.sock
        if self.outcome or self._refused:
            raise TooLate

    def pass_gate(self, connection):
        """Called by the connection at the last moment before the request goes out: returns once it
        may, and raises TooLate if it must not, and Stale if not over this connection."""
        self.uses(connection)
        if not self._gate.is_set():
            stood = steady()
            self._at_gate = True
            self._tell(self)
            self._gate.wait()
            self._deadline += steady() - stood      # it did nothing in that time
            self._at_gate = False
        if not connection.clean():
            raise Stale
        with self._lock:
            now = steady()
            if self.outcome or self._refused or now >= self.lease_end or self._miss():
                raise TooLate
            if not connection.lasts(now):
                raise Stale
            first = self.sent_at is None
            if first:
                self.sent_at = utcnow()
        if first:
            self._tell(self)

    def leaves(self):
        """Called by the connection when the answer has ended. Returns whether another call may have it: not if
        this one was ended in the meantime, as `check` may be about to cut the connection."""
        with self._lock:
            if self.outcome:
                return False
            self._connection = self._socket = None
        return True

    def idle_until_due(self):
        """Seconds that a connection must still be good for before anything is sent on it."""
        return max(0.0, self._early())

    def _early(self):
        return (self.at - utcnow()).total_seconds()

    def _miss(self):
        """Ends it, and says so, if it could not start within GRACE."""
        late = self.sent_at is None and utcnow() > self.last
        if late and self.request.number == 1:
            self._end_locked(Status.MISSED, error=f"not started within {(self.last - self.timestamp).total_seconds():g} s of its time")
        return late

    def fail(self, words):
        """Ends it before it has begun, as nothing can be sent for it: `make` is not called."""
        self._end(Status.FAILED, error=words)

    def _end(self, *args, **kwargs):
        with self._lock:
            if self.outcome is None:
                self._end_locked(*args, **kwargs)

    def _end_locked(self, status, http_status=None, error=""):
        self.outcome = Outcome(self.id, self.timestamp, status, self.sent_at, utcnow(),
                               http_status, printable(error))


def cause_of(error):
    """The exception that says what really happened, below those that others made of it."""
    cause = error
    while True:
        inner = getattr(cause, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((a for a in cause.args if isinstance(a, BaseException)), cause.__cause__)
        if inner is None or inner is cause:
            return cause
        cause = inner


def lacks_room(error):
    """Whether it is this machine that could not, for now: no more open files, ports, memory or threads."""
    cause = cause_of(error)
    return (isinstance(cause, MemoryError)
            or isinstance(cause, RuntimeError) and "can't start new thread" in str(cause)
            or isinstance(cause, OSError) and cause.errno in NO_ROOM)


def reason(error):
    """Why a call failed, in words for its log line: str. It holds no more of the URL than a host
    name, as the rest may hold a password."""
    cause = cause_of(error)
    host = urlsplit(getattr(getattr(error, "request", None), "url", None) or "").hostname or "the host"
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {settings.CONNECT_TIMEOUT:g} s"
    if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
        return f"no answer within {settings.TIMEOUT:g} s"
    if isinstance(error, requests.TooManyRedirects):
        return "too many redirects"
    if isinstance(error, (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL,
                          requests.exceptions.MissingSchema)):
        return "redirected to something that is not an http or https URL"
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS: {getattr(cause, 'verify_message', '') or getattr(cause, 'reason', '') or cause}"
    if isinstance(cause, OSError) and type(cause).__name__ == "gaierror":
        return f"could not resolve {host}: {cause.strerror}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    text = str(cause) or type(cause).__name__
    return redacted(text)
