"""/healthz: whether the service is well, for load balancers and whoever watches it."""
from functools import partial

from django.core.exceptions import DisallowedHost
from django.db import connection
from django.http import JsonResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.response import Response
from rest_framework.views import APIView

from ..base.database import within
from ..calls.health import WITHIN, parts


def _may_read(request):
    """Whether who asks may know more than the sum. Raises DatabaseError and DRF's APIException."""
    try:
        with within(WITHIN):
            return all(may().has_permission(request, None) for may in APIView.permission_classes)
    finally:
        connection.close()


def health(request=None):
    """Returns ({"status": ..., and more}, HTTP status); without a request for which `_may_read`, only
    `status` is told."""
    # Who asks with credentials that cannot be looked up, or are wrong, gets what everybody gets.
    found, age, may_read = parts(*([partial(_may_read, request)] if request else []))
    well = set(found.values()) == {"ok"}
    answer = {"status": "ok" if well else "failing"}
    if any(may_read):
        answer |= {**found, "dispatcher_last_tick_seconds": age}
    return answer, 200 if well else 503


def for_any_host(get_response):
    """A middleware: /healthz answers also for a Host that is not in ALLOWED_HOSTS, as load balancers ask by
    address, and then says no more than the sum."""
    def middleware(request):
        if request.path == "/healthz":
            try:
                request.get_host()
            except DisallowedHost:
                answer, code = health()
                return JsonResponse(answer, status=code)
        return get_response(request)
    return middleware


class HealthSerializer(serializers.Serializer):
    """Each part is `ok`, or says what is wrong. Without credentials only `status` is told."""

    status = serializers.ChoiceField(["ok", "failing"])
    database = serializers.CharField(required=False)
    broker = serializers.CharField(required=False)
    dispatcher = serializers.CharField(required=False)
    dispatcher_last_tick_seconds = serializers.FloatField(
        required=False, allow_null=True, help_text="How long ago the dispatcher last ran, and did all its work.")


class OneForm(BaseContentNegotiation):
    """For what has one form, whatever the header Accept asks for, as RFC 9110 (section 12.5.1) allows: whoever
    watches the service gets what there is rather than a 406."""

    def select_renderer(self, request, renderers, format_suffix=None):
        return renderers[0], renderers[0].media_type


class Health(APIView):
    """Whether database, broker and dispatcher are alive. 200 when all are, 503 otherwise."""

    content_negotiation_class = OneForm
    permission_classes = []     # load balancers have no token; those without one get less to read
    throttle_classes = []

    def perform_authentication(self, request):
        """Left to `health`, which does not wait for ever for a database that is to say who asks."""

    @extend_schema(
        tags=["health"], auth=[{}],
        responses={200: HealthSerializer, 503: HealthSerializer})
    def get(self, request):
        """The parts are named only to those who may use the API."""
        return Response(*health(request))
