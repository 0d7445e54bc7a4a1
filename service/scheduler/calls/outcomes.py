"""placeholder until A's"""
import random
from datetime import timedelta
NOTHING, REFUSED, UNKNOWN, ANSWERED = "nothing", "refused", "unknown", "answered"
def next_attempt(failure, number, now, due, expires_at, delays, max_age, repeatable, retry_after=None):
    if failure not in (NOTHING, REFUSED) and not (failure == UNKNOWN and repeatable) or number > len(delays):
        return None
    delay = delays[number-1]*random.uniform(.8,1.2)
    at = now + timedelta(seconds=delay)
    last = due + timedelta(seconds=max_age)
    if expires_at: last=min(last,expires_at)
    return at if at<=last else None
