"""The admin of targets: what is called, and how. What is secret is only written here, and never shown."""
from functools import partial

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.text import capfirst

from ..base.clock import utcnow
from ..base.moments import moment
from ..base.secrets import meet
from ..calls import dispatch, ledger, targets
from ..models import Target, rules
from ..models.targets import HIDDEN
from . import outcomes, pauses
from .filters import NOTHING
from .forms import JsonField, OpenedForm, PauseForm
from .named import NamedAdmin

AGAIN = "Give it again: what is secret is not shown."
LABELS = {"kind": "", "username": "User name (basic)", "name": "Header (header)", "token_url": "Token URL (oauth2)",
          "client_id": "Client id (oauth2)", "scope": "Scope (oauth2)"}
KINDS = {"none": "None", "basic": "User name and password", "bearer": "Bearer token", "header": "A header of its own",
         "oauth2": "OAuth 2 client credentials"}
REQUEST = ("url", "headers", "body", "auth", "secret_headers", "auth_secret")     # seen with `see_request` alone
SECRET = ("secret_headers", "auth_secret", "signing_key", "keys", "notify", "notify_no_more")


def lines(text):
    """[(name, value), ...] of lines such as "X-Name: value". Raises ValidationError for one without a colon."""
    found = []
    for line in (line.strip() for line in text.splitlines()):
        if line:
            name, colon, value = line.partition(":")
            if not colon:
                raise forms.ValidationError("Each line must be a name, a colon and a value: X-Name: value")
            found.append((name.strip(), value.strip()))
    return found


def once(pairs):
    """{name: value} of (name, value), ... Raises ValidationError."""
    if len(dict(pairs)) < len(pairs):
        raise forms.ValidationError("A name stands twice.")
    return dict(pairs)


class HeadersField(forms.CharField):
    """Headers as lines; the model keeps them as {name: value}."""

    widget = forms.Textarea({"rows": 3, "cols": 80})

    def prepare_value(self, value):
        return "\n".join(f"{name}: {content}" for name, content in value.items()) if isinstance(value, dict) else value

    def clean(self, value):
        return once(lines(super().clean(value)))

    def has_changed(self, initial, data):
        return super().has_changed(self.prepare_value(initial or {}), (data or "").replace("\r\n", "\n").strip())


class SecretHeaders(forms.Textarea):
    """Shows the names alone; of what was sent, and must be sent again, without ***."""

    def format_value(self, value):
        kept = [line.partition(":") for line in (value or "").splitlines() if line.strip()]
        return "\n".join(f"{name.strip()}:{f' {HIDDEN}' if content.strip() == HIDDEN else ''}" for name, _, content in kept)


class AuthWidget(forms.MultiWidget):
    template_name = "admin/scheduler/target/auth.html"

    def __init__(self):
        super().__init__({name: forms.TextInput({"size": 60, "aria-label": label, "placeholder": label, "autocomplete": "off"})
                          if label else forms.Select(choices=KINDS.items()) for name, label in LABELS.items()})

    def decompress(self, value):
        return [(value or {}).get(name, "none" if name == "kind" else "") for name in LABELS]


class AuthField(forms.MultiValueField):
    """What of the auth is not secret; the model keeps it as an object."""

    widget = AuthWidget

    def __init__(self, **kwargs):
        super().__init__([forms.CharField(required=False) for _ in LABELS], require_all_fields=False, required=False, **kwargs)

    def compress(self, data):
        """Of what other kinds would need, nothing is kept."""
        values = dict(zip(LABELS, data or []))
        kind = values.get("kind") or "none"
        return {"kind": kind, **{name: values[name] for name in Target.AUTH.get(kind, ((),))[0]}}


class DelaysField(forms.CharField):
    """Numbers between commas; the model keeps them as a list."""

    def prepare_value(self, value):
        return ", ".join(f"{delay:g}" for delay in value) if isinstance(value, list) else value

    def clean(self, value):
        try:
            return [rules.number(float(piece), 1, 604_800, whole=False) for piece in super().clean(value).split(",") if piece.strip()]
        except ValueError:
            raise forms.ValidationError("Must be numbers of seconds from 1 to 604800, such as 10, 60, 600.") from None

    def has_changed(self, initial, data):
        return super().has_changed(self.prepare_value(initial or []), data)


