"""The HTTP API of targets: make, list, look at, change, pause, try and delete them."""
import threading
import time

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, status, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.response import Response

from ..base.clock import utcnow
from ..base.database import anew
from ..base.secrets import meet
from ..base.words import printable
from ..calls import ledger, targets
from ..calls.attempts import attempts_of
from ..calls.dispatch import created
from ..calls.request import timeout
from ..models import ScheduledCall, Target, rules
from ..models.targets import HIDDEN, NAME
from . import pause
from .access import MayDelete, MayUse, has, need
from .attempts import AttemptSerializer
from .body import body, of_keys
from .common import PAGE_SIZE, THROTTLED, USUAL, Pages, ProblemSerializer, UtcField, check_parameters
from .errors import Conflict, Refusal
from .idempotency import IDEMPOTENT, fingerprint, once

WAIT_MAX = 50           # seconds that a test waits for its attempt; proxies give up after 60
POLL = 0.05             # seconds between two looks at it
WAITING = threading.BoundedSemaphore(8)     # tests that wait in one process: they leave threads to what else is asked for

# How the keys of the API that hold several lie in the model.
GROUPS = {"success": {"statuses": "statuses", "contains": "contains", "not_contains": "not_contains"},
          "retries": {"delays": "delays", "max_age": "max_age"},
          "keep": {"failures": "keep_failures", "successes": "keep_successes", "days": "keep_days"}}
KEYS = {field: f"{group}.{name}" for group, names in GROUPS.items() for name, field in names.items()}
FLAGS = ("follow_redirects", "repeatable")
REQUEST = ("url", "headers", "secret_headers", "body", "auth")      # seen with the permission `see_request` alone

# For the document.
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
SECRET = {"type": "object", "required": ["value", "changed"], "properties": {
    "value": {"type": "string", "enum": [HIDDEN]}, "changed": {"type": "string", "format": "date-time"}}}


def _limits(name, **more):
    least, most, whole = Target.LIMITS[name]
    return {"type": "integer" if whole else "number", "minimum": least, "maximum": most, **more}


def _auths(secret):
    """The schemas of `auth`, one for each kind. secret: that of what is secret"""
    return [{"type": "object", "additionalProperties": False, "properties": {
        "kind": {"type": "string", "enum": [kind]}, **{name: {"type": "string"} for name in public},
        **{name: secret for name in hidden}}, "required": ["kind"]} for kind, (public, hidden) in Target.AUTH.items()]


@extend_schema_field(TEXTS)
class HeadersField(serializers.JSONField):
    pass


@extend_schema_field({"type": "object", "additionalProperties": {"type": "string", "nullable": True}})
class SecretHeadersField(serializers.JSONField):
    pass


@extend_schema_field({"type": "object", "additionalProperties": SECRET, "nullable": True})
class HiddenHeadersField(serializers.JSONField):
    pass


@extend_schema_field({"oneOf": _auths({"type": "string"})})
class AuthField(serializers.JSONField):
    pass


@extend_schema_field({"oneOf": _auths(SECRET), "nullable": True})
class HiddenAuthField(serializers.JSONField):
    pass


@extend_schema_field({"allOf": [SECRET], "nullable": True})
class HiddenField(serializers.JSONField):
    pass


@extend_schema_field({"description": "Text, or anything else to be sent as JSON."})
class BodyField(serializers.JSONField):
    pass


@extend_schema_field({"type": "object", "additionalProperties": False, "properties": {
    "statuses": {"type": "string", "description": "200-299, 404; 100-399 if it is left out."},
    "contains": {"type": "string", "maxLength": 500}, "not_contains": {"type": "string", "maxLength": 500}}})
class SuccessField(serializers.JSONField):
    pass


@extend_schema_field({"type": "object", "additionalProperties": False, "properties": {
    "delays": {"type": "array", "maxItems": 20, "items": {"type": "number", "minimum": 1, "maximum": 604800},
               "description": "Seconds from the end of an attempt to the next, each ±20 %; none: no retries."},
    "max_age": _limits("max_age", nullable=True, description="Seconds after the due time in which one may start.")}})
class RetriesField(serializers.JSONField):
    pass


@extend_schema_field({"type": "object", "additionalProperties": False, "properties": {
    "failures": _limits("keep_failures", description="Bytes of the body of an answer that is no success."),
    "successes": _limits("keep_successes", description="Bytes of the body of one that is."),
    "days": _limits("keep_days")}})
