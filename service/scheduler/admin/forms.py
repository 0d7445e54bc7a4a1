"""What the forms of the admin share: what is sent twice is done once, and what others changed meanwhile is shown
before anything is written over it.

Each page has a key, a hidden field of its forms, and what a form asks for uses it up: a double click, a reload or
the Back button sends the same form with the same key, and lands on what came of it the first time. The key is
kept as an Idempotency-Key of the API is, with what was sent: a form to which somebody went back, and in which he
changed something, is a new one. One with errors, or that only asks, uses nothing up.

The form of what is there already also carries, signed, what it was opened with.
"""
import hashlib
import json
import secrets
from datetime import datetime
from functools import partial

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.messages.storage.cookie import MessageDecoder, MessageEncoder
from django.core import signing
from django.db import transaction
from django.forms.fields import InvalidJSONInput
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from ..base.clock import utcnow
from ..base.moments import from_person, moment, showable
from ..base.words import in_line, one_line
from ..models import IdempotentAnswer, rules
from ..models.targets import Pausable

KEY, OPENED_WITH = "form_key", "opened_with"        # names of hidden fields


def key(request):
    """The context processor that gives each page its key."""
    return {KEY: secrets.token_urlsafe(16)}


def once(request, act):
    """What act(), which does what the form of a POST asks for, responds; or, if that was done already, a way to
    where it led then, with its messages.

    act: callable without parameters. A redirect says that it is done, anything else that it is not.

    Within a transaction the key is used up if, and only if, what is asked for is done: the second of two at the
    same time waits for the first in its INSERT. Outside of one, where thousands of rows are changed in many
    transactions, it is used up before: what is broken off is not begun a second time by the same page.
    """
    if not request.POST.get(KEY):       # a page of the version before
        return act()
    sent = sorted((name, values) for name, values in request.POST.lists() if name != "csrfmiddlewaretoken")
    digest = hashlib.sha256(json.dumps(sent).encode()).hexdigest()
    record, first = IdempotentAnswer.objects.get_or_create(
        scope=f"forms of user {request.user.pk}", key=digest, defaults={"fingerprint": digest})
    if not first:
        return _again(request, record)
    response = act()
    if isinstance(response, HttpResponseRedirect):
        said = messages.get_messages(request)
        record.answer = json.dumps({"url": response.url, "said": list(said)}, cls=MessageEncoder)
        said.used = False       # they are still to be shown
        record.save(update_fields=["answer"])
    else:
        record.delete()
    return response


def _again(request, record):
    if not record.answer:
        messages.warning(request, "This form was sent before, and that is under way, or was broken off. Look at what came "
                                  "of it before you choose anew.")
        return HttpResponseRedirect(request.get_full_path())
    done = json.loads(record.answer, cls=MessageDecoder)
    for message in done["said"]:
        messages.add_message(request, message.level, message.message, message.extra_tags)
    messages.warning(request, "This form was sent twice and is done once. To have it done again, open its page anew.")
    return HttpResponseRedirect(done["url"])


class OnceAdmin:
    """For a ModelAdmin: each of its forms is done `once`, and what its pages lead to is asked for first."""

    def changeform_view(self, request, *args, **kwargs):
        return self.in_one(request, partial(super().changeform_view, request, *args, **kwargs))

    def delete_view(self, request, *args, **kwargs):
        return self.in_one(request, partial(super().delete_view, request, *args, **kwargs))

    def response_action(self, request, queryset):
        act = partial(super().response_action, request, queryset)
        if request.POST.get("action") == "delete_selected" and "post" not in request.POST:
            return act()        # Django's page that asks whether it is meant
        return once(request, act)

    def ask(self, request, row, title, yes, text, form=None):
        """The page that asks whether what was chosen on a row's page is meant, and for more where there is a form.

        yes: what its button says; text: what is to be known of the row
        """
        return TemplateResponse(request, "admin/scheduler/ask.html", {
            **self.admin_site.each_context(request), "title": title, "yes": yes, "text": text, "form": form,
            "original": row, "opts": self.opts})

    def back_to(self, row):
        """A redirect to the row's page."""
        return HttpResponseRedirect(reverse(admin_urlname(self.opts, "change"), args=[row.pk]))

    def in_one(self, request, act):
        """What act() responds; if it may change something, in one transaction and `once`."""
        if request.method != "POST":
            return act()
        with transaction.atomic():
            return once(request, act)

    def get_object(self, request, object_id, from_field=None):
        """Of what is about to be changed, as it stands once all others who change it have committed."""
        found = super().get_object(request, object_id, from_field)
        if found and request.method == "POST" and transaction.get_connection().in_atomic_block:
            try:
                found.refresh_from_db(from_queryset=self.model.objects.select_for_update())
            except self.model.DoesNotExist:
                return None
        return found


class JsonField(forms.JSONField):
    """An object, {} if nothing is given."""

    default_error_messages = {"invalid": "This is no JSON, such as {\"name\": \"value\"}."}

    def __init__(self, **how):
        super().__init__(**{"required": False, "initial": dict, "widget": forms.Textarea({"rows": 3, "cols": 40, "spellcheck": "false"}), **how})
        self.decoder = rules.Decoder

    def to_python(self, value):
        """Django's own breaks on a number of thousands of digits, and on what is nested too deeply."""
        try:
            return rules.shallow(super().to_python(value))
        except rules.Twice as error:
            raise forms.ValidationError(str(error)) from None
        except (ValueError, RecursionError):
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None

    def bound_data(self, data, initial):
        try:
            return super().bound_data(data, initial)
        except (ValueError, RecursionError):
            return InvalidJSONInput(data)

    def clean(self, value):
        return super().clean(value) or {}