class TargetForm(OpenedForm):
    headers = HeadersField(required=False, help_text="Lines such as X-Name: value; a body needs "
                                                  "one, such as Content-Type: application/json. Placeholders are filled in.")
    secret_headers = forms.CharField(
        required=False, show_hidden_initial=True, widget=SecretHeaders({"rows": 3, "cols": 80, "autocomplete": "off"}),
        help_text=f"Lines such as X-Api-Key: value. {HIDDEN} leaves one as it is; one that is taken out is forgotten.")
    auth = AuthField()
    auth_secret = forms.CharField(
        required=False, strip=False, label="Password, token, value or client secret",
        widget=forms.PasswordInput({"size": 60, "autocomplete": "new-password"}))
    signing_key = forms.CharField(required=False, widget=forms.PasswordInput({"size": 80, "autocomplete": "new-password"}))
    keys = forms.ChoiceField(
        required=False, label="Keys there are",
        choices=[("", "stay"), ("previous", "take the previous one away"), ("all", "sign no more")])
    delays = DelaysField(required=False, label="Retries after", help_text="Seconds from the end of an attempt to the next, "
                                                                        "each ±20 %: 10, 60, 600. Empty: no retries.")

    notify = forms.CharField(
        required=False, label="Whom to tell", widget=forms.PasswordInput({"size": 80, "autocomplete": "new-password"}))
    notify_no_more = forms.BooleanField(required=False, label="Tell those of NOTIFY and FAILURES_TO again")

    class Meta:
        widgets = {"name": forms.TextInput({"size": 40}), "url": forms.TextInput({"size": 100}),
                   "body": forms.Textarea({"rows": 6, "cols": 100}), "rate": forms.TextInput({"size": 12}),
                   "contains": forms.TextInput({"size": 60}), "not_contains": forms.TextInput({"size": 60})}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        names = {"headers": {}, "auth": {}, "signing": [], **self.instance.secret_names}
        kept = "Empty leaves what is there: {}, changed {}."
        if "secret_headers" in self.fields:
            self.initial["secret_headers"] = "\n".join(f"{name}: {HIDDEN}" for name in names["headers"])
        if "auth_secret" in self.fields:
            self.fields["auth_secret"].help_text = " ".join(
                kept.format(f"{name} {HIDDEN}", changed) for name, changed in names["auth"].items()) or "None yet."
        if "signing_key" in self.fields:
            said = [kept.format(HIDDEN, names["signing"][0])] if names["signing"] else ["None yet."]
            said += [f"The previous one, of {names['signing'][1]}, signs too."] if len(names["signing"]) > 1 else []
            self.fields["signing_key"].help_text = " ".join(["As in Standard Webhooks, whsec_ and base64.", *said])

        if "notify" in self.fields:
            self.fields["notify"].help_text = (
                "Addresses of Apprise, separated by spaces or commas: they are told when its calls fail, in place of those of NOTIFY and "
                "FAILURES_TO. " + (kept.format(HIDDEN, names["notify"]) if "notify" in names else "None yet."))

    def clean_name(self):
        name = self.cleaned_data["name"]
        if targets.there().filter(name=name).exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError("There is a target of this name already.")
        return name

    def clean_secret_headers(self):
        """{name: value}, None for one that was taken out since the page was opened."""
        text = self.cleaned_data["secret_headers"]
        before = dict(lines(self.data.get(self.add_initial_prefix("secret_headers"), "")))
        found = once(lines(text))
        if empty := [name for name, value in found.items() if not value]:
            raise forms.ValidationError(f"{empty[0]} needs its value: what is secret is not shown.")
        names = {name.lower() for name in found}
        return {**{name: None for name in before if name.lower() not in names}, **found}

    def clean(self):
        """Tells the model what is to change of the secrets."""
        cleaned = super().clean()
        changes = self.instance.changes = {}
        if cleaned.get("secret_headers"):
            changes["headers"] = cleaned["secret_headers"]
        if cleaned.get("auth_secret") and (secret := Target.AUTH.get(cleaned.get("auth", {}).get("kind"), ((), ()))[1]):
            changes["auth"] = {secret[0]: cleaned["auth_secret"]}
        if cleaned.get("signing_key"):
            changes["signing_key"] = cleaned["signing_key"].strip()
        elif cleaned.get("keys") == "all":
            changes["signing_key"] = None
        if cleaned.get("notify") or cleaned.get("notify_no_more"):
            changes["notify"] = cleaned.get("notify") or None
        if cleaned.get("keys") == "previous":
            changes["previous_signing_key"] = None
        return cleaned

    def full_clean(self):
        """What is secret does not come back with a page of errors, so it says that it is to be given again."""
        super().full_clean()
        if self.is_bound and self.errors:
            for name in ("auth_secret", "signing_key"):
                if name in self.fields and self.data.get(self.add_prefix(name)) and AGAIN not in self.errors.get(name, ()):
                    self.add_error(name, AGAIN)


