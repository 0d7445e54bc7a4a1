#!/usr/bin/env python3
"""How late do N calls that are due in the same second reach the server?

    python3 benchmarks/lateness.py                # everything: see README.md for how long
    python3 benchmarks/lateness.py --http --sizes 1,100 --rounds 3
    python3 benchmarks/lateness.py --beside other/api_scheduler.py --peers script,beside
    python3 benchmarks/lateness.py --json figures.json --picture lateness.png

The script and its alternatives (peers.py) take turns at making the same calls to the same
local server, several rounds long, each round in another order. The server notes when the
first byte of each request is read; lateness is that less the second it was due in. Standard
output is a Markdown report: tables, and the bars the script is held to; progress goes to
standard error.

HTTP is served by arrivals.c, HTTPS by nginx. Before the HTTPS runs a test CA is added to a
copy of the system's CA store, and the copy is mounted over the store in a mount namespace of
this program's own: its children see it, the rest of the machine does not. That needs root,
or a system that lets users have namespaces (unshare -rm).

Needs Linux, Python 3.11 or later with requirements.txt installed, curl, gcc and libssl-dev;
for HTTPS openssl and nginx; for --slow cron and at, and root.
"""

import argparse
import datetime
import functools
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from limit import STAGES, curl_costs, earliest
from report import (
    HERE,
    SCRIPT,
    Number,
    bar,
    clean_environment,
    machine,
    output_of,
    package_versions,
    print_bars,
    print_machine,
    progress,
    table,
    write_json,
)

SIZES = [1, 10, 100, 1000]  # calls due in the same second
ROUNDS = 5
NOTICE = 3.0  # seconds that each peer is started before the calls are due, and
NOTICE_PER_CALL = 0.02  # seconds more for each; what the script asks for to arm
PAUSE = 0.3  # seconds between one peer's end and the next one's start
LONGEST_RUN = 600  # seconds after the due time at which a peer is ended
LAST_ARRIVALS = 3.0  # seconds after a peer's end in which its requests may still be noted

SCRIPT_NAME = "api_scheduler.py"
FLOOR = "floor: only connects"
NAMES = {  # what a peer is called in reports, by its name in peers.py
    "script": SCRIPT_NAME,
    "beside": "api_scheduler.py beside",
    "plain": "the plain way",
    "apscheduler": "APScheduler",
    "schedule": "schedule",
    "aiohttp": "aiohttp",
    "cron": "cron",
    "at": "at",
    "floor": FLOOR,
}
QUICK = ["script", "plain", "apscheduler", "schedule", "aiohttp", "floor"]
SLOW = ["cron", "at"]

# What the script is held to: protocol, calls, then the last request's lateness at most
# `share` of a peer's, or `share` milliseconds if the peer is None.
BARS = [
    ("HTTP", 1, "bar", 2.0, None),
    ("HTTP", 1, "bar", 1 / 4, "apscheduler"),
    ("HTTP", 100, "bar", 1 / 8, "plain"),
    ("HTTP", 100, "bar", 1 / 3, "apscheduler"),
    ("HTTP", 100, "aim", 1, "aiohttp"),
    ("HTTP", 1000, "bar", 1 / 8, "plain"),
    ("HTTP", 1000, "aim", 1, "aiohttp"),
    ("HTTPS", 1, "bar", 1 / 4, "plain"),
    ("HTTPS", 100, "bar", 1 / 8, "plain"),
    ("HTTPS", 100, "aim", 2, "aiohttp"),
]

STORE = "/etc/ssl/certs"  # Debian's CA store: a hashed directory,
BUNDLE = STORE + "/ca-certificates.crt"  # and all of it in one file

NGINX = """
daemon off;
worker_processes auto;
worker_rlimit_nofile 65536;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
{user}
events {{
    worker_connections 8192;
    epoll_events 1;  # so that its clock, read once for each batch of events, is never old
}}
http {{
    log_format arrival "$msec $uri";
    access_log {folder}/https.txt arrival;
    keepalive_requests 10000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        location / {{
            default_type text/plain;
            return 200 "ok\\n";
        }}
    }}
}}
"""


# ------------------------------------------------------------------------- preparing


