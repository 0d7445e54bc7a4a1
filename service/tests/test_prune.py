"""`manage.py prune DAYS` deletes finished calls older than that, and nothing else."""
from datetime import timedelta

import pytest
from conftest import make, statuses
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command

from scheduler.base.clock import utcnow
from scheduler.models import ScheduledCall


def test_only_finished_and_old(capsys):
    for status in ScheduledCall.Status.values:
        make(-90 * 86400, 1200, status=status)      # more than a batch
    old = utcnow() - timedelta(days=31)
    ScheduledCall.objects.filter(status__in=ScheduledCall.FINISHED).update(ended_at=old)
    young = make(-90 * 86400, status="Succeeded", ended_at=utcnow() - timedelta(days=29))
    call_command("prune", "30")
    assert statuses() == {"Pending": 1200, "Running": 1200, "Succeeded": 1}
    assert ScheduledCall.objects.filter(id=young.id).exists()
    assert "Deleted 4800 finished calls" in capsys.readouterr().out


def test_the_history_of_what_is_deleted_goes_with_it():
    kept, user = make(86400), User.objects.create_user("ann")
    long_ago = utcnow() - timedelta(days=31)
    gone = make(-40 * 86400, status="Succeeded", ended_at=long_ago)

    def entry(call_id, at, model=ScheduledCall):
        return LogEntry.objects.create(
            user=user, content_type=ContentType.objects.get_for_model(model), object_id=call_id, action_flag=2,
            object_repr="", action_time=at).id
    entry(gone.id, long_ago)
    left = [entry(kept.id, long_ago), entry(gone.id, utcnow()), entry(gone.id, long_ago, User),
            entry("f00", long_ago, User)]
    call_command("prune", "30", verbosity=0)
    assert list(LogEntry.objects.order_by("id").values_list("id", flat=True)) == left


@pytest.mark.parametrize("days", ["-1", "nan", "1e99", "many"])
def test_a_bad_age(days):
    make(-90 * 86400, status="Succeeded", ended_at=utcnow() - timedelta(days=29))
    with pytest.raises(CommandError):
        call_command("prune", "--", days)
    assert statuses() == {"Succeeded": 1}
