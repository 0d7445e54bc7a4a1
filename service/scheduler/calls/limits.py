"""How many requests a target takes: at once, and in a time. Both hold for all workers together, and are kept in the
database: so they hold while the broker is away.

A rate gives each request an instant. One that is on time keeps the rate, in any second. One that is late comes nearer to
those after it; so each worker also sees to it that it sends in no second more than the rate (`Pace`). Of several workers
each that was busy may add what is late by up to SLOT_MAX (worker.py), a fifth of its share. What delays a request on its
way from here to the API nobody here can help.
"""
from collections import deque
from datetime import timedelta
from math import ceil, inf

from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django.db.models.functions import Now

from ..models import ScheduledCall, Target
from ..models.rules import rate

HORIZON = timedelta(seconds=1)
ASKED_AHEAD = timedelta(seconds=settings.LEAD + 2)      # no call is asked for longer before it is due
NOW = Now()             # the database's clock


def apart(target):
    """Seconds from one request of a Target to the next, by its rate: float, 0 if it has none."""
    limit = rate(target.rate)
    return limit[1] / limit[0] if limit else 0.0


def in_a_second(target):
    """How many requests a Target takes in a second at most, by its rate: int, 0 for any number."""
    limit = rate(target.rate)
    return ceil(limit[0] / limit[1]) if limit else 0


def words(target):
    """What a Target takes at most: str, "" if it has no limits."""
    said = [f"{target.max_at_once} calls at once"] if target.max_at_once is not None else []
    said += [target.rate] if target.rate else []
    return f"at most {' and '.join(said)}" if said else ""


def places(target_ids, running):
    """How many calls more each target takes at once: {id: number}, of those among `target_ids` that have such a limit.
    They are locked until the transaction ends, so that nobody else gives the same place away.

    running: a dict, which is given {id: how many are under way}
    """
    if not target_ids:
        return {}
    # Not against those who only name it, in a new call.
    most = dict(Target.objects.filter(id__in=target_ids, max_at_once__isnull=False).order_by("id")
                .select_for_update(no_key=True).values_list("id", "max_at_once"))
    running.update(under_way(most))
    return {target_id: number - running[target_id] for target_id, number in most.items()}


def under_way(target_ids):
    """{id: how many calls of it are Running} of each of `target_ids`."""
    counted = (ScheduledCall.objects.filter(target__in=target_ids, status=ScheduledCall.Status.RUNNING).order_by()
               .values_list("target").annotate(Count("id")))
    return {**dict.fromkeys(target_ids, 0), **dict(counted)}


def reserve(wanted, now=NOW):
    """Gives calls the instants at which a target with a rate takes them: the generic cell rate algorithm, each no
    sooner after the one before than the rate says. What is given is gone, also if nothing is sent then.

    wanted: {target id: [aware datetime, before which that call is not to be sent, ...], in order}
    Returns {target id: ([aware datetime, ...], when it is free again)}: an instant for the first so many of them. None
        is given away further ahead than HORIZON, so that all workers have their turn, and a changed rate holds soon.
    """
    given = {}
    with transaction.atomic():
        targets = list(Target.objects.filter(id__in=wanted).order_by("id").select_for_update(no_key=True)
                       .annotate(now=now).only("id", "rate", "free_at"))
        for target in targets:
            each = timedelta(seconds=apart(target))
            if not each:
                given[target.id] = wanted[target.id], target.now
                continue
            # What is further away than any can have been given is of a rate of one a day that has become another, or the
            # clock was set back.
            free, some = min(target.free_at or target.now, target.now + ASKED_AHEAD + HORIZON + each), []
            for at in wanted[target.id]:
                slot = max(free, at, target.now)
                if slot > max(at, target.now) + HORIZON:
                    break
                some.append(slot)
                free = slot + each
            given[target.id] = some, free
            target.free_at = free
        Target.objects.bulk_update([target for target in targets if given[target.id][0] and target.rate], ["free_at"])
    return given


class Pace:
    """Of one worker: in no second it sends more to a target than its rate says. Instants are seconds by clock.steady()."""

    def __init__(self):
        self._sent = deque()        # instants, of the last second

    def free_at(self, most, now):
        """From when on one more may be sent, which may be past.

        most: how many in a second, of `in_a_second`
        """
        while self._sent and self._sent[0] <= now - 1:
            self._sent.popleft()
        return self._sent[-most] + 1 if most and len(self._sent) >= most else -inf

    def takes(self, most, now):
        """Whether one may be sent at `now`, as far as is known then. It counts as sent."""
        if self.free_at(most, now) > now:
            return False
        self._sent.append(now)
        return True

    def sent(self, taken, number, now):
        """Of the last `taken` that it took, `number` are sent, and at `now` only, as claiming them has lasted until then."""
        for _ in range(taken):
            self._sent.pop()
        self._sent.extend([now] * number)
