"""What is called. Changed by calls/targets.py alone."""
import re
from copy import deepcopy

from django.core.exceptions import ValidationError
from django.db import models

from ..base import channels
from ..base.clock import utcnow
from ..base.secrets import Unreadable, decrypt, encrypt
from ..base.words import one_line
from . import rules

NAME = re.compile("[A-Za-z0-9_.-]{1,64}")
HIDDEN = "***"              # stands for a secret in what is shown; sent back, it leaves the secret as it is
DELAYS_MAX = 20
NO_SECRETS = {"headers": {}, "auth": {}, "signing": []}


def is_paused(paused_at, paused_until, at):
    """Whether a pause that began and ends then (aware datetimes, the first None for no pause, the second None for one
    without an end) holds at the aware datetime `at`. See calls/targets.py for the same in a query."""
    return paused_at is not None and (paused_until is None or at < paused_until)


class Pausable(models.Model):
    """What can be paused, until somebody resumes it or until a time: a target or a schedule."""

    REASON_MAX = 200        # characters
    PAUSE = ("paused_at", "paused_until", "paused_by", "paused_reason")

    paused_at = models.DateTimeField(null=True, editable=False)
    paused_until = models.DateTimeField(null=True, editable=False, help_text="Null: until somebody resumes it.")
    paused_by = models.CharField(max_length=150, blank=True, editable=False)
    paused_reason = models.CharField(max_length=REASON_MAX, blank=True, editable=False)

    class Meta:
        abstract = True

    def begin_pause(self, by="", reason="", until=None):
        """Says of the row, which is still to be saved, that it is paused from now on.

        by: the name of the user who asked for it; until: aware datetime, None for until it is resumed
        """
        self.paused_at, self.paused_until, self.paused_by, self.paused_reason = utcnow(), until, by, reason

    def end_pause(self):
        """Says of the row, which is still to be saved, that it is not paused."""
        self.paused_at, self.paused_until, self.paused_by, self.paused_reason = None, None, "", ""

    def is_paused(self, now):
        """Whether it is, at the aware datetime `now`."""
        return is_paused(self.paused_at, self.paused_until, now)

    @property
    def pause(self):
        """By whom and why, in words: "paused by ann: the API is being moved"."""
        by = f" by {self.paused_by}" if self.paused_by else ""
        return f"paused{by}{self.paused_reason and f': {self.paused_reason}'}"


