"""`python3 manage.py prune 90`: deletes calls that ended more than 90 days ago."""
from datetime import timedelta

from django.core.management.base import BaseCommand, CommandError

from scheduler.base.clock import utcnow
from scheduler.base.database import unlimited
from scheduler.calls import targets
from scheduler.ops.prune import prune
from scheduler.schedules import planner

KEYS_KEPT = timedelta(days=1)   # after it an Idempotency-Key may be used anew


class Command(BaseCommand):
    help = ("Deletes finished calls older than DAYS, attempts that are older than their targets keep them, what is left of deleted schedules and targets without "
            "calls, and Idempotency-Keys older than a day, in batches.")

    def add_arguments(self, parser):
        parser.add_argument("days", type=float, metavar="DAYS", help="age in days, counted from the end")

    def handle(self, *, days, **options):
        try:
            age = timedelta(days=days)
            before = utcnow() - age
        except (OverflowError, ValueError):
            raise CommandError("DAYS must be a number of days.")
        if days < 0:
            raise CommandError("DAYS must not be negative.")
        with unlimited():
            calls, keys = prune(before, utcnow() - KEYS_KEPT)
            planner.prune()
            targets.prune()
        self.stdout.write(f"Deleted {calls} finished calls and {keys} idempotency keys.")
