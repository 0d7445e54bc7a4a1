"""HEARTBEAT_URL: an outside watcher is told each minute that all is well, so that it notices when we stop."""
import threading

import requests
from django.conf import settings

from ..base import outage
from ..base.clock import steady

EVERY = 60              # seconds
WITHIN = 10             # seconds to connect, and for each part of an answer

_thread = None
_next = 0.0             # by steady()


def beat():
    """The dispatcher's part, once all else went well. It waits for nothing."""
    global _thread, _next
    if not settings.HEARTBEAT_URL or steady() < _next:
        return
    _next = steady() + EVERY
    if _thread and _thread.is_alive():      # its answer comes, a byte now and then
        outage.heartbeat.began(f"no answer within {EVERY} s")
        return
    _thread = threading.Thread(target=_call, args=(settings.HEARTBEAT_URL,), name="heartbeat", daemon=True)
    _thread.start()


def _call(url):
    try:
        with requests.get(url, timeout=WITHIN, stream=True) as answer:      # what it says does not matter
            if answer.ok:
                outage.heartbeat.over()
            else:
                outage.heartbeat.began(f"HTTP status {answer.status_code}")
    except Exception as error:
        outage.heartbeat.began(type(error).__name__)        # without its words: they hold the URL, by which it is known
