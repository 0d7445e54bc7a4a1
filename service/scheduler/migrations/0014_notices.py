"""The tables of ops/notify.py, and when the failures of a target are told."""
from datetime import timedelta

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("scheduler", "0013_indexes_of_targets")]

    operations = [
        migrations.CreateModel("Failure", [
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("call_id", models.BigIntegerField()),
        ]),
        migrations.CreateModel("Told", [
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("channel", models.CharField(max_length=64, help_text="A digest of its address, which may hold a password.")),
            ("target", models.ForeignKey(
                "scheduler.target", django.db.models.deletion.CASCADE, null=True, db_constraint=False, related_name="+",
                help_text="API_URL if it is null.")),
            ("version", models.PositiveBigIntegerField(default=0, help_text="One more with each change.")),
            ("failed_at", models.DateTimeField(help_text="When a failure was last added.")),
            ("in_a_row", models.PositiveIntegerField(default=0, help_text="Failures since the last success.")),
            ("waiting", models.JSONField(default=dict, help_text="Sums of the failures that no notice has told of.")),
            ("sending", models.JSONField(
                default=dict, help_text="What of these the notice tells of that somebody sends, or has tried to.")),
            ("failing_since", models.DateTimeField(
                null=True, help_text="When the first ended that it was told of; null if it was told since that calls succeed again.")),
            ("succeeded_at", models.DateTimeField(
                null=True, help_text="When the first call was due that succeeded since the last failure.")),
            ("told_at", models.DateTimeField(null=True, help_text="When a notice last reached it.")),
            ("unsent_since", models.DateTimeField(null=True, help_text="Since when a notice is tried in vain.")),
            ("tried_at", models.DateTimeField(null=True, help_text="When somebody last began to send, or gave up;")),
            ("pause", models.DurationField(default=timedelta, help_text="for how long from then nobody else begins.")),
        ], options={"constraints": [
            models.UniqueConstraint(fields=["channel", "target"], name="one_of_channel_and_target"),
            models.UniqueConstraint(fields=["channel"], name="one_of_channel", condition=models.Q(target=None)),
        ]}),
        migrations.AddField("target", "notify_after", models.PositiveIntegerField(
            default=1, db_default=1, help_text="Failures in a row after which it is told that calls fail.")),
        migrations.AlterField("target", "secrets", models.TextField(
            blank=True, editable=False,
            help_text="Encrypted (base/secrets.py): JSON with headers {name: value}, auth {name: value}, signing "
                      "[key, ...] and notify [address, ...].")),
        migrations.AlterField("target", "secret_names", models.JSONField(
            default=dict, editable=False,
            help_text="What there is in `secrets`, without the values, each with the time of its change: "
                      "{\"headers\": {name: ISO 8601}, \"auth\": {...}, \"signing\": [ISO 8601, ...], \"notify\": ISO 8601}.")),
    ]
