"""How early could a curl for each call be at all? What an armed curl costs the processor.

Used by lateness.py. Curls armed just as the script arms them are fired together at a server
that holds its answers back, so that their processor time can be read between the stages of
their life. If every processor did nothing else, N requests would take N times the middle one,
shared out.
"""

import os
import socket
import ssl
import statistics
import subprocess
import sys
import time

from report import SCRIPT

sys.path.insert(0, os.path.dirname(SCRIPT))
import api_scheduler  # noqa: E402  (for the command line that it gives to curl)

BATCH = 50  # curls at once; one alone is slower, its memory being cold
STAGES = ("start", "send", "end")
STEP = 0.02  # seconds between two looks at whether a curl still works
TIMEOUT = 10  # seconds for each stage


def processor_time(pid):
    """Return the processor time in seconds that a process of one thread has used."""
    with open("/proc/%d/schedstat" % pid) as file:
        return int(file.read().split()[0]) / 1e9


def when_it_waits(pid):
    """Return a process's processor time once it uses no more."""
    before = -1
    while processor_time(pid) != before:
        before = processor_time(pid)
        time.sleep(STEP)
    return before


def costs_of_batch(command, listener, url, context, environ):
    """Return a list with each curl's processor seconds, by stage."""
    curls, connections, costs = [], [], []
    try:
        for _ in range(BATCH):
            curls.append(
                subprocess.Popen(
                    command, bufsize=0, env=environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
                )
            )
        started = [when_it_waits(curl.pid) for curl in curls]
        for curl in curls:
            curl.stdin.write(api_scheduler.curl_config([("url", url)]))
            curl.stdin.close()
        for _ in curls:
            connection, _ = listener.accept()
            connection.settimeout(TIMEOUT)
            if context:
                connection = context.wrap_socket(connection, server_side=True)
            connections.append(connection)
            connection.recv(4096)
        sent = [when_it_waits(curl.pid) for curl in curls]
        for connection in connections:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
        for curl, started_at, sent_at in zip(curls, started, sent):
            _, status, used = os.wait4(curl.pid, 0)
            curl.returncode = status
            if status:
                sys.exit("curl failed with status %d: %s" % (status, " ".join(command)))
            whole = used.ru_utime + used.ru_stime
            costs.append((started_at, sent_at - started_at, whole - sent_at))
        return costs
    finally:
        for curl in curls:
            if curl.poll() is None:
                curl.kill()
                curl.wait()
        for connection in connections:
            connection.close()


def curl_costs(certificate, environ):
    """Return a dict from stage to the mean processor time of a curl in milliseconds.

    `certificate` is a pair of paths, the server's certificate and its key, or None for HTTP.
    """
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    with socket.create_server(("127.0.0.1", 0), backlog=BATCH) as listener:
        listener.settimeout(TIMEOUT)
        scheme = "https" if certificate else "http"
        url = "%s://127.0.0.1:%d/" % (scheme, listener.getsockname()[1])
        asked = api_scheduler.ask_curl(api_scheduler.Settings(url, "", TIMEOUT, TIMEOUT, []))
        trust = api_scheduler.fast_trust(*asked, url, environ)
        command = api_scheduler.curl_command(*asked, TIMEOUT, trust)
        costs = costs_of_batch(command, listener, url, context, environ)
    return {stage: statistics.mean(of) * 1000 for stage, of in zip(STAGES, zip(*costs))}


def earliest(cost, calls):
    """Return about how late the last of `calls` requests is at the least, in milliseconds."""
    return max(1, calls / os.cpu_count()) * cost["send"]
