"""The admin's list: its views (upcoming, recent, ...), its filters, and how far it counts."""
import re
from contextlib import suppress
from datetime import datetime, time, timedelta
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ALL_VAR, ERROR_FLAG, ORDER_VAR, PAGE_VAR, SEARCH_VAR, ChangeList, IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import Subquery
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html

from ..base.clock import utcnow
from ..base.moments import from_person, moment
from ..base.words import is_id, printable
from ..models import Schedule, ScheduledCall, Target
from . import search

Status = ScheduledCall.Status

NOTHING = format_html('<span class="blank">{}</span>', "–")     # what stands where there is nothing; no part of a phone's cards
COUNTED = 10_000        # calls; of more the list says "more than", as to count a million takes its time

SOONEST, LATEST = ["timestamp", "id"], ["-timestamp", "-id"]


class View:
    """One of the views between which the tabs above the list change.

    only: the statuses of its calls, or None for all
    until_now: only calls that are due by now
    to_come: its statuses are those of calls that are still to come, or under way
    span: a function of an aware datetime, now, that returns the two between which its calls are due; None for any
    """

    def __init__(self, title, ordering, only=None, until_now=False, to_come=False, span=None):
        self.title, self.ordering, self.only, self.until_now, self.to_come = title, ordering, only, until_now, to_come
        self.statuses, self.span = only or Status.values, span

    def may_hold(self, start, end, now):
        """Whether there may be calls of it that are due from `start` and before `end`, aware datetimes or None."""
        since, until = self.span(now) if self.span else (None, None)
        return not (self.to_come and end and end <= now or self.until_now and start and start > now
                    or since and end and end <= since or until and start and start >= until)


def days(first, number=1):
    """For a View: the span of that many whole days of TIME_ZONE, from `first` days after today on."""
    def span(now):
        today = timezone.localdate(now)
        return tuple(midnight(today + timedelta(days=after)) for after in (first, first + number))
    return span


def last_month(now):
    """For a View: the span of the month of the calendar before this one."""
    first = timezone.localdate(now).replace(day=1)
    return midnight((first - timedelta(days=1)).replace(day=1)), midnight(first)


def midnight(day):
    return datetime.combine(day, time.min, timezone.get_default_timezone())


VIEWS = {
    "upcoming": View("Upcoming", SOONEST, [Status.PENDING, Status.RETRYING, Status.RUNNING], to_come=True),
    "today": View("Today", SOONEST, span=days(0)),
    "tomorrow": View("Tomorrow", SOONEST, span=days(1)),
    "recent": View("Recent", LATEST, until_now=True),
    "day": View("Last 24 hours", LATEST, span=lambda now: (now - timedelta(days=1), now)),
    "month": View("Last month", LATEST, span=last_month),
    "trouble": View("Failed and missed", LATEST, [Status.FAILED, Status.MISSED]),
    "all": View("All", LATEST),
}


def chosen_view(request):
    """The name of the view that the query string asks for. What is looked for in particular is looked for
    among all calls; else the list opens at what comes next. Of a view that can hold no call of the times that are
    chosen, the other side of now is meant."""
    view = request.GET.get("view")
    if view in VIEWS:
        with suppress(ValueError):      # which DueFilter tells
            if not VIEWS[view].may_hold(chosen_time(request, "due_from"), chosen_time(request, "due_before"), utcnow()):
                return "all" if VIEWS[view].span else "recent" if VIEWS[view].to_come else "upcoming"
        return view
    return "all" if set(request.GET) - {"view", PAGE_VAR, ORDER_VAR, ALL_VAR, ERROR_FLAG} else "upcoming"


def chosen_time(request, name):
    """The aware datetime that the query string has under that name, or None. Raises ValueError saying what is
    wrong with it."""
    text = request.GET.get(name, "").strip()
    return from_person(text, later=name == "due_before") if text else None


def link(**parameters):
    """A query string of those that are not empty."""
    return "?" + urlencode({name: value for name, value in parameters.items() if value})


