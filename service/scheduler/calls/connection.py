"""The connections over which calls are made: which attempt uses which, that it may send, and who has it next.

Those to targets are of other classes than those to API_URL, in pools of their own: what was connected to because
API_URL may be anywhere carries nothing of a target.
"""
import os
import socket
import ssl
import sys
import threading
from contextlib import suppress
from functools import cache, cached_property, partial
from urllib.parse import urlsplit

import requests
import urllib3
from django.conf import settings
from requests.adapters import HTTPAdapter
from requests.certs import where
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.util import create_urllib3_context
from urllib3.util.connection import allowed_gai_family

from ..base.clock import steady
from . import networks
from .answer import Answer

# Seconds. Servers close connections that lie idle, some after two seconds; a request sent into one
# just as it closes is lost, and must not be repeated. So a connection serves the calls of one burst
# or of neighbouring seconds, and is not trusted for longer.
IDLE_MAX = 1.5
FIRST_MAX = 5.0             # of a connection that has carried no request yet: servers wait for the first
AGE_MAX = 30.0              # of any: the host's name may mean another address by now
READ_SIZE = 65536           # bytes


class TooLate(Exception):
    """Nothing may be sent for this call, or nothing more."""


class Stale(Exception):
    """The connection cannot be trusted any more. Nothing was sent."""


class NotFollowed(requests.RequestException):
    """An answer that is not followed."""


_preparing = threading.Lock()
current = threading.local()            # .attempt: the Attempt that this thread is making


class _Socket(socket.socket):
    """Told the timeout that it has already, it does nothing: with each system call a thread gives up Python's one lock,
    and in a burst hundreds wait for that."""

    def settimeout(self, value):
        if value != self.gettimeout():
            super().settimeout(value)


class _Watched:
    """Tells the call which connection it uses, and asks whether it may send. Carries another call's request
    only when the answer before has come to its end, with nothing behind it.

    What is overridden of http.client and urllib3 is public, if not all of it documented, but for `_new_conn`;
    tests/test_answers.py and tests/test_networks.py fail when they do not go this way any more.

    Attributes to read, of the connection as it is now: `address`, str, the IP address of its other end; `phases`, what
    it took to connect, {"name", "connect", "tls": seconds}.
    """

    guarded = False                     # it may only go where targets may be
    address = None
    idle_max = FIRST_MAX
    idle_since = born = 0.0             # by steady()
    _connecting = False
    _used = False                       # it has carried a request
    _asked = False                      # and does so now

    def connect(self):
        current.attempt.uses(self)
        self._connecting = True         # what is sent to a proxy to get through it is no request yet
        began, self.phases = steady(), {}
        try:
            super().connect()
        finally:
            self._connecting = False
        self.born = self.idle_since = steady()
        if isinstance(self, HTTPSConnection):
            self.phases["tls"] = self.born - began - sum(self.phases.values())
        self.idle_max, self._used = FIRST_MAX, False
        current.attempt.uses(self)     # looking up a name can take longer than the whole call may

    def _new_conn(self):
        """Looks up the name, and connects to one of the very addresses that it was found to have and that are allowed.

        urllib3's own does both in one, and so between them nothing can be asked. Raises what that does, and
        networks.Forbidden; what a proxy connects to is the proxy's to decide.
        """
        began = steady()
        host = self._dns_host.strip("[]")
        try:
            host.encode("idna")
            found = socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except UnicodeError:
            raise LocationParseError(f"'{host}', label empty or too long") from None
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        named = steady()
        self.phases["name"] = named - began
        if self.guarded and not self.proxy:
            found = networks.check(self.host, found)
        try:
            sock, self.address = self._reach(found)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error
        self.phases["connect"] = steady() - named
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def _reach(self, found):
        """(socket, IP address) of the first of `found` that can be connected to. Raises the last one's OSError."""
        failed = OSError("the name has no address")
        for family, kind, protocol, _, address in found:
            sock = None
            try:
                sock = _Socket(family, kind, protocol)
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(min(self.timeout, current.attempt.left()))     # for whoever names a hundred addresses
                sock.connect(address)
                return sock, address[0]
            except OSError as error:
                failed = error
                if sock is not None:
                    sock.close()
        raise failed

    def putrequest(self, *args, **kwargs):
        self._asked = False
        super().putrequest(*args, **kwargs)

    def send(self, data):
        """The gate stands before the first byte of a request. What follows, its body, belongs to it: it goes out over
        the same connection or not at all."""
        if not self._connecting and not self._asked:
            if self.sock is None:
                self.connect()
            # Until now it was that for connecting. It stays for the answer: urllib3 says the same once all is sent.
            self.sock.settimeout(current.attempt.request.timeout)
            current.attempt.pass_gate(self)
            self._used = self._asked = True
        super().send(data)

    def response_class(self, sock, **kwargs):
        """http.client makes its answers by this."""
        return Answer(sock, ended=partial(self._ended, sock), began=current.attempt.answers, **kwargs)

    def _ended(self, sock, answer):
        """Closes it at once, unless another call can have it."""
        if self._connecting or self.sock is not sock:
            return                      # that was the proxy's answer; or it is closed already
        attempt = current.attempt
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
        return self.lasts(steady() + current.attempt.idle_until_due()) and self.clean()

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


