"""Being told: notices to people when calls fail or are missed, and when they succeed again.

Who is told are the channels of FAILURES_TO and NOTIFY, or those of the target alone, if it has any. Each (a row of Told) is
told of each target by itself:

* that its calls begin to fail, after `notify_after` final failures in a row; at once of a call that was missed, and of
  one whose outcome is unknown, as somebody has to look. (What a person's own pause has cost is no news.)
* while they do, once a day, how many more have failed; of what was missed, or is unknown, when it happens;
* that they succeed again: once one was due since the last failure that succeeded, and none has failed for EVERY.
  It is told to whom failure was told, and to nobody else.

A channel is told of a target at most once in EVERY: what comes in between waits in the row, as sums and the first few.

Each failure is gathered once: its row of Failure (see there) is deleted and what is said of it added to the rows of Told
in one transaction. Those of one target are gathered together: of many targets that fail side by side each is written once. That happens whether anybody wants to be told or not. A Told changes only by a conditional UPDATE on
the version that was read, so of several processes one gathers, and one sends. What it claims for sending (`sending`) is its
own for LEASE; what fails meanwhile waits for the next notice. One that dies between sending and noting that it has sent leaves a notice that is sent again: rather twice than not at all.

Each channel has a thread of its own, and a process that sends (base/channels.py), for no longer than WITHIN. One that is away,
hangs or refuses has what it is to be told wait, for up to a DAY, and delays nothing else.
"""
import logging
import threading
import time
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, OuterRef, Subquery

from ..base import outage
from ..base.channels import channel, kind, send
from ..base.clock import steady
from ..base.moments import moment
from ..base.secrets import Unreadable, decrypt
from ..base.words import hidden, printable, redacted
from ..calls.ledger import NOW, as_column, batches, unlocked
from ..calls.outcomes import OUTCOME_UNKNOWN as UNKNOWN
from ..models import Failure, ScheduledCall, Target, Told

logger = logging.getLogger(__name__)
Status = ScheduledCall.Status

EVERY = timedelta(minutes=15)       # between two notices to one channel about one target
DAY = timedelta(days=1)             # between two that only say that it still fails; and for which one is tried
WITHIN = 60                         # seconds for what a process sends
LEASE = timedelta(seconds=WITHIN + 30)      # of who sends, with some time to note it
AGAIN = timedelta(minutes=1)        # after a channel that took nothing; twice as long each time, up to EVERY
BATCH = 250                         # failures in one transaction: SQLite has one write lock, and calls that end wait for it
GATHERED = 10_000                   # at once at most
AT_ONCE = 20                        # channels that one process sends to
TOGETHER = 10                       # notices that one process sends
FEW = 10                            # calls that a notice names
GONE = timedelta(days=7)            # after which what waits for a channel that nobody knows is forgotten
BY_PAUSE = "its target is paused"   # begins the error of a call that a person's pause has cost

_threads = {}                       # {key of a channel: the thread that sends to it, or has sent}


def tell(now=NOW):
    """Gathers what failed, and has threads send what is due. Nothing is waited for but the database: two short SELECTs,
    as long as nothing fails.

    now: aware datetime; by default the database's clock
    """
    _gather(now)
    due = {}
    # Asked of all targets in this one statement; see _over.
    since = ScheduledCall.objects.filter(
        target=OuterRef("target"), status=Status.SUCCEEDED, timestamp__gt=OuterRef("failed_at"), timestamp__lte=as_column(now))
    for told in Told.objects.select_related("target").annotate(
            now=as_column(now), success=Subquery(since.order_by("timestamp").values("timestamp")[:1])):
        if told.target_id and not told.target:      # by a version that does not know this table
            told.delete()
        elif not _lasts(told.tried_at, told.pause, told.now):
            told.waiting = _together(told.sending, told.waiting)
            for way, notice in _due(told):
                due.setdefault(way.key, (way, []))[1].append((told, notice))
    for key, (way, notices) in due.items():
        for other in [other for other, thread in _threads.items() if not thread.is_alive()]:
            del _threads[other]
        if key not in _threads and len(_threads) < AT_ONCE:
            # What is gathered while it is sent is for the next one.
            claimed = [(told, notice, told.pause) for told, notice in notices[:TOGETHER]
                       if _change(told, tried_at=told.now, pause=LEASE, sending=told.waiting, waiting={},
                                  in_a_row=told.in_a_row if notice[2]["failing_since"] else 0)]
            if claimed:
                _threads[key] = threading.Thread(target=_send, args=(way, claimed, now), name="notices", daemon=True)
                _threads[key].start()


