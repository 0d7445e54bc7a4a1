"""What a file changes, and its changing: all or nothing."""
import difflib
from typing import NamedTuple

from django.db import IntegrityError, transaction

from ..api.errors import Refusal
from ..base.words import printable
from ..calls import targets
from ..calls.dispatch import hand_over_soon
from ..models import Schedule, Target
from ..models.rules import same
from ..models.targets import HIDDEN
from ..schedules import planner
from . import rows, text
from .text import Wrong

KINDS = ("targets", "schedules")
WAS = "was"             # names what it was called before


class Change(NamedTuple):
    """Of one target or one schedule."""

    kind: str           # of KINDS
    name: str
    what: str           # "new", "changed" or "removed"
    diff: str           # a unified diff of what stands in a file for it


class Outcome(NamedTuple):
    changes: list       # of Change, in the order of the file
    same: int           # of those in the file, how many are as it says
    left: list          # of (kind, name): what the file lacks, and is left


def described():
    """All targets and schedules, as a file: (its value, of JSON, [names of environment variables])."""
    taken, found = set(), {}
    for target in targets.there().order_by("name"):
        secrets = rows.secrets_of(target)
        for path, value in secrets.items():
            secrets[path] = "" if value == "" else {"env": _new(rows.variable(f"{target.name}_{path[-1]}"), taken)}
        found[target.name] = rows.of_target(target, secrets)
    schedules = Schedule.objects.filter(deleted_at=None).select_related("target").order_by("name", "id")
    return {"targets": found, "schedules": {one.name: rows.of_schedule(one) for one in schedules}}, sorted(taken)