class KeepField(serializers.JSONField):
    pass


class TargetSerializer(serializers.Serializer):
    """A target. Without the permission `see_request`, what is sent to it is null."""

    name = serializers.CharField()
    url = serializers.CharField(allow_null=True)
    method = serializers.ChoiceField(Target.Method.values)
    headers = HeadersField(allow_null=True)
    secret_headers = HiddenHeadersField(help_text="Their names; of a value only when it was changed.")
    body = serializers.CharField(allow_null=True)
    auth = HiddenAuthField()
    connect_timeout = serializers.FloatField(allow_null=True)
    timeout = serializers.FloatField(allow_null=True)
    success = SuccessField()
    follow_redirects = serializers.BooleanField()
    retries = RetriesField()
    repeatable = serializers.BooleanField()
    max_at_once = serializers.IntegerField(allow_null=True)
    rate = serializers.CharField(allow_null=True)
    signing_key = HiddenField()
    previous_signing_key = HiddenField(help_text="It signs too, while the key is being changed.")
    notify = HiddenField(help_text="Who is told when its calls fail, in place of NOTIFY and FAILURES_TO.")
    notify_after = serializers.IntegerField(help_text="Failures in a row after which they are told.")
    keep = KeepField()
    paused = pause.PausedField()
    version = serializers.IntegerField(help_text="Counts its changes, from 1; each attempt says which it used.")
    created_at = UtcField()
    created_by = serializers.CharField()


def shown(target, see_request):
    """The target as JSON. Nothing is decrypted for it."""
    names = {"headers": {}, "auth": {}, "signing": [], **target.secret_names}

    def hidden(changed):
        return {"value": HIDDEN, "changed": changed}
    keys = [*map(hidden, names["signing"]), None, None]
    found = {
        "name": target.name, "url": target.url, "method": target.method, "headers": target.headers,
        "secret_headers": {name: hidden(changed) for name, changed in names["headers"].items()}, "body": target.body,
        "auth": {"kind": "none", **target.auth, **{name: hidden(changed) for name, changed in names["auth"].items()}},
        "connect_timeout": target.connect_timeout, "timeout": target.timeout,
        **{group: {name: getattr(target, field) for name, field in fields.items()} for group, fields in GROUPS.items()},
        **{name: getattr(target, name) for name in FLAGS}, "max_at_once": target.max_at_once,
        "rate": target.rate or None, "signing_key": keys[0], "previous_signing_key": keys[1],
        "notify": hidden(names["notify"]) if "notify" in names else None, "notify_after": target.notify_after,
        "paused": pause.PausedField().to_representation(target), "version": target.version,
        "created_at": UtcField().to_representation(target.created_at), "created_by": target.created_by}
    return found if see_request else found | dict.fromkeys(REQUEST)


