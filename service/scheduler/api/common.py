"""What goes in and out of the API, as JSON."""
from datetime import MAXYEAR, timezone

from django.conf import settings
from django.utils.dateparse import parse_datetime
from rest_framework import serializers

from ..calls.log import printable
from ..models import NOTE_MAX, Schedule, ScheduledCall


class UtcField(serializers.DateTimeField):
    """An instant as 2026-08-01T14:30:00Z, whatever the zone of the admin's pages."""

    def __init__(self, **kwargs):
        super().__init__(default_timezone=timezone.utc, **kwargs)


class ScheduledCallSerializer(serializers.ModelSerializer):
    """A call in lists and answers."""

    timestamp = UtcField(read_only=True)

    class Meta:
        model = ScheduledCall
        fields = ["id", "timestamp", "status"]
        read_only_fields = fields
        extra_kwargs = {"status": {"required": True}}


class OfScheduleSerializer(serializers.ModelSerializer):
    """Which schedule planned a call."""

    class Meta:
        model = Schedule
        fields = ["id", "name"]
        read_only_fields = fields


class ScheduledCallDetailSerializer(ScheduledCallSerializer):
    """Everything about one call."""

    created_at = UtcField(read_only=True)
    handed_over_at = UtcField(read_only=True, allow_null=True)
    started_at = UtcField(read_only=True, allow_null=True)
    ended_at = UtcField(read_only=True, allow_null=True)
    lateness = serializers.FloatField(
        read_only=True, allow_null=True,
        help_text="Seconds from the due time to the start of the call; null if it was not started.")
    http_status = serializers.IntegerField(read_only=True, allow_null=True)
    again_of = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="The id of the call that it repeats; null if it repeats none.")
    schedule = OfScheduleSerializer(read_only=True, allow_null=True)

    class Meta(ScheduledCallSerializer.Meta):
        fields = ScheduledCallSerializer.Meta.fields + [
            "created_at", "handed_over_at", "started_at", "ended_at", "lateness", "http_status", "error",
            "scheduled_by", "scheduled_via", "note", "again_of", "cancelled_by", "schedule"]
        read_only_fields = fields


class ReasonSerializer(serializers.Serializer):
    """One thing that is wrong; it names the timestamp, the parameter or the key."""

    timestamp = serializers.CharField(required=False)
    parameter = serializers.CharField(required=False)
    key = serializers.CharField(required=False)
    reason = serializers.CharField()


class ProblemSerializer(serializers.Serializer):
    """Why a request was refused."""

    detail = serializers.CharField(help_text="What to mend, in a sentence.")
    errors = ReasonSerializer(
        many=True, required=False, help_text="Everything that is wrong, where it may be several things.")


class ConflictSerializer(serializers.Serializer):
    detail = serializers.CharField()
    status = serializers.ChoiceField(ScheduledCall.Status.choices, help_text="What it is now.")


class HealthSerializer(serializers.Serializer):
    """Each part is `ok`, or says what is wrong. Without credentials only `status` is told."""

    status = serializers.ChoiceField(["ok", "failing"])
    database = serializers.CharField(required=False)
    broker = serializers.CharField(required=False)
    dispatcher = serializers.CharField(required=False)
    dispatcher_last_tick_seconds = serializers.FloatField(
        required=False, allow_null=True, help_text="How long ago the dispatcher last ran, and did all its work.")


class Refusal(serializers.ValidationError):
    """A 400 with a `detail`, and perhaps `errors`, one for each bad timestamp."""

    def __init__(self, detail, errors=None):
        super().__init__(detail)
        self.detail = {"detail": detail, **({"errors": errors} if errors else {})}


class ScheduleSerializer(serializers.Serializer):
    """What a POST asks for."""

    timestamps = serializers.CharField(
        help_text="ISO 8601 dates and times, each with its offset from UTC, separated by commas. "
                  "Those in the past are ignored; one that stands twice is called twice.")
    note = serializers.CharField(
        required=False, allow_blank=True, max_length=NOTE_MAX,
        help_text="What these calls are for, in one line of printable characters; kept with each of them.")

    def to_internal_value(self, data):
        """Returns {"timestamps": list of aware datetimes in UTC, past ones too, in the given order, "note": str}.
        Raises Refusal, which names everything that is wrong."""
        if not isinstance(data, dict):
            raise Refusal('The body must be a JSON object: {"timestamps": "2026-08-01T14:30:00Z"}')
        if "timestamps" not in data:
            raise Refusal("`timestamps` is missing: ISO 8601 dates and times, separated by commas.")
        if unknown := sorted(set(data) - {"timestamps", "note"}):
            raise Refusal(f"There is no key {printable(unknown[0], 80)}; there are `timestamps` and, if you "
                          "like, `note`.")
        note = data.get("note", "")
        if not isinstance(note, str):
            raise Refusal("`note` must be a string.")
        if problem := bad_note(note):
            raise Refusal(f"`note` {problem}.")
        text = data["timestamps"]
        if not isinstance(text, str):
            raise Refusal("`timestamps` must be one string: ISO 8601 dates and times, separated by commas.")
        pieces = [piece.strip() for piece in text.split(",")]
        if pieces[-1] == "":
            pieces.pop()                # a comma at the end is no mistake worth an error
        if not pieces:
            raise Refusal("`timestamps` is empty: ISO 8601 dates and times, separated by commas.")
        if len(pieces) > settings.MAX_TIMESTAMPS:
            raise Refusal(f"{len(pieces)} timestamps are too many for one request: at most "
                          f"{settings.MAX_TIMESTAMPS} are taken.")
        good, bad = [], []
        for piece in pieces:
            try:
                good.append(due_time(piece))
            except ValueError as error:
                bad.append({"timestamp": printable(piece, 80), "reason": str(error)})
        if bad:
            raise Refusal(
                f"{len(bad)} of {len(pieces)} timestamps cannot be scheduled, so none was: "
                + "; ".join(f"'{b['timestamp']}' {b['reason']}" for b in bad), bad)
        return {"timestamps": good, "note": note}


def bad_note(text):
    """What is wrong with the str `text` as a note, or None: it stands in one line of lists and files."""
    if len(text) > NOTE_MAX:
        return f"has {len(text)} characters; at most {NOTE_MAX} are taken"
    if not text.isprintable():
        bad = next(c for c in text if not c.isprintable())
        return f"holds {printable(bad)}: only printable characters are taken, in one line"
    return None


def instant(text):
    """The aware datetime, in UTC, that `text` (ISO 8601) names. Raises ValueError saying why not."""
    if not text:
        raise ValueError("is empty")
    try:
        when = parse_datetime(text) if text.isascii() else None
    except ValueError:
        when = None
    if when is None:
        raise ValueError("is not an ISO 8601 date and time such as 2026-08-01T14:30:00Z")
    if when.utcoffset() is None:
        raise ValueError("does not say which zone is meant: end it with Z for UTC, or an offset "
                         "such as +05:30")
    try:
        return when.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("is not a time that a calendar can hold")


def due_time(text):
    """The aware datetime, in UTC, that `text` names, for a call. Raises ValueError saying why not,
    also for the calendar's last year: east of UTC it ends too late for a page to show it."""
    when = instant(text)
    if when.year == MAXYEAR:
        raise ValueError(f"is too far ahead: the year must be below {MAXYEAR}")
    return when
