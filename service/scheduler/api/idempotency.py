"""Idempotency-Key: a POST that makes calls and is sent again (a timeout, a retry) makes none, and is answered as the first."""
import hashlib
import json

from django.db import transaction
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import APIException

from ..models import IdempotentAnswer
from .errors import Refusal

KEY_MAX = 255               # characters

# For the document.
IDEMPOTENT = OpenApiParameter(
    "Idempotency-Key", {"type": "string", "minLength": 1, "maxLength": KEY_MAX, "pattern": "^[ -~]+$"},
    OpenApiParameter.HEADER,
    description=f"Any printable ASCII text of 1 to {KEY_MAX} characters that is new for each new request. Repeated with "
                "the same request it returns the first answer and schedules nothing.")


class OfAnotherRequest(APIException):
    """A 422: the key came with another request before."""

    status_code = 422
    default_detail = ("This Idempotency-Key was used for another request, such as other timestamps, or another note. Nothing was "
                      "scheduled: use a new key for a new request.")


def key_of(request):
    """The Idempotency-Key, a str, or None if there is none. Raises Refusal."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (1 <= len(key) <= KEY_MAX and key.isascii() and key.isprintable()):
        raise Refusal(f"Idempotency-Key must be 1 to {KEY_MAX} printable ASCII characters.")
    return key


def fingerprint(asked):
    """What tells `asked`, of JSON, from what other requests ask for: str of 64 characters."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def once(request, fingerprint, work):
    """What work() returns, of JSON, which does all that the request asks for, in one transaction; or, if the request has an
    Idempotency-Key and the same came with it before, what that got.

    fingerprint: str, the same for each request that asks for the same
    Raises Refusal, OfAnotherRequest, and what work() raised: then the key is not used up.

    The unique constraint decides who is first: the second of two requests at the same time waits in its INSERT until the
    first has committed, and then finds its answer."""
    key, user = key_of(request), request.user
    with transaction.atomic():
        if key is None:
            return work()
        record, first = IdempotentAnswer.objects.get_or_create(
            scope=f"user {user.pk}" if user.is_authenticated else "anonymous", key=key, defaults={"fingerprint": fingerprint})
        if first:
            record.answer = json.dumps(work())
            record.save(update_fields=["answer"])
        elif record.fingerprint != fingerprint:
            raise OfAnotherRequest
        return json.loads(record.answer)