class TargetChangeSerializer(serializers.Serializer):
    """What a PATCH asks for: what it does not name stays as it is, in `success`, `retries`, `keep`, `secret_headers`
    and `auth` too."""

    name = serializers.RegexField(
        f"^{NAME.pattern}$", required=False, help_text="New among the targets: letters, digits, - _ and .")
    url = serializers.CharField(
        required=False, max_length=2000, help_text="http or https; placeholders such as {{call.id}} and {{data.KEY}} in "
                                                   "its path and its query.")
    method = serializers.ChoiceField(Target.Method.values, required=False)
    headers = HeadersField(required=False, help_text="Placeholders are filled in. It takes the place of all of them.")
    secret_headers = SecretHeadersField(
        required=False, help_text="Kept encrypted, and never shown; null takes one away.")
    body = BodyField(required=False, allow_null=True, help_text="Its Content-Type must be among the headers, unless it is "
                                                                "given as JSON. Placeholders are filled in.")
    auth = AuthField(required=False, allow_null=True)
    connect_timeout = serializers.FloatField(required=False, allow_null=True, help_text="Seconds; null for CONNECT_TIMEOUT.",
                                             min_value=0.1, max_value=60)
    timeout = serializers.FloatField(required=False, allow_null=True, min_value=0.1, max_value=900,
                                     help_text="Seconds, for a whole attempt; null for TIMEOUT.")
    success = SuccessField(required=False)
    follow_redirects = serializers.BooleanField(required=False, help_text="Method and body are kept; true if left out.")
    retries = RetriesField(required=False)
    repeatable = serializers.BooleanField(
        required=False, help_text="It may be asked again although it has perhaps done what it was asked for.")
    max_at_once = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=10_000)
    rate = serializers.CharField(required=False, allow_null=True, max_length=20, help_text="300/min; of s, min, h and day.")
    signing_key = serializers.CharField(
        required=False, allow_null=True, help_text="As in Standard Webhooks: whsec_ and 24 to 64 bytes in base64. The one "
                                                   "before signs too, until `previous_signing_key` is null.")
    previous_signing_key = serializers.CharField(required=False, allow_null=True, help_text="null takes it away.")
    notify = serializers.CharField(
        required=False, allow_null=True, help_text="Addresses of Apprise, separated by spaces or commas: who is told when its "
                                                   "calls fail, in place of NOTIFY and FAILURES_TO. Kept encrypted.")
    notify_after = serializers.IntegerField(
        required=False, min_value=1, max_value=1000, help_text="Failures in a row after which they are told; 1 if it is left out.")
    keep = KeepField(required=False)
    paused = pause.PauseField(required=False)

    def changed(self, target, data):
        """Gives `target`, a Target that is not saved, what `data` (of json.loads) asks for. Returns what it asks of its
        pause: () for nothing, or (pause.asked(...),). Raises Refusal, which names everything that is wrong."""
        of_keys(data, self.fields)
        meet([data.get(name) for name in ("secret_headers", "auth", "signing_key", "notify")])
        problems = {name: "Is missing." for name in self.fields if self.fields[name].required and name not in data}
        wanted = ()
        if "body" in data:          # JSON as a body says so in the headers
            text, headers = rules.as_body(data["body"], data.get("headers", target.headers))
            data = {**data, "body": text or "", **({"headers": headers} if headers else {})}
        for name in set(data) - set(problems):
            try:
                if name == "paused":
                    wanted = (pause.asked(data[name]),)
                else:
                    _take(target, name, data[name])
            except ValueError as error:
                problems[name] = str(error)
        exclude = [field for key in problems for field in GROUPS.get(key, {}).values()]
        try:
            target.full_clean(exclude=[*problems, *exclude], validate_constraints=False)
        except ValidationError as error:
            for name, reasons in error.message_dict.items():
                key = KEYS.get(name, name)
                problems.setdefault(key if key.partition(".")[0] not in problems else key.partition(".")[0], " ".join(reasons))
        if problems:
            order = list(self.fields)
            raise Refusal.of({name: problems[name] for name in sorted(
                problems, key=lambda name: (order.index(name.partition(".")[0]), name))})
        return wanted


class TargetNewSerializer(TargetChangeSerializer):
    """What a POST asks for: `name`, `url`, and more."""

    name = serializers.RegexField(
        f"^{NAME.pattern}$", help_text="New among the targets: letters, digits, - _ and .")
    url = serializers.CharField(
        max_length=2000, help_text="http or https; placeholders such as {{call.id}} and {{data.KEY}} in its path and its "
                                   "query.")


def _take(target, name, value):
    """Gives the target what a key of JSON says. Raises ValueError, saying what is expected instead; what the model's
    `clean` says as well is left to that."""
    changes = target.changes = target.changes or {}
    if name in GROUPS:
        fields = GROUPS[name]
        if not isinstance(value, dict) or set(value) - set(fields):
            raise ValueError(f"Must be an object with some of {', '.join(fields)}.")
        for key, part in value.items():
            try:
                _set(target, fields[key], part)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
    elif name == "secret_headers":
        if not isinstance(value, dict):
            raise ValueError('Must be an object of names and values: {"X-Api-Key": "..."}.')
        changes["headers"] = {key: _sent_back(part) for key, part in value.items()}
    elif name == "auth":
        value = {"kind": "none"} if value is None else value
        if not isinstance(value, dict):
            raise ValueError(f"Must be an object with a `kind`: {', '.join(Target.AUTH)}.")
        kind = value.get("kind", target.auth.get("kind"))
        secret = Target.AUTH[kind][1] if isinstance(kind, str) and kind in Target.AUTH else ()
        changes["auth"] = {key: _sent_back(part) for key, part in value.items() if key in secret}
        kept = target.auth if kind == target.auth.get("kind") else {}
        target.auth = {**kept, "kind": kind, **{key: part for key, part in value.items() if key not in secret}}
    elif name in ("signing_key", "notify"):
        changes[name] = _sent_back(value)
    elif name == "previous_signing_key":
        if value is not None and _sent_back(value) != HIDDEN:
            raise ValueError("Can only be null: it was the `signing_key` before.")
        changes[name] = _sent_back(value)
    else:
        _set(target, name, value)