class _GuardedHTTP(_WatchedHTTP):
    guarded = True


class _GuardedHTTPS(_WatchedHTTPS):
    guarded = True


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


class _GuardedHTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _GuardedHTTP


class _GuardedHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPS


class _Adapter(HTTPAdapter):
    """requests' own adapter with watched connections, also to a proxy, and with the certificates to
    trust read once: urllib3 reads the whole bundle for each connection, 14 ms of CPU every time."""

    pools = {"http": _HTTPPool, "https": _HTTPSPool}

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
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, proxy, **kwargs):
        if proxy.lower().startswith("https:"):
            kwargs["proxy_ssl_context"] = self.tls
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self.pools
        return manager


class _GuardedAdapter(_Adapter):
    pools = {"http": _GuardedHTTPPool, "https": _GuardedHTTPSPool}


@cache
def shared():
    """(session, prepared request, options for send): made once for all calls of this process, as
    they are all alike; preparing one and looking up proxies costs as much as sending it."""
    session = requests.Session()
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


@cache
def guarded():
    """(adapter, options for its send) of all requests to targets. There is no session: that would read whole what comes
    with a redirect, and take passwords and proxies from the environment, of which only the certificates to trust
    count. A proxy of its would connect to whatever it is asked for."""
    verify = requests.Session().merge_environment_settings("https://", {}, True, None, None)["verify"]
    # Each target has a pool of its own, and none is thrown away while another burst may want it.
    adapter = _GuardedAdapter(
        verify, pool_connections=settings.CALLS_AT_ONCE, pool_maxsize=settings.CALLS_AT_ONCE, max_retries=0)
    with suppress(OSError):     # each call that needs them will say that they cannot be read
        adapter.tls
    proxies = {"http": settings.TARGET_PROXY, "https": settings.TARGET_PROXY} if settings.TARGET_PROXY else {}
    return adapter, {"stream": True, "proxies": proxies}


def prepare():
    """Makes what all calls share, before the first of them is due: the threads of a burst would each
    make their own. Never raises: what is wrong with it, each call will say."""
    for make in (shared, guarded):
        with _preparing, suppress(Exception):
            make()


def drain(response, limit, keep=0):
    """Reads the body, as it came, so that the connection can be used again. Returns (the first `keep` bytes of it,
    whether it ended within `limit`)."""
    kept = bytearray()
    while limit > 0:
        data = response.raw.read(min(READ_SIZE, limit), decode_content=False)
        if not data:
            return bytes(kept), True
        kept += data[:keep - len(kept)]
        limit -= len(data)
    return bytes(kept), False


def _drain_redirect(response, **_):
    """requests reads a redirect's body whole, into memory; this reads it first, within bounds."""
    if response.is_redirect and not drain(response, settings.BODY_LIMIT + 1)[1]:
        raise NotFollowed(f"a redirect with a body of more than {settings.BODY_LIMIT} bytes")
