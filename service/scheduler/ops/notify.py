"""Being told: mails to FAILURES_TO when calls fail or are missed, and when they succeed again.

Told at once is the first failure; then at most one mail each EVERY sums up the rest. When none has been
added for EVERY, and a call that was due since has succeeded, one mail says so, and the next failure is a
first one again. So mails of failures are never less than EVERY apart, however calls go up and down.

Each call that failed or was missed is gathered once: it is marked as told, and what a mail says of it is
added to `waiting` of the one Notice, in one transaction. There it stays until a mail server has taken the
mail. The mark, and not a time up to which all was told, because an outcome may be written long after the
call ended: workers keep outcomes while the database is away.

A Notice changes only by a conditional UPDATE on the version that was read, so of several dispatchers one
gathers, and one sends. What it claims for sending is its own for LEASE. A dispatcher that dies between
sending and noting that it has sent leaves a mail that is sent again: rather twice than not at all.

The mail server is spoken to in a thread of its own, outside of any transaction, and for no longer than
WITHIN. While it is away, hangs or refuses, `waiting` grows by a number, and nothing else waits.
"""
import logging
import smtplib
import socket
import threading
from contextlib import suppress
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend
from django.db import connection, transaction
from django.db.models import Subquery

from ..base import outage
from ..base.clock import steady
from ..base.moments import moment
from ..base.words import hidden, printable, redacted
from ..calls.ledger import BATCH, NOW
from ..models import Heartbeat, Notice, ScheduledCall

logger = logging.getLogger(__name__)
Status = ScheduledCall.Status

EVERY = timedelta(minutes=15)       # between two mails about failures
WITHIN = 60                         # seconds for one mail: connection, TLS, login and all answers
LEASE = timedelta(seconds=WITHIN + 30)      # of who sends, with some time to note it
AGAIN = timedelta(minutes=1)        # after a mail server that could not be reached, or said "later"
SEEN_EVERY = timedelta(minutes=1)   # a dispatcher notes that mails are wanted
OFF = timedelta(minutes=10)         # of ticks without such a note: they were not
BATCHES = 10                        # gathered in one tick at most, so that none is a long one
FEW = 10                            # calls that a mail names
UNKNOWN = "outcome unknown"         # in the error of a call of which the API has perhaps done what it asks for

_thread = None                      # that this process sends with, or sent


def tell(now=NOW):
    """The dispatcher's part: gathers what failed, and has a thread send a mail if one is due. Nothing
    but `now` is waited for but the database: two short SELECTs, as long as nothing fails.

    now: expression of an aware datetime; by default the database's clock
    """
    global _thread
    if not settings.FAILURES_TO:
        return
    notice = _look(now)
    if not notice or _lasts(notice.tried_at, notice.pause, notice.now):
        return                      # it has only begun, or somebody sends, or the server is given time
    for _ in range(BATCHES):
        if notice.untold and not _gather(notice):
            return                  # somebody else was first
    mail = _due(notice)
    # However long a name server or a handshake takes, this process waits for one of them.
    if mail and not (_thread and _thread.is_alive()) and _change(notice, tried_at=now, pause=LEASE):
        _thread = threading.Thread(target=_send, args=(notice, now, *mail), name="mail", daemon=True)
        _thread.start()


def _look(now):
    """The Notice, with the time as `now`, and whether there are failures to gather as `untold`; None
    if it begins with this very moment, as mails were not wanted until now."""
    beat = Heartbeat.objects.filter(name="dispatcher").values("at")
    notice = Notice.objects.filter(id=1).annotate(now=now, beat=Subquery(beat)).first()
    if notice is None:
        Notice.objects.get_or_create(id=1, defaults={"since": now, "seen_at": now})
        return None
    if notice.beat and notice.beat - notice.seen_at > OFF:
        # The dispatcher ran for a while, and nobody looked here: it begins anew. (When there was no
        # dispatcher for a while, what was missed then is told.)
        _change(notice, since=notice.now, seen_at=notice.now, waiting={}, told_at=None, failed_at=None,
                failing=False, tried_at=None)
        return None
    if notice.now < notice.since:   # the clock was set back
        _change(notice, since=notice.now)
        return None
    if notice.now - notice.seen_at > SEEN_EVERY:
        Notice.objects.filter(id=1).update(seen_at=notice.now)      # no change that others must know of
    notice.untold = _untold(notice).values_list("id").first() is not None       # exists() would drop the order
    return notice