def kept(request, *but):
    """{name: value} of the parameters that the query string holds of all filters but these, classes, and the view."""
    return {name: value for kind in FILTERS if kind not in (ViewFilter, *but) for name in kind.parameters
            if (value := request.GET.get(name))}


class CallFilter(admin.ListFilter):
    """What the filters below share: their parameters are taken out of the query string as Django does.

    says: what is chosen, in words, or ""
    """

    parameters = []
    says = ""

    def __init__(self, request, params, model, model_admin):
        super().__init__(request, params, model, model_admin)
        self.request = request
        for name in self.parameters:
            if name in params:
                self.used_parameters[name] = params.pop(name)[-1].strip()

    def has_output(self):
        return True

    def expected_parameters(self):
        return self.parameters

    def others(self):
        """(name, value) of what a form keeps; the view also where the list has opened with it by itself."""
        return {"view": chosen_view(self.request), **kept(self.request, type(self))}.items()

    def without(self):
        """The query string without it."""
        return link(**dict(self.others()))


class ViewFilter(CallFilter):
    """The tabs. They keep what belongs together, and the times that are chosen where the view can hold a call
    of them."""

    title = "view"
    template = "admin/scheduler/scheduledcall/tabs.html"
    parameters = ["view"]

    def __init__(self, request, params, model, model_admin):
        super().__init__(request, params, model, model_admin)
        self.name = chosen_view(request)
        asked = self.used_parameters.get("view")
        if asked is not None and asked not in VIEWS:
            messages.warning(request, f"There is no view “{printable(asked, 40)}”; there are {', '.join(VIEWS)}.")

    def queryset(self, request, queryset):
        view = VIEWS[self.name]
        if view.until_now:
            queryset = queryset.filter(timestamp__lte=utcnow())
        if view.span:
            since, until = view.span(utcnow())
            queryset = queryset.filter(timestamp__gte=since, timestamp__lt=until)
        return queryset.of(view.only) if view.only else queryset

    def choices(self, changelist):
        now, due = utcnow(), changelist.spec(DueFilter)
        for name, view in VIEWS.items():
            keep = due.used_parameters if view.may_hold(due.start, due.end, now) else {}
            yield {"display": view.title, "selected": name == self.name,
                   "says": view.span and "due from {} and before {}".format(*map(moment, view.span(now))),
                   "query_string": link(view=name, **keep, **kept(self.request, StatusFilter, DueFilter))}


class StatusFilter(CallFilter):
    title = "status"
    parameters = ["status"]

    def __init__(self, request, params, model, model_admin):
        super().__init__(request, params, model, model_admin)
        self.status = self.used_parameters.get("status", "")
        if self.status and self.status not in Status.values:
            messages.warning(request, f"There is no status “{printable(self.status, 40)}”; "
                                      f"there are {', '.join(Status.values)}.")

    def queryset(self, request, queryset):
        if self.status and self.status not in Status.values:
            return queryset.none()      # PostgreSQL is not asked for what no status can be: it takes no NUL
        return queryset.of([self.status]) if self.status else queryset

    def choices(self, changelist):
        """A view that has no such calls is left for one that has."""
        view, others = changelist.spec(ViewFilter).name, kept(self.request, StatusFilter)
        yield {"display": "All", "selected": not self.status, "query_string": link(view=view, **others)}
        for status in Status.values:
            among = view if status in VIEWS[view].statuses else "all"
            yield {"display": status, "selected": status == self.status,
                   "query_string": link(view=among, status=status, **others)}


