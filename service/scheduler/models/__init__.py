"""What the database keeps."""
from .calls import NOTE_MAX, Attempt, CallRequest, ScheduledCall
from .records import Failure, Heartbeat, IdempotentAnswer, Tally, Told
from .schedules import Schedule
from .targets import Target

__all__ = ["NOTE_MAX", "Attempt", "CallRequest", "Failure", "Heartbeat", "IdempotentAnswer", "Schedule", "ScheduledCall",
           "Tally", "Target", "Told"]
