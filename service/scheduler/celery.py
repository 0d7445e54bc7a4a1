"""The Celery application: `celery -A scheduler worker` and `celery -A scheduler beat`.

Celery only carries. What is due, what is being called and how it ended is in the database alone,
so a lost, late or repeated message costs at most a few seconds: see calls/ledger.py.
"""
import logging
import os
from datetime import datetime

from celery import Celery, beat, bootsteps, schedules, signals
from celery.worker.strategy import default
from django.conf import settings
from kombu.transport import redis

from .base import clock, outage

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler.settings")

app = Celery("scheduler")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


def by_the_database(task, app, consumer, **kwargs):
    """How a worker takes in a task: as Celery does, but an ETA is meant by the database's clock, and
    this machine's may be wrong."""
    handle = default(task, app, consumer, **kwargs)

    def corrected(message, *args, **kwargs):
        if eta := message.headers.get("eta"):
            message.headers["eta"] = (datetime.fromisoformat(eta) + clock.ahead()).isoformat()
        return handle(message, *args, **kwargs)
    return corrected


class Every(schedules.schedule):
    """Every so many seconds, by a clock that nobody sets: Celery's own would pause for as long as this
    machine's clock is put back."""

    _next = None

    def is_due(self, last_run_at):
        now = clock.steady()
        if self._next is None:
            self._next = now
        if now < self._next:
            return schedules.schedstate(False, self._next - now)
        self._next = max(self._next + self.seconds, now)
        return schedules.schedstate(True, self._next - now)


@app.on_after_configure.connect
def dispatch_every_tick(sender, **_):
    """What beat does. It stands here, as the settings are only read."""
    sender.add_periodic_task(Every(settings.TICK), sender.signature("scheduler.tasks.tick"), name="dispatcher")


class Beat(beat.Scheduler):
    """Celery's scheduler, in few words when the broker is away."""

    def apply_entry(self, entry, producer=None):
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:
            outage.broker.began(error)
        else:
            outage.broker.over()


class Connected(bootsteps.StartStopStep):
    """Of a worker: it has a connection to the broker, for the first time or again."""

    requires = {"celery.worker.consumer.connection:Connection"}

    def start(self, consumer):
        outage.broker.over()


app.steps["consumer"].add(Connected)


class BrokerAway(logging.Filter):
    """Keeps what Celery and kombu say when the broker is away, with a traceback for each message and a
    line for each try, from the log. Says one line instead."""

    SAYS = ("Couldn't ack", "Couldn't reject", "consumer: Connection to broker lost", "consumer: Cannot connect",
            "beat: Connection error")

    def filter(self, record):
        if not record.getMessage().startswith(self.SAYS):
            return True
        error = next((argument for argument in record.args or () if isinstance(argument, Exception)), "")
        outage.broker.began(error)
        return False


for name in ("celery.worker.consumer.consumer", "celery.worker.request", "celery.beat"):
    logging.getLogger(name).addFilter(BrokerAway())

# Celery warns each time that the broker goes, in eight lines, of tasks that are acknowledged late. There are none.
logging.getLogger("py.warnings").addFilter(
    lambda record: "worker_cancel_long_running_tasks_on_connection_loss" not in record.getMessage())


@signals.celeryd_init.connect
@signals.beat_init.connect
def know_the_time(**_):
    """Measures this machine's clock before the first message comes, and in beat to tell of a wrong one."""
    clock.utcnow()


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
            logging.getLogger(__name__).debug(
                "%d messages could not be given back to Redis (%s); the dispatcher will hand their "
                "calls over again", len(self._delivered), error)
            self._delivered.clear()


redis.Channel.QoS = ForgivingQoS
