"""By which time zone data a schedule is planned, and what its clocks show at an occurrence by those.

Both columns may be null: processes of the version before insert rows without them, and go on doing so for a while.
"""
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("scheduler", "0008_cron_steps")]

    operations = [
        migrations.AddField("schedule", "zone_data", models.CharField(
            max_length=32, null=True, editable=False,
            help_text="The release of the time zone data by which it is planned; null if a version planned it that did "
                      "not say.")),
        migrations.AddField("scheduledcall", "utc_offset", models.IntegerField(
            null=True, editable=False,
            help_text="How far, in seconds, the time that its schedule asks for is ahead of its occurrence, in UTC, as far "
                      "as was known when it was planned.")),
    ]
