"""What the database keeps: the calls, the answers already given to a retried request, and when the
dispatcher last ran. The rows are changed by transitions.py alone."""
from datetime import datetime
from datetime import timezone as zones

from django.db import models
from django.utils import formats, timezone

from .by_status import Calls
from .clock import utcnow

NOTE_MAX = 200              # characters


def moment(at):
    """The aware datetime `at` as people read it, on every page: 2026-08-01 14:30:00 UTC, in TIME_ZONE."""
    return formats.date_format(timezone.localtime(at), "DATETIME_FORMAT")


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
    # Who and why. Names and ids, and not foreign keys: they outlive the user or the call that they name,
    # and nothing has to be looked after when one of these is deleted.
    scheduled_by = models.CharField(
        max_length=150, blank=True, editable=False, help_text="The user's name at that time.")
    scheduled_via = models.CharField(
        "via", max_length=10, blank=True, editable=False, help_text="By which way it came: API or admin.")
    note = models.CharField(max_length=NOTE_MAX, blank=True, help_text="What it is for.")
    again_of = models.BigIntegerField(
        null=True, editable=False, help_text="The id of the call that it repeats.")
    cancelled_by = models.CharField(
        max_length=150, blank=True, editable=False, help_text="The user's name at that time.")

    objects = Calls.as_manager()

    class Meta:
        verbose_name, verbose_name_plural = "call", "calls"
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
            # For lists of one status, and to count by it: the others', however many, are not read. A row
            # is put into one of them when it ends, and nothing is taken out.
            *(models.Index(fields=["timestamp", "id"], name=f"call_{status.lower()}",
                           condition=models.Q(status=status))
              for status in ("Succeeded", "Failed", "Missed", "Cancelled")),
            # For what was scheduled again from a call.
            models.Index(fields=["again_of"], name="call_again", condition=models.Q(again_of__isnull=False)),
        ]

    def __str__(self):
        return f"call {self.pk}, due {moment(self.timestamp)}"

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
