#!/usr/bin/env python3
"""What does waiting cost, and how long does it take to start?

    python3 benchmarks/waiting.py
    python3 benchmarks/waiting.py --seconds 300 --json figures.json

Two scripts wait off a terminal, one with a single call to come and one with 100,000 (each in
a second of its own), beside a bare interpreter that only sleeps, all three during the same
seconds. Then the script plans (--dry-run) 1, 10,000 and 100,000 timestamps, several times in
turn with an interpreter that does nothing. Standard output is a Markdown report: tables, and
the bars the script is held to. Needs Linux, Python 3.8 or later and curl; no packages.
"""

import argparse
import datetime
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

from report import (
    SCRIPT,
    Number,
    bar,
    clean_environment,
    machine,
    print_bars,
    print_machine,
    progress,
    table,
    write_json,
)

SECONDS = 60  # of waiting that are measured
SETTLING = 5  # seconds from the start of the programs until they only wait
RUNS = 7  # of each program whose start is measured
FAR = 3600  # seconds until the first call: far enough that nothing is armed meanwhile
MANY = 100000  # timestamps
PLANNED = [1, 10000, MANY]
MB = 1e6  # bytes

MOST_PROCESSOR = 0.05  # % of one core
MOST_MEMORY = 1.5  # times the bare interpreter's
MOST_START = 1.5  # seconds to plan MANY
MOST_PEAK = 60  # MB to plan MANY, and to wait with them


def times_file(folder, count):
    """Return the path of a file with `count` timestamps, a second apart."""
    path = "%s/times-%d.txt" % (folder, count)
    start = datetime.datetime.fromtimestamp(int(time.time()) + FAR, datetime.timezone.utc)
    with open(path, "w") as file:
        for number in range(count):
            moment = start + datetime.timedelta(seconds=number)
            file.write(moment.strftime("%Y-%m-%dT%H:%M:%SZ\n"))
    return path


def script_command(folder, count, *options):
    command = [sys.executable, SCRIPT, "@" + times_file(folder, count)]
    # Nobody listens there, and nothing is called.
    return command + ["--url", "http://127.0.0.1:9/", "--log-file", folder + "/log"] + list(options)


def usage(pid):
    """Return ``(processor seconds, wake-ups)`` of a process so far, all its threads together.

    Processor time from schedstat, which counts nanoseconds; a wake-up is a voluntary switch,
    of which each follows a sleep (proc's manual, "/proc/pid/status").
    """
    processor, wakeups = 0, 0
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/schedstat" % (pid, task)) as file:
            processor += int(file.read().split()[0])
        with open("/proc/%d/task/%s/status" % (pid, task)) as file:
            wakeups += int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", file.read()).group(1))
    return processor / 1e9, wakeups


def memory(pid):
    """Return the resident and the proportional memory of a process, in MB."""
    with open("/proc/%d/smaps_rollup" % pid) as file:
        text = file.read()
    kilobytes = [re.search(name + r":\s*(\d+) kB", text).group(1) for name in ("Rss", "Pss")]
    return [int(number) * 1024 / MB for number in kilobytes]


def measure_waiting(commands, seconds, environ):
    """Run programs side by side and return a dict from name to what each used in `seconds`."""
    running = {}
    try:
        for name, command in commands.items():
            running[name] = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        time.sleep(SETTLING)
        before = {name: usage(process.pid) for name, process in running.items()}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        figures = {}
        for name, process in running.items():
            if process.poll() is not None:
                sys.exit("%s ended with exit status %d" % (name, process.returncode))
            processor, wakeups = usage(process.pid)
            resident, proportional = memory(process.pid)
            figures[name] = {
                "processor": (processor - before[name][0]) / took * 100,
                "wakeups": (wakeups - before[name][1]) / took,
                "resident": resident,
                "proportional": proportional,
            }
        return figures
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


STARTED = ("seconds", "processor", "peak")  # seconds, processor seconds, memory peak in MB

