"""One call of the API with requests, on time, once, and over within TIMEOUT.

requests alone bounds the wait for each read, so that a server that sends a byte now and then can
hold a call for ever. Here the connection that an attempt uses is known, and `Attempt.check` cuts it.

A call connects before it is anybody's: its thread then stands at a gate, one step from sending, until
the worker has won the row (worker.py). So a claim is followed by the request at once, and a burst's
connections, with their TLS, are made before it is due.
"""
import errno
import http.cookiejar
import os
import socket
import ssl
import threading
from contextlib import suppress
from datetime import datetime
from functools import cache, cached_property, partial
from typing import NamedTuple, Optional
from urllib.parse import urlsplit

import requests
import urllib3
from django.conf import settings
from requests.adapters import HTTPAdapter
from requests.certs import where
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import create_urllib3_context

from ..base.clock import steady, utcnow
from ..base.words import printable, redacted
from ..models import ScheduledCall
from .answer import Answer

Status = ScheduledCall.Status

# Seconds. Servers close connections that lie idle, some after two seconds; a request sent into one
# just as it closes is lost, and must not be repeated. So a connection serves the calls of one burst
# or of neighbouring seconds, and is not trusted for longer.
IDLE_MAX = 1.5
FIRST_MAX = 5.0             # of a connection that has carried no request yet: servers wait for the first
AGE_MAX = 30.0              # of any: the host's name may mean another address by now
READ_SIZE = 65536           # bytes

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


class TooLate(Exception):
    """Nothing may be sent for this call, or nothing more."""


class Stale(Exception):
    """The connection cannot be trusted any more. Nothing was sent."""


class Refused(requests.RequestException):
    """An answer that is not followed."""


class Attempt:
    """One HTTP exchange for a call, on its way: `make` runs in a thread of its own, while the worker calls
    `check` now and then, and `grant` or `refuse` once it knows whose the call is. Whoever is first to say how
    it ended is believed; `outcome` is None until then.

    Attributes to read: `outcome`; `sent_at`, the aware datetime at which its request was about to be
    sent, or None; `unsent`, that it was granted, and will certainly never be sent; `no_room`, why it ended
    without an outcome although it may be made: this machine had no more room for it (str, "" if it had).
    """

    def __init__(self, call_id, timestamp, tell=lambda attempt: None, others=lambda: False):
        """call_id: int; timestamp: aware datetime, when it is due
        tell(attempt): called from its thread when it may be claimed, as it stands at the gate or
            has ended; when its request is about to be sent; and when it has ended.
        others(): whether there are other calls, soon to come, that could use its connection."""
        self.id = call_id
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
        _current.attempt = self
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
            _current.attempt = None
            self._tell(self)

    def _try(self):
        """Returns whether it has ended. Raises what went wrong, if there is no time for another try."""
        try:
            session, prepared, options = _session()
            with session.send(prepared.copy(), **options) as response:
                _drain(response, settings.BODY_LIMIT)
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
        return (self.timestamp - utcnow()).total_seconds()

    def _miss(self):
        """Ends it, and says so, if it could not start within GRACE."""
        late = self.sent_at is None and -self._early() > settings.GRACE
        if late:
            self._end_locked(Status.MISSED, error=f"not started within {settings.GRACE:g} s of its time")
        return late

    def _end(self, *args, **kwargs):
        with self._lock:
            if self.outcome is None:
                self._end_locked(*args, **kwargs)

    def _end_locked(self, status, http_status=None, error=""):
        self.outcome = Outcome(self.id, self.timestamp, status, self.sent_at, utcnow(),
                               http_status, printable(error))


_preparing = threading.Lock()
_current = threading.local()            # .attempt: the Attempt that this thread is making


class _Watched:
    """Tells the call which connection it uses, and asks whether it may send. Carries another call's request
    only when the answer before has come to its end, with nothing behind it.

    What is overridden of http.client and urllib3 is public, if not all of it documented; tests/test_answers.py
    fails when they do not go this way any more.
    """

    idle_max = FIRST_MAX
    idle_since = born = 0.0             # by steady()
    _connecting = False
    _used = False                       # it has carried a request
    _asked = False                      # and does so now

    def connect(self):
        _current.attempt.uses(self)
        self._connecting = True         # what is sent to a proxy to get through it is no request yet
        try:
            super().connect()
        finally:
            self._connecting = False
        self.born = self.idle_since = steady()
        self.idle_max, self._used = FIRST_MAX, False
        _current.attempt.uses(self)     # looking up a name can take longer than the whole call may

    def putrequest(self, *args, **kwargs):
        self._asked = False
        super().putrequest(*args, **kwargs)

    def send(self, data):
        if not self._connecting:
            if self.sock is None:
                self.connect()
            _current.attempt.pass_gate(self)
            self._used = self._asked = True
        super().send(data)

    def response_class(self, sock, **kwargs):
        """http.client makes its answers by this."""
        return Answer(sock, ended=partial(self._ended, sock), **kwargs)

    def _ended(self, sock, answer):
        """Closes it at once, unless another call can have it."""
        if self._connecting or self.sock is not sock:
            return                      # that was the proxy's answer; or it is closed already
        attempt = _current.attempt
        wanted = answer.is_redirect() or attempt.others()
        if wanted and not answer.followed() and attempt.leaves():
            self.idle_since, self.idle_max = steady(), IDLE_MAX
            with _idle_lock:
                _idle.add(self)
        else:
            self.close()

    @property
    def is_connected(self):
        """Asked by urllib3 before it gives the connection to another request, which has it from now on."""
        with _idle_lock:
            if self not in _idle:
                return False
            _idle.discard(self)
        return self.lasts(steady() + _current.attempt.idle_until_due()) and self.clean()

    def lasts(self, until):
        """Whether it can be trusted until then, by steady()."""
        return until - self.idle_since <= self.idle_max and until - self.born <= AGE_MAX

    def clean(self):
        """Whether nothing has come over it, not even its end, since the answer before: what is behind an answer is
        no answer to another request (RFC 9112, 6.3). What comes once that has been sent, nobody can tell from
        its answer. (TLS has messages of its own; they do not count.)"""
        if not self._used or self._asked:
            return True                 # nobody's answer can be on it
        before = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        finally:
            self.sock.settimeout(before)
        return False

    def close(self):
        with _idle_lock:
            _idle.discard(self)
        super().close()


