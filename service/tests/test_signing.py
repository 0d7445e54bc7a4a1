"""How a target knows who calls it, and that it was this call already: Standard Webhooks, and OAuth 2."""
import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import parse_qs

import pytest
from conftest import until
from standardwebhooks import Webhook, WebhookVerificationError
from test_answers import OK
from test_attempt import Api, allowed, answer, attempt_of, make, refused, to

from scheduler.base.clock import steady, utcnow
from scheduler.calls import auth, connection
from scheduler.calls.attempt import Attempt
from scheduler.calls.outcomes import ANSWERED, NOTHING
from scheduler.calls.request import OAuth

pytestmark = pytest.mark.no_database
KEY, OTHER = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))


# --- Signatures ----------------------------------------------------------------------------------

@pytest.mark.parametrize("body", [b'{"id": 7, "name": "Gr\xc3\xbc\xc3\x9fe"}', b"{}"])
def test_their_own_verifier_accepts_it(body):
    api = Api(OK)
    make(to(api.url, "POST", body=body, message_id="call_1_abc", signing=(KEY,)))
    _, headers, came = api.messages[0]
    assert Webhook(KEY).verify(came, dict(headers)) == json.loads(body)
    assert api.sent("webhook-id") == api.sent("Idempotency-Key") == ["call_1_abc"]
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(came + b" ", dict(headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(came, dict(headers))


def test_what_has_no_body_is_signed_too():
    api = Api(OK)
    make(to(api.url, message_id="call_1_abc", signing=(KEY,)))
    Webhook(KEY).verify(b"", dict(api.messages[0][1]), json_parse=False)


def test_while_one_key_is_being_changed_both_are_good():
    api = Api(OK)
    make(to(api.url, "POST", body=b"{}", message_id="call_1_abc", signing=(OTHER, KEY)))
    [signatures] = api.sent("webhook-signature")
    assert len(signatures.split(" ")) == 2
    for key in (KEY, OTHER):
        Webhook(key).verify(b"{}", dict(api.messages[0][1]))


def test_without_a_key_there_is_no_signature_and_the_call_is_known_all_the_same():
    api = Api(OK)
    make(to(api.url, message_id="call_1_abc"))
    assert api.sent("webhook-id") == ["call_1_abc"] and api.sent("webhook-signature") == []


def test_the_time_is_that_of_sending():
    """And not of connecting, which is earlier; so a repetition can be told from an old request."""
    api = Api(OK)
    due = utcnow() + timedelta(seconds=1.5)
    with allowed():
        attempt_of(to(api.url, "POST", body=b"{}", message_id="call_1_abc", signing=(KEY,)), due)
    assert int(api.sent("webhook-timestamp")[0]) == int(due.timestamp())
    Webhook(KEY).verify(b"{}", dict(api.messages[0][1]))


def test_no_signature_is_kept():
    outcome = make(to(Api(OK).url, "POST", body=b"{}", message_id="call_1_abc", signing=(KEY,), secrets=(KEY,)))
    assert ["webhook-signature", "***"] in outcome.kept["request"]["headers"]
    assert ["webhook-id", "call_1_abc"] in outcome.kept["request"]["headers"]


# --- OAuth 2 client credentials ------------------------------------------------------------------

class Tokens(Api):
    """A token's endpoint: token-1, token-2 and so on."""

    def __init__(self, life=3600, **more):
        self.given = 0

        def play(connection, n):
            self.given += 1
            connection.sendall(answer(200, json.dumps(
                {"access_token": f"token-{self.given}", "token_type": "Bearer", "expires_in": life} | more).encode()))
        super().__init__(play)


class Guarded(Api):
    """An API that lets in whoever has one of `good`."""

    def __init__(self, *good):
        self.good = set(good)

        def play(connection, n):
            connection.sendall(OK if self.sent("Authorization") and self.sent("Authorization")[0] in self.good else answer(401))
        super().__init__(play)


@pytest.fixture(autouse=True)
def no_tokens_of_before():
    auth.forget()


def by_oauth(api, tokens, **options):
    return to(api.url, "POST", **{"body": b"x", "oauth": OAuth(getattr(tokens, "url", tokens), "me & you", "s3cr:et/1", "a b")} | options)


def test_a_token_is_fetched_as_rfc_6749_says_and_kept():
    tokens, api = Tokens(), Guarded("Bearer token-1")
    with allowed():
        outcomes = [attempt_of(by_oauth(api, tokens)).outcome for _ in range(3)]
    assert [outcome.status for outcome in outcomes] == ["Succeeded"] * 3 and len(tokens.messages) == 1
    first, _, body = tokens.messages[0]
    assert first == "POST / HTTP/1.1" and tokens.sent("Content-Type") == ["application/x-www-form-urlencoded"]
    assert parse_qs(body.decode()) == {"grant_type": ["client_credentials"], "scope": ["a b"]}
    assert base64.b64decode(tokens.sent("Authorization")[0].removeprefix("Basic ")) == b"me+%26+you:s3cr%3Aet%2F1"
    shown = str(outcomes)
    assert "token-1" not in shown and "s3cr" not in shown
    assert ["Authorization", "***"] in outcomes[0].kept["request"]["headers"]


def test_a_token_that_the_api_tells_again_is_not_kept():
    api = Api(answer(500, b"no token-1 here"))
    assert make(by_oauth(api, Tokens())).kept["response"]["body"] == "no *** here"


@pytest.mark.parametrize("life, after, fetched", [
    (3600, 3500, 1), (3600, 3580, 2), (10, 4, 1), (10, 6, 2), ("60", 25, 1), ("60", 31, 2), (None, 200, 1), (None, 400, 2)])
def test_a_token_is_used_until_shortly_before_it_expires(monkeypatch, life, after, fetched):
    tokens, api, later = Tokens(life), Guarded("Bearer token-1", "Bearer token-2"), [0]
    for module in (auth, connection):
        monkeypatch.setattr(module, "steady", lambda: steady() + later[0])
    with allowed():
        attempt_of(by_oauth(api, tokens))
        later[0] = after
        assert attempt_of(by_oauth(api, tokens)).outcome.status == "Succeeded"
    assert tokens.given == fetched


def test_another_version_of_the_target_has_another_token():
    tokens, api = Tokens(), Guarded("Bearer token-1", "Bearer token-2", "Bearer token-3")
    with allowed():
        for request in (by_oauth(api, tokens), by_oauth(api, tokens, version=4), by_oauth(api, tokens, target_id=2)):
            attempt_of(request)
    assert tokens.given == 3


def test_a_token_is_renewed_once_after_a_401():
    tokens, api = Tokens(), Guarded("Bearer token-1")
    with allowed():
        attempt_of(by_oauth(api, tokens))
        api.good = {"Bearer token-2"}
        assert attempt_of(by_oauth(api, tokens)).outcome.status == "Succeeded"
        assert (tokens.given, len(api.messages)) == (2, 3)
        api.good = set()
        outcome = attempt_of(by_oauth(api, tokens)).outcome
    assert (outcome.failure, outcome.http_status) == (ANSWERED, 401) and (tokens.given, len(api.messages)) == (3, 5)


def test_a_renewal_that_fails_did_nothing():
    def play(connection, n):
        connection.sendall(answer(200, b'{"access_token": "a"}') if n == 0 else answer(500))
    outcome = make(by_oauth(Guarded(), Api(play)))
    assert outcome.failure == NOTHING and "no access token" in outcome.error


def test_one_thread_fetches_and_the_others_wait():
    api, arrived, go = Guarded("Bearer t"), threading.Event(), threading.Event()

    def play(connection, n):
        arrived.set()
        go.wait(5)
        connection.sendall(answer(200, b'{"access_token": "t"}'))
    tokens = Api(play)
    with allowed(), ThreadPoolExecutor(20) as pool:
        running = [pool.submit(attempt_of, by_oauth(api, tokens, timeout=10)) for _ in range(20)]
        assert arrived.wait(5)
        go.set()
        assert {future.result().outcome.status for future in running} == {"Succeeded"}
    assert len(tokens.messages) == 1 and len(api.messages) == 20


def test_those_who_waited_for_one_that_failed_do_not_try_it_one_after_the_other():
    api, go = Api(OK), threading.Event()

    def play(connection, n):
        go.wait(5)
        connection.sendall(answer(500))
    tokens = Api(play)
    with allowed():
        attempts = [Attempt(n, utcnow(), by_oauth(api, tokens, timeout=10)) for n in range(20)]
        threads = [threading.Thread(target=attempt.make, daemon=True) for attempt in attempts]
        for thread in threads:
            thread.start()
        until(lambda: len(tokens.messages) == 1)
        go.set()
        for thread in threads:
            thread.join(10)
    assert {attempt.outcome.failure for attempt in attempts} == {NOTHING} and api.messages == []
    assert len(tokens.messages) < 10


@pytest.mark.parametrize("tokens, words", [
    (lambda: refused(), "Connection refused"),
    (lambda: Api(answer(400, b'{"error": "invalid_client"}')).url, "HTTP status 400, invalid_client"),
    (lambda: Api(answer(400, b'{"error": "s3cr:et/1"}')).url, "HTTP status 400"),
    (lambda: Api(answer(302, Location="/")).url, "HTTP status 302"),
    (lambda: Api(answer(200, b"no JSON")).url, "none is in its answer"),
    (lambda: Api(answer(200, b"[" * 60_000)).url, "none is in its answer"),
    (lambda: Api(answer(200, b"[1]")).url, "none is in its answer"),
    (lambda: Api(answer(200, b'{"access_token": 7}')).url, "none is in its answer"),
    (lambda: Api(answer(200, b'{"access_token": "a\\r\\nX: 1"}')).url, "none is in its answer"),
    (lambda: Api(answer(200, b'{"access_token": "a", "token_type": "mac"}')).url, "not of the type Bearer"),
    (lambda: Api(lambda connection, n: connection.recv(1)).url, "within 1 s"),
    (lambda: "http://10.0.0.1/", "TARGET_NETWORKS"),
    (lambda: "http://no-such-host.invalid/", "could not resolve its host"),
])
def test_a_token_that_cannot_be_had(tokens, words):
    api = Api(OK)
    outcome = make(by_oauth(api, tokens(), timeout=1.0))
    assert (outcome.status, outcome.failure, outcome.started_at) == ("Failed", NOTHING, None)
    assert words in outcome.error and "s3cr" not in str(outcome) and api.messages == []


def test_a_token_goes_to_no_other_origin():
    other = Api(OK)
    api = Api(answer(307, Location=other.url))
    assert make(by_oauth(api, Tokens())).status == "Succeeded"
    assert api.sent("Authorization") == ["Bearer token-1"] and other.sent("Authorization") == []
