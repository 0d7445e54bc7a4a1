"""The form of a call: its time, and for new calls many, pasted, a note, and what is called with what."""
import json
from datetime import timedelta
from functools import cache

from django import forms
from django.conf import settings
from django.contrib.admin.widgets import AdminSplitDateTime
from django.utils import timezone

from ..base.clock import utcnow
from ..base.moments import comes_twice, from_person, has_offset, moment, showable
from ..base.words import one_line, printable
from ..calls import ledger, targets
from ..models import NOTE_MAX, rules
from . import paste
from .forms import JsonField, LineField, OpenedForm

SHOWN = 10              # of what may be thousands: bad lines, links to calls that were scheduled again from one
PREVIEWED = 50          # of what was pasted
JUST_PASSED = timedelta(minutes=10)     # after which "now" is not meant any more: a form takes its time to be filled in


def checked(when, now):
    """The aware datetime, for a call that a person asks for. Raises ValueError saying why not."""
    if when < now:
        raise ValueError(f"is in the past (it is now {moment(now)}). Choose one to come")
    return showable(when)


def first_of(lines):
    """The first of the different lines, and how many more there are: a page of thousands helps nobody."""
    lines = list(dict.fromkeys(lines))
    return lines[:SHOWN] + ([f"And {len(lines) - SHOWN} more like these."] if len(lines) > SHOWN else [])


class DueField(forms.SplitDateTimeField):
    """The calendar's day and time, read as pasted ones are: Django's refuses an hour that the clocks show twice. A time
    without a day, as its link "Now" fills it in, is one of today, or of the day before if it has just passed; and of
    two that the clocks show, it is the second once the first has passed."""

    def clean(self, value):
        if isinstance(value, list) and len(value) == 2 and value[1] and not value[0]:
            now = utcnow()
            today, before = timezone.localtime(now), timezone.localtime(now - JUST_PASSED)
            value = [f"{before if self.fields[1].clean(value[1]) >= before.time() else today:%Y-%m-%d}", value[1]]
        return super().clean(value)

    def compress(self, data_list):
        if not (data_list and all(data_list)):
            return super().compress(data_list)
        try:
            when = from_person("{} {}".format(*data_list))
            if comes_twice(when) and when < utcnow() - JUST_PASSED:
                when = from_person("{} {}".format(*data_list), later=True)
            return when
        except ValueError as error:
            raise forms.ValidationError(f"This time {error}.")


