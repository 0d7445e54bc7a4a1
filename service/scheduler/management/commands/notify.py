"""`python3 manage.py notify`: sends a notice by each channel, to try them."""
from django.core.management.base import BaseCommand, CommandError

from scheduler.base.channels import send
from scheduler.calls import targets
from scheduler.ops.notify import WITHIN, channels, message, problem


class Command(BaseCommand):
    help = "Tries who is told when calls fail: sends a notice by each channel of FAILURES_TO and NOTIFY, or of a target."

    def add_arguments(self, parser):
        parser.add_argument("--target", metavar="NAME", help="by the channels that are told of this target")

    def handle(self, target=None, **options):
        if target is not None and not (found := targets.there().filter(name=target).first()):
            raise CommandError(f"There is no target {target!r}.")
        ways = channels(found if target is not None else None)
        if not ways:
            raise CommandError("Nobody is told: set NOTIFY, or FAILURES_TO, in the environment.")
        wrong = 0
        for way in ways:
            answer, = send([message(way, "API Scheduler: a try", "Somebody tries whether notices of failures come here. They do.\n",
                                    "info")], WITHIN)
            why = problem(way, answer)
            wrong += bool(why)
            self.stdout.write(f"{way.name}: {why or 'taken'}")
        if wrong:
            raise CommandError(f"{wrong} of {len(ways)} took nothing.")
