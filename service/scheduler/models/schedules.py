"""When there is to be a call. Changed by schedules/planner.py alone."""
import re
from datetime import date

from django.core.exceptions import ValidationError
from django.db import models

from ..base.clock import utcnow
from ..base.moments import showable
from ..base.words import is_seen, one_line, printable
from ..schedules import recurrence
from .targets import Pausable, Target

DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Schedule(Pausable):
    """Times of day, or a cron line, at which there is to be a call, in a zone of its own.

    Its occurrences become calls 48 hours ahead (schedules/planner.py). A deleted one stays, unseen, for as long
    as there are calls that name it.
    """

    class Overlap(models.TextChoices):
        ALLOW = "allow"
        SKIP = "skip"

    class CatchUp(models.TextChoices):
        NONE = "none"
        LAST = "last"

    DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    MAX_TIMES = 1440        # a day: as many as a cron line can name
    MAX_EXCEPTIONS = 366
    MAX_JITTER = 3600       # seconds
    REQUEST = ("body", "headers", "data")      # what is sent to its target, and seen with the permission `see_request` alone

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

    # What is called, with what. Defaults of the database: versions that know no targets insert rows too.
    target = models.ForeignKey(
        Target, models.PROTECT, null=True, blank=True, related_name="schedules",
        help_text="What is called; API_URL if there is none.")
    body = models.TextField(null=True, blank=True, help_text="Instead of the target's.")
    headers = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()), blank=True,
                               help_text="{name: value}: beside the target's, and instead of its own of that name.")
    data = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()), blank=True,
                            help_text="{key: value}, what {{data.KEY}} stands for.")
    overlap = models.CharField(
        max_length=5, choices=Overlap, default=Overlap.ALLOW, db_default=Overlap.ALLOW,
        help_text="What becomes of a call while an earlier one of the schedule has not ended.")
    catch_up = models.CharField(
        max_length=4, choices=CatchUp, default=CatchUp.NONE, db_default=CatchUp.NONE,
        help_text="Which of the calls that no process was there to make are made late.")
    exceptions = models.JSONField(
        default=list, db_default=models.Value([], models.JSONField()), blank=True,
        help_text="Dates, YYYY-MM-DD, on which it does not call.")
    jitter = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Seconds by which, at most, each call is late, at random.")
    # Pausable's, with such a default too.
    paused_by = models.CharField(max_length=150, default="", db_default="", editable=False)
    paused_reason = models.CharField(max_length=Pausable.REASON_MAX, default="", db_default="", editable=False)

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
                                 "Give times of day, such as 12:30, 14:15:30, or else a cron expression.")
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
        self.exceptions = read("exceptions", _dates) or []
        if self.jitter > self.MAX_JITTER:
            problems["jitter"] = f"Must be a whole number of seconds from 0 to {self.MAX_JITTER}."
        problems |= self._problems_with_request()
        if problems:
            raise ValidationError(problems)

    def _problems_with_request(self):
        """{field: a sentence} of what is to be sent, if that is not what is kept already: a target that has changed
        since keeps nobody from switching a schedule off."""
        fields = ("target_id", *self.REQUEST)
        said = tuple(getattr(self, name) for name in fields)
        if self.pk and said == Schedule.objects.filter(pk=self.pk).values_list(*fields).first():
            return {}
        if self.target:
            return self.target.problems_with(*said[1:])
        return {name: "Is for a target, and there is none: the API is called without." for name in self.REQUEST
                if getattr(self, name) not in (None, {})}

    @property
    def clocks(self):
        """The tzinfo of its zone; None, which stands for that of TIME_ZONE, if this machine does not know it."""
        try:
            return recurrence.zone(self.zone)
        except ValueError:
            return None

    @property
    def rule(self):
        """When it occurs, a recurrence.Rule. While it is paused until a time, from then on."""
        return recurrence.Rule(
            times=() if self.cron else tuple(recurrence.parse_times(self.times)), cron=self.cron,
            zone=recurrence.zone(self.zone), days=frozenset(map(self.DAYS.index, self.days.split(","))),
            first=self.first_date, last=self.last_date, exceptions=frozenset(map(date.fromisoformat, self.exceptions)),
            since=self.paused_until if self.paused_at else None)


def _dates(value):
    """A list of dates as texts, in order, each once. Raises ValueError."""
    if not isinstance(value, list):
        raise ValueError("must be a list of dates such as 2026-12-25")
    found = set()
    for text in value:
        try:
            if not (isinstance(text, str) and DATE.fullmatch(text)):
                raise ValueError
            found.add(date.fromisoformat(text))
        except ValueError:
            raise ValueError(f"'{printable(str(text), 80)}' is no date such as 2026-12-25") from None
    if len(found) > Schedule.MAX_EXCEPTIONS:
        raise ValueError(f"there are {len(found)} dates: at most {Schedule.MAX_EXCEPTIONS} are taken")
    return [str(day) for day in sorted(found)]