def _sent_back(value):
    """A secret as it was shown leaves it as it is."""
    return HIDDEN if isinstance(value, dict) and value.get("value") == HIDDEN else value


def _set(target, field, value):
    if field in FLAGS:
        if not isinstance(value, bool):
            raise ValueError("Must be true or false.")
    elif field in Target.LIMITS:
        if value is None and not Target._meta.get_field(field).null:
            raise ValueError("Must be a number.")
        value = value if value is None else rules.number(value, *Target.LIMITS[field])
    elif field == "method":
        if value not in Target.Method.values:
            raise ValueError(f"Must be one of {', '.join(Target.Method.values)}.")
    elif field == "rate":
        value = "" if value is None else rules.text(value, 20)
    elif field == "headers":
        value = rules.headers(value)
    elif field == "delays":
        if not isinstance(value, list):
            raise ValueError("Must be a list of numbers of seconds, such as [10, 60, 600].")
    elif not isinstance(value, str):
        raise ValueError("Must be a string.")
    setattr(target, field, value)


class TargetPages(Pages):
    ordering = "name"


class TestSerializer(serializers.Serializer):
    """What is sent in place of what a call would have of its own."""

    body = BodyField(required=False, allow_null=True, help_text="Instead of the target's.")
    headers = HeadersField(required=False, help_text="Beside the target's.")
    data = serializers.DictField(required=False, help_text="What {{data.KEY}} stands for.")


class OfTestSerializer(serializers.Serializer):
    """The call that a test has made, and its first attempt."""

    call = serializers.IntegerField(help_text="Its id.")
    status = serializers.ChoiceField(ScheduledCall.Status.choices, help_text="What it is now.")
    attempt = AttemptSerializer(allow_null=True)
    detail = serializers.CharField(required=False, help_text="If there is no attempt, why.")


class MayTest(MayUse):
    """Whoever may use targets."""

    perms_map = {**MayUse.perms_map, "POST": ["%(app_label)s.use_%(model_name)s"]}


