"""Deleting what is old. What /metrics counts of it is kept."""
from datetime import timedelta

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import BigIntegerField, Exists, OuterRef, Q
from django.db.models.functions import Cast

from ..base.clock import utcnow
from ..calls.ledger import BATCH, NOW
from ..models import Attempt, CallRequest, IdempotentAnswer, ScheduledCall, Target
from . import metrics

KEEP_DAYS = Target._meta.get_field("keep_days").default     # also of attempts for no target


def _of_calls(calls):
    """What goes with these calls, a queryset of few."""
    metrics.keep(calls)
    for model in (Attempt, CallRequest):
        model.objects.filter(call__in=list(calls.values_list("id", flat=True))).delete()


def prune_attempts(now):
    """Deletes the attempts that are older than their targets keep them, in batches. Those of a call that has not ended
    stay: whether there is another goes by them. By their age: those that are kept are not read.

    now: aware datetime
    """
    targets = {KEEP_DAYS: []}
    for target_id, days in Target.objects.values_list("id", "keep_days"):
        targets.setdefault(days, []).append(target_id)
    for days, ids in targets.items():
        of = Q(call__target__in=ids) | Q(call__target=None) if days == KEEP_DAYS else Q(call__target__in=ids)
        old = Attempt.objects.filter(of, call__status__in=ScheduledCall.FINISHED, ended_at__lt=now - timedelta(days=days))
        while some := list(old.order_by("ended_at").values_list("id", flat=True)[:BATCH]):
            Attempt.objects.filter(id__in=some).delete()


def prune(before, keys_before):
    """Deletes the calls that ended before `before`, with their attempts and what the admin's history says of them; the
    attempts that are older than their targets keep them; and the answers kept for idempotency from before `keys_before`.
    All of it in batches, so that nobody waits long for a lock.

    before, keys_before: aware datetimes
    Returns (calls, answers) deleted. Safe to interrupt and to run again.
    """
    def in_batches(rows, first=lambda batch: None):
        deleted = last = 0
        while ids := list(rows.filter(id__gt=last).order_by("id").values_list("id", flat=True)[:BATCH]):
            last = ids[-1]
            with transaction.atomic():
                first(rows.filter(id__in=ids))
                # _raw_delete: one DELETE. Of calls, `delete` would fetch each row for what went with it just now.
                deleted += rows.model.objects.filter(id__in=ids)._raw_delete(rows.db)
        return deleted

    # One that stands for an occurrence to come is what keeps that from being planned again.
    calls = in_batches(ScheduledCall.objects.filter(
        status__in=ScheduledCall.FINISHED, ended_at__lt=before).exclude(occurrence__gt=NOW), _of_calls)
    prune_attempts(utcnow())
    in_batches(LogEntry.objects.filter(
        ~Exists(ScheduledCall.objects.filter(id=Cast(OuterRef("object_id"), BigIntegerField()))),
        content_type=ContentType.objects.get_for_model(ScheduledCall), action_time__lt=before))
    return calls, in_batches(IdempotentAnswer.objects.filter(created_at__lt=keys_before))