class Target(Pausable):
    """One API, or one thing that it does, and how it is asked.

    A deleted one stays, unseen, for as long as there are calls that name it.
    """

    class Method(models.TextChoices):
        GET = "GET", "GET"
        HEAD = "HEAD", "HEAD"
        POST = "POST", "POST"
        PUT = "PUT", "PUT"
        PATCH = "PATCH", "PATCH"
        DELETE = "DELETE", "DELETE"
        OPTIONS = "OPTIONS", "OPTIONS"

    # What there is to say of each kind of auth, and which of that is secret.
    AUTH = {"none": ((), ()), "basic": (("username",), ("password",)), "bearer": ((), ("token",)),
            "header": (("name",), ("value",)),
            "oauth2": (("token_url", "client_id", "scope"), ("client_secret",))}
    # Of the numbers the least, the most, and whether only whole ones are taken.
    LIMITS = {"connect_timeout": (0.1, 60, False), "timeout": (0.1, 900, False), "max_age": (1, 2_592_000, True),
              "max_at_once": (1, 10_000, True), "keep_failures": (0, 262_144, True), "keep_successes": (0, 262_144, True),
              "keep_days": (1, 3650, True), "notify_after": (1, 1000, True)}

    SAFE = (Method.GET, Method.HEAD, Method.OPTIONS)    # RFC 9110, 9.2.1: asking again changes nothing

    name = models.CharField(max_length=64, help_text="What requests and files call it: letters, digits, - _ and .")
    url = models.CharField("URL", max_length=2000)
    method = models.CharField(max_length=7, choices=Method, default=Method.GET)
    headers = models.JSONField(default=dict, blank=True, help_text="{name: value}")
    body = models.TextField(blank=True)
    auth = models.JSONField(
        default=dict, blank=True,
        help_text="How it proves who it is: kind (none, basic, bearer, header, oauth2), and what of that is no secret.")
    secrets = models.TextField(
        blank=True, editable=False,
        help_text="Encrypted (base/secrets.py): JSON with headers {name: value}, auth {name: value}, signing "
                  "[key, ...] and notify [address, ...].")
    secret_names = models.JSONField(
        default=dict, editable=False,
        help_text="What there is in `secrets`, without the values, each with the time of its change: "
                  "{\"headers\": {name: ISO 8601}, \"auth\": {...}, \"signing\": [ISO 8601, ...], \"notify\": ISO 8601}.")
    connect_timeout = models.FloatField(null=True, blank=True, help_text="Seconds; CONNECT_TIMEOUT if it is empty.")
    timeout = models.FloatField(null=True, blank=True, help_text="Seconds, for one whole attempt; TIMEOUT if it is empty.")
    statuses = models.CharField(
        max_length=100, default="100-399", help_text="HTTP statuses that are a success: 200-299, 404.")
    contains = models.CharField(max_length=500, blank=True, help_text="Text that the answer must have in it.")
    not_contains = models.CharField(max_length=500, blank=True, help_text="Text that it must not have in it.")
    follow_redirects = models.BooleanField(default=True)
    delays = models.JSONField(
        default=list, blank=True, help_text="Seconds from the end of an attempt to the next: [10, 60, 600]; none: no retries.")
    max_age = models.PositiveIntegerField(
        null=True, blank=True, help_text="Seconds after the due time in which a retry may still start.")
    repeatable = models.BooleanField(
        default=False, help_text="It may be asked again although it has perhaps done what it was asked for.")
    max_at_once = models.PositiveIntegerField(null=True, blank=True, help_text="Calls under way at once, at most.")
    rate = models.CharField(max_length=20, blank=True, help_text="Requests at most, such as 300/min.")
    keep_failures = models.PositiveIntegerField(default=16384, help_text="Bytes of the body of an answer that is no success.")
    keep_successes = models.PositiveIntegerField(default=0, help_text="Bytes of the body of one that is.")
    notify_after = models.PositiveIntegerField(
        default=1, db_default=1, help_text="Failures in a row after which it is told that calls fail.")
    keep_days = models.PositiveIntegerField(default=30, help_text="Days for which the attempts are kept.")
    version = models.PositiveIntegerField(default=1, editable=False, help_text="Counts its changes, from 1.")
    created_at = models.DateTimeField("created", default=utcnow, editable=False)
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    free_at = models.DateTimeField(
        null=True, editable=False, help_text="Of its rate: when the next request is due that is not ahead of it (GCRA).")

    # What `clean` is to change of the secrets: {"headers": {name: value}, "auth": {name: value}, "signing_key": value,
    # "previous_signing_key": None, "notify": a str}. None removes one, HIDDEN and what is not named leave one as it is.
    changes = None

    class Meta:
        ordering = ["name"]
        permissions = [("use_target", "Can schedule calls for target"), ("see_request", "Can see what is sent to target")]
        constraints = [models.UniqueConstraint(
            fields=["name"], condition=models.Q(deleted_at=None), name="one_target_of_a_name",
            violation_error_message="There is a target of this name already.")]

    def __str__(self):
        return f"{self.name} (deleted)" if self.deleted_at else self.name

    def clean(self):
        """Brings what came from outside into one form, and makes `changes` of the secrets. Raises ValidationError,
        with the words for each field that is wrong."""
        problems = {}

        def read(name, reading, *how):
            try:
                return reading(getattr(self, name), *how)
            except ValueError as error:
                problems[name] = str(error)

        if self.name and (not NAME.fullmatch(self.name) or self.name in (".", "..")):
            problems["name"] = "Must be 1 to 64 letters, digits, - _ and ."
        if self.url:            # what is empty here was refused already
            read("url", rules.url)
        if self.method and self.method not in self.Method.values:
            problems["method"] = f"Must be one of {', '.join(self.Method.values)}."
        self.headers = read("headers", rules.headers) if self.headers else {}
        if "headers" not in problems:
            read("body", rules.body, rules.content_type(self.headers))
        self.headers = self.headers or {}
        for name, limits in self.LIMITS.items():
            if getattr(self, name) is not None:
                read(name, rules.number, *limits)
        if self.statuses and (found := read("statuses", rules.statuses)):
            self.statuses = ", ".join(f"{low}-{high}" if low < high else str(low) for low, high in found)
        read("contains", rules.text, 500), read("not_contains", rules.text, 500)
        self.delays = read("delays", _delays) or []
        if found := read("rate", rules.rate):
            self.rate = f"{found[0]}/{rules.UNITS[rules.RATE.fullmatch(self.rate.strip())[2][0]]}"
        self._clean_auth(problems)
        if not {"headers", "auth"} & set(problems):
            self._clean_secrets(problems)
        if problems:
            raise ValidationError(problems)

    def _clean_auth(self, problems):
        try:
            self.auth = _auth(self.auth or {"kind": "none"}, self.AUTH)
        except ValueError as error:
            problems["auth"] = str(error)

    def _clean_secrets(self, problems):
        had = {**NO_SECRETS, **(self.secret_names or {})}
        try:
            rules.few((self.changes or {}).get("headers", ()))
        except ValueError as error:
            problems["secret_headers"] = str(error)
            return
        wanted, changes = self.AUTH[self.auth["kind"]][1], self._effective(had)
        if changes or set(had["auth"]) - set(wanted):
            self._change_secrets(changes, had, wanted, problems)
        self._clean_where(changes, had, wanted, problems)
        if lacking := set(wanted) - set(self.secret_names.get("auth", {})):
            problems.setdefault("auth", f"Needs {' and '.join(sorted(lacking))}.")
        taken = {name.lower() for name in self.headers}
        for name in self.secret_names.get("headers", {}):
            if name.lower() in taken:
                problems.setdefault("secret_headers", f"{name} stands among `headers` too.")
            taken.add(name.lower())
        own = {"header": self.auth.get("name", ""), "none": ""}.get(self.auth["kind"], "Authorization")
        if own.lower() in taken:
            problems.setdefault("auth", f"{own} stands among the headers too.")

    def _clean_where(self, changes, had, wanted, problems):
        """Secrets go where they were given for. Else whoever may change a target, and not see them, had them sent to a
        host of his own."""
        gone = {name.lower() for name in changes.get("headers", {})}
        auth = set(had["auth"]) & set(wanted) - set(changes.get("auth", {}))
        kept = auth | {name for name in had["headers"] if name.lower() not in gone}
        stands = Target.objects.filter(pk=self.pk).values("url", "auth").first() if self.pk and kept else None
        if stands is None:
            return
        again = "is another scheme, host or port than before: give the secrets that go there again with it, or take them away."
        if self.url and "url" not in problems and rules.origin(self.url) != rules.origin(stands["url"]):
            problems["url"] = f"It {again}"
        before = stands["auth"].get("token_url")
        if auth and before and self.auth["kind"] == "oauth2" and rules.origin(self.auth["token_url"]) != rules.origin(before):
            problems.setdefault("auth", f"token_url {again}")

    def _effective(self, had):
        """`changes` without what changes nothing, so that nothing has to be decrypted for it."""
        def idle(value, there):
            return value == HIDDEN and there or value is None and not there
        found, there = {}, {name.lower() for name in had["headers"]}
        for name, value in (self.changes or {}).items():
            if name == "headers":
                value = {key: part for key, part in value.items() if not idle(part, key.lower() in there)}
            elif name == "auth":
                value = {key: part for key, part in value.items() if not idle(part, key in had["auth"])}
            elif name == "notify":
                if idle(None if value == "" else value, "notify" in had):
                    continue
            elif idle(value, len(had["signing"]) > (name == "previous_signing_key")):
                continue
            if value or name not in ("headers", "auth"):
                found[name] = value
        return found

    def _change_secrets(self, changes, had, wanted, problems):
        """Makes the changes, or says in `problems` why not."""
        try:
            values, names = {**NO_SECRETS, **decrypt(self.secrets)}, had
        except Unreadable as error:
            # What is given anew needs no reading.
            headers, auth = changes.get("headers", {}), changes.get("auth", {})
            kept = {"secret_headers": {name.lower() for name in had["headers"]}
                    - {name.lower() for name, value in headers.items() if value != HIDDEN},
                    "auth": set(had["auth"]) & set(wanted) - {name for name, value in auth.items() if value != HIDDEN},
                    "signing_key": had["signing"] if changes.get("signing_key", HIDDEN) == HIDDEN else (),
                    "notify": had.get("notify") if changes.get("notify", HIDDEN) == HIDDEN else ()}
            if lost := [key for key, names in kept.items() if names]:
                problems[lost[0]] = f"Cannot be kept: {error}. Give all of the secrets anew, or remove them."
                return
            values, names = NO_SECRETS, NO_SECRETS
        values, names = deepcopy(values), deepcopy(names)
        values["auth"] = {name: value for name, value in values["auth"].items() if name in wanted}
        names["auth"] = {name: at for name, at in names["auth"].items() if name in values["auth"]}
        now = utcnow().isoformat(timespec="seconds").replace("+00:00", "Z")
        for field, change in (("secret_headers", _change_headers), ("auth", _change_auth), ("signing_key", _change_signing),
                              ("notify", _change_notify)):
            try:
                change(values, names, changes, now)
            except ValueError as error:
                problems[field] = str(error)
        if not problems:
            used = any(values.values())
            self.secrets, self.secret_names = encrypt(values) if used else "", names if used else {}
            self.changes = None

    @property
    def safe(self):
        """Whether asking again changes nothing, or may."""
        return self.repeatable or self.method in self.SAFE

    def problems_with(self, body=None, headers=None, data=None):
        """What is wrong with what a call, or a schedule, is to send of its own to this target, as it is now:
        {"body", "headers" or "data": a sentence}.

        body: str, or None for the target's
        headers, data: {name: value}
        """
        problems, headers, data = {}, {} if headers is None else headers, {} if data is None else data
        for name, rule, value in (("headers", rules.headers, headers), ("data", rules.data, data)):
            try:
                rule(value)
            except ValueError as error:
                problems[name] = str(error)
        if problems:
            return problems
        secret = {name.lower() for name in self.secret_names.get("headers", {})}
        secret |= {self.auth.get("name", "").lower()} if self.auth.get("kind") == "header" else set()
        if taken := [name for name in headers if name.lower() in secret]:
            problems["headers"] = f"{taken[0]} is the target's."
        whole = rules.overlaid(self.headers, headers)
        text = self.body if body is None else body
        try:
            rules.body(text, rules.content_type(whole))
        except ValueError as error:
            problems["headers" if body is None else "body"] = str(error)
            return problems
        used = set().union(*map(rules.template.names, [self.url, text, *whole.values()]))
        if lacking := sorted(name for name in used if name.startswith("data.") and name[5:] not in data):
            problems["data"] = f"Lacks {', '.join(name[5:] for name in lacking[:rules.NAMED])}, to be filled in."
        return problems


