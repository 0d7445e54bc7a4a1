"""One HTTP exchange for a call, with requests: on time, at most once, and over within its timeout.

requests alone bounds the wait for each read, so that a server that sends a byte now and then can
hold a call for ever. Here the connection that an attempt uses is known, and `Attempt.check` cuts it.

A call connects before it is anybody's: its thread then stands at a gate, one step from sending, until
the worker has won the row (worker.py). So a claim is followed by the request at once, and a burst's
connections, with their TLS, are made before it is due.
"""
import errno
import re
import socket
import threading
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple, Optional
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from django.conf import settings
from requests.exceptions import InvalidHeader, InvalidSchema, InvalidURL, MissingSchema
from requests.models import DEFAULT_REDIRECT_LIMIT

from ..base.clock import steady, utcnow
from ..base.words import printable, redacted
from ..models import ScheduledCall, Target, rules
from . import auth, kept, outcomes
from .answer import BadAnswer
from .connection import NotFollowed, Stale, TooLate, current, drain, guarded, shared
from .request import Unsendable, default

Status = ScheduledCall.Status

FOLLOWED = (301, 302, 307, 308)         # with method and body; what answers 303 to another than a safe one has done it
NOT_DONE = (307, 308)                   # says for certain that it was not done (RFC 9110, 15.4.8)

_VALUE = re.compile("[^\0-\x08\x0a-\x1f\x7f]*")         # without what ends a line or a server may take for that

# EAI_MEMORY and EAI_SYSTEM: looking up a name needs files and memory too.
NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM}


class Outcome(NamedTuple):
    """How an attempt ended.

    started_at: when its request was about to be sent, None if none was
    failure: what the API has of it, a class of outcomes.py; "" for a success, and where nothing was tried
    retry_after: seconds that the API asked for, or None
    kept: dict, what is kept of it (see models.Attempt), or None
    """

    id: int
    timestamp: datetime
    status: str
    started_at: Optional[datetime]
    ended_at: datetime
    http_status: Optional[int]
    error: str
    failure: str = ""
    retry_after: Optional[float] = None
    number: int = 1
    target_id: Optional[int] = None
    target: str = ""
    version: int = 0
    kept: Optional[dict] = None


