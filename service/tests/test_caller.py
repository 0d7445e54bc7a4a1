"""One call: on time, once, bounded in time and in size, and never elsewhere."""
import subprocess
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from conftest import WORK, Api, free_port
from django.test import override_settings

from scheduler import caller
from scheduler.caller import Call, utcnow, wait_until


@contextmanager
def calling(url, **settings):
    """A fresh session for calls of that URL."""
    with override_settings(API_URL=url, **settings):
        caller._session.cache_clear()
        try:
            yield
        finally:
            caller._session.cache_clear()


def make_call(due=None):
    """Makes a call as a worker does, checked on from another thread; returns its outcome."""
    call = Call(1, due or utcnow())
    thread = threading.Thread(target=call.make, daemon=True)
    thread.start()
    while call.outcome is None:
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


def test_nobody_listens():
    with calling(f"http://127.0.0.1:{free_port()}/"):
        assert make_call().error == "Connection refused"


def test_no_such_host():
    with calling("http://no-such-host.invalid/"):
        assert make_call().error.startswith("could not resolve no-such-host.invalid")


@pytest.fixture(scope="module")
def secure_api():
    """The API's stand-in with TLS; `.certificate` is the file of the only certificate to trust for it."""
    key, certificate = WORK / "key.pem", WORK / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1",
                    "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    api = Api().start(context)
    api.certificate = certificate
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


def test_never_early_by_a_clock_that_jumps():
    times = iter([0.0, 3.0, 1.0, 4.999, 5.0])
    epoch = utcnow()
    last, slept = [], []

    def clock():
        last.append(next(times))
        return epoch + timedelta(seconds=last[-1])
    wait_until(epoch + timedelta(seconds=5), clock, slept.append)
    assert last[-1] == 5.0 and max(slept) <= 0.5
    assert slept[-1] == pytest.approx(0.001)


def test_past_its_grace_it_is_missed_and_nothing_is_sent(api):
    with calling(api.url + "/ok", GRACE=60):
        assert make_call(utcnow() - timedelta(seconds=61)).status == "Missed"
        waiting = Call(1, utcnow() - timedelta(seconds=61))     # its thread never came
        waiting.check()
        assert waiting.outcome.status == "Missed" and waiting.outcome.started_at is None
        waiting.make()
    assert api.seen == []


def test_connections_are_kept_for_the_burst_but_not_trusted_for_long(api, monkeypatch):
    with calling(api.url + "/ok"):
        for _ in range(3):
            make_call()
        assert len({request["connection"] for request in api.seen}) == 1
        monkeypatch.setattr(caller, "IDLE_MAX", 0)
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
    call = Call(1, utcnow())
    call._end("Failed", error="a\x1b[2Jb\nc\ud800")
    assert call.outcome.error == "a\\x1b[2Jb\\nc\\ud800"
