"""The form of a call: its time, and for new calls many, pasted, a note, and what is called with what."""
from django import forms
from django.conf import settings
from django.contrib.admin.widgets import AdminSplitDateTime
from django.utils import timezone

from ..base.clock import utcnow
from ..base.moments import comes_twice, from_person, many_from_person, moment, showable
from ..base.words import one_line, printable
from ..calls import ledger, targets
from .forms import JsonField, OpenedForm

SHOWN = 10              # of what may be thousands: bad lines, links to calls that were scheduled again from one


def checked(when):
    """The aware datetime, for a call that a person asks for. Raises ValueError saying why not."""
    if when < utcnow():
        raise ValueError(f"is in the past (it is now {moment(utcnow())}). Choose one to come")
    return showable(when)


def first_of(lines):
    """The first of the different lines, and how many more there are: a page of thousands helps nobody."""
    lines = list(dict.fromkeys(lines))
    return lines[:SHOWN] + ([f"And {len(lines) - SHOWN} more like these."] if len(lines) > SHOWN else [])


class DueField(forms.SplitDateTimeField):
    """The calendar's day and time, read as pasted ones are: Django's refuses an hour that the clocks show twice."""

    def compress(self, data_list):
        if not (data_list and all(data_list)):
            return super().compress(data_list)
        try:
            return from_person("{} {}".format(*data_list))
        except ValueError as error:
            raise forms.ValidationError(f"This time {error}.")


class ScheduledCallForm(OpenedForm):
    """A call's time. For new calls also many, pasted, a note, and what is called with what."""

    times = forms.CharField(
        required=False, strip=False, widget=forms.Textarea(attrs={"rows": 5, "cols": 40, "spellcheck": "false"}),
        label="Or several, pasted")
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

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        zone, self.twice = timezone.get_default_timezone_name(), []
        if due := self.fields.get("timestamp"):
            due.help_text = f"In {zone}. When the API is to be called; never earlier, not by a millisecond."
            due.required = "times" not in self.fields
        if times := self.fields.get("times"):
            times.help_text = (f"One on each line, or with commas between: 2026-08-01 14:30:00 (in {zone}), or with "
                               "an offset: 2026-08-01T14:30:00Z, 2026-08-01T14:30:00+02:00.")

    def clean_timestamp(self):
        if timestamp := self.cleaned_data["timestamp"]:
            try:
                if "timestamp" in self.changed_data and comes_twice(timestamp):
                    self.twice.append(timestamp)
                return checked(timestamp)
            except ValueError as error:
                raise forms.ValidationError(f"This time {error}.")

    def clean_times(self):
        """The aware datetimes. All are looked at, and the first bad ones are named."""
        good, bad = [], []
        pieces = many_from_person(self.cleaned_data["times"])
        if len(pieces) > settings.MAX_TIMESTAMPS:
            raise forms.ValidationError(
                f"{len(pieces)} times are too many at once: at most {settings.MAX_TIMESTAMPS} are taken.")
        for piece, when in pieces:
            try:
                if isinstance(when, ValueError):
                    raise when
                good.append(checked(when))
                if comes_twice(when) and not piece.endswith("Z") and "+" not in piece and piece.count("-") == 2:
                    self.twice.append(when)
            except ValueError as error:
                bad.append(f"“{printable(piece, 80)}” {error}.")
        if bad:
            raise forms.ValidationError(first_of(bad))
        return good

    def clean_note(self):
        try:
            return one_line(self.cleaned_data["note"])      # its length is the field's to say
        except ValueError as error:
            raise forms.ValidationError(f"This note {error}.")

    def clean(self):
        cleaned = super().clean()
        if "times" in self.fields and not self.errors and not (cleaned["timestamp"] or cleaned["times"]):
            raise forms.ValidationError("When? Choose a time, or paste some.")
        if "to_target" in self.fields and not self.errors:
            self._clean_request(cleaned)
        return cleaned

    def _clean_request(self, cleaned):
        """What is sent fits the target, and the calls are of use when they are due."""
        if target := cleaned["to_target"]:
            for name, problem in target.problems_with(cleaned["body"] or None, cleaned["headers"], cleaned["data"]).items():
                self.add_error(name, problem)
        else:
            for name in ("body", "headers", "data"):
                if cleaned[name]:
                    self.add_error(name, "This is for a target; choose one.")
        if cleaned["expires"] and any(time >= cleaned["expires"] for time in self.all_times()):
            self.add_error("expires", "This must be later than the time at which it is due.")

    def all_times(self):
        """The aware datetimes at which there is to be a call."""
        return [time for time in [self.cleaned_data["timestamp"]] if time] + self.cleaned_data["times"]

    def new_call(self, time):
        """The ledger.NewCall that is to be made at this aware datetime."""
        given = self.cleaned_data.get
        return ledger.NewCall(time, given("note"), given("to_target"), given("body") or None, given("headers") or {},
                              given("data") or {}, given("expires"))
