"""What test_plan_faults.py kills: it starts this, which forks a process for each piece of work, and that
process kills itself with SIGKILL at random, between two statements, or before or after a commit.

    python3 plan_process.py dispatch SEED FILE       # plans over and over, until its standard input ends
    python3 plan_process.py change SEED FILE         # carries out each line, [id or null, {field: value}]

FILE holds the time that it is. Dispatchers' clocks are wrong by up to OFF.
"""
import json
import os
import random
import select
import signal
import sys
import traceback
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
OFF = timedelta(hours=3)


def main(what, seed, file):
    import django
    django.setup()
    rng = random.Random(seed)
    died = 0
    while True:
        line = ""
        if what == "change" or select.select([sys.stdin], [], [], 0)[0]:
            line = sys.stdin.readline()
            if not line:
                break
        seed = rng.random()
        child = os.fork()
        if not child:
            work(what, line, random.Random(seed), Path(file))
        status = os.waitpid(child, 0)[1]
        if status not in (0, signal.SIGKILL):
            sys.exit("it failed")
        died += status == signal.SIGKILL
        if what == "change":
            print("done", flush=True)
    print(died, flush=True)


def work(what, line, rng, file):
    from django.db import OperationalError, connections

    from scheduler.schedules import planner
    from scheduler.models import Schedule

    left = rng.randrange(60 if what == "dispatch" else 40)

    def perhaps_die():
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(execute, *arguments):
        perhaps_die()
        result = execute(*arguments)
        perhaps_die()
        return result

    def commit():
        perhaps_die()
        commits()
        perhaps_die()

    def now():
        return datetime.fromisoformat(file.read_text())

    connection = connections["default"]
    commits, connection.commit = connection.commit, commit
    status = 0
    with connection.execute_wrapper(statement):
        try:
            if what == "dispatch":
                for _ in range(20):
                    planner.plan(now() + OFF * rng.uniform(-1, 1), 10)
            else:
                planner.asked = now
                number, fields = json.loads(line)
                if fields is None:
                    planner.delete(number)
                else:
                    schedule = Schedule.objects.get(pk=number) if number else Schedule()
                    for name, value in fields.items():
                        setattr(schedule, name, value)
                    planner.save(schedule)
        except (OperationalError, Schedule.DoesNotExist):
            pass        # SQLite's lock, for too long; deleted by a change that seemed to have died
        except BaseException:
            traceback.print_exc()
            status = 1
    os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
