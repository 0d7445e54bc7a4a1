"""Django's `migrate`, for this database: it may take its time, and SQLite's file is its owner's alone."""
import os

import psycopg
from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError, connection

from scheduler.limits import unlimited

LOCK = 5    # seconds: who waits for a table's lock has everybody wait who comes later, each call too


class Command(migrate.Command):
    def execute(self, *args, **options):
        """Before Django's checks, which open the database."""
        if connection.vendor == "sqlite":
            # SQLite would let everybody read what it creates. Its -wal and -shm get the same rights. A
            # file that is there is not opened: closing it would give up the locks that this process
            # has on it (sqlite.org/howtocorrupt.html, section 2.2).
            try:
                os.close(os.open(connection.settings_dict["NAME"], os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except OSError:
                pass            # it is there, or the database says it better
        try:
            with unlimited(LOCK):
                return super().execute(*args, **options)
        except OperationalError as error:
            if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            raise CommandError(
                f"Somebody else reads or writes the table for longer than {LOCK} s, a backup perhaps. What was done "
                "so far is kept, and the service goes on; migrate again when that is over.") from None
