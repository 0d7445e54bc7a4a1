"""What is sent to targets, and the attempts.

Every new column of the calls may be null: versions that know no targets insert rows without them, and go on doing so
for a while. Of a call that names a target such a version knows too little to make it. So the database keeps it from
claiming one (its UPDATE changes no row, as if somebody else had been first), gives the calls that it plans for a
schedule that schedule's target, and those that repeat others their target and what is sent with them: so that API_URL
is called for none of them.
"""
import django.db.models.deletion
from django.db import migrations, models

from ._while_up import AddNullWhileUp


CALL, SCHEDULE, REQUEST = "scheduler_scheduledcall", "scheduler_schedule", "scheduler_callrequest"
# Who knows of targets counts the attempt as it claims the call.
UNKNOWING = """NEW.status = 'Running' AND OLD.status <> 'Running' AND NEW.target_id IS NOT NULL
               AND NEW.attempts_made IS NOT DISTINCT FROM OLD.attempts_made"""
MADE = "NEW.target_id IS NULL AND (NEW.schedule_id IS NOT NULL OR NEW.again_of IS NOT NULL)"
TARGET = f"""COALESCE((SELECT target_id FROM {SCHEDULE} WHERE id = NEW.schedule_id),
                      (SELECT target_id FROM {CALL} WHERE id = NEW.again_of))"""
SENT = f"""INSERT INTO {REQUEST} (call_id, body, headers, data)
           SELECT NEW.id, body, headers, data FROM {REQUEST} WHERE call_id = NEW.again_of"""

POSTGRESQL = [
    f"""CREATE FUNCTION {CALL}_not_claimed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'""",
    f"""CREATE TRIGGER {CALL}_not_claimed BEFORE UPDATE OF status ON {CALL} FOR EACH ROW
        WHEN ({UNKNOWING}) EXECUTE FUNCTION {CALL}_not_claimed()""",
    f"""CREATE FUNCTION {CALL}_made() RETURNS trigger LANGUAGE plpgsql AS '
        BEGIN
            NEW.target_id := {TARGET};
            {SENT};
            RETURN NEW;
        END'""",
    f"""CREATE TRIGGER {CALL}_made BEFORE INSERT ON {CALL} FOR EACH ROW
        WHEN ({MADE}) EXECUTE FUNCTION {CALL}_made()""",
]
SQLITE = [
    f"""CREATE TRIGGER {CALL}_not_claimed BEFORE UPDATE OF status ON {CALL} FOR EACH ROW
        WHEN {UNKNOWING.replace("IS NOT DISTINCT FROM", "IS")} BEGIN SELECT RAISE(IGNORE); END""",
    f"""CREATE TRIGGER {CALL}_made AFTER INSERT ON {CALL} FOR EACH ROW WHEN {MADE}
        BEGIN
            UPDATE {CALL} SET target_id = {TARGET} WHERE id = NEW.id;
            {SENT};
        END""",
]


def guard(apps, schema_editor):
    for statement in POSTGRESQL if schema_editor.connection.vendor == "postgresql" else SQLITE:
        schema_editor.execute(statement)


def unguard(apps, schema_editor):
    for name in ("not_claimed", "made"):
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"DROP FUNCTION {CALL}_{name} CASCADE")
        else:
            schema_editor.execute(f"DROP TRIGGER {CALL}_{name}")


class Migration(migrations.Migration):

    dependencies = [
        ('scheduler', '0011_targets'),
    ]

    operations = [
        AddNullWhileUp(
            model_name='scheduledcall',
            name='attempts_made',
            field=models.PositiveSmallIntegerField(editable=False, help_text='How many were begun: each claim of it is one.', null=True, verbose_name='attempts'),
        ),
        migrations.AddField(
            model_name='scheduledcall',
            name='expires_at',
            field=models.DateTimeField(editable=False, help_text='When it is of no use any more: it is not started after this, instead of after GRACE.', null=True, verbose_name='expires'),
        ),
        migrations.AddField(
            model_name='scheduledcall',
            name='failure',
            field=models.CharField(editable=False, help_text='What the API has of the last attempt, a class of calls/outcomes.py; null for a success.', max_length=8, null=True),
        ),
        migrations.AddField(
            model_name='scheduledcall',
            name='next_attempt_at',
            field=models.DateTimeField(editable=False, help_text='While it is Retrying: not before this time.', null=True, verbose_name='next attempt'),
        ),
        AddNullWhileUp(
            model_name='scheduledcall',
            name='trace',
            field=models.JSONField(editable=False, help_text='Of a first attempt for which there is no row of its own: what that would hold, see Attempt.kept.', null=True),
        ),
        migrations.AlterField(
            model_name='scheduledcall',
            name='status',
            field=models.CharField(choices=[('Pending', 'Pending'), ('Running', 'Running'), ('Retrying', 'Retrying'), ('Succeeded', 'Succeeded'), ('Failed', 'Failed'), ('Missed', 'Missed'), ('Cancelled', 'Cancelled')], default='Pending', editable=False, max_length=9),
        ),
        migrations.AddField(
            model_name='scheduledcall',
            name='target',
            field=models.ForeignKey(db_index=False, editable=False, help_text='What is called; API_URL if it is null.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='calls', to='scheduler.target'),
        ),
        migrations.CreateModel(
            name='CallRequest',
            fields=[
                ('call', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='request', serialize=False, to='scheduler.scheduledcall')),
                ('body', models.TextField(help_text="Instead of the target's, placeholders and all; null for the target's.", null=True)),
                ('headers', models.JSONField(default=dict, help_text="{name: value}: beside the target's, and instead of its own of that name.")),
                ('data', models.JSONField(default=dict, help_text='{key: value}, what {{data.KEY}} stands for.')),
            ],
        ),
        migrations.CreateModel(
            name='Attempt',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveSmallIntegerField(help_text='From 1.')),
                ('started_at', models.DateTimeField(help_text='When its request was about to be sent; null if none was.', null=True)),
                ('ended_at', models.DateTimeField()),
                ('outcome', models.CharField(choices=[('Succeeded', 'Succeeded'), ('Failed', 'Failed')], max_length=9)),
                ('failure', models.CharField(blank=True, help_text='A class of calls/outcomes.py.', max_length=8)),
                ('http_status', models.PositiveSmallIntegerField(null=True)),
                ('error', models.CharField(blank=True, max_length=500)),
                ('kept', models.JSONField(default=dict, help_text='version (of the target), address, phases (ms), request (method, url, headers, body) and response (headers, body, truncated), as far as there were any. No secret is in it.')),
                ('call', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='attempts', to='scheduler.scheduledcall')),
            ],
            options={
                'ordering': ['call', 'number'],
            },
        ),
        migrations.AddIndex(
            model_name='attempt',
            index=models.Index(fields=['ended_at'], name='attempt_ended'),
        ),
        migrations.AddConstraint(
            model_name='attempt',
            constraint=models.UniqueConstraint(fields=('call', 'number'), name='one_attempt_of_a_number'),
        ),
        migrations.RunPython(guard, unguard),
    ]