def tool(name, package):
    """Return the path of a program. Raises SystemExit, naming its Debian package, if missing."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        sys.exit("%s was not found: apt-get install %s" % (name, package))
    return path


def run(*command, **options):
    """Run a command. Raises SystemExit, with what it said, if it fails."""
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    if ended.returncode:
        said = ended.stdout.decode("utf-8", "replace")
        sys.exit("this failed: %s\n%s" % (" ".join(command), said))


def enter_namespace():
    """Start this program anew in a mount namespace of its own, if it is not in one yet."""
    if os.environ.get("LATENESS_NAMESPACE") == os.readlink("/proc/self/ns/mnt"):
        return
    unshare = tool("unshare", "util-linux")
    options = ["-m"] if os.geteuid() == 0 else ["-rm"]
    if subprocess.run([unshare] + options + ["true"], stderr=subprocess.DEVNULL).returncode:
        sys.exit("HTTPS and --slow need a mount namespace: run this as root, or with --http")
    script = 'LATENESS_NAMESPACE="$(readlink /proc/self/ns/mnt)" exec "$@"'
    command = [sys.executable, os.path.realpath(__file__)] + sys.argv[1:]
    os.execv(unshare, [unshare] + options + ["sh", "-c", script, "sh"] + command)


def add_test_ca(folder):
    """Make a test CA and a server's certificate, and have the CA in this namespace's store."""
    ca, ca_key = folder + "/ca.pem", folder + "/ca.key"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    new += ["-nodes", "-days", "2", "-subj"]
    run(*new, "/CN=Test CA of a benchmark", "-keyout", ca_key, "-out", ca)
    run(
        *new, "/CN=127.0.0.1", "-keyout", folder + "/server.key", "-out", folder + "/server.pem",
        "-CA", ca, "-CAkey", ca_key, "-addext", "subjectAltName=IP:127.0.0.1",
        "-addext", "basicConstraints=critical,CA:FALSE",
    )  # fmt: skip
    if not os.path.isfile(BUNDLE):
        sys.exit("%s was not found: apt-get install ca-certificates" % BUNDLE)
    copy = folder + "/certs"
    shutil.copytree(STORE, copy, symlinks=True)
    shutil.copy(ca, copy)
    name = output_of("openssl", "x509", "-hash", "-noout", "-in", ca)
    os.symlink("ca.pem", "%s/%s.0" % (copy, name))
    with open(ca) as file, open(copy + "/ca-certificates.crt", "a") as bundle:
        bundle.write(file.read())
    run("mount", "--bind", copy, STORE)


def compile_c(folder, name, *libraries):
    """Return the path of the program compiled from a C file of this folder."""
    program = folder + "/" + name
    run(tool("gcc", "gcc"), "-O2", "-o", program, "%s/%s.c" % (HERE, name), *libraries)
    return program


class Arrivals:
    """The requests that a server noted in a file, one a line: ``seconds path``."""

    def __init__(self, path):
        self.path = path
        self.read_up_to = 0

    def of(self, tag, calls, deadline):
        """Return when the requests for ``/tag`` came, sorted, in seconds since the epoch.

        Waits until there are as many as `calls`, at most until `deadline`.
        """
        times, end = [], False
        while not end and len(times) < calls:
            end = time.time() >= deadline
            with open(self.path) as file:
                file.seek(self.read_up_to)
                text = file.read()
            whole = text.rpartition("\n")[0]
            self.read_up_to += len(whole) + 1 if whole else 0
            lines = [line.split(" ") for line in whole.splitlines()]
            times += [float(moment) for moment, path in lines if path == "/" + tag]
            if not end and len(times) < calls:
                time.sleep(0.05)
        return sorted(times)


class HttpServer:
    """arrivals.c, which ends when its standard input does."""

    def __init__(self, folder):
        self.arrivals = Arrivals(folder + "/http.txt")
        with open(self.arrivals.path, "w") as file:
            self.process = subprocess.Popen(
                [compile_c(folder, "arrivals")],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.PIPE,
            )
        self.port = int(self.process.stderr.readline())
        self.url = "http://127.0.0.1:%d/" % self.port

    def close(self):
        self.process.communicate()


class HttpsServer:
    """nginx, one worker a processor, with a configuration of its own in a temporary folder."""

    def __init__(self, folder):
        nginx = tool("nginx", "nginx-light")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        user = "user root;" if os.geteuid() == 0 else ""
        with open(folder + "/nginx.conf", "w") as file:
            file.write(NGINX.format(folder=folder, port=self.port, user=user))
        self.process = subprocess.Popen(
            [nginx, "-p", folder, "-e", folder + "/nginx.log", "-c", folder + "/nginx.conf"]
        )
        self.url = "https://127.0.0.1:%d/" % self.port
        self.arrivals = Arrivals(folder + "/https.txt")
        deadline = time.time() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                if time.time() > deadline or self.process.poll() is not None:
                    self.close()
                    sys.exit("nginx did not start:\n" + read_end(folder + "/nginx.log"))
                time.sleep(0.05)

    def close(self):
        self.process.terminate()  # its workers end with it
        self.process.wait()


def read_end(path):
    """Return the last lines of a text file."""
    try:
        with open(path, errors="replace") as file:
            return "".join(file.readlines()[-5:]).strip()
    except OSError as error:
        return str(error)


# -------------------------------------------------------------------------- the runs


class Process:
    """A peer that is a program: started, left alone, and waited for."""

    def __init__(self, command, environ, folder):
        self.errors = folder + "/errors.txt"
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    def wait(self, deadline):
        """Wait for its end; return what went wrong, or "". No timer ticks meanwhile."""
        timer = threading.Timer(deadline - time.time(), self.kill)
        timer.start()
        try:
            status = self.process.wait()
        finally:
            timer.cancel()
        if not status:
            return ""
        return "exit status %d: %s" % (status, read_end(self.errors).rpartition("\n")[2])

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self):
        if self.process.poll() is None:
            self.kill()
            self.process.wait()


def start_script(due, calls, url, environ, folder, server, script=SCRIPT):
    moment = datetime.datetime.fromtimestamp(due, datetime.timezone.utc)
    with open(folder + "/times.txt", "w") as file:
        file.write((moment.strftime("%Y-%m-%dT%H:%M:%SZ") + "\n") * calls)
    command = [sys.executable, script, "@" + folder + "/times.txt"]
    command += ["--url", url, "--log-file", folder + "/script.log"]
    return Process(command, environ, folder)


def start_floor(due, calls, url, environ, folder, server):
    _, _, tag = url.rpartition("/")
    command = [folder + "/floor", str(due), str(calls), str(server.port), "/" + tag]
    return Process(command + ([BUNDLE] if url[:6] == "https:" else []), environ, folder)


def peer_starter(name):
    def start(due, calls, url, environ, folder, server):
        command = [sys.executable, HERE + "/peers.py", name, str(due), str(calls), url]
        return Process(command, dict(environ, REQUESTS_CA_BUNDLE=BUNDLE), folder)

    return start


class Spooled:
    """Calls that were handed to a daemon: they have ended when the server has noted them."""

    def __init__(self, server, url, calls):
        self.arrivals = server.arrivals
        self.ending = "/%s\n" % url.rpartition("/")[2]
        self.calls = calls

    def wait(self, deadline):
        while time.time() < deadline:
            with open(self.arrivals.path) as file:
                file.seek(self.arrivals.read_up_to)
                if file.read().count(self.ending) >= self.calls:
                    break
            time.sleep(1)
        return ""

    def close(self):
        pass


def start_cron(due, calls, url, environ, folder, server):
    """Give Debian's cron a crontab of one line a call, in place of the one before."""
    minute = time.strftime("%M %H %d %m", time.localtime(due))
    with open("/var/spool/cron/crontabs/root", "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(("%s * curl -s -o /dev/null %s\n" % (minute, url)) * calls)
    return Spooled(server, url, calls)


def start_at(due, calls, url, environ, folder, server):
    """Give Debian's at a job for each call."""
    minute = time.strftime("%Y%m%d%H%M", time.localtime(due))
    job = "curl -s -o /dev/null %s\n" % url
    for _ in range(calls):
        run("at", "-M", "-t", minute, input=job.encode(), env=environ)
    return Spooled(server, url, calls)


def start_daemons(folder, environ):
    """Start cron and atd with spools and pid files of their own; return their processes."""
    for path in ("/var/spool/cron", "/etc/cron.d", "/run"):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    with open(folder + "/crontab", "w"):
        run("mount", "--bind", folder + "/crontab", "/etc/crontab")
    for name, owner, mode in (
        ("crontabs", "root:crontab", 0o1730),
        ("atjobs", "daemon:daemon", 0o1770),
        ("atspool", "daemon:daemon", 0o1770),
    ):
        path = "/var/spool/cron/" + name
        os.mkdir(path)
        shutil.chown(path, *owner.split(":"))
        os.chmod(path, mode)
    counter = "/var/spool/cron/atjobs/.SEQ"
    with open(counter, "w"):
        shutil.chown(counter, "daemon", "daemon")
    commands = [tool("cron", "cron"), "-f"], [tool("atd", "at"), "-f"]
    return [
        subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]


STARTERS = {
    "script": start_script,
    "floor": start_floor,
    "cron": start_cron,
    "at": start_at,
    "plain": peer_starter("plain"),
    "apscheduler": peer_starter("apscheduler"),
    "schedule": peer_starter("schedule"),
    "aiohttp": peer_starter("aiohttp"),
}


def fast_trust_in_use(process):
    """Return whether an armed curl of the script was told to look CAs up in a directory."""
    tasks = "/proc/%d/task" % process.process.pid
    for task in os.listdir(tasks):
        try:
            with open("%s/%s/children" % (tasks, task)) as file:
                children = file.read().split()
            for child in children:
                with open("/proc/%s/cmdline" % child) as file:
                    return "--capath" in file.read().split("\0")
        except OSError:
            pass  # it has just ended
    return False


def measure(peer, calls, server, tag, environ, folder):
    """Have a peer make `calls` calls; return what became of them, times in milliseconds."""
    notice = NOTICE + NOTICE_PER_CALL * calls
    due = math.ceil(time.time() + notice)
    if peer in SLOW:
        due = math.ceil(due / 60) * 60
    running = STARTERS[peer](due, calls, server.url + tag, environ, folder, server)
    result = {}
    try:
        if peer == "script" and server.url[:6] == "https:":
            time.sleep(max(0, due - 1 - time.time()))
            result["fast_trust"] = fast_trust_in_use(running)
        trouble = running.wait(due + LONGEST_RUN)
    finally:
        running.close()
    times = server.arrivals.of(tag, calls, time.time() + LAST_ARRIVALS)
    late = [(moment - due) * 1000 for moment in times]
    result.update(peer=peer, calls=calls, due=due, arrived=len(late), trouble=trouble)
    if late:
        result.update(first=late[0], median=statistics.median(late), last=late[-1])
    return result


def measure_all(servers, peers, sizes, rounds, environ, folder):
    """Return a list of results of `measure`, each with its protocol and round."""
    results = []
    for protocol, server in servers.items():
        for calls in sizes:
            for number in range(rounds):
                turn = number % len(peers)
                for peer in peers[turn:] + peers[:turn]:
                    tag = "%s-%d-%d" % (peer, calls, number)
                    result = measure(peer, calls, server, tag, environ, folder)
                    results.append(dict(result, protocol=protocol, round=number))
                    progress(
                        "%-5s %4d calls, round %d of %d: %-20s last %9s ms  %s"
                        % (
                            protocol, calls, number + 1, rounds, NAMES[peer],
                            Number(result.get("last", math.nan)), result["trouble"],
                        )
                    )  # fmt: skip
                    time.sleep(PAUSE)
    return results


# ------------------------------------------------------------------------ the report


def summarise(results):
    """Return a dict from ``(protocol, calls, peer)`` to that row's figures, in milliseconds."""
    rows = {}
    for result in results:
        key = result["protocol"], result["calls"], result["peer"]
        rows.setdefault(key, []).append(result)
    summary = {}
    for key, rounds in rows.items():
        made = [one for one in rounds if "last" in one]
        row = {"rounds": len(rounds)}
        for name in ("first", "median", "last"):
            row[name] = statistics.median(one[name] for one in made) if made else math.nan
        row["least"] = min((one["last"] for one in made), default=math.nan)
        row["most"] = max((one["last"] for one in made), default=math.nan)
        row["arrived"] = sum(one["arrived"] for one in rounds)
        row["lost"] = key[1] * len(rounds) - row["arrived"]
        row["early"] = sum(one["first"] < 0 for one in made)
        summary[key] = row
    return summary


def judge(summary):
    """Return the bars that this run has figures for."""
    bars = []
    for protocol, calls, kind, share, peer in BARS:
        ours = summary.get((protocol, calls, "script"))
        work = "%d call%s, %s" % (calls, "" if calls == 1 else "s", protocol)
        if ours is None or (peer and (protocol, calls, peer) not in summary):
            continue
        if peer is None:
            asked = "%s: at most %g ms" % (kind, share)
            bars.append(bar(work, asked, share, ours["last"], "%s ms" % Number(ours["last"])))
            continue
        theirs = summary[protocol, calls, peer]["last"]
        name = NAMES[peer]
        wanted = "%g x" % share if share >= 1 else "1/%d of" % round(1 / share)
        asked = "%s: at most %s %s" % (kind, wanted, name)
        ratio = ours["last"] / theirs
        found = "1/%.1f of" % (1 / ratio) if ratio < 1 else "%.2f x" % ratio
        told = "%s ms to %s ms: %s" % (Number(ours["last"]), Number(theirs), found)
        bars.append(bar(work, asked, share, ratio, told))
    return bars


def print_pairs(results):
    """Print how the script's last request compares with that of the edition beside it, pair by pair."""
    pairs = {}
    for one in results:
        if one["peer"] in ("script", "beside") and "last" in one:
            rounds = pairs.setdefault((one["protocol"], one["calls"]), {})
            rounds.setdefault(one["round"], {})[one["peer"]] = one["last"]
    print("The last request's lateness, %s against %s, pair by pair:\n" % (SCRIPT_NAME, NAMES["beside"]))
    rows = []
    for (protocol, calls), rounds in pairs.items():
        ratios = sorted(one["script"] / one["beside"] for one in rounds.values() if len(one) == 2)
        if ratios:
            shown = ["%.2f" % ratio for ratio in (ratios[0], statistics.median(ratios), ratios[-1])]
            rows.append([protocol, calls, len(ratios)] + shown)
    table(["protocol", "calls", "pairs", "least", "median", "most"], rows)


def print_report(description, summary, results, costs, bars):
    print_machine(description)
    for protocol in dict.fromkeys(key[0] for key in summary):
        rounds = max(row["rounds"] for key, row in summary.items() if key[0] == protocol)
        print(
            "%s, lateness in milliseconds, medians over the rounds (%d); spread is the last "
            "request's from the best round to the worst:\n" % (protocol, rounds)
        )
        rows = [
            [calls, NAMES[peer]]
            + [Number(row[name]) for name in ("first", "median", "last")]
            + ["%s to %s" % (Number(row["least"]), Number(row["most"])), row["lost"]]
            for (of, calls, peer), row in summary.items()
            if of == protocol
        ]
        table(["calls", "by", "first", "median", "last", "spread", "lost"], rows)
    checked = [one["fast_trust"] for one in results if "fast_trust" in one]
    if checked:
        print(
            "The script's armed curls looked the CA up in the hashed directory (--capath on "
            "their command line) in %d of %d HTTPS runs.\n" % (sum(checked), len(checked))
        )
    early = [NAMES[key[2]] for key, row in summary.items() if row["early"]]
    print("Requests that came before they were due: %s.\n" % (", ".join(early) or "none"))
    print(
        "Processor time of one curl, armed as the script arms it, in milliseconds (the mean of "
        "many at once): from its start until it waits, from then until its request is sent, "
        "and from the answer until its end:\n"
    )
    rows = [[of] + [Number(cost[stage]) for stage in STAGES] for of, cost in costs.items()]
    table(["protocol", "to arm", "to send", "to end"], rows)
    print(
        "About so late the last of N requests is at the least, if a curl sends each and every "
        "processor does nothing else; and the script's last request:\n"
    )
    rows = [
        [of, calls, Number(earliest(costs[of], calls)), Number(row["last"])]
        for (of, calls, peer), row in summary.items()
        if peer == "script"
    ]
    table(["protocol", "calls", "limit, ms", SCRIPT_NAME + ", ms"], rows)
    if any(one["peer"] == "beside" for one in results):
        print_pairs(results)
    if bars:
        print("The last request's lateness, against the bars the script is held to:\n")
        print_bars(bars)


def draw(path, summary, description):
    """Draw the last request's lateness against the number of calls, a line a peer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    protocols = list(dict.fromkeys(key[0] for key in summary))
    figure, axes = pyplot.subplots(
        1, len(protocols), figsize=(5.5 * len(protocols), 5), sharey=True, squeeze=False
    )
    peers = list(dict.fromkeys(key[2] for key in summary))
    peers.sort(key=list(NAMES).index)
    colours = dict(zip(NAMES, pyplot.get_cmap("tab10").colors))
    for axis, protocol in zip(axes[0], protocols):
        for peer in peers:
            rows = {key[1]: row for key, row in summary.items() if key[::2] == (protocol, peer)}
            sizes = sorted(size for size, row in rows.items() if row["last"] > 0)
            last = [rows[size]["last"] for size in sizes]
            spread = [
                [max(0, rows[size]["last"] - rows[size]["least"]) for size in sizes],
                [max(0, rows[size]["most"] - rows[size]["last"]) for size in sizes],
            ]
            axis.errorbar(
                sizes,
                last,
                yerr=spread,
                label=NAMES[peer],
                color="0.6" if peer == "floor" else colours[peer],
                linestyle=":" if peer == "floor" else "-",
                linewidth=3 if peer == "script" else 1.5,
                marker="o",
                capsize=3,
            )
        axis.set(
            title=protocol,
            xscale="log",
            yscale="log",
            xlabel="calls due in the same second",
        )
        axis.grid(True, which="major", alpha=0.4)
    axes[0][0].set_ylabel("lateness of the last request, ms")
    axes[0][0].legend(fontsize=9)
    figure.suptitle("Less is better. Medians, and from the best round to the worst", fontsize=10)
    figure.text(0.5, 0.005, description["processors"], ha="center", fontsize=8, color="0.4")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Measure how late calls due in the same second reach a local server."
    )
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(size) for size in text.split(",")],
        default=SIZES,
        help="numbers of calls, with commas (%s)" % ",".join(map(str, SIZES)),
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default %d" % ROUNDS)
    parser.add_argument(
        "--peers",
        type=lambda text: text.split(","),
        metavar="NAMES",
        help="only these of %s, with commas" % ",".join(NAMES),
    )
    parser.add_argument("--beside", metavar="FILE", help="another api_scheduler.py, as a peer too")
    parser.add_argument("--http", action="store_true", help="HTTP only")
    parser.add_argument("--https", action="store_true", help="HTTPS only")
    parser.add_argument("--slow", action="store_true", help="cron and at too: minutes for each")
    parser.add_argument("--smallest", action="store_true", help="one round of one call each")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there")
    parser.add_argument("--picture", metavar="FILE", help="draw the figures there (.png or .svg)")
    arguments = parser.parse_args()
    if arguments.smallest:
        arguments.sizes, arguments.rounds = [1], 1
    if arguments.rounds < 1 or min(arguments.sizes) < 1:
        parser.error("sizes and rounds start at 1")
    if arguments.slow and os.geteuid():
        parser.error("--slow needs root, for cron and at have one spool for the whole system")
    everyone = QUICK + ["beside"] * bool(arguments.beside) + SLOW * arguments.slow
    arguments.peers = arguments.peers or everyone
    if not set(arguments.peers) <= set(everyone):
        parser.error("the peers are %s" % ", ".join(everyone))
    if arguments.beside:
        STARTERS["beside"] = functools.partial(start_script, script=os.path.abspath(arguments.beside))
        version = output_of(sys.executable, arguments.beside, "--version").split()[-1]
        NAMES["beside"] = "%s %s" % (SCRIPT_NAME, version)
    arguments.protocols = ["HTTP"] * arguments.http + ["HTTPS"] * arguments.https
    arguments.protocols = arguments.protocols or ["HTTP", "HTTPS"]
    return arguments


def main():
    arguments = parse_arguments()
    packages = package_versions()
    secure = "HTTPS" in arguments.protocols
    if secure or arguments.slow:
        enter_namespace()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so as to clean up
    import resource  # raised for all peers alike: the plain way and aiohttp need it for 1000

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    description = dict(machine(), **packages)
    peers = arguments.peers
    servers, costs, daemons = {}, {}, []
    with tempfile.TemporaryDirectory(prefix="lateness-") as folder:
        os.mkdir(folder + "/home")
        environ = clean_environment(folder + "/home")
        compile_c(folder, "floor", "-lssl", "-lcrypto", "-lpthread")
        try:
            if secure:
                add_test_ca(folder)
                nginx = output_of(tool("nginx", "nginx-light"), "-v")
                description["nginx"] = nginx.rpartition("/")[2]
            if arguments.slow:
                daemons = start_daemons(folder, environ)
            for protocol in arguments.protocols:
                server = {"HTTP": HttpServer, "HTTPS": HttpsServer}[protocol]
                servers[protocol] = server(folder)
                files = folder + "/server.pem", folder + "/server.key"
                costs[protocol] = curl_costs(files if protocol == "HTTPS" else None, environ)
            results = measure_all(
                servers, peers, arguments.sizes, arguments.rounds, environ, folder
            )
        finally:
            for daemon in daemons:
                daemon.terminate()
                daemon.wait()
            for server in servers.values():
                server.close()
            if secure:
                subprocess.run(["umount", STORE])
    summary = summarise(results)
    bars = judge(summary)
    print_report(description, summary, results, costs, bars)
    if arguments.json:
        document = {"machine": description, "bars": bars, "costs": costs, "results": results}
        write_json(arguments.json, document)
    if arguments.picture:
        draw(arguments.picture, summary, description)
    sys.exit(1 if any(row["lost"] for row in summary.values()) else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
