"""The calls, what is sent with them, and the attempts at them. A call's status is changed by calls/ledger.py alone."""
from django.conf import settings
from django.db import models

from ..base.clock import utcnow
from ..base.moments import precise
from ..calls.queryset import Calls
from .schedules import Schedule
from .targets import Target

NOTE_MAX = 200              # characters


class ScheduledCall(models.Model):
    """One call of the API at one time.

    Pending -> Running -> Succeeded or Failed; Missed when it could not start within the grace time; Cancelled by
    a person; Running -> Retrying -> Running when its target has retries. All but these three are final.
    """

    class Status(models.TextChoices):
        PENDING = "Pending"
        RUNNING = "Running"
        RETRYING = "Retrying"
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
        "via", max_length=10, blank=True, editable=False, help_text="By which way it came: API, admin or schedule.")
    note = models.CharField(max_length=NOTE_MAX, blank=True, help_text="What it is for.")
    again_of = models.BigIntegerField(
        null=True, editable=False, help_text="The id of the call that it repeats.")
    cancelled_by = models.CharField(
        max_length=150, blank=True, editable=False, help_text="The user's name at that time.")

    schedule = models.ForeignKey(
        Schedule, models.PROTECT, null=True, editable=False, db_index=False, related_name="calls",
        help_text="Which planned it, if one did.")
    occurrence = models.DateTimeField(
        null=True, editable=False,
        help_text="The time of its schedule that it stands for, wherever it was moved to; there is no other "
                  "call for it. Null once that schedule was changed and what it had planned cancelled.")
    utc_offset = models.IntegerField(
        null=True, editable=False,
        help_text="How far, in seconds, the time that its schedule asks for is ahead of its occurrence, in UTC, as far "
                  "as was known when it was planned.")
    # Of calls that name a target. Null costs others nothing, and versions that know no targets write none of these.
    target = models.ForeignKey(
        Target, models.PROTECT, null=True, editable=False, db_index=False, related_name="calls",
        help_text="What is called; API_URL if it is null.")
    expires_at = models.DateTimeField(
        "expires", null=True, editable=False,
        help_text="When it is of no use any more: it is not started after this, instead of after GRACE.")
    attempts_made = models.PositiveSmallIntegerField(
        "attempts", null=True, editable=False, help_text="How many were begun: each claim of it is one.")
    next_attempt_at = models.DateTimeField(
        "next attempt", null=True, editable=False, help_text="While it is Retrying: not before this time.")
    failure = models.CharField(
        max_length=8, null=True, editable=False,
        help_text="What the API has of the last attempt, a class of calls/outcomes.py; null for a success.")
    trace = models.JSONField(
        null=True, editable=False,
        help_text="Of a first attempt for which there is no row of its own: what that would hold, see Attempt.kept.")

    objects = Calls.as_manager()

    class Meta:
        verbose_name, verbose_name_plural = "call", "calls"
        ordering = ["timestamp", "id"]
        constraints = [
            models.UniqueConstraint(fields=["schedule", "occurrence"], name="one_call_per_occurrence",
                                    condition=models.Q(schedule__isnull=False)),
        ]
        indexes = [
            # For lists, time ranges and the picture.
            models.Index(fields=["timestamp", "id"], name="call_due"),
            # For the dispatcher. A row leaves them when it ends, so that their size, and with it
            # the cost of a tick, does not grow with the number of finished rows.
            # (With the id, as lists have it in their order: PostgreSQL would take call_due instead where many calls
            # of one instant are Pending, and read all that were due before.)
            models.Index(fields=["timestamp", "id"], name="call_waiting", condition=models.Q(status="Pending")),
            models.Index(fields=["lease_until"], name="call_running",
                         condition=models.Q(status="Running")),
            # For lists of one status, and to count by it: the others', however many, are not read. A row
            # is put into one of them when it ends, and nothing is taken out.
            *(models.Index(fields=["timestamp", "id"], name=f"call_{status.lower()}",
                           condition=models.Q(status=status))
              for status in ("Succeeded", "Failed", "Missed", "Cancelled")),
            # For what was scheduled again from a call.
            models.Index(fields=["again_of"], name="call_again", condition=models.Q(again_of__isnull=False)),
            # What a schedule did and will do. Calls of no schedule cost nothing in it.
            models.Index(fields=["schedule", "timestamp", "id"], name="call_of_schedule",
                         condition=models.Q(schedule__isnull=False)),
            # For the dispatcher, as call_waiting is; and for lists: after an outage they may be tens of thousands.
            models.Index(fields=["next_attempt_at"], name="call_retrying", condition=models.Q(status="Retrying")),
            models.Index(fields=["timestamp", "id"], name="call_to_retry", condition=models.Q(status="Retrying")),
            # What a target was called for, and will be, by status: of one that is called well and often the few
            # that failed are asked for, and for its limits those under way. Calls that name none cost nothing in it.
            models.Index(fields=["target", "status", "timestamp", "id"], name="call_of_target",
                         condition=models.Q(target__isnull=False)),
        ]

    def __str__(self):
        return f"call {self.pk}, due {self.due}"

    @property
    def due(self):
        """When, in words."""
        return precise(self.timestamp)

    @property
    def caught_up(self):
        """Whether it was started after GRACE, as its schedule catches up with what nobody was there to make."""
        return bool(self.occurrence and self.expires_at and self.started_at and self.lateness > settings.GRACE)

    @property
    def lateness(self):
        """Seconds from the due time to the start of the call, or None if no request was sent, or none
        that is known of."""
        if self.started_at is None:
            return None
        return (self.started_at - self.timestamp).total_seconds()


class CallRequest(models.Model):
    """What is sent with a call, where that is its own and not its target's or its schedule's."""

    call = models.OneToOneField(ScheduledCall, models.CASCADE, primary_key=True, related_name="request")
    body = models.TextField(null=True, help_text="Instead of the target's, placeholders and all; null for the target's.")
    headers = models.JSONField(default=dict, help_text="{name: value}: beside the target's, and instead of its own of that name.")
    data = models.JSONField(default=dict, help_text="{key: value}, what {{data.KEY}} stands for.")


class Attempt(models.Model):
    """One HTTP exchange for a call. There is a row for each that failed, and for a success whose call had others, or
    of which the answer is kept; what is left of a first success is in the call's own row."""

    call = models.ForeignKey(ScheduledCall, models.CASCADE, db_index=False, related_name="attempts")
    number = models.PositiveSmallIntegerField(help_text="From 1.")
    started_at = models.DateTimeField(null=True, help_text="When its request was about to be sent; null if none was.")
    ended_at = models.DateTimeField()
    outcome = models.CharField(
        max_length=9, choices=[(status.value, status.label) for status in (ScheduledCall.Status.SUCCEEDED, ScheduledCall.Status.FAILED)])
    failure = models.CharField(max_length=8, blank=True, help_text="A class of calls/outcomes.py.")
    http_status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=500, blank=True)
    kept = models.JSONField(
        default=dict, help_text="version (of the target), address, phases (ms), request (method, url, headers, body) and "
                                "response (headers, body, truncated), as far as there were any. No secret is in it.")

    class Meta:
        ordering = ["call", "number"]
        constraints = [models.UniqueConstraint(fields=["call", "number"], name="one_attempt_of_a_number")]
        indexes = [models.Index(fields=["ended_at"], name="attempt_ended")]     # for what is kept for some days
