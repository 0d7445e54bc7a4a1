"""The ways by which people are told: addresses of Apprise, each of which holds what lets it in. So none of them stands in
a log, an error or a page: of one there is its kind, `slack`, and a digest.

What is sent is sent by a process of its own (ops/send.py): a channel that hangs is ended with it, Apprise's threads and
loggers are nobody's, and a worker does not load hundreds of modules while its calls are due.
"""
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from django.utils.crypto import salted_hmac

MOST = 20               # of one target, or of NOTIFY
LENGTH = 2000           # characters of one
FOLDER = Path(__file__).resolve().parent.parent.parent
WORDS = "one or several addresses of Apprise, separated by spaces or commas, such as slack://…, mailto://… or json://host/path"


class Channel(NamedTuple):
    """One way to somebody."""

    url: str            # of Apprise; "" for mails to FAILURES_TO
    name: str           # in a sentence, such as "the channel slack of NOTIFY"
    own: bool           # a target's: it may lead to public addresses only, as targets do
    key: str            # a digest of what it is


def channel(url, name, own=False, of=""):
    """A Channel. of: what else makes it another one, a str"""
    return Channel(url, name, own, salted_hmac("scheduler.channels", f"{own} {url} {of}", algorithm="sha256").hexdigest())


def kind(url):
    """Of an address: "slack"."""
    return url.partition("://")[0].lower()


def read(text):
    """The addresses in a str: list of str. Raises ValueError, which holds none of them."""
    import apprise          # takes a quarter of a second, and who has no channels needs it not
    from apprise.utils.parse import parse_urls
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)     # it would say what it cannot read
    if re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
        raise ValueError(f"Must be {WORDS}, without control characters.")
    found = list(dict.fromkeys(parse_urls(text)))
    if len(found) > MOST or any(len(url) > LENGTH for url in found):
        raise ValueError(f"Must be at most {MOST} addresses of at most {LENGTH} characters.")
    for position, url in enumerate(found, 1):
        try:
            good = bool(apprise.Apprise.instantiate(url)) and not re.search(r"\s", url)
        except Exception:
            good = False
        if not good:
            raise ValueError(f"Must be {WORDS}. Number {position} of {len(found)} is none that Apprise understands.")
    return found


def send(notices, within):
    """Sends them, one after the other.

    notices: list of what ops/send.py takes, dicts of JSON
    within: seconds for all of them together
    Returns a list with None for each that was taken, and else what is wrong: str.
    """
    lines = "".join(json.dumps(notice) + "\n" for notice in notices)
    why = f"no answer within {within:g} s"
    try:
        done = subprocess.run([sys.executable, "-m", "scheduler.ops.send"], input=lines.encode(), stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, cwd=FOLDER, timeout=within, env=os.environ)
        out, why = done.stdout, f"the process that sends ended by itself ({done.returncode})"
    except subprocess.TimeoutExpired as error:
        out = error.stdout or b""
    except OSError as error:            # no room for a process
        out, why = b"", f"no process to send with: {error.strerror}"
    answers = [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith(b"\n")]
    return [answers[i] if i < len(answers) else why for i in range(len(notices))]
