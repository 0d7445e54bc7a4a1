"""What is kept of an exchange for people to read: texts, bounded, and without the secrets that were sent."""
import html
import json
import re
import zlib
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

from ..base.words import hidden
from .auth import credentials

HEADERS_MAX = 100           # of one message
HEADER_MAX = 16384          # characters of all of them
SENT_MAX = 16384            # characters of a request's body
LEAST = 3                   # characters of a secret that is looked for; what is shorter is part of every text

# Encodings that decode in one quick pass; Python has others, and a server can name them.
_CHARSET = re.compile(r"(?i)charset\s*=\s*[\"']?(utf-?(?:8|16|32)(?:[lb]e)?|us-ascii|iso-8859-[0-9]{1,2}|windows-125[0-8])\b")


class Hider:
    """Puts *** in the place of the secrets of a request, in each form in which it may come back."""

    def __init__(self, request, token=None):
        """request: Request; token: str, an access token that goes with it, or None"""
        self._of_target = request.guarded
        found = set(request.secrets) | ({token} if token else set())
        if request.oauth:
            found |= {request.oauth.client_secret, credentials(request.oauth)}
        found |= {secret.partition(" ")[2] for secret in found}     # without its scheme, as "Basic"
        forms = set()
        for secret in found:
            data = secret.encode()
            forms |= {secret, data.decode("latin-1"), quote(secret), quote(secret, safe=""), quote_plus(secret), html.escape(secret),
                      json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1],
                      b64encode(data).decode().rstrip("="), urlsafe_b64encode(data).decode().rstrip("=")}
        self._forms = sorted((form for form in forms if len(form) >= LEAST), key=len, reverse=True)

    def __call__(self, text, cut=True):
        """text: str; cut: whether it may end in the middle of a secret. Returns it without any."""
        if not self._of_target:
            return hidden(text)
        for form in self._forms:
            text = text.replace(form, "***")
        if cut:
            for form in self._forms:
                begun = next((n for n in range(min(len(form), len(text)), LEAST - 1, -1) if text.endswith(form[:n])), 0)
                text = text[:len(text) - begun]
        return text


def decoded(data, headers, most):
    """The text of a body: str.

    data: bytes, its beginning as it came; headers: of the answer; most: bytes of what it decompresses to

    What is compressed although nobody asked for it is read if it is gzip or deflate (RFC 9110, 8.4.1), as far as it
    can be. NUL, which PostgreSQL keeps in no text, is U+FFFD.
    """
    coding = headers.get("Content-Encoding", "").strip().lower()
    if coding in ("gzip", "x-gzip", "deflate"):
        for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):     # some send deflate without its frame
            try:
                data = zlib.decompressobj(bits).decompress(data, max(1, most))
                break
            except zlib.error:
                pass
    elif coding not in ("", "identity"):
        return ""
    charset = _CHARSET.search(headers.get("Content-Type", ""))
    try:
        text = data.decode(charset[1] if charset else "utf-8", "replace")
    except LookupError:                         # ISO 8859 has gaps
        text = data.decode("utf-8", "replace")
    return text.replace("\0", "\ufffd")


def headers(pairs, hide):
    """[[name, value], ...] of `pairs`, as many as are kept."""
    found, left = [], HEADER_MAX
    for name, value in pairs[:HEADERS_MAX]:
        left -= len(name) + len(value)
        if left < 0:
            break
        found.append([hide(name), hide(value).replace("\0", "\ufffd")])
    return found


def body(text, most, whole, hide):
    """(the first `most` characters of a body that are kept, whether there was more)"""
    shown = hide(text) if most else ""
    return shown[:most], not whole or len(text) > most


def sent(data, hide):
    """The body of a request, as it is kept: str, or None if there was none."""
    return None if data is None else hide(data.decode("utf-8", "replace").replace("\0", "\ufffd"))[:SENT_MAX]
