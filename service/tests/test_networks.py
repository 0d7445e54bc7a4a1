"""Where targets may be: by the address that is connected to, and not by what it is called."""
import os
import re
import socket
import subprocess
import sys
from ipaddress import ip_network
from urllib.parse import urlsplit

import pytest
from conftest import SERVICE, free_port
from django.test import override_settings
from test_answers import OK
from test_attempt import LOOPBACK, Api, allowed, answer, attempt_of, make, slow_to_accept, to
from test_caller import calling

from scheduler.calls import networks
from scheduler.calls.outcomes import NOTHING

pytestmark = pytest.mark.no_database
REFUSAL = "its host is at no public address, and TARGET_NETWORKS does not allow it"

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
          "2002:808:808::1"]
NOT_PUBLIC = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
    "100.100.100.200", "169.254.169.254", "168.63.129.16", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "2001:db8::1",
    "2001::1", "2001:10::1", "3fff::1", "5f00::1", "4000::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::1", "2002:a00:1::1", "no address", ""]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    with override_settings(TARGET_NETWORKS=[]):
        assert networks.allowed(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address):
    with override_settings(TARGET_NETWORKS=[]):
        assert not networks.allowed(address)


@pytest.mark.parametrize("network, address, good", [
    ("10.0.0.0/8", "10.1.2.3", True), ("10.0.0.0/8", "::ffff:10.1.2.3", True), ("10.0.0.0/8", "64:ff9b::10.1.2.3", True),
    ("10.0.0.0/8", "192.168.0.1", False), ("10.0.0.0/8", "8.8.8.8", True), ("fd00::/8", "fd00::1", True),
    ("fd00::/8", "fc00::1", False), ("127.0.0.1/32", "127.0.0.2", False), ("::1/128", "127.0.0.1", False)])
def test_networks_that_are_allowed(network, address, good):
    with override_settings(TARGET_NETWORKS=[ip_network(network)]):
        assert networks.allowed(address) == good


@pytest.fixture
def inside(request):
    """What nobody outside is to reach: an API that listens on every address of this machine."""
    return Api(OK, host="0.0.0.0" if not hasattr(request, "param") else request.param)


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "0",
    "0.0.0.0", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::127.0.0.1]", "\u0031\u0032\u0037.0.0.1", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021"])
def test_loopback_in_every_notation(inside, host):
    outcome = make(to(f"http://{host}:{inside.port}/"), networks=[])
    assert (outcome.status, outcome.failure, outcome.started_at) == ("Failed", NOTHING, None)
    assert re.search(f"{REFUSAL}|could not resolve|no host that can be called", outcome.error), outcome.error
    assert inside.open == 0 and inside.requests == []


def test_nobody_learns_whether_something_listens_there(inside):
    there, nowhere = (make(to(f"http://127.0.0.1:{port}/"), networks=[]) for port in (inside.port, free_port()))
    assert there.error == nowhere.error == REFUSAL
    assert "address" not in there.kept and set(there.kept["phases"]) == set(nowhere.kept["phases"])


@pytest.fixture
def name(monkeypatch):
    """The addresses of api.test, as the next look-ups find them: a list of lists."""
    real, found = socket.getaddrinfo, []

    def look_up(host, port, *more, **options):
        if host != "api.test":
            return real(host, port, *more, **options)
        now = found.pop(0) if len(found) > 1 else found[0]
        return [entry for address in now for entry in real(address, port, *more, **options)]
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


def test_a_name_that_means_a_private_address(inside, name):
    name.append(["127.0.0.1"])
    outcome = make(to(f"http://api.test:{inside.port}/"), networks=[])
    assert outcome.error == REFUSAL and outcome.failure == NOTHING and inside.requests == []


def test_a_name_that_changes_its_address_between_check_and_connect(name):
    """There is one look-up, and what it found is what is connected to."""
    good, bad = Api(OK), None
    bad = Api(OK, host="127.0.0.9", port=good.port)
    name += [["127.0.0.1"], ["127.0.0.9"]]
    outcome = make(to(f"http://api.test:{good.port}/"), networks=[ip_network("127.0.0.1/32")])
    assert outcome.status == "Succeeded" and outcome.kept["address"] == "127.0.0.1"
    assert len(good.requests) == 1 and bad.requests == []
    outcome = make(to(f"http://api.test:{good.port}/"), networks=[ip_network("127.0.0.1/32")])
    assert outcome.error == REFUSAL and bad.requests == []


def test_of_several_addresses_only_those_that_are_allowed_are_tried(name):
    bad = Api(OK, host="127.0.0.9")
    name.append(["127.0.0.9", "127.0.0.1", "127.0.0.9"])
    outcome = make(to(f"http://api.test:{bad.port}/"), networks=[ip_network("127.0.0.1/32")])
    assert "Connection refused" in outcome.error and bad.requests == []


