"""Who may use the API, and how much."""
import ipaddress
import json
import time
from contextlib import suppress

from django.conf import settings
from redis import RedisError
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, DjangoModelPermissions
from rest_framework.throttling import UserRateThrottle

from ..base import outage
from ..models import ScheduledCall

LACKING = "You need the permission {} for this; an administrator can give it to you."
CLOCKS_APART = 600      # seconds by which one web server's clock may be ahead of another's

# Set by proxies: what comes through one is not this machine's own, whatever its address.
FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_REAL_IP", "HTTP_VIA")


def is_local(request):
    """Whether the request was made on this very machine."""
    try:
        loopback = ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        loopback = False
    return loopback and not any(name in request.META for name in FORWARDED)


class MayUse(DjangoModelPermissions):
    """Whoever has the permissions that the admin asks for, by a token or a session: `view` for reading,
    `add` for scheduling, `change` for cancelling. In local development everybody on this machine."""

    perms_map = {
        **{method: ["%(app_label)s.view_%(model_name)s"] for method in SAFE_METHODS},
        "POST": ["%(app_label)s.add_%(model_name)s"],
        "PATCH": ["%(app_label)s.change_%(model_name)s"],
        "DELETE": ["%(app_label)s.change_%(model_name)s"],      # of a call: it is cancelled, and stays
        "PUT": [],                      # there are none
    }

    def _queryset(self, view):
        """Of what has no objects of its own, those of the calls: there it is about them."""
        queryset = getattr(view, "queryset", None)
        return ScheduledCall.objects if queryset is None else queryset

    def has_permission(self, request, view):
        if not (request.user and request.user.is_authenticated):
            return settings.DEBUG and is_local(request)
        self.message = LACKING.format(
            ", ".join(self.get_required_permissions(request.method, self._queryset(view).model)))
        return super().has_permission(request, view)


def has(request, permission):
    """Whether whoever asks has a permission, such as "scheduler.use_target"; in local development everybody on this
    machine has all."""
    user = request.user
    return user.has_perm(permission) if user and user.is_authenticated else settings.DEBUG and is_local(request)


def need(request, permission):
    """Raises PermissionDenied, with words, for whoever does not have it."""
    if not has(request, permission):
        raise PermissionDenied(LACKING.format(permission))


class MayChange(MayUse):
    """The same where POST changes what there is."""

    perms_map = {**MayUse.perms_map, "POST": MayUse.perms_map["PATCH"]}


class MayDelete(MayUse):
    """The same where DELETE deletes."""

    perms_map = {**MayUse.perms_map, "DELETE": ["%(app_label)s.delete_%(model_name)s"]}


class WriteThrottle(UserRateThrottle):
    """Counts what changes something, for each user, in Redis. Local development is not throttled,
    and nobody is while Redis is down: taking calls in comes first."""

    scope = "write"

    def allow_request(self, request, view):
        if request.method in SAFE_METHODS or not request.user.is_authenticated:
            return True
        try:
            allowed = super().allow_request(request, view)
        except RedisError as error:
            outage.broker.began(error, "Until it is back calls are taken all the same, and nobody is throttled")
            return True
        outage.broker.over()
        return allowed


def client_address(request):
    """Whose failed logins are counted together: str. Behind a proxy it is what that proxy itself has
    added to X-Forwarded-For; the rest of that header may be made up."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "") if settings.TRUST_PROXY else ""
    last = forwarded.rpartition(",")[2].strip()
    for address in (last, last.rpartition(":")[0]):         # some proxies add the port
        with suppress(ValueError):
            return str(ipaddress.ip_address(address.strip("[]").partition("%")[0]))
    return request.META.get("REMOTE_ADDR", "")              # others write `unknown`


class JSONCache:
    """How the throttle's lists of times lie in Redis: Django's own way, pickle, would let whoever can
    write there run what they like in the web server. Anything else that lies there is an empty list."""

    def dumps(self, value):
        return json.dumps(value)

    def loads(self, data):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return []
        # Of the future are at most those of a machine whose clock is ahead.
        times = isinstance(value, list) and all(
            isinstance(at, (int, float)) and 0 <= at < time.time() + CLOCKS_APART for at in value)
        return value if times else []
