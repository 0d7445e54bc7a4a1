"""What the worker runs, within the test's own process: one chunk of calls, and one tick."""
import threading
import time
from datetime import timedelta

import pytest
from conftest import all_ended, make

from scheduler import tasks
from scheduler.base.clock import utcnow
from scheduler.calls import connection, dispatch, ledger
from scheduler.models import Heartbeat, ScheduledCall


def test_the_threads_of_the_first_burst_share_one_session_for_api_url_and_one_for_targets(api, monkeypatch):
    made, session = [], connection.requests.Session

    def slow():
        made.append(threading.current_thread().name)
        time.sleep(0.2)
        return session()
    monkeypatch.setattr(connection.requests, "Session", slow)
    connection.shared.cache_clear()
    connection.guarded.cache_clear()
    tasks.make_calls([call.id for call in make(-0.1, 10)])
    assert all_ended(10) == {"Succeeded": 10} and len(made) == 2


@pytest.mark.processes
@pytest.mark.parametrize("part", ["hand_over", "miss", "reap"])
def test_a_tick_of_which_a_part_failed_is_no_sign_of_life(monkeypatch, part):
    def broken(*_):
        raise RuntimeError("broken")
    running, late = make(-5, status="Running", lease_until=utcnow() - timedelta(1)), make(-3600)
    with monkeypatch.context() as patched:
        patched.setattr(dispatch if part == "hand_over" else ledger, part, broken)
        tasks.dispatch_all()
    assert not Heartbeat.objects.exists()
    ended = {call.status for call in ScheduledCall.objects.filter(id__in=[running.id, late.id])}
    assert ended == {"hand_over": {"Failed", "Missed"}, "miss": {"Failed", "Pending"},
                     "reap": {"Running", "Missed"}}[part], "the other parts did their work"
    tasks.dispatch_all()
    assert Heartbeat.objects.exists()
