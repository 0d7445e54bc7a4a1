"""Mails about failures, to a real SMTP server, and with the real dispatcher where that is what counts."""
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email import message_from_bytes, policy

import pytest
import requests
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from conftest import KIND, all_ended, certificate, fill, free_port, in_seconds, make, rows_read, until
from django.db import connection
from django.db.models import DateTimeField, Value
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from test_transitions import at_once

from scheduler import tasks
from scheduler.base import outage
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch
from scheduler.models import Heartbeat, Notice, ScheduledCall, Target
from scheduler.ops import notify

TO = ["ops@example.org", "ann@example.org"]
MINUTE = timedelta(minutes=1)


class MailServer:
    """An SMTP server on the loopback. `mails` is what it has taken; `says` is its answer to a recipient or
    to a mail, if not that it takes it."""

    def __init__(self, port=None, **options):
        self.port, self.options = port or free_port(), options
        self.mails, self.envelopes, self.says = [], [], {}
        self.took = None                # called with each mail that it is about to take
        self.controller = None

    async def handle_RCPT(self, server, session, envelope, address, options):
        if answer := self.says.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if answer := self.says.get("mail"):
            return answer
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        self.envelopes.append(envelope)
        if self.took:
            self.took()
        return "250 OK"

    def start(self):
        self.controller = Controller(self, "127.0.0.1", self.port, **self.options)
        self.controller.start()
        return self

    def stop(self):
        if self.controller:
            self.controller.stop()
            self.controller = None

    @property
    def subjects(self):
        return [mail["Subject"] for mail in self.mails]

    @property
    def last(self):
        return self.mails[-1].get_content().replace("\r\n", "\n") if self.mails else None


@pytest.fixture
def server():
    server = MailServer().start()
    outage.mail.over()
    with override_settings(FAILURES_TO=TO, EMAIL_HOST="127.0.0.1", EMAIL_PORT=server.port, EMAIL_TIMEOUT=5):
        yield server
    server.stop()
    sent()


def sending():
    """The threads of this process that send a mail."""
    return [thread for thread in threading.enumerate() if thread.name == "mail"]


def sent():
    """Waits until they have, or have given up."""
    for thread in sending():
        thread.join(30)
    assert not sending()


class Dispatcher:
    """Its part of the mails, by a clock that the test sets: minutes since mails were first wanted."""

    def __init__(self):
        self.zero = utcnow() - timedelta(hours=12)
        self.minutes = 0.0

    @property
    def now(self):
        return self.zero + self.minutes * MINUTE

    def fail(self, number=1, status="Failed", error="HTTP status 503", **fields):
        """Calls that end so by now; returns them."""
        due = fields.pop("due", self.now - timedelta(seconds=1))
        return ScheduledCall.objects.bulk_create(ScheduledCall(**{
            "timestamp": due, "ended_at": self.now, "status": status, "error": error, **fields})
            for _ in range(number))

    def succeed(self):
        return self.fail(1, "Succeeded", "")[0]

    def tick(self, minutes=0.0):
        """That many minutes later, until the mail has been sent, if there was one."""
        self.minutes += minutes
        notify.tell(Value(self.now, DateTimeField()))
        sent()


@pytest.fixture
def dispatcher():
    dispatcher = Dispatcher()
    dispatcher.tick()
    return dispatcher


def test_a_target_is_named_and_what_has_perhaps_been_done_is_said(server, dispatcher):
    billing = Target.objects.create(name="billing", url="https://api.example/")
    call = dispatcher.fail(1, error="outcome unknown: cut off", target=billing)[0]
    dispatcher.fail(1, error="worker lost, outcome unknown"), dispatcher.fail(3)
    dispatcher.fail(1, "Retrying", ended_at=None, target=billing)
    dispatcher.tick()
    assert server.subjects == ["API Scheduler: 5 failed"], "what is to be tried again has not failed yet"
    assert f"call {call.id}, failed: target billing, outcome unknown: cut off\n" in server.last
    assert "\n2 of them with an unknown outcome: the API has perhaps done" in server.last
    dispatcher.fail()
    dispatcher.tick(16)
    assert "unknown outcome" not in server.last


