"""`python3 manage.py apply calls.yaml`: makes targets and schedules what a file says."""
import sys
from collections import Counter
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from scheduler.base.database import reason, unlimited
from scheduler.base.words import one_line, printable
from scheduler.files.apply import apply, read
from scheduler.files.text import Wrong

BY_MAX = 150
LARGEST = 10_000_000    # bytes; tens of thousands of targets
PROBLEMS_MAX = 50       # that are named one by one
LOCK = 5        # seconds for which it waits for others who change something


class Command(BaseCommand):
    help = ("Makes targets and schedules what FILE says, which `export` writes, all or nothing. Secrets are taken from the "
            "environment variables that it names.")

    def add_arguments(self, parser):
        parser.add_argument("file", metavar="FILE", help="YAML, - for standard input")
        parser.add_argument("--dry-run", action="store_true", help="only show what would change, as a diff")
        parser.add_argument("--prune", action="store_true", help="remove the targets and the schedules that the file lacks")
        parser.add_argument("--by", default="apply", metavar="NAME",
                            help="who is named by what it makes and cancels; `apply` if it is left out")

    def handle(self, *, file, dry_run, prune, by, **options):
        try:
            one_line(by, BY_MAX)
        except ValueError as error:
            raise CommandError(f"The name of --by {error}.")
        try:
            with sys.stdin.buffer if file == "-" else Path(file).open("rb") as source:
                data = source.read(LARGEST + 1)
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}.")
        if len(data) > LARGEST:
            raise CommandError(f"{file} is larger than {LARGEST // 1_000_000} MB. Nothing was changed.")
        try:
            with unlimited(LOCK):
                outcome = apply(read(data, "standard input" if file == "-" else printable(file)), by, prune, dry_run, self.say)
        except Wrong as error:
            number = len(error.problems)
            more = [f"And {number - PROBLEMS_MAX} more."] if number > PROBLEMS_MAX else []
            raise CommandError("\n".join([*error.problems[:PROBLEMS_MAX], *more, f"Nothing was changed. There {'is' if number == 1 else 'are'} "
                                                           f"{number} thing{'s' if number > 1 else ''} to mend."]))
        except OperationalError as error:
            raise CommandError(f"The database: {printable(reason(error))}. All or nothing was done: run it again.")
        counts = Counter(change.what for change in outcome.changes)
        done = ", ".join([f"{counts[what]} {what}" for what in ("new", "changed", "removed") if counts[what]] + [f"{outcome.same} as before"])
        self.stdout.write(f"{'Would be' if dry_run else 'Done'}: {done}.")

    def say(self, outcome):
        """What is changed, what is removed, and what is left."""
        for change in outcome.changes:
            self.stdout.write(change.diff)
        if outcome.left:
            self.stdout.write("Not in the file, and left as they are (--prune removes them): "
                              + ", ".join(f"{kind[:-1]} {printable(name, 100)}" for kind, name in outcome.left) + ".")
        self.stdout.flush()
