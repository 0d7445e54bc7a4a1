"""Placeholders in what is sent to a target: {{call.id}} and the others of NAMES, and {{data.KEY}}.

They are filled in when a call is sent, each escaped for where it stands, so that no value can become more than a
value. There are no expressions, and there is no way to write {{ for itself: a value that holds it is not looked into.
"""
import html
import json
import re
from functools import lru_cache
from urllib.parse import quote, quote_plus

NAMES = ("call.id", "call.due", "call.note", "call.attempt", "schedule.name")
KEY = re.compile("[A-Za-z0-9_-]{1,64}")
REMEMBERED = 4096           # characters of a text that is not taken apart anew each time
FILLED_MAX = 1_000_000      # characters of a text with all its values in it

# Where a text stands, which says how a value is escaped in it.
URL, HEADER, JSON, FORM, XML, TEXT = "url", "header", "json", "form", "xml", "text"

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}|\{\{")
_JSON_PART = re.compile(r"\{\{[^{}]*\}\}|\\.|\"", re.DOTALL)
_NO_HEADER = re.compile("[^ !-$&-~]")       # what may stand in a header's value as it is, but for %
_NO_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")    # XML 1.0, 2.2: not escaped either


def kind(content_type):
    """How values are escaped in a body of this Content-Type, a str, "" if there is none."""
    name = content_type.partition(";")[0].strip().lower()
    if name.endswith(("/json", "+json")):
        return JSON
    if name.endswith(("/xml", "+xml", "/html")):
        return XML
    return FORM if name == "application/x-www-form-urlencoded" else TEXT


def names(text):
    """The names of the placeholders in `text`: set of str, such as {"call.id", "data.order"}. Raises ValueError for
    one that there is not, and for {{ that begins none."""
    found = set()
    for match in _PLACEHOLDER.finditer(text):
        if match[1] is None:
            raise ValueError("holds {{ that begins no placeholder such as {{call.id}}")
        found.add(match[1].strip())
    for name in sorted(found):
        if name not in NAMES and not (name.startswith("data.") and KEY.fullmatch(name[5:])):
            shown = name if len(name) <= 40 and name.isprintable() else ascii(name[:40])[1:-1] + "…"
            raise ValueError(f"holds {{{{{shown}}}}}, which there is not; there are "
                             + ", ".join(f"{{{{{known}}}}}" for known in (*NAMES, "data.KEY")))
    return found


def check(text, kind):
    """Raises ValueError, saying why, if `text` cannot be filled in: a placeholder that there is not, or JSON that is
    none, whatever the values are."""
    names(text)
    if kind == JSON:
        try:
            json.loads("".join(part if isinstance(part, str) else "null" for part in _parts(text, JSON)),
                       parse_constant=_no_constant)
        except RecursionError:
            raise ValueError("is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"is no JSON: {error}") from None


def _no_constant(name):
    raise ValueError(f"{name} is none of its numbers")


def fill(text, values, kind):
    """`text` with its values.

    values: {name: value of JSON}, see NAMES; those of `data.KEY` are called so too
    kind: URL, HEADER, JSON, FORM, XML or TEXT
    Raises ValueError, saying why: there is no such value, the whole would be too long, or a part of a URL's path
    would be "." or "..", which leads elsewhere.
    """
    if "{{" not in text:
        return text
    filled, length = [], 0
    for part in _parts(text, kind):
        if not isinstance(part, str):
            name, escape = part
            if name not in values:
                raise ValueError(f"there is no {name} to fill in")
            part = escape(values[name])
        filled.append(part)
        length += len(part)
        if length > FILLED_MAX:
            raise ValueError(f"with its values it would have more than {FILLED_MAX} characters")
    whole = "".join(filled)
    if kind == URL and {".", ".."} & set(whole.partition("?")[0].split("/")):
        raise ValueError('its path would hold a part ".", which leads elsewhere')
    return whole


def _parts(text, kind):
    return (_split if len(text) <= REMEMBERED else _split.__wrapped__)(text, kind)


@lru_cache(1000)
def _split(text, kind):
    """What `text` is made of, in order: str, and (name, how its value is written) for a placeholder. Raises ValueError
    as `names`."""
    names(text)
    parts, end, quoted = [], 0, False
    for match in (_JSON_PART if kind == JSON else _PLACEHOLDER).finditer(text):     # elsewhere a \ escapes nothing
        if match[0] == '"':
            quoted = not quoted
        elif match[0].startswith("{{"):
            escape = (_in_json if quoted else json.dumps) if kind == JSON else _ESCAPES[kind]
            parts += [text[end:match.start()], (match[0][2:-2].strip(), escape)]
            end = match.end()
    return *parts, text[end:]


def _plain(value):
    """A value as text: a text is itself, all else its JSON."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()


def _in_json(value):
    return json.dumps(_plain(value))[1:-1]


def _in_header(value):
    return _NO_HEADER.sub(lambda match: quote(match[0], safe=""), _plain(value))


def _in_xml(value):
    return html.escape(_NO_XML.sub("\ufffd", _plain(value)))


_ESCAPES = {URL: lambda value: quote(_plain(value), safe=""), HEADER: _in_header,
            FORM: lambda value: quote_plus(_plain(value)), XML: _in_xml, TEXT: _plain}