def test_the_first_at_once_the_rest_summed_up_and_that_all_is_well_again(server, dispatcher):
    call = dispatcher.fail()[0]
    dispatcher.tick()
    assert server.subjects == ["API Scheduler: 1 failed"]
    assert server.envelopes[0].rcpt_tos == TO and server.mails[0]["To"] == ", ".join(TO)
    assert server.mails[0]["Auto-Submitted"] == "auto-generated"
    assert f"call {call.id}, failed: HTTP status 503\n" in server.last

    for _ in range(14):
        dispatcher.fail(2), dispatcher.fail(1, "Missed", "not started"), dispatcher.succeed()
        dispatcher.tick(1)
    assert len(server.mails) == 1, "none in between, whatever fails or succeeds"
    dispatcher.tick(0.99)
    assert len(server.mails) == 1
    dispatcher.tick(0.01)
    assert server.subjects[1:] == ["API Scheduler: 28 failed, 14 missed"]

    for _ in range(40):
        dispatcher.tick(1)
    assert len(server.mails) == 2, "nothing was due since that could have succeeded"
    good = dispatcher.succeed()
    dispatcher.tick()
    assert server.subjects[2:] == ["API Scheduler: calls succeed again"] and f"call {good.id}, " in server.last
    dispatcher.succeed()
    dispatcher.tick(60)
    assert len(server.mails) == 3, "that is said once"

    dispatcher.fail()
    dispatcher.tick()
    assert server.subjects[3:] == ["API Scheduler: 1 failed"], "the next is a first one again"


def test_that_all_is_well_again_is_said_after_a_while_without_failures(server, dispatcher):
    dispatcher.fail(), dispatcher.tick()
    dispatcher.minutes = 1
    good = dispatcher.succeed()
    dispatcher.tick(13.9)
    assert len(server.mails) == 1
    dispatcher.tick(0.2)
    assert server.subjects[1:] == ["API Scheduler: calls succeed again"] and f"call {good.id}, " in server.last


def test_calls_that_go_up_and_down_cause_no_more_mails_than_those_that_stay_down(server, dispatcher):
    for _ in range(120):
        dispatcher.fail(), dispatcher.succeed()
        dispatcher.tick(0.5)
    assert len(server.mails) == 4 and "calls succeed again" not in str(server.subjects)
    assert sum(int(re.search(r"(\d+) failed", subject)[1]) for subject in server.subjects) + 29 == 120
    dispatcher.fail(0)
    dispatcher.tick(15), dispatcher.succeed(), dispatcher.tick(15)
    assert server.subjects[4:] == ["API Scheduler: 29 failed", "API Scheduler: calls succeed again"]


def test_what_nobody_needs_to_be_told(server, dispatcher):
    dispatcher.fail(1, "Cancelled"), dispatcher.succeed(), make(-5), make(-5, status="Running")
    dispatcher.fail(due=dispatcher.now - MINUTE, ended_at=dispatcher.now - MINUTE)     # before mails were wanted
    dispatcher.tick(1)
    assert server.mails == []


def test_ten_thousand_failures_are_one_short_mail(server, dispatcher):
    calls = dispatcher.fail(9_999, "Failed", "x" * 500) + dispatcher.fail(1, "Missed")
    dispatcher.tick()
    assert server.subjects == ["API Scheduler: 9999 failed, 1 missed"]
    assert server.last.count("\nDue ") == notify.FEW and "And 9990 more." in server.last
    named = {int(number) for number in re.findall(r"call (\d+), ", server.last)}      # any: they ended in the same moment
    assert len(named) == notify.FEW and named <= {call.id for call in calls} and len(server.last) < 5000
    assert ScheduledCall.objects.filter(told=True).count() == 10_000
    dispatcher.tick(20)
    assert len(server.mails) == 1


def test_more_than_one_tick_may_gather(server, dispatcher, monkeypatch):
    monkeypatch.setattr(notify, "BATCHES", 2)
    monkeypatch.setattr(notify, "BATCH", 10)
    dispatcher.fail(55)
    dispatcher.tick()
    dispatcher.tick(1), dispatcher.tick(1), dispatcher.tick(14)
    assert server.subjects == ["API Scheduler: 20 failed", "API Scheduler: 35 failed"]


