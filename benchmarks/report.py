"""What the benchmarks have in common: the machine's description, tables, and bars.

Everything is printed as Markdown, so that it reads well on a terminal and can be pasted.
"""

import importlib.metadata
import json
import os
import platform
import re
import ssl
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
SCRIPT = os.path.join(os.path.dirname(HERE), "api_scheduler.py")

PACKAGES = ("APScheduler", "requests", "schedule", "aiohttp")  # those whose version matters

# They choose a CA, a proxy or a curlrc, which a user's machine has no reason to.
UNWANTED = re.compile(
    r"(?i)(CURL_CA_BUNDLE|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|\w+_proxy|CURL_HOME|XDG_CONFIG_HOME)"
)


def clean_environment(home):
    """Return this process's environment without what would change how a peer connects.

    `home` is an empty folder to be the home folder, so that no curlrc is found.
    """
    environ = {name: value for name, value in os.environ.items() if not UNWANTED.fullmatch(name)}
    environ["HOME"] = home
    return environ


def output_of(*command):
    """Return what a command prints, both streams, or "" if it cannot be run."""
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError:
        return ""
    return ended.stdout.decode("utf-8", "replace").strip()


def machine():
    """Return a dict of what the figures depend on: the machine, and versions."""
    with open("/proc/cpuinfo") as file:
        models = re.findall(r"model name\s*: (.*)", file.read()) or [platform.machine()]
    with open("/proc/meminfo") as file:
        memory = int(re.search(r"MemTotal:\s*(\d+)", file.read()).group(1))
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    curl = output_of("curl", "--version").partition("\n")[0].split()
    tls = [word for word in curl if re.search("(?i)ssl/|tls/", word) and word[0] != "("]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processors": "%d x %s" % (os.cpu_count(), models[0]),
        "memory": "%.0f GiB" % (memory / 2**20),
        "system": "%s, Linux %s" % (system, platform.release()),
        "load": "%.1f when the run began" % os.getloadavg()[0],
        "Python": "%s, %s" % (platform.python_version(), ssl.OPENSSL_VERSION),
        "curl": ", ".join(curl[1:2] + tls),
        "api_scheduler.py": output_of(sys.executable, SCRIPT, "--version").split()[-1],
    }


def package_versions():
    """Return a dict of the peers' versions. Raises SystemExit if one is not installed."""
    try:
        return {name: importlib.metadata.version(name) for name in PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        sys.exit(
            "%s is not installed: pip install -r %s/requirements.txt" % (error.name, HERE)
        )


def table(head, rows):
    """Print a Markdown table with aligned columns; numbers, as all but text, to the right."""
    cells = [list(map(str, row)) for row in [head] + rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    right = [not isinstance(value, str) for value in rows[0]] if rows else [False] * len(head)
    cells.insert(1, ["-" * (width - 1) + (":" if r else "-") for width, r in zip(widths, right)])
    for row in cells:
        padded = [
            text.rjust(width) if r else text.ljust(width)
            for text, width, r in zip(row, widths, right)
        ]
        print("| %s |" % " | ".join(padded))
    print()


class Number(float):
    """A figure of a table, shown with as many decimals as its size deserves."""

    def __str__(self):
        decimals = 0 if abs(self) >= 100 else 1 if abs(self) >= 10 else 2
        return "%.*f" % (decimals, self)


def print_bars(bars):
    """Print what was to be shown and whether it was: dicts made by `bar`."""
    rows = [[bar["work"], bar["asked"], bar["measured"], bar["reached"]] for bar in bars]
    table(["work", "bar", "measured", "reached"], rows)


def bar(work, asked, most, value, measured):
    """Return one bar as a dict: `value` is to be at most `most`, and is told as `measured`."""
    reached = "yes" if value <= most else "**no**"
    return {"work": work, "asked": asked, "measured": measured, "reached": reached}


def print_machine(description):
    for name, value in description.items():
        print("- %s: %s" % (name, value))
    print()


def write_json(path, document):
    """Write `document` to a file. Raises SystemExit if that cannot be done."""
    try:
        with open(path, "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
    except OSError as error:
        sys.exit("%s cannot be written: %s" % (path, error.strerror))


def progress(text):
    print(text, file=sys.stderr, flush=True)
