"""Words of others, before they are kept, shown or looked up, and what no words may show."""
import html
import re
import unicodedata
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from django.conf import settings

from . import secrets as kept


def printable(text, limit=500):
    """`text` cut to `limit` characters, with everything that could move a terminal's cursor or
    fake a line of a log (control characters, lone surrogates, ...) written as an escape."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return text if len(text) <= limit else text[:limit - 1] + "…"


# Unicode's general categories and, of UAX #9 (The Bidirectional Algorithm), the explicit formatting characters.
ENDS_OF_LINES = {"Cc": "a control character", "Zl": "which ends a line", "Zp": "which ends a line",
                 "Cs": "half of a character"}
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def _harm(c):
    """What the character `c` could do to the line in which it stands, in words, or None."""
    if unicodedata.bidirectional(c) in TURNS:
        return "which turns the direction of reading"
    return ENDS_OF_LINES.get(unicodedata.category(c))


def one_line(text, most=None):
    """The str `text`, a note or a name, which stands in one line of lists, mails and files. Raises ValueError
    saying why it cannot: a character could fake a line, or turn the direction in which what stands around it is
    read. It names the character.

    All else that people write is taken, also what str.isprintable is not: the joiners of Persian and of emoji,
    other blanks, and characters that are newer than this Python.

    most: characters that are taken, None where somebody else counts them
    """
    if most is not None and len(text) > most:
        raise ValueError(f"has {len(text)} characters; at most {most} are taken")
    for position, c in enumerate(text, 1):
        if harm := _harm(c):
            name = " ".join([f"U+{ord(c):04X}", *filter(None, [unicodedata.name(c, "")])])
            raise ValueError(f"holds {name} (character {position}), {harm}: take it out")
    return text


def in_line(text):
    """`text`, a name or a note, with escapes in place of what `one_line` refuses."""
    return "".join(c.encode("unicode_escape").decode() if _harm(c) else c for c in text)


def is_seen(text):
    """Whether the str `text` holds more than blanks and characters without a shape."""
    return any(unicodedata.category(c) not in ("Zs", "Cf") for c in text)


def is_id(text):
    """Whether the str can be an id of a row."""
    return text.isascii() and text.isdecimal() and len(text) < 19


def redacted(text):
    """`text`, which is a URL or has some, without the user names, the passwords and the queries' values that
    may stand in them."""
    text = re.sub(r"(?<=://)[^\s/?#]*@", "***@", text)
    return re.sub(r"(?<=://)([^\s?#]*\?)([^\s#]+)", _without_values, text)


def _without_values(match):
    pairs = (pair.partition("=") for pair in match[2].split("&"))
    return match[1] + "&".join(name + "=***" if equals else "***" for name, equals, _ in pairs)


def secrets(of_targets=True):
    """The passwords among the settings, and the secrets of targets that this process has met, in each form in which
    they may be written: set of str."""
    broker, api, mail = urlsplit(settings.REDIS_URL), urlsplit(settings.API_URL), urlsplit(settings.EMAIL_URL)
    proxy = urlsplit(settings.TARGET_PROXY)
    found = {settings.SECRET_KEY, *settings.SECRETS_KEY, *(kept.met() if of_targets else ()), settings.DATABASES["default"].get("PASSWORD"),
             broker.password, api.password, mail.password, proxy.password}
    found |= {settings.HEARTBEAT_URL, *settings.NOTIFY}
    found |= {value for _, value in parse_qsl(broker.query + "&" + api.query) if len(value) > 5}
    found = {form for secret in found if secret for form in (secret, quote(secret, safe=""), unquote(secret))}
    return found | {html.escape(secret) for secret in found} | {repr(secret)[1:-1] for secret in found}


def hidden(text, of_targets=True):
    """`text` with asterisks for every secret that this process knows.

    of_targets: also for theirs; where there can be none, that is up to a thousand texts less to look for
    """
    for secret in sorted(secrets(of_targets), key=len, reverse=True):
        text = text.replace(secret, "********")
    return text