def channels(target):
    """Who is told of what is called for a target (None: for API_URL): list of Channel."""
    try:
        own = decrypt(target.secrets).get("notify", []) if target and "notify" in target.secret_names else []
    except Unreadable:
        own = []                    # its calls fail, and the others are told of that
    if own:
        return _numbered(own, f"target {target.name}", True)
    mail = [channel("", "the mail server", of=",".join(sorted(settings.FAILURES_TO)))] if settings.FAILURES_TO else []
    return mail + _numbered(settings.NOTIFY, "NOTIFY", False)


def _numbered(urls, where, own):
    """Those of several can be told apart by their place."""
    return [channel(url, f"the channel {kind(url)}{f' (number {number})' if len(urls) > 1 else ''} of {where}", own)
            for number, url in enumerate(urls, 1)]


def _gather(now):
    """Adds up to GATHERED failures to what waits to be told."""
    noted = {}
    call = ScheduledCall.objects.filter(pk=OuterRef("call_id"))
    for pk, target_id in Failure.objects.order_by("id").values_list("id", Subquery(call.values("target")[:1]))[:GATHERED]:
        noted.setdefault(target_id, []).append(pk)
    for target_id, ids in noted.items():
        for some in batches(ids, BATCH):
            began = steady()
            if not _gather_some(target_id, some, now):
                break
            # Half of the time is others': of who waits for SQLite's lock nobody gets it whom the next transaction follows at once.
            time.sleep(steady() - began)


def _gather_some(target_id, ids, now):
    """Those failures of one target, as far as nobody else does. Returns whether nobody has been first."""
    with transaction.atomic():
        ids = dict(unlocked(Failure.objects.filter(id__in=ids)).values_list("id", "call_id"))
        failed = [call for call in ScheduledCall.objects.filter(id__in=ids.values()).order_by("ended_at", "id").only(
            "id", "status", "timestamp", "ended_at", "error", "target_id")
            if not (call.status == Status.MISSED and call.error.startswith(BY_PAUSE))]
        target = Target.objects.filter(pk=target_id).first() if target_id else None
        for way in channels(target) if failed and bool(target) == bool(target_id) else ():
            told = Told.objects.get_or_create(channel=way.key, target=target, defaults={"failed_at": failed[0].ended_at})[0]
            if not _add(told, target, failed, now):
                transaction.set_rollback(True)
                return False
        Failure.objects.filter(id__in=ids).delete()
    return True


def _add(told, target, failed, now):
    """Adds `failed`, the failures of one target, to what a channel is to be told of it. Returns whether nobody else was first."""
    waiting, run = told.waiting, told.in_a_row
    after = target.notify_after if target else 1
    success = after > 1 and not (told.failing_since or told.sending) and ScheduledCall.objects.filter(
        target=target, status=Status.SUCCEEDED, timestamp__gt=told.failed_at, timestamp__lte=now).order_by("-timestamp").first()
    if success:                     # those before it were no beginning, and need no telling
        run = 0
        waiting = waiting if _urgent(waiting) else {}
        failed = [call for call in failed if call.timestamp > success.timestamp or _is_urgent(call)]
    waiting = {"first": None, "last": None, "calls": [], Status.FAILED: 0, Status.MISSED: 0, UNKNOWN: 0, **waiting}
    for call in failed:
        run += 1
        waiting[call.status] += 1
        waiting[UNKNOWN] += UNKNOWN in call.error
        at = call.ended_at.isoformat()
        waiting["first"], waiting["last"] = min(waiting["first"] or at, at), max(waiting["last"] or at, at)
        _name(waiting["calls"], [call.timestamp.isoformat(), call.id, call.status, printable(call.error, 200)])
    if not failed:
        waiting = told.waiting if not success else {}
    return _change(told, waiting=waiting, in_a_row=run,
                   failed_at=max([told.failed_at, *(call.ended_at for call in failed)]))


