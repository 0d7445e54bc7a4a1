"""The Celery application: `celery -A scheduler worker` and `celery -A scheduler beat`.

Celery only carries. What is due, what is being called and how it ended is in the database alone,
so a lost, late or repeated message costs at most a few seconds: see transitions.py.
"""
import logging
import os

from celery import Celery
from kombu.transport import redis

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler.settings")

app = Celery("scheduler")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


class ForgivingQoS(redis.QoS):
    """Gives messages that wait for their ETA back to Redis when the worker stops, as kombu does, but
    survives that Redis is not there.

    When the connection is lost, kombu 5.7 tries to give them back over a connection that it has just
    taken apart; the AttributeError ends the worker's consumer for good ("Unrecoverable error"): after
    a restart of Redis while a call waits, the worker would make no call any more. The messages may
    be lost; the dispatcher hands their calls over again.
    """

    def restore_unacked(self, client=None):
        try:
            super().restore_unacked(client)
        except Exception as error:
            logging.getLogger(__name__).warning(
                "%d messages could not be given back to Redis (%s); the dispatcher will hand their "
                "calls over again", len(self._delivered), error)
            self._delivered.clear()


redis.Channel.QoS = ForgivingQoS