def _delays(value):
    if not isinstance(value, list) or len(value) > DELAYS_MAX:
        raise ValueError(f"Must be a list of at most {DELAYS_MAX} numbers of seconds, such as [10, 60, 600].")
    try:
        return [rules.number(delay, 1, 604_800, whole=False) for delay in value]
    except ValueError:
        raise ValueError("Must be numbers of seconds from 1 to 604800, such as [10, 60, 600].") from None


def _auth(value, kinds):
    """What of an auth is not secret, in one form."""
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str) or value["kind"] not in kinds:
        raise ValueError(f"Must be an object with a `kind`: {', '.join(kinds)}.")
    kind, (public, secret) = value["kind"], kinds[value["kind"]]
    if unknown := sorted(set(value) - {"kind", *public}):
        there = ", ".join((*public, *secret)) or "no others"
        raise ValueError(f"{kind} has no {rules.printable(str(unknown[0]), 40)}; beside `kind` there are {there}.")
    found = {"kind": kind}
    for name in public:
        part = value.get(name) or ""
        if part == "" and name != "scope":
            raise ValueError(f"{kind} needs {name}.")
        try:
            if name == "token_url":
                rules.url(part, placeholders=False)
            elif name == "name":
                rules.header_name(part)
            else:
                one_line(rules.text(part, 500))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if name == "username" and ":" in part:
            raise ValueError("username: Must be without a colon (RFC 7617, 2).")
        if name == "scope" and not rules.VALUE.fullmatch(part):
            raise ValueError("scope: Must be ASCII words, separated by spaces (RFC 6749, 3.3).")
        found[name] = part
    return found


