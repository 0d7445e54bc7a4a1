"""The HTTP API of schedules: make, list, look at, change and delete them."""
from copy import copy
from datetime import date

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.response import Response

from ..base.clock import utcnow
from ..base.words import one_line, printable
from ..calls import targets
from ..calls.dispatch import created, hand_over_soon
from ..models import NOTE_MAX, Schedule, Target, rules
from ..models.schedules import DATE
from ..schedules import planner
from ..schedules.planner import SHOWN
from . import pause
from .access import MayChange, MayDelete, has, need
from .body import body, of_keys
from .common import PAGE_SIZE, THROTTLED, USUAL, Pages, ProblemSerializer, UtcField, check_parameters
from .errors import Conflict, Refusal
from .idempotency import IDEMPOTENT, fingerprint, once

SEEN = "null with a target, for whoever lacks the permission `see_request`."


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


class ExceptField:
    """For a serializer: the field `except`, which no class can have as an attribute."""

    def get_fields(self):
        dates = serializers.ListField(
            child=serializers.DateField(), source="exceptions", required=False, allow_null=True, max_length=Schedule.MAX_EXCEPTIONS,
            help_text="Dates, in the zone, on which it does not call.")
        return {**super().get_fields(), "except": dates}


class ScheduleSerializer(ExceptField, serializers.ModelSerializer):
    """A schedule, and when it will call next."""

    times = NullForNoneField(read_only=True, allow_null=True)
    cron = NullForNoneField(read_only=True, allow_null=True)
    days = DaysField(read_only=True)
    target = serializers.CharField(source="target.name", default=None, read_only=True, allow_null=True)
    body = serializers.CharField(read_only=True, allow_null=True, help_text=f"As text. {SEEN}")
    headers = serializers.DictField(
        child=serializers.CharField(allow_blank=True), read_only=True, allow_null=True, help_text=SEEN)
    data = serializers.DictField(
        child=serializers.JSONField(allow_null=True), read_only=True, allow_null=True, help_text=SEEN)
    paused = pause.PausedField()
    created_at = UtcField(read_only=True)
    planned_until = UtcField(
        read_only=True, allow_null=True, help_text="Calls for all its occurrences before this time can be seen "
                                                   "among the calls. Null while it is off, or paused until it is resumed.")
    next = serializers.ListField(
        child=UtcField(), read_only=True, source="coming",
        help_text=f"When it will call next, at most {SHOWN} times. Empty while it is off, and when nothing comes "
                  "in the next years. With jitter these are the times at which the calls are due.")

    class Meta:
        model = Schedule
        fields = ["id", "name", "times", "cron", "zone", "days", "first_date", "last_date", "on", "target", "body", "headers",
                  "data", "overlap", "catch_up", "jitter", "paused", "created_at", "created_by", "planned_until", "next"]
        read_only_fields = fields


class ScheduleChangeSerializer(ExceptField, serializers.Serializer):
    """What a PATCH asks for: what it does not name stays as it is. `times` takes the place of `cron`, and
    `cron` that of `times`; without a target there is no `body`, and there are no `headers` and `data`."""

    name = serializers.CharField(required=False, max_length=100, help_text="New among the schedules.")
    times = serializers.CharField(
        required=False, allow_null=True,
        help_text=f"Times of day, HH:MM:SS (or HH:MM), separated by commas, at most {Schedule.MAX_TIMES}.")
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
    target = serializers.CharField(
        required=False, allow_null=True, help_text="The name of what is called; null for the API of the configuration.")
    body = serializers.JSONField(
        required=False, allow_null=True,
        help_text="Instead of the target's body; null for that. Text is sent as it stands, anything else as JSON. "
                  "Placeholders such as {{call.id}} and {{data.KEY}} are filled in.")
    headers = serializers.DictField(
        child=serializers.CharField(allow_blank=True), required=False, allow_null=True,
        help_text="Beside the target's, and instead of those of the same name.")
    data = serializers.DictField(
        child=serializers.JSONField(allow_null=True), required=False, allow_null=True,
        help_text="What {{data.KEY}} stands for, for each key.")
    overlap = serializers.ChoiceField(
        Schedule.Overlap.choices, required=False,
        help_text="`skip`: while an earlier call of the schedule has not ended, one that falls due is Missed.")
    catch_up = serializers.ChoiceField(
        Schedule.CatchUp.choices, required=False,
        help_text="`last`: a call that could not start within GRACE, as nothing ran, may still start until the next one of "
                  f"the schedule is due, at most {planner.LATE.days} days late.")
    jitter = serializers.IntegerField(
        required=False, min_value=0, max_value=Schedule.MAX_JITTER,
        help_text="Seconds by which, at most, each call is due after its time, at random.")
    paused = pause.PauseField(required=False)

    def changed(self, schedule, data, by=""):
        """Gives `schedule`, a Schedule that is not saved, what `data` (of json.loads) asks for. Raises
        Refusal, which names everything that is wrong.

        by: the name of the user who asks
        """
        of_keys(data, self.fields)
        problems = {name: "is missing." for name in self.fields if self.fields[name].required and name not in data}
        if data.get("body") is not None:        # JSON as a body says so in the headers
            text, headers = rules.as_body(data["body"], data.get("headers", schedule.headers))
            data = {**data, "body": text, **({"headers": headers} if headers else {})}
        values = {}
        for name in set(data) - set(problems):
            try:
                values[FIELDS.get(name, name)] = READERS[name](data[name])
            except ValueError as error:
                problems[name] = str(error)
        if values.get("cron") and "times" not in data:
            values["times"] = ""
            values.setdefault("days", ",".join(Schedule.DAYS))
        if values.get("times") and "cron" not in data:
            values["cron"] = ""
        if "target" in values and values["target"] is None:
            values = {"body": None, "headers": {}, "data": {}} | values
        if "paused" in values:
            wanted = values.pop("paused")
            schedule.end_pause() if wanted is None else schedule.begin_pause(by, **wanted)
        for name, value in values.items():
            setattr(schedule, name, value)
        try:
            schedule.full_clean(exclude=[FIELDS.get(name, name) for name in problems], validate_constraints=False)
        except ValidationError as error:
            for name, reasons in error.message_dict.items():
                if name in Schedule.REQUEST and "target" in problems:
                    continue            # of a target that there is not nothing more can be said
                problems.setdefault(KEYS.get(name, name), " ".join(reasons))
        if problems:
            raise Refusal.of({name: problems[name] for name in self.fields if name in problems})
        return schedule


