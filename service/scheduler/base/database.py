"""The connections to the database, and how long anybody waits for it.

PostgreSQL ends a statement (statement_timeout) or a wait for a lock (lock_timeout) by itself, see
settings.py. A server that is frozen, or behind a network that swallows everything, does not: so the
client gives up waiting too, and drops the connection. A request to the API has one limit for
everything that it asks of the database, however many statements that is. What counts is the time that
somebody waited for it: ten thousand calls in one request keep a slow machine itself busy for longer.
"""
import math
import os
import re
import sqlite3
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import psycopg
from django.conf import settings
from django.db import connection
from psycopg.pq import TransactionStatus
from psycopg_pool import PoolTimeout

PING = 1.0          # seconds that an idle server may take to answer nothing at all

# SQLSTATEs (PostgreSQL, Appendix A) of a server that is no good for a connection any more, whatever it was asked:
# the connection is lost (class 08), takes no writes, as after a failover (25006), or was idle in a transaction for
# too long (25P03); the server was shut down, crashed or is starting (57P0x).
GIVEN_UP = re.compile("08...|25006|25P03|57P0.")

# Of each block around what is asked now, [the seconds that it has left to wait for PostgreSQL].
_left = ContextVar("left", default=())


def within(seconds):
    """PostgreSQL has `seconds` (float) for everything that it is asked in this block; what takes
    longer raises django.db.OperationalError. Of two such blocks the stricter counts."""
    return _limited(_left.get() + ([seconds],))


def anew(seconds):
    """The same, whatever block stands around this one."""
    return _limited(([seconds],))


@contextmanager
def _limited(left):
    token = _left.set(left)
    try:
        yield
    finally:
        _left.reset(token)


@contextmanager
def unlimited(lock=0):
    """For a command that may take as long as it takes, and that nobody waits for.

    lock: seconds that it waits for a lock, 0 for no limit
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
                cursor.execute(f"SET {limit} = 0")
            cursor.execute(f"SET lock_timeout = '{lock}s'")
    with within(math.inf):
        yield


def reason(error):
    """What a django.db.DatabaseError says, in one line: str. Of a pool that got no connection, why."""
    refusal = PostgresqlConnection.refusal if isinstance(error.__cause__, PoolTimeout) else None
    return " ".join((refusal or str(error)).split()).removesuffix(".")


class PostgresqlConnection(psycopg.Connection):
    """psycopg's connection, which waits no longer than `within` says; outside of such a block, a
    little longer for each statement than the server itself allows it. One that is no good any more
    is closed, so that its pool drops it, and so do all others that lie there.

    It overrides three public methods, as psycopg has no setting for any of this, and README.md promises an
    answer in time and that a failover needs no restart (tests: test_unavailable.py, test_failover.py).
    """

    refusal = None      # why there was no connection the last time; the pool only logs that

    @classmethod
    def connect(cls, *args, **kwargs):
        try:
            connection = super().connect(*args, **kwargs)
            PostgresqlConnection.refusal = None
            return connection
        except psycopg.Error as error:
            PostgresqlConnection.refusal = str(error)
            raise

    def wait(self, gen, interval=0.1, timeout=None):
        """Whatever is asked of the server comes here."""
        limits = _left.get()
        left = max(0.0, min((some for some, in limits), default=settings.DATABASE_TIMEOUT + 1))
        if timeout is not None:
            left = min(left, timeout)
        began = time.monotonic()
        try:
            return super().wait(gen, interval, None if left == math.inf else left)
        except psycopg.Error as error:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                # The answer may still come, and must not be taken for that of another question.
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {left:.1f} s") from None
            if GIVEN_UP.fullmatch(error.sqlstate or ""):
                self.pgconn.finish()
                _drain_pool()
                raise psycopg.OperationalError(str(error)) from error   # as for a server that is not there
            raise
        finally:
            for limit in limits:
                limit[0] -= time.monotonic() - began

    def execute(self, query, *args, **kwargs):
        """Only psycopg's pool comes here, to see whether a connection is alive; Django uses cursors. One that is has no
        part in it that whoever asks has no time left, and would otherwise be dropped for that, and all others with it."""
        try:
            with anew(PING):
                return super().execute(query, *args, **kwargs)
        except psycopg.OperationalError:
            _drain_pool()
            raise


def _drain_pool():
    """Has what lies in the pool replaced: it leads where the one that failed did, and lies there for as long.
    One after the other would be tried, a second apart, until who waits for one gives up."""
    if connection.pool:
        connection.pool.drain()


class SqliteConnection(sqlite3.Connection):
    """SQLite's, to a file that is its owner's alone, whoever opens it first."""

    def __init__(self, database, *args, **kwargs):
        # SQLite would let everybody read what it creates. Its -wal and -shm get the same rights. A file that
        # is there is not opened: closing it would give up the locks that this process has on it
        # (sqlite.org/howtocorrupt.html, section 2.2).
        if not database.startswith((":memory:", "file:")):
            with suppress(OSError):         # it is there, or SQLite says it better
                os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        super().__init__(database, *args, **kwargs)
