"""`python3 counted_worker.py -A scheduler worker ...`: a worker that notes each statement of its connections to the
database: when, in seconds since the epoch, a line in the file that the environment's STATEMENTS names."""
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.argv[0] = "celery"

from celery.__main__ import main  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.dispatch import receiver  # noqa: E402

noted = open(os.environ["STATEMENTS"], "a", buffering=1)


def note(execute, *arguments):
    noted.write(f"{time.time()}\n")
    return execute(*arguments)


@receiver(connection_created)
def count(connection, **_):
    if note not in connection.execute_wrappers:
        connection.execute_wrappers.append(note)


main()
