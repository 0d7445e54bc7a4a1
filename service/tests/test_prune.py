"""`manage.py prune DAYS` deletes finished calls older than that, attempts that are kept no longer, and nothing else."""
from datetime import timedelta

import pytest
from conftest import make, statuses
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command

from scheduler.base.clock import utcnow
from scheduler.models import Attempt, CallRequest, ScheduledCall, Target


def test_only_finished_and_old(capsys):
    for status in ScheduledCall.Status.values:
        make(-90 * 86400, 1200, status=status)      # more than a batch
    old = utcnow() - timedelta(days=31)
    ScheduledCall.objects.filter(status__in=ScheduledCall.FINISHED).update(ended_at=old)
    young = make(-90 * 86400, status="Succeeded", ended_at=utcnow() - timedelta(days=29))
    call_command("prune", "30")
    assert statuses() == {"Pending": 1200, "Running": 1200, "Retrying": 1200, "Succeeded": 1}
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


def attempt(call, days):
    ended = utcnow() - timedelta(days=days)
    return Attempt.objects.create(call=call, number=1 + call.attempts.count(), ended_at=ended, outcome="Failed", kept={"address": "::1"}).id


def test_what_goes_with_a_call_is_deleted_with_it():
    target = Target.objects.create(name="billing", url="https://api.example/", keep_days=3650)
    gone, stays = [make(-40 * 86400, status="Failed", target=target, ended_at=utcnow() - timedelta(days=days)) for days in (40, 20)]
    for call in (gone, stays):
        attempt(call, 35), CallRequest.objects.create(call=call, body="x")
    call_command("prune", "30", verbosity=0)
    for model, name in ((ScheduledCall, "id"), (Attempt, "call"), (CallRequest, "call")):
        assert list(model.objects.values_list(name, flat=True)) == [stays.id], model


def test_attempts_are_kept_for_as_long_as_their_target_says():
    long, short = [Target.objects.create(name=f"for-{days}", url="https://api.example/", keep_days=days) for days in (60, 5)]
    calls = {name: make(-86400, status="Failed", target=target, ended_at=utcnow()) for name, target in (
        ("long", long), ("short", short), ("none", None))}
    waits = make(-86400, status="Retrying", target=short)
    left = [attempt(waits, 40), attempt(calls["long"], 59), attempt(calls["short"], 4), attempt(calls["none"], 29)]
    attempt(calls["long"], 61), attempt(calls["short"], 6), attempt(calls["none"], 31)
    call_command("prune", "365", verbosity=0)
    assert list(Attempt.objects.order_by("id").values_list("id", flat=True)) == left
    assert ScheduledCall.objects.count() == 4, "their outcomes stay"


@pytest.mark.parametrize("days", ["-1", "nan", "1e99", "many"])
def test_a_bad_age(days):
    make(-90 * 86400, status="Succeeded", ended_at=utcnow() - timedelta(days=29))
    with pytest.raises(CommandError):
        call_command("prune", "--", days)
    assert statuses() == {"Succeeded": 1}