class Attempt:
    """One HTTP exchange for a call, on its way: `make` runs in a thread of its own, while the worker calls
    `check` now and then, and `grant` or `refuse` once it knows whose the call is. Whoever is first to say how
    it ended is believed; `outcome` is None until then.

    Attributes to read: `outcome`; `sent_at`, the aware datetime at which its request was about to be
    sent, or None; `unsent`, that it was granted, and will certainly never be sent; `no_room`, why it ended
    without an outcome although it may be made: this machine had no more room for it (str, "" if it had).
    """

    def __init__(self, call_id, timestamp, request=None, tell=lambda attempt: None, others=lambda: False, last=None,
                 at=None):
        """call_id: int; timestamp: aware datetime, when the call is due
        request: Request; that of a call without a target if it is None
        tell(attempt): called from its thread when it may be claimed, as it stands at the gate or
            has ended; when its request is about to be sent; and when it has ended.
        others(): whether there are other calls, soon to come, that could use its connection
        last: aware datetime after which it is not begun; GRACE after `timestamp` if it is None
        at: aware datetime, when it is to be sent; `timestamp` if it is None"""
        self.id = call_id
        self.timestamp = timestamp
        self.request = request or default()
        self._at = at or timestamp
        self._last = last or timestamp + timedelta(seconds=settings.GRACE)
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
        self._token = None              # of OAuth
        self._begin()

    def _begin(self):
        """Nothing has happened, or nothing that counts."""
        self._hop_sent = False          # the request was, that is now under way: at a redirect there is another
        self._perhaps = False           # one before it was, and may have been done
        self._phases, self._since = Counter(), None     # seconds; by steady(), when the phase began that lasts
        self._address = self._sent = self._received = None

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
        self._deadline = steady() + self.request.timeout + max(0.0, self._early())
        current.attempt = self
        try:
            while not self._try():
                pass
        except TooLate:
            self.unsent = self.sent_at is None and self.outcome is None
            if not self.unsent:
                self._end(Status.FAILED, error="given up: its worker was suspended for longer than its lease")
        except Exception as error:      # whatever it is, the call has ended, and is to be accounted for
            words = reason(error, self.request, self._hop_sent)
            if self.sent_at is None and lacks_room(error):
                self.no_room, self.unsent = words, True
            else:
                answered = isinstance(error, AN_ANSWER) and self.sent_at is not None
                self._end(Status.FAILED, error=words, failure=outcomes.ANSWERED if answered else None)
        finally:
            current.attempt = None
            self._tell(self)

    def fail(self, words):
        """Ends it before it has begun: nothing can be sent, and `words` say why."""
        self._end(Status.FAILED, error=words)

    def _try(self):
        """Returns whether it has ended. Raises what went wrong, if there is no time for another try."""
        self._begin()
        try:
            with self._ask() as response:
                self._judge(response)
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

    def _ask(self):
        """The Response that is the answer, its body not read yet. Raises what went wrong."""
        request = self.request
        if not request.guarded:
            session, prepared, options = shared()
            return session.send(prepared.copy(), **options)
        if request.oauth:
            self._token = auth.token(request)
        response = self._follow()
        if response.status_code == 401 and self._token and not self._elsewhere:     # it was not let in
            response.close()
            self._hop_sent = False
            self._token = auth.token(request, stale=self._token)
            response = self._follow()
        return response

    def _follow(self):
        """Sends the request, and again where the answer says that it belongs elsewhere."""
        adapter, options = guarded()
        url, self._elsewhere = self.request.url, False
        for _ in range(DEFAULT_REDIRECT_LIMIT + 1):
            prepared = self._prepared(url)
            response = adapter.send(prepared, timeout=(self.request.connect_timeout, self.request.timeout), **options)
            target = self._location(response, url)
            if target is None:
                return response
            with response:
                if not drain(response, settings.BODY_LIMIT + 1)[1]:
                    raise NotFollowed(f"a redirect with a body of more than {settings.BODY_LIMIT} bytes")
            if self.request.method not in Target.SAFE and response.status_code not in NOT_DONE:
                self._perhaps = True
            self._hop_sent = False
            # Once it was elsewhere, whoever sent it back could choose what is done with the secrets.
            self._elsewhere = self._elsewhere or rules.origin(target) != rules.origin(url)
            url = target
        raise requests.TooManyRedirects

    def _location(self, response, url):
        """The URL at which the request goes on, or None: this is the answer."""
        followed = response.status_code in FOLLOWED or response.status_code == 303 and self.request.method in Target.SAFE
        location = self.request.follow_redirects and followed and response.headers.get("Location")
        if not location:
            return None
        try:
            target = urlsplit(urljoin(url, location.encode("latin-1").decode(errors="replace")))
            if target.scheme not in ("http", "https") or not target.hostname or target.port == 0:
                raise ValueError
        except ValueError:
            raise InvalidURL from None
        return urlunsplit(target._replace(netloc=target.netloc.rpartition("@")[2], fragment=""))

    def _prepared(self, url):
        """The request as it goes to `url`: a PreparedRequest. Raises Unsendable."""
        request = self.request
        headers = list(request.headers)
        if self._token:
            headers.append(("Authorization", f"Bearer {self._token}"))
        headers += auth.signed(request, max(utcnow(), self._at))
        secret = request.secret_headers | {"authorization", "cookie", "webhook-signature"}
        if self._elsewhere:
            headers = [(name, value) for name, value in headers if name.lower() not in secret]
        if not any(name.lower() == "user-agent" for name, _ in headers):
            headers.append(("User-Agent", "api-scheduler"))
        for name, value in headers:     # checked when they were saved, but for what was filled in since
            if not rules.TOKEN.fullmatch(name) or name.lower() in rules.OF_CONNECTION or not _VALUE.fullmatch(value):
                raise Unsendable(f"the header {printable(name, 80)} cannot be sent as it is")
        self._sent = url, [(name, "***" if name.lower() in secret else value) for name, value in headers]
        # In UTF-8: http.client writes a header in Latin-1, byte for byte.
        return requests.Request(request.method, url, {
            name: value.strip().encode().decode("latin-1") for name, value in headers}, data=request.body).prepare()

    def _judge(self, response):
        """Reads the answer, and ends the attempt by what it says."""
        request, status = self.request, response.status_code
        text_counts = bool(request.contains or request.not_contains)
        keep = max(request.keep_failures, request.keep_successes)
        body, whole = drain(response, settings.BODY_LIMIT, settings.BODY_LIMIT if text_counts else keep + 1)
        if self._since is not None:
            self._phases["end"] += steady() - self._since
        headers = list(response.raw.headers.items())
        text = kept.decoded(body, response.headers, settings.BODY_LIMIT if text_counts else keep + 1)
        error = ""
        if status < 200 or not any(low <= status <= high for low, high in request.statuses):
            error = f"HTTP status {status}"
        elif text_counts and text is None:
            error = f"HTTP status {status}, and the answer is compressed in a way that cannot be read, so that its text is not known"
        elif request.contains and request.contains not in text:
            error = f"HTTP status {status}, and the answer lacks the text that it must have in it"
        elif request.not_contains and request.not_contains in text:
            error = f"HTTP status {status}, and the answer has the text in it that it must not have"
        self._received = headers, text or "", whole and text is not None
        failure = outcomes.classify(True, status, not error)
        wait = outcomes.retry_after(response.headers.get("Retry-After"), utcnow()) if failure == outcomes.REFUSED else None
        self._end(Status.FAILED if error else Status.SUCCEEDED, status, error, failure, wait)

    def check(self):
        """Ends the call if it has taken more than its timeout."""
        with self._lock:
            if self.outcome or self._deadline is None or self._at_gate or steady() < self._deadline:
                return
            what = "no complete answer" if self._hop_sent else "no connection"
            self._end_locked(Status.FAILED, error=f"{what} within {self.request.timeout:g} s")
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
        """Called by the connection at the last moment before the request goes out: returns once it may, and raises
        TooLate if it must not, and Stale if not over this connection."""
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
            self._hop_sent, self._since, self._address = True, now, connection.address
        self._phases.update(connection.phases)
        connection.phases = {}          # whoever has it next did not wait for these
        if first:
            self._tell(self)

    def answers(self):
        """Called by the connection when the first byte of an answer has come."""
        now = steady()
        if self._since is not None:
            self._phases["answer"] += now - self._since
        self._since = now

    def left(self):
        """Seconds until its timeout, a moment at least."""
        return max(0.001, self._deadline - steady())

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
        return (self._at - utcnow()).total_seconds()

    def _miss(self):
        """Whether it may not begin any more. Ends a first attempt then; there being no other is for the ledger to say."""
        late = self.sent_at is None and utcnow() > self._last
        if late and self.request.number == 1:
            within = (self._last - self.timestamp).total_seconds()
            self._end_locked(Status.MISSED, error=f"not started within {within:g} s of its time")
        return late

    def _end(self, *args, **kwargs):
        with self._lock:
            if self.outcome is None:
                self._end_locked(*args, **kwargs)

    def _end_locked(self, status, http_status=None, error="", failure=None, retry_after=None):
        """failure: its class; None: that of an attempt without a whole answer"""
        request = self.request
        if status == Status.MISSED:
            failure = ""
        elif failure is None:
            failure = outcomes.classify(self._hop_sent or self._perhaps)
        hide = kept.Hider(request, self._token)
        if request.guarded and error:
            error = outcomes.in_words(failure, self._without_hosts(hide(error, cut=True)), request.repeatable)
        self.outcome = Outcome(
            self.id, self.timestamp, status, self.sent_at, utcnow(), http_status, printable(error), failure,
            retry_after, request.number, request.target_id, request.target, request.version, self._kept(hide, status))

    def _without_hosts(self, error):
        """An error is read by more people than may see where its target is."""
        urls = [self.request.url, *([self.request.oauth.url] if self.request.oauth else []), *(self._sent or ())[:1]]
        for url in urls[:]:
            with suppress(requests.RequestException):
                urls.append(requests.Request("GET", url).prepare().url)     # its name as DNS has it
        hosts = {host for host in (urlsplit(url).hostname for url in urls) if host}
        for host in sorted(hosts, key=len, reverse=True):
            error = re.sub(rf"(?i)(?<![\w.-]){re.escape(host)}(?![\w-])", "its host", error)
        return error

    def _kept(self, hide, status):
        """What is kept of it, without secrets: dict, or None."""
        request, good = self.request, status == Status.SUCCEEDED
        if status == Status.MISSED or not request.guarded and (good or not self._received):
            return None
        found = {"phases": {name: round(seconds * 1000, 1) for name, seconds in dict(self._phases).items()}}
        if self._address:
            found["address"] = self._address
        if request.guarded:
            found["version"] = request.version
        if request.guarded and self._sent:
            url, headers = self._sent
            found["request"] = {"method": request.method, "url": hide(url)[:kept.SENT_MAX],
                                "headers": kept.headers(headers, hide), "body": kept.sent(request.body, hide)}
        if self._received:
            headers, text, whole = self._received
            most = request.keep_successes if good else request.keep_failures
            body, truncated = kept.body(text, most, whole, hide)
            found["response"] = {"headers": kept.headers(headers, hide), "body": body, "truncated": truncated}
        return found


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