def _together(first, then):
    """The sums of two."""
    if not (first and then):
        return first or then
    calls = list(first["calls"])
    for call in then["calls"]:
        _name(calls, call)
    return {"first": min(first["first"], then["first"]), "last": max(first["last"], then["last"]), "calls": calls,
            **{name: first[name] + then[name] for name in (Status.FAILED, Status.MISSED, UNKNOWN)}}


def _is_urgent(call):
    return call.status == Status.MISSED or UNKNOWN in call.error


def _urgent(waiting):
    """Whether among what waits are calls that somebody has to look after: that were missed, or perhaps done."""
    return bool(waiting and waiting[Status.MISSED] + waiting[UNKNOWN])


def _name(named, call):
    """Puts a call among the first few, in which one that somebody has to look after takes the place of one that is not."""
    if len(named) < FEW:
        named.append(call)
    elif UNKNOWN in call[3]:
        others = [place for place, (_, _, _, error) in enumerate(named) if UNKNOWN not in error]
        if others:
            del named[others[-1]]
            named.append(call)


def _change(told, **values):
    """Changes the row, unless somebody has since it was read. Returns whether."""
    changed = Told.objects.filter(id=told.id, version=told.version).update(version=F("version") + 1, **values)
    told.version += 1
    return bool(changed)


def _lasts(since, duration, now):
    """Whether it is `since` for no longer than `duration`. What lies in the future is over: the
    database's clock was set back."""
    return since is not None and since <= now < since + duration


def _due(told):
    """What this row's channel is to be told now: [] or [(its Channel, (title, body, what to change once it is sent))]."""
    now, waiting = told.now, told.waiting
    way = next((way for way in channels(told.target) if way.key == told.channel), None)
    if way is None or not (waiting or told.failing_since):
        # Nobody to tell, or nothing: but for what keeps the next from coming too early.
        if not _lasts(told.failed_at if way is None else told.told_at, GONE if way is None else EVERY, now):
            Told.objects.filter(id=told.id, version=told.version).delete()
        return []
    over = _over(told)
    if _lasts(told.told_at, EVERY, now):
        return []
    begins = not told.failing_since
    if waiting and (_urgent(waiting) or (told.in_a_row >= (told.target.notify_after if told.target else 1) if begins
                                         else not _lasts(told.told_at, DAY, now) and not over)):
        return [(way, (*_of_failures(told, begins), {
            "told_at": now, "failing_since": told.failing_since or datetime.fromisoformat(waiting["first"])}))]
    if over:
        return [(way, (*_of_success(told), {"told_at": now, "failing_since": None}))]
    return []


def _over(told):
    """Whether it succeeds again: a call that was due since has, and none has failed for a while. When that call was due
    is kept: of API_URL's successes there is no index, and only the latest are looked through."""
    if not told.failing_since:
        return False
    if told.failed_at > told.now:       # the clock was set back: what has succeeded since is not known
        _change(told, failed_at=told.now)
        return False
    if not (told.succeeded_at and told.succeeded_at > told.failed_at):
        success = told.success
        if not told.target:
            since = max(told.failed_at, told.now - told.pause - timedelta(seconds=settings.GRACE + settings.TIMEOUT + 60))
            success = ScheduledCall.objects.filter(
                target=None, status=Status.SUCCEEDED, timestamp__gt=since, timestamp__lte=told.now).order_by(
                "timestamp").values_list("timestamp", flat=True).first()
        if not success or not _change(told, succeeded_at=success):
            return False
        told.succeeded_at = success
    return not _lasts(told.failed_at, EVERY, told.now)


def _what(target):
    return f"Target {target.name}" if target else f"API_URL ({printable(redacted(settings.API_URL))})"


def _numbers(waiting):
    return ", ".join(f"{waiting[name]} {word}" for name, word in (
        (Status.FAILED, "failed"), (Status.MISSED, "missed"), (UNKNOWN, "of them with an unknown outcome")) if waiting[name])


