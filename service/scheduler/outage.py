"""A part of the service that goes away and comes back: one line in the output of each process for
each, however often it is asked for in between."""
import logging
import threading

logger = logging.getLogger(__name__)


class Outage:
    def __init__(self, what):
        """what: the part's name in a sentence, such as "the database" """
        self.what = what
        self._since = None          # the error that began it
        self._lock = threading.Lock()

    def began(self, error, then=""):
        """Says that it is gone, unless that was said already.

        then: str, what happens until it is back
        """
        with self._lock:
            if self._since is None:
                self._since = error
                said = " ".join(str(error).split()) or type(error).__name__
                logger.error("%s cannot be reached: %s%s", self.what, said, then and f". {then}")

    def over(self):
        """Says that it is back, if it was gone."""
        if self._since is None:     # the usual case costs no lock
            return
        with self._lock:
            if self._since is not None:
                self._since = None
                logger.warning("%s is back", self.what)


database = Outage("the database")
broker = Outage("the broker")
