"""The indexes of calls that name targets, made while everything is up."""
from django.db import migrations, models

from ._while_up import AddIndexWhileUp


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("scheduler", "0012_calls_of_targets")]

    operations = [
        AddIndexWhileUp("scheduledcall", models.Index(
            fields=["next_attempt_at"], name="call_retrying", condition=models.Q(status="Retrying"))),
        AddIndexWhileUp("scheduledcall", models.Index(
            fields=["timestamp", "id"], name="call_to_retry", condition=models.Q(status="Retrying"))),
        AddIndexWhileUp("scheduledcall", models.Index(
            fields=["target", "status", "timestamp", "id"], name="call_of_target", condition=models.Q(target__isnull=False))),
    ]
