"""What the database keeps: the calls, the answers already given to a retried request, when the
dispatcher last ran, and what the parts that sum up (metrics.py, mail.py) have summed up. The status of a
call is changed by transitions.py alone."""
from datetime import datetime, timedelta
from datetime import timezone as zones

from django.db import models

from .clock import utcnow


class ScheduledCall(models.Model):
    """One call of the API at one time.

    Pending -> Running -> Succeeded or Failed; Missed when it could not start within the grace
    time; Cancelled by a person. All but the first two are final.
    """

    class Status(models.TextChoices):
        PENDING = "Pending"
        RUNNING = "Running"
        SUCCEEDED = "Succeeded"
        FAILED = "Failed"
        MISSED = "Missed"
        CANCELLED = "Cancelled"

    FINISHED = (Status.SUCCEEDED, Status.FAILED, Status.MISSED, Status.CANCELLED)
    UNTOLD = models.Q(models.Q(status="Failed") | models.Q(status="Missed"), told=None)

    timestamp = models.DateTimeField(
        "due", help_text="When the API is to be called; never earlier, not by a millisecond.")
    status = models.CharField(
        max_length=9, choices=Status, default=Status.PENDING, editable=False)
    created_at = models.DateTimeField("created", default=utcnow, editable=False)
    handed_over_at = models.DateTimeField(
        "handed over", null=True, editable=False, help_text="When it was last given to the broker.")
    claim_token = models.CharField(
        max_length=32, blank=True, editable=False, help_text="Names the one worker that may call.")
    lease_until = models.DateTimeField(
        null=True, editable=False,
        help_text="Until when, by the database's clock, its worker counts as alive.")
    started_at = models.DateTimeField(
        "started", null=True, editable=False, help_text="When its request was about to be sent.")
    ended_at = models.DateTimeField("ended", null=True, editable=False)
    http_status = models.PositiveSmallIntegerField("HTTP status", null=True, editable=False)
    error = models.CharField(max_length=500, blank=True, editable=False)
    told = models.BooleanField(
        null=True, editable=False, help_text="Its failure was gathered for a mail, see mail.py.")

    class Meta:
        ordering = ["timestamp", "id"]
        indexes = [
            # For lists, time ranges and the picture.
            models.Index(fields=["timestamp", "id"], name="call_due"),
            # For the dispatcher. A row leaves them when it ends, so that their size, and with it
            # the cost of a tick, does not grow with the number of finished rows.
            models.Index(fields=["timestamp"], name="call_pending",
                         condition=models.Q(status="Pending")),
            models.Index(fields=["lease_until"], name="call_running",
                         condition=models.Q(status="Running")),
            # For mail.py. A row leaves it when it is gathered.
            models.Index(fields=["ended_at"], name="call_untold",
                         condition=models.Q(models.Q(status="Failed") | models.Q(status="Missed"), told=None)),
        ]

    def __str__(self):
        return f"call {self.pk}, due {self.timestamp:%Y-%m-%d %H:%M:%S}"

    @property
    def lateness(self):
        """Seconds from the due time to the start of the call, or None if no request was sent, or none
        that is known of."""
        if self.started_at is None:
            return None
        return (self.started_at - self.timestamp).total_seconds()


class IdempotentAnswer(models.Model):
    """The answer to a POST that named an Idempotency-Key, for when the POST is repeated."""

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
    """The sums of all calls that were due before `until`, see metrics.py; there is one row."""

    until = models.DateTimeField(default=datetime(1970, 1, 1, tzinfo=zones.utc))
    counts = models.JSONField()


class Notice(models.Model):
    """What mails have told of failures, and what waits to be told, see mail.py; there is one row."""

    version = models.PositiveBigIntegerField(default=0, help_text="One more with each change.")
    since = models.DateTimeField(help_text="What ended before it is not told: mails were not wanted yet.")
    seen_at = models.DateTimeField(help_text="When a dispatcher last noted that mails are wanted.")
    waiting = models.JSONField(default=dict, help_text="Sums of the failures that no mail has told of.")
    failed_at = models.DateTimeField(null=True, help_text="When a failure was last added to them.")
    told_at = models.DateTimeField(null=True, help_text="When a mail last told of failures.")
    failing = models.BooleanField(default=False, help_text="No mail has said since that calls succeed again.")
    tried_at = models.DateTimeField(null=True, help_text="When somebody last began to send, or gave up;")
    pause = models.DurationField(default=timedelta, help_text="for how long from then nobody else begins.")
