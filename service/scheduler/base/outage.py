"""A part of the service that goes away and comes back: one line in the output of each process for
each, however often it is asked for in between."""
import logging
import threading

from django.conf import settings

from .clock import steady

logger = logging.getLogger(__name__)


class Outage:
    def __init__(self, what, away="cannot be reached", back="is back"):
        """what: the part's name in a sentence, such as "the database"; away, back: what is said of it"""
        self.what, self.away, self.back = what, away, back
        self._since = None          # the error that began it
        self._last = 0.0            # when there was one last, by steady()
        self._lock = threading.Lock()

    def began(self, error, then=""):
        """Says that it is gone, unless that was said already.

        then: str, what happens until it is back
        """
        with self._lock:
            self._last = steady()
            if self._since is None:
                self._since = error
                said = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
                logger.error("%s %s: %s%s", self.what, self.away, said, then and f". {then}")

    def over(self, after=0):
        """Says that it is back, if it was gone.

        after: seconds in which nobody may have found it gone. One of many that ask at once may be lucky.
        """
        if self._since is None:     # the usual case costs no lock
            return
        with self._lock:
            if self._since is not None and steady() - self._last >= after:
                self._since = None
                logger.warning("%s %s", self.what, self.back)


database = Outage("the database")
broker = Outage("the broker")
room = Outage("calls", "find no room on this machine", "find room again")
heartbeat = Outage("HEARTBEAT_URL", back="is reached again")
_channels = {}


def channel(key, name):
    """The Outage of one of the channels by which people are told.

    key: which, a str; name: in a sentence
    """
    return _channels.setdefault(key, Outage(name, "takes no notice", "takes notices again"))


def database_answered():
    """Says that the database is back, once everybody who had waited for it in vain must have said so: others may
    still be waiting for one of the pool's connections, and would have it gone again."""
    database.over(after=settings.DATABASE_TIMEOUT + 1)