def test_an_outcome_that_was_written_late_is_told(server, dispatcher):
    """Its worker kept it for as long as the database was away, or was suspended in the middle of a commit."""
    began = dispatcher.now
    dispatcher.minutes = 30
    dispatcher.fail(), dispatcher.tick(), dispatcher.fail(), dispatcher.tick(20)
    late = dispatcher.fail(due=began + MINUTE, ended_at=began + 2 * MINUTE)[0]
    dispatcher.tick(15)
    assert server.subjects == ["API Scheduler: 1 failed"] * 3 and f"call {late.id}, " in server.last


@pytest.mark.parametrize("switched_off", [True, False])
def test_a_day_without(server, dispatcher, switched_off):
    """FAILURES_TO was not set, while the dispatcher went on, or there was no dispatcher at all: what is missed
    then is missed when it is back, and told."""
    dispatcher.fail(), dispatcher.tick()
    if switched_off:
        dispatcher.minutes += 24 * 60
        Heartbeat.objects.create(name="dispatcher", at=dispatcher.now)
        dispatcher.fail(500)
        dispatcher.tick(1)
        assert len(server.mails) == 1
        dispatcher.succeed(), dispatcher.tick(30)
        assert len(server.mails) == 1, "nor that calls succeed again"
    else:
        Heartbeat.objects.create(name="dispatcher", at=dispatcher.now)
        dispatcher.minutes += 24 * 60
        dispatcher.fail(500, "Missed")
        dispatcher.tick(1)
        assert server.subjects[1:] == ["API Scheduler: 500 missed"]
    dispatcher.fail(), dispatcher.tick(15)
    assert server.subjects[-1] == "API Scheduler: 1 failed"


def test_what_was_pruned_a_moment_ago_is_no_failure(server, dispatcher):
    """Between the question whether there are any, and which."""
    dispatcher.fail()
    pruned = []

    def prune(execute, *asked):
        found = execute(*asked)
        if "scheduler_scheduledcall" in asked[0] and not pruned:
            pruned.append(True)
            ScheduledCall.objects.all().delete()
        return found
    with connection.execute_wrapper(prune):
        dispatcher.tick()
    assert pruned and server.mails == [] and Notice.objects.get().waiting == {}


def test_the_clock_is_set_back(server, dispatcher):
    """The database's, by ten days: nobody waits for ten days until failures are told again."""
    dispatcher.fail(), dispatcher.tick()
    dispatcher.fail(), dispatcher.tick(1)
    dispatcher.minutes -= 10 * 24 * 60
    dispatcher.tick(), dispatcher.fail(), dispatcher.tick()
    assert server.subjects == ["API Scheduler: 1 failed", "API Scheduler: 2 failed"]


def test_not_wanted(server, dispatcher):
    Notice.objects.all().delete()
    dispatcher.fail()
    with override_settings(FAILURES_TO=[]), CaptureQueriesContext(connection) as queries:
        dispatcher.tick()
    assert len(queries) == 0 and not Notice.objects.exists() and server.mails == []


def test_two_queries_when_nothing_fails(server, dispatcher):
    for row in range(3):
        with CaptureQueriesContext(connection) as queries:
            dispatcher.tick(0.1)
        assert len(queries) == 2


# --- What is written -------------------------------------------------------------------------


def test_times_are_local_and_say_so(server, dispatcher):
    with override_settings(TIME_ZONE="America/New_York"):
        dispatcher.zero = datetime(2096, 7, 1, 4, 0, 0, tzinfo=timezone.utc)
        Notice.objects.update(since=dispatcher.zero, seen_at=dispatcher.zero)
        dispatcher.fail(due=dispatcher.now - MINUTE)
        dispatcher.tick()
        assert "Due 2096-06-30 23:59:00 EDT, call " in server.last
        assert "; the first ended at 2096-07-01 00:00:00 EDT, the last at 2096-07-01 00:00:00 EDT." in server.last


EVIL = "x\r\nBcc: eve@example.org\r\n\r\n.\r\nMAIL FROM:<eve@example.org>\n\x1b[31m\u202e\ud83d \0"


