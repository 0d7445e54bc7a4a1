"""An attempt at a target: what is sent, what is followed, what its end means, and what is kept of it."""
import base64
import html
import json
import re
import socket
import ssl
import threading
import time
import zlib
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from urllib.parse import quote, quote_plus

import pytest
from conftest import WORK, certificate, free_port, until
from test_answers import OK, Raw
from test_caller import calling

from scheduler.base import secrets
from scheduler.base.clock import steady, utcnow
from scheduler.calls import kept
from scheduler.calls.attempt import Attempt
from scheduler.calls.outcomes import ANSWERED, NOTHING, REFUSED, UNKNOWN
from scheduler.calls.request import Request, default

pytestmark = pytest.mark.no_database
LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


class Api(Raw):
    """An API that notes what it was sent, to the byte.

    messages: list of (first line, [(name, value), ...], body)
    """

    def __init__(self, play=OK, **options):
        self.messages = []
        super().__init__(play, **options)

    def _read(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = [tuple(line.split(": ", 1)) for line in lines]
        length = int(dict((name.lower(), value) for name, value in headers).get("content-length", 0))
        while len(body) < length:
            more = connection.recv(65536)
            if not more:
                return b""
            body += more
        self.messages.append((first, headers, body))
        return head

    def sent(self, name, n=-1):
        """All values of that header in the n-th request."""
        return [value for known, value in self.messages[n][1] if known.lower() == name.lower()]


def to(url, method="GET", **options):
    """A request to a target, by default one without retries."""
    return Request(method, url, **{"target_id": 1, "target": "t", "version": 3, "timeout": 2.0, "connect_timeout": 1.0}
                   | options)


@contextmanager
def allowed(networks=LOOPBACK, **settings):
    with calling("http://127.0.0.1:1/", TARGET_NETWORKS=networks, **settings):
        yield


def attempt_of(request, due=None):
    attempt = Attempt(1, due or utcnow(), request, others=lambda: True)
    attempt.grant("token", steady() + 60)
    thread = threading.Thread(target=attempt.make, daemon=True)
    thread.start()
    while attempt.outcome is None and thread.is_alive():
        attempt.check()
        thread.join(0.02)
    thread.join(5)
    assert not thread.is_alive(), "its thread did not come free"
    return attempt


def make(request, **settings):
    """Makes an attempt: its Outcome."""
    with allowed(**settings):
        return attempt_of(request).outcome


def answer(status, body=b"", **headers):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


# --- What is sent ------------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("body", [None, b"", b'{"id": 7}', b"\0\xff" * 100_000], ids=["none", "empty", "json", "big"])
def test_methods_and_bodies(method, body):
    api = Api(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    outcome = make(to(api.url + "/a?b=c", method, body=body))
    assert outcome.status == "Succeeded" and outcome.failure == ""
    first, _, came = api.messages[0]
    assert first == f"{method} /a?b=c HTTP/1.1" and came == (body or b"") and len(api.messages) == 1
    if body or method not in ("GET", "HEAD"):
        assert api.sent("Content-Length") == [str(len(body or b""))]
    assert api.sent("Transfer-Encoding") == []


def test_exactly_the_headers_that_were_asked_for():
    api = Api()
    make(to(api.url, "POST", body=b"x", headers=(("X-One", "1"), ("Content-Type", "text/plain"), ("X-U", "Grüße"))))
    assert sorted(name for name, _ in api.messages[0][1]) == sorted(
        ["Host", "User-Agent", "Accept-Encoding", "Content-Length", "X-One", "Content-Type", "X-U"])
    assert api.sent("User-Agent") == ["api-scheduler"] and api.sent("Accept-Encoding") == ["identity"]
    assert api.sent("X-U")[0].encode("latin-1").decode() == "Grüße"
    make(to(api.url, headers=(("user-agent", "me"), ("accept-encoding", "gzip"))))
    assert api.sent("User-Agent") == ["me"] and api.sent("Accept-Encoding") == ["gzip"]


def test_what_goes_to_api_url_is_what_it_always_was():
    api = Api()
    with calling(api.url + "/ok"):
        attempt_of(None)
    assert api.messages == [("GET /ok HTTP/1.1", [
        ("Host", api.url[7:]), ("User-Agent", "api-scheduler"), ("Accept-Encoding", "gzip, deflate"), ("Accept", "*/*"),
        ("Connection", "keep-alive")], b"")]


@pytest.mark.parametrize("name, value", [
    ("X", "a\r\nX-Injected: 1"), ("X", "a\nX-Injected: 1"), ("X", "a\r\n X-Injected: 1"), ("X", "a\rb"), ("X", "a\0b"),
    ("X", "a\x0bb"), ("X: 1\r\nX-Injected", "1"), ("X Y", "1"), ("", "1"), ("X:", "1"), ("Host", "evil.example"),
    ("Content-Length", "0"), ("transfer-encoding", "chunked")], ids=repr)
def test_a_header_cannot_inject_another(name, value):
    api = Api()
    outcome = make(to(api.url, "POST", body=b"x", headers=((name, value),)))
    assert (outcome.status, outcome.failure, outcome.started_at) == ("Failed", NOTHING, None)
    assert "cannot be sent as it is" in outcome.error and api.messages == []


def test_a_body_in_a_second_packet_is_never_held_back_half_way():
    """The gate stands before the first byte: neither the lease nor the connection's age ends a request half sent."""
    api = Api()
    with allowed():
        attempt = Attempt(1, utcnow(), to(api.url, "POST", body=b"x" * 100_000))
        passed, gate = [], attempt.pass_gate

        def over(connection):
            left = gate(connection)
            passed.append(connection)
            attempt.lease_end, connection.idle_since = 0, -1000
            return left
        attempt.pass_gate = over
        attempt.grant("token", steady() + 60)
        attempt.make()
    assert attempt.outcome.status == "Succeeded" and len(passed) == 1 and len(api.messages[0][2]) == 100_000


def test_a_body_is_not_sent_before_it_is_claimed():
    api = Api()
    told = threading.Event()
    with allowed():
        attempt = Attempt(1, utcnow(), to(api.url, "POST", body=b"x"), lambda _: told.set())
        thread = threading.Thread(target=attempt.make, daemon=True)
        thread.start()
        assert told.wait(5) and attempt.sent_at is None
        until(lambda: api.open == 1)
        assert api.messages == []
        attempt.grant("token", steady() + 60)
        thread.join(5)
    assert attempt.outcome.status == "Succeeded" and api.messages[0][2] == b"x"


# --- Redirects -----------------------------------------------------------------------------------

@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_followed_with_method_and_body(status):
    api = Api(lambda connection, n: connection.sendall(OK if n else answer(status, Location="/next?x=1#y")))
    outcome = make(to(api.url + "/first", "POST", body=b"data", headers=(("X-Mine", "1"),)))
    assert outcome.status == "Succeeded"
    assert [(first, body) for first, _, body in api.messages] == [
        ("POST /first HTTP/1.1", b"data"), ("POST /next?x=1 HTTP/1.1", b"data")]
    assert api.sent("X-Mine") == ["1"] and api.sent("Content-Length") == ["4"]
    assert outcome.kept["request"]["url"].endswith("/next?x=1")


@pytest.mark.parametrize("method, requests", [("POST", 1), ("PUT", 1), ("DELETE", 1), ("GET", 2), ("HEAD", 2)])
def test_see_other_is_the_answer_of_what_has_been_done(method, requests):
    no_body = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    api = Api(lambda connection, n: connection.sendall(no_body if n else answer(303, Location="/done")))
    outcome = make(to(api.url, method))
    assert outcome.status == "Succeeded" and outcome.http_status == (303 if requests == 1 else 200)
    assert len(api.messages) == requests


def test_a_redirect_is_the_answer_where_none_are_followed():
    api = Api(answer(307, Location="/next"))
    outcome = make(to(api.url, "POST", follow_redirects=False, statuses=((200, 299),)))
    assert (outcome.status, outcome.http_status, outcome.failure, len(api.messages)) == ("Failed", 307, ANSWERED, 1)


def test_too_many_redirects():
    api = Api(answer(307, Location="/again"))
    outcome = make(to(api.url, "POST"))
    assert (outcome.error, outcome.failure, len(api.messages)) == ("too many redirects", ANSWERED, 31)


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "file:///etc/passwd", "http://[", "//:0/"])
def test_a_redirect_to_what_is_no_url(location):
    outcome = make(to(Api(answer(302, Location=location)).url))
    assert (outcome.status, outcome.failure) == ("Failed", ANSWERED) and "not an http or https URL" in outcome.error