class ScheduleNewSerializer(ScheduleChangeSerializer):
    """What a POST asks for: `name`, `zone`, and either `times` or `cron`."""

    name = serializers.CharField(max_length=100, help_text="New among the schedules.")
    zone = serializers.CharField(
        max_length=64, help_text="The IANA name of the time zone of times and days: Europe/Berlin.")


FIELDS = {"except": "exceptions"}       # of the model, where they are not called as the keys are
KEYS = {field: key for key, field in FIELDS.items()}


# What the model takes for a value of JSON. Each raises ValueError saying what is expected instead.

def _text(value):
    if not isinstance(value, str):
        raise ValueError("Must be a string.")
    return value


def _text_or_none(value):
    if not isinstance(value, str | None):
        raise ValueError("Must be a string or null.")
    return value or ""


def _flag(value):
    if not isinstance(value, bool):
        raise ValueError("Must be true or false.")
    return value


def _days(value):
    if not (isinstance(value, list) and value and all(day in Schedule.DAYS for day in value)):
        raise ValueError(f"Must be a list with some of {', '.join(Schedule.DAYS)}.")
    return ",".join(dict.fromkeys(value))


def _date(value):
    try:
        if value is None:
            return None
        if not (isinstance(value, str) and DATE.fullmatch(value)):
            raise ValueError
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError("Must be a date such as 2026-08-01, or null.") from None


def _target(value):
    if value is None:
        return None
    name = _text(value)
    # PostgreSQL takes no NUL, and is not asked for what no name can be.
    found = targets.there().filter(name=name).first() if name.isascii() and name.isprintable() else None
    if found is None:
        raise ValueError(f'There is no target "{printable(name, 80)}".')
    return found


def _body(value):
    return value if value is None else rules.text(value, rules.BODY_MAX)


def _one_of(choices):
    def read(value):
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"Must be {' or '.join(choices)}.")
        return value
    return read


READERS = {
    "name": _text, "times": _text_or_none, "cron": _text_or_none, "zone": _text, "days": _days, "first_date": _date,
    "last_date": _date, "on": _flag, "target": _target, "body": _body,
    "headers": lambda value: rules.headers({} if value is None else value),
    "data": lambda value: rules.data({} if value is None else value),
    "overlap": _one_of(Schedule.Overlap.values), "catch_up": _one_of(Schedule.CatchUp.values),
    "jitter": lambda value: rules.number(value, 0, Schedule.MAX_JITTER), "paused": pause.asked,
    "except": lambda value: [] if value is None else value}     # the rest is said by the model


class ScheduleRunSerializer(serializers.Serializer):
    """What a POST to run/ may say."""

    note = serializers.CharField(required=False, allow_blank=True, max_length=NOTE_MAX, help_text="Why, in one line.")


class ScheduleRunCallSerializer(serializers.Serializer):
    """The call, and where everything about it can be asked for."""

    id = serializers.IntegerField()
    timestamp = UtcField()
    status = serializers.CharField()


def _note(data):
    """The note in `data`, of json.loads. Raises Refusal."""
    if not isinstance(data, dict) or set(data) - {"note"}:
        raise Refusal('The body must be a JSON object, with the key note or none: {"note": "..."}')
    try:
        return one_line(_text(data.get("note", "")), NOTE_MAX)
    except ValueError as error:
        raise Refusal(f"note: {error}") from None


class SchedulePages(Pages):
    ordering = "id"


def _answer(schedules, request):
    """Them as JSON, a list, with when each comes next; what is sent is left out for whoever may not see that."""
    coming = planner.coming(schedules, utcnow())
    for schedule in schedules:
        schedule.coming = coming[schedule.id]
    hidden = {} if has(request, "scheduler.see_request") else dict.fromkeys(Schedule.REQUEST)
    return [{**shown, **(hidden if shown["target"] else {})} for shown in ScheduleSerializer(schedules, many=True).data]