def test_what_the_api_says_is_text_and_nothing_else(server, dispatcher):
    """A reason may hold anything that a server says; even where it came into the row unescaped."""
    error = EVIL.replace("\ud83d", "").replace("\0", "") if KIND == "postgresql" else EVIL.replace("\ud83d", "")
    dispatcher.fail(error=error)
    dispatcher.tick()
    assert server.subjects == ["API Scheduler: 1 failed"] and len(server.mails) == 1
    assert "Bcc" not in server.mails[0] and server.envelopes[0].rcpt_tos == TO
    assert not any(line.startswith(("Bcc", "MAIL", ".")) for line in server.last.splitlines())
    assert r"x\r\nBcc: eve@example.org\r\n\r\n.\r\nMAIL" in server.last and "\x1b" not in server.last


def test_other_letters_than_english_ones_and_long_lines(server, dispatcher):
    dispatcher.fail(error="Zertifikat für „bücher“ abgelaufen, 证书已过期 " + "ü" * 400)
    dispatcher.tick()
    assert "für „bücher“ abgelaufen, 证书已过期 ü" in server.last
    assert max(map(len, server.envelopes[0].content.split(b"\r\n"))) <= 998


def test_no_secret_is_mailed(server, dispatcher):
    with override_settings(API_URL="https://ann:hunter2@example.org/hook?key=sesame"):
        dispatcher.fail()
        dispatcher.tick()
    assert "What is called, where no target is named: https://***@example.org/hook?key=***\n" in server.last
    assert "hunter2" not in str(server.mails[0]) and "sesame" not in str(server.mails[0])


# --- Mail servers ----------------------------------------------------------------------------


def test_the_server_is_away_and_comes_back(server, dispatcher, caplog):
    server.stop()
    with caplog.at_level("WARNING", "scheduler"):
        for _ in range(10):
            dispatcher.fail()
            dispatcher.tick(2)
        assert [record.message.split(". ")[-1] for record in caplog.records] == [
            "Mails wait; the next attempt is in 1 min"], "it is said once"
        server.start()
        dispatcher.fail(1, "Missed")
        dispatcher.tick(2)
        assert caplog.records[-1].message == "the mail server takes mails again"
    assert server.subjects == ["API Scheduler: 10 failed, 1 missed"]


def test_it_is_not_asked_more_often_than_once_a_minute(server, dispatcher):
    dispatcher.fail()
    server.says["mail"] = "451 later"
    asked = []
    for _ in range(120):                # an hour
        before = Notice.objects.get().version
        dispatcher.tick(0.5)
        asked.append(Notice.objects.get().version > before)
    assert sum(asked) <= 61
    server.says.clear()
    dispatcher.tick(1)
    assert len(server.mails) == 1


@pytest.mark.parametrize("answers, minutes", [
    ({"mail": "550 we do not like this"}, 15), ({"mail": "451 come back later"}, 1),
    ({address: "550 no such user" for address in TO}, 15),
    ({TO[0]: "550 no such user", TO[1]: "450 mailbox busy"}, 1),
])
def test_it_says_no(server, dispatcher, caplog, answers, minutes):
    server.says.update(answers)
    dispatcher.fail()
    dispatcher.tick()
    server.says.clear()
    dispatcher.tick(minutes - 0.01)
    assert server.mails == []
    dispatcher.tick(0.01)
    assert server.subjects == ["API Scheduler: 1 failed"]
    assert f"the next attempt is in {minutes} min" in caplog.text


def test_one_of_the_recipients_is_refused(server, dispatcher, caplog):
    server.says[TO[0]] = "550 5.1.1 no such user"
    dispatcher.fail()
    dispatcher.tick()
    dispatcher.tick(20)
    assert [envelope.rcpt_tos for envelope in server.envelopes] == [TO[1:]]
    assert f"the mail server takes no mail for {TO[0]}: 550 b'5.1.1 no such user'" in caplog.text


