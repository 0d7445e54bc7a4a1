"""The admin: see what is planned and how it went, cancel, schedule again, add."""
from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from . import picture, transitions
from .clock import utcnow
from .models import Schedule, ScheduledCall
from .schedule_admin import ScheduleAdmin
from .serializers import due_time
from .tasks import hand_over_soon

Status = ScheduledCall.Status

AT_ONCE = 10_000        # rows that one action takes, as many as one request to the API

admin.site.site_header = admin.site.site_title = "API Scheduler"
admin.site.index_title = "Calls, people and tokens"
admin.site.register(Schedule, ScheduleAdmin)


class ScheduledCallForm(forms.ModelForm):
    def clean_timestamp(self):
        timestamp = self.cleaned_data["timestamp"]
        if timestamp < utcnow():
            raise forms.ValidationError(
                "This time is in the past (it is now %(now)s). Choose one to come.",
                params={"now": f"{timezone.localtime():%Y-%m-%d %H:%M:%S %Z}"})
        try:
            return due_time(timestamp.isoformat())
        except ValueError as error:
            raise forms.ValidationError(f"This time {error}.")


def moment(field, description):
    """A read-only column with seconds, which the admin's own format leaves out."""
    @admin.display(description=description, ordering=field, empty_value="–")
    def column(self, call):
        value = getattr(call, field)
        return f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S}" if value else None
    return column


@admin.register(ScheduledCall)
class ScheduledCallAdmin(admin.ModelAdmin):
    form = ScheduledCallForm
    list_display = ["id", "how", "due", "late", "http_status", "error"]
    list_display_links = ["id", "due"]
    list_filter = ["status", ("timestamp", admin.DateFieldListFilter)]
    date_hierarchy = "timestamp"
    search_fields = ["=id"]
    search_help_text = "A call's id"
    ordering = ["-timestamp", "-id"]
    show_full_result_count = False      # one count of a large table is enough
    actions = ["cancel", "schedule_again"]
    results = ["id", "how", "late", "http_status", "error", "schedule", "created", "handed_over", "started", "ended"]

    due = moment("timestamp", "due")
    created = moment("created_at", "created")
    handed_over = moment("handed_over_at", "handed over")
    started = moment("started_at", "started")
    ended = moment("ended_at", "ended")

    @admin.display(description="status", ordering="status")
    def how(self, call):
        return format_html('<span class="call-status call-{}">{}</span>', call.status, call.status)

    @admin.display(description="lateness", empty_value="–")
    def late(self, call):
        return None if call.lateness is None else f"{call.lateness:.3f} s"

    def get_fields(self, request, obj=None):
        return ["timestamp", *self.results] if obj else ["timestamp"]

    def get_readonly_fields(self, request, obj=None):
        return self.results

    def has_change_permission(self, request, obj=None):
        """What has begun is history, and history is only looked at."""
        return super().has_change_permission(request, obj) and (
            obj is None or obj.status == Status.PENDING)

    def has_delete_permission(self, request, obj=None):
        """Every call is accounted for; `manage.py prune` removes what is old."""
        return False

    def save_model(self, request, obj, form, change):
        if change:
            request.was_moved = transitions.move(obj.pk, obj.timestamp)
        else:
            super().save_model(request, obj, form, change)
        if obj.timestamp <= utcnow() + timedelta(seconds=settings.WINDOW):
            hand_over_soon([obj.pk])

    def log_change(self, request, obj, message):
        """The history tells only of what happened."""
        if getattr(request, "was_moved", True):
            return super().log_change(request, obj, message)

    def response_change(self, request, obj):
        if getattr(request, "was_moved", True):
            return super().response_change(request, obj)
        self.message_user(request, f"Call {obj.pk} is no longer pending; nothing was changed.", messages.ERROR)
        return HttpResponseRedirect(reverse("admin:scheduler_scheduledcall_change", args=[obj.pk]))

    @admin.action(description="Cancel the selected calls", permissions=["change"])
    def cancel(self, request, queryset):
        ids = self._ids(request, queryset)
        cancelled = sum(transitions.cancel(call_id) for call_id in ids)
        if cancelled:
            self.message_user(request, f"{cancelled} cancelled.", messages.SUCCESS)
        if len(ids) > cancelled:
            self.message_user(
                request, f"{len(ids) - cancelled} not cancelled: no longer pending.", messages.WARNING)

    @admin.action(description="Schedule again, now", permissions=["add"])
    def schedule_again(self, request, queryset):
        """New calls; what happened to the old ones stays as it is."""
        ids = self._ids(request, queryset)
        calls = transitions.schedule([utcnow()] * len(ids))
        hand_over_soon([call.pk for call in calls])
        if calls:
            self.message_user(request, f"{len(calls)} scheduled for now.", messages.SUCCESS)

    def _ids(self, request, queryset):
        ids = list(queryset.order_by("id").values_list("id", flat=True)[:AT_ONCE + 1])
        if len(ids) > AT_ONCE:
            self.message_user(request, f"More than {AT_ONCE} are selected; choose fewer.", messages.ERROR)
            return []
        return ids

    def changelist_view(self, request, extra_context=None):
        return super().changelist_view(
            request, {**(extra_context or {}), "picture": picture.draw(utcnow())})
