"""Django's `migrate`, for this database: it may take its time."""
import psycopg
from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError

from scheduler.base.database import unlimited

LOCK = 5    # seconds: who waits for a table's lock has everybody wait who comes later, each call too


class Command(migrate.Command):
    def execute(self, *args, **options):
        """Before Django's checks, which open the database."""
        try:
            with unlimited(LOCK):
                return super().execute(*args, **options)
        except OperationalError as error:
            if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            raise CommandError(
                f"Somebody else reads or writes the table for longer than {LOCK} s, a backup perhaps. What was done "
                "so far is kept, and the service goes on; migrate again when that is over.") from None
