"""The admin of schedules: what comes next, how the last ones ended, and a form that shows what it will do
before it is saved."""
from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db import IntegrityError, models, transaction
from django.db.models import Q, Count, OuterRef, Subquery
from django.http import HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from ..base import zones
from ..base.clock import utcnow
from ..base.moments import moment
from ..calls.dispatch import hand_over_soon
from ..models import Schedule, ScheduledCall
from ..schedules import planner
from . import filters
from .filters import NOTHING
from .forms import OnceAdmin, OpenedForm

Status = ScheduledCall.Status

LAST = 5            # outcomes shown of each schedule
AT_ONCE = 1000      # schedules that one action takes
DAYS = dict(zip(Schedule.DAYS, ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")))
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


class ScheduleForm(OpenedForm):
    days = DaysField(choices=DAYS.items(), initial=",".join(Schedule.DAYS),
                     help_text="Counted in the time zone. A cron expression says its days itself: leave all.")

    class Meta:
        widgets = {
            "times": forms.Textarea({"rows": 2, "cols": 60}), "cron": forms.TextInput({"size": 40}),
            "zone": forms.TextInput({"list": "zones", "size": 40}), "name": forms.TextInput({"size": 40})}

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
            elif call.timestamp != call.occurrence and not self.is_bound:
                remarks[call.occurrence] = f"its call was moved to {moment(call.timestamp, rule.zone)}"
        return [(f"{at.astimezone(rule.zone):%a}", moment(at, rule.zone), moment(at),
                 remarks.get(at) or remark(rule, at)) for at in times]


@admin.register(Schedule)
class ScheduleAdmin(OnceAdmin, filters.SelectedRows, admin.ModelAdmin):
    form = ScheduleForm
    # The browser's own field: Django's reckons "today" in the server's zone, and these are of another.
    formfield_overrides = {models.DateField: {"widget": forms.DateInput({"type": "date"}, format="%Y-%m-%d")}}
    list_display = ["name", "when", "comes_next", "last_ended", "is_on", "its_calls"]
    list_filter = ["on"]
    search_fields = ["name"]
    search_help_text = "A part of the name"
    ordering = ["name"]
    show_facets = admin.ShowFacets.NEVER
    actions = ["switch_off", "switch_on"]
    fields = ["name", "times", "cron", "zone", "days", "first_date", "last_date", "on"]
    kept = ["comes_next", "last_ended", "its_calls", "created", "planned"]

    def get_queryset(self, request):
        """With what the list shows of its calls, all in one query."""
        now = utcnow()
        calls = ScheduledCall.objects.filter(schedule=OuterRef("pk"))
        soon = calls.filter(status=Status.PENDING, timestamp__gt=now).order_by("timestamp", "id")
        # Not those that a change of the schedule has cancelled.
        ended = calls.filter(status__in=ScheduledCall.FINISHED, occurrence__isnull=False,
                             timestamp__lte=now).order_by("-timestamp", "-id")
        return super().get_queryset(request).filter(deleted_at=None).annotate(
            soon=Subquery(soon.values("timestamp")[:1]),
            **{f"ended_{i}": Subquery(ended.values("status")[i:i + 1]) for i in range(LAST)})

    @admin.display(description="when")
    def when(self, schedule):
        what = schedule.cron or schedule.times
        what = what if len(what) <= 60 else what[:59] + "…"
        days = schedule.days.split(",")
        return ", ".join([
            what, *([] if len(days) == len(DAYS) else [" ".join(days)]),
            *([f"from {schedule.first_date}"] if schedule.first_date else []),
            *([f"until {schedule.last_date}"] if schedule.last_date else []), schedule.zone])

    @admin.display(description="next")
    def comes_next(self, schedule):
        try:
            at, rule = schedule.soon, schedule.rule
        except ValueError as error:
            return str(error)
        if at is None and schedule.planned_until:
            at = next(iter(planner.upcoming(rule, schedule.planned_until, 1)), None)
        return moment(at, rule.zone) if at else NOTHING

    @admin.display(description="last ended")
    def last_ended(self, schedule):
        """The latest at the right, as in a line of time, and as a word."""
        ended = [status for i in reversed(range(LAST)) if (status := getattr(schedule, f"ended_{i}"))]
        return format_html('<span class="outcomes">{} {}</span>', format_html_join(
            "", '<span class="outcome outcome-{}" role="img" aria-label="{}" title="{}"></span>',
            ((status, status, status) for status in ended)), ended[-1]) if ended else NOTHING

    @admin.display(description="on", boolean=True, ordering="on")
    def is_on(self, schedule):
        return schedule.on

    @admin.display(description="calls")
    def its_calls(self, schedule):
        calls = reverse("admin:scheduler_scheduledcall_changelist")
        return format_html('<a href="{}">to come</a>, <a href="{}">so far</a>', *(
            calls + filters.link(view=view, schedule=schedule.pk) for view in ("upcoming", "recent")))

    @admin.display(description="created")
    def created(self, schedule):
        return f"{moment(schedule.created_at)}{schedule.created_by and f', by {schedule.created_by}'}"

    @admin.display(description="planned until")
    def planned(self, schedule):
        return moment(schedule.planned_until) if schedule.planned_until else NOTHING

    def _without_calls(self, request, names):
        """The names, but not its_calls for who may not see that page."""
        may = self.admin_site.get_model_admin(ScheduledCall).has_view_permission(request)
        return [name for name in names if may or name != "its_calls"]

    def get_list_display(self, request):
        return self._without_calls(request, self.list_display)

    def get_fields(self, request, obj=None):
        return [*self.fields, *self.get_readonly_fields(request)] if obj else self.fields

    def get_readonly_fields(self, request, obj=None):
        return self._without_calls(request, self.kept)

    def changelist_view(self, request, extra_context=None):
        return super().changelist_view(request, {"title": "Schedules", **(extra_context or {})})

    def get_changeform_initial_data(self, request):
        return {"zone": settings.TIME_ZONE, **super().get_changeform_initial_data(request)}

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        title = {"title": "Schedule" if object_id else "Add a schedule"}
        try:
            return super().changeform_view(request, object_id, form_url, title | (extra_context or {}))
        except IntegrityError:
            self.message_user(request, "Somebody has just taken this name; nothing was saved.", messages.ERROR)
        except Schedule.DoesNotExist:
            self.message_user(request, "Somebody has just deleted it; nothing was saved.", messages.ERROR)
        return HttpResponseRedirect(request.path)

    def render_change_form(self, request, context, **how):
        form = context["adminform"].form
        context |= {"preview": form.preview(), "preview_zone": form.instance.zone, "admin_zone": settings.TIME_ZONE,
                    "zones": sorted(zones.names())}
        return super().render_change_form(request, context, **how)

    def save_model(self, request, obj, form, change):
        hand_over_soon(planner.save(obj, request.user.get_username()))

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
        switched = 0
        for schedule_id in ids:
            with transaction.atomic():
                schedule = planner.locked().filter(pk=schedule_id).first()
                if schedule and schedule.on != on:
                    schedule.on = on
                    hand_over_soon(planner.save(schedule, request.user.get_username()))
                    self.log_change(request, schedule, f"Switched {'on' if on else 'off'}.")
                    switched += 1
        self.message_user(request, f"{switched} switched {'on' if on else 'off'}.",
                          messages.SUCCESS if switched else messages.WARNING)
