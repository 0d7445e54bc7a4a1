"""Who scheduled and cancelled a call, and why; and indexes for lists of one status.

Processes of the version before may go on while this runs, and after it: the columns have defaults in the
database for the rows that those insert, and on PostgreSQL the indexes are built CONCURRENTLY, beside their
writes. That can be done in no transaction, so each step can be taken again if the migration is interrupted.
"""
from django.db import migrations, models

from ._while_up import AddIndexWhileUp

TEXT = "varchar({}) NOT NULL DEFAULT ''"
COLUMNS = {"scheduled_by": TEXT.format(150), "scheduled_via": TEXT.format(10), "note": TEXT.format(200),
           "again_of": "bigint NULL", "cancelled_by": TEXT.format(150)}
INDEXES = [
    *(models.Index(fields=["timestamp", "id"], name=f"call_{status.lower()}", condition=models.Q(status=status))
      for status in ("Succeeded", "Failed", "Missed", "Cancelled")),
    models.Index(fields=["again_of"], name="call_again", condition=models.Q(again_of__isnull=False)),
]


def missing(schema_editor, table):
    """Those of COLUMNS that the table does not have."""
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        there = {column.name for column in connection.introspection.get_table_description(cursor, table)}
    return [name for name in COLUMNS if name not in there]


def add_columns(apps, schema_editor):
    """By ALTER TABLE, which writes no row; Django's AddField would have SQLite copy the whole table."""
    table = apps.get_model("scheduler", "ScheduledCall")._meta.db_table
    for name in missing(schema_editor, table):
        schema_editor.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {COLUMNS[name]}')


def drop_columns(apps, schema_editor):
    table = apps.get_model("scheduler", "ScheduledCall")._meta.db_table
    for name in COLUMNS.keys() - missing(schema_editor, table):
        schema_editor.execute(f'ALTER TABLE {table} DROP COLUMN "{name}"')


def rename_permissions(name):
    """Their names are made of the model's, once, when the table is made."""
    def rename(apps, schema_editor):
        permissions = apps.get_model("auth", "Permission").objects.filter(content_type__app_label="scheduler")
        for right in ("add", "change", "delete", "view"):
            permissions.filter(codename=f"{right}_scheduledcall").update(name=f"Can {right} {name}")
    return rename


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("scheduler", "0003_tally"), ("auth", "0012_alter_user_first_name_max_length")]

    operations = [
        migrations.RunPython(add_columns, drop_columns, atomic=True),
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.AddField("scheduledcall", "scheduled_by", models.CharField(
                max_length=150, blank=True, editable=False, help_text="The user's name at that time.")),
            migrations.AddField("scheduledcall", "scheduled_via", models.CharField(
                "via", max_length=10, blank=True, editable=False, help_text="By which way it came: API, admin or schedule.")),
            migrations.AddField("scheduledcall", "note", models.CharField(
                max_length=200, blank=True, help_text="What it is for.")),
            migrations.AddField("scheduledcall", "again_of", models.BigIntegerField(
                null=True, editable=False, help_text="The id of the call that it repeats.")),
            migrations.AddField("scheduledcall", "cancelled_by", models.CharField(
                max_length=150, blank=True, editable=False, help_text="The user's name at that time.")),
            migrations.AlterModelOptions("scheduledcall", {
                "ordering": ["timestamp", "id"], "verbose_name": "call", "verbose_name_plural": "calls"}),
        ]),
        *(AddIndexWhileUp("scheduledcall", index) for index in INDEXES),
        migrations.RunPython(rename_permissions("call"),
                             rename_permissions("scheduled call"), atomic=True),
    ]