# A new process starts with the memory peak of the one that started it (getrusage's manual,
# "ru_maxrss"; it is kept across exec), so a small interpreter starts those to be measured.
STARTER = """
import os, sys, time
began = time.monotonic()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
print(status, time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def measure_start(command, environ):
    """Run a program from start to end; return what it took, as in `STARTED`."""
    starter = subprocess.run(
        [sys.executable, "-I", "-S", "-c", STARTER] + command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    status, took, processor, peak = map(float, starter.stdout.splitlines()[-1].split())
    if status:
        sys.exit("this failed: %s" % " ".join(command))
    return took, processor, peak * 1024 / MB


def measure_starts(commands, runs, environ):
    """Return a dict from name to lists of what each of `runs` starts, in turn, took."""
    figures = {name: {key: [] for key in STARTED} for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            for key, figure in zip(STARTED, measure_start(command, environ)):
                figures[name][key].append(figure)
    return figures


def print_report(description, waiting, starts, seconds, runs):
    print_machine(description)
    print("Waiting, measured side by side over %g seconds:\n" % seconds)
    head = ["program", "processor, % of a core", "wake-ups a second", "resident, MB", "PSS, MB"]
    names = ("processor", "wakeups", "resident", "proportional")
    rows = [
        [name, "%.4f" % one["processor"]] + [Number(one[key]) for key in names[1:]]
        for name, one in waiting.items()
    ]
    table(head, rows)
    print("Starting, in turn, medians over the runs (%d):\n" % runs)
    rows = [
        [
            name,
            Number(statistics.median(one["seconds"]) * 1000),
            "%s to %s" % tuple(Number(f(one["seconds"]) * 1000) for f in (min, max)),
            Number(statistics.median(one["processor"]) * 1000),
            Number(statistics.median(one["peak"])),
        ]
        for name, one in starts.items()
    ]
    head = ["program", "median, ms", "spread, ms", "processor, ms", "peak memory, MB"]
    table(head, rows)


def judge(waiting, starts):
    """Return the bars and what was measured."""
    bare, one, many = waiting.values()
    bars = []
    for work, used in (("waiting, 1 timestamp", one), ("waiting, 100,000 timestamps", many)):
        told = "%.4f %%" % used["processor"]
        asked = "bar: under %g %% of a core" % MOST_PROCESSOR
        bars.append(bar(work, asked, MOST_PROCESSOR, used["processor"], told))
    ratio = one["resident"] / bare["resident"]
    told = "%s MB to %s MB: %.2f x" % (Number(one["resident"]), Number(bare["resident"]), ratio)
    asked = "bar: resident at most %g x the bare interpreter" % MOST_MEMORY
    bars.append(bar("waiting, 1 timestamp", asked, MOST_MEMORY, ratio, told))
    asked = "bar: under %d MB" % MOST_PEAK
    told = "%s MB" % Number(many["resident"])
    bars.append(bar("waiting, 100,000 timestamps", asked, MOST_PEAK, many["resident"], told))
    figures = list(starts.values())[-1]
    took, peak = statistics.median(figures["seconds"]), statistics.median(figures["peak"])
    work = "planning 100,000 timestamps"
    bars.append(bar(work, "bar: under %g s" % MOST_START, MOST_START, took, "%.2f s" % took))
    bars.append(bar(work, asked, MOST_PEAK, peak, "%s MB" % Number(peak)))
    return bars


def parse_arguments():
    parser = argparse.ArgumentParser(description="Measure what it costs to wait and to start.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="default %d" % SECONDS)
    parser.add_argument("--runs", type=int, default=RUNS, help="of each start (%d)" % RUNS)
    parser.add_argument("--smallest", action="store_true", help="2 seconds, and one run")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    if arguments.smallest:
        arguments.seconds, arguments.runs = 2, 1
    if arguments.seconds <= 0 or arguments.runs < 1:
        parser.error("there must be some seconds, and a run")
    return arguments


def main():
    arguments = parse_arguments()
    description = machine()
    with tempfile.TemporaryDirectory(prefix="waiting-") as folder:
        os.mkdir(folder + "/home")
        environ = clean_environment(folder + "/home")
        sleep = "import time; time.sleep(%d)" % (arguments.seconds + SETTLING + 60)
        progress("waiting for %g seconds" % (arguments.seconds + SETTLING))
        waiting = measure_waiting(
            {
                "a bare interpreter, asleep": [sys.executable, "-c", sleep],
                "api_scheduler.py, 1 timestamp": script_command(folder, 1),
                "api_scheduler.py, 100,000 timestamps": script_command(folder, MANY),
            },
            arguments.seconds,
            environ,
        )
        progress("starting each program %d times" % arguments.runs)
        commands = {"a bare interpreter, doing nothing": [sys.executable, "-c", "pass"]}
        for count in PLANNED:
            name = "api_scheduler.py --dry-run, {:,} timestamp{}".format(count, "s"[: count > 1])
            commands[name] = script_command(folder, count, "--dry-run")
        starts = measure_starts(commands, arguments.runs, environ)
    bars = judge(waiting, starts)
    print_report(description, waiting, starts, arguments.seconds, arguments.runs)
    print("Against the bars the script is held to:\n")
    print_bars(bars)
    if arguments.json:
        document = {"machine": description, "bars": bars, "waiting": waiting, "starts": starts}
        write_json(arguments.json, document)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
