"""Targets and schedules as they stand in a file: the keys are those of the API, and what is left out is the default.

In the place of a secret stands the name of the environment variable that holds it, {env: BILLING_TOKEN}. Pauses are no part
of a file: they are what somebody has decided for now, and stay as they are.
"""
import os
import re
from copy import copy
from functools import cache

from ..api.errors import Refusal
from ..api.schedules import ScheduleChangeSerializer, ScheduleNewSerializer, ScheduleSerializer
from ..api.targets import GROUPS, TargetChangeSerializer, TargetNewSerializer, shown
from ..base.secrets import Unreadable, decrypt
from ..calls import targets
from ..models import Schedule, Target
from ..schedules import planner

VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
SIGNING = ("signing_key", "previous_signing_key")
ALONE = (*SIGNING, "notify")            # keys that are a secret each; `auth` and `secret_headers` hold some by their names
NOT_IN_FILES = ("name", "paused")


# One of each for all rows: it takes longer to make one than to use it.
_serializer = cache(lambda kind: kind())


def _keys(serializer):
    return [name for name in _serializer(serializer).fields if name not in NOT_IN_FILES]


KEYS = {"targets": _keys(TargetChangeSerializer), "schedules": _keys(ScheduleChangeSerializer)}
# The fields of the models that a file says all of.
TARGET_FIELDS = [name for name in targets.CHANGES if name not in ("secrets", "secret_names")]
SCHEDULE_FIELDS = sorted(planner.RULE | planner.OTHERS - planner.PAUSE - {"paused_by", "paused_reason"})


def _emptied(row, names):
    """`row`, of which these fields have their defaults."""
    for name in names:
        setattr(row, name, row._meta.get_field(name.removesuffix("_id")).get_default())
    return row


