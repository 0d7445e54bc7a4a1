"""One call: on time, once, bounded in time and in size, and never elsewhere."""
import queue
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from unittest import mock

import pytest
from conftest import WORK, Api, certificate, free_port, until
from django.test import override_settings

from scheduler.base.clock import steady, utcnow
from scheduler.calls import attempt, connection
from scheduler.calls.attempt import Attempt
from scheduler.calls.request import default

pytestmark = pytest.mark.no_database


def forget():
    """What calls share is made anew, by the settings as they are then."""
    for made in (connection.shared, connection.guarded, default):
        made.cache_clear()


@contextmanager
def calling(url, **settings):
    """A fresh session for calls of that URL."""
    with override_settings(API_URL=url, **settings):
        forget()
        try:
            yield
        finally:
            forget()


def make_call(due=None, lease=60, others=True):
    """Makes a call as a worker does that has claimed it, checked on from another thread; returns its outcome.

    others: whether there are more that want its connection
    """
    call = Attempt(1, due or utcnow(), others=lambda: others)
    call.grant("token", steady() + lease)
    thread = threading.Thread(target=call.make, daemon=True)
    thread.start()
    while call.outcome is None and thread.is_alive():
        call.check()
        thread.join(0.05)
    thread.join(5)
    assert not thread.is_alive(), "its thread did not come free"
    return call.outcome


@pytest.mark.parametrize("path, status, http_status, error", [
    ("/ok", "Succeeded", 200, ""),
    ("/status/204", "Succeeded", 204, ""),
    ("/redirect/200", "Succeeded", 200, ""),
    ("/close", "Succeeded", 200, ""),
    ("/endless", "Succeeded", 200, ""),
    ("/status/404", "Failed", 404, "HTTP status 404"),
    ("/status/503", "Failed", 503, "HTTP status 503"),
    ("/redirect/503", "Failed", 503, "HTTP status 503"),
    ("/redirect-to-ftp", "Failed", None, "not an http or https URL"),
    ("/redirect-endless", "Failed", None, "a redirect with a body of more than"),
    ("/cut", "Failed", None, "IncompleteRead"),
    ("/hang", "Failed", None, "within 1 s"),
    ("/drip", "Failed", None, "no complete answer within 1 s"),
    ("/drip-headers", "Failed", None, "no complete answer within 1 s"),
])
def test_how_it_ends(api, path, status, http_status, error):
    with calling(api.url + path, TIMEOUT=1.0, BODY_LIMIT=200_000):
        began = time.monotonic()
        outcome = make_call()
    assert (outcome.status, outcome.http_status) == (status, http_status), outcome
    assert error in outcome.error and bool(error) == bool(outcome.error)
    assert time.monotonic() - began < 2.5
    assert outcome.started_at <= outcome.ended_at


def begin(due):
    """A call that nobody has claimed yet, under way in a thread: (call, thread, queue of what it tells)."""
    told = queue.SimpleQueue()
    call = Attempt(1, due, None, told.put, lambda: True)
    thread = threading.Thread(target=call.make, daemon=True)
    thread.start()
    return call, thread, told


def test_it_connects_before_it_is_due_and_sends_only_once_it_is_claimed(api):
    with calling(api.url + "/ok"):
        connections = api.connections
        call, thread, told = begin(utcnow() + timedelta(seconds=0.4))
        assert told.get(timeout=5) is call and call.outcome is None     # it stands at the gate
        until(lambda: api.connections == connections + 1)
        assert api.seen == [] and call.sent_at is None
        call.grant("token", steady() + 60)
        thread.join(5)
        assert call.outcome.status == "Succeeded" and len(api.seen) == 1
        assert call.outcome.started_at.timestamp() <= api.seen[0]["at"]


def test_nothing_is_sent_for_a_call_that_is_refused(api):
    with calling(api.url + "/ok"):
        call, thread, told = begin(utcnow())
        told.get(timeout=5)
        call.refuse()
        thread.join(5)
    assert not thread.is_alive() and api.seen == []


def test_nothing_is_sent_once_the_lease_is_over(api):
    """As after a suspension between the claim and the request."""
    with calling(api.url + "/ok"):
        call, thread, told = begin(utcnow())
        told.get(timeout=5)
        call.grant("token", steady())
        thread.join(5)
        assert call.unsent and call.outcome is None and api.seen == []


def test_no_redirect_is_followed_once_the_lease_is_over(api):
    with calling(api.url + "/redirect/200"):
        call, thread, told = begin(utcnow())
        told.get(timeout=5)
        # Suspended just before it follows.
        connection.shared()[1].hooks["response"].append(lambda *_, **__: setattr(call, "lease_end", steady()))
        call.grant("token", steady() + 60)
        thread.join(5)
    assert len(api.seen) == 1 and "suspended" in call.outcome.error


def test_what_waited_at_the_gate_for_long_goes_out_over_a_new_connection(api, monkeypatch):
    with calling(api.url + "/ok"):
        connections = api.connections
        call, thread, told = begin(utcnow())
        told.get(timeout=5)
        until(lambda: api.connections == connections + 1)
        later = steady() + 2 * connection.FIRST_MAX      # the clock moves on, nobody has to wait
        offset = 2 * connection.FIRST_MAX
        for module in (attempt, connection):
            monkeypatch.setattr(module, "steady", lambda: steady() + offset)
        call.grant("token", later + 60)
        thread.join(5)
        assert call.outcome.status == "Succeeded"
        assert len(api.seen) == 1 and api.connections == connections + 2


