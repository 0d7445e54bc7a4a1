"""A pause, of a target or a schedule, as a PATCH asks for it and as it is shown: `paused`."""
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from ..base.clock import utcnow
from ..base.moments import instant, showable
from ..base.words import one_line, printable
from ..calls import targets
from ..models.targets import Pausable
from .common import UtcField

KEYS = ("until", "reason")

ASKED = {
    "oneOf": [{"type": "boolean"}, {
        "type": "object", "additionalProperties": False, "properties": {
            "until": {"type": "string", "format": "date-time", "nullable": True,
                      "description": "When it ends by itself; if it is left out, when somebody ends it."},
            "reason": {"type": "string", "maxLength": Pausable.REASON_MAX}}}],
    "description": "true, or an object with `until` and `reason`: nothing is called; what falls due meanwhile is Missed. "
                   "false ends it."}
SHOWN = {
    "type": "object", "nullable": True, "required": ["since", "until", "by", "reason"], "properties": {
        "since": {"type": "string", "format": "date-time"},
        "until": {"type": "string", "format": "date-time", "nullable": True},
        "by": {"type": "string"}, "reason": {"type": "string"}},
    "description": "null while it is not."}


@extend_schema_field(ASKED)
class PauseField(serializers.JSONField):
    """What a PATCH may ask for."""


@extend_schema_field(SHOWN)
class PausedField(serializers.Field):
    """How a row's pause is shown."""

    def __init__(self):
        super().__init__(source="*", read_only=True)

    def to_representation(self, row):
        if not row.is_paused(utcnow()):
            return None
        utc = UtcField().to_representation
        return {"since": utc(row.paused_at), "until": row.paused_until and utc(row.paused_until), "by": row.paused_by,
                "reason": row.paused_reason}


def asked(value):
    """What `value`, of JSON, asks for: None for no pause, or {"until": aware datetime or None, "reason": str}. Raises
    ValueError, saying what is wrong."""
    if isinstance(value, bool):
        return {"until": None, "reason": ""} if value else None
    if not isinstance(value, dict):
        raise ValueError('Must be true, false, or an object such as {"until": "2026-08-01T14:30:00Z", "reason": "..."}.')
    if unknown := sorted(set(value) - set(KEYS)):
        raise ValueError(f"Has no {printable(unknown[0], 80)}; there are {' and '.join(KEYS)}.")
    until, why = value.get("until"), value.get("reason", "")
    try:
        if until is not None:
            until = showable(instant(until if isinstance(until, str) else ""))
            if until <= utcnow():
                raise ValueError("has passed")
    except ValueError as error:
        raise ValueError(f"`until` {error}.") from None
    try:
        if not isinstance(why, str):
            raise ValueError("must be a string")
        one_line(why, Pausable.REASON_MAX)
    except ValueError as error:
        raise ValueError(f"`reason` {error}.") from None
    return {"until": until, "reason": why.strip()}


def apply(row, wanted, by):
    """Pauses or resumes the row, as `asked` has read it."""
    if wanted is not None:
        targets.pause(row, by, **wanted)
    elif row.paused_at is not None:
        targets.resume(row)