class LineField(forms.CharField):
    """A text that stands in one line, see `one_line`."""

    def clean(self, value):
        try:
            return one_line(super().clean(value))
        except ValueError as error:
            raise forms.ValidationError(f"This {error}.")


class TakenOver(forms.BoundField):
    """A field that shows what somebody else has put there meanwhile, in place of what was sent."""

    def value(self):
        return self.field.prepare_value(self.initial) if self.name in self.form.theirs else super().value()


class OpenedForm(forms.ModelForm):
    """The form of a row, which carries what it was opened with. When the row is another by now, nothing is saved:
    the fields that this person left alone show what is there now, the others what he wrote, and beside each that
    somebody changed stands from what to what. Saved once more, it stands as the form says.

    opened_with: what its hidden field is to hold, "" for a new row
    theirs: the names of the fields that show what somebody else wrote
    """

    bound_field_class = TakenOver

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.theirs = set()
        # {name: text, see _text}, before what was sent is written into the instance.
        meta = self.instance._meta
        self.stands = {field.name: self._text(field) for field in [*meta.concrete_fields, *meta.many_to_many]
                       if self.instance.pk and field.name in self.fields and not self.fields[field.name].disabled}
        self.opened_with = self.data.get(OPENED_WITH) or self._signed()

    def _text(self, field):
        """The value of a field of the model as text: of what it names many of, the ids."""
        if field.many_to_many:
            return ",".join(sorted(str(other.pk) for other in field.value_from_object(self.instance)))
        return "" if field.value_from_object(self.instance) is None else field.value_to_string(self.instance)

    def _value(self, name, text):
        """The value of which `_text` made the text, as the form's field takes it."""
        field = self.instance._meta.get_field(name)
        if field.many_to_many:
            return list(field.related_model.objects.filter(pk__in=text.split(","))) if text else []
        value = field.to_python(text or None)
        if isinstance(value, datetime) and not self.fields[name].widget.supports_microseconds:
            return value.replace(microsecond=0)
        return value

    def _signed(self):
        return signing.dumps(self.stands, salt=OPENED_WITH, compress=True) if self.stands else ""

    def clean(self):
        cleaned = super().clean()
        try:
            opened = signing.loads(self.opened_with, salt=OPENED_WITH) if self.stands else {}
        except signing.BadSignature:        # of another SECRET_KEY, or made up: nothing of it can be believed
            opened = {}
        overtaken = [name for name in self.stands if opened.get(name, self.stands[name]) != self.stands[name]
                     and self._overtaken(name, self._value(name, opened[name]), self._value(name, self.stands[name]))]
        if overtaken:
            self.opened_with = self._signed()
            self.add_error(None, "Nothing was saved: somebody else changed this while the page was open. What that was is "
                                 "said below; save once more to have it as it stands here.")
        return cleaned

    def add_error(self, field, error):
        """What the model finds wrong with a field that this page does not have is said above the others."""
        if field is None and hasattr(error, "error_dict"):
            for name, errors in error.error_dict.items():
                super().add_error(name if name in self.fields else None, errors)
        else:
            super().add_error(field, error)

    def _overtaken(self, name, old, new):
        """Whether the field, which somebody changed from `old` to `new`, is not now what was sent; then it says so."""
        field, sent = self.fields[name], self[name].data
        if not field.has_changed(new, sent):
            return False
        if field.has_changed(old, sent):
            stands = "here stands what you wrote"
        else:
            stands = "here stands what is there now"
            self.theirs.add(name)
            self.errors.pop(name, None)     # of what was sent
        self.add_error(name, f"Somebody changed this from {in_words(old)} to {in_words(new)}; {stands}.")
        return True


def in_words(value):
    """The value of a field, as it stands in a sentence."""
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(in_words, value)) or "nothing"
    return f"“{in_line(str(value))}”" if value not in (None, "") else "nothing"


class PauseForm(forms.Form):
    """How long a target or a schedule is paused, and why.

    zone: the tzinfo that `until` is in where it does not say another; None for that of TIME_ZONE
    """

    until = forms.CharField(
        required=False, widget=forms.DateTimeInput({"type": "datetime-local", "step": 1}),
        help_text="When the pause, which begins at once, ends by itself; empty: when somebody resumes it.")
    reason = LineField(required=False, max_length=Pausable.REASON_MAX, widget=forms.TextInput({"size": 60}))

    def __init__(self, *args, zone=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.zone = zone
        self.fields["until"].label = f"Until (in {zone or settings.TIME_ZONE})"

    def clean_until(self):
        if not (text := self.cleaned_data["until"]):
            return None
        try:
            until = showable(from_person(text, zone=self.zone))
            if until <= utcnow():
                raise ValueError(f"has passed (it is now {moment(utcnow(), self.zone)})")
            return until
        except ValueError as error:
            raise forms.ValidationError(f"This time {error}.")
