"""SQLite's file, which is its owner's alone, whoever opens it first."""
import os
import sqlite3
from contextlib import suppress


class Connection(sqlite3.Connection):
    def __init__(self, database, *args, **kwargs):
        # SQLite would let everybody read what it creates. Its -wal and -shm get the same rights. A file that
        # is there is not opened: closing it would give up the locks that this process has on it
        # (sqlite.org/howtocorrupt.html, section 2.2).
        if not database.startswith((":memory:", "file:")):
            with suppress(OSError):         # it is there, or SQLite says it better
                os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        super().__init__(database, *args, **kwargs)