_idle = set()                           # the connections that no call uses, and another may
_idle_lock = threading.Lock()


def close_idle():
    """Closes the connections that no call has wanted for IDLE_MAX.

    Returns the seconds until the next will be to close, None when there is none.
    """
    now = steady()
    with _idle_lock:
        # The sockets: a call that is given one of these connections from now on connects it anew.
        old = {connection: connection.sock for connection in _idle if now - connection.idle_since >= IDLE_MAX}
        _idle.difference_update(old)
        next_one = min((connection.idle_since for connection in _idle), default=None)
    for sock in old.values():
        sock.close()
    return None if next_one is None else max(0.0, next_one + IDLE_MAX - now)


class _WatchedHTTP(_Watched, HTTPConnection):
    pass


class _WatchedHTTPS(_Watched, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


class _Adapter(HTTPAdapter):
    """requests' own adapter with watched connections, also to a proxy, and with the certificates to
    trust read once: urllib3 reads the whole bundle for each connection, 14 ms of CPU every time."""

    def __init__(self, verify, **kwargs):
        """verify: path of a bundle or folder of certificates, or True for those of requests"""
        self._bundle = where() if verify is True else verify
        super().__init__(**kwargs)

    @cached_property
    def tls(self):
        """The SSLContext of all connections. Raises OSError, saying which certificates it cannot read."""
        context = create_urllib3_context()
        kind = "capath" if os.path.isdir(self._bundle) else "cafile"
        try:
            context.load_verify_locations(**{kind: self._bundle})
        except OSError as error:
            raise OSError(error.errno, f"cannot read the certificates in {self._bundle}: {error.strerror}") from None
        return context

    def build_connection_pool_key_attributes(self, request, verify, cert=None):
        host, pool = super().build_connection_pool_key_attributes(request, True, cert)
        return host, ({**pool, "ssl_context": self.tls} if host["scheme"] == "https" else pool)

    def cert_verify(self, conn, url, verify, cert):
        """requests would name its bundle here, and urllib3 read it again into the context."""
        conn.cert_reqs = "CERT_REQUIRED" if url.lower().startswith("https:") else "CERT_NONE"

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, proxy, **kwargs):
        if proxy.lower().startswith("https:"):
            kwargs["proxy_ssl_context"] = self.tls
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


@cache
def _session():
    """(session, prepared request, options for send): made once for all calls of this process, as
    they are all alike; preparing one and looking up proxies costs as much as sending it."""
    session = requests.Session()
    # A thousand calls must not share what one of them was told to remember.
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = "api-scheduler"
    session.hooks["response"].append(_drain_redirect)
    prepared = session.prepare_request(requests.Request("GET", settings.API_URL))
    options = session.merge_environment_settings(prepared.url, {}, True, None, None)
    # requests has adapters for these two and no others: nothing else is spoken, also after a redirect.
    adapter = _Adapter(options["verify"], pool_maxsize=settings.CALLS_AT_ONCE, max_retries=0)
    if urlsplit(prepared.url).scheme == "https":
        adapter.tls             # now, and not once the first calls are due
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    options["timeout"] = (settings.CONNECT_TIMEOUT, settings.TIMEOUT)
    options["allow_redirects"] = True
    return session, prepared, options


def prepare():
    """Makes what all calls share, before the first of them is due: the threads of a burst would each
    make their own. Never raises: what is wrong with it, each call will say."""
    with _preparing, suppress(Exception):
        _session()


def _drain(response, limit):
    """Reads the body, so that the connection can be used again, and keeps nothing of it. Returns
    whether the body ended within `limit` bytes."""
    while limit > 0:
        data = response.raw.read(min(READ_SIZE, limit), decode_content=False)
        if not data:
            return True
        limit -= len(data)
    return False


def _drain_redirect(response, **_):
    """requests reads a redirect's body whole, into memory; this reads it first, within bounds."""
    if response.is_redirect and not _drain(response, settings.BODY_LIMIT + 1):
        raise Refused(f"a redirect with a body of more than {settings.BODY_LIMIT} bytes")


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
