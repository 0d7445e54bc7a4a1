"""The API Scheduler service: calls one API at the times asked for, and accounts for every call.

A house with wings, each of which stands only on those below it (tests/test_house.py):

    tasks.py urls.py    what Celery runs, and where everything is
    admin/ api/ ops/    for people, for programs, for the operator; none of them knows of the others
    schedules/          when
    calls/              what and how
    models.py           what the database keeps
    base/               clock, database, outages, moments, words, zones

Read in the order in which a call meets the code: api/calls.py (asked for), calls/ledger.py (every change of
its status), calls/dispatch.py (handed over), calls/worker.py (made), calls/attempt.py (the HTTP request),
calls/log.py (its line in the log).
"""
from .celery import app as celery_app

__all__ = ["celery_app"]
