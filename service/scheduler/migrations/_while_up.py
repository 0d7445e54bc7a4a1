"""What migrations share that run while everything is up. (Django takes a module with a _ for no migration.)"""
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations


def postgresql(schema_editor):
    return schema_editor.connection.vendor == "postgresql"


def drop(schema_editor, name):
    """Also where an attempt that was broken off has done it, or left the index behind, of no use."""
    schema_editor.execute(f"DROP INDEX {'CONCURRENTLY ' if postgresql(schema_editor) else ''}IF EXISTS {name}")


class AddIndexWhileUp(AddIndexConcurrently):
    """PostgreSQL makes the index without keeping anybody from writing. SQLite cannot; a million rows take it less
    time than a writer waits for the lock. The migration must not be atomic: broken off, it is taken again."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        drop(schema_editor, self.index.name)
        way = AddIndexConcurrently if postgresql(schema_editor) else migrations.AddIndex
        way.database_forwards(self, app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        drop(schema_editor, self.index.name)


class AddNullWhileUp(migrations.AddField):
    """A column that is null in all rows, without the CHECK that Django gives some types: to find it kept by a million
    nulls both databases read the whole table, and let nobody write meanwhile."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        model = to_state.apps.get_model(app_label, self.model_name)
        field, quoted = model._meta.get_field(self.name), schema_editor.quote_name
        schema_editor.execute(f"ALTER TABLE {quoted(model._meta.db_table)} ADD COLUMN {quoted(field.column)} "
                              f"{field.db_type(schema_editor.connection)} NULL")


class RemoveIndexWhileUp(migrations.RemoveIndex):
    """The same for an index that is not needed any more."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        drop(schema_editor, self.name)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        index = to_state.models[app_label, self.model_name_lower].get_index_by_name(self.name)
        AddIndexWhileUp(self.model_name, index).database_forwards(app_label, schema_editor, from_state, to_state)