class DueFilter(CallFilter):
    """From and before: a form, which the bars of the picture fill in too."""

    title = "due time"
    template = "admin/scheduler/scheduledcall/due.html"
    parameters = ["due_from", "due_before"]

    def __init__(self, request, params, model, model_admin):
        super().__init__(request, params, model, model_admin)
        self.errors = []
        self.start, self.end = self._time("due_from", "From"), self._time("due_before", "Before")
        if self.start and self.end and self.start >= self.end:
            self.errors.append(f"Nothing is due from {moment(self.start)} and before {moment(self.end)}: "
                               "From must be the earlier.")
        if self.start and self.end:
            self.says = f"due from {moment(self.start)} and before {moment(self.end)}"
        elif self.start or self.end:
            self.says = f"due from {moment(self.start)}" if self.start else f"due before {moment(self.end)}"

    def _time(self, name, label):
        try:
            return chosen_time(self.request, name)
        except ValueError as error:
            self.errors.append(f"{label}: “{printable(self.used_parameters[name], 40)}” {error}.")

    def queryset(self, request, queryset):
        if self.errors:
            return queryset.none()      # and not all of them, as if nothing had been asked
        if self.start:
            queryset = queryset.filter(timestamp__gte=self.start)
        return queryset.filter(timestamp__lt=self.end) if self.end else queryset

    def choices(self, changelist):
        for name, label, at in (("due_from", "From", self.start), ("due_before", "Before", self.end)):
            yield {"name": name, "label": label, "value": f"{timezone.localtime(at):%Y-%m-%dT%H:%M:%S}" if at else ""}

    def zone(self):
        return timezone.get_default_timezone_name()


class TargetFilter(CallFilter):
    """One of the targets, in a form: there may be hundreds."""

    title = "target"
    template = "admin/scheduler/scheduledcall/target.html"
    parameters = ["target"]

    def __init__(self, request, params, model, model_admin):
        super().__init__(request, params, model, model_admin)
        asked = self.used_parameters.get("target", "")
        self.target = Target.objects.filter(id=asked).first() if is_id(asked) else None
        self.good = bool(self.target or not asked)
        self.targets = list(Target.objects.filter(deleted_at=None).order_by("name"))
        if self.target:
            self.says = f"for target {self.target}"
            if self.target not in self.targets:
                self.targets.append(self.target)
        if not self.good:
            messages.warning(request, f"There is no target of the number “{printable(asked, 40)}”.")

    def has_output(self):
        return bool(self.targets or self.used_parameters.get("target"))

    def queryset(self, request, queryset):
        if not self.good:
            return queryset.none()
        return queryset.for_targets([self.target.pk]) if self.target else queryset

    def choices(self, changelist):
        yield {"display": "All", "value": "", "selected": not self.target}
        for target in self.targets:
            yield {"display": target, "value": target.pk, "selected": target == self.target}


class TogetherFilter(CallFilter):
    """Calls that belong together: of one schedule, scheduled again from one call, or scheduled at once:
    `ids=101-200`, the first and the last. Others may have got ids between; those have another time of
    creation."""

    title = "scheduled together"
    template = "admin/scheduler/scheduledcall/nothing.html"
    parameters = ["ids", "again_of", "schedule"]

    def __init__(self, request, params, model, model_admin):
        super().__init__(request, params, model, model_admin)
        self.ids, self.again_of, self.schedule, self.good = None, None, None, True
        if ids := self.used_parameters.get("ids"):
            self.good = match = re.fullmatch("([0-9]{1,18})-([0-9]{1,18})", ids)
            if match:
                self.ids = int(match[1]), int(match[2])
                self.says = f"scheduled together: call {self.ids[0]}" + (
                    f" to {self.ids[1]}" if self.ids[1] > self.ids[0] else "")
        if again_of := self.used_parameters.get("again_of"):
            self.good = self.good and is_id(again_of)
            if self.good:
                self.again_of = int(again_of)
                self.says = f"scheduled again from call {self.again_of}"
        if schedule := self.used_parameters.get("schedule"):
            self.schedule = is_id(schedule) and Schedule.objects.filter(id=schedule).first()
            self.good = self.good and self.schedule
            self.says = f"planned by schedule {self.schedule}"
        if not self.good:
            messages.warning(
                request, "The address is wrong: it should hold ids=FIRST-LAST, again_of=ID or schedule=ID.")

    def queryset(self, request, queryset):
        if not self.good:
            return queryset.none()
        if self.again_of is not None:
            queryset = queryset.filter(again_of=self.again_of)
        if self.schedule:
            queryset = queryset.filter(schedule=self.schedule)
        if self.ids:
            first = ScheduledCall.objects.filter(id=self.ids[0]).order_by().values("created_at")
            queryset = queryset.filter(id__gte=self.ids[0], id__lte=self.ids[1], created_at=Subquery(first))
        return queryset

    def choices(self, changelist):
        return []


