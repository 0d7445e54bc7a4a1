"""What the database keeps."""
from .calls import NOTE_MAX, ScheduledCall
from .records import Heartbeat, IdempotentAnswer, Notice, Tally
from .schedules import Schedule

__all__ = ["NOTE_MAX", "Heartbeat", "IdempotentAnswer", "Notice", "Schedule", "ScheduledCall", "Tally"]