def test_a_failure_to_connect_counts_only_once_it_is_due():
    """The API's server is being restarted; when the call is due it is there."""
    port = free_port()
    with calling(f"http://127.0.0.1:{port}/ok"):
        due = utcnow() + timedelta(seconds=1.5)
        refused = threading.Event()
        connect = connection._Watched.connect

        def noticed(self):
            try:
                connect(self)
            finally:
                refused.set()
        with mock.patch.object(connection._Watched, "connect", noticed):
            call, thread, told = begin(due)
            assert refused.wait(5) and call.outcome is None
            api = Api().start(port=port)
            assert told.get(timeout=5) is call and call.outcome is None
            call.grant("token", steady() + 60)
            thread.join(5)
    assert call.outcome.status == "Succeeded" and len(api.seen) == 1


def test_a_failure_to_connect_sent_nothing_and_has_no_start():
    due = utcnow() + timedelta(seconds=0.3)
    with calling(f"http://127.0.0.1:{free_port()}/"):
        call, thread, told = begin(due)
        assert told.get(timeout=5) is call
    assert call.outcome.error == "Connection refused" and call.outcome.started_at is None
    assert call.outcome.ended_at >= due


def test_nobody_listens():
    with calling(f"http://127.0.0.1:{free_port()}/"):
        assert make_call().error == "Connection refused"


def test_no_such_host():
    with calling("http://no-such-host.invalid/"):
        assert make_call().error.startswith("could not resolve no-such-host.invalid")


@pytest.fixture(scope="module")
def secure_api():
    """The API's stand-in with TLS; `.certificate` is the file of the only certificate to trust for it."""
    files = certificate(WORK)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    api = Api().start(context)
    api.certificate = files[0]
    return api


def test_https_reads_the_certificates_to_trust_once(secure_api, monkeypatch):
    """Not for each connection: that would be seconds of computing in a burst."""
    read, load = [], ssl.SSLContext.load_verify_locations

    def counting(self, *args, **kwargs):
        read.append(kwargs)
        return load(self, *args, **kwargs)
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counting)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure_api.certificate))
    secure_api.seen.clear()
    with calling(secure_api.url + "/close"):
        assert [make_call().status for _ in range(3)] == ["Succeeded"] * 3
    assert len({request["connection"] for request in secure_api.seen}) == 3
    assert read == [{"cafile": str(secure_api.certificate)}]


def test_https_with_a_folder_of_certificates(secure_api, monkeypatch, work):
    name = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", secure_api.certificate],
                          check=True, capture_output=True, text=True).stdout.strip()
    (work / f"{name}.0").write_bytes(secure_api.certificate.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(work))
    with calling(secure_api.url + "/ok"):
        assert make_call().status == "Succeeded"


def test_a_redirect_to_https(api, secure_api, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure_api.certificate))
    with calling(f"{api.url}/redirect-to/{secure_api.url}/ok"):
        assert make_call().status == "Succeeded"


def test_a_server_that_nobody_vouches_for(api, secure_api, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    secure_api.seen.clear()
    for url in (secure_api.url, f"{api.url}/redirect-to/{secure_api.url}/ok"):
        with calling(url):
            outcome = make_call()
        assert outcome.status == "Failed" and "self" in outcome.error and outcome.error.startswith("TLS: ")
    assert secure_api.seen == []


def test_a_server_of_another_name(secure_api, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure_api.certificate))
    with calling(secure_api.url.replace("127.0.0.1", "localhost")):
        outcome = make_call()
    assert outcome.status == "Failed" and "localhost" in outcome.error


def test_certificates_that_cannot_be_read_are_named_and_do_not_matter_to_http(api, secure_api, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    with calling(secure_api.url):
        assert make_call().error == "cannot read the certificates in /no/such/bundle.pem: No such file or directory"
    with calling(api.url + "/ok"):
        assert make_call().status == "Succeeded"


def test_past_its_grace_it_is_missed_and_nothing_is_sent(api):
    with calling(api.url + "/ok", GRACE=60):
        assert make_call(utcnow() - timedelta(seconds=61)).status == "Missed"
    assert api.seen == []


def test_connections_are_kept_for_the_burst_but_not_trusted_for_long(api, monkeypatch):
    with calling(api.url + "/ok"):
        for _ in range(3):
            make_call()
        assert len({request["connection"] for request in api.seen}) == 1
        monkeypatch.setattr(connection, "steady", lambda: steady() + connection.IDLE_MAX)
        make_call()
        assert len({request["connection"] for request in api.seen}) == 2


def test_calls_share_no_cookies(api):
    with calling(api.url + "/redirect/200"):
        api.switched = "/cookie"
        make_call()
        api.switched = None
        make_call()
    assert [request["path"] for request in api.seen] == ["/redirect/200", "/redirect/200", "/status/200"]
    assert all("Cookie" not in request["headers"] for request in api.seen)


def test_a_password_in_the_url_is_used_and_never_told(api):
    with calling(api.url.replace("//", "//ann:secret@") + "/status/500"):
        outcome = make_call()
        assert api.seen[0]["headers"]["Authorization"].startswith("Basic ")
        assert "secret" not in outcome.error
    with calling(f"http://ann:secret@127.0.0.1:{free_port()}/"):
        assert "secret" not in make_call().error


def test_control_characters_from_outside_do_not_reach_the_outcome():
    call = Attempt(1, utcnow())
    call.fail("a\x1b[2Jb\nc\ud800")
    assert call.outcome.error == "a\\x1b[2Jb\\nc\\ud800"
