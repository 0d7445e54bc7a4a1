"""The index for ops/notify.py, made while everything runs."""
from django.db import migrations, models

from ._while_up import AddIndexWhileUp


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("scheduler", "0005_told")]

    operations = [
        AddIndexWhileUp("scheduledcall", models.Index(
            fields=["ended_at"], name="call_untold",
            condition=models.Q(models.Q(("status", "Failed"), ("status", "Missed"), _connector="OR"),
                               ("told", None)))),
    ]
