"""The admin of schedules: what comes next, how the last ones ended, and a form that shows what it will do
before it is saved."""
import re
from copy import copy
from datetime import date, timedelta
from functools import partial

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.db.models import Q, Count, OuterRef, Subquery
from django.http import Http404, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.html import format_html

from ..base import zones
from ..base.clock import utcnow
from ..base.moments import moment
from ..base.words import printable, redacted
from ..calls import dispatch, targets
from ..models import NOTE_MAX, Schedule, ScheduledCall, Target
from ..schedules import planner
from . import filters, outcomes, pauses
from .filters import NOTHING
from .forms import JsonField, LineField, OpenedForm, PauseForm
from .named import NamedAdmin

Status = ScheduledCall.Status

AT_ONCE = 1000      # schedules that one action takes
DAYS = dict(zip(Schedule.DAYS, ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")))
CHOICES = {"overlap": [("allow", "is made"), ("skip", "is skipped")],
           "catch_up": [("none", "none is made late"), ("last", "the last is made late")]}
HOURS = timedelta(hours=3)      # no clock is changed twice within them


def remark(rule, at):
    """What is to be said of the occurrence `at` of `rule` where clocks change: str, "" for most."""
    local, before = at.astimezone(rule.zone), (at - HOURS).astimezone(rule.zone)
    if local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset():
        return f"the clocks show this time twice, this is the {'second' if local.fold else 'first'}"
    wall = local.replace(tzinfo=None)
    meant = wall - (local.utcoffset() - before.utcoffset())
    if rule.times and wall.time() not in rule.times and meant.time() in rule.times:
        return f"the clocks jump over {meant:%H:%M:%S}"
    if rule.cron and (at - timedelta(seconds=1)).astimezone(rule.zone).utcoffset() < local.utcoffset():
        return "the clocks jump here"
    return ""


class DaysField(forms.MultipleChoiceField):
    """Days of the week to tick; the model keeps them as text."""

    widget = forms.CheckboxSelectMultiple

    def prepare_value(self, value):
        return value.split(",") if isinstance(value, str) else value

    def clean(self, value):
        return ",".join(super().clean(value))

    def has_changed(self, initial, data):
        return super().has_changed(self.prepare_value(initial), data)


class DatesField(forms.CharField):
    """Dates as text, also "2026-12-24 to 2027-01-01", which is each day from one to the other; the model keeps a list."""

    widget = forms.Textarea({"rows": 2, "cols": 60})

    def prepare_value(self, value):
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value):
        text = re.sub(r"\s+(?:to|-|–)\s+|\s*\.\.\s*", "..", super().clean(value))
        return [day for piece in re.split(r"[,\s]+", text) if piece for day in self._days(piece)]

    @staticmethod
    def _days(piece):
        """The days of a piece, one or from one to another, at most one more than a schedule takes. What is no date is
        left to the model, which says so."""
        first, _, last = piece.partition("..")
        try:
            first, last = date.fromisoformat(first), date.fromisoformat(last)
        except ValueError:
            return [piece]
        days = min((last - first).days, Schedule.MAX_EXCEPTIONS) + 1
        return [str(first + timedelta(days=number)) for number in range(days)] or [piece]

    def has_changed(self, initial, data):
        return (initial or []) != self.clean(data)


class ScheduleForm(OpenedForm):
    may_use = True      # whether this user may use targets

    exceptions = DatesField(label="Except", required=False, help_text=(
        "Dates on which it does not call, separated by commas: 2026-12-25, or from one to another, 2026-12-24 to 2027-01-01."))
    days = DaysField(choices=DAYS.items(), initial=",".join(Schedule.DAYS),
                     help_text="Counted in the time zone. A cron expression says its days itself: leave all.")

    class Meta:
        widgets = {
            "times": forms.Textarea({"rows": 2, "cols": 60}), "cron": forms.TextInput({"size": 40}),
            "zone": forms.TextInput({"list": "zones", "size": 40}), "name": forms.TextInput({"size": 40}),
            **{name: forms.Textarea({"rows": rows, "cols": 80, "spellcheck": "false"})
               for name, rows in (("body", 5), ("headers", 2), ("data", 2))}}
        help_texts = {
            "times": "Times of day, separated by commas: 12:30, 14:15:30, 6:00 PM.",
            "body": "Instead of the target's body; empty for that. Placeholders such as {{call.id}}, {{call.due}}, "
                    "{{schedule.name}} and {{data.KEY}} are filled in.",
            "headers": 'Beside the target\'s, and instead of those of the same name: {"X-Shop": "7"}.',
            "data": 'What {{data.KEY}} stands for: {"shop": 7}.',
            "overlap": "What falls due while an earlier call of the schedule has not ended. Skipped, it is Missed.",
            "catch_up": "Of what could not start in time, as nothing ran. The last may start until the next call of the "
                        f"schedule is due, at most {planner.LATE.days} days late.",
            "jitter": "Seconds by which, at most, each call is due after its time, at random."}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.was = copy(self.instance) if self.instance.pk else None
        for name, field in self.fields.items():
            field.required &= name not in ("jitter", *CHOICES)      # which have a default
            if name in CHOICES:
                field.choices = CHOICES[name]
            field.show_hidden_initial = False       # OpenedForm knows what it was opened with
        if field := self.fields.get("target"):
            # Who may not use them need not know them; the one that it has stays.
            field.queryset = targets.there() if self.may_use else Target.objects.filter(pk=self.instance.target_id)
            field.empty_label = f"{printable(redacted(settings.API_URL), 200)} (of the configuration)" if self.may_use else None

    def clean_overlap(self):
        return self.cleaned_data["overlap"] or Schedule.Overlap.ALLOW

    def clean_catch_up(self):
        return self.cleaned_data["catch_up"] or Schedule.CatchUp.NONE

    def clean_jitter(self):
        return self.cleaned_data["jitter"] or 0

    def clean_body(self):
        """A body that is empty, and not the target's, is for the API to set."""
        return self.cleaned_data["body"] or ("" if self.was and self.was.body == "" else None)

    def clean(self):
        """What this user does not see goes with the target that it was for."""
        cleaned = super().clean()
        if not cleaned.get("target"):
            for name in set(Schedule.REQUEST) - set(self.fields):
                setattr(self.instance, name, Schedule._meta.get_field(name).get_default())
        return cleaned

    def _post_clean(self):
        super()._post_clean()
        if self.errors:
            return
        if not self.may_use and self.instance.target_id and planner.calls_more(self.instance, self.was, utcnow()):
            self.add_error("target", "By this more is called of a target, for which you need the permission "
                                     "scheduler.use_target; an administrator can give it to you.")
        if not set(Schedule.REQUEST) <= set(self.fields) and planner.leads_elsewhere(self.instance, self.was):
            self.add_error("target", "By this what it sends goes to another target, for which you need the permission "
                                     "scheduler.see_request; an administrator can give it to you.")

    def clean_name(self):
        name = self.cleaned_data["name"]
        if Schedule.objects.filter(name=name, deleted_at=None).exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError("There is a schedule of this name already.")
        return name

    def is_valid(self):
        """Whether it may be saved. To be looked at only, it comes back as it was sent."""
        return super().is_valid() and "_preview" not in self.data

    def preview(self):
        """[(day, str, str, remark), ...]: the next occurrences, on which day of the week and when, in the
        schedule's zone, and when in the admin's. None while there is nothing to reckon with."""
        if self.errors if self.is_bound else not self.instance.pk:
            return None
        try:
            rule = self.instance.rule
        except ValueError:      # a zone that this machine does not know, or no longer
            return None
        times, remarks = planner.upcoming(rule, utcnow()), {}
        # What a person cancelled stays so, whatever is changed here; what was moved only if nothing is.
        calls = ScheduledCall.objects.filter(schedule=self.instance.pk, occurrence__in=times)
        for call in calls if self.instance.pk else ():
            if call.status == Status.CANCELLED:
                remarks[call.occurrence] = "its call was cancelled"
            elif not self.is_bound and planner.is_moved(self.instance, call.occurrence, call.timestamp):
                remarks[call.occurrence] = f"its call was moved to {moment(call.timestamp, rule.zone)}"
        return [(f"{at.astimezone(rule.zone):%a}", moment(at, rule.zone), moment(at),
                 remarks.get(at) or remark(rule, at)) for at in times]


class RunForm(forms.Form):
    note = LineField(required=False, max_length=NOTE_MAX, widget=forms.TextInput({"size": 60}), help_text="What it is for.")


@admin.register(Schedule)
class ScheduleAdmin(NamedAdmin):
    form = ScheduleForm
    # The browser's own field: Django's reckons "today" in the server's zone, and these are of another.
    formfield_overrides = {models.DateField: {"widget": forms.DateInput({"type": "date"}, format="%Y-%m-%d")},
                           models.JSONField: {"form_class": JsonField}}
    list_display = ["name", "when", "what", "comes_next", "last_calls", "took", "is_on", "its_calls"]
    list_filter = ["on"]
    list_select_related = ["target"]
    actions = ["switch_off", "switch_on"]
    parts = [
        (None, {"fields": ["name", "times", "cron", "zone", "days", "first_date", "last_date", "exceptions", "on"]}),
        ("What is called", {"fields": ["target", "body", "headers", "data"]}),
        ("Of its calls", {"fields": ["overlap", "catch_up", "jitter"]}),
    ]
    kept = ["next_time", "went", "its_calls", "created", "planned"]

    def get_queryset(self, request):
        """With what the list shows of its calls, all in one query."""
        now = utcnow()
        soon = ScheduledCall.objects.filter(schedule=OuterRef("pk"), status=Status.PENDING, timestamp__gt=now).order_by(
            "timestamp", "id")
        return super().get_queryset(request).annotate(
            soon=Subquery(soon.values("timestamp")[:1]), **outcomes.of_schedules(now))

    @admin.display(description="when")
    def when(self, schedule):
        what = schedule.cron or schedule.times
        what = what if len(what) <= 60 else what[:59] + "…"
        days = schedule.days.split(",")
        return ", ".join([
            what, *([] if len(days) == len(DAYS) else [" ".join(days)]),
            *([f"from {schedule.first_date}"] if schedule.first_date else []),
            *([f"until {schedule.last_date}"] if schedule.last_date else []), schedule.zone])

    @admin.display(description="target", ordering="target__name")
    def what(self, schedule):
        return schedule.target.name if schedule.target else "API_URL"

    @admin.display(description="next")
    def comes_next(self, schedule):
        """With why there is none, or why it is so late."""
        if not schedule.is_paused(utcnow()):
            return self.next_time(schedule)
        paused = format_html("<bdi>{}</bdi>{}", schedule.pause, schedule.paused_until and f", until {moment(schedule.paused_until, schedule.clocks)}" or "")
        at = self.next_time(schedule)
        return paused if at == NOTHING else format_html("{}; {}", at, paused)

    @admin.display(description="next")
    def next_time(self, schedule):
        try:
            at, rule = schedule.soon, schedule.rule
        except ValueError as error:
            return str(error)
        if at is None and schedule.planned_until:
            at = next((planner.due_at(schedule, at) for at in planner.upcoming(rule, schedule.planned_until, 1)), None)
        return moment(at, rule.zone) if at else NOTHING

    @admin.display(description="on", boolean=True, ordering="on")
    def is_on(self, schedule):
        return schedule.on

    @admin.display(description="calls")
    def its_calls(self, schedule):
        calls = reverse("admin:scheduler_scheduledcall_changelist")
        return format_html('<a href="{}">to come</a>, <a href="{}">so far</a>', *(
            calls + filters.link(view=view, schedule=schedule.pk) for view in ("upcoming", "recent")))

    @admin.display(description="planned until")
    def planned(self, schedule):
        return moment(schedule.planned_until) if schedule.planned_until else NOTHING

    def _without_calls(self, request, names):
        """The names, but not its_calls for who may not see that page."""
        return [name for name in names if name != "its_calls" or self.sees_calls(request)]

    def get_list_display(self, request):
        return self._without_calls(request, self.list_display)

    def get_fieldsets(self, request, obj=None):
        parts = self.parts
        if obj and obj.target_id and not request.user.has_perm("scheduler.see_request"):
            parts = [(name, {"fields": [field for field in part["fields"] if field not in Schedule.REQUEST]})
                     for name, part in parts]
        return [*parts, *([("How it goes", {"fields": self.get_readonly_fields(request)})] if obj else [])]

    def get_readonly_fields(self, request, obj=None):
        return self._without_calls(request, self.kept)

    def get_form(self, request, obj=None, change=False, **kwargs):
        form = super().get_form(request, obj, change=change, **kwargs)
        form.may_use = request.user.has_perm("scheduler.use_target")
        return form

    def get_changeform_initial_data(self, request):
        return {"zone": settings.TIME_ZONE, **super().get_changeform_initial_data(request)}

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except Target.DoesNotExist:
            self.message_user(request, "Somebody has just deleted its target; nothing was saved.", messages.ERROR)
        return HttpResponseRedirect(request.path)

    def render_change_form(self, request, context, obj=None, **how):
        form = context["adminform"].form
        context |= {"preview": form.preview(), "preview_zone": form.instance.zone, "admin_zone": settings.TIME_ZONE,
                    "zones": sorted(zones.names()), "is_paused": form.instance.is_paused(utcnow()),
                    "may_run": obj and (obj.target_id is None or request.user.has_perm("scheduler.use_target"))}
        if obj and obj.is_paused(utcnow()):
            may_resume = self.has_change_permission(request, obj) and context["may_run"]
            context["paused"] = pauses.of_schedule(
                obj, obj.leads_to_calls, reverse("admin:scheduler_schedule_resume", args=[obj.pk]) if may_resume else "")
        return super().render_change_form(request, context, obj=obj, **how)

    def save_model(self, request, obj, form, change):
        dispatch.hand_over_soon(planner.save(obj, request.user.get_username()))

    def delete_model(self, request, obj):
        planner.delete(obj.pk, request.user.get_username())

    def delete_queryset(self, request, queryset):
        for schedule in queryset:
            try:
                planner.delete(schedule.pk, request.user.get_username())
            except Schedule.DoesNotExist:
                pass        # by somebody else, a moment ago

    def get_deleted_objects(self, objs, request):
        """What deleting does here: no call goes with it."""
        pending = dict(ScheduledCall.objects.filter(schedule__in=[schedule.pk for schedule in objs],
                                                    status=Status.PENDING)
                       .order_by().values_list("schedule").annotate(Count("id")))
        lines = [f"{schedule}: {pending.get(schedule.pk, 0)} pending calls will be cancelled; all its calls are kept"
                 for schedule in objs]
        allowed = self.has_delete_permission(request)
        return lines, {"schedules": len(lines)}, set() if allowed else {"schedule"}, []

    @admin.action(description="Switch off the selected schedules", permissions=["change"])
    def switch_off(self, request, queryset):
        self._switch(request, queryset, False)

    @admin.action(description="Switch on the selected schedules", permissions=["change"])
    def switch_on(self, request, queryset):
        self._switch(request, queryset, True)

    def _switch(self, request, queryset, on):
        ids = list(queryset.filter(~Q(on=on)).order_by("id").values_list("id", flat=True)[:AT_ONCE + 1])
        if len(ids) > AT_ONCE:
            self.message_user(request, f"More than {AT_ONCE} are selected; choose fewer.", messages.ERROR)
            return
        switched = kept = 0
        may_use = request.user.has_perm("scheduler.use_target")
        for schedule_id in ids:
            with transaction.atomic():
                schedule = planner.locked().filter(pk=schedule_id).first()
                if schedule and schedule.on != on and on and schedule.target_id and not may_use:
                    kept += 1
                elif schedule and schedule.on != on:
                    schedule.on = on
                    dispatch.hand_over_soon(planner.save(schedule, request.user.get_username()))
                    self.log_change(request, schedule, f"Switched {'on' if on else 'off'}.")
                    switched += 1
        self.message_user(request, f"{switched} switched {'on' if on else 'off'}.",
                          messages.SUCCESS if switched else messages.WARNING)
        if kept:
            self.message_user(request, f"{kept} not switched on: they name a target, for which you need the permission "
                                       "scheduler.use_target.", messages.WARNING)

    # Pages of its own, to which its page leads

    def get_urls(self):
        def page(act, name):
            return path(f"<int:schedule_id>/{name}/", self.admin_site.admin_view(partial(self.act_on_one, act=act)),
                        name=f"scheduler_schedule_{name}")
        return [page(self.pause, "pause"), page(self.resume, "resume"), page(self.run, "run"), *super().get_urls()]

    def act_on_one(self, request, schedule_id, act):
        if not (self.has_view_permission(request) and self.has_change_permission(request)):
            raise PermissionDenied

        def on_it():
            schedules = planner.locked() if request.method == "POST" else Schedule.objects.filter(deleted_at=None)
            if not (schedule := schedules.filter(pk=schedule_id).first()):
                raise Http404(f"There is no schedule {schedule_id}.")
            if schedule.target and act != self.pause and not request.user.has_perm("scheduler.use_target"):
                raise PermissionDenied("You need the permission scheduler.use_target for this.")
            return act(request, schedule) or self.back_to(schedule)
        return self.in_one(request, on_it)

    def _ask(self, request, schedule, title, yes, form=None, consequence=""):
        calls = f", which calls {schedule.target}" if schedule.target else ""
        return self.ask(request, schedule, title, yes, format_html(
            "It is <bdi>{}</bdi>{}. {}", schedule, calls, consequence), form)

    def pause(self, request, schedule):
        form = PauseForm(request.POST if request.method == "POST" else None, zone=schedule.clocks)
        if not form.is_valid():
            return self._ask(request, schedule, "Pause this schedule?", "Yes, pause it", form,
                             pauses.of_schedule_to_come(schedule))
        until, reason = form.cleaned_data["until"], form.cleaned_data["reason"]
        schedule.begin_pause(request.user.get_username(), until=until, reason=reason)
        self._save_and_say(request, schedule, "Paused" + (f" until {moment(until, schedule.clocks)}" if until else "")
                           + (f": {reason}." if reason else "."))

    def resume(self, request, schedule):
        if request.method != "POST":
            return self._ask(request, schedule, "Resume this schedule?", "Yes, resume it")
        schedule.end_pause()
        self._save_and_say(request, schedule, "Resumed.")

    def _save_and_say(self, request, schedule, words):
        dispatch.hand_over_soon(planner.save(schedule, request.user.get_username()))
        self.log_change(request, schedule, words)
        self.message_user(request, words, messages.SUCCESS)

    def run(self, request, schedule):
        form = RunForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            return self._ask(request, schedule, "Make a call of this schedule now?", "Yes, call now", form)
        if schedule.target and schedule.target.is_paused(utcnow()):
            self.message_user(request, f"Its target {schedule.target} is {schedule.target.pause}: resume that first.",
                              messages.ERROR)
            return None
        call = planner.run(schedule, request.user.get_username(), form.cleaned_data["note"])
        dispatch.created([call])
        self.log_change(request, schedule, f"Run as call {call.pk}.")
        self.message_user(request, f"Call {call.pk} is made now.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:scheduler_scheduledcall_change", args=[call.pk])) if self.sees_calls(request) else None
