"""The answers already given to a retried request, when the dispatcher last ran, and what the parts that sum up
(ops/metrics.py, ops/notify.py) have summed up."""
from datetime import datetime, timedelta
from datetime import timezone as zones

from django.db import models

from ..base.clock import utcnow
from .targets import Target


class IdempotentAnswer(models.Model):
    """The answer to a POST that named an Idempotency-Key, or to a form of the admin, which has a key of its own
    (admin/forms.py), for when the same is sent again."""

    scope = models.CharField(max_length=40, help_text="Whose key it is: another user's is another key.")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of what was asked for.")
    answer = models.TextField(help_text="The JSON as it was sent; jsonb would reorder its keys.")
    created_at = models.DateTimeField(default=utcnow)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["scope", "key"], name="one_answer_per_key")]


class Heartbeat(models.Model):
    """When a part of the service last gave a sign of life; the only row is the dispatcher's."""

    name = models.CharField(max_length=40, primary_key=True)
    at = models.DateTimeField()


class Tally(models.Model):
    """The sums of all calls that were due before `until`, see ops/metrics.py; there is one row."""

    until = models.DateTimeField(default=datetime(1970, 1, 1, tzinfo=zones.utc))
    counts = models.JSONField()


class Failure(models.Model):
    """A call that ended as Failed or Missed, until it is gathered for notices (ops/notify.py). The database itself adds
    it, as the call ends, so that none is left out, whoever ended it (migration 0015)."""

    call_id = models.BigIntegerField()


class Told(models.Model):
    """What one channel has been told of one target, and what waits to be told, see ops/notify.py."""

    channel = models.CharField(max_length=64, help_text="A digest of its address, which may hold a password.")
    # Without a constraint: a version that does not know this table prunes targets too.
    target = models.ForeignKey(
        Target, models.CASCADE, null=True, db_constraint=False, related_name="+", help_text="API_URL if it is null.")
    version = models.PositiveBigIntegerField(default=0, help_text="One more with each change.")
    failed_at = models.DateTimeField(help_text="When a failure was last added.")
    in_a_row = models.PositiveIntegerField(default=0, help_text="Failures since the last success.")
    waiting = models.JSONField(default=dict, help_text="Sums of the failures that no notice has told of.")
    sending = models.JSONField(default=dict, help_text="What of these the notice tells of that somebody sends, or has tried to.")
    failing_since = models.DateTimeField(
        null=True, help_text="When the first ended that it was told of; null if it was told since that calls succeed again.")
    succeeded_at = models.DateTimeField(null=True, help_text="When the first call was due that succeeded since the last failure.")
    told_at = models.DateTimeField(null=True, help_text="When a notice last reached it.")
    unsent_since = models.DateTimeField(null=True, help_text="Since when a notice is tried in vain.")
    tried_at = models.DateTimeField(null=True, help_text="When somebody last began to send, or gave up;")
    pause = models.DurationField(default=timedelta, help_text="for how long from then nobody else begins.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["channel", "target"], name="one_of_channel_and_target"),
            models.UniqueConstraint(fields=["channel"], name="one_of_channel", condition=models.Q(target=None)),
        ]
