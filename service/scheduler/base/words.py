"""Words of others, before they are kept, shown or looked up, and what no words may show."""
import html
import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from django.conf import settings


def printable(text, limit=500):
    """`text` cut to `limit` characters, with everything that could move a terminal's cursor or
    fake a line of a log (control characters, lone surrogates, ...) written as an escape."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return text if len(text) <= limit else text[:limit - 1] + "…"


def one_line(text, most=None):
    """The str `text`, a note or a name, which stands in one line of lists, mails and files. Raises ValueError
    saying why it cannot.

    most: characters that are taken, None where somebody else counts them
    """
    if most is not None and len(text) > most:
        raise ValueError(f"has {len(text)} characters; at most {most} are taken")
    if not text.isprintable():
        bad = next(c for c in text if not c.isprintable())
        raise ValueError(f"holds {printable(bad)}: only printable characters are taken, in one line")
    return text


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


def secrets():
    """The passwords among the settings, in each form in which they may be written: set of str."""
    broker, api, mail = urlsplit(settings.REDIS_URL), urlsplit(settings.API_URL), urlsplit(settings.EMAIL_URL)
    found = {settings.SECRET_KEY, settings.DATABASES["default"].get("PASSWORD"), broker.password, api.password,
             mail.password}
    found |= {value for _, value in parse_qsl(broker.query + "&" + api.query) if len(value) > 5}
    found = {form for secret in found if secret for form in (secret, quote(secret, safe=""), unquote(secret))}
    return found | {html.escape(secret) for secret in found} | {repr(secret)[1:-1] for secret in found}


def hidden(text):
    """`text` with asterisks for every password among the settings."""
    for secret in sorted(secrets(), key=len, reverse=True):
        text = text.replace(secret, "********")
    return text
