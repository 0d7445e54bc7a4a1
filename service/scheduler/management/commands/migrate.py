"""Django's `migrate`, for this database: it may take its time."""
from contextlib import contextmanager

import psycopg
from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError, transaction

from scheduler.base.database import unlimited

LOCK = 5    # seconds: who waits for a table's lock has everybody wait who comes later, each call too


class Executor(migrate.MigrationExecutor):
    """Django's, with which a migration is done and noted as done, or neither. Django notes one that makes an index in a
    transaction of its own, later: who is killed in between, or has no room for the note, could never migrate again."""

    @contextmanager
    def _whole(self, migration):
        # SQLite stops looking at foreign keys, which the schema editor asks for, outside of a transaction only.
        with self.connection.constraint_checks_disabled():
            if migration.atomic:
                with transaction.atomic(self.connection.alias):
                    yield
            else:
                yield           # it is written so that it can be taken again

    def apply_migration(self, state, migration, **how):
        with self._whole(migration):
            return super().apply_migration(state, migration, **how)

    def unapply_migration(self, state, migration, **how):
        with self._whole(migration):
            return super().unapply_migration(state, migration, **how)


migrate.MigrationExecutor = Executor


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
