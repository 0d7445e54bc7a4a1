"""The HTTP API of schedules: make, list, look at, change and delete them."""
import re
from datetime import date

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.response import Response

from ..base.clock import utcnow
from ..base.words import printable
from ..calls.dispatch import hand_over_soon
from ..models import Schedule
from ..schedules import planner
from ..schedules.planner import SHOWN
from .access import MayDelete
from .body import body
from .common import THROTTLED, USUAL, Pages, ProblemSerializer, UtcField, check_parameters
from .errors import Refusal


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


class ScheduleSerializer(serializers.ModelSerializer):
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


class SchedulePages(Pages):
    ordering = "id"


def _answer(schedules):
    """Them as JSON, a list, with when each comes next."""
    coming = planner.coming(schedules, utcnow())
    for schedule in schedules:
        schedule.coming = coming[schedule.id]
    return ScheduleSerializer(schedules, many=True).data


@extend_schema(tags=["schedules"])
class Schedules(viewsets.GenericViewSet):
    queryset = Schedule.objects.filter(deleted_at=None)
    permission_classes = [MayDelete]
    pagination_class = SchedulePages
    serializer_class = ScheduleSerializer
    filter_backends = []

    @extend_schema(
        summary="Make a schedule", request=ScheduleNewSerializer,
        examples=[OpenApiExample("Twice on working days", EXAMPLE, request_only=True)],
        responses={201: ScheduleSerializer, 400: ProblemSerializer, 409: ProblemSerializer, **USUAL, **THROTTLED})
    def create(self, request):
        """Its calls of the next 48 hours are among the calls when the answer comes. Repeated, the request is
        a 409, as a name can be taken once. Needs the permission `add_schedule`."""
        schedule = ScheduleNewSerializer().changed(Schedule(), body(request))
        return self._save(schedule, status.HTTP_201_CREATED)

    @extend_schema(
        summary="List schedules",
        parameters=[OpenApiParameter("page_size", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})],
        responses={200: ScheduleSerializer(many=True), 400: ProblemSerializer, 404: ProblemSerializer, **USUAL})
    def list(self, request):
        """In the order in which they were made, a page at a time. Needs the permission `view_schedule`."""
        check_parameters(request, [Pages.cursor_query_param, Pages.page_size_query_param])
        return self.get_paginated_response(_answer(self.paginate_queryset(self.get_queryset())))

    @extend_schema(summary="One schedule", responses={200: ScheduleSerializer, 404: ProblemSerializer, **USUAL})
    def retrieve(self, request, pk):
        """Needs the permission `view_schedule`."""
        return Response(_answer([self.get_object()])[0])

    @extend_schema(
        summary="Change a schedule, or switch it off or on", request=ScheduleChangeSerializer,
        examples=[OpenApiExample("Switch it off", {"on": False}, request_only=True)],
        responses={200: ScheduleSerializer, 400: ProblemSerializer, 404: ProblemSerializer, 409: ProblemSerializer,
                   **USUAL, **THROTTLED})
    def partial_update(self, request, pk):
        """Its calls that are Pending are cancelled, and planned anew as it is now. Another name alone
        changes no call. Needs the permission `change_schedule`."""
        data = body(request)            # read before anything is locked: its sender may take for ever
        with transaction.atomic():      # of two at once the second changes what the first has made of it
            self.queryset = planner.locked()
            schedule = ScheduleChangeSerializer().changed(self.get_object(), data)
            return self._save(schedule, status.HTTP_200_OK)

    @extend_schema(
        summary="Delete a schedule",
        responses={204: None, 404: ProblemSerializer, **USUAL, **THROTTLED})
    def destroy(self, request, pk):
        """Its calls that are Pending are cancelled; all its calls stay, and still name it. Needs the
        permission `delete_schedule`."""
        schedule = self.get_object()
        try:
            planner.delete(schedule.pk, request.user.get_username())
        except Schedule.DoesNotExist:
            self.get_object()       # which somebody else has just deleted: a 404
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _save(self, schedule, code):
        try:
            with transaction.atomic():
                hand_over_soon(planner.save(schedule, self.request.user.get_username()))
        except IntegrityError:
            other = self.get_queryset().filter(name=schedule.name).exclude(pk=schedule.pk).first()
            if other is None:
                raise
            return Response(
                {"detail": f'There is a schedule "{schedule.name}" already, its id is {other.pk}: change that one, '
                           "or take another name."}, status.HTTP_409_CONFLICT)
        return Response(_answer([schedule])[0], code)
