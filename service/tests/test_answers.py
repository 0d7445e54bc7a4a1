"""Answers as they come from real servers: which of them is the answer, what its head says, and that nothing
which is left on a connection reaches another call."""
import socket
import ssl
import threading
import time
import warnings
from datetime import timedelta

import pytest
from conftest import WORK, certificate, make, statuses, until
from test_caller import begin, calling, make_call

from scheduler import tasks
from scheduler.base.clock import steady, utcnow
from scheduler.calls import answer, connection

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LEFT = b"HTTP/1.1 418 Left\r\nContent-Length: 4\r\n\r\nleft"


class Raw:
    """An API that sends what it is told, byte for byte.

    requests: list of (number of the connection, path); open: how many connections it has now
    """

    def __init__(self, play, tls=None, host="127.0.0.1", port=0, at_once=True):
        """play: bytes, the answer to all requests, or play(connection, n) that answers the n-th, from 0; the
            connection stays open unless it returns False
        at_once: whether it serves more than one connection at a time
        """
        self.play = play if callable(play) else lambda connection, n: connection.sendall(play)
        self.tls, self.at_once = tls, at_once
        self.requests, self.open, self._lock = [], 0, threading.Lock()
        self._listener = socket.create_server((host, port), backlog=1000)
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{host}:{self.port}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        number = 0
        while True:
            connection, _ = self._listener.accept()
            number += 1
            thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
            thread.start()
            if not self.at_once:
                thread.join()

    def _serve(self, connection, number):
        with self._lock:
            self.open += 1
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                while head := self._read(connection):
                    with self._lock:
                        n = len(self.requests)
                        self.requests.append((number, head.split()[1].decode()))
                    if self.play(connection, n) is False:
                        break
        except OSError:
            pass
        finally:
            with self._lock:
                self.open -= 1

    def _read(self, connection):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = connection.recv(65536)
            if not data:
                return b""
            head += data
        return head


