"""`python3 manage.py export >calls.yaml`: targets and schedules as a file, for `apply`."""
from django.core.management.base import BaseCommand

from scheduler.files.apply import described
from scheduler.files.text import write


class Command(BaseCommand):
    help = ("Writes all targets and schedules as YAML. In the place of each secret stands the name of an environment variable, "
            "which `apply` takes it from.")

    def handle(self, **options):
        found, variables = described()
        if variables:
            self.stdout.write("# Secrets, from the environment: " + ", ".join(variables))
        self.stdout.write(write(found), ending="")
