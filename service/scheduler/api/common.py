"""What all of the API shares: pages, parameters, the words of its document."""
import re
from base64 import b64decode
from datetime import timezone

from django.core.exceptions import ValidationError
from django.db import DataError
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.views import APIView

from ..base.words import printable
from .errors import Refusal


# For the document, of each list.
PAGE_SIZE = OpenApiParameter("page_size", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})


def check_parameters(request, known, many=()):
    """Raises Refusal for a parameter that is none of `known`, or stands twice and is none of `many`."""
    if unknown := sorted(set(request.query_params) - set(known)):
        raise Refusal(f"There is no parameter {printable(unknown[0], 80)}; there are {', '.join(known)}.")
    if twice := [name for name in known if name not in many and len(request.query_params.getlist(name)) > 1]:
        raise Refusal(f"{twice[0]} stands twice; which is meant?")


class Pages(CursorPagination):
    """Of a list, each with the addresses of the next and the one before."""

    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 1000
    # Within one page position DRF counts calls of the very same time, and by default refuses to
    # count past 1000: of ten thousand calls in one second the others could not be reached.
    offset_cutoff = 10_000_000

    def paginate_queryset(self, queryset, request, view=None):
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValidationError, ValueError, OverflowError, DataError):     # its position is no time or id
            raise NotFound(self.invalid_cursor_message)

    def decode_cursor(self, request):
        """As DRF does; but where it leaves out of a cursor what it does not know, nothing may be left over,
        and the first page be the answer."""
        cursor = request.query_params.get(self.cursor_query_param)
        try:
            if cursor is not None and not re.match(b"[opr]=", b64decode(cursor, validate=True)):
                raise ValueError
        except ValueError:
            raise NotFound(self.invalid_cursor_message)
        return super().decode_cursor(request)

    def get_page_size(self, request):
        asked = request.query_params.get(self.page_size_query_param, str(self.page_size))
        if not (asked.isascii() and asked.isdecimal() and 1 <= int(asked[:9]) <= self.max_page_size):
            raise Refusal(f"page_size must be a whole number from 1 to {self.max_page_size}.")
        return int(asked)


class UtcField(serializers.DateTimeField):
    """An instant as 2026-08-01T14:30:00Z, whatever the zone of the admin's pages."""

    def __init__(self, **kwargs):
        super().__init__(default_timezone=timezone.utc, **kwargs)


class ReasonSerializer(serializers.Serializer):
    """One thing that is wrong; it names the timestamp, the parameter or the key, and of one of several calls its
    position, from 0."""

    timestamp = serializers.CharField(required=False)
    parameter = serializers.CharField(required=False)
    position = serializers.IntegerField(required=False)
    key = serializers.CharField(required=False)
    reason = serializers.CharField()


class ProblemSerializer(serializers.Serializer):
    """Why a request was refused."""

    detail = serializers.CharField(help_text="What to mend, in a sentence.")
    errors = ReasonSerializer(
        many=True, required=False, help_text="Everything that is wrong, where it may be several things.")


# What every request may get.
USUAL = {401: ProblemSerializer, 403: ProblemSerializer, 503: ProblemSerializer}
THROTTLED = {429: ProblemSerializer}


class Nowhere(APIView):
    """/api and any other path below it: a 404 in JSON, whatever the method."""

    schema = None

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        raise NotFound(f"There is nothing at {printable(request.path)}. (All paths here end with a slash.)")
