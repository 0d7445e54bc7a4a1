"""The process that sends notices: `python3 -m scheduler.ops.send`. Who starts it ends it when it takes too long.

On standard input is a line of JSON for each: {"title", "body", "url", "own"}, and in place of a url {"mail": {"to", "from",
and what Django's EmailBackend takes}}. For each it answers with one line, null once it was taken, or what is wrong. It says
nothing else, whatever libraries may write: an address of a channel holds what lets it in.
"""
import json
import logging
import mimetypes
import os
import re
import signal
import smtplib
import socket
import sys
import zoneinfo
from contextlib import suppress
from urllib.parse import urlsplit

from django.conf import settings

from ..calls import networks

NICE = 10               # calls that are due go before
ALONE = 120             # seconds after which it ends by itself, should who started it be dead

# What those channels need of this machine, by the names of audit events (PEP 578), is nothing of this.
OF_THE_MACHINE = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "syslog.syslog"}

_refused = []           # where this process was not to connect to
_unread = []            # files that it was not to read


def main():
    answers = os.fdopen(os.dup(1), "w")
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    with suppress(OSError):
        os.nice(NICE)
    signal.alarm(ALONE)
    for line in sys.stdin:
        if json.loads(line).get("own"):
            keep_to_public()
            keep_to_itself()
        print(json.dumps(deliver(json.loads(line))), file=answers, flush=True)


def deliver(notice):
    """Sends one notice. Returns None, or what is wrong."""
    try:
        return _mail(notice) if "mail" in notice else _notify(notice)
    except Exception as error:
        return str(error) or type(error).__name__ if "mail" in notice else type(error).__name__


def _mail(notice):
    """With Django's: Apprise sends one mail to each recipient, so that one who is refused has the others told again."""
    from django.core.mail import EmailMessage
    from django.core.mail.backends.smtp import EmailBackend

    class Server(EmailBackend):
        """Django's does not say who was refused."""

        class connection_class(smtplib.SMTP_SSL if notice["mail"]["server"]["use_ssl"] else smtplib.SMTP):
            def sendmail(self, *args, **kwargs):
                refused.update(super().sendmail(*args, **kwargs))

    refused, mail = {}, notice["mail"]
    # So that nobody's notice of absence answers it (RFC 3834, section 5).
    message = EmailMessage(notice["title"], notice["body"], mail["from"], mail["to"], headers={"Auto-Submitted": "auto-generated"})
    with Server(**mail["server"]) as server:
        try:
            server.send_messages([message])
        except smtplib.SMTPServerDisconnected as error:
            return f"it hung up ({error})"
    return {"refused": {address: f"{code} {text!r}" for address, (code, text) in refused.items()}} if refused else None


def _notify(notice):
    import apprise
    said = []

    class Says(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())
    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [Says()], False
    logger.setLevel(logging.WARNING)
    channel = apprise.Apprise.instantiate(notice["url"], asset=apprise.AppriseAsset(app_id="API Scheduler", app_desc="API Scheduler"))
    if channel is None:
        return "Apprise does not understand its address"
    if "overflow=" not in notice["url"]:        # what is too long for it is sent in parts, and not refused
        channel.overflow_mode = apprise.OverflowMode.SPLIT
    if channel.notify(body=notice["body"], title=notice["title"], body_format=apprise.NotifyFormat.TEXT,
                      notify_type=notice.get("type", "failure")):
        return None
    if _refused:
        return "it is at no public address, and TARGET_NETWORKS does not allow it"
    # What it says may hold parts of the address.
    status = re.search(r"error=([1-5]\d\d)\b", " ".join(said))
    if status:
        return f"HTTP status {status[1]}"
    if "onnection error" in " ".join(said):
        return "it cannot be reached"
    return "it names a file of this machine, and those are not read for a target" if _unread else "it does not take it"


def keep_to_public():
    """From now on this process connects to where targets may be, and nowhere else: also where a name leads that means
    another address a moment later, and a redirect."""
    proxy = urlsplit(settings.TARGET_PROXY)
    allowed = networks.allowed
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:     # those are not for targets
        del os.environ[name]
    if proxy.hostname:
        os.environ.update(http_proxy=settings.TARGET_PROXY, https_proxy=settings.TARGET_PROXY)
        ways = {entry[4][0] for entry in socket.getaddrinfo(proxy.hostname, None)}
        allowed = ways.__contains__

    def watch(event, args):
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and (address := args[1]) is not None:
            if not (isinstance(address, tuple) and allowed(address[0])):
                _refused.append(address)
                raise PermissionError("not allowed")
    sys.addaudithook(watch)


def keep_to_itself():
    """From now on this process reads the code of its libraries, and no other file, and writes and starts nothing: some
    kinds of channels send what stands in a file that their address names (`?template=`), and whoever may change a target
    is not to be told what this service knows."""
    mimetypes.init()                    # reads what there is on the machine, once
    here = os.path.join(os.path.realpath(settings.BASE_DIR), "")
    folders = [os.path.join(os.path.realpath(path), "") for path in (*sys.path, *zoneinfo.TZPATH) if path]
    folders = tuple(folder for folder in folders if not here.startswith(folder))

    def watch(event, args):
        if event in OF_THE_MACHINE:
            raise PermissionError("not allowed")
        if event == "open" and isinstance(args[0], (str, bytes)):
            path, flags = os.path.realpath(os.fsdecode(args[0])), args[2]
            if flags & (os.O_WRONLY | os.O_RDWR) or not path.startswith(folders):
                if not flags & (os.O_WRONLY | os.O_RDWR):
                    _unread.append(path)
                raise PermissionError("not allowed")
    sys.addaudithook(watch)


if __name__ == "__main__":
    main()
