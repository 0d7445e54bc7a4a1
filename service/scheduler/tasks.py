"""What Celery runs: the dispatcher (`tick`) every TICK seconds, and `make_calls` for each chunk."""
import logging
from datetime import datetime

import kombu.exceptions
from celery import shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from .base import outage
from .base.clock import steady
from .base.database import reason
from .calls import dispatch, ledger, worker
from .ops import notify
from .schedules import planner

logger = logging.getLogger(__name__)

_last_tick = None           # by steady()


@shared_task
def tick():
    """The dispatcher. Each part stands alone: trouble in one must not keep the others from their
    work. Calls are handed over first, as they are in a hurry. Only when all went well it says so
    to /healthz.

    Ticks that piled up while no worker ran are one. Celery's `expires` would see to that too, but by
    comparing the clocks of two machines: with one of them wrong by 30 s there would be none at all."""
    global _last_tick
    now = steady()
    if _last_tick is not None and now - _last_tick < settings.TICK / 2:
        return
    _last_tick = now

    def done(part):
        try:
            part()
            return True
        except (OperationalError, InterfaceError) as error:
            outage.database.began(reason(error))
            connection.close()
        except kombu.exceptions.OperationalError as error:
            outage.broker.began(error)
        except Exception as error:
            logger.error("dispatcher: %s: %s", type(error).__name__, error)
            connection.close()
        return False
    handed_over = done(lambda: dispatch.hand_over(dispatch.send))
    done(notify.tell)   # calls are made whether anybody is told or not
    if all([handed_over, done(ledger.miss), done(ledger.reap), done(planner.compare), done(planner.plan)]):
        if done(dispatch.beat):
            outage.database.over()


@shared_task(Strategy="scheduler.celery:by_the_database")
def make_calls(ids, first):
    """Makes the calls of one chunk, all due in the same second, and writes how they ended.

    ids: list of int; first: ISO 8601 str, when the first of them is due
    """
    worker.make(ids, datetime.fromisoformat(first))
