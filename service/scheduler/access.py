"""Who may use the API, how much, and what it says to those who may not."""
import ipaddress
import logging

from django.conf import settings
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


class BoundedJSONParser(JSONParser):
    """JSON of at most BODY_MAX bytes. Raises ParseError, a 400."""

    def parse(self, stream, media_type=None, parser_context=None):
        try:
            length = int(stream.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = 0
        if length > settings.BODY_MAX:
            # Read on a little, so that the answer finds a client that is not still sending.
            for _ in range(10):
                if not stream.read(settings.BODY_MAX):
                    break
            raise ParseError(f"The body is too large: {length} bytes; at most {settings.BODY_MAX} are taken.")
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("The body is not JSON that anybody would send: it is nested too deeply.")


def explain(error, context):
    """DRF's handling of errors, but a body in another format is a 400 as well: to the sender it is
    one thing, 'not JSON', whether the header or the text says so."""
    from rest_framework.views import exception_handler     # which imports this module

    if isinstance(error, UnsupportedMediaType):
        error = ParseError(
            f"{error.detail} Send JSON: Content-Type: application/json")
    return exception_handler(error, context)
