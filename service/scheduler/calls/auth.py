"""How a request shows who sends it: access tokens of OAuth 2, and signatures of Standard Webhooks."""
import json
import re
import threading
from base64 import b64encode
from contextlib import contextmanager
from datetime import timezone
from urllib.parse import quote_plus, urlencode, urlsplit

import requests
from standardwebhooks import Webhook

from ..base.clock import steady
from ..base.secrets import meet
from .connection import Stale, current, drain, guarded

MARGIN = 30.0           # seconds before its end from which a token is not used any more, or half its life if that is less
UNTOLD = 300.0          # seconds for which one is used that says of no end
ANSWER_MAX = 65536      # bytes of a token endpoint's answer

_ERROR = re.compile("[a-z_]{1,40}")             # RFC 6749, 5.2; other words might be anything
_TOKEN = re.compile("[!-~]{1,16384}")           # one that can stand in a header


class NoToken(Exception):
    """No access token could be had. Nothing was sent to the target."""


class _Entry:
    """The token of one target, and who is fetching it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.of = self.token = None
        self.good_until = self.failed_at = 0.0      # by steady()
        self.failure = None


_entries = {}           # id of the target: _Entry
_entries_lock = threading.Lock()


def token(request, stale=None):
    """An access token for the target of `request`: str. It is kept until shortly before it expires or the target is
    changed; while one thread fetches it, others wait for that one.

    request: a Request, which has an `oauth`
    stale: str, a token that was refused, and is not given again
    Raises NoToken, and what the connection to the token's endpoint raises.
    """
    with _entries_lock:
        entry = _entries.setdefault(request.target_id, _Entry())
    came = steady()
    if not entry.lock.acquire(timeout=request.timeout):
        raise NoToken(f"no access token within {request.timeout:g} s")
    try:
        of = request.version, request.oauth
        if entry.of == of and entry.token not in (None, stale) and steady() < entry.good_until:
            return entry.token
        if entry.of == of and entry.failed_at > came:       # who waited for that need not try it again
            raise entry.failure
        entry.of, entry.token = of, None
        try:
            entry.token, life = _fetch(request)
        except Exception as error:
            entry.failed_at, entry.failure = steady(), error
            raise
        entry.good_until = steady() + life - min(MARGIN, life / 2)
        return entry.token
    finally:
        entry.lock.release()


def forget():
    """Drops all tokens."""
    with _entries_lock:
        _entries.clear()


def credentials(oauth):
    """The value of Authorization for the token's endpoint (RFC 6749, 2.3.1): str"""
    pair = f"{quote_plus(oauth.client_id)}:{quote_plus(oauth.client_secret)}"
    return "Basic " + b64encode(pair.encode()).decode()


def _fetch(request):
    """(token, seconds that it is good for)"""
    oauth = request.oauth
    host = urlsplit(oauth.url).hostname
    body = {"grant_type": "client_credentials"} | ({"scope": oauth.scope} if oauth.scope else {})
    prepared = requests.Request("POST", oauth.url, {
        "Authorization": credentials(oauth), "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json", "User-Agent": "api-scheduler"}, data=urlencode(body).encode()).prepare()
    adapter, options = guarded()
    with _aside():
        while True:
            try:
                with adapter.send(prepared, timeout=(request.connect_timeout, request.timeout), **options) as response:
                    data, _ = drain(response, ANSWER_MAX, keep=ANSWER_MAX)
                    status = response.status_code
                break
            except Stale:
                pass
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    if status != 200:
        word = answer.get("error")
        more = f", {word}" if isinstance(word, str) and _ERROR.fullmatch(word) else ""
        raise NoToken(f"no access token from {host}: HTTP status {status}{more}")
    value, kind = answer.get("access_token"), answer.get("token_type", "bearer")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise NoToken(f"no access token from {host}: none is in its answer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise NoToken(f"no access token from {host}: it is not of the type Bearer")
    try:
        life = float(answer.get("expires_in", UNTOLD))
    except (TypeError, ValueError, OverflowError):
        life = UNTOLD
    meet([value])
    return value, life if 0 <= life < 1e9 else UNTOLD


class _Aside:
    """A request that a thread makes for its attempt, and that is not the attempt's own: it stands at no gate."""

    others = staticmethod(lambda: False)        # that want its connection
    idle_until_due = staticmethod(lambda: 0.0)
    answers = staticmethod(lambda: None)
    leaves = staticmethod(lambda: False)

    def __init__(self, attempt):
        self.uses = attempt.uses                # so that it is cut when the attempt has taken too long
        self.left, self.request = attempt.left, attempt.request

    def pass_gate(self, connection):
        self.uses(connection)
        if not connection.clean() or not connection.lasts(steady()):
            raise Stale


@contextmanager
def _aside():
    attempt, current.attempt = current.attempt, _Aside(current.attempt)
    try:
        yield
    finally:
        current.attempt = attempt


def signed(request, at):
    """[(name, value), ...]: the headers by which the target knows a call, and its repetitions, and us.

    at: aware datetime, when it is sent. (The body goes into the signature as it is; what is no UTF-8 cannot, as the
    package takes a text.)
    """
    if request.message_id is None:
        return []
    found = [("webhook-id", request.message_id), ("webhook-timestamp", str(int(at.timestamp()))),
             ("Idempotency-Key", request.message_id)]
    if request.signing:
        text = (request.body or b"").decode()
        signatures = [Webhook(key).sign(request.message_id, at.astimezone(timezone.utc), text) for key in request.signing]
        found.append(("webhook-signature", " ".join(signatures)))
    return found
