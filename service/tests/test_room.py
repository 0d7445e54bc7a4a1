"""Limits of the machine: on open files, and on threads. What finds no room has not been called, and is tried again."""
import os

import pytest
from conftest import WORK, all_ended, in_seconds, until

from scheduler.models import ScheduledCall

FOR_THE_DATABASE = 8
NO_ROOM = "calls find no room on this machine"


def test_a_worker_takes_the_open_files_that_it_may_have(stack, api, log):
    """256 is what macOS gives by default."""
    stack.limits = ["prlimit", "--nofile=256:4096"]
    stack.start("worker")
    stack.limits = []
    stack.start("web", "beat")
    api.switched = "/delay/1"
    due = in_seconds(3)
    stack.post(*[due] * 300)
    assert all_ended(300) == {"Succeeded": 300}
    assert len(api.seen) == len(log(300)) == 300 and max(api.arrivals(due)) < 2, "all at once"
    assert "files open" not in stack.says("worker") and NO_ROOM not in stack.says("worker")


def test_more_calls_than_files_may_be_open_wait_for_each_other(stack, api, log):
    stack.limits = ["prlimit", "--nofile=256:256"]
    stack.start("worker")
    stack.limits = []
    stack.start("web", "beat")
    api.switched = "/delay/1"
    stack.post(*[in_seconds(3)] * 500)
    assert all_ended(500) == {"Succeeded": 500}
    assert len(api.seen) == len(log(500)) == 500
    assert stack.says("worker").count("192 calls can be on their way at once") == 1
    assert "Too many open files" not in stack.says("worker")


def test_files_that_somebody_else_has_taken_are_no_outcome(stack, api, log):
    """All but a few that may be open are open: not all have a connection to the API, but all are made once there is room
    again. A few, as a worker that has only now heard of its calls opens the database for them, and without that waits."""
    stack.start("web", "worker", "beat")
    stack.post(in_seconds(1))
    all_ended(1)
    worker = stack.processes["worker"].pid
    due = in_seconds(4)
    stack.post(*[due] * 20)
    until(lambda: ScheduledCall.objects.exclude(handed_over_at=None).count() == 21)
    with limited(worker, len(os.listdir(f"/proc/{worker}/fd")) + FOR_THE_DATABASE):
        until(lambda: NO_ROOM in stack.says("worker"))
    assert all_ended(21) == {"Succeeded": 21}
    assert len(api.seen) == len(log(21)) == 21 and min(api.arrivals(due)[1:]) >= 0
    assert stack.says("worker").count(NO_ROOM) == 1 and "Too many open files" in stack.says("worker")


class limited:
    """A process may have no more files open than that, for a while."""

    def __init__(self, pid, number):
        self.pid, self.number = pid, number

    def __enter__(self):
        import resource
        self.before = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (self.number, self.before[1]))

    def __exit__(self, *_):
        import resource
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.before)


@pytest.mark.skipif(os.geteuid() != 0, reason="the limit is on all processes of a user: it needs a user of its own")
def test_fewer_threads_than_calls(stack, api, log):
    """As with a container's limit on processes: they wait for each other, none is lost, and the worker goes on."""
    for path in [WORK, *WORK.iterdir()]:
        path.chmod(0o777)                       # the user may write to the database and the log
    rights = "+dac_override,+dac_read_search"   # and read Python, wherever it is
    stack.limits = ["prlimit", "--nproc=40", "setpriv", "--reuid=47611", "--regid=47611", "--clear-groups",
                    f"--inh-caps={rights}", f"--ambient-caps={rights}"]
    stack.start("worker")
    stack.limits = []
    stack.start("web", "beat")
    api.switched = "/delay/0.5"
    stack.post(*[in_seconds(3)] * 200, *[in_seconds(3 + i) for i in range(10)])
    assert all_ended(210, 60) == {"Succeeded": 210}
    assert len(api.seen) == len(log(210)) == 210
    assert stack.says("worker").count(NO_ROOM) == 1 and "can't start new thread" in stack.says("worker")
    assert stack.processes["worker"].poll() is None
