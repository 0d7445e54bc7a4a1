"""Whether there is what calls need: the database, the broker, and a dispatcher that runs."""
from concurrent.futures import ThreadPoolExecutor, wait

import redis
from django.conf import settings
from django.db import connection

from ..base.database import within
from ..models import Heartbeat
from . import dispatch
from .ledger import NOW

WITHIN = 1.3                # seconds for each part to answer /healthz, all asked at the same time
DISPATCHER_SILENT = 30      # seconds without a tick, and /healthz says that the dispatcher is not well

_asking = ThreadPoolExecutor(8, thread_name_prefix="health")


def _since_beat():
    """Seconds since the dispatcher last ran well, or None if it never did. Raises DatabaseError, also when the
    database can be read and not written, as a server that is none any more after a failover."""
    try:
        with within(WITHIN):
            # Of no row, so that nobody waits for another. (A full disk keeps the dispatcher from its sign of life.)
            Heartbeat.objects.filter(name="").update(at=NOW)
            return dispatch.since_beat()
    finally:
        connection.close()


def try_broker(timeout=1, url=None):
    """Writes, which is what is needed of it: a Redis whose disk or memory is full, and a replica, answer and take
    nothing. Raises redis.RedisError.

    timeout: seconds; url: its address, None for REDIS_URL
    """
    with redis.Redis.from_url(url or settings.REDIS_URL, socket_timeout=timeout, socket_connect_timeout=timeout,
                              retry=None) as client:
        client.set("scheduler.health", 1, ex=60)


def parts(*more):
    """Asks database and broker, each in a thread of its own, as either may hang in a way that no time
    limit of its own ends (a name that is not resolved, a pool without a free connection).

    more: functions without parameters that are asked at the same time
    Returns ({part: "ok" or what is wrong}, seconds since the dispatcher last ran or None, [what each of
    `more` returned, or None if it failed]), within WITHIN.
    """
    asked = [_asking.submit(question) for question in (_since_beat, try_broker, *more)]
    wait(asked, WITHIN)

    def problem(future):
        if not future.done():
            future.cancel()
            return "TimeoutError"
        return type(future.exception()).__name__ if future.exception() else None
    age, database, broker = None, "ok", "ok"
    if error := problem(asked[0]):
        database = f"cannot be written ({error})"
    else:
        age = asked[0].result()
    if error := problem(asked[1]):
        broker = f"takes no messages ({error})"
    if age is None:
        dispatcher = "unknown" if database != "ok" else "has never run: are worker and beat up?"
    elif age < -1:
        dispatcher = f"says that it ran {-age:.0f} s from now: was the database's clock set back?"
    elif age > DISPATCHER_SILENT:
        dispatcher = f"has not run well for {age:.0f} s: are worker, beat and broker up?"
    else:
        dispatcher = "ok"
    return ({"database": database, "broker": broker, "dispatcher": dispatcher}, age,
            [None if problem(future) else future.result() for future in asked[2:]])
