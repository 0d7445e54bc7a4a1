"""`manage.py prune DAYS` deletes finished calls older than that, and nothing else."""
from datetime import timedelta

import pytest
from conftest import make, statuses
from django.core.management import CommandError, call_command

from scheduler.clock import utcnow
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


@pytest.mark.parametrize("days", ["-1", "nan", "1e99", "many"])
def test_a_bad_age(days):
    make(-90 * 86400, status="Succeeded", ended_at=utcnow() - timedelta(days=29))
    with pytest.raises(CommandError):
        call_command("prune", "--", days)
    assert statuses() == {"Succeeded": 1}
