"""Every change of a target: nothing else writes its row, but for `free_at`, which is its limits'."""
from django.db.models import Q


def paused_q(now, path=""):
    """The condition that a target (or a schedule) is paused; one whose pause has ended is not, and needs no write.

    now: aware datetime or an expression such as Now()
    path: what leads to it, as "target__"
    """
    return Q(**{f"{path}paused_at__isnull": False}) & (
        Q(**{f"{path}paused_until": None}) | Q(**{f"{path}paused_until__gt": now}))
