"""The admin of calls: see what is planned and how it went, cancel, try now, schedule again, add."""
import json
from functools import partial

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.contrib.admin.views.main import IncorrectLookupParameters
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import PermissionDenied
from django.db import connection, models, transaction
from django.db.models import Q
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator

from ..base.clock import utcnow
from ..base.moments import moment, precise
from ..calls import dispatch, ledger, targets
from ..calls.attempts import attempts_of, durations
from ..models import Schedule, ScheduledCall, Target
from . import dashboard, export, filters
from .attempts import CLASSES, in_lines, in_words, laid_out, milliseconds
from .call_form import SHOWN, DueField, ScheduledCallForm, first_of
from .filters import NOTHING
from .forms import OnceAdmin

Status = ScheduledCall.Status

AT_ONCE = 10_000        # rows that one action takes, as many as one request to the API
BRIEF = 120             # characters
CANCELLABLE = (Status.PENDING, Status.RETRYING)


def column(field, description, say=moment):
    """A time in words: Django's own leave the zone out in an hour that the clocks show twice."""
    @admin.display(description=description, ordering=field)
    def in_words(self, call):
        at = getattr(call, field)
        return say(at) if at else NOTHING
    return in_words


def brief(text):
    """The str `text` as a row has room for it: an error may be a page of HTML. The call's own page has all of it."""
    return text if len(text) <= BRIEF else format_html('<span title="{}">{}</span>', text, Truncator(text).chars(BRIEF))