@contextmanager
def bad_server(port, behave):
    """A server that does behave(connection) with each who connects, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", port))
    connected = []

    def serve():
        with listener:
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return
                connected.append(client)
                threading.Thread(target=run, args=(client,), daemon=True).start()

    def run(client):
        try:
            behave(client)
        except OSError:
            pass
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield connected
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for client in connected:
            client.close()


def drip(client):
    client.sendall(b"220")
    while True:
        client.sendall(b"-x\r\n220")
        time.sleep(0.05)


@pytest.mark.parametrize("behave, minutes", [
    (lambda client: None, 1), (drip, 1), (lambda client: client.close(), 1),
    (lambda client: client.sendall(b"x" * 100_000), 15)])
def test_it_is_no_mail_server(server, dispatcher, monkeypatch, caplog, behave, minutes):
    """It accepts and says nothing, says a little now and then for ever, hangs up, or talks nonsense."""
    monkeypatch.setattr(notify, "WITHIN", 1)
    server.stop()
    dispatcher.fail()
    with bad_server(server.port, behave) as connected:
        dispatcher.tick()
    assert len(connected) == 1 and "the mail server takes no mail: " in caplog.text
    server.start()
    dispatcher.tick(minutes)
    assert server.subjects == ["API Scheduler: 1 failed"]


def test_a_tick_does_not_wait_for_the_server(server, dispatcher):
    server.stop()
    dispatcher.fail()
    with bad_server(server.port, lambda client: None) as connected:
        notify.tell(Value(dispatcher.now, DateTimeField()))
        until(lambda: connected)
        assert sending(), "the tick is over, and the mail on its way"
        for minutes in range(0, 300, 10):       # also past the lease: one is enough
            notify.tell(Value(dispatcher.now + minutes * MINUTE, DateTimeField()))
        assert len(connected) == 1


def test_it_hangs_up_before_it_has_said_whether_it_takes_the_mail(server, dispatcher, caplog):
    """It may have taken it, so it is sent again, but no more often than any mail is."""
    dispatcher.fail()
    server.stop()

    def half(client):
        file = client.makefile("rb")
        client.sendall(b"220 hello\r\n")
        for line in file:
            if line.upper().startswith(b"DATA"):
                client.sendall(b"354 go on\r\n")
                while file.readline() != b".\r\n":
                    pass
                return client.shutdown(socket.SHUT_RDWR)
            client.sendall(b"250 OK\r\n")
    with bad_server(server.port, half):
        dispatcher.tick()
    assert "no answer whether it takes a mail" in caplog.text
    server.start()
    dispatcher.tick(14.9)
    assert server.mails == []
    dispatcher.tick(0.2)
    assert server.subjects == ["API Scheduler: 1 failed"]


def test_it_talks_nonsense_once_it_has_taken_the_mail(server, dispatcher):
    """Its answer counts, and not how it says good-bye."""
    server.stop()
    taken = []

    def rude(client):
        file = client.makefile("rb")
        client.sendall(b"220 hello\r\n")
        for line in file:
            if line.upper().startswith(b"QUIT"):
                return client.sendall(b"x" * 100_000)
            client.sendall(b"354 go on\r\n" if line.upper().startswith(b"DATA") else b"250 OK\r\n")
            if line.upper().startswith(b"DATA"):
                while file.readline() != b".\r\n":
                    pass
                taken.append(1)
                client.sendall(b"250 taken\r\n")
    dispatcher.fail()
    with bad_server(server.port, rude):
        dispatcher.tick()
        dispatcher.tick(30)
    assert len(taken) == 1 and Notice.objects.get().failing


@pytest.mark.filterwarnings("ignore:Requiring AUTH")     # that server does not see that it speaks TLS
@pytest.mark.parametrize("scheme, password, trusted", [
    ("smtp+tls", "p%40ss%2fword", True), ("smtp+ssl", "p%40ss%2fword", True), ("smtp+tls", "wrong-one", True),
    ("smtp+tls", "p%40ss", False), ("smtp+ssl", "p%40ss", False)])
def test_tls_and_a_password(stack, work, api, scheme, password, trusted):
    """As EMAIL_URL says, with the service's own processes. A certificate that nobody vouches for gets none,
    and no line shows the password."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = certificate(work)
    context.load_cert_chain(*files)
    seen = []

    def check(server, session, envelope, mechanism, data):
        seen.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=seen[-1] == ("ops@x", "p@ss/word"), handled=False)
    tls = {"tls_context": context, "require_starttls": True} if scheme == "smtp+tls" else {"ssl_context": context}
    server = MailServer(authenticator=check, auth_required=True,
                        auth_require_tls=scheme == "smtp+tls", **tls).start()
    try:
        stack.start("worker", "beat", FAILURES_TO=TO[0], DEFAULT_FROM_EMAIL="Scheduler <s@example.org>",
                    EMAIL_URL=f"{scheme}://ops%40x:{password}@127.0.0.1:{server.port}",
                    SSL_CERT_FILE=files[0] if trusted else "/dev/null")
        until(lambda: Notice.objects.exists())
        make(-300)
        if trusted and "wrong" not in password:
            until(lambda: server.mails)
            assert server.subjects == ["API Scheduler: 1 missed"]
            assert server.mails[0]["From"] == "Scheduler <s@example.org>"
        else:
            until(lambda: "the mail server takes no mail: " in stack.says("worker"))
            assert server.mails == [] and bool(seen) == trusted
            assert ("535" if trusted else "certificate verify failed") in stack.says("worker")
        for secret in ("p@ss", "p%40ss", "wrong-one"):
            assert secret not in stack.says("worker") + stack.says("beat")
    finally:
        server.stop()


