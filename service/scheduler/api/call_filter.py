"""Which calls of the list are meant."""
import re

import django_filters
from django import forms
from drf_spectacular.utils import extend_schema_field

from ..base.moments import instant
from ..base.words import is_id, printable
from ..models import Schedule, ScheduledCall, Target


class InstantField(forms.CharField):
    """A time as in a POST, in UTC: PostgreSQL will not compare with an offset of more than 16 hours."""

    def to_python(self, value):
        try:
            return None if value is None else instant(value)
        except ValueError as error:
            # A time of day, then a space where a + belongs.
            hint = " (In a URL a + is written %2B.)" if re.search(r"[T ]\d\d\S* \d\d(:?\d\d)?$", value) else ""
            raise forms.ValidationError(        # in two parts, as a % of the first is a place for the second
                "%(problem)s", params={"problem": f"“{printable(value, 80)}” {error}.{hint}"})


class InstantFilter(django_filters.IsoDateTimeFilter):
    field_class = InstantField


class StatusField(forms.MultipleChoiceField):
    default_error_messages = {
        "invalid_choice": f"“%(value)s” is none of {', '.join(ScheduledCall.Status.values)}."}


class StatusFilter(django_filters.MultipleChoiceFilter):
    field_class = StatusField

    def filter(self, queryset, statuses):
        return queryset.of(statuses) if statuses else queryset


class ScheduleChoice(forms.ModelChoiceField):
    default_error_messages = {"invalid_choice": "There is no schedule %(value)s."}

    def to_python(self, value):
        """Refuses an empty one too: left out by mistake, it would list everything."""
        if value is not None and not is_id(value):
            raise forms.ValidationError("“%(value)s” is no number of a schedule.",
                                        params={"value": printable(value, 80)})
        return super().to_python(value)


class ScheduleFilter(django_filters.ModelChoiceFilter):
    field_class = ScheduleChoice


class TargetField(forms.CharField):
    def to_python(self, value):
        """The ids of the targets of this name: there may be deleted ones among them. Refuses an empty one too."""
        if value is None:
            return None
        ids = []
        if value.isascii() and value.isprintable():         # PostgreSQL takes no NUL
            ids = list(Target.objects.filter(name=value).values_list("id", flat=True))
        if not ids:
            raise forms.ValidationError("There is no target “%(value)s”.", params={"value": printable(value, 80)})
        return ids


@extend_schema_field(str)
class TargetFilter(django_filters.Filter):
    field_class = TargetField

    def filter(self, queryset, ids):
        return queryset.for_targets(ids) if ids else queryset


class CallFilter(django_filters.FilterSet):
    status = StatusFilter(
        choices=ScheduledCall.Status.choices, distinct=False, help_text="Given more than once: any of these.")
    due_from = InstantFilter(
        "timestamp", "gte", help_text="Due at this ISO 8601 time or later.")
    due_before = InstantFilter(
        "timestamp", "lt", help_text="Due before this ISO 8601 time.")
    schedule = ScheduleFilter(
        queryset=Schedule.objects.all(), help_text="Planned by the schedule of this id, which may be deleted since.")
    target = TargetFilter(
        help_text="For the target of this name, which may be deleted since.")

    class Meta:
        model = ScheduledCall
        fields = []
