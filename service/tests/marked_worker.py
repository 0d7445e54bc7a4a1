"""`python3 marked_worker.py -A scheduler worker ...`: a worker whose requests for calls without a target say of which
row they are, in a header, so that a test can tell for each row how often the API saw it, and when. (Those of calls
with a target say it themselves.)"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.argv[0] = "celery"

from celery import signals  # noqa: E402
from celery.__main__ import main  # noqa: E402


@signals.celeryd_init.connect
def mark(**_):
    import requests

    from scheduler.calls.connection import current

    send = requests.Session.send

    def marked(self, request, **options):
        request.headers["X-Call"] = str(current.attempt.id)
        return send(self, request, **options)
    requests.Session.send = marked


main()