def _of_failures(told, begins):
    """(title, body)"""
    waiting, name = told.waiting, told.target.name if told.target else "API_URL"
    fails = (" begins to fail" if begins else " still fails") if waiting[Status.FAILED] else ""
    lines = "".join(f"Due {_moment(due)}, call {call_id}, {status.lower()}: {error}\n"
                    for due, call_id, status, error in waiting["calls"])
    number = waiting[Status.FAILED] + waiting[Status.MISSED]
    body = [f"{_what(told.target)}: {_numbers(waiting)}; the first ended at "
            f"{_moment(waiting['first'])}, the last at {_moment(waiting['last'])}."]
    if not begins:
        body.append(f" It fails since {moment(told.failing_since)}.")
    body.append(f"\n\n{lines}")
    if number > len(waiting["calls"]):
        body.append(f"And {number - len(waiting['calls'])} more.\n")
    if waiting[UNKNOWN]:
        body.append("\nOutcome unknown: the API has perhaps done what it was asked for. Look there before you make such a call "
                    "again.\n")
    body.append("\nThe admin has them all. Of further failures you are told once a day, of calls that are missed and of unknown outcomes "
                f"each {EVERY.total_seconds() / 60:g} minutes at most, and when calls succeed again.\n")
    return f"API Scheduler: {name}{fails}: {_numbers(waiting)}", "".join(body)


def _of_success(told):
    name, waiting = told.target.name if told.target else "API_URL", told.waiting
    more = f" Since the last notice: {_numbers(waiting)}." if waiting else ""
    return (f"API Scheduler: {name} works again",
            f"{_what(told.target)}: calls succeed again, beginning with the one that was due {moment(told.succeeded_at)}. "
            f"It failed since {moment(told.failing_since)}; the last failure was at {moment(told.failed_at)}.{more}\n")


def _moment(iso):
    return moment(datetime.fromisoformat(iso))


def message(way, title, body, type="failure"):
    """What ops/send.py is to send to a Channel: dict of JSON."""
    if way.url:
        return {"title": title, "body": body, "url": way.url, "own": way.own, "type": type}
    return {"title": title, "body": body, "mail": {
        "to": settings.FAILURES_TO, "from": settings.DEFAULT_FROM_EMAIL, "server": {
            "host": settings.EMAIL_HOST, "port": settings.EMAIL_PORT, "username": settings.EMAIL_HOST_USER,
            "password": settings.EMAIL_HOST_PASSWORD, "use_tls": settings.EMAIL_USE_TLS, "use_ssl": settings.EMAIL_USE_SSL,
            "timeout": settings.EMAIL_TIMEOUT}}}


def problem(way, answer):
    """What is wrong with an answer of ops/send.py, in words, or None if the notice was taken. Of recipients that a mail
    server refused, where it took the mail for others, there is a line."""
    if isinstance(answer, dict):
        for address, why in answer["refused"].items():
            logger.error("%s takes no mail for %s: %s", way.name, address, hidden(printable(why)))
        return None
    return answer and hidden(printable(answer))


def _send(way, claimed, now):
    """Sends what was claimed, and notes how that went.

    claimed: list of (Told, (title, body, what to change), the pause before)
    """
    try:
        answers = send([message(way, title, body, "success" if sent["failing_since"] is None else "failure")
                        for _, (title, body, sent), _ in claimed], WITHIN)
        for (told, (title, _, sent), pause), answer in zip(claimed, answers):
            why = problem(way, answer)
            if why is None:
                outage.channel(way.key, way.name).over()
                values = {**sent, "sending": {}, "pause": timedelta(0), "unsent_since": None}
            else:
                values = _not_sent(way, told, title, sent, pause, why)
            # If it is still this one's: others may have added to what waits, and it is another's after LEASE.
            Told.objects.filter(id=told.id, tried_at=told.now, pause=LEASE).update(
                tried_at=now, version=F("version") + 1, **values)
    except Exception as error:
        logger.error("notices were sent, or not, and that cannot be noted; they are sent again: %s: %s", type(error).__name__, error)
    finally:
        connection.close()


def _not_sent(way, told, title, sent, pause, why):
    """What to change after a notice that was not taken."""
    pause = min(max(2 * pause, AGAIN), EVERY)
    if told.unsent_since and not _lasts(told.unsent_since, DAY, told.now):
        logger.error("%s has taken no notice for a day, and this one is given up: %s", way.name, printable(title))
        return {"sending": {}, "pause": pause, "unsent_since": None, "failing_since": sent["failing_since"] and told.failing_since}
    outage.channel(way.key, way.name).began(why, f"Notices wait; the next attempt is in {pause.total_seconds() / 60:g} min")
    return {"pause": pause, "unsent_since": told.unsent_since or told.now}