class TestForm(forms.Form):
    """What is sent with the call that tries a target."""

    data = JsonField(help_text='What {{data.KEY}} stands for: {"order": 7}.')

    def __init__(self, *args, target, **kwargs):
        super().__init__(*args, **kwargs)
        self.target = target

    def clean(self):
        problems = self.target.problems_with(data=self.cleaned_data.get("data") or {}) if not self.errors else {}
        for name, words in problems.items():
            self.add_error("data" if name == "data" else None, words)


@admin.register(Target)
class TargetAdmin(NamedAdmin):
    form = TargetForm
    list_display = ["name", "method", "state", "last_calls", "took", "limits", "retried"]
    actions = None
    kept = ["went", "version", "created"]
    fieldsets = [
        (None, {"fields": ["name", "method", "url", "headers", "body"]}),
        ("Who it proves to be", {"fields": ["auth", "auth_secret", "secret_headers", "signing_key", "keys"]}),
        ("How long it may take", {"fields": ["connect_timeout", "timeout"]}),
        ("What is a success", {"fields": ["statuses", "contains", "not_contains", "follow_redirects"]}),
        ("What happens when it fails", {"fields": ["delays", "max_age", "repeatable"]}),
        ("Who is told of failures", {"fields": ["notify", "notify_no_more", "notify_after"]}),
        ("How much at once", {"fields": ["max_at_once", "rate"]}),
        ("What is kept", {"fields": ["keep_failures", "keep_successes", "keep_days"]}),
    ]

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(**outcomes.of_targets())

    @admin.display(description="state")
    def state(self, target):
        if not target.is_paused(utcnow()):
            return "ready"
        until = f", until {moment(target.paused_until)}" if target.paused_until else ""
        return f"{target.pause} (since {moment(target.paused_at)}{until})"

    @admin.display(description="limits")
    def limits(self, target):
        return ", ".join([*([f"{target.max_at_once} at once"] if target.max_at_once else []),
                          *([target.rate] if target.rate else [])]) or NOTHING

    @admin.display(description="retries")
    def retried(self, target):
        return ", ".join(f"{delay:g} s" for delay in target.delays) or NOTHING

    def get_fieldsets(self, request, obj=None):
        """Without what this user may not see, and what would take away a secret that there is not."""
        names = obj.secret_names if obj else {}
        left_out = {field for field, name in (("keys", "signing"), ("notify_no_more", "notify")) if not names.get(name)}
        left_out |= set(REQUEST) if obj and not request.user.has_perm("scheduler.see_request") else set()
        if obj and not self.has_change_permission(request, obj):
            left_out |= set(SECRET)
        shown = [(title, {"fields": [name for name in part["fields"] if name not in left_out]}) for title, part in self.fieldsets]
        return [part for part in shown if part[1]["fields"]] + ([("About it", {"fields": self.kept})] if obj else [])

    def get_readonly_fields(self, request, obj=None):
        return self.kept if obj else []

    def get_form(self, request, obj=None, change=False, **kwargs):
        """Declared fields are in each form, also those that this page does not show."""
        form = super().get_form(request, obj, change=change, **kwargs)
        shown = {name for _, part in self.get_fieldsets(request, obj) for name in part["fields"]}
        for name in [name for name in form.base_fields if name not in shown]:
            del form.base_fields[name]
        return form

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        if request.method == "POST":
            meet([request.POST.get(name, "") for name in ("auth_secret", "signing_key", "notify")]
                 + [line.partition(":")[2].strip() for line in request.POST.get("secret_headers", "").splitlines()])
        return super().changeform_view(request, object_id, form_url, extra_context)

    def render_change_form(self, request, context, obj=None, **how):
        context |= {"is_paused": bool(obj) and obj.is_paused(utcnow()), "may_use": request.user.has_perm("scheduler.use_target")}
        if context["is_paused"]:
            context["paused"] = pauses.of_target(obj, obj.leads_to_calls, reverse(
                "admin:scheduler_target_resume", args=[obj.pk]) if self.has_change_permission(request, obj) else "")
        return super().render_change_form(request, context, obj=obj, **how)

    def save_model(self, request, obj, form, change):
        targets.save(obj, request.user.get_username())

    def delete_model(self, request, obj):
        targets.delete(obj.pk)

    def delete_view(self, request, object_id, extra_context=None):
        try:
            return super().delete_view(request, object_id, extra_context)
        except targets.InUse as error:
            self.message_user(request, f"It was not deleted: {error}.", messages.ERROR)
        return HttpResponseRedirect(request.path)

    def get_deleted_objects(self, objs, request):
        """What deleting does here: no call goes with it, and what is in use is not deleted."""
        used = targets.used([target.pk for target in objs])
        protected = [f"{target}: {targets.InUse(used[target.pk])}" for target in objs if any(used[target.pk].values())]
        allowed = self.has_delete_permission(request)
        return ([f"{target}: its secrets are forgotten; all its calls are kept" for target in objs], {"targets": len(objs)},
                set() if allowed else {"target"}, protected)

    # Pages of its own

    def get_urls(self):
        def page(act, may, name):
            return path(f"<int:target_id>/{name}/", self.admin_site.admin_view(partial(self.act_on_one, act=act, may=may)),
                        name=f"scheduler_target_{name}")
        return [page(self.pause, "change_target", "pause"), page(self.resume, "change_target", "resume"),
                page(self.test, "use_target", "test"), *super().get_urls()]

    def act_on_one(self, request, target_id, act, may):
        if not (self.has_view_permission(request) and request.user.has_perm(f"scheduler.{may}")):
            raise PermissionDenied
        target = self.get_queryset(request).filter(pk=target_id).first()
        if target is None:
            raise Http404(f"There is no target {target_id}.")
        try:
            return self.in_one(request, lambda: act(request, target))
        except Target.DoesNotExist:
            raise Http404(f"There is no target {target_id} any more.") from None

    def pause(self, request, target):
        form = PauseForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            return self.ask(request, target, f"Pause {target.name}?", "Yes, pause it",
                            "What falls due meanwhile is Missed, and is not made up for when it is resumed. "
                            + pauses.of_target_to_come(target), form)
        targets.pause(target, request.user.get_username(), form.cleaned_data["reason"], form.cleaned_data["until"])
        self.log_change(request, target, f"{capfirst(target.pause)}.")
        self.message_user(request, f"Target {target.name} is paused.", messages.SUCCESS)
        return self.back_to(target)

    def resume(self, request, target):
        if request.method != "POST":
            return self.ask(request, target, f"Resume {target.name}?", "Yes, resume it", f"It is {self.state(target)}.")
        targets.resume(target)
        self.log_change(request, target, "Resumed.")
        self.message_user(request, f"Target {target.name} is resumed.", messages.SUCCESS)
        return self.back_to(target)

    def test(self, request, target):
        """Makes one call now; its page shows what came of it."""
        form = TestForm(request.POST if request.method == "POST" else None, target=target)
        if target.is_paused(utcnow()):
            self.message_user(request, f"Target {target.name} is {target.pause}: resume it first.", messages.ERROR)
            return self.back_to(target)
        if not form.is_valid():
            return self.ask(request, target, f"Test {target.name}?", "Yes, call it now",
                            "One call is made now, for real, and not tried again. It is among the calls like any other.", form)
        with transaction.atomic():
            call = ledger.try_target(target, request.user.get_username(), data=form.cleaned_data["data"])
            dispatch.created([call])
        self.message_user(request, f"Target {target.name} is being called: call {call.pk}.", messages.SUCCESS)
        if not self.sees_calls(request):
            return self.back_to(target)
        return HttpResponseRedirect(reverse("admin:scheduler_scheduledcall_change", args=[call.pk]))