def _in_order(value):
    """Of JSON, each object by its keys: the database does not keep their order."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return list(map(_in_order, value)) if isinstance(value, list) else value


def _without(values, defaults):
    """Of {key: value} what is not as it is by default; of what holds several keys of the API, each of them."""
    found = {}
    for key, value in values.items():
        if key in GROUPS:
            value = {name: part for name, part in value.items() if part != defaults[key][name]}
        if value and key in GROUPS or key not in GROUPS and value != defaults.get(key):
            found[key] = value
    return found


@cache
def _defaults(plain, model):
    return plain(model())


# --- Targets ---------------------------------------------------------------------------------

def secrets_of(target):
    """{path of a secret in a file: its value, None if that cannot be read}."""
    try:
        values = decrypt(target.secrets)
    except Unreadable:
        values = {}
    names = target.secret_names
    found = {(key, name): values.get(part, {}).get(name)
             for key, part in (("secret_headers", "headers"), ("auth", "auth")) for name in sorted(names.get(part, ()))}
    keys = dict(enumerate(values.get("signing", ())))
    found |= {(key,): keys.get(i) for i, key in enumerate(SIGNING[:len(names.get("signing", ()))])}
    return found | ({("notify",): values.get("notify")} if "notify" in names else {})


def is_same(held, value):
    """Whether a secret, of secrets_of, is as a file asks for. Several addresses are kept as a list."""
    return held == value or isinstance(held, list) and value is not None and (
        re.split(r"[\s,]+", " ".join(held)) == re.split(r"[\s,]+", value.strip()))


def _plain(target):
    found = {key: value for key, value in shown(target, True).items() if key in KEYS["targets"] and key not in ALONE}
    found["headers"], found["secret_headers"] = _in_order(found["headers"]), {}
    found["auth"] = {"kind": "none"} | {key: value for key, value in target.auth.items() if value or key == "kind"}
    for key in ("connect_timeout", "timeout"):
        if found[key] is not None and found[key] == int(found[key]):
            found[key] = int(found[key])
    return found


def of_target(target, secrets):
    """The target as it stands in a file.

    secrets: {path of a secret: what stands there in its place}
    """
    found = _plain(target)
    for (key, *name), text in secrets.items():
        if name:
            found[key][name[0]] = text
        else:
            found[key] = text
    found["auth"] = {key: found["auth"][key] for key in ("kind", *sum(Target.AUTH[found["auth"]["kind"]], ())) if key in found["auth"]}
    return _without(found, _defaults(_plain, Target))


def target(stands, name, said):
    """A target as a file has it: (a Target, not saved, {path of a secret: its value}, {path of a secret: what the file has
    in its place}). Raises Refusal.

    stands: the Target that is to become it, None if it is new
    said: {key: value} of the file
    """
    row = _emptied(copy(stands) if stands else Target(), TARGET_FIELDS)
    said, wanted, places = read_secrets(name, said)
    held = secrets_of(stands) if stands else {}
    new, auth = dict(wanted), said.get("auth")
    if stands and stands.url == said.get("url") and (not auth or _plain(stands)["auth"] == auth):
        # Those that stay are not written again. Where it leads elsewhere all are given anew.
        new = {path: value for path, value in wanted.items() if not is_same(held.get(path), value)}
    data = {key: value for key, value in said.items() if key not in ALONE}
    if isinstance(auth, dict):
        data["auth"] = auth | {path[1]: value for path, value in new.items() if path[0] == "auth"}
    if isinstance(said.get("secret_headers", {}), dict):
        stay = {path[1].lower() for path in wanted if path[0] == "secret_headers"}
        data["secret_headers"] = {path[1]: None for path in held if path[0] == "secret_headers" and path[1].lower() not in stay} | {
            path[1]: value for path, value in new.items() if path[0] == "secret_headers"}
    if (("notify",) in held) != (("notify",) in wanted) or not is_same(held.get(("notify",)), wanted.get(("notify",))):
        data["notify"] = wanted.get(("notify",))
    first, *others = _signing(_keys_of(wanted), _keys_of(held)) or [{}]
    _serializer(TargetNewSerializer).changed(row, {**data, "name": name, **first})
    for change in others:
        _serializer(TargetChangeSerializer).changed(row, change)
    return row, wanted, places


def _keys_of(secrets):
    return [secrets[key,] for key in SIGNING if (key,) in secrets]


def _signing(keys, had):
    """What is to be asked of the API, one after the other, for there to be the signing keys `keys`, where `had` were, each
    a list of the one that signs first and the one before."""
    if keys == had:
        return []
    if not keys:
        return [{"signing_key": None}]
    last = [] if had[:1] == keys[-1:] else [{"signing_key": keys[-1]}]
    return [*last, {"signing_key": keys[0]} if keys[1:] else {"previous_signing_key": None}]


def read_secrets(name, said):
    """Of what a file says of the target `name`: (all but its secrets, {path: value}, {path: what stands there}). Raises
    Refusal."""
    said, values, places, problems = dict(said), {}, {}, []

    def take(path, place):
        places[path] = place
        try:
            values[path] = _value(place, f"{name}_{path[-1]}")
        except ValueError as error:
            problems.append({"key": ".".join(path), "reason": str(error)})
    if isinstance(headers := said.get("secret_headers"), dict):
        said["secret_headers"] = {}
        for header, place in headers.items():
            take(("secret_headers", header), place)
    if isinstance(auth := said.get("auth"), dict) and isinstance(kind := auth.get("kind"), str):
        hidden = Target.AUTH[kind][1] if kind in Target.AUTH else ()
        said["auth"] = {key: part for key, part in auth.items() if key not in hidden}
        for key in hidden:
            if key in auth:
                take(("auth", key), auth[key])
    for key in ALONE:
        if said.get(key) is not None:
            take((key,), said[key])
    if len(set(_keys_of(values))) < len(_keys_of(values)) or SIGNING[1:] in places and SIGNING[:1] not in places:
        problems.append({"key": SIGNING[1], "reason": "Must be the key before `signing_key`, while that is being changed."})
    if problems:
        raise Refusal("", problems)
    return said, values, places


def _value(place, example):
    """The secret that a file has the name of. Raises ValueError."""
    if place == "":         # a password that is none
        return ""
    if not (isinstance(place, dict) and list(place) == ["env"] and isinstance(place["env"], str) and VARIABLE.fullmatch(place["env"])):
        raise ValueError("Is a secret: give the name of the environment variable that holds it, such as "
                         f"{{env: {variable(example)}}}.")
    value = os.environ.get(place["env"])
    if not value:       # as a CI's secret is that is not there
        raise ValueError(f"{place['env']} is {'empty' if value == '' else 'not set'} in the environment.")
    return value


def variable(text):
    """`text` as the name of an environment variable."""
    name = re.sub("[^A-Z0-9]", "_", text.upper())
    return f"_{name}" if name[:1].isdecimal() else name


# --- Schedules -------------------------------------------------------------------------------

def _plain_schedule(schedule):
    schedule.coming = ()        # which is not asked for
    shown = _serializer(ScheduleSerializer).to_representation(schedule)
    return {key: _in_order(shown[key]) for key in KEYS["schedules"]}


def of_schedule(schedule):
    """The schedule as it stands in a file."""
    return _without(_plain_schedule(schedule), _defaults(_plain_schedule, Schedule))


def schedule(stands, name, said, by):
    """A Schedule, not saved, as a file has it. Raises Refusal.

    stands: the Schedule that is to become it, None if it is new
    said: {key: value} of the file
    by: who applies it
    """
    row = _emptied(copy(stands) if stands else Schedule(), SCHEDULE_FIELDS)
    return _serializer(ScheduleNewSerializer).changed(row, {**said, "name": name}, by)