def _new(name, taken):
    number = 1
    while (new := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    taken.add(new)
    return new


def read(data, name):
    """The targets and schedules in `data`, the bytes of a file called `name`: a File. Raises Wrong."""
    value, lines = text.read(data, name)
    file = File(name, value, lines)
    if not isinstance(value, dict) or not value:
        raise Wrong([f"{name}: There must be targets: or schedules: in it, or both, as `manage.py export` writes them."])
    problems = []
    for kind in value:
        if kind not in KINDS:
            problems.append(file.problem((kind,), f"There is no key {printable(kind, 80)}; there are {' and '.join(KINDS)}."))
        elif not isinstance(value[kind], dict):     # {} says that there are none; who leaves out all lines has perhaps erred
            problems.append(file.problem((kind,), "Must be names, and what each is; {} for none at all."))
    for kind, name, said in () if problems else file.all():
        keys = [*rows.KEYS[kind], WAS]
        if not isinstance(said, dict):
            problems.append(file.problem((kind, name), f"Must be keys and values, of {', '.join(keys)}."))
            continue
        problems += [file.problem((kind, name, key), f"There is no key {printable(key, 80)}; there are {', '.join(keys)}.")
                     for key in said if key not in keys]
        if WAS in said and not (isinstance(said[WAS], str) and said[WAS] not in value[kind]):
            problems.append(file.problem((kind, name, WAS), "Must be the name before this one, which nothing else has."))
    if problems:
        raise Wrong(problems)
    return file


class File(NamedTuple):
    name: str
    value: dict         # {kind: {name: {key: value}}}
    lines: dict         # see text.read

    def all(self, *kinds):
        return [(kind, name, said) for kind in kinds or KINDS for name, said in self.value.get(kind, {}).items()]

    def line(self, path):
        """The number of the line of what stands at `path`, a tuple of keys, or of what it is missing in."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def problem(self, path, words):
        """A sentence about what stands there."""
        where = ": ".join([*(printable(name, 100) for name in path[:2]), *([printable(".".join(path[2:]), 200)] if path[2:] else [])])
        return f"{self.name}, line {self.line(path)}: {where}: {words}"


def apply(file, by="", prune=False, dry_run=False, say=lambda outcome: None):
    """Makes targets and schedules what the file says, all or nothing. Of what it says nothing about, other kinds and
    pauses, nothing changes.

    by: who asked for it, as it is to stand with what is made and cancelled
    prune: also removes what the file lacks, of the kinds that it names
    dry_run: only finds out what would be done
    say: is called with the Outcome before it is done for good
    Returns an Outcome. Raises Wrong.
    """
    try:
        with transaction.atomic():
            outcome = _Applying(file, by).all(prune)
            say(outcome)
            if dry_run:
                transaction.set_rollback(True)
            return outcome
    except (IntegrityError, Target.DoesNotExist, Schedule.DoesNotExist):
        raise Wrong(["Somebody else has just changed some of this: run it again."]) from None


class _Applying:
    """One application of a file, within a transaction."""

    def __init__(self, file, by):
        self.file, self.by, self.problems, self.failed = file, by, [], []
        self.changes, self.same = {}, 0
        # Schedules first, and each by its id: so do all others that lock several rows.
        schedules, there = list(planner.locked().order_by("id")), list(targets.there().order_by("id"))
        by_id = {target.id: target for target in there}
        for one in schedules:
            one.target = by_id.get(one.target_id)
        self.before = {"schedules": {one.name: one for one in schedules}, "targets": {one.name: one for one in there}}

    def all(self, prune):
        for kind in KINDS:
            found = []
            for _, name, said in self.file.all(kind):
                said = dict(said)
                was = said.pop(WAS, None)
                found.append((self.before[kind].pop(name, None) or self.before[kind].pop(was, None), name, said))
            for stands, name, said in sorted(found, key=lambda one: (one[0] is None, one[0] and one[0].pk)):
                if kind == "targets" or said.get("target") not in self.failed:     # else nothing can be said of it yet
                    self._one(kind, stands, name, said)
        left = [(kind, name) for kind in KINDS for name in self.before[kind] if kind in self.file.value]
        if prune and not self.problems:
            for kind, name in reversed(left):       # schedules first, which name targets
                self._remove(kind, name)
            left = []
        if self.problems:
            raise Wrong([words for _, words in sorted(self.problems, key=lambda problem: problem[0])])
        order = dict.fromkeys([(kind, name) for kind, name, _ in self.file.all()] + list(self.changes))
        return Outcome([self.changes[key] for key in order if key in self.changes], self.same, left)

    def _one(self, kind, stands, name, said):
        if stands and stands.name == name and self._is(kind, stands, said):
            self.same += 1
            return
        try:
            row, old, new = (self._target if kind == "targets" else self._schedule)(stands, name, said)
        except Refusal as error:
            if kind == "targets":
                self.failed.append(name)
            for bad in error.detail.get("errors") or [{"key": "", "reason": error.detail["detail"]}]:
                path = (kind, name, *filter(None, bad["key"].split(".")))
                self.problems.append((self.file.line(path), self.file.problem(path, bad["reason"])))
            return
        if row.name != name:
            problem = self.file.problem((kind, name), "Must be a name without blanks around it.")
            self.problems.append((self.file.line((kind, name)), problem))
            return
        diff = self._diff(kind, stands, name, old, new)
        if not diff:
            self.same += 1
            return
        if kind == "targets":
            # It was read without a lock, as calls for it are made meanwhile.
            if stands and targets.locked().get(pk=stands.pk).version != stands.version:
                raise Target.DoesNotExist
            targets.save(row, self.by)
        else:
            hand_over_soon(planner.save(row, self.by))
        self.changes[kind, name] = Change(kind, name, "changed" if stands else "new", diff)

    def _is(self, kind, stands, said):
        """Whether it is already what the file says, in the words of an export. (In others it may be all the same.)"""
        if kind == "schedules":
            return same(rows.of_schedule(stands), said)
        try:
            _, values, places = rows.read_secrets(stands.name, said)
        except Refusal:
            return False
        return same(rows.of_target(stands, _held(stands, values, places)), said)

    def _target(self, stands, name, said):
        row, values, places = rows.target(stands, name, said)
        return row, stands and rows.of_target(stands, _held(stands, values, places)), rows.of_target(row, places)

    def _schedule(self, stands, name, said):
        row = rows.schedule(stands, name, said, self.by)
        return row, stands and rows.of_schedule(stands), rows.of_schedule(row)

    def _remove(self, kind, name):
        row = self.before[kind][name]
        try:
            (targets.delete(row.pk) if kind == "targets" else planner.delete(row.pk, self.by))
        except targets.InUse as error:
            self.problems.append((0, f"{kind}: {printable(name, 100)}: Cannot be removed: {error}. Cancel or change them first."))
            return
        old = rows.of_schedule(row) if kind == "schedules" else rows.of_target(row, dict.fromkeys(rows.secrets_of(row), HIDDEN))
        self.changes[kind, name] = Change(kind, name, "removed", self._diff(kind, row, name, old, None))

    def _diff(self, kind, stands, name, old, new):
        """From what stands in a file for it to what is to, "" if that is the same."""
        if stands and stands.name == name and same(old, new):
            return ""

        def lines(name, value):
            return [] if value is None else text.write({kind: {name: value}}).splitlines()
        title = f"{kind}: {printable(name, 100)}"
        found = difflib.unified_diff(lines(stands and stands.name, old), lines(name, new), f"{title}, as it is",
                                     f"{title}, as {printable(self.file.name)} has it", lineterm="")
        return "".join(f"{line}\n" for line in found)


def _held(target, values, places):
    """What is shown in the place of its secrets, beside those that a file asks for: whether one is another, and no more."""
    return {path: places[path] if path in places and rows.is_same(value, values.get(path)) else HIDDEN
            for path, value in rows.secrets_of(target).items()}