def test_a_server_that_repeats_the_password_in_its_refusal(server, dispatcher, caplog):
    server.says["mail"] = "550 your password hunter/2 (hunter%2F2) is not welcome\x1b[31m"
    with override_settings(EMAIL_URL="smtp://ann:hunter%2F2@h"):
        dispatcher.fail()
        dispatcher.tick()
    assert "your password ******** (********) is not welcome" in caplog.text and "\x1b" not in caplog.text


# --- Several dispatchers, and those that die -------------------------------------------------


def test_two_dispatchers_send_one(server, dispatcher, monkeypatch):
    """Eight at once, in eight ways of being interleaved; each call is told of exactly once."""
    monkeypatch.setattr(threading.Thread, "is_alive", lambda thread: False)     # as in processes of their own
    total = 0
    for _ in range(8):
        dispatcher.fail(30)
        total += 30
        now = Value(dispatcher.now, DateTimeField())
        before = len(server.mails)

        def tick(_):
            try:
                notify.tell(now)
            except Exception as error:      # SQLite's lock
                return error
        assert at_once(8, tick) == [None] * 8
        until(lambda: Notice.objects.get().waiting == {})
        assert len(server.mails) == before + 1
        dispatcher.minutes += 15
    assert server.subjects == ["API Scheduler: 30 failed"] * 8
    assert ScheduledCall.objects.filter(told=True).count() == total


def test_who_sends_for_longer_than_its_lease_notes_nothing(server, dispatcher, monkeypatch):
    """What others have gathered meanwhile would be lost. The mail goes out again: rather twice."""
    dispatcher.fail()
    held, go = threading.Event(), threading.Event()
    server.took = lambda: (held.set(), go.wait(20))
    notify.tell(Value(dispatcher.now, DateTimeField()))
    suspended, = sending()
    suspended.name = "of another process"
    assert held.wait(20)
    server.took = None
    dispatcher.fail()
    other = MailServer().start()
    try:
        with override_settings(EMAIL_PORT=other.port), monkeypatch.context() as patched:
            patched.setattr(suspended, "is_alive", lambda: False)
            dispatcher.tick(2)
    finally:
        other.stop()
    assert other.subjects == ["API Scheduler: 2 failed"]
    dispatcher.fail()
    dispatcher.tick(1)
    assert Notice.objects.get().waiting["Failed"] == 1
    go.set()
    suspended.join(20)
    dispatcher.tick(15)
    assert server.subjects == ["API Scheduler: 1 failed"] * 2, "of the first call, and of the third"


def test_killed_between_sending_and_noting(stack, server, api):
    """The server has the mail, and its sender is dead before it can say so: the mail comes again."""
    stack.start("worker", "beat", FAILURES_TO=TO[0], EMAIL_URL=f"smtp://127.0.0.1:{server.port}")
    until(lambda: Notice.objects.exists())
    server.took = lambda: stack.kill("worker")
    calls = make(-300, 3)
    until(lambda: "worker" not in stack.processes)
    server.took = None
    assert Notice.objects.get().waiting["Missed"] == 3 and server.subjects == ["API Scheduler: 3 missed"]
    stack.start("worker")
    late = make(-300)
    until(lambda: ScheduledCall.objects.get(id=late.id).status == "Missed")
    assert len(server.mails) == 1, "its lease still holds"
    Notice.objects.update(tried_at=utcnow() - notify.LEASE)
    until(lambda: len(server.mails) == 2)
    assert server.subjects[1] == "API Scheduler: 4 missed"
    assert all(f"call {call.id}, " in server.last for call in [*calls, late])