@pytest.fixture(params=["http", "https"])
def tls(request, monkeypatch):
    """None, or the SSLContext of a server that the calls trust."""
    if request.param == "http":
        return None
    files = certificate(WORK)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(files[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


def ends(api, **settings):
    """Makes a call: (its status, its HTTP status, its error)."""
    with calling(api.url + "/ok", **{"TIMEOUT": 2.0} | settings):
        outcome = make_call()
    return outcome.status, outcome.http_status, outcome.error


# --- Which is the answer -----------------------------------------------------------------------

@pytest.mark.parametrize("interim", [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 199 Whatever\r\nno header\r\n\r\n" * 3,
])
@pytest.mark.parametrize("pause", [0, 0.2])
def test_an_interim_answer_is_not_the_answer(tls, interim, pause):
    def play(connection, n):
        connection.sendall(interim)
        time.sleep(pause)
        connection.sendall(LEFT if n == 0 else OK)
    api = Raw(play, tls)
    with calling(api.url + "/ok"):
        outcomes = [make_call() for _ in range(2)]
    assert [outcome.http_status for outcome in outcomes] == [418, 200]
    assert [outcome.status for outcome in outcomes] == ["Failed", "Succeeded"]
    assert api.requests == [(1, "/ok")] * 2, "over one connection"


def test_a_switch_of_protocols_is_a_failure_and_ends_the_connection(tls):
    api = Raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", tls)
    with calling(api.url + "/ok"):
        outcomes = [make_call() for _ in range(2)]
    assert [(o.status, o.http_status, o.error) for o in outcomes] == [("Failed", 101, "HTTP status 101")] * 2
    assert [connection for connection, _ in api.requests] == [1, 2]


def test_interim_answers_without_end_are_a_failure():
    def play(connection, n):
        while True:
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" * 100)
    status, http_status, error = ends(Raw(play), TIMEOUT=20.0)
    assert (status, http_status) == ("Failed", None) and error == "an answer with headers of more than 262144 bytes"


# --- What its head says ------------------------------------------------------------------------

@pytest.mark.parametrize("head", [
    b"X : 1\r\nContent-Length: 2\r\n",                          # a blank before the colon
    b"Content-Length : 2\r\n",
    b"Content-Length\t:2\r\n",
    b"no colon\r\nContent-Length: 2\r\n",
    b": no name\r\nContent-Length: 2\r\n",
    b"two words: 1\r\nContent-Length: 2\r\n",
    b"\xff\xfe: 1\r\nContent-Length: 2\r\n",
    b"no colon\r\n Content-Length: 3\r\nContent-Length: 2\r\n", # folded to what is skipped
    b" first: 1\r\nContent-Length: 2\r\n",
    b"X: 1\r\n and more\r\n\tand: more\r\nContent-Length: 2\r\n",
    b"Content-Length:\r\n  2\r\n",
    b"X: 1\rY\r\nContent-Length: 2\r\n",                        # CR and NUL within a line
    b"X: 1\rContent-Length: 3\r\nContent-Length: 2\r\n",
    b"X: a\0b\r\nContent-Length: 2\r\n",
    b"X: 1\nContent-Length: 2\n",                               # bare line feeds
    b"X: gr\xc3\xbc\xc3\x9fe\r\nContent-Length: 2\r\n",
    b"".join(b"X-%d: 1\r\n" % n for n in range(1000)) + b"Content-Length: 2\r\n",
    b"X: " + b"a" * 100_000 + b"\r\nContent-Length: 2\r\n",
    b"Content-Length: 2\r\nContent-Length: 2\r\n",
    b"Content-Length: 2, 2\r\n",
    b"CONTENT-LENGTH:2\r\n",
], ids=repr)
def test_a_malformed_line_hides_no_header(head):
    """The length behind it is known, so the call does not wait for the end of the connection, which may be
    used again."""
    end = b"\r\n" if head.endswith(b"\r\n") else b"\n"
    api = Raw(b"HTTP/1.1 200 OK" + end + head + end + b"ok")
    with calling(api.url + "/ok", TIMEOUT=2.0):
        assert [make_call().status for _ in range(2)] == ["Succeeded"] * 2
    assert [connection for connection, _ in api.requests] == [1, 1]


@pytest.mark.parametrize("line", [b"X : 1", b"no colon", b": 1", b" folded"])
def test_a_redirect_behind_a_malformed_line_is_followed(line):
    def play(connection, n):
        connection.sendall(LEFT if n else b"HTTP/1.1 302 Found\r\n" + line + b"\r\nLocation: /next\r\n"
                           b"Content-Length: 0\r\n\r\n")
    api = Raw(play)
    assert ends(api) == ("Failed", 418, "HTTP status 418")
    assert [path for _, path in api.requests] == ["/ok", "/next"]


def test_of_a_location_that_stands_twice_the_first_counts():
    def play(connection, n):
        connection.sendall(LEFT if n else b"HTTP/1.1 302 Found\r\nLocation: /next\r\nlocation: /other\r\nContent-Length: 0\r\n\r\n")
    api = Raw(play)
    assert ends(api) == ("Failed", 418, "HTTP status 418")
    assert [path for _, path in api.requests] == ["/ok", "/next"]


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",       # what has no body has none
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding : Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrailer: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1 ;a=\"b\"\r\no\r\n01\nk\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
], ids=repr)
def test_where_the_body_ends(answer):
    outcome = ends(Raw(answer))
    assert outcome == ("Succeeded", int(answer[9:12]), "")


