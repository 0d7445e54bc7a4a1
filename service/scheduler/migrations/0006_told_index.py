"""The index for mail.py, made while everything runs: PostgreSQL makes it without keeping anybody from
writing. SQLite cannot; a million rows take it less time than a writer waits for the lock."""
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class AddIndexWhileUp(AddIndexConcurrently):
    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        postgresql = schema_editor.connection.vendor == "postgresql"
        # An attempt that was broken off leaves one behind, of no use with PostgreSQL.
        schema_editor.execute(f"DROP INDEX {'CONCURRENTLY ' if postgresql else ''}IF EXISTS {self.index.name}")
        if not postgresql:
            return migrations.AddIndex.database_forwards(self, app_label, schema_editor, from_state, to_state)
        super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            return migrations.AddIndex.database_backwards(self, app_label, schema_editor, from_state, to_state)
        super().database_backwards(app_label, schema_editor, from_state, to_state)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("scheduler", "0005_told")]

    operations = [
        AddIndexWhileUp("scheduledcall", models.Index(
            fields=["ended_at"], name="call_untold",
            condition=models.Q(models.Q(("status", "Failed"), ("status", "Missed"), _connector="OR"),
                               ("told", None)))),
    ]