def _untold(notice):
    """The failures that are not gathered yet, in the order of the index that holds them and no others:
    without it PostgreSQL guesses that the first is soon met among all rows. The index's condition is an
    OR, in it and here: for an IN with parameters SQLite would not use it."""
    return ScheduledCall.objects.filter(
        ScheduledCall.UNTOLD, ended_at__gte=notice.since).order_by("ended_at")


def _change(notice, **values):
    """Changes the row, unless somebody has since it was read. Returns whether."""
    changed = Notice.objects.filter(id=1, version=notice.version).update(version=notice.version + 1, **values)
    notice.version += 1
    return bool(changed)


def _lasts(since, duration, now):
    """Whether it is `since` for no longer than `duration`. What lies in the future is over: the
    database's clock was set back."""
    return since is not None and since <= now < since + duration


def _gather(notice):
    """Adds up to BATCH failures to what waits to be told. Returns whether nobody else was first."""
    with transaction.atomic():
        calls = list(_untold(notice).values_list(
            "id", "status", "timestamp", "ended_at", "error", "target__name")[:BATCH])
        if not calls:               # pruned since they were seen
            notice.untold = False
            return True
        waiting = {"first": None, "last": None, "calls": [], Status.FAILED: 0, Status.MISSED: 0, UNKNOWN: 0, **notice.waiting}
        for call_id, status, due, ended_at, error, target in calls:
            waiting[status] += 1
            waiting[UNKNOWN] += UNKNOWN in error
            at = ended_at.isoformat()
            waiting["first"] = min(waiting["first"] or at, at)
            waiting["last"] = max(waiting["last"] or at, at)
            if len(waiting["calls"]) < FEW:
                # Four of each: a dispatcher of the version before may send it.
                waiting["calls"].append([due.isoformat(), call_id, status,
                                         printable(f"target {target}, {error}" if target else error, 200)])
        if not _change(notice, waiting=waiting, failed_at=notice.now):
            return False
        ScheduledCall.objects.filter(id__in=[call[0] for call in calls]).update(told=True)
    notice.waiting, notice.failed_at, notice.untold = waiting, notice.now, len(calls) == BATCH
    return True


def _due(notice):
    """What is to be sent now, as (subject, body, what to change once it is sent), or None."""
    api = f"What is called, where no target is named: {printable(redacted(settings.API_URL))}\n\n"
    if waiting := notice.waiting:
        if _lasts(notice.told_at, EVERY, notice.now):
            return None
        failed, missed = waiting[Status.FAILED], waiting[Status.MISSED]
        numbers = ", ".join([f"{failed} failed"] * bool(failed) + [f"{missed} missed"] * bool(missed))
        lines = [f"Due {_moment(due)}, call {call_id}, {status.lower()}: {error}\n"
                 for due, call_id, status, error in waiting["calls"]]
        more, unknown = failed + missed - len(lines), waiting.get(UNKNOWN)      # a version before has counted none
        return (f"API Scheduler: {numbers}",
                f"{api}{numbers}; the first ended at {_moment(waiting['first'])}, the last at "
                f"{_moment(waiting['last'])}.\n\n"
                + "".join(lines) + (f"And {more} more.\n" if more else "")
                + (f"\n{unknown} of them with an unknown outcome: the API has perhaps done what it was asked for. Look there "
                   "before you make such a call again.\n" if unknown else "")
                + "\nThe admin has them all. The next mail about failures comes in "
                f"{EVERY.total_seconds() / 60:g} minutes at the earliest.\n",
                {"waiting": {}, "told_at": notice.now, "failing": True})
    if not notice.failing or _lasts(notice.failed_at, EVERY, notice.now):
        return None
    since = ScheduledCall.objects.filter(timestamp__gt=notice.failed_at, timestamp__lte=notice.now)
    call = since.filter(status=Status.SUCCEEDED).order_by("timestamp").first()
    return call and (
        "API Scheduler: calls succeed again",
        f"{api}Calls succeed again, beginning with call {call.id}, due {_moment(call.timestamp.isoformat())}. "
        f"None has failed or been missed since {_moment(notice.failed_at.isoformat())}.\n",
        {"failing": False})