# What is raised for an answer that was none to go by.
AN_ANSWER = (requests.TooManyRedirects, InvalidSchema, InvalidURL, MissingSchema, NotFollowed)


def reason(error, request, sent):
    """Why an attempt failed, in words for its log line: str. It holds no more of the URL than a host
    name, as the rest may hold a password.

    request: the Request; sent: whether it went out, and what is missing is its answer
    """
    cause = cause_of(error)
    host = urlsplit(getattr(getattr(error, "request", None), "url", None) or "").hostname or "the host"
    if isinstance(error, (requests.Timeout, requests.ConnectTimeout)) or isinstance(cause, TimeoutError):
        if isinstance(error, requests.ConnectTimeout) or not sent:
            return f"no connection within {request.connect_timeout:g} s"
        return f"no answer within {request.timeout:g} s"
    if isinstance(error, requests.TooManyRedirects):
        return "too many redirects"
    if isinstance(error, (InvalidSchema, InvalidURL, MissingSchema)):
        return "redirected to something that is not an http or https URL" if sent else "its URL has no host that can be called"
    if isinstance(error, InvalidHeader):            # its own words hold the value
        return "a header cannot be sent as it is"
    if isinstance(error, (NotFollowed, Unsendable)):
        return str(error)
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS: {getattr(cause, 'verify_message', '') or getattr(cause, 'reason', '') or cause}"
    if isinstance(cause, OSError) and type(cause).__name__ == "gaierror":
        return f"could not resolve {host}: {cause.strerror}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    text = str(cause) or type(cause).__name__
    if isinstance(cause, BadAnswer) and request.guarded:    # what came instead is for who may see answers
        text = text.partition(":")[0]
    return redacted(text)
