"""What is typed above the list of calls: where it is looked for, and how far.

Neither database has an index of words that both know, and a million notes are not read for a page. So names are looked
for among the targets and the schedules, which are few; and notes and errors in what lies next to now: as many calls
before and after it, and as many of each status that errors have, as are read in a moment. What is said of the result
says how far that went.
"""
from itertools import product

from django.db.models import Q
from django.utils.text import smart_split, unescape_string_literal

from ..base.moments import moment
from ..base.words import is_id, printable
from ..models import Schedule, ScheduledCall, Target

Status = ScheduledCall.Status

NEAR = 50_000           # calls of each kind that are read
FOUND = 1000            # calls that are shown
NAMES = 10              # targets, and schedules, of which all the calls are looked at
WORDS = 10
ERRING = (Status.FAILED, Status.MISSED, Status.RETRYING)


def words_of(text):
    """What is looked for, a list of str: each blank parts two, but within quotation marks."""
    found = []
    for word in smart_split(text.replace("\0", " ")):
        if len(word) > 1 and word[0] in "\"'" and word[0] == word[-1]:
            word = unescape_string_literal(word)
        if word.strip():
            found.append(word)
    return list(dict.fromkeys(found))[:WORDS]


class Search:
    """The calls of the queryset `calls` in which each word of `text` is: as their id, or anywhere in their note, their
    error, the name of their target or of their schedule.

    statuses: of those that `calls` may have
    start, end: aware datetimes between which they are due, or None
    ids: list, of FOUND at most; says: in words, what was looked for, and where
    """

    def __init__(self, calls, text, now, statuses, start=None, end=None):
        self._calls, self._now, self._more = calls.plain(), now, False
        self._statuses, self._start, self._end = statuses, start, end
        self._narrowed = len(statuses) < len(Status)
        self._words = words_of(text)
        self.ids = self._find() if self._words else []
        looked_for = " and ".join(f"“{printable(word, 80)}”" for word in self._words) or "nothing that can be looked for"
        self.says = f"with {looked_for} as id, or in note, error, name of target or schedule{self._how_far()}"

    def _find(self):
        fits, targets, schedules = Q(), [], []
        for word in self._words:
            named = [list(model.objects.filter(name__icontains=word).order_by("-id").values_list("id", flat=True)[:NAMES])
                     for model in (Target, Schedule)]
            fits &= (Q(note__icontains=word) | Q(error__icontains=word) | Q(target__in=named[0]) | Q(schedule__in=named[1])
                     | (Q(pk=word) if is_id(word) else Q()))
            targets += named[0]
            schedules += named[1]
        found = list(self._calls.filter(fits, pk__in=[word for word in self._words if is_id(word)]).values_list("id", flat=True))
        for near in self._places(set(targets), set(schedules)):
            if len(found) > FOUND:
                break
            some = self._calls.filter(fits, pk__in=near.values("id")).order_by("-timestamp", "-id")
            found = list(dict.fromkeys(found + list(some.values_list("id", flat=True)[:FOUND + 1])))
        self._more = len(found) > FOUND
        return found[:FOUND]

    def _places(self, targets, schedules):
        """Where there may be some: querysets that one index gives, of NEAR calls at most."""
        there = self._due(ScheduledCall.objects.all())
        for calls in self._kinds(there):
            yield from self._around(calls)
        for status in ERRING:
            if status in self._statuses and not self._narrowed:
                yield self._around(there.of([status]))[0]
        for target, status in product(targets, self._statuses):
            yield there.of([status]).for_targets([target]).order_by("-timestamp", "-id")[:NEAR]
        for schedule in schedules:
            yield there.filter(schedule=schedule).order_by("-timestamp", "-id")[:NEAR]

    def _kinds(self, there):
        return [there.of([status]) for status in self._statuses] if self._narrowed else [there]

    def _around(self, calls, first=0, number=None):
        """The nearest before now, and after."""
        part = slice(first, first + (number or NEAR))
        return (calls.filter(timestamp__lte=self._now).order_by("-timestamp", "-id")[part],
                calls.filter(timestamp__gt=self._now).order_by("timestamp", "id")[part])

    def _due(self, calls):
        if self._start:
            calls = calls.filter(timestamp__gte=self._start)
        return calls.filter(timestamp__lt=self._end) if self._end else calls

    def _how_far(self):
        """What has to be said of calls that nobody looked at."""
        if self._more:
            return f"; more than {FOUND:,} are, and these are some: choose a status, a target or times to see others"
        if not self._words:
            return ""
        there = self._due(ScheduledCall.objects.all())
        ends = zip(*([next(iter(side), None) for side in self._around(calls.values_list("timestamp", flat=True), NEAR, 1)]
                     for calls in self._kinds(there)))
        since, until = ([at for at in side if at] for side in ends)
        read = [f"{word} {moment(at)}" for word, at in (("after", max(since, default=None)), ("before", min(until, default=None))) if at]
        if not read:
            return ""
        return (f". They are too many to read them all: notes were read of those due {' and '.join(read)}"
                + ("" if self._narrowed else f", and errors of the latest {NEAR:,} that failed or were missed")
                + ". Choose times to look elsewhere")
