"""What is kept of an exchange for people to read: texts, bounded, and without the secrets that were sent."""
import html.entities
import re
import zlib
from base64 import b64encode, urlsafe_b64encode
from functools import lru_cache

from ..base.words import hidden
from .auth import credentials

HEADERS_MAX = 100           # of one message
HEADER_MAX = 16384          # characters of all of them
SENT_MAX = 16384            # characters of a request's body
LEAST = 3                   # characters of a secret that is looked for; what is shorter is part of every text
SURE = 32                   # and after which it is none by chance
LONGEST = 12                # of one that is escaped, but for what HTML names at length

# Encodings that decode in one quick pass; Python has others, and a server can name them.
_CHARSET = re.compile(r"(?i)charset\s*=\s*[\"']?(utf-?(?:8|16|32)(?:[lb]e)?|us-ascii|iso-8859-[0-9]{1,2}|windows-125[0-8])\b")


class Hider:
    """Puts *** in the place of the secrets of a request, in each form in which they may come back."""

    def __init__(self, request, token=None):
        """request: Request; token: str, an access token that goes with it, or None"""
        self._of_target = request.guarded
        self._forms = _forms(request.secrets, request.oauth, token) if request.guarded else []

    def __call__(self, text, cut=False):
        """text: str; cut: whether it may end in the middle of a secret. Returns it without any."""
        if not self._of_target:
            return hidden(text, of_targets=False)       # which go nowhere but to them
        for form in self._forms:
            text = form.hide(text)
        if cut:
            for form in self._forms:
                text = text[:form.begun(text)]
        return text


class _Form:
    """What a secret is written as, each of its characters plain or escaped, as a URL, JSON, HTML, or a program's text
    has it. The first SURE characters of a long one are enough to know it by, so that looking for it takes a time that
    only grows with the text."""

    def __init__(self, text):
        self.text = text
        self._start, self._least = (re.compile("".join(_written(c).pattern for c in text[:n])) for n in (SURE, LEAST))

    def hide(self, text):
        parts, end = [], 0
        # Escaped it is longer, and never shorter.
        while len(text) - end >= min(SURE, len(self.text)) and (found := self._start.search(text, end)):
            parts += [text[end:found.start()], "***"]
            end, _ = self._along(text, found.end(), SURE)
        return "".join(parts) + text[end:]

    def begun(self, text):
        """Where in `text` it begins at whose end it is not complete yet: int, or None."""
        at = max(0, len(text) - LONGEST * SURE)
        while found := self._least.search(text, at):
            end, wanted = self._along(text, found.end(), LEAST)
            if end == len(text) or wanted and text[end] in "%\\&" and len(text) - end < LONGEST:     # half an escape
                return found.start()
            at = found.start() + 1
        return None

    def _along(self, text, at, known):
        """(how far `text` goes on as it does, whether it is not complete there)

        at: where it goes on; known: characters of it that stand before
        """
        for c in self.text[known:]:
            if not (match := _written(c).match(text, at)):
                return at, True
            at = match.end()
        return at, False


@lru_cache(4096)
def _written(c):
    """The pattern of the ways to write a character. Letters and digits nobody escapes."""
    if c.isascii() and c.isalnum():
        return re.compile(c)
    data = c.encode("utf-8", "replace")
    ways = {re.escape(c), _hex("".join(f"%{byte:02x}" for byte in data)),
            "".join(rf"(?:\\u{_hex(f'{unit:04x}')})" for unit in _units(c)), rf"&\#0*{ord(c)};", rf"&\#[xX]0*{_hex(f'{ord(c):x}')};"}
    ways |= {rf"&{name}" for name, value in html.entities.html5.items() if value == c and name.endswith(";")}
    if c.isascii():
        ways |= {rf"\\{re.escape(c)}", rf"\\x{_hex(f'{ord(c):02x}')}", *([r"\+"] if c == " " else [])}
    elif ord(c) > 255 or len(data) > 1:     # read as Latin-1, and perhaps escaped then
        ways.add("".join(rf"(?:{re.escape(chr(byte))}|\\u00{_hex(f'{byte:02x}')}|\\x{_hex(f'{byte:02x}')})" for byte in data))
        if ord(c) < 256:
            ways.add(rf"\\x{_hex(f'{ord(c):02x}')}")
    return re.compile(f"(?:{'|'.join(sorted(ways, key=len, reverse=True))})")


def _units(c):
    """Those of UTF-16, as JSON has it."""
    data = c.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[i:i + 2]) for i in range(0, len(data), 2)]


def _hex(text):
    """The pattern of hexadecimal digits, small or not."""
    return re.sub("[a-f]", lambda match: f"[{match[0]}{match[0].upper()}]", text)


def _forms(secrets, oauth, token):
    """As what secrets may come back, the longest first: list of _Form."""
    found = set(secrets) | ({token} if token else set())
    if oauth:
        found |= {oauth.client_secret, credentials(oauth)}
    found |= {secret.partition(" ")[2] for secret in found}     # without its scheme, as "Basic"
    return sorted((form for secret in found for form in _forms_of(secret)), key=lambda form: -len(form.text))


@lru_cache(1000)
def _forms_of(secret):
    data = secret.encode()
    texts = {secret, *_base64(data), *([data.hex(), data.hex().upper()] if len(data) > LEAST else [])}
    return [_Form(text) for text in texts if len(text) >= LEAST]


def _base64(data):
    """What of `data` stands in the base64 of it, and of more in which it begins at any byte."""
    for encode in (b64encode, urlsafe_b64encode):
        yield encode(data).decode().rstrip("=")
        for before in range(3):
            first, end = (0, 2, 3)[before], (before + len(data)) * 8 // 6
            if end - first > 2 * LEAST:
                yield encode(bytes(before) + data).decode()[first:end]


def decoded(data, headers, most):
    """The text of a body: str, or None if that cannot be known.

    data: bytes, its beginning as it came; headers: of the answer; most: bytes of what it decompresses to

    What is compressed although nobody asked for it is read if it is gzip or deflate (RFC 9110, 8.4.1). NUL, which PostgreSQL keeps in no text, is U+FFFD.
    """
    coding = headers.get("Content-Encoding", "").strip().lower()
    if coding in ("gzip", "x-gzip", "deflate"):
        for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):     # some send deflate without its frame
            try:
                data = zlib.decompressobj(bits).decompress(data, max(1, most))
                break
            except zlib.error:
                pass
        else:
            return None
    elif data and coding not in ("", "identity"):
        return None
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
    shown = hide(text, cut=True) if most else ""
    return shown[:most], not whole or len(text) > most


def sent(data, hide):
    """The body of a request, as it is kept: str, or None if there was none."""
    return None if data is None else hide(data.decode("utf-8", "replace").replace("\0", "\ufffd"))[:SENT_MAX]