@admin.register(ScheduledCall)
class ScheduledCallAdmin(OnceAdmin, filters.SelectedRows, admin.ModelAdmin):
    form = ScheduledCallForm
    formfield_overrides = {models.DateTimeField: {"form_class": DueField, "widget": AdminSplitDateTime}}
    list_display = ["id", "how", "due", "called", "late", "took", "outcome", "who", "said"]
    list_display_links = ["id", "due"]
    list_filter = filters.FILTERS
    list_select_related = ["schedule", "target"]
    sortable_by = ["id", "due"]   # the others would have a million rows sorted
    search_fields = ["id"]      # for the form
    search_help_text = "Id, note, target, schedule, error"
    paginator = filters.CallPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_max_show_all = 1000
    actions = ["cancel", "schedule_again"]

    new = [(None, {"fields": ["timestamp", "times", "note"]})]
    new_to_target = [*new, ("What is called", {"fields": ["to_target", "body", "headers", "data", "expires"]})]
    known = [
        (None, {"fields": ["timestamp", "how", "error", "http_status", "cancelled_by", "said"]}),
        ("How it went", {"fields": ["late", "handed_over", "started", "ended"]}),
        ("What is called", {"fields": ["called", "attempts_made", "has_of_it", "expires"]}),
        ("What is sent with it", {"fields": ["own_body", "own_headers", "own_data"]}),
        ("Who and why", {"fields": ["scheduled_by", "via", "planned_by", "created", "again", "again_as"]}),
    ]

    # What it shows

    due, created = column("timestamp", "due", precise), column("created_at", "created")
    handed_over = column("handed_over_at", "handed over", precise)
    started, ended = column("started_at", "started", precise), column("ended_at", "ended", precise)
    expires, next_attempt = column("expires_at", "expires"), column("next_attempt_at", "next attempt")

    @admin.display(description="status", ordering="status")
    def how(self, call):
        return format_html('<span class="call-status" style="--status: var(--{})">{}</span>', call.status, call.status)

    @admin.display(description="lateness")
    def late(self, call):
        if call.lateness is None:
            return NOTHING
        return f"{call.lateness:.3f} s" + (", caught up" if call.caught_up else "")

    @admin.display(description="duration")
    def took(self, call):
        """Of its last attempt; the list has read those of a page together."""
        ms = getattr(call, "took_ms", None)
        return NOTHING if ms is None else milliseconds(ms)

    @admin.display(description="outcome")
    def outcome(self, call):
        """In one column: an error says what the HTTP status was."""
        said = brief(call.error) if call.error else f"HTTP status {call.http_status}" if call.http_status else ""
        if call.status == Status.RETRYING:
            return format_html("{}{}next attempt {}", said, said and ", ", self.next_attempt(call))
        if call.cancelled_by:
            return format_html("{}{}cancelled by <bdi>{}</bdi>", said, said and ", ", call.cancelled_by)
        return said or NOTHING

    @admin.display(description="scheduled by")
    def who(self, call):
        """And from which call again."""
        who = self._by(call)
        return who if call.again_of is None else format_html("{}, again from {}", who, self._link(call.again_of))

    def _by(self, call):
        if call.schedule:
            return format_html("schedule <bdi>{}</bdi>", call.schedule)
        if call.scheduled_by and call.scheduled_via:
            return format_html("<bdi>{}</bdi> ({})", call.scheduled_by, call.scheduled_via)
        return call.scheduled_by or call.scheduled_via or NOTHING

    @admin.display(description="via")
    def via(self, call):
        return call.scheduled_via or NOTHING

    @admin.display(description="schedule")
    def planned_by(self, call):
        if call.schedule is None:
            return NOTHING
        if call.schedule.deleted_at or not call.leads_to_schedule:
            return format_html("<bdi>{}</bdi>", call.schedule)
        return format_html('<a href="{}"><bdi>{}</bdi></a>',
                           reverse("admin:scheduler_schedule_change", args=[call.schedule_id]), call.schedule)

    @admin.display(description="target")
    def called(self, call):
        if call.target is None:
            return NOTHING
        if call.target.deleted_at or not getattr(call, "leads_to_target", False):       # in the list no name leads away
            return format_html("<bdi>{}</bdi>", call.target)
        return format_html('<a href="{}"><bdi>{}</bdi></a>',
                           reverse("admin:scheduler_target_change", args=[call.target_id]), call.target)

    @admin.display(description="what the API has of it")
    def has_of_it(self, call):
        return CLASSES.get(call.failure, call.failure) or NOTHING

    @admin.display(description="body")
    def own_body(self, call):
        return format_html("<pre>{}</pre>", laid_out(call.request.body)) if call.request.body is not None else "the target's"

    @admin.display(description="headers")
    def own_headers(self, call):
        return in_lines(call.request.headers) or "the target's"

    @admin.display(description="data")
    def own_data(self, call):
        return format_html("<pre>{}</pre>", json.dumps(call.request.data, ensure_ascii=False, indent=2)) if call.request.data else NOTHING

    @admin.display(description="note")
    def said(self, call):
        return format_html("<bdi>{}</bdi>", call.note) if call.note else NOTHING

    @admin.display(description="scheduled again from")
    def again(self, call):
        return NOTHING if call.again_of is None else self._link(call.again_of)

    @admin.display(description="scheduled again as")
    def again_as(self, call):
        ids = list(ScheduledCall.objects.filter(again_of=call.pk).order_by("-id").values_list("id", flat=True)[:SHOWN + 1])
        shown = format_html_join(", ", "{}", [[self._link(call_id)] for call_id in ids[:SHOWN]])
        if len(ids) > SHOWN:
            return format_html('{}, <a href="{}">and more</a>', shown, self._list(again_of=call.pk))
        return shown or NOTHING

    def _link(self, call_id):
        return format_html('<a href="{}">call {}</a>', reverse("admin:scheduler_scheduledcall_change", args=[call_id]), call_id)

    def _list(self, **parameters):
        """The address of the list with these parameters."""
        return reverse("admin:scheduler_scheduledcall_changelist") + filters.link(**parameters)

    def get_ordering(self, request):
        return filters.VIEWS[filters.chosen_view(request)].ordering

    def get_search_results(self, request, queryset, search_term):
        """All of them: filters.SearchFilter has found what is looked for."""
        return queryset, False

    def get_list_display(self, request):
        """Without the column of targets where there has never been one."""
        return [name for name in self.list_display if name != "called" or Target.objects.exists()]

    def get_changelist(self, request, **kwargs):
        return filters.CallList

    def changelist_view(self, request, extra_context=None):
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and "cl" in (response.context_data or {}):
            tabs, status, due = map(response.context_data["cl"].spec, (
                filters.ViewFilter, filters.StatusFilter, filters.DueFilter))
            now = utcnow()
            calls = response.context_data["cl"].result_list = list(response.context_data["cl"].result_list)
            took = durations(calls)
            for call in calls:
                call.took_ms = took.get(call.pk)
            response.context_data |= {
                "tabs": tabs, "view": filters.VIEWS[tabs.name].title, "summary": dashboard.summary(now, self.admin_site.get_model_admin(Target).has_view_permission(request)),
                "picture": dashboard.picture(
                    now, tabs.name, status.status, (due.start, due.end),
                    filters.kept(request, filters.StatusFilter, filters.DueFilter))}
        return response

    def get_fieldsets(self, request, obj=None):
        if obj is None:
            return self.new_to_target if self.uses_targets(request) else self.new
        own = hasattr(obj, "request") and self.sees_requests(request)
        shown = {"What is called": obj.target is not None, "What is sent with it": own}
        known = [(title, [name for name in part["fields"] if name in self._fields(obj)
                          or name == "timestamp" and self.has_change_permission(request, obj)])
                 for title, part in self.known if shown.get(title, True)]
        return [(title, {"fields": fields}) for title, fields in known if fields]

    def _fields(self, call):
        """The names of the fields that have something to say of the call, which its heading and its attempts do not
        say already."""
        if not hasattr(call, "fields_shown"):
            names = {name for _, part in self.known for name in part["fields"] if name != "timestamp"}
            if not hasattr(call, "request"):
                names -= {"own_body", "own_headers", "own_data"}
            if call.told:
                last = call.told[-1]
                names -= {name for name, same in (
                    ("how", call.status == last["outcome"]), ("error", call.error == last["error"]), ("http_status", call.http_status == last["http_status"]),
                    ("has_of_it", (call.failure or None) == last["class"]), ("attempts_made", call.attempts_made == len(call.told)),
                    ("started", len(call.told) == 1 and call.started_at == last["started_at"]),
                    ("ended", len(call.told) == 1 and call.ended_at == last["ended_at"])) if same}
            values = {name: getattr(self, name)(call) if hasattr(self, name) else getattr(call, name) for name in names}
            call.fields_shown = {name for name, value in values.items() if value not in (None, "", NOTHING)}
        return call.fields_shown

    def get_object(self, request, object_id, from_field=None):
        """With its attempts, and with whether this user may see the pages of its schedule and its target."""
        if call := super().get_object(request, object_id, from_field):
            call.told = attempts_of(call, self.sees_requests(request))
            call.leads_to_schedule, call.leads_to_target = (
                self.admin_site.get_model_admin(model).has_view_permission(request) for model in (Schedule, Target))
        return call

    def render_change_form(self, request, context, obj=None, **how):
        if obj:
            context |= {
                "attempts": in_words(obj.told, self._unseen(request, obj)),
                "next_attempt": obj.status == Status.RETRYING and self.next_attempt(obj),
                "may_cancel": self.may_cancel(request) and obj.status in CANCELLABLE,
                "may_try": self.may_cancel(request) and obj.status == Status.RETRYING}
        else:
            context["pasted"] = context["adminform"].form.preview()
        return super().render_change_form(request, context, obj=obj, **how)

    def _unseen(self, request, call):
        """Why of an attempt at the call nothing more is shown."""
        if call.target_id is None:
            return "Of a success without a target nothing more is kept." if call.status == Status.SUCCEEDED else ""
        return "" if self.sees_requests(request) else (
            "The request and the answer are shown to those who may see what is sent to targets.")

    def get_changeform_initial_data(self, request):
        """Not the time: a query string gives one text, and its field, of two, breaks on it."""
        initial = super().get_changeform_initial_data(request)
        initial.pop("timestamp", None)
        return initial

    def get_readonly_fields(self, request, obj=None):
        if obj is None:
            return []
        return ["due", *[field for _, part in self.known for field in part["fields"] if field != "timestamp"]]

    def get_form(self, request, obj=None, change=False, **kwargs):
        form = super().get_form(request, obj, change=change, **kwargs)
        wanted = flatten_fieldsets(self.get_fieldsets(request, obj))
        for name in form.OF_NEW:
            if change or name not in wanted:
                form.base_fields.pop(name, None)    # Django has left out those of the name of what is only shown
        return form

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        if request.method == "POST" and object_id and self.has_change_permission(request):
            call = self.get_object(request, unquote(object_id))
            if call and not self.has_change_permission(request, call):      # it began after the page was shown
                return self._nothing_changed(request, call)
        title = {"title": f"Call {unquote(object_id)}"} if object_id else {"title": "Schedule calls"}
        try:
            return super().changeform_view(request, object_id, form_url, title | (extra_context or {}))
        except Target.DoesNotExist as error:        # it was deleted since the form was read
            self.message_user(request, f"{error} Nothing was scheduled.", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    # What may be done

    def has_change_permission(self, request, obj=None):
        """What has begun is history, and history is only looked at."""
        return super().has_change_permission(request, obj) and (
            obj is None or obj.status == Status.PENDING)

    def may_cancel(self, request):
        """Also what has begun, between two attempts, and have it tried now."""
        return super().has_change_permission(request)

    def uses_targets(self, request):
        """Whether this user may schedule calls for targets, and there are some."""
        return request.user.has_perm("scheduler.use_target") and targets.there().exists()

    def sees_requests(self, request):
        """Whether this user may see what is sent to targets, and what they answer."""
        return request.user.has_perm("scheduler.see_request")

    def has_delete_permission(self, request, obj=None):
        """Every call is accounted for; `manage.py prune` removes what is old."""
        return False

    def save_model(self, request, obj, form, change):
        if change and not form.has_changed():
            request.was_moved = None    # a form shows whole seconds, and must not take the rest of one away
            return
        request.twice = form.twice
        if change:
            request.was_moved = ledger.move(obj.pk, obj.timestamp)
            dispatch.hand_over_soon([obj.pk])
        else:
            calls = request.calls = ledger.schedule(calls=form.new_calls(), by=request.user.get_username(), via="admin")
            dispatch.created(calls)
            obj.pk, obj.timestamp = calls[0].pk, calls[0].timestamp

    def log_addition(self, request, obj, message):
        self._write_history(request, [
            (call.pk, str(call), ADDITION, f"Added, due {moment(call.timestamp)}.") for call in request.calls])

    def _warn_of_twice(self, request):
        seconds = [timezone.localtime(when).replace(fold=1) for when in request.twice]
        for line in first_of(f"The clocks show {second:%Y-%m-%d %H:%M:%S} twice; the first was taken. The second is "
                             f"{second.isoformat()}." for second in seconds):
            self.message_user(request, line, messages.WARNING)

    def response_add(self, request, obj, post_url_continue=None):
        self._warn_of_twice(request)
        if len(request.calls) == 1:
            return super().response_add(request, obj, post_url_continue)
        self.message_user(request, f"{len(request.calls)} calls were added.", messages.SUCCESS)
        return HttpResponseRedirect(request.path if "_addanother" in request.POST else self._together(request.calls))

    def _together(self, calls):
        """The address of the list of exactly these new calls; of one its page, which says how it went."""
        if len(calls) == 1:
            return reverse("admin:scheduler_scheduledcall_change", args=[calls[0].pk])
        return self._list(view="all", ids=f"{min(call.pk for call in calls)}-{max(call.pk for call in calls)}")

    def log_change(self, request, obj, message):
        """The history tells only of what happened."""
        if request.was_moved:
            return super().log_change(request, obj, f"Moved to {moment(obj.timestamp)}.")

    def response_change(self, request, obj):
        if request.was_moved is None:
            self.message_user(request, f"Nothing was changed on {obj}.", messages.INFO)
            return self.response_post_save_change(request, obj)
        if request.was_moved:
            self._warn_of_twice(request)
            return super().response_change(request, obj)
        return self._nothing_changed(request, obj)

    def _nothing_changed(self, request, call):
        self.message_user(request, f"Call {call.pk} is no longer pending; nothing was changed.", messages.ERROR)
        return self.back_to(call)

    def _write_history(self, request, entries):
        """entries: [(id, the call in words, flag, message), ...]; for thousands at once."""
        kind, now = get_content_type_for_model(ScheduledCall).pk, connection.ops.adapt_datetimefield_value(utcnow())
        # For ten thousand 0.05 s on SQLite, where bulk_create takes 0.45, and no more on PostgreSQL.
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {LogEntry._meta.db_table} (action_time, user_id, content_type_id, object_id,"
                " object_repr, action_flag, change_message) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [(now, request.user.pk, kind, str(call_id), words, flag, message)
                 for call_id, words, flag, message in entries])

    @admin.action(description="Cancel the selected calls", permissions=["change"])
    def cancel(self, request, queryset):
        ids = self._ids(request, queryset)
        cancelled = ledger.cancel(ids, by=request.user.get_username())
        self._write_history(request, [(call_id, f"call {call_id}", CHANGE, "Cancelled.") for call_id in cancelled])
        if cancelled:
            self.message_user(request, f"{len(cancelled)} cancelled.", messages.SUCCESS)
        if len(ids) > len(cancelled):
            self.message_user(
                request, f"{len(ids) - len(cancelled)} not cancelled: no longer pending.", messages.WARNING)

    def try_now(self, request, queryset):
        """The next attempt is made now, and not when it would be."""
        call_id = queryset.get().pk
        if ledger.try_now(call_id):
            dispatch.hand_over_soon([call_id])
            self._write_history(request, [(call_id, f"call {call_id}", CHANGE, "Tried now.")])
            self.message_user(request, f"Call {call_id} is tried now.", messages.SUCCESS)
        else:
            self.message_user(request, f"Call {call_id} is no longer to be tried again.", messages.WARNING)

    @admin.action(description="Schedule again, now", permissions=["add"])
    def schedule_again(self, request, queryset):
        """New calls; what happened to the old ones stays as it is. Leads to the new ones."""
        ids = self._ids(request, queryset)
        calls = ScheduledCall.objects.filter(id__in=ids).order_by("id")
        for why, can in (("they name a target, and you may not use targets",
                          Q() if request.user.has_perm("scheduler.use_target") else Q(target=None)),
                         ("their target was deleted", Q(target=None) | Q(target__deleted_at=None))):
            number, calls = len(ids), calls.filter(can)
            ids = list(calls.values_list("id", flat=True))
            if len(ids) < number:
                self.message_user(request, f"{number - len(ids)} not scheduled again: {why}.", messages.ERROR)
        if not ids:
            return None
        try:
            with transaction.atomic():
                calls = ledger.again(ids, by=request.user.get_username(), via="admin")
                dispatch.created(calls)
        except Target.DoesNotExist as error:
            self.message_user(request, f"{error} Nothing was scheduled.", messages.ERROR)
            return None
        self._write_history(request, [entry for call in calls for entry in (
            (call.pk, f"call {call.pk}", ADDITION, f"Scheduled again from call {call.again_of}."),
            (call.again_of, f"call {call.again_of}", CHANGE, f"Scheduled again as call {call.pk}."))])
        last = max(call.timestamp for call in calls)
        self.message_user(request, f"{len(calls)} scheduled for now" + (
            f", as their target's rate allows: the last for {moment(last)}." if last > utcnow() else "."), messages.SUCCESS)
        return HttpResponseRedirect(self._together(calls))

    def response_action(self, request, queryset):
        """What was selected one by one may have left the view since; then the action says so."""
        if request.POST.get("select_across", "0") == "0":
            queryset = self.get_queryset(request)
        return super().response_action(request, queryset)

    def _ids(self, request, queryset):
        ids = list(queryset.order_by("id").values_list("id", flat=True)[:AT_ONCE + 1])
        if len(ids) > AT_ONCE:
            self.message_user(request, f"More than {AT_ONCE} are selected; choose fewer.", messages.ERROR)
            return []
        return ids

    # Pages of its own

    def get_urls(self):
        def page(view):
            return self.admin_site.admin_view(view)
        return [
            path("csv/", page(self.csv), name="scheduler_scheduledcall_csv"),
            path("<int:call_id>/cancel/", page(partial(
                self.act_on_one, action=self.cancel, may=self.may_cancel, statuses=CANCELLABLE, gone="is no longer pending",
                question="Cancel this call?", yes="Yes, cancel it")), name="scheduler_scheduledcall_cancel"),
            path("<int:call_id>/try/", page(partial(
                self.act_on_one, action=self.try_now, may=self.may_cancel, statuses=(Status.RETRYING,),
                gone="is no longer to be tried again", question="Make the next attempt now?", yes="Yes, try now")),
                name="scheduler_scheduledcall_try"),
            path("<int:call_id>/again/", page(partial(
                self.act_on_one, action=self.schedule_again, may=self.has_add_permission, statuses=Status,
                question="Schedule this call again, for now?", yes="Yes, call now")),
                name="scheduler_scheduledcall_again"),
            *super().get_urls(),
        ]

    def act_on_one(self, request, call_id, action, may, statuses, question, yes, gone=""):
        """An action for one call, from its own page: asks first, and does it when the answer is posted.

        statuses: of calls for which there is this action; gone: what one is that has another
        """
        if not (self.has_view_permission(request) and may(request)):
            raise PermissionDenied
        calls = ScheduledCall.objects.filter(pk=call_id)
        if not (call := calls.first()):
            raise Http404(f"There is no call {call_id}.")
        if request.method == "POST":
            return self.in_one(request, lambda: action(request, calls) or self.back_to(call))
        if call.status not in statuses:
            self.message_user(request, f"Call {call_id} {gone}.", messages.WARNING)
            return self.back_to(call)
        note = format_html(": <bdi>{}</bdi>", call.note) if call.note else ""
        return self.ask(request, call, question, yes, format_html("It is {}, {}{}.", call, call.status, note))

    def csv(self, request):
        """The calls that the list shows, with all its pages, as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            found = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(self._list())
        return export.response(found.queryset, found.whole_order)
