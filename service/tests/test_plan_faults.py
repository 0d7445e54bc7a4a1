"""The planner among random faults, from a seed: two dispatchers whose clocks are hours off, and people who
make, change and delete schedules, are killed between any two statements; calls are cancelled, moved and
made meanwhile. In the end each occurrence is there once, and what a person cancelled has not come back.
"""
import json
import random
import subprocess
import sys
import uuid
from datetime import timedelta

from conftest import LONG, SEED, SERVICE, WORK, until
from plan_process import OFF

from scheduler.base.clock import utcnow
from scheduler.calls import ledger
from scheduler.calls.attempt import Outcome
from scheduler.models import Schedule, ScheduledCall
from scheduler.schedules import planner
from scheduler.schedules.recurrence import DAY, between

STEPS = 40                          # of a run as part of tests/run
PASSING = timedelta(hours=40)       # in that time; more than 48 would leave occurrences that are only counted
RULES = [{"cron": "*/20 * * * *", "times": "", "zone": "UTC"}, {"cron": "0 * * * *", "times": "", "zone": "UTC"},
         {"cron": "*/7 * * * *", "times": "", "zone": "Asia/Kolkata"},
         {"cron": "", "times": "02:30:00, 03:30:00, 12:00:00", "zone": "Europe/Berlin"},
         {"cron": "", "times": "02:15:00, 18:00:00", "zone": "Australia/Lord_Howe"}]


class Process:
    """plan_process.py, see there."""

    def __init__(self, what, seed, file):
        self.process = subprocess.Popen(
            [sys.executable, SERVICE / "tests" / "plan_process.py", what, str(seed), str(file)], cwd=SERVICE,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(WORK / "planning.log").open("a"), text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n", (WORK / "planning.log").read_text()

    def end(self):
        """How many of its children were killed."""
        return int((self.process.communicate(timeout=60)[0].split() or [0])[-1])


class Run:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.file = WORK / "now"
        self.start = self.now = utcnow()
        self.tell()
        self.since = {}             # {schedule id: when it was last changed, at the latest}
        self.cancelled = set()      # ids of calls
        self.made = set()
        self.names = 0

    def tell(self):
        new = self.file.with_suffix(".new")
        new.write_text(self.now.isoformat())
        new.replace(self.file)

    def change(self):
        """Makes, changes, renames, switches or deletes a schedule."""
        number = self.rng.choice([None, *self.living()])
        self.names += 1
        if number and self.rng.random() < 0.15:
            fields = None
        else:
            fields = {"name": f"schedule {self.names}"}
            if number is None or self.rng.random() < 0.7:
                fields |= self.rng.choice(RULES)
            if number and self.rng.random() < 0.3:
                fields["on"] = self.rng.choice([True, False])
        self.changes.ask(json.dumps([number, fields]))
        for number in Schedule.objects.filter(pk=number) if number else Schedule.objects.exclude(pk__in=self.since):
            self.since[number.pk] = self.now

    def living(self):
        return list(Schedule.objects.filter(deleted_at=None).values_list("pk", flat=True))

    def pending(self):
        rows = ScheduledCall.objects.filter(status="Pending").order_by("timestamp", "id")
        number = rows.count()
        return rows[self.rng.randrange(number)] if number else None

    def cancel(self):
        if (call := self.pending()) and ledger.cancel([call.pk]):
            self.cancelled.add(call.pk)

    def move(self):
        if call := self.pending():
            ledger.move(call.pk, call.timestamp + timedelta(seconds=7))

    def make(self):
        """What becomes of a call when it is due."""
        if call := self.pending():
            token = uuid.uuid4().hex
            if ledger.claim([call.pk], token, now=call.timestamp)[0]:
                self.made.add(call.pk)
                if self.rng.random() < 0.5:
                    outcome = Outcome(call.pk, call.timestamp, "Succeeded", self.now, self.now, 200, "")
                    ledger.finish([(outcome, token)])

    def caught_up(self):
        return not Schedule.objects.filter(planned_until__lt=self.now + planner.AHEAD - OFF).exists()

    def check(self):
        """What must be so at any time, whoever is killed or at work."""
        words = f"seed {SEED}, at {self.now}"
        for schedule in Schedule.objects.all():
            words = f"seed {SEED}, at {self.now}, {schedule.pk}: {schedule.times}{schedule.cron} {schedule.zone}"
            # Those that a change cancelled stand for no occurrence any more.
            standing = list(schedule.calls.exclude(occurrence=None).values_list("pk", "status", "occurrence"))
            occurrences = {occurrence for _, _, occurrence in standing}
            pending = {occurrence for _, status, occurrence in standing if status == "Pending"}
            assert len(standing) == len(occurrences), words
            assert {pk for pk, status, _ in standing if status == "Cancelled"} <= self.cancelled, words
            if schedule.planned_until is None:
                assert (schedule.deleted_at or not schedule.on) and not pending, words
                continue
            assert schedule.on and not schedule.deleted_at, words
            assert not set(between(schedule.rule, self.since[schedule.pk], schedule.planned_until)) - occurrences, words
            # A dispatcher may have planned on meanwhile.
            assert pending <= set(between(schedule.rule, self.start, schedule.planned_until + 2 * DAY)), words
        calls = ScheduledCall.objects.filter(occurrence=None)
        assert set(calls.values_list("status", flat=True)) <= {"Cancelled"}, words
        for ids, statuses in ((self.cancelled, {"Cancelled"}), (self.made, {"Running", "Succeeded"})):
            rows = ScheduledCall.objects.filter(pk__in=ids, occurrence__isnull=False)
            assert rows.count() == len(ids) and set(rows.values_list("status", flat=True)) <= statuses, words

    def go(self, steps):
        self.changes = Process("change", self.rng.random(), self.file)
        dispatchers = [Process("dispatch", self.rng.random(), self.file) for _ in range(2)]
        try:
            for _ in range(steps):
                self.rng.choice([self.change] * 3 + [self.cancel] * 2 + [self.move, self.make])()
                self.check()
                if self.rng.random() < 0.3:
                    until(self.caught_up, 60)
                self.now += PASSING / steps
                self.tell()
        finally:
            killed = [process.end() for process in [self.changes, *dispatchers]]
        return killed


def test_each_occurrence_once_whatever_happens():
    run = Run(SEED)
    killed = run.go(int(LONG * 4) or STEPS)
    words = f"seed {SEED}, killed {killed}, {ScheduledCall.objects.count()} calls, {len(run.since)} schedules"
    print(words)
    assert all(killed), f"{words}; {(WORK / 'planning.log').read_text()}"
    planner.plan(run.now + OFF, seconds=60)
    run.check()
    ahead = set(Schedule.objects.exclude(planned_until=None).values_list("planned_until", flat=True))
    assert min(ahead, default=run.now + DAY * 9) >= run.now + OFF + planner.AHEAD, words
