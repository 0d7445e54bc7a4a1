"""Targets, and what a schedule calls.

This one changes the table of the schedules, the next that of the calls. Both in one transaction would wait for each
other with whoever reads calls and the names of their schedules, or plans: one lock is asked for while another is held.
"""
import django.db.models.deletion
import scheduler.base.clock
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('scheduler', '0010_pending_in_order'),
    ]

    operations = [
        migrations.CreateModel(
            name='Target',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='What requests and files call it: letters, digits, - _ and .', max_length=64)),
                ('url', models.CharField(max_length=2000, verbose_name='URL')),
                ('method', models.CharField(choices=[('GET', 'GET'), ('HEAD', 'HEAD'), ('POST', 'POST'), ('PUT', 'PUT'), ('PATCH', 'PATCH'), ('DELETE', 'DELETE'), ('OPTIONS', 'OPTIONS')], default='GET', max_length=7)),
                ('headers', models.JSONField(blank=True, default=dict, help_text='{name: value}')),
                ('body', models.TextField(blank=True)),
                ('auth', models.JSONField(blank=True, default=dict, help_text='How it proves who it is: kind (none, basic, bearer, header, oauth2), and what of that is no secret.')),
                ('secrets', models.TextField(blank=True, editable=False, help_text='Encrypted (base/secrets.py): JSON with headers {name: value}, auth {name: value} and signing [key, ...].')),
                ('secret_names', models.JSONField(default=dict, editable=False, help_text='What there is in `secrets`, without the values, each with the time of its change: {"headers": {name: ISO 8601}, "auth": {...}, "signing": [ISO 8601, ...]}.')),
                ('connect_timeout', models.FloatField(blank=True, help_text='Seconds; CONNECT_TIMEOUT if it is empty.', null=True)),
                ('timeout', models.FloatField(blank=True, help_text='Seconds, for one whole attempt; TIMEOUT if it is empty.', null=True)),
                ('statuses', models.CharField(default='100-399', help_text='HTTP statuses that are a success: 200-299, 404.', max_length=100)),
                ('contains', models.CharField(blank=True, help_text='Text that the answer must have in it.', max_length=500)),
                ('not_contains', models.CharField(blank=True, help_text='Text that it must not have in it.', max_length=500)),
                ('follow_redirects', models.BooleanField(default=True)),
                ('delays', models.JSONField(blank=True, default=list, help_text='Seconds from the end of an attempt to the next: [10, 60, 600]; none: no retries.')),
                ('max_age', models.PositiveIntegerField(blank=True, help_text='Seconds after the due time in which a retry may still start.', null=True)),
                ('repeatable', models.BooleanField(default=False, help_text='It may be asked again although it has perhaps done what it was asked for.')),
                ('max_at_once', models.PositiveIntegerField(blank=True, help_text='Calls under way at once, at most.', null=True)),
                ('rate', models.CharField(blank=True, help_text='Requests at most, such as 300/min.', max_length=20)),
                ('keep_failures', models.PositiveIntegerField(default=16384, help_text='Bytes of the body of an answer that is no success.')),
                ('keep_successes', models.PositiveIntegerField(default=0, help_text='Bytes of the body of one that is.')),
                ('keep_days', models.PositiveIntegerField(default=30, help_text='Days for which the attempts are kept.')),
                ('paused_at', models.DateTimeField(editable=False, null=True)),
                ('paused_until', models.DateTimeField(editable=False, help_text='Null: until somebody resumes it.', null=True)),
                ('paused_by', models.CharField(blank=True, editable=False, max_length=150)),
                ('paused_reason', models.CharField(blank=True, editable=False, max_length=200)),
                ('version', models.PositiveIntegerField(default=1, editable=False, help_text='Counts its changes, from 1.')),
                ('created_at', models.DateTimeField(default=scheduler.base.clock.utcnow, editable=False, verbose_name='created')),
                ('created_by', models.CharField(blank=True, editable=False, max_length=150)),
                ('deleted_at', models.DateTimeField(editable=False, null=True)),
                ('free_at', models.DateTimeField(editable=False, help_text='Of its rate: when the next request is due that is not ahead of it (GCRA).', null=True)),
            ],
            options={
                'ordering': ['name'],
                'permissions': [('use_target', 'Can schedule calls for target'), ('see_request', 'Can see what is sent to target')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('deleted_at', None)), fields=('name',), name='one_target_of_a_name', violation_error_message='There is a target of this name already.')],
            },
        ),
        migrations.AddField(
            model_name='schedule',
            name='body',
            field=models.TextField(blank=True, help_text="Instead of the target's.", null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='catch_up',
            field=models.CharField(choices=[('none', 'None'), ('last', 'Last')], db_default='none', default='none', help_text='Which of the calls that no process was there to make are made late.', max_length=4),
        ),
        migrations.AddField(
            model_name='schedule',
            name='data',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict, help_text='{key: value}, what {{data.KEY}} stands for.'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='exceptions',
            field=models.JSONField(blank=True, db_default=models.Value([], models.JSONField()), default=list, help_text='Dates, YYYY-MM-DD, on which it does not call.'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='headers',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict, help_text="{name: value}: beside the target's, and instead of its own of that name."),
        ),
        migrations.AddField(
            model_name='schedule',
            name='jitter',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='Seconds by which, at most, each call is late, at random.'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='overlap',
            field=models.CharField(choices=[('allow', 'Allow'), ('skip', 'Skip')], db_default='allow', default='allow', help_text='What becomes of a call while an earlier one of the schedule has not ended.', max_length=5),
        ),
        migrations.AddField(
            model_name='schedule',
            name='paused_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='paused_by',
            field=models.CharField(db_default='', default='', editable=False, max_length=150),
        ),
        migrations.AddField(
            model_name='schedule',
            name='paused_reason',
            field=models.CharField(db_default='', default='', editable=False, max_length=200),
        ),
        migrations.AddField(
            model_name='schedule',
            name='paused_until',
            field=models.DateTimeField(editable=False, help_text='Null: until somebody resumes it.', null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='target',
            field=models.ForeignKey(blank=True, help_text='What is called; API_URL if there is none.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='schedules', to='scheduler.target'),
        ),
    ]
