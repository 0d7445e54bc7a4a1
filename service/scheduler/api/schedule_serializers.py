"""What goes in and out of the API about schedules, as JSON."""
import re
from datetime import date

from django.core.exceptions import ValidationError
from rest_framework import serializers

from ..base.words import printable
from ..models import Schedule
from ..schedules.planner import SHOWN
from .common import Refusal, UtcField

DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")

EXAMPLE = {"name": "lunch", "times": "12:30:00, 14:15:30", "zone": "Europe/Berlin",
           "days": ["mon", "tue", "wed", "thu", "fri"]}


class DaysField(serializers.ListField):
    """Days of the week as a list; the model keeps them as text."""

    def __init__(self, **kwargs):
        super().__init__(child=serializers.ChoiceField(Schedule.DAYS), **kwargs)

    def to_representation(self, value):
        return value.split(",")


class NullForNoneField(serializers.CharField):
    """A text, null where there is none."""

    def to_representation(self, value):
        return value or None


class ScheduleShownSerializer(serializers.ModelSerializer):
    """A schedule, and when it will call next."""

    times = NullForNoneField(read_only=True, allow_null=True)
    cron = NullForNoneField(read_only=True, allow_null=True)
    days = DaysField(read_only=True)
    created_at = UtcField(read_only=True)
    planned_until = UtcField(
        read_only=True, allow_null=True, help_text="Calls for all its occurrences before this time can be seen "
                                                   "among the calls. Null while it is off.")
    next = serializers.ListField(
        child=UtcField(), read_only=True, source="coming",
        help_text=f"When it will call next, at most {SHOWN} times. Empty while it is off, and when nothing comes "
                  "in the next years.")

    class Meta:
        model = Schedule
        fields = ["id", "name", "times", "cron", "zone", "days", "first_date", "last_date", "on", "created_at",
                  "created_by", "planned_until", "next"]
        read_only_fields = fields


class ScheduleChangeSerializer(serializers.Serializer):
    """What a PATCH asks for: what it does not name stays as it is. `times` takes the place of `cron`, and
    `cron` that of `times`."""

    name = serializers.CharField(required=False, max_length=100, help_text="New among the schedules.")
    times = serializers.CharField(
        required=False, allow_null=True,
        help_text=f"Times of day, HH:MM:SS, separated by commas, at most {Schedule.MAX_TIMES}.")
    cron = serializers.CharField(
        required=False, allow_null=True, max_length=500,
        help_text="In place of `times`: a cron expression of five fields, */5 9-17 * * mon-fri, or @daily.")
    zone = serializers.CharField(
        required=False, max_length=64, help_text="The IANA name of the time zone of times and days: Europe/Berlin.")
    days = DaysField(
        required=False, allow_empty=False,
        help_text="Days of the week, all if it is left out. A cron expression says them itself.")
    first_date = serializers.DateField(required=False, allow_null=True, help_text="Not before this day.")
    last_date = serializers.DateField(required=False, allow_null=True, help_text="Not after this day.")
    on = serializers.BooleanField(required=False, help_text="Whether it calls; true if it is left out.")

    def changed(self, schedule, data):
        """Gives `schedule`, a Schedule that is not saved, what `data` (of json.loads) asks for. Raises
        Refusal, which names everything that is wrong."""
        if not isinstance(data, dict):
            raise Refusal(f"The body must be a JSON object, with the keys {', '.join(self.fields)}.")
        if unknown := sorted(set(data) - set(self.fields)):
            raise Refusal(f"There is no key {printable(unknown[0], 80)}; there are {', '.join(self.fields)}.")
        problems = {name: "is missing." for name in self.fields if self.fields[name].required and name not in data}
        values = {}
        for name in set(data) - set(problems):
            try:
                values[name] = _value(name, data[name])
            except ValueError as error:
                problems[name] = str(error)
        if values.get("cron") and "times" not in data:
            values["times"] = ""
            values.setdefault("days", ",".join(Schedule.DAYS))
        if values.get("times") and "cron" not in data:
            values["cron"] = ""
        for name, value in values.items():
            setattr(schedule, name, value)
        try:
            schedule.full_clean(exclude=list(problems), validate_constraints=False)
        except ValidationError as error:
            for name, reasons in error.message_dict.items():
                problems.setdefault(name, " ".join(reasons))
        if problems:
            errors = [{"key": name, "reason": problems[name]} for name in self.fields if name in problems]
            raise Refusal(" ".join(f"{bad['key']}: {bad['reason']}" for bad in errors), errors)
        return schedule


class ScheduleNewSerializer(ScheduleChangeSerializer):
    """What a POST asks for: `name`, `zone`, and either `times` or `cron`."""

    name = serializers.CharField(max_length=100, help_text="New among the schedules.")
    zone = serializers.CharField(
        max_length=64, help_text="The IANA name of the time zone of times and days: Europe/Berlin.")


def _value(name, value):
    """What the model takes for `value`, of JSON. Raises ValueError saying what is expected instead."""
    if name == "on":
        if not isinstance(value, bool):
            raise ValueError("Must be true or false.")
        return value
    if name == "days":
        if not (isinstance(value, list) and value and all(day in Schedule.DAYS for day in value)):
            raise ValueError(f"Must be a list with some of {', '.join(Schedule.DAYS)}.")
        return ",".join(dict.fromkeys(value))
    if name in ("first_date", "last_date"):
        try:
            if value is None:
                return None
            if not (isinstance(value, str) and DATE.fullmatch(value)):
                raise ValueError
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError("Must be a date such as 2026-08-01, or null.") from None
    if value is None and name in ("times", "cron"):
        return ""
    if not isinstance(value, str):
        raise ValueError("Must be a string" + (" or null." if name in ("times", "cron") else "."))
    return value