def test_the_body_of_a_redirect_is_read_in_bounds():
    def play(connection, n):
        connection.sendall(b"HTTP/1.1 307 X\r\nLocation: /\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)
    outcome = make(to(Api(play).url, "POST"), BODY_LIMIT=200_000)
    assert outcome.failure == ANSWERED and "a redirect with a body of more than 200000 bytes" in outcome.error


def test_secrets_go_to_no_other_origin_and_do_not_come_back():
    """Neither to another host, nor to another port or scheme of the same; nor where that sends them back to."""
    home = Api(lambda connection, n: connection.sendall(
        [answer(307, Location=f"{other.url}/there"), answer(307, Location="/again"), OK][n]))
    other = Api(lambda connection, n: connection.sendall(answer(307, Location=f"{home.url}/back")))
    request = to(home.url, "POST", body=b"data", message_id="call_1_a", signing=("whsec_" + "QUFB" * 8,), headers=(
        ("Authorization", "Bearer abcdef"), ("X-Key", "secret-key"), ("Cookie", "a=b"), ("X-Open", "1")),
        secret_headers=frozenset(["authorization", "x-key"]), secrets=("Bearer abcdef", "secret-key"))
    assert make(request).status == "Succeeded"
    secret = ("Authorization", "X-Key", "Cookie", "webhook-signature")
    assert all(home.sent(name, 0) for name in secret)
    for api, n in ((other, 0), (home, 1), (home, 2)):
        assert [api.sent(name, n) for name in secret] == [[]] * 4 and api.sent("X-Open", n) == ["1"]
        assert api.messages[n][2] == b"data"


def test_a_user_and_password_of_a_redirect_are_not_taken_over():
    api = Api(lambda connection, n: connection.sendall(OK if n else answer(302, Location=f"http://a:b@{api.url[7:]}/x")))
    assert make(to(api.url)).status == "Succeeded" and api.sent("Authorization") == []


# --- Every way out -------------------------------------------------------------------------------

def cut(data=b""):
    def play(connection, n):
        connection.sendall(data)
        return False
    return play


def hang(connection, n):
    connection.recv(1)


def refused():
    return f"http://127.0.0.1:{free_port()}/"


def unresolvable():
    return "http://no-such-host.invalid/"


def broken_tls():
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        while True:
            listener.accept()[0].sendall(answer(400))
    threading.Thread(target=run, daemon=True).start()
    return f"https://127.0.0.1:{listener.getsockname()[1]}/"


def strange_tls():
    files = certificate(WORK)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return Api(OK, tls=context).url


def slow_to_accept():
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    full = [socket.socket() for _ in range(3)]
    for sock in full:
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
    slow_to_accept.kept = listener, full
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def slow_tls():
    listener = socket.create_server(("127.0.0.1", 0))
    slow_tls.kept = listener
    return f"https://127.0.0.1:{listener.getsockname()[1]}/"


def cut_before_it_was_read():
    """Accepts, and closes at once with what came unread: a reset."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        while True:
            connection, _ = listener.accept()
            time.sleep(0.2)
            connection.close()
    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def playing(play):
    return lambda: Api(play).url


def dripping(connection, n):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


WAYS_OUT = {    # what happens: (where, the class, the HTTP status, a part of the words)
    "refused": (refused, NOTHING, None, "Connection refused"),
    "no such host": (unresolvable, NOTHING, None, "could not resolve its host"),
    "no TLS": (broken_tls, NOTHING, None, "TLS: "),
    "TLS of somebody else": (strange_tls, NOTHING, None, "TLS: "),
    "slow to accept": (slow_to_accept, NOTHING, None, "no connection within 1 s"),
    "slow TLS": (slow_tls, NOTHING, None, "no connection within 1 s"),
    "cut before the request was read": (cut_before_it_was_read, UNKNOWN, None, ""),
    "cut after the request was read": (playing(cut()), UNKNOWN, None, "closed connection without response"),
    "cut in the head": (playing(cut(b"HTTP/1.1 200 OK\r\nX: ")), UNKNOWN, None, "in the middle of the answer's headers"),
    "half an answer": (playing(cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")), UNKNOWN, None, "IncompleteRead"),
    "half an answer in chunks": (
        playing(cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf")), UNKNOWN, None, ""),
    "half a refusal": (playing(cut(b"HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\nhalf")), UNKNOWN, None, "IncompleteRead"),
    "no answer": (playing(hang), UNKNOWN, None, "within 2 s"),
    "an answer without end": (playing(dripping), UNKNOWN, None, "no complete answer within 2 s"),
    "no HTTP": (playing(cut(b"SSH-2.0-x\r\n")), UNKNOWN, None, "no answer in HTTP/1"),
    "429": (playing(answer(429)), REFUSED, 429, "HTTP status 429"),
    "503": (playing(answer(503)), REFUSED, 503, "HTTP status 503"),
    "408": (playing(answer(408)), UNKNOWN, 408, "HTTP status 408"),
    "500": (playing(answer(500)), UNKNOWN, 500, "HTTP status 500"),
    "502": (playing(answer(502)), UNKNOWN, 502, "HTTP status 502"),
    "504": (playing(answer(504)), UNKNOWN, 504, "HTTP status 504"),
    "101": (playing(cut(b"HTTP/1.1 101 X\r\n\r\n")), ANSWERED, 101, "HTTP status 101"),
    "400": (playing(answer(400)), ANSWERED, 400, "HTTP status 400"),
    "404": (playing(answer(404)), ANSWERED, 404, "HTTP status 404"),
    "200 without success": (playing(answer(200, b'{"success": false}')), ANSWERED, 200, "lacks the text"),
    "a redirect to nobody": (lambda: Api(answer(307, Location=refused())).url, NOTHING, None, "Connection refused"),
    "an old redirect to nobody": (lambda: Api(answer(302, Location=refused())).url, UNKNOWN, None, "Connection refused"),
}


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("repeatable", [False, True])
def test_ways_out(way, repeatable):
    where, failure, status, words = WAYS_OUT[way]
    began = time.monotonic()
    outcome = make(to(where(), "POST", body=b"x", repeatable=repeatable, contains='"success": true'))
    assert (outcome.status, outcome.failure, outcome.http_status) == ("Failed", failure, status), outcome
    assert words in outcome.error
    assert outcome.error.startswith("outcome unknown: ") == (failure == UNKNOWN and not repeatable)
    assert time.monotonic() - began < 4
    assert (outcome.started_at is None) == (failure == NOTHING and "redirect" not in way)


@pytest.mark.parametrize("value, least, most", [
    ("120", 120, 120), (timedelta(seconds=90), 30, 90), ("-1", None, None), ("999999999999", None, None),
    (timedelta(days=-1), None, None), ("x", None, None)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_told(status, value, least, most):
    """As a number, or as a date so far from now."""
    if isinstance(value, timedelta):
        value = format_datetime(utcnow() + value, usegmt=True)
    outcome = make(to(Api(answer(status, Retry_After=value)).url))
    assert outcome.failure == REFUSED
    assert outcome.retry_after is None if least is None else least <= outcome.retry_after <= most


def test_no_retry_after_of_a_success():
    assert make(to(Api(answer(200, Retry_After="5")).url)).retry_after is None


def test_the_limits_of_time_are_the_targets():
    began = time.monotonic()
    outcome = make(to(Api(hang).url, timeout=0.5), TIMEOUT=30.0)
    assert outcome.error.endswith("within 0.5 s") and time.monotonic() - began < 1.5


def test_a_slow_upload_may_take_longer_than_connecting():
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        connection, _ = listener.accept()
        time.sleep(1.2)         # the buffers between are full by then
        while not connection.recv(1 << 20).endswith(b"d"):
            pass
        connection.sendall(OK)
    threading.Thread(target=run, daemon=True).start()
    outcome = make(to(f"http://127.0.0.1:{listener.getsockname()[1]}/", "POST", body=b"x" * 20_000_000 + b"d", timeout=10,
                      connect_timeout=0.5))
    assert outcome.status == "Succeeded", outcome.error


def test_what_cannot_be_put_together_ends_without_a_request():
    attempt = Attempt(1, utcnow(), to("http://127.0.0.1:1/"))
    attempt.fail("its secrets cannot be read")
    assert attempt.outcome[2:8] == ("Failed", None, attempt.outcome.ended_at, None, "its secrets cannot be read", NOTHING)


def test_a_retry_is_not_missed_by_grace_and_a_first_attempt_is():
    api, due = Api(), utcnow() - timedelta(hours=1)
    with allowed():
        again = Attempt(1, due, to(api.url, number=2), last=due + timedelta(days=1), at=utcnow())
        again.grant("token", steady() + 60)
        again.make()
    assert again.outcome.status == "Succeeded" and again.outcome.number == 2
    with allowed():
        assert attempt_of(to(api.url), due).outcome.status == "Missed"
    assert len(api.messages) == 1


# --- What is a success -----------------------------------------------------------------------------

@pytest.mark.parametrize("statuses, status, good", [
    (((200, 299),), 204, True), (((200, 299),), 302, False), (((200, 299), (404, 404)), 404, True),
    (((100, 399),), 399, True), (((500, 599),), 503, True), (((500, 599),), 200, False)])
def test_statuses(statuses, status, good):
    outcome = make(to(Api(answer(status)).url, statuses=statuses))
    assert (outcome.status == "Succeeded") == good and (outcome.failure == "") == good


def compressed(data, wbits):
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("body, headers", [
    (b"... done: ja ...", {}), ("… done: ja".encode("utf-16"), {"Content_Type": "text/plain; charset=utf-16"}),
    (compressed(b"done: ja", 31), {"Content_Encoding": "gzip"}), (compressed(b"done: ja", 15), {"Content_Encoding": "deflate"}),
    (compressed(b"done: ja", -15), {"Content_Encoding": "deflate"}), (b"x" * 100_000 + b"done: ja", {})],
    ids=["plain", "utf-16", "gzip", "deflate", "bare deflate", "far"])
def test_text_that_is_in_the_answer(body, headers):
    url = Api(answer(200, body, **headers)).url
    assert make(to(url, contains="done: ja")).status == "Succeeded"
    failed = make(to(url, not_contains="done: ja"))
    assert failed.failure == ANSWERED and "must not have" in failed.error
    assert make(to(url, contains="done: no")).failure == ANSWERED
    assert make(to(url, not_contains="done: no")).status == "Succeeded"


@pytest.mark.parametrize("coding, body", [("br", b"\x0b\x02\x80bad\x03"), ("gzip, gzip", b"x"), ("gzip", b"\x1f\x8b\x08bad"), ("made-up", b"good")])
def test_text_that_cannot_be_read_is_no_success(coding, body):
    api = Api(answer(200, body, Content_Encoding=coding))
    for rule in ({"contains": "good"}, {"not_contains": "bad"}):
        outcome = make(to(api.url, **rule))
        assert (outcome.status, outcome.failure) == ("Failed", ANSWERED) and "cannot be read" in outcome.error
        assert outcome.kept["response"]["body"] == "" and outcome.kept["response"]["truncated"]
    assert make(to(api.url)).status == "Succeeded"
    assert make(to(Api(answer(200, Content_Encoding=coding)).url, not_contains="bad")).status == "Succeeded", "there is none"


def test_text_behind_the_limit_does_not_count():
    url = Api(answer(200, b"x" * 100_000 + b"done")).url
    assert make(to(url, contains="done"), BODY_LIMIT=50_000).failure == ANSWERED


def test_what_blows_up_when_it_is_decompressed_is_read_in_bounds():
    bomb = compressed(b"\0" * 300_000_000, 31)
    began = time.monotonic()
    outcome = make(to(Api(answer(500, bomb, Content_Encoding="gzip")).url, contains="x"))
    assert outcome.failure == UNKNOWN and time.monotonic() - began < 2
    assert len(outcome.kept["response"]["body"]) == 16384 and outcome.kept["response"]["truncated"]


# --- What is kept ------------------------------------------------------------------------------------

def test_what_is_kept():
    def play(connection, n):
        time.sleep(0.1)
        connection.sendall(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\nX-A: 1\r\nX-A: 2\r\n\r\n")
        time.sleep(0.1)
        connection.sendall(b"a\0\xff,error")
        connection.sendall(b".")
    api = Api(play)
    outcome = make(to(api.url + "/p?q=1", "POST", body=b"data", headers=(("X-B", "3"),)))
    kept = outcome.kept
    assert (outcome.number, outcome.target_id, outcome.version, kept["version"]) == (1, 1, 3, 3)
    assert kept["address"] == "127.0.0.1"
    assert kept["request"] == {"method": "POST", "url": api.url + "/p?q=1",
                               "headers": [["X-B", "3"], ["User-Agent", "api-scheduler"]], "body": "data"}
    assert kept["response"] == {"headers": [["Content-Length", "9"], ["X-A", "1"], ["X-A", "2"]],
                                "body": "a\ufffd\ufffd,error", "truncated": False}
    phases = kept["phases"]
    assert set(phases) == {"name", "connect", "answer", "end"} and all(value >= 0 for value in phases.values())
    whole = (outcome.ended_at - outcome.started_at).total_seconds() * 1000
    assert phases["answer"] >= 100 and phases["end"] >= 90 and phases["answer"] + phases["end"] < whole + 10
    json.dumps(kept)


def test_the_phases_of_tls_and_of_a_connection_that_was_there_already(monkeypatch):
    files = certificate(WORK)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(files[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    api = Api(OK, tls=context)
    with allowed():
        first, second = (attempt_of(to(api.url)).outcome for _ in range(2))
    assert first.kept["phases"]["tls"] > 0 and [number for number, _ in api.requests] == [1, 1]
    assert set(second.kept["phases"]) == {"answer", "end"} and second.kept["address"] == "127.0.0.1"


@pytest.mark.parametrize("status, failures, successes, body, truncated", [
    (500, 10, 0, "0123456789", True), (500, 100, 0, "0123456789" * 3, False), (200, 100, 0, "", True),
    (200, 0, 5, "01234", True), (500, 0, 5, "", True)])
def test_as_much_of_the_body_as_the_target_wants(status, failures, successes, body, truncated):
    outcome = make(to(Api(answer(status, b"0123456789" * 3)).url, keep_failures=failures, keep_successes=successes))
    assert (outcome.kept["response"]["body"], outcome.kept["response"]["truncated"]) == (body, truncated)


def test_a_thousand_headers_are_not_all_kept():
    head = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 100) for n in range(1000))
    kept = make(to(Api(head + b"\r\n").url)).kept
    assert 50 < len(kept["response"]["headers"]) <= 100


def test_of_a_long_address_the_beginning_is_kept():
    """Whoever answers may send us to one of any length."""
    api = Api(lambda connection, n: connection.sendall(OK if n else answer(302, Location="/" + "x" * 100_000)))
    outcome = make(to(api.url))
    assert outcome.status == "Succeeded" and len(api.messages[1][0]) > 100_000
    assert len(json.dumps(outcome.kept)) < 20_000 and outcome.kept["request"]["url"].startswith(f"{api.url}/xxx")


def test_of_api_url_only_the_answer_that_was_a_failure_is_kept():
    for status in (200, 500):
        with calling(Api(answer(status, b"what is wrong")).url):
            kept = attempt_of(None).outcome.kept
        assert kept is None if status == 200 else kept["response"]["body"] == "what is wrong"
        assert not kept or "request" not in kept
    with calling(refused()):
        assert attempt_of(None).outcome.kept is None


SECRET = 'p/w+d "ü" 47&11'
BASIC = base64.b64encode(b"ann:" + SECRET.encode()).decode()


def lower(quoted):
    return re.sub("%..", lambda match: match[0].lower(), quoted)


@pytest.mark.parametrize("form", [
    SECRET, quote(SECRET, safe=""), quote(SECRET), lower(quote(SECRET, safe="")), quote_plus(SECRET), json.dumps(SECRET),
    json.dumps(SECRET, ensure_ascii=False), json.dumps(SECRET).replace("/", "\\/"), html.escape(SECRET),
    "".join(c if c.isascii() and c.isalnum() else f"\\u{ord(c):04X}" for c in SECRET),
    "".join(c if c.isascii() and c.isalnum() else f"&#{ord(c)};" for c in SECRET),
    "".join(c if c.isascii() and c.isalnum() else f"&#x0{ord(c):x};" for c in SECRET),
    repr(SECRET.encode())[2:-1], SECRET.encode().hex(), SECRET.encode().hex().upper(),
    BASIC, f"Basic {BASIC}", lower(quote(BASIC, safe="")), base64.b64encode(SECRET.encode()).decode(), "sig-nature-key"], ids=repr)
@pytest.mark.parametrize("where", ["body", "header", "first line", "cut off"])
def test_no_secret_is_kept_wherever_it_comes_back(form, where):
    bare = form.encode()
    data = {"body": answer(500, b"you sent " + bare + b" and"),
            "header": b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nX-You-Sent: " + bare + b"\r\n\r\n",
            "first line": b"no HTTP " + bare + b"\r\n",
            "cut off": answer(500, b"x" * 90 + bare)}[where]
    outcome = make(to(Api(cut(data)).url, headers=(("Authorization", f"Basic {BASIC}"),), keep_failures=93 + len(bare) // 2,
                      secret_headers=frozenset(["authorization"]), secrets=(f"Basic {BASIC}", SECRET, "sig-nature-key")))
    shown = json.dumps(outcome.kept, ensure_ascii=False) + outcome.error
    assert outcome.status == "Failed" and ["Authorization", "***"] in outcome.kept["request"]["headers"]
    for part in (form, form[:len(form) // 2]):
        assert len(part) < 4 or part.strip('"') not in re.sub(r"\\", "", shown).replace("Basic Auth", "")


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b'{"password": "'])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_nor_within_something_else_in_base64(before, encode):
    hide = kept.Hider(to("http://127.0.0.1", secrets=(SECRET, "t0k3n-long-enough")))
    for secret in (SECRET, "t0k3n-long-enough"):
        shown = hide(encode(before + secret.encode() + b"ef").decode())
        assert "***" in shown and len(shown) < len(before) * 4 / 3 + 12


@pytest.mark.parametrize("text", ["nothing", "sig-nat", "&amp; %41 \\n", ""])
def test_what_is_no_secret_is_kept_as_it_is(text):
    assert kept.Hider(to("http://127.0.0.1", secrets=(SECRET, "sig-nature-key")))(text) == text


def test_what_api_url_answers_is_kept_as_quickly_beside_a_thousand_secrets_of_targets():
    secrets.meet([f"t0k3n-{number}-of-a-target/+" for number in range(1000)])
    hide = kept.Hider(default())
    began = time.process_time()
    assert [hide(f"X-Header-{number}") for number in range(100)][7] == "X-Header-7"
    assert time.process_time() - began < 0.5


def test_an_error_says_neither_where_the_target_is_nor_what_came():
    """It is read by who may not see the request, and what was answered."""
    elsewhere = Api(cut(b"HTTP/1.1 307 X\r\nLocation: http://private-7.invalid/\r\nContent-Length: 0\r\n\r\n"))
    for url in ("http://Private-7.invalid/", "http://127.0.0.1:1/", "http://private-ü.invalid/", "http://private-ü..invalid/",
                elsewhere.url):
        outcome = make(to(url))
        assert outcome.error and not re.search("(?i)private|127|invalid", outcome.error), outcome.error
    assert attempt_of(to("http://127.0.0.1:1/")).outcome.error.startswith("its host is at no public address")
    assert make(to(Api(cut(b"for few: 7\r\n")).url)).error == "outcome unknown: no answer in HTTP/1"


def test_a_secret_that_the_url_takes_along_is_not_kept():
    outcome = make(to(Api().url + "/?key=" + quote(SECRET, safe=""), body=SECRET.encode(), method="POST", secrets=(SECRET,)))
    assert outcome.status == "Succeeded" and outcome.kept["request"]["url"].endswith("/?key=***")
    assert outcome.kept["request"]["body"] == "***"
