"""What migrations share that run while everything is up. (Django takes a module with a _ for no migration.)"""
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations


class AddIndexWhileUp(AddIndexConcurrently):
    """PostgreSQL makes the index without keeping anybody from writing. SQLite cannot; a million rows take it less
    time than a writer waits for the lock. The migration must not be atomic: broken off, it is taken again."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        self._drop(schema_editor)       # an attempt that was broken off leaves one behind, of no use
        way = AddIndexConcurrently if self._postgresql(schema_editor) else migrations.AddIndex
        way.database_forwards(self, app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        self._drop(schema_editor)

    def _drop(self, schema_editor):
        beside = "CONCURRENTLY " if self._postgresql(schema_editor) else ""
        schema_editor.execute(f"DROP INDEX {beside}IF EXISTS {self.index.name}")

    def _postgresql(self, schema_editor):
        return schema_editor.connection.vendor == "postgresql"
