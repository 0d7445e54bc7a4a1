"""What the database keeps."""
from .calls import NOTE_MAX, Attempt, CallRequest, ScheduledCall
from .records import Heartbeat, IdempotentAnswer, Notice, Tally
from .schedules import Schedule
from .targets import Target

__all__ = ["NOTE_MAX", "Attempt", "CallRequest", "Heartbeat", "IdempotentAnswer", "Notice", "Schedule", "ScheduledCall",
           "Tally", "Target"]
