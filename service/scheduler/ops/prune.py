"""Deleting what is old. What /metrics counts of it is kept."""
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import BigIntegerField, Exists, OuterRef
from django.db.models.functions import Cast

from ..calls.ledger import BATCH, NOW
from ..models import IdempotentAnswer, ScheduledCall
from . import metrics


def prune(before, keys_before):
    """Deletes the calls that ended before `before`, with what the admin's history says of them, and the
    answers kept for idempotency from before `keys_before`, in batches, so that nobody waits long for a lock.

    before, keys_before: aware datetimes
    Returns (calls, answers) deleted. Safe to interrupt and to run again.
    """
    def in_batches(rows, first=lambda batch: None):
        deleted = last = 0
        while ids := list(rows.filter(id__gt=last).order_by("id").values_list("id", flat=True)[:BATCH]):
            last = ids[-1]
            with transaction.atomic():
                first(rows.filter(id__in=ids))
                # _raw_delete: one DELETE, without fetching each row for signals that nobody listens to.
                deleted += rows.filter(id__in=ids)._raw_delete(rows.db)
        return deleted

    # One that stands for an occurrence to come is what keeps that from being planned again.
    calls = in_batches(ScheduledCall.objects.filter(
        status__in=ScheduledCall.FINISHED, ended_at__lt=before).exclude(occurrence__gt=NOW), metrics.keep)
    in_batches(LogEntry.objects.filter(
        ~Exists(ScheduledCall.objects.filter(id=Cast(OuterRef("object_id"), BigIntegerField()))),
        content_type=ContentType.objects.get_for_model(ScheduledCall), action_time__lt=before))
    return calls, in_batches(IdempotentAnswer.objects.filter(created_at__lt=keys_before))
