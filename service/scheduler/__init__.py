"""The API Scheduler service: calls one API at the times asked for, and accounts for every call.

A house with wings, each of which stands only on those below it (tests/test_house.py):

    tasks.py urls.py management/    what Celery runs, where everything is, and commands
    files/                          targets and schedules as a file
    admin/ api/ ops/                for people, for programs, for the operator; none of them knows of the others
    site.py                         the frame of all pages for people
    schedules/                      when
    calls/                          what and how
    models/                         what the database keeps
    settings.py                     the environment
    base/                           clock, database, outages, moments, words, secrets, zones

Read in the order in which a call meets the code: api/calls.py (asked for), calls/ledger.py (every change of
its status), calls/dispatch.py (handed over), calls/worker.py (made), calls/attempt.py (the HTTP request),
calls/log.py (its line in the log).
"""
from .celery import app as celery_app

__all__ = ["celery_app"]
