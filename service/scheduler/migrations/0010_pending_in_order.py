"""The index of what is Pending gets the id, and another name with it, made while everything runs."""
from django.db import migrations, models

from ._while_up import AddIndexWhileUp, RemoveIndexWhileUp


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("scheduler", "0009_zone_data")]

    operations = [
        AddIndexWhileUp("scheduledcall", models.Index(
            fields=["timestamp", "id"], name="call_waiting", condition=models.Q(status="Pending"))),
        RemoveIndexWhileUp("scheduledcall", "call_pending"),
    ]
