"""Words of others, before they are shown or looked up."""


def printable(text, limit=500):
    """`text` cut to `limit` characters, with everything that could move a terminal's cursor or
    fake a line of a log (control characters, lone surrogates, ...) written as an escape."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return text if len(text) <= limit else text[:limit - 1] + "…"


def is_id(text):
    """Whether the str can be an id of a row."""
    return text.isascii() and text.isdecimal() and len(text) < 19