def _moment(iso):
    return moment(datetime.fromisoformat(iso))


def _send(notice, now, subject, body, sent):
    """Sends what `notice` was claimed for, and notes how that went."""
    server = Server(timeout=settings.EMAIL_TIMEOUT)
    try:
        # So that nobody's notice of absence answers it (RFC 3834, section 5).
        EmailMessage(subject, body, to=settings.FAILURES_TO, connection=server,
                     headers={"Auto-Submitted": "auto-generated"}).send()
        outage.mail.over()
        values = {**sent, "pause": timedelta(0)}
    except Exception as error:
        pause = EVERY if _final(error) else AGAIN
        outage.mail.began(hidden(printable(str(error) or type(error).__name__)),
                          f"Mails wait; the next attempt is in {pause.total_seconds() / 60:g} min")
        values = {"pause": pause}
    try:
        _change(notice, tried_at=now, **values)
    except Exception as error:
        logger.error("a mail was sent, or not, and that cannot be noted; it is sent again: %s: %s",
                     type(error).__name__, error)
    finally:
        connection.close()
        with suppress(Exception):
            server.close()


def _final(error):
    """Whether to ask again soon would only annoy: the server said no for good, or may have taken it."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, Unknown) or getattr(error, "smtp_code", 0) >= 500


class Unknown(smtplib.SMTPException):
    """The connection broke when the server had the mail and had not said yet whether it takes it."""


class _InTime:
    """Of smtplib.SMTP: its timeout is one for each read, of a single byte maybe; this ends the whole
    conversation after WITHIN. And a recipient that was refused is told of, as Django does not."""

    def __init__(self, *args, **kwargs):
        self._ends = steady() + WITHIN
        self._cut = threading.Timer(WITHIN, self._shut)
        self._cut.daemon = True
        self._cut.start()
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            self._cut.cancel()
            raise

    def _shut(self):
        if self.sock:
            with suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def data(self, message):
        if steady() >= self._ends:      # it connected too late to be cut: the mail is somebody else's by now
            raise smtplib.SMTPServerDisconnected(f"not within {WITHIN} s")
        try:
            return super().data(message)
        except smtplib.SMTPServerDisconnected as error:
            raise Unknown(f"no answer whether it takes a mail ({error})") from error

    def sendmail(self, *args, **kwargs):
        refused = super().sendmail(*args, **kwargs)
        for address, (code, text) in refused.items():
            logger.error("the mail server takes no mail for %s: %s",
                         address, hidden(printable(f"{code} {text!r}")))
        return refused

    def quit(self):
        with suppress(OSError):         # it has the mail, whatever it says now
            super().quit()
        self.close()

    def close(self):
        self._cut.cancel()
        super().close()


class _SMTP(_InTime, smtplib.SMTP):
    pass


class _SMTPS(_InTime, smtplib.SMTP_SSL):
    pass


class Server(EmailBackend):
    """Django's, with an end to its patience."""

    @property
    def connection_class(self):
        return _SMTPS if self.use_ssl else _SMTP
