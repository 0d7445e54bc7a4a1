"""The rules for what is sent, of targets, schedules and calls alike. Each takes what came from outside, of any type
that JSON has, and raises ValueError, with a sentence for a person, or returns it in one form."""
import json
import re
from base64 import b64decode
from urllib.parse import urlsplit

from ..base.words import printable
from ..calls import template

HEADERS_MAX = 100
HEADER_BYTES_MAX = 16384    # of all of them together; servers take as much, and few take more
BODY_MAX = 262_144          # bytes
DATA_MAX = 65_536           # bytes, as JSON
DATA_KEYS_MAX = 100
DEPTH_MAX = 100             # of values of JSON within others: what reads them, and writes them, has an end to it
NAMED = 10                  # things that are wrong with one list, named one by one

TOKEN = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")       # RFC 9110, 5.6.2
VALUE = re.compile("[\t -~]*")                          # RFC 9110, 5.5, without what nobody knows the meaning of
HOST = re.compile(r"[^\s/?#@\\%:\[\]{}<>\"^`|]+|\[[0-9A-Fa-f:.]+\]")
RATE = re.compile(r"([1-9][0-9]{0,6})\s*/\s*(s|sec|second|m|min|minute|h|hour|d|day)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
UNITS = {"s": "s", "m": "min", "h": "h", "d": "day"}
STATUSES = re.compile(r"([1-5][0-9]{2})(?:\s*-\s*([1-5][0-9]{2}))?")

# What the connection is told, and not the API (RFC 9110, 7.6.1 and 7.2; RFC 9112, 6).
OF_CONNECTION = {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te",
                 "trailer", "upgrade", "expect", "proxy-authorization", "http2-settings"}
SECRET = {"authorization", "cookie"}


def _all(problems):
    """Raises ValueError with all the sentences in the list, if there are any."""
    if problems:
        more = len(problems) - NAMED
        raise ValueError(" ".join([*problems[:NAMED], *([f"And {more} more."] if more > 0 else [])]))


def text(value, most):
    """A text that the database can keep, of at most `most` characters."""
    if not isinstance(value, str):
        raise ValueError("Must be a string.")
    if len(value) > most:
        raise ValueError(f"Has {len(value)} characters; at most {most} are taken.")
    for position, c in enumerate(value, 1) if not value.isprintable() else ():
        if c == "\0" or "\ud800" <= c <= "\udfff":
            raise ValueError(f"Holds U+{ord(c):04X} (character {position}), which is no character.")
    return value


def number(value, least, most, whole=True):
    """A number from `least` to `most`; whole: and no fraction of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most or (
            whole and value != int(value)):
        raise ValueError(f"Must be a {'whole ' if whole else ''}number from {least} to {most}.")
    return int(value) if value == int(value) else value


def same(one, other):
    """Whether two values of JSON are the same. To Python 1 is true, and 1.0."""
    return one == other and (not isinstance(one, (dict, list)) or json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


class Twice(ValueError):
    """A key stands twice in an object: nobody knows which is meant (RFC 8259, section 4)."""


class Decoder(json.JSONDecoder):
    """Of JSON from outside, without what only Python takes for it. Raises Twice, and ValueError."""

    def __init__(self):
        super().__init__(object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs):
    found = {}
    for key, value in pairs:
        if key in found:
            raise Twice(f'The key "{printable(key, 80)}" stands twice; which is meant?')
        found[key] = value
    return found


def _no_constant(name):
    raise ValueError(f"{printable(name, 80)} is no number")


def parsed(text):
    """The value that a str is the JSON of."""
    try:
        return shallow(json.loads(text, cls=Decoder))
    except RecursionError:
        raise ValueError("Is nested too deeply.") from None


def shallow(value):
    """A value of JSON that is not nested too deeply."""
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [part for one in level if isinstance(one, (dict, list))
                 for part in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return value
    raise ValueError("Is nested too deeply.")


def url(value, placeholders=True):
    """A whole http or https URL. Placeholders may stand in its path and its query."""
    value = text(value, 2000)
    if any(c.isspace() or not c.isprintable() or c == "\\" for c in value):
        raise ValueError("Must be a URL without spaces, backslashes and control characters; write them %20 and so on.")
    try:
        parts = urlsplit(value)
        good = (parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
                and HOST.fullmatch(re.sub(r":[0-9]*$", "", parts.netloc.rpartition("@")[2])))
    except ValueError:
        good, parts = False, None
    if parts and "@" in parts.netloc:
        raise ValueError("Must be a URL without a user name and a password; they belong into `auth`.")
    if parts and "{{" in parts.scheme + parts.netloc:
        raise ValueError("Placeholders may stand in the path and the query of a URL only.")
    if not good:
        raise ValueError("Must be a whole http:// or https:// URL, such as https://api.example.org/v1/run.")
    if "#" in value:
        raise ValueError("Must be a URL without #; what is behind it is never sent.")
    if {".", ".."} & set(parts.path.split("/")):
        raise ValueError('Must be a URL without "." and ".." in its path.')
    try:
        if template.names(value) and not placeholders:
            raise ValueError("holds a placeholder, which is not filled in here")
    except ValueError as error:
        raise ValueError(f"It {error}.") from None
    return value


def origin(url):
    """Whom a request is for (RFC 6454): (scheme, host, port)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def header_name(name):
    """A header's name that is not taken: neither the connection's, nor one of those that go with each request."""
    lower = name.lower() if isinstance(name, str) else ""
    shown = printable(str(name), 80)
    if not isinstance(name, str) or not TOKEN.fullmatch(name) or len(name) > 200:
        raise ValueError(f'"{shown}" is no name of a header.')
    if lower in OF_CONNECTION:
        raise ValueError(f"{shown} is for the connection, and is set with each request as it needs to be.")
    if lower.startswith("webhook-") or lower == "idempotency-key":
        raise ValueError(f"{shown} is sent with each request, with a value of the call's.")
    return name


def header_value(name, value):
    """The value of the header `name`, without the blanks around it, which do not belong to it (RFC 9110, 5.5)."""
    if not isinstance(value, str):
        raise ValueError(f"The value of {printable(name, 80)} must be a string.")
    if not VALUE.fullmatch(value):
        raise ValueError(f"The value of {printable(name, 80)} holds more than ASCII letters, digits and signs.")
    return value.strip(" \t")


def few(headers):
    """Raises ValueError if these are more headers than are taken."""
    if len(headers) > HEADERS_MAX:
        raise ValueError(f"There are {len(headers)}; at most {HEADERS_MAX} are taken.")


def headers(value, secret=False):
    """{name: value}, each name once, whatever its letters' case.

    secret: the values are secrets, and hold no placeholders
    """
    if not isinstance(value, dict):
        raise ValueError('Must be an object of names and values: {"X-Name": "value"}.')
    few(value)
    found, problems = {}, []
    for name, content in value.items():
        try:
            header_name(name)
            if name.lower() in SECRET and not secret:
                raise ValueError(f"{name} is secret: put it into the target's `auth` or `secret_headers`.")
            if name.lower() == "content-type" and secret:
                raise ValueError(f"{name} is no secret: put it into `headers`.")
            if name.lower() in map(str.lower, found):
                raise ValueError(f"{name} stands twice.")
            found[name] = header_value(name, content)
            if not secret:
                try:
                    template.names(content)
                except ValueError as error:
                    raise ValueError(f"The value of {name} {error}.") from None
        except ValueError as error:
            problems.append(str(error))
    _all(problems)
    if sum(len(name) + len(content) for name, content in found.items()) > HEADER_BYTES_MAX:
        raise ValueError(f"They have more than {HEADER_BYTES_MAX} bytes.")
    return found


def overlaid(headers, others):
    """{name: value} of `headers` and, beside them and instead of those of the same name, of `others`."""
    names = {name.lower() for name in others}
    return {**{name: value for name, value in headers.items() if name.lower() not in names}, **others}


def content_type(headers):
    """The Content-Type in {name: value}: str, "" if there is none."""
    return next((value for name, value in headers.items() if name.lower() == "content-type"), "")


def body(value, kind):
    """The text of a body, in which the Content-Type's name is `kind`, "" if there is none."""
    if not isinstance(value, str):
        raise ValueError("Must be a string.")
    if len(value) > BODY_MAX or len(value.encode("utf-8", "replace")) > BODY_MAX:
        raise ValueError(f"Has more than {BODY_MAX} bytes.")
    text(value, BODY_MAX)
    if value and not kind:
        raise ValueError("Needs to say what it is, in a header such as Content-Type: application/json.")
    try:
        template.check(value, template.kind(kind) if value else template.TEXT)
    except ValueError as error:
        raise ValueError(f"It {error}.") from None
    return value


def as_body(value, headers):
    """(text, headers) of a body and headers of a call, a schedule or a target as they come in JSON: a body that is no
    text is sent as JSON, and its header says so."""
    if value is None or isinstance(value, str):
        return value, headers
    if isinstance(headers, dict) and not content_type({n: v for n, v in headers.items() if isinstance(v, str)}):
        headers = {**headers, "Content-Type": "application/json"}
    return json.dumps(value, ensure_ascii=False), headers


def data(value):
    """{key: value}, what {{data.KEY}} stands for."""
    if not isinstance(value, dict):
        raise ValueError('Must be an object of keys and values: {"order": 7}.')
    if len(value) > DATA_KEYS_MAX:
        raise ValueError(f"There are {len(value)} keys; at most {DATA_KEYS_MAX} are taken.")
    _all([f'"{printable(str(key), 80)}" is no key: 1 to 64 letters, digits, - and _.' for key in value
          if not template.KEY.fullmatch(key)])
    shallow(value)
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise ValueError("Holds a number that is too large.") from None
    if len(written.encode("utf-8", "replace")) > DATA_MAX:
        raise ValueError(f"Has more than {DATA_MAX} bytes as JSON.")
    for part in _texts(value):
        text(part, DATA_MAX)
    return value


def _texts(value):
    """All texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def statuses(value):
    """((lowest, highest), ...) of a text such as "200-299, 404"."""
    value = text(value, 100)
    found = []
    for piece in value.split(","):
        match = STATUSES.fullmatch(piece.strip())
        if not match or int(match[1]) > int(match[2] or match[1]):
            raise ValueError("Must be HTTP statuses from 100 to 599, such as 200-299, 404.")
        found.append((int(match[1]), int(match[2] or match[1])))
    return tuple(found)


def rate(value):
    """(number, seconds) of a text such as "300/min", None for an empty one."""
    if not (match := RATE.fullmatch(text(value, 20).strip())):
        if not value.strip():
            return None
        raise ValueError("Must be a number per second, minute, hour or day, such as 300/min.")
    return int(match[1]), SECONDS[match[2][0]]


def signing_key(value):
    """A key as Standard Webhooks has it: whsec_ and 24 to 64 bytes in base64."""
    try:
        if not (isinstance(value, str) and value.startswith("whsec_")):
            raise ValueError
        if not 24 <= len(b64decode(value[6:], validate=True)) <= 64:
            raise ValueError
    except ValueError:
        raise ValueError("Must be whsec_ and 24 to 64 random bytes in base64: python3 -c 'import base64, secrets; "
                         "print(\"whsec_\" + base64.b64encode(secrets.token_bytes(32)).decode())'") from None
    return value

