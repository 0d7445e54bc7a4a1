"""How many requests a target takes: at once, and in a time. Both hold for all workers together, and are kept in the
database: so they hold while the broker is away.
"""
import re
from typing import NamedTuple

UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}


class Rate(NamedTuple):
    number: int         # requests at most
    seconds: float      # in any such time


def parse(text):
    """A rate as people write it, such as 300/min: a Rate, None for "". Raises ValueError, with words."""
    if not text:
        return None
    number, _, unit = text.partition("/")
    if not re.fullmatch("[1-9][0-9]{0,8}", number) or unit not in UNITS:
        raise ValueError(f"must be a number per second, minute, hour or day, such as 300/min, not {text!r}")
    return Rate(int(number), UNITS[unit])
