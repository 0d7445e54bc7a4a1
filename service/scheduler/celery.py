"""The Celery application: `celery -A scheduler worker` and `celery -A scheduler beat`.

Celery only carries. What is due, what is being called and how it ended is in the database alone,
so a lost, late or repeated message costs at most a few seconds: see calls/ledger.py.
"""
import logging
import os

from billiard.exceptions import RestartFreqExceeded
from celery import Celery, beat, bootsteps, schedules, signals
from django.conf import settings
from kombu.exceptions import OperationalError
from redis import RedisError

from .base import clock, outage, zones

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler.settings")

app = Celery("scheduler")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


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
def beat_every_tick(sender, **_):
    """What beat does. It stands here, as the settings are only read."""
    sender.add_periodic_task(Every(settings.TICK), sender.signature("scheduler.tasks.tick"), name="dispatcher")
    sender.add_periodic_task(Every(2 * settings.TICK), sender.signature("scheduler.tasks.notify"), name="notices", expires=2 * settings.TICK)


class Beat(beat.Scheduler):
    """Celery's scheduler, in few words when the broker is away."""

    producer = None         # of its own, for whose connection Celery would ask before `apply_entry` can say a word

    def apply_entry(self, entry, producer=None):
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:
            outage.broker.began(error.__context__ or error)
        else:
            outage.broker.over()


class Consumes(bootsteps.StartStopStep):
    """Of a worker: it has declared its queues, which is a write, for the first time or again."""

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, consumer):
        outage.broker.over()


app.steps["consumer"].add(Consumes)


class BrokerAway(logging.Filter):
    """Keeps what Celery says when the broker is away, several lines for each try, from the log. Says one line
    instead, as README promises. It goes by the exceptions that Celery names, and not by its words."""

    ERRORS = RedisError, OSError, OperationalError

    def filter(self, record):
        said = [*(record.args or ()), *(record.exc_info or ())]
        if any(isinstance(what, RestartFreqExceeded) for what in said):
            return False                # a second's pause, between two of a thousand tries
        error = next((what for what in said if isinstance(what, self.ERRORS)), None)
        if error:
            outage.broker.began(error)
        return not error


logging.getLogger("celery.worker.consumer.consumer").addFilter(BrokerAway())


@signals.celeryd_init.connect
@signals.beat_init.connect
def know_the_time(**_):
    """Measures this machine's clock before the first message comes, and in beat to tell of a wrong one."""
    clock.utcnow()


@signals.celeryd_after_setup.connect
def know_the_zones(**_):
    """Says by which time zone data schedules are planned here, where there are two."""
    if zones.words():
        logging.getLogger(__name__).info("%s", zones.words())
