"""The answers already given to a retried request, when the dispatcher last ran, and what the parts that sum up
(ops/metrics.py, ops/notify.py) have summed up."""
from datetime import datetime, timedelta
from datetime import timezone as zones

from django.db import models

from ..base.clock import utcnow


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


class Notice(models.Model):
    """What mails have told of failures, and what waits to be told, see ops/notify.py; there is one row."""

    version = models.PositiveBigIntegerField(default=0, help_text="One more with each change.")
    since = models.DateTimeField(help_text="What ended before it is not told: mails were not wanted yet.")
    seen_at = models.DateTimeField(help_text="When a dispatcher last noted that mails are wanted.")
    waiting = models.JSONField(default=dict, help_text="Sums of the failures that no mail has told of.")
    failed_at = models.DateTimeField(null=True, help_text="When a failure was last added to them.")
    told_at = models.DateTimeField(null=True, help_text="When a mail last told of failures.")
    failing = models.BooleanField(default=False, help_text="No mail has said since that calls succeed again.")
    tried_at = models.DateTimeField(null=True, help_text="When somebody last began to send, or gave up;")
    pause = models.DurationField(default=timedelta, help_text="for how long from then nobody else begins.")
