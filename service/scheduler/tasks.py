"""What Celery runs: the dispatcher (`tick`) every TICK seconds, `notify` every few, and `make_calls` for each chunk.

A task only passes on what came, to a thread that was there from the start. So messages are taken in whatever
the database does, none is ever half done, and no limit on threads ends a worker.
"""
import logging
import threading

import kombu.exceptions
from celery import shared_task, signals
from django.db import InterfaceError, OperationalError, connection

from .base import outage
from .base.database import reason
from .calls import dispatch, ledger, worker
from .ops import heartbeat, notify as notices
from .schedules import planner

logger = logging.getLogger(__name__)

_due = threading.Event()    # a tick has come
_idle = threading.Event()   # and none is under way
_news = threading.Event()   # people are to be told what there is to tell


@signals.worker_init.connect
def start(**_):
    """Of a worker process: starts the threads in which the work is done."""
    worker.start()
    threading.Thread(target=_dispatcher, name="dispatcher", daemon=True).start()
    threading.Thread(target=_teller, name="teller", daemon=True).start()


@signals.worker_shutdown.connect
def stop(**_):
    """Once no message can come any more."""
    _due.clear()
    _idle.wait(worker.STOP_WITHIN)
    worker.stop()


def _dispatcher():
    """Ticks that piled up are one."""
    while True:
        _idle.set()
        _due.wait()
        _idle.clear()
        _due.clear()
        dispatch_all()


def _teller():
    """Whatever becomes of people's being told, calls are made."""
    while True:
        _news.wait()
        _news.clear()
        _done("notices", notices.tell)
        connection.close()


def _done(who, part):
    """Does a part of somebody's work. Returns whether it went well; else a line says what was wrong."""
    try:
        part()
        return True
    except (OperationalError, InterfaceError) as error:
        outage.database.began(reason(error))
    except kombu.exceptions.OperationalError as error:
        outage.broker.began(error)
        return False
    except Exception as error:
        logger.error("%s: %s: %s", who, type(error).__name__, error)
    connection.close()
    return False


def dispatch_all():
    """The dispatcher. Each part stands alone: trouble in one must not keep the others from their
    work. Calls are handed over first, as they are in a hurry. Only when all went well it says so
    to /healthz, and to HEARTBEAT_URL."""
    def done(part):
        return _done("dispatcher", part)
    if all([done(lambda: dispatch.hand_over(dispatch.send)), done(ledger.miss), done(ledger.reap), done(planner.compare),
            done(planner.plan)]):
        if done(dispatch.beat):
            outage.database_answered()
            done(heartbeat.beat)
    connection.close()      # who waits for nothing holds no connection


@shared_task
def tick():
    """Has the dispatcher run."""
    _due.set()


@shared_task
def notify():
    """Has people told what there is to tell."""
    _news.set()


@shared_task
def make_calls(ids, first=None):
    """Has the calls of one chunk made when they are due.

    ids: list of int; first: ISO 8601 str, when the first of them is due, for workers of the version before
    """
    worker.take(ids)
