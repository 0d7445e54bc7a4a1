"""What the database keeps: the schedules and the calls, the answers already given to a retried request, when
the dispatcher last ran, and what the parts that sum up (ops/metrics.py, ops/notify.py) have summed up. The
status of a call is changed by calls/ledger.py alone, schedules by schedules/planner.py."""
from datetime import datetime, timedelta
from datetime import timezone as zones

from django.core.exceptions import ValidationError
from django.db import models

from .base.clock import utcnow
from .base.moments import moment, showable
from .base.words import is_seen, one_line
from .calls.queryset import Calls
from .schedules import recurrence

NOTE_MAX = 200              # characters


class Schedule(models.Model):
    """Times of day, or a cron line, at which there is to be a call, in a zone of its own.

    Its occurrences become calls 48 hours ahead (schedules/planner.py). A deleted one stays, unseen, for as long
    as there are calls that name it.
    """

    DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    MAX_TIMES = 1440        # a day: as many as a cron line can name

    name = models.CharField(max_length=100)
    times = models.TextField(
        blank=True, help_text="Times of day, HH:MM:SS, separated by commas: 12:30:00, 14:15:30.")
    cron = models.CharField(
        max_length=500, blank=True,
        help_text="Or, in place of times, a cron expression: */5 9-17 * * mon-fri.")
    zone = models.CharField(
        "time zone", max_length=64, help_text="The IANA name of the zone of times and days: Europe/Berlin.")
    days = models.CharField(max_length=27, default=",".join(DAYS))
    first_date = models.DateField(null=True, blank=True)
    last_date = models.DateField(null=True, blank=True)
    on = models.BooleanField(default=True)
    created_at = models.DateTimeField("created", default=utcnow, editable=False)
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    version = models.PositiveIntegerField(
        default=0, editable=False, help_text="Counts its changes: what was computed for another is not written.")
    planned_until = models.DateTimeField(
        null=True, editable=False,
        help_text="Each occurrence before this time is in the table of calls; null when there are to be none.")

    zone_data = models.CharField(
        max_length=32, null=True, editable=False,
        help_text="The release of the time zone data by which it is planned; null if a version planned it that did "
                  "not say.")

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(
            fields=["name"], condition=models.Q(deleted_at=None), name="one_schedule_of_a_name",
            violation_error_message="There is a schedule of this name already.")]
        indexes = [models.Index(fields=["planned_until"], name="schedule_to_plan",
                                condition=models.Q(planned_until__isnull=False))]

    def __str__(self):
        return f"{self.name} (deleted)" if self.deleted_at else self.name

    def clean(self):
        """Brings what a person wrote into one form. Raises ValidationError, with the words for each
        field that is wrong."""
        problems = {}

        def read(name, reading):
            try:
                return reading(getattr(self, name))
            except ValueError as error:
                problems[name] = f"{str(error)[:1].upper()}{str(error)[1:]}."

        # What is empty here was refused already, and that in better words.
        name, self.name = self.name, self.name.strip()
        if name and not is_seen(name):
            problems["name"] = "Must be text to read."
        else:
            read("name", one_line)
        chosen = set(self.days.split(","))
        if unknown := chosen - set(self.DAYS):
            problems["days"] = f"Choose from {', '.join(self.DAYS)}, at least one."
        self.days = ",".join(day for day in self.DAYS if day in chosen)
        if bool(self.times) == bool(self.cron):
            problems["times"] = ("Give either times or a cron expression, not both." if self.times else
                                 "Give times of day, such as 12:30:00, 14:15:30, or else a cron expression.")
        elif self.cron:
            self.cron = read("cron", recurrence.parse_cron) or self.cron
            if not unknown and len(chosen) < len(self.DAYS):
                problems["days"] = "A cron expression says its days itself: here it must be all of them."
        elif self.times.count(",") > self.MAX_TIMES:
            problems["times"] = f"There are too many: at most {self.MAX_TIMES} a day."
        elif times := read("times", recurrence.parse_times):
            if len(times) > self.MAX_TIMES:
                problems["times"] = f"There are too many: at most {self.MAX_TIMES} a day."
            self.times = ", ".join(f"{time:%H:%M:%S}" for time in times)
        if self.zone:
            read("zone", recurrence.zone)
        for name in ("first_date", "last_date"):
            if getattr(self, name):
                read(name, showable)
        if self.first_date and self.last_date and self.first_date > self.last_date:
            problems["last_date"] = "Lies before the first date."
        if problems:
            raise ValidationError(problems)

    @property
    def rule(self):
        """When it occurs, a recurrence.Rule."""
        return recurrence.Rule(
            times=() if self.cron else tuple(recurrence.parse_times(self.times)), cron=self.cron,
            zone=recurrence.zone(self.zone), days=frozenset(map(self.DAYS.index, self.days.split(","))),
            first=self.first_date, last=self.last_date)


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
    told = models.BooleanField(
        null=True, editable=False, help_text="Its failure was gathered for a mail, see ops/notify.py.")

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
            # For ops/notify.py. A row leaves it when it is gathered.
            models.Index(fields=["ended_at"], name="call_untold",
                         condition=models.Q(models.Q(status="Failed") | models.Q(status="Missed"), told=None)),
        ]

    def __str__(self):
        return f"call {self.pk}, due {self.due}"

    @property
    def due(self):
        """When, in words."""
        return moment(self.timestamp)

    @property
    def lateness(self):
        """Seconds from the due time to the start of the call, or None if no request was sent, or none
        that is known of."""
        if self.started_at is None:
            return None
        return (self.started_at - self.timestamp).total_seconds()


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
