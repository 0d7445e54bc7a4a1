"""An attempt, as the API shows it."""
from rest_framework import serializers

from ..calls.attempts import MADE
from .common import UtcField


class RequestSerializer(serializers.Serializer):
    """What was sent, its secrets as ***."""

    method = serializers.CharField()
    url = serializers.CharField()
    headers = serializers.DictField(child=serializers.CharField())
    body = serializers.CharField(allow_null=True, required=False)


class ResponseSerializer(serializers.Serializer):
    """What came back."""

    headers = serializers.DictField(child=serializers.CharField())
    body = serializers.CharField(allow_null=True, required=False, help_text="As much of it as the target wants to be kept.")
    truncated = serializers.BooleanField(required=False, help_text="Whether there was more of it.")


class AttemptSerializer(serializers.Serializer):
    """One HTTP exchange for a call, of calls/attempts.py."""

    number = serializers.IntegerField(help_text="From 1.")
    started_at = UtcField(allow_null=True, help_text="When its request was about to be sent; null if none was.")
    ended_at = UtcField(allow_null=True)
    duration_ms = serializers.FloatField(allow_null=True)
    outcome = serializers.ChoiceField([(str(status), str(status)) for status in MADE])
    http_status = serializers.IntegerField(allow_null=True)
    error = serializers.CharField()
    version = serializers.IntegerField(allow_null=True, help_text="Of the target, as it was then.")
    address = serializers.CharField(allow_null=True, help_text="The IP address that was connected to; null as `request` is.")
    phases_ms = serializers.DictField(
        child=serializers.FloatField(),
        help_text="Milliseconds for each phase that it came to: name, connect, tls, answer (its first byte) and end.")
    request = RequestSerializer(
        allow_null=True, help_text="Null where nothing was kept, and for whoever lacks the permission `see_request`.")
    response = ResponseSerializer(
        allow_null=True, help_text="Null where there was none or nothing was kept, and for whoever lacks the permission "
                                   "`see_request`, if the call names a target.")

    def get_fields(self):
        fields = super().get_fields()
        fields["class"] = serializers.CharField(        # a word of Python, which names no attribute
            allow_null=True, help_text="Of a failure: what the API has of it: nothing, refused, unknown (perhaps all of "
                                       "it), or answered. Null for a success.")
        return fields
