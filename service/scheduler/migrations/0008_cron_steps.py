"""`5/10`, as which no cron takes it, was taken, and read as `5-59/10`. So it is written from here on: it comes as
before, and its schedule can be changed."""
import re

from django.db import migrations

LAST = (59, 23, 31, 12, 7)      # value of each field


def in_full(cron):
    def of(field, last):
        terms = (re.sub("^(L|LW)/.*", r"\1", term, flags=re.I) for term in field.split(","))
        return ",".join(re.sub("^([^*/-]+)/", rf"\1-{last}/", term) for term in terms)
    return " ".join(map(of, cron.split(), LAST))


def write_in_full(apps, schema_editor):
    for schedule in apps.get_model("scheduler", "Schedule").objects.filter(cron__contains="/"):
        if (cron := in_full(schedule.cron)) != schedule.cron:
            schedule.cron = cron
            schedule.save(update_fields=["cron"])


class Migration(migrations.Migration):
    dependencies = [("scheduler", "0007_schedules")]

    operations = [migrations.RunPython(write_in_full, migrations.RunPython.noop)]