def test_a_name_with_a_hundred_addresses_holds_no_thread_for_longer_than_the_timeout(name):
    port = urlsplit(slow_to_accept()).port
    name.append(["127.0.0.1"] * 100)
    outcome = make(to(f"http://api.test:{port}/", timeout=1.5, connect_timeout=0.7))
    assert (outcome.status, outcome.failure) == ("Failed", NOTHING)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_private_address(inside, status):
    outside = Api(answer(status, Location=f"http://127.0.0.9:{inside.port}/"), host="127.0.0.1")
    outcome = make(to(outside.url), networks=[ip_network("127.0.0.1/32")])
    assert (outcome.error, outcome.failure) == (REFUSAL, NOTHING) and inside.requests == []
    assert outcome.kept["request"]["url"] == f"http://127.0.0.9:{inside.port}/"     # for who may see that


def test_api_url_is_exempt_and_shares_no_connection_with_targets():
    api = Api(OK)
    with calling(api.url + "/ok", TARGET_NETWORKS=[]):
        assert attempt_of(None).outcome.status == "Succeeded"
        assert attempt_of(to(api.url)).outcome.error == REFUSAL
    with calling(api.url + "/ok", TARGET_NETWORKS=LOOPBACK):
        attempt_of(None), attempt_of(to(api.url)), attempt_of(None), attempt_of(to(api.url))
    assert [number for number, _ in api.requests[1:]] == [2, 3, 2, 3]


class Proxy(Api):
    """Answers what it is asked for instead of passing it on."""


def test_a_proxy_of_the_environment_is_no_way_around(inside, monkeypatch):
    proxy = Proxy()
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, proxy.url)
    for scheme in ("http", "https"):
        outcome = make(to(f"{scheme}://127.0.0.1:{inside.port}/"), networks=[])
        assert outcome.error == REFUSAL
    assert proxy.requests == [] and inside.requests == []


def test_target_proxy_decides_instead(inside):
    proxy = Proxy(OK, host="127.0.0.3")
    with allowed([], TARGET_PROXY=proxy.url.replace("//", "//ann:pass-word@")):
        outcome = attempt_of(to(f"http://10.9.9.9:{inside.port}/x", "POST", body=b"data")).outcome
    assert outcome.status == "Succeeded" and inside.requests == []
    assert proxy.messages[0][0] == f"POST http://10.9.9.9:{inside.port}/x HTTP/1.1" and proxy.messages[0][2] == b"data"
    assert proxy.sent("Proxy-Authorization") and "pass-word" not in str(outcome)


def test_target_proxy_is_asked_for_a_way_through_with_tls():
    proxy = Proxy(b"HTTP/1.1 403 No\r\n\r\n")
    with allowed([], TARGET_PROXY=proxy.url):
        outcome = attempt_of(to("https://10.9.9.9/x")).outcome
    assert proxy.messages[0][0].startswith("CONNECT 10.9.9.9:443 ")
    assert outcome.failure == NOTHING and "403" in outcome.error


def test_target_proxy_is_not_used_for_api_url():
    api, proxy = Api(OK), Proxy()
    with calling(api.url + "/ok", TARGET_PROXY=proxy.url):
        assert attempt_of(None).outcome.status == "Succeeded"
    assert proxy.requests == [] and len(api.requests) == 1


@pytest.mark.parametrize("variable, value, said", [
    ("TARGET_NETWORKS", "10.0.0.0/33", "TARGET_NETWORKS"), ("TARGET_NETWORKS", "10.0.0.1/8", "has host bits set"),
    ("TARGET_NETWORKS", "10.0.0.0/8 fd00::/8", "separated by commas"), ("TARGET_NETWORKS", "intranet", "TARGET_NETWORKS"),
    ("TARGET_PROXY", "proxy:3128", "TARGET_PROXY"), ("TARGET_PROXY", "socks5://proxy:1080", "TARGET_PROXY"),
    ("TARGET_PROXY", "http://ann:pass word@proxy:3128", "TARGET_PROXY"), ("TARGET_PROXY", "http://proxy:99999", "TARGET_PROXY")])
def test_settings_that_are_wrong_are_refused_at_the_start(variable, value, said):
    ended = start(**{variable: value})
    assert ended.returncode and "ImproperlyConfigured" in ended.stderr and said in ended.stderr
    assert "pass word" not in ended.stderr.rpartition("ImproperlyConfigured")[2]


def test_settings_that_are_right():
    ended = start(TARGET_NETWORKS=" 10.0.0.0/8, fd00::/8 ,192.168.1.7,", TARGET_PROXY="https://ann:p%40ss@proxy:3128/")
    assert ended.stdout.split() == ["10.0.0.0/8", "fd00::/8", "192.168.1.7/32"], ended.stderr


def start(**environment):
    code = "from scheduler import settings; print(*settings.TARGET_NETWORKS)"
    return subprocess.run([sys.executable, "-c", code], cwd=SERVICE, capture_output=True, text=True,
                          env={**os.environ, "DEBUG": "true", **environment})