# --- The whole service -----------------------------------------------------------------------


def ago(**fields):
    """Moves the Notice's times into the past, as if so long had gone by."""
    Notice.objects.update(**{name: getattr(Notice.objects.get(), name) - age for name, age in fields.items()})


def test_from_a_failure_to_the_mail_and_back(stack, server, api):
    """With two workers and two beats, whose settings are the environment's."""
    stack.start("web", "worker1", "worker2", "beat1", "beat2", FAILURES_TO=", ".join(TO),
                EMAIL_URL=f"smtp://127.0.0.1:{server.port}")
    until(lambda: Notice.objects.exists())
    api.switched = "/status/503"
    stack.post(*[in_seconds(1)] * 20)
    all_ended(20)
    until(lambda: not ScheduledCall.objects.filter(told=None).exists(), what="all are gathered")
    until(lambda: Notice.objects.get().told_at, what="the first mail is out")
    ago(told_at=notify.EVERY)
    first = int(re.search(r"\d+", server.subjects[0])[0])
    if first < 20:
        until(lambda: len(server.mails) == 2)
        assert server.subjects[1] == f"API Scheduler: {20 - first} failed"
    else:
        assert len(server.mails) == 1
    number = len(server.mails)
    api.switched = None
    ago(failed_at=notify.EVERY)
    stack.post(in_seconds(1))
    all_ended(21)
    until(lambda: len(server.mails) > number)
    assert server.subjects[number:] == ["API Scheduler: calls succeed again"]


@pytest.mark.parametrize("how", ["down", "hanging"])
def test_without_a_mail_server_calls_are_on_time_and_health_is_good(stack, server, api, how):
    server.stop()
    if how == "hanging":
        with bad_server(server.port, lambda client: None) as connected:
            without(stack, server, api)
            assert connected
    else:
        without(stack, server, api)
    server.start()
    until(lambda: Notice.objects.get().pause == notify.AGAIN, what="it has given up for now")
    ago(tried_at=notify.AGAIN)
    until(lambda: server.mails)
    assert server.subjects == ["API Scheduler: 3 missed"]


def without(stack, server, api):
    stack.start("web", "worker", "beat", FAILURES_TO=TO[0], EMAIL_URL=f"smtp://127.0.0.1:{server.port}")
    until(lambda: Notice.objects.exists())
    make(-300, 3)
    until(lambda: Notice.objects.get().tried_at)
    due = in_seconds(2)
    stack.post(*[due] * 10)
    assert all_ended(13) == {"Missed": 3, "Succeeded": 10}
    assert requests.get(stack.url + "/healthz", timeout=5).status_code == 200
    assert dispatch.since_beat() < 5


@pytest.mark.processes
def test_trouble_with_mails_is_none_of_the_dispatcher(server, monkeypatch, caplog):
    def broken():
        raise RuntimeError("broken")
    monkeypatch.setattr(notify, "tell", broken)
    late = make(-3600)
    tasks.dispatch_all()
    assert Heartbeat.objects.exists() and ScheduledCall.objects.get(id=late.id).status == "Missed"
    assert "dispatcher: RuntimeError: broken" in caplog.text


# --- Among many rows -------------------------------------------------------------------------


def test_looking_for_failures_reads_none_that_are_told(server, dispatcher):
    fill(20_000, -1, status="Failed", ended_at=dispatcher.now, told=True), fill(2_000, 86400)
    fill(20_000, -1, status="Succeeded", ended_at=dispatcher.now)
    fill(2_000, -1, status="Failed", ended_at=dispatcher.zero - MINUTE)       # before mails were wanted
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if KIND == "sqlite" else "VACUUM ANALYZE")
    assert rows_read(dispatcher.tick) < 5000
    dispatcher.fail()
    assert rows_read(dispatcher.tick) < 5000 and len(server.mails) == 1
    Notice.objects.update(failing=True, failed_at=dispatcher.now)
    assert rows_read(lambda: dispatcher.tick(15)) < 5000