def _auth_secret(name, value):
    if not isinstance(value, str) or value == HIDDEN or not (value or name == "password"):
        raise ValueError(f"{name} must be given, a string.")
    try:
        one_line(rules.text(value, 8192))
    except ValueError:
        raise ValueError(f"{name} must be one line of text, of at most 8192 characters.") from None
    if name in ("token", "value") and not rules.VALUE.fullmatch(value) or name == "token" and " " in value:
        raise ValueError(f"{name} holds more than ASCII letters, digits and signs.")
    return value


# How each kind of secrets is changed. `values` and `names` hold them, and when they were changed, as a Target's `secrets`
# and `secret_names` do; both are changed in place. `changes` are Target's, without those that change nothing; `now` is the
# time, as names have it. Each raises ValueError, with the words for what is wrong.

def _change_headers(values, names, changes, now):
    asked = changes.get("headers", {})
    there = {name.lower(): name for name in values["headers"]}
    if len({name.lower() for name in asked}) < len(asked):
        raise ValueError("A name stands twice.")
    for name, value in asked.items():
        old = there.get(name.lower())
        if value == HIDDEN:
            if old is None:
                raise ValueError(f"{name} is not there yet; give its value.")
            continue
        if old is not None:
            del values["headers"][old], names["headers"][old]
        if value is not None:
            values["headers"][name], names["headers"][name] = value, now
    values["headers"] = rules.headers(values["headers"], secret=True)


def _change_auth(values, names, changes, now):
    for name, value in changes.get("auth", {}).items():
        if value is None:
            values["auth"].pop(name, None), names["auth"].pop(name, None)
        else:
            values["auth"][name], names["auth"][name] = _auth_secret(name, value), now


def _change_signing(values, names, changes, now):
    """The key before the last stays, while whoever is called changes to the last."""
    if "signing_key" in changes:
        key = changes["signing_key"]
        if key is None:
            values["signing"], names["signing"] = [], []
        elif rules.signing_key(key) not in values["signing"][:1]:
            values["signing"], names["signing"] = [key, *values["signing"][:1]], [now, *names["signing"][:1]]
    if "previous_signing_key" in changes and changes["previous_signing_key"] is None:
        del values["signing"][1:], names["signing"][1:]


def _change_notify(values, names, changes, now):
    if changes.get("notify", HIDDEN) == HIDDEN:
        return
    values.pop("notify", None), names.pop("notify", None)
    text = "" if changes["notify"] is None else changes["notify"]
    if found := channels.read(rules.text(text, channels.MOST * channels.LENGTH)):
        values["notify"], names["notify"] = found, now
