"""What ops/notify.py needs. Rows written by the version before have no mark, and their writers need not know it."""
from datetime import timedelta

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("scheduler", "0004_who_and_why")]

    operations = [
        migrations.CreateModel("Notice", [
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("version", models.PositiveBigIntegerField(default=0, help_text="One more with each change.")),
            ("since", models.DateTimeField(
                help_text="What ended before it is not told: mails were not wanted yet.")),
            ("seen_at", models.DateTimeField(help_text="When a dispatcher last noted that mails are wanted.")),
            ("waiting", models.JSONField(
                default=dict, help_text="Sums of the failures that no mail has told of.")),
            ("failed_at", models.DateTimeField(null=True, help_text="When a failure was last added to them.")),
            ("told_at", models.DateTimeField(null=True, help_text="When a mail last told of failures.")),
            ("failing", models.BooleanField(
                default=False, help_text="No mail has said since that calls succeed again.")),
            ("tried_at", models.DateTimeField(
                null=True, help_text="When somebody last began to send, or gave up;")),
            ("pause", models.DurationField(
                default=timedelta, help_text="for how long from then nobody else begins.")),
        ]),
        # With no default: both databases add such a column at once, however many rows there are.
        migrations.AddField("scheduledcall", "told", models.BooleanField(
            null=True, editable=False, help_text="Its failure was gathered for a mail, see ops/notify.py.")),
    ]