@pytest.mark.parametrize("sent, error", [
    (b"", "Remote end closed connection without response"),
    (b"HTTP/1.1 103 Early Hints\r\n\r\n", "Remote end closed connection without response"),
    (b"HTTP/1.1 200 OK", "the connection was closed in the middle of the answer's headers"),
    (b"HTTP/1.1 200 OK\r\nX: 1\r\n", "the connection was closed in the middle of the answer's headers"),
    (b"HTTP/1.1 200 OK\r\nContent-Le", "the connection was closed in the middle of the answer's headers"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
     "an answer with more than one length: 2, 3"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * answer.HEAD_MAX, "an answer with headers of more than 262144 bytes"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer in HTTP/1: SSH-2.0-OpenSSH_9.2"),
    (b"HTTP/2 200\r\n\r\n", "no answer in HTTP/1: HTTP/2 200"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", "no answer in HTTP/1: HTTP/1.1 2000 OK"),
], ids=lambda value: repr(value)[:60])
def test_what_is_no_answer_or_half_of_one(sent, error):
    def play(connection, n):
        connection.sendall(sent)
        return False
    assert ends(Raw(play)) == ("Failed", None, error)


@pytest.mark.parametrize("cookie", [b"a=b; max-age=" + b"9" * 400, b"a=b; expires=Thu, 01 Jan 99999 00:00:00 GMT", b"a=b; version=x", b"=;=\xff"])
def test_cookies_are_not_read(cookie):
    """http.cookiejar would warn of what is wrong with them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ends(Raw(b"HTTP/1.1 200 OK\r\nSet-Cookie: " + cookie + b"\r\nContent-Length: 2\r\n\r\nok")) == ("Succeeded", 200, "")


@pytest.mark.parametrize("size", [b"-1", b"+2", b"0x2", b"0_2", b"", b"two", b"2 2", b" 2"])
def test_a_chunk_that_does_not_say_how_long_it_is(size):
    """Python would take most of these for a number, and -1 for all that comes."""
    api = Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nok\r\n0\r\n\r\n")
    assert ends(api) == ("Failed", None, "a chunk of the answer has no size")


@pytest.mark.parametrize("first, then", [
    (b"0\r\n", b"Trailer: 1\r\n"), (b"", b"1;" + b"x" * 1000 + b"\r\nx\r\n"), (b"-1\r\n", b"x" * 1000)],
    ids=["trailers", "extensions", "no size"])
def test_what_comes_with_chunks_is_read_in_bounds(first, then):
    sent = []

    def play(connection, n):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + first)
        while True:
            connection.sendall(then * 100)
            sent.append(len(then) * 100)
    status, http_status, error = ends(Raw(play), TIMEOUT=20.0, BODY_LIMIT=1_000_000)
    assert (status, http_status) == ("Failed", None)
    assert error in ("an answer with too much beside its body", "a chunk of the answer has no size")
    assert sum(sent) < 40_000_000, "more than was under way"


def test_chunks_of_one_byte_are_read_to_the_same_bounds_as_others():
    api = Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 300_000 + b"0\r\n\r\n")
    assert ends(api, BODY_LIMIT=300_001, TIMEOUT=20.0) == ("Succeeded", 200, "")


# --- What is left on a connection --------------------------------------------------------------

@pytest.mark.parametrize("body", [
    b"Content-Length: 2\r\n\r\nok", b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"Content-Length: 0\r\n\r\n"],
    ids=["length", "chunked", "empty"])
def test_a_connection_serves_another_call(tls, body):
    api = Raw(b"HTTP/1.1 200 OK\r\n" + body, tls)
    with calling(api.url + "/ok"):
        assert [make_call().status for _ in range(3)] == ["Succeeded"] * 3
        call, thread, told = begin(utcnow() + timedelta(seconds=0.3))
        assert told.get(timeout=5) is call
        call.grant("token", steady() + 60)
        thread.join(5)
    assert call.outcome.status == "Succeeded" and [connection for connection, _ in api.requests] == [1] * 4


@pytest.mark.parametrize("when", ["with the answer", "while it lies idle", "at the gate"])
def test_what_comes_unasked_reaches_no_call(tls, when):
    more, answered = threading.Event(), threading.Event()

    def play(connection, n):
        if n:
            connection.sendall(OK)
        elif when == "with the answer":
            connection.sendall(OK + LEFT)
        else:
            connection.sendall(OK)
            more.wait(5)
            connection.sendall(LEFT)
            answered.set()
    api = Raw(play, tls)
    with calling(api.url + "/ok"):
        assert make_call().status == "Succeeded"
        if when == "while it lies idle":
            more.set()
            assert answered.wait(5)
        call, thread, told = begin(utcnow() + timedelta(seconds=0.3))
        assert told.get(timeout=5) is call
        if when == "at the gate":
            more.set()
            assert answered.wait(5)
        call.grant("token", steady() + 60)
        thread.join(5)
    assert call.outcome.status == "Succeeded"
    assert [connection for connection, _ in api.requests] == [1, 2]


def test_a_connection_that_was_closed_at_the_gate_costs_no_call(tls):
    closing = threading.Event()

    def play(connection, n):
        connection.sendall(OK)
        if n == 0:
            closing.wait(5)
            return False
    api = Raw(play, tls)
    with calling(api.url + "/ok"):
        assert make_call().status == "Succeeded"
        call, thread, told = begin(utcnow() + timedelta(seconds=0.3))
        assert told.get(timeout=5) is call
        closing.set()
        until(lambda: api.open == 0)
        call.grant("token", steady() + 60)
        thread.join(5)
    assert call.outcome.status == "Succeeded" and [connection for connection, _ in api.requests] == [1, 2]


# --- How long a connection is kept ------------------------------------------------------------

def test_a_connection_that_nobody_waits_for_is_closed_at_once(tls):
    api = Raw(OK, tls)
    with calling(api.url + "/ok"):
        assert make_call(others=False).status == "Succeeded"
        until(lambda: api.open == 0, 1)


def run(*seconds):
    """Runs a chunk of calls, due in so many seconds from now, by a real worker in this process, to their end."""
    calls = [make(due) for due in seconds]
    tasks.make_calls([call.id for call in calls], calls[0].timestamp.isoformat())
    until(lambda: not {"Pending", "Running"} & set(statuses()), 15)


def test_an_api_that_serves_one_connection_at_a_time_is_not_blocked_by_calls_that_have_ended():
    def play(connection, n):
        time.sleep(0.05)
        connection.sendall(OK)
    api = Raw(play, at_once=False)
    with calling(api.url + "/ok", TIMEOUT=4.0):
        run(*[-0.1] * 5)
    assert statuses() == {"Succeeded": 5}


def test_a_burst_leaves_no_connection_open():
    """Some calls are still to come when most have ended, so that these keep their connections for them."""
    answering = threading.Barrier(20, timeout=10)

    def play(connection, n):
        if n < 20:
            answering.wait()            # so that each has a connection of its own
        connection.sendall(OK)
    api = Raw(play)
    with calling(api.url + "/ok"):
        run(*[0.1] * 20, *[1.2] * 2)
        assert statuses() == {"Succeeded": 22}
        assert len({connection for connection, _ in api.requests}) == 20, "the last two had one of the others'"
        until(lambda: api.open == 0, 2 * connection.IDLE_MAX)


def test_a_change_of_the_hosts_address_is_followed(monkeypatch):
    """Also when calls come so often that the connection never lies idle."""
    real, address, later = socket.getaddrinfo, ["127.0.0.1"], [0.0]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: real(
        address[0] if host == "api.test" else host, *more, **options))
    monkeypatch.setattr(connection, "steady", lambda: steady() + later[0])
    old = Raw(OK)
    new = Raw(OK, host="127.0.0.2", port=old.port)
    with calling(f"http://api.test:{old.port}/ok"):
        make_call()
        address[0] = "127.0.0.2"
        for _ in range(60):             # a minute passes, with a call in each second
            later[0] += 1
            assert make_call(lease=120).status == "Succeeded"
    assert len({connection for connection, _ in old.requests}) == 1
    assert 20 < len(old.requests) <= 31 and len(new.requests) == 61 - len(old.requests)