class ScheduledCallForm(OpenedForm):
    """A call's time. For new calls also many, pasted, a note, and what is called with what."""

    times = forms.CharField(
        required=False, strip=False, label="Or several, pasted",
        widget=forms.Textarea(attrs={"rows": 8, "cols": 80, "spellcheck": "false"}))
    to_target = forms.ModelChoiceField(
        targets.there(), required=False, label="Target", empty_label="none: API_URL, with GET",
        help_text="What is called.")
    body = forms.CharField(
        required=False, strip=False, widget=forms.Textarea(attrs={"rows": 5, "cols": 40, "spellcheck": "false"}),
        help_text="Instead of the target's. {{call.id}}, {{call.due}}, {{call.note}}, {{call.attempt}} and {{data.KEY}} are "
                  "filled in when it is sent.")
    headers = JsonField(help_text='Beside the target\'s: {"X-Name": "value"}.')
    data = JsonField(help_text='What {{data.KEY}} stands for: {"order": 7}.')
    expires = DueField(
        required=False, widget=AdminSplitDateTime,
        help_text="When it is of no use any more: it is not started later than this, instead of GRACE after its time.")
    OF_NEW = ["times", "to_target", "body", "headers", "data", "expires"]

    class Meta:
        field_classes = {"note": LineField}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        zone, self.twice = timezone.get_default_timezone_name(), []
        self.rows, self.wrong = [], []      # of what was pasted: see _clean_rows; and a paste.Problem for each that is no good
        if due := self.fields.get("timestamp"):
            due.help_text = (f"In {zone}. When the API is to be called; never earlier, not by a millisecond. A time that has "
                             f"passed by less than {JUST_PASSED.seconds // 60} minutes means now.")
            due.required = "times" not in self.fields
        if times := self.fields.get("times"):
            times.help_text = (
                f"One on each line: 2026-08-01 14:30:00 (in {zone}), with an offset 2026-08-01T14:30:00Z, or as spreadsheets "
                "have it, 28.11.2026 14:00 or 11/28/2026 2:00 PM. A second column is the note; a line above the columns may "
                f"name them, of {paste.NAMED}. What was understood is shown before anything is made.")

    def clean_timestamp(self):
        if timestamp := self.cleaned_data["timestamp"]:
            try:
                if "timestamp" in self.changed_data and comes_twice(timestamp):
                    self.twice.append(timestamp)
                now = utcnow()
                return now if now - JUST_PASSED < timestamp < now else checked(timestamp, now)
            except ValueError as error:
                raise forms.ValidationError(f"This time {error}.")

    def clean_times(self):
        """The paste.Rows of which the time and the note are good. What is wrong with others is said by `clean`, all together."""
        now = utcnow()
        try:
            rows, problems = paste.read(self.cleaned_data["times"])
        except ValueError as error:
            raise forms.ValidationError(f"What was pasted {error}.")
        if (number := len(rows) + len(problems)) > settings.MAX_TIMESTAMPS:
            raise forms.ValidationError(f"{number} times are too many at once: at most {settings.MAX_TIMESTAMPS} are taken.")
        for row in rows:
            try:
                checked(row.at, now)
            except ValueError as error:
                problems.append(paste.Problem(row.line, row.written, f"was read as {moment(row.at)}, which {error}", str(error)))
            try:
                one_line(row.note, NOTE_MAX)
            except ValueError as error:
                problems.append(paste.Problem(row.line, row.note, f"as a note {error}", "note"))
        self.wrong = problems
        bad = {problem.line for problem in problems}
        self.twice += [row.at for row in rows if not has_offset(row.written) and comes_twice(row.at)]
        return [row for row in rows if row.line not in bad]

    def clean(self):
        cleaned = super().clean()
        if "times" in self.fields and not self.errors and not (cleaned["timestamp"] or cleaned["times"] or self.wrong):
            raise forms.ValidationError("When? Choose a time, or paste some.")
        if "to_target" in self.fields and not self.errors:
            self._clean_request(cleaned)
        if "times" in self.fields and not self.errors:
            self._clean_rows(cleaned)
        if self.wrong:
            self.add_error("times", paste.told(self.wrong))
        return cleaned

    def _clean_request(self, cleaned):
        """What is sent fits the targets, and the calls are of use when they are due."""
        given = tuple(cleaned[name] for name in ("to_target", "body", "headers", "data"))
        if cleaned["timestamp"] or any(not row.has_own for row in cleaned["times"]):
            for name, problem in self._problems_with(*given).items():
                self.add_error(name, problem)
        if cleaned["expires"] and any(time >= cleaned["expires"] for time in self.all_times()):
            self.add_error("expires", "This must be later than the time at which it is due.")

    @staticmethod
    def _problems_with(target, body, headers, data):
        """{"body", "headers" or "data": a sentence}"""
        if target:
            return target.problems_with(body or None, headers, data)
        return {name: "This is for a target; choose one." for name, value in (
            ("body", body), ("headers", headers), ("data", data)) if value}

    def _clean_rows(self, cleaned):
        """self.rows: [(paste.Row, its target or None, its body, its data), ...]"""
        given = cleaned.get
        may = "to_target" in self.fields
        names = {row.target for row in cleaned["times"] if row.target}
        known = {target.name: target for target in targets.there().filter(name__in=filter(str.isprintable, names))} if may else {}

        @cache      # of thousands of rows most say the same
        def what(name, body, text):
            """(target, body, data), or a clause that says what is wrong."""
            if not may and (name or body or text):
                return "is for a target, for which you need the permission scheduler.use_target, and a target"
            if name and name not in known:
                return f"names the target “{printable(name, 80)}”, which there is not"
            target, whole = known[name] if name else given("to_target"), given("data") or {}
            try:
                whole = whole | rules.data(rules.parsed(text)) if text else whole
            except rules.Twice as error:
                return f"has data that cannot be meant: {str(error)[:1].lower()}{str(error)[1:]}"
            except (ValueError, TypeError):
                return 'has data that is no JSON such as {"order": 7}'
            body = body or given("body") or None
            for place, problem in self._problems_with(target, body, given("headers") or {}, whole).items():
                return f"cannot be sent: {place}: {problem[:1].lower()}{problem[1:].rstrip('.')}"
            return target, body, whole

        self.rows = []
        for row in cleaned["times"]:
            found = what(row.target, row.body, row.data) if row.has_own else (given("to_target"), given("body") or None, given("data") or {})
            if isinstance(found, str):
                self.wrong.append(paste.Problem(row.line, row.written, found))
            else:
                self.rows.append((row, *found))

    def is_valid(self):
        """Whether it may be saved. What was pasted comes back, to be looked at before anything is made of it."""
        return super().is_valid() and not self.is_to_be_looked_at

    @property
    def is_to_be_looked_at(self):
        return bool(self.is_bound and not self.errors and self.cleaned_data.get("times")
                    and self.data.get("previewed") != self.mark)

    @property
    def mark(self):
        """What the page sends along that shows what was pasted."""
        return paste.mark(self.cleaned_data["times"] and self.data.get("times", ""))

    def preview(self):
        """What is to become of what was pasted, for the page; None if there is nothing to look at."""
        if not (self.is_bound and not self.errors and self.cleaned_data.get("times")):
            return None
        rows = [{
            "day": f"{timezone.localtime(row.at):%a}", "due": moment(row.at), "written": row.written,
            "note": row.note or self.cleaned_data["note"], "target": target or "API_URL", "body": printable(body or "", 200),
            "data": json.dumps(data, ensure_ascii=False) if data else "",
            "remark": "the clocks show this twice; the first is taken" if not has_offset(row.written) and comes_twice(row.at) else "",
        } for row, target, body, data in self.rows[:PREVIEWED]]
        times = self.all_times()
        return {"rows": rows, "number": len(times), "mark": self.mark, "more": max(len(self.rows) - PREVIEWED, 0),
                "first": moment(min(times)), "last": moment(max(times)), "beside": self.cleaned_data["timestamp"],
                "shown": {name for row in rows for name, value in row.items() if value and (name != "target" or value != "API_URL")}}

    def all_times(self):
        """The aware datetimes at which there is to be a call."""
        return [time for time in [self.cleaned_data["timestamp"]] if time] + [row.at for row in self.cleaned_data["times"]]

    def new_calls(self):
        """The ledger.NewCalls that are to be made."""
        given = self.cleaned_data.get

        def new(time, note, target, body, data):
            return ledger.NewCall(time, note or given("note"), target, body or None, given("headers") or {} if target else {},
                                  data or {}, given("expires"))
        first = [new(time, "", given("to_target"), given("body"), given("data")) for time in [given("timestamp")] if time]
        return first + [new(row.at, row.note, target, body, data) for row, target, body, data in self.rows]