class SearchFilter(CallFilter):
    """What is typed above the list; the last filter, as it looks among what the others leave. (Django's own compares
    each word with each column of a million rows.)"""

    title = "words"
    template = "admin/scheduler/scheduledcall/nothing.html"
    parameters = [SEARCH_VAR]

    def queryset(self, request, queryset):
        text = request.GET.get(SEARCH_VAR, "").strip()
        if not text:
            return queryset
        found = search.Search(queryset, text, utcnow())
        self.says = found.says
        return queryset.plain().filter(pk__in=found.ids)

    def choices(self, changelist):
        return []


FILTERS = [ViewFilter, StatusFilter, TargetFilter, DueFilter, TogetherFilter, SearchFilter]


class SelectedRows:
    """For a ModelAdmin: which rows of its list are meant.

    A list is narrowed by its filters alone. Of what a POST selects, that which cannot be a row's id is left out, as the
    database would break on it; and the user is told how many rows are no longer there."""

    def lookup_allowed(self, lookup, value, request):
        """Not by a field that is no filter's: `body__startswith` would say letter by letter what a user may not see. Such an
        address makes as little sense as others: the list opens as it does by itself."""
        kinds = self.get_list_filter(request)
        if any(lookup in getattr(kind, "parameters", ()) for kind in kinds):
            return True             # which reads it itself
        hidden = {field.name for field in self.model._meta.get_fields()} - {kind for kind in kinds if isinstance(kind, str)}
        if lookup.partition("__")[0] in hidden or not super().lookup_allowed(lookup, value, request):
            raise IncorrectLookupParameters
        return True

    def response_action(self, request, queryset):
        ids = list(filter(is_id, request.POST.getlist(ACTION_CHECKBOX_NAME)))
        request.POST = request.POST.copy()
        request.POST.setlist(ACTION_CHECKBOX_NAME, ids)
        if request.POST.get("select_across", "0") == "0":
            if gone := len(set(map(int, ids))) - queryset.filter(pk__in=ids).count():
                self.message_user(request, f"{gone} of those selected are no longer there.", messages.WARNING)
        return super().response_action(request, queryset)


class CallList(ChangeList):
    """Django's list, which shows the order of the view in the heading, and reads no more than a page."""

    def spec(self, kind):
        """The filter of that class."""
        return next(spec for spec in self.filter_specs if isinstance(spec, kind))

    @cached_property
    def beside_search(self):
        """(name, value) of what the form of the search keeps: not the view, as it looks among all of them."""
        return kept(self.spec(SearchFilter).request, SearchFilter).items()

    @cached_property
    def said(self):
        """The filters that say what is chosen."""
        return [spec for spec in self.filter_specs if spec.says]

    def get_ordering(self, request, queryset):
        self.whole_order = []
        for name in super().get_ordering(request, queryset):        # what is chosen, then the order of the view
            known = {known.lstrip("-") for known in self.whole_order}
            if name.lstrip("-") in {"timestamp", "id"} - known and "id" not in known:
                self.whole_order.append(name)
        return self.whole_order

    def get_ordering_field_columns(self):
        """For the arrow in the heading; the ids among calls of the same time deserve none."""
        if ORDER_VAR in self.params:
            return super().get_ordering_field_columns()
        first = self.whole_order[0]
        columns = [self.get_ordering_field(name) for name in self.list_display]
        return {columns.index(first.lstrip("-")): "desc" if first[0] == "-" else "asc"}

    def get_results(self, request):
        super().get_results(request)
        if not self.multi_page or self.show_all:
            self.result_list = self.queryset[:self.list_max_show_all]       # a slice is quick, see calls/queryset.py


class CallPaginator(Paginator):
    """Counts up to COUNTED and says `more` if there are."""

    @cached_property
    def count(self):
        found = self.object_list.order_by()[:COUNTED + 1].count()
        self.more = found > COUNTED
        return min(found, COUNTED)
