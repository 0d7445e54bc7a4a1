"""Nothing in the tables' shape changes: workers of the version before may go on while this runs.

That version wrote into `started_at` when a call was claimed, which could be before it was due, and left
it there when the worker was lost. Nobody knows when such a request was sent, or whether it was.
"""
from django.db import migrations, models

import scheduler.base.clock


def forget_impossible_starts(apps, schema_editor):
    apps.get_model("scheduler", "ScheduledCall").objects.filter(
        status="Failed", started_at__lt=models.F("timestamp")).update(started_at=None)


class Migration(migrations.Migration):
    dependencies = [("scheduler", "0001_initial")]

    operations = [
        # Defaults and help are Python's alone; SQLite would be made to copy the whole table for them.
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.AlterField(
                "scheduledcall", "created_at",
                models.DateTimeField("created", default=scheduler.base.clock.utcnow, editable=False)),
            migrations.AlterField(
                "scheduledcall", "started_at",
                models.DateTimeField("started", null=True, editable=False,
                                     help_text="When its request was about to be sent.")),
            migrations.AlterField(
                "idempotentanswer", "created_at", models.DateTimeField(default=scheduler.base.clock.utcnow)),
        ]),
        migrations.RunPython(forget_impossible_starts, migrations.RunPython.noop),
    ]
