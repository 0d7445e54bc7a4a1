"""Words of others, before they are kept, shown or looked up, and what no words may show."""
import html
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


def redacted(url):
    """`url` without the user name, the password and the query's values that may stand in it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")
    query = "&".join(name + equals + "***" if equals else "***"
                     for name, equals, _ in (pair.partition("=") for pair in parts.query.split("&")))
    return parts._replace(netloc=("***@" if host[1] else "") + host[2],
                          query=query if parts.query else "").geturl()


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
