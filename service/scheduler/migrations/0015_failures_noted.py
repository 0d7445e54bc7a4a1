"""A row for each call that failed or was missed, until ops/notify.py gathers it.

The database adds it as the call ends: so it is there also for what a process of the version before ends. What mails of
that version have not told of yet is taken over. Its table of mails and its column of the calls stay, for as long as its
processes may be up; the models know them no more. Their index goes: a dispatcher of that version looks through all calls
that failed instead.
"""
from datetime import datetime, timedelta

from django.db import migrations, models

from ._while_up import RemoveIndexWhileUp

CALL, FAILURE = "scheduler_scheduledcall", "scheduler_failure"
WRONG = "NEW.status IN ('Failed', 'Missed')"
ENDED = f"{WRONG} AND OLD.status NOT IN ('Failed', 'Missed')"
NOTE = f"INSERT INTO {FAILURE} (call_id) VALUES (NEW.id)"
TRIGGERS = {"failed": f"AFTER UPDATE OF status ON {CALL} FOR EACH ROW WHEN ({ENDED})",
            "made_failed": f"AFTER INSERT ON {CALL} FOR EACH ROW WHEN ({WRONG})"}
OFF = timedelta(minutes=10)         # for which a dispatcher of the version before ran without mails: they were not wanted


def note(apps, schema_editor):
    """All of it in one transaction: what ends meanwhile is either noted or taken over."""
    postgresql = schema_editor.connection.vendor == "postgresql"
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_proc WHERE proname = %s" if postgresql else "SELECT 1 FROM sqlite_master WHERE name = %s",
                       [f"{CALL}_failed"])
        if cursor.fetchone():
            return                  # of an attempt that was broken off later
    if postgresql:
        schema_editor.execute(f"CREATE FUNCTION {CALL}_failed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {NOTE}; RETURN NULL; END'")
    for name, when in TRIGGERS.items():
        schema_editor.execute(f"CREATE TRIGGER {CALL}_{name} {when} "
                              + (f"EXECUTE FUNCTION {CALL}_failed()" if postgresql else f"BEGIN {NOTE}; END"))
    take_over(apps)


def note_no_more(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"DROP FUNCTION {CALL}_failed() CASCADE")
        return
    for name in TRIGGERS:
        schema_editor.execute(f"DROP TRIGGER {CALL}_{name}")


def take_over(apps):
    """What the version before has not seen yet, and what it has seen and not told. Of that it knows the sums, and from
    when to when: a few are perhaps told twice."""
    Notice, Call = apps.get_model("scheduler", "Notice"), apps.get_model("scheduler", "ScheduledCall")
    notice, beat = Notice.objects.first(), apps.get_model("scheduler", "Heartbeat").objects.filter(name="dispatcher").first()
    if not notice or beat and beat.at - notice.seen_at > OFF:
        return
    # As an OR, as the index has it: for an IN with parameters SQLite would not use it.
    wrong = models.Q(status="Failed") | models.Q(status="Missed")
    which = [Call.objects.filter(wrong, told=None, ended_at__gte=notice.since)]
    if notice.waiting:
        between = [datetime.fromisoformat(notice.waiting[name]) for name in ("first", "last")]
        which.append(Call.objects.filter(wrong, told=True, ended_at__range=between))
    Failure = apps.get_model("scheduler", "Failure")
    for calls in which:
        Failure.objects.bulk_create(
            [Failure(call_id=call_id) for call_id in calls.order_by("ended_at").values_list("id", flat=True)], batch_size=1000)


class Migration(migrations.Migration):
    atomic = False                  # apart from 0014, too: no transaction locks both targets and calls
    dependencies = [("scheduler", "0014_notices")]

    operations = [
        migrations.RunPython(note, note_no_more, atomic=True),
        RemoveIndexWhileUp("scheduledcall", "call_untold"),
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.RemoveField("scheduledcall", "told"), migrations.DeleteModel("Notice")]),
    ]
