"""How the attempts at a call are shown on its page: what came of each, how long its phases took, what came back, and
what was sent."""
import json
import re

from django.utils.html import format_html, format_html_join

from ..base.moments import precise

# What the API has of an attempt, by its class of calls/outcomes.py.
CLASSES = {"nothing": "it got nothing", "refused": "it refused", "unknown": "it has perhaps done it",
           "answered": "it answered no"}
PHASES = {"name": "name", "connect": "connection", "tls": "TLS", "answer": "answer", "end": "its end"}
DEPTH_MAX = 32              # of JSON that is laid out: what is nested deeper would be blanks for the most part
LAID_OUT_MAX = 262_144      # characters
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[][{},:]|[^][{},:"\s]+', re.DOTALL)


def milliseconds(ms):
    """A duration as people read it, str: 12.3 ms, 4,512 ms."""
    return f"{ms:,.1f} ms" if ms < 1000 else f"{ms:,.0f} ms"


def laid_out(text, whole=True):
    """The str `text`, if it is JSON (RFC 8259), with each value on a line of its own, indented; else as it is. Blanks
    between values are all that is changed: numbers keep their digits, and a key that stands twice stands there twice.

    whole: False for the beginning of one, which is laid out as far as it goes
    """
    if len(text) > LAID_OUT_MAX or text.lstrip()[:1] not in ("{", "["):
        return text
    if whole:
        try:
            json.loads(text, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            return text
    parts, depth, before = [], 0, ""
    for token in _TOKEN.findall(text):
        opened = before in ("{", "[")
        if token in ("}", "]"):
            depth = max(depth - 1, 0)
            parts.append(token if opened else "\n" + "  " * depth + token)
        else:
            if opened or before == ",":
                parts.append("\n" + "  " * depth)
            parts.append(": " if token == ":" else token)
            depth += token in ("{", "[")
            if depth > DEPTH_MAX:
                return text
        before = token
    return "".join(parts)


def in_lines(headers):
    """{name: value} as the lines of a request, or an answer: safe HTML."""
    return format_html("<pre>{}</pre>", format_html_join("\n", "<b>{}</b>: {}", headers.items())) if headers else ""


def in_words(attempts, unseen=""):
    """What the page shows of `attempts`, a list as `attempts_of` has it: list of dicts, the last first and open.

    unseen: why of one there is no request and no answer to see
    """
    shown = [_in_words(attempt) for attempt in reversed(attempts)]
    for attempt in shown:
        attempt["unseen"] = "" if attempt["came"] or attempt["sent"] else unseen
    for attempt in shown[:1]:
        attempt["open"] = True
    for attempt in [attempt for attempt in shown if attempt["outcome"] == "Failed"][:1]:
        attempt["sent_open"] = True
    return shown


def _in_words(attempt):
    status, error, response, request = (attempt[name] for name in ("http_status", "error", "response", "request"))
    answered = f"HTTP status {status}" if status else ""
    phases = [{"name": name, "says": says, "ms": attempt["phases_ms"][name], "shown": milliseconds(attempt["phases_ms"][name])}
              for name, says in PHASES.items() if name in attempt["phases_ms"]]
    return {
        "number": attempt["number"], "outcome": attempt["outcome"], "open": False, "sent_open": False,
        "said": error or answered, "took": attempt["duration_ms"] is not None and milliseconds(attempt["duration_ms"]),
        # What the error says is not said once more.
        "answered": answered if error and answered not in error else "",
        "facts": [(name, value) for name, value in (
            ("started", attempt["started_at"] and precise(attempt["started_at"])),
            ("ended", attempt["ended_at"] and precise(attempt["ended_at"])),
            ("the API", CLASSES.get(attempt["class"], attempt["class"])), ("address", attempt["address"]),
            ("target's version", attempt["version"])) if value],
        "phases": phases, "in_phases": ", ".join(f"{phase['says']} {phase['shown']}" for phase in phases),
        "came": response and _message(response, attempt["outcome"]), "sent": request and _message(request) | {
            "line": " ".join(filter(None, [request.get("method"), request.get("url")]))},
    }


def _message(message, outcome=""):
    """A request, or the answer of an attempt that ended like that, as it is laid out."""
    body, whole, kind = message.get("body"), not message.get("truncated"), ""
    for name, value in message["headers"].items():
        if name.lower() == "content-type":
            kind = value
    remark = "" if whole else "Only its beginning was kept." if body else "Its body was not kept" + (
        ": its target says how much of a success is." if outcome == "Succeeded" else ".")
    return {"headers": in_lines(message["headers"]), "remark": remark,
            "body": body and (laid_out(body, whole) if whole or "json" in kind.lower() else body)}
