"""Who may use the API, how much, and what it says to those who may not."""
import ipaddress
import logging

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from redis import RedisError
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import JSONParser
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.throttling import UserRateThrottle

logger = logging.getLogger(__name__)

# Set by proxies: what comes through one is not this machine's own, whatever its address.
FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_REAL_IP", "HTTP_VIA")


def is_local(request):
    """Whether the request was made on this very machine."""
    try:
        loopback = ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        loopback = False
    return loopback and not any(name in request.META for name in FORWARDED)


class MayUse(BasePermission):
    """Everybody with a token or a session; in local development everybody on this machine."""

    message = "In local development (DEBUG) the API is open to this machine only; use a token."

    def has_permission(self, request, view):
        return bool(request.user and request.user.is_authenticated) or (
            settings.DEBUG and is_local(request))


class WriteThrottle(UserRateThrottle):
    """Counts what changes something, for each user, in Redis. Local development is not throttled,
    and nobody is while Redis is down: taking calls in comes first."""

    scope = "write"

    def allow_request(self, request, view):
        if request.method in SAFE_METHODS or not request.user.is_authenticated:
            return True
        try:
            return super().allow_request(request, view)
        except RedisError as error:
            logger.warning("not throttled, Redis cannot be reached: %s", error)
            return True


class SafeJSONParser(JSONParser):
    """JSON, with a 400 (ParseError) also for what the standard library cannot bear."""

    def parse(self, stream, media_type=None, parser_context=None):
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("The body is nested too deeply.")


def explain(error, context):
    """DRF's handling of errors, and two more that are a clear 400.

    A body in another format is to its sender the same mistake as bad JSON, "not JSON", whether the
    header says so or the text. A body that is too large is refused by Django unread.
    """
    from rest_framework.views import exception_handler     # which imports this module

    if isinstance(error, UnsupportedMediaType):
        error = ParseError(f"{error.detail} Send JSON, with Content-Type: application/json")
    elif isinstance(error, RequestDataTooBig):
        # Take a little of it off the wire, so that a client that is still sending sees the answer.
        for _ in range(10):
            if not context["request"]._request.read(settings.BODY_MAX):
                break
        error = ParseError(f"The body is too large: at most {settings.BODY_MAX} bytes are taken.")
    return exception_handler(error, context)
