"""The service's one clock: the database's. SQL asks it itself (calls/ledger.py); a process that waits
for an instant goes by `utcnow`, its own idea of that clock.

Machines disagree about the time, and the database is the one part that all of them share. A process
measures how far its own clock is off, as NTP does (RFC 5905, section 8): it asks for the time, and
takes it for that of the middle of the question's way there and back. From then on it counts on with a
clock that nobody sets, and asks again every few seconds. SQLite's clock is that of its machine, which
all its processes share: there is nothing to measure.
"""
import logging
import threading
import time
from datetime import datetime, timedelta, timezone
from functools import cache

from django.db import connection, connections

logger = logging.getLogger(__name__)

MEASURE_EVERY = 10      # seconds
SAMPLES = 5             # questions in one measurement; the one that was answered soonest is believed
WRONG = 1.0             # seconds off, and a machine says so in its log
PATIENCE = 2.0          # seconds that a process waits for its first measurement

# Counts on while the machine sleeps, as leases must: Linux's monotonic clock does not.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady():
    """Seconds since some moment, by a clock that nobody sets: float."""
    return time.clock_gettime(_STEADY)


def machine():
    """Aware datetime, by this machine's own clock."""
    return datetime.now(timezone.utc)


def utcnow():
    """Aware datetime, by the database's clock as it was last measured; by this machine's as long as
    it has not been. Asks nobody, except for a process's first call, which waits PATIENCE for an answer."""
    watch = _watch()
    return watch.now() if watch else machine()


def asked():
    """Aware datetime, by the database's clock, which is asked. Raises django.db.Error."""
    if connection.vendor == "sqlite":
        return machine()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


_first = threading.Lock()


def _watch():
    with _first:
        return _the_watch()


@cache
def _the_watch():
    """The Watch of this process, begun by the first who asks for the time; None with SQLite."""
    if connections.settings["default"]["ENGINE"].endswith("sqlite3"):
        return None
    watch = Watch()
    threading.Thread(target=watch.keep, name="clock", daemon=True).start()
    watch.measured.wait(PATIENCE)
    return watch


class Watch:
    """Keeps `base`: (aware datetime of the database, what `steady` said at that instant)."""

    def __init__(self):
        self.base = None
        self.measured = threading.Event()
        self._said = False          # that this machine is wrong

    def now(self):
        """Aware datetime, by this clock; by this machine's own while it has not been measured."""
        if self.base is None:
            return machine()
        at, then = self.base
        return at + timedelta(seconds=steady() - then)

    def keep(self):
        while True:
            try:
                self.measure()
            except Exception:       # a database that is away is told of by those who need it
                pass
            finally:
                connection.close()
            time.sleep(MEASURE_EVERY if self.base else 1)

    def measure(self):
        """Raises django.db.Error when the database does not answer."""
        samples = []
        with connection.cursor() as cursor:
            for _ in range(SAMPLES):
                asked = steady()
                cursor.execute("SELECT clock_timestamp()")
                at = cursor.fetchone()[0]
                took = steady() - asked
                samples.append((took, at, asked + took / 2))
        took, at, then = min(samples)
        self.base = at, then
        self.measured.set()
        off = (machine() - at).total_seconds() - (steady() - then)
        if (abs(off) > WRONG) != self._said:
            self._said = not self._said
            if self._said:
                logger.warning("this machine's clock is %.1f s %s the database's; the service goes by the "
                               "database's. Is NTP running here?", abs(off), "ahead of" if off > 0 else "behind")
            else:
                logger.warning("this machine's clock is right again")