@extend_schema(tags=["schedules"])
class Schedules(viewsets.GenericViewSet):
    queryset = Schedule.objects.filter(deleted_at=None).select_related("target")
    permission_classes = [MayDelete]
    pagination_class = SchedulePages
    serializer_class = ScheduleSerializer
    filter_backends = []

    @extend_schema(
        summary="Make a schedule", request=ScheduleNewSerializer,
        responses={201: ScheduleSerializer, 400: ProblemSerializer, 409: ProblemSerializer, **USUAL, **THROTTLED})
    def create(self, request):
        """Its calls of the next 48 hours are among the calls when the answer comes. Repeated, the request is
        a 409, as a name can be taken once. Needs the permission `add_schedule`, and with a target `use_target`."""
        schedule = ScheduleNewSerializer().changed(Schedule(), body(request), request.user.get_username())
        return self._save(schedule, None, status.HTTP_201_CREATED)

    @extend_schema(
        summary="List schedules",
        parameters=[PAGE_SIZE],
        responses={200: ScheduleSerializer(many=True), 400: ProblemSerializer, 404: ProblemSerializer, **USUAL})
    def list(self, request):
        """In the order in which they were made, a page at a time. Needs the permission `view_schedule`."""
        check_parameters(request, [Pages.cursor_query_param, Pages.page_size_query_param])
        return self.get_paginated_response(_answer(self.paginate_queryset(self.get_queryset()), request))

    @extend_schema(summary="One schedule", responses={200: ScheduleSerializer, 404: ProblemSerializer, **USUAL})
    def retrieve(self, request, pk):
        """Needs the permission `view_schedule`."""
        return Response(_answer([self.get_object()], request)[0])

    @extend_schema(
        summary="Change a schedule, switch it off or on, pause it", request=ScheduleChangeSerializer,
        responses={200: ScheduleSerializer, 400: ProblemSerializer, 404: ProblemSerializer, 409: ProblemSerializer,
                   **USUAL, **THROTTLED})
    def partial_update(self, request, pk):
        """Its calls that are Pending are cancelled, and planned anew as it is now. Another name alone
        changes no call. While it is paused nothing is planned, and what was is cancelled; it comes again by itself at
        that time, or once `paused` is false. Needs the permission `change_schedule`; `use_target` where by that more is
        called of a target; `see_request` where what it sends goes to another target."""
        data = body(request)            # read before anything is locked: its sender may take for ever
        with transaction.atomic():      # of two at once the second changes what the first has made of it
            self.queryset = planner.locked()
            schedule = self.get_object()
            stands = copy(schedule)
            ScheduleChangeSerializer().changed(schedule, data, request.user.get_username())
            return self._save(schedule, stands, status.HTTP_200_OK)

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

    @extend_schema(
        summary="Make a call of a schedule now", request=ScheduleRunSerializer, parameters=[IDEMPOTENT],
        responses={201: ScheduleRunCallSerializer, 400: ProblemSerializer, 404: ProblemSerializer, 409: ProblemSerializer,
                   422: ProblemSerializer, **USUAL, **THROTTLED})
    def run(self, request, pk):
        """With its target and what it sends, also while it is off or paused, and beside its occurrences: those come as
        ever. A 409 while its target is paused. Needs the permission `change_schedule`, and with a target `use_target`."""
        note = _note(body(request))
        return Response(once(request, fingerprint(["run", pk, note]), lambda: self._run(note)), status.HTTP_201_CREATED)

    def _run(self, note):
        self.queryset = planner.locked()        # nobody takes its target away, and deletes that, meanwhile
        schedule = self.get_object()
        if schedule.target:
            need(self.request, "scheduler.use_target")
            if schedule.target.is_paused(utcnow()):
                raise Conflict(f'Its target "{schedule.target}" is {schedule.target.pause}: resume that first.')
        call = planner.run(schedule, self.request.user.get_username(), note)
        created([call])
        return ScheduleRunCallSerializer(call).data

    def get_permissions(self):
        return [MayChange()] if self.action == "run" else super().get_permissions()

    def _save(self, schedule, stands, code):
        if schedule.target_id and planner.calls_more(schedule, stands, utcnow()):
            need(self.request, "scheduler.use_target")
        if planner.leads_elsewhere(schedule, stands):
            need(self.request, "scheduler.see_request")
        try:
            with transaction.atomic():
                hand_over_soon(planner.save(schedule, self.request.user.get_username()))
        except Target.DoesNotExist:     # it was there when the request was read
            raise Refusal.of({"target": "Somebody has just deleted it."}) from None
        except IntegrityError:
            other = self.get_queryset().filter(name=schedule.name).exclude(pk=schedule.pk).first()
            if other is None:
                raise
            raise Conflict(f'There is a schedule "{schedule.name}" already, its id is {other.pk}: change that one, or take '
                           "another name.") from None
        return Response(_answer([schedule], self.request)[0], code)
