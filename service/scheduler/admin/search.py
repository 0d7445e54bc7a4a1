"""What is typed above the list of calls: where it is looked for, and how far.

Neither database has an index of words that both know, and a million notes are not read for a page. So names are looked
for among the targets and the schedules, which are few; and notes and errors in what lies next to now: as many calls
before and after it, as many of each status that errors have, and as many of all that is named, as are read in a moment.
What is said of the result says how far that went.
"""
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.utils.text import smart_split, unescape_string_literal

from ..base.moments import moment
from ..base.words import is_id, printable
from ..models import Schedule, ScheduledCall, Target

Status = ScheduledCall.Status

NEAR = 50_000           # calls of each kind that are read
FOUND = 1000            # calls that are shown
NAMES = 10              # targets, and schedules, of which all the calls are looked at
WORDS = 10
TEXT = 200              # characters, as many as the form takes
READ = "id", "timestamp", "note", "error", "target", "schedule"
ERRING = (Status.FAILED, Status.MISSED, Status.RETRYING)


def words_of(text):
    """What is looked for, a list of str: each blank parts two, but within quotation marks."""
    found = []
    for word in smart_split(text[:TEXT].replace("\0", " ")):
        if len(word) > 1 and word[0] in "\"'" and word[0] == word[-1]:
            word = unescape_string_literal(word)
        if word.strip():
            found.append(word)
    return list(dict.fromkeys(found))[:WORDS]


class Search:
    """The calls of `calls`, a models' Calls, in which each word of `text` is: as their id, or anywhere in their note,
    their error, the name of their target or of their schedule.

    ids: list, of FOUND at most; says: in words, what was looked for, and where
    """

    def __init__(self, calls, text, now):
        self._calls, self._now = calls.order_by(), now
        self._words = words_of(text)
        self.ids, more = self._find() if self._words else ([], False)
        looked_for = " and ".join(f"“{printable(word, 80)}”" for word in self._words) or "nothing that can be looked for"
        self.says = f"with {looked_for} as id, or in note, error, name of target or schedule"
        if more:
            self.says += f"; more than {FOUND:,} are, and these are some: choose a status, a target or times to see others"
        elif self._words:
            self.says += self._how_far()

    def _find(self):
        """([id, ...], whether there are more)"""
        fits, values, targets, schedules = [], [], [], []
        for word in self._words:
            named = [list(model.objects.filter(name__icontains=word).order_by("-id").values_list("id", flat=True)[:NAMES])
                     for model in (Target, Schedule)]
            fits += [" OR ".join([r"UPPER(note) LIKE UPPER(%s) ESCAPE '\'", r"UPPER(error) LIKE UPPER(%s) ESCAPE '\'",
                                  *(f"{column} IN ({', '.join(map(str, ids))})" for column, ids in zip(("target", "schedule"), named) if ids),
                                  *([f"id = {int(word)}"] if is_id(word) else [])])]
            values += [f"%{connection.ops.prep_for_like_query(word)}%"] * 2
            targets += named[0]
            schedules += named[1]
        found = {}
        for near in self._places(set(targets), set(schedules)):
            if len(found) > FOUND:
                break
            found |= dict.fromkeys(_ids(near, " AND ".join(f"({fit})" for fit in fits), values))
        return list(found)[:FOUND], len(found) > FOUND

    def _places(self, targets, schedules):
        """Where there may be some: querysets that one index gives, of NEAR calls at most."""
        yield self._calls.filter(pk__in=[int(word) for word in self._words if is_id(word)])[:WORDS]
        yield from self._around(self._calls)
        if not self._calls.statuses:
            for status in ERRING:
                yield self._around(self._calls.of([status]))[0]
        named = [*(self._calls.for_targets([target]) for target in targets),
                 *(self._calls.filter(schedule=schedule) for schedule in schedules)]
        for calls in named:
            yield calls.order_by("-timestamp", "-id")[:NEAR // len(named) + 1]

    def _around(self, calls, first=0, number=None):
        """The nearest before now, and after."""
        part = slice(first, first + (number or NEAR))
        calls = calls.values_list(*READ)
        return (calls.filter(timestamp__lte=self._now).order_by("-timestamp", "-id")[part],
                calls.filter(timestamp__gt=self._now).order_by("timestamp", "id")[part])

    def _how_far(self):
        """What has to be said of calls that nobody looked at."""
        ends = [next(iter(side), None) for side in self._around(self._calls, NEAR, 1)]
        read = [f"{word} {moment(end[1])}" for word, end in zip(("after", "before"), ends) if end]
        if not read:
            return ""
        return (f". They are too many to read them all: notes were read of those due {' and '.join(read)}"
                + ("" if self._calls.statuses else f", and errors of the latest {NEAR:,} that failed or were missed")
                + ". Choose times to look elsewhere")


def _ids(near, fits, values):
    """The ids of the sliced queryset `near` that fit, the latest first, and no more than can be shown.

    The slice is taken first, and in it the words are looked for: of `id IN (the slice)` and the words, PostgreSQL
    looks for the words first, in the whole table.
    """
    try:
        sql, parameters = near.values_list(*READ).query.get_compiler(connection=connection).as_sql()
    except EmptyResultSet:
        return []
    with connection.cursor() as cursor:
        cursor.execute(f"WITH near(id, timestamp, note, error, target, schedule) AS ({sql}) SELECT id FROM near WHERE {fits}"
                       f" ORDER BY timestamp DESC, id DESC LIMIT {FOUND + 1}", [*parameters, *values])
        return [call_id for call_id, in cursor.fetchall()]