@extend_schema(tags=["targets"])
class Targets(viewsets.GenericViewSet):
    queryset = Target.objects.filter(deleted_at=None)
    permission_classes = [MayDelete]
    pagination_class = TargetPages
    serializer_class = TargetSerializer
    filter_backends = []
    lookup_field = lookup_url_kwarg = "name"

    def get_permissions(self):
        return [MayTest()] if self.action == "test" else super().get_permissions()

    def get_object(self):
        name = self.kwargs["name"]
        if not NAME.fullmatch(name):        # PostgreSQL takes no NUL, and is not asked for what no name can be
            raise NotFound(f'There is no target "{printable(name, 80)}".')
        return super().get_object()

    def _shown(self, target):
        return shown(target, has(self.request, "scheduler.see_request"))

    @extend_schema(
        summary="Make a target", request=TargetNewSerializer,
        responses={201: TargetSerializer, 400: ProblemSerializer, 409: ProblemSerializer, **USUAL, **THROTTLED})
    def create(self, request):
        """Repeated, the request is a 409, as a name can be taken once. Needs the permission `add_target`; to see in
        the answer what is sent to it, `see_request`."""
        target = Target()
        wanted = TargetNewSerializer().changed(target, body(request))
        return self._save(target, wanted, status.HTTP_201_CREATED)

    @extend_schema(
        summary="List targets",
        parameters=[PAGE_SIZE],
        responses={200: TargetSerializer(many=True), 400: ProblemSerializer, 404: ProblemSerializer, **USUAL})
    def list(self, request):
        """By their names, a page at a time. Needs the permission `view_target`; to see what is sent to them,
        `see_request`."""
        check_parameters(request, [Pages.cursor_query_param, Pages.page_size_query_param])
        return self.get_paginated_response([self._shown(one) for one in self.paginate_queryset(self.get_queryset())])

    @extend_schema(summary="One target", responses={200: TargetSerializer, 404: ProblemSerializer, **USUAL})
    def retrieve(self, request, name):
        """Needs the permission `view_target`; to see what is sent to it, `see_request`."""
        return Response(self._shown(self.get_object()))

    @extend_schema(
        summary="Change a target, or pause or resume it", request=TargetChangeSerializer,
        responses={200: TargetSerializer, 400: ProblemSerializer, 404: ProblemSerializer, 409: ProblemSerializer,
                   **USUAL, **THROTTLED})
    def partial_update(self, request, name):
        """What it says then holds for calls that are pending too. Where it leads to another scheme, host or port, the
        secrets that go there must be given again. Needs the permission `change_target`, and to change the URL
        `see_request`."""
        data = body(request)            # read before anything is locked: its sender may take for ever
        if isinstance(data, dict) and "url" in data:    # who has requests sent to himself sees them
            need(request, "scheduler.see_request")
        with transaction.atomic():      # of two at once the second changes what the first has made of it
            self.queryset = targets.locked()
            target = self.get_object()
            wanted = TargetChangeSerializer().changed(target, data)
            return self._save(target, wanted, status.HTTP_200_OK)

    @extend_schema(
        summary="Delete a target",
        responses={204: None, 404: ProblemSerializer, 409: ProblemSerializer, **USUAL, **THROTTLED})
    def destroy(self, request, name):
        """Its calls stay, and still name it. While calls that have not ended, or schedules, name it, it is a 409. Needs
        the permission `delete_target`."""
        target = self.get_object()
        try:
            targets.delete(target.pk)
        except targets.InUse as error:
            raise Conflict(f'The target "{target.name}" cannot be deleted: {error}. Cancel or change them first, or pause '
                           "it.") from None
        except Target.DoesNotExist:
            self.get_object()       # which somebody else has just deleted: a 404
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _save(self, target, wanted, code):
        by = self.request.user.get_username()
        try:
            with transaction.atomic():
                targets.save(target, by)
                for asked in wanted:
                    pause.apply(target, asked, by)
        except IntegrityError:
            if not self.get_queryset().filter(name=target.name).exclude(pk=target.pk).exists():
                raise
            raise Conflict(f'There is a target "{target.name}" already: change that one, or take another name.') from None
        return Response(self._shown(target), code)

    @extend_schema(
        summary="Make one call of a target now", request=TestSerializer, parameters=[IDEMPOTENT],
        responses={201: OfTestSerializer, 202: OfTestSerializer, 400: ProblemSerializer, 404: ProblemSerializer,
                   409: ProblemSerializer, 422: ProblemSerializer, **USUAL, **THROTTLED})
    def test(self, request, name):
        """Answers with the attempt, or 202 if there is none in time, or many such requests wait already: it is one, whatever
        its retries. It is among the calls like any other, and says that it came by a test. Repeated with the same
        Idempotency-Key it answers how that call went. Needs the permission `use_target`; to see what was sent, `see_request`."""
        data = body(request)
        made = once(request, fingerprint(["test", name, data]), lambda: self._make({} if data is None else data))
        call = ScheduledCall.objects.select_related("target").get(pk=made["call"])
        waits = WAITING.acquire(blocking=False)
        try:
            attempts = self._wait(
                call, min(timeout(call.target.timeout) + settings.LEAD + settings.TICK, WAIT_MAX) if waits else 0)
        finally:
            if waits:
                WAITING.release()
        answer = {"call": call.pk, "status": call.status, "attempt": attempts[0] if attempts else None}
        if not attempts:
            answer["detail"] = call.error or (
                f"There is no outcome yet: look at call {call.pk} in a while, and whether a worker runs at /healthz.")
        return Response(OfTestSerializer(answer).data, status.HTTP_201_CREATED if attempts else status.HTTP_202_ACCEPTED)

    def _wait(self, call, seconds):
        """The attempts at it, once there is one or will be none, and after so many seconds at most."""
        ends = time.monotonic() + seconds
        while True:
            with anew(settings.DATABASE_TIMEOUT):
                call.refresh_from_db()
                attempts = attempts_of(call, has(self.request, "scheduler.see_request"))
            if attempts or call.status in call.FINISHED or time.monotonic() > ends:
                return attempts
            time.sleep(POLL)

    def _make(self, data):
        target = self.get_object()
        if target.is_paused(utcnow()):
            raise Conflict(f'The target "{target.name}" is {target.pause}: resume it first.')
        of_keys(data, keys := TestSerializer().fields)
        text, headers = rules.as_body(data.get("body"), data.get("headers", {}))
        if problems := target.problems_with(text, headers, data.get("data", {})):
            raise Refusal.of({key: problems[key] for key in keys if key in problems})
        call = ledger.try_target(target, self.request.user.get_username(), text, headers, data.get("data"))
        try:
            created([call])
        except Target.DoesNotExist:
            self.get_object()       # which somebody else has just deleted: a 404
        return {"call": call.pk}
