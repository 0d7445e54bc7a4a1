"""`python3 manage.py reencrypt`: encrypts the secrets of all targets with the first key of SECRETS_KEY."""
from django.core.management.base import BaseCommand, CommandError

from scheduler.base.database import unlimited
from scheduler.calls import targets


class Command(BaseCommand):
    help = ("Encrypts the secrets of all targets with the first key of SECRETS_KEY. To change the key: put the new one "
            "before the old one, restart all processes, run this, then take the old one out.")

    def handle(self, **options):
        with unlimited():
            done, unreadable = targets.reencrypt_all()
        self.stdout.write(f"Encrypted the secrets of {done} targets with the first key of SECRETS_KEY.")
        if unreadable:
            raise CommandError("SECRETS_KEY lacks the key of the secrets of " + ", ".join(unreadable)
                               + ": add it behind the first, or give these secrets anew.")
