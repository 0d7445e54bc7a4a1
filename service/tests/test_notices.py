"""Notices of failures, to a real SMTP server and a real HTTP server, and with the real processes where that is what counts."""
import http.server
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email import message_from_bytes, policy

import pytest
import requests
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from conftest import KIND, SERVICE, all_ended, certificate, fill, free_port, in_seconds, make, rows_read, until
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from test_transitions import at_once

from scheduler import tasks
from scheduler.base import channels, outage
from scheduler.base.clock import utcnow
from scheduler.calls import dispatch, ledger, targets
from scheduler.models import Failure, Heartbeat, ScheduledCall, Target, Told
from scheduler.ops import notify
from scheduler.ops.send import deliver

TO = ["ops@example.org", "ann@example.org"]
MINUTE = timedelta(minutes=1)
HOUR = 60               # minutes


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
def here(monkeypatch):
    """What else a process of its own sends is sent by this one, which takes less time."""
    monkeypatch.setattr(notify, "send", lambda notices, within: [deliver(notice) for notice in notices])
    monkeypatch.setattr(outage, "_channels", {})


@pytest.fixture
def server(here):
    """The mail server of FAILURES_TO."""
    server = MailServer().start()
    with override_settings(FAILURES_TO=TO, EMAIL_HOST="127.0.0.1", EMAIL_PORT=server.port, EMAIL_TIMEOUT=5):
        yield server
        sent()
    server.stop()


@pytest.fixture
def told(here, hook):
    """A Hook that is told as NOTIFY says."""
    with override_settings(NOTIFY=[hook.url]):
        yield hook
        sent()


def sending():
    """The threads of this process that send."""
    return [thread for thread in threading.enumerate() if thread.name == "notices"]


def sent():
    """Waits until they have, or have given up."""
    for thread in sending():
        thread.join(30)
    assert not sending()


class Clock:
    """Calls and notices by a clock that the test sets: minutes from its beginning."""

    def __init__(self):
        self.zero = utcnow() - timedelta(days=20)
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

    def succeed(self, **fields):
        return self.fail(1, "Succeeded", "", **fields)[0]

    def tick(self, minutes=0.0):
        """That many minutes later, until what was due has been sent."""
        self.minutes += minutes
        notify.tell(self.now)
        sent()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def billing():
    return Target.objects.create(name="billing", url="https://api.example/")


# --- What is told, and when ------------------------------------------------------------------


def test_a_target_begins_to_fail_still_does_and_works_again(told, clock, billing):
    call = clock.fail(target=billing)[0]
    clock.tick()
    assert told.titles() == ["API Scheduler: billing begins to fail: 1 failed"]
    assert f"call {call.id}, failed: HTTP status 503\n" in told.last and "Target billing: 1 failed; the first ended at " in told.last

    for _ in range(23):
        clock.fail(2, target=billing)
        clock.tick(HOUR)
    assert len(told.took) == 1, "that it fails is known"
    clock.fail(target=billing)
    clock.tick(HOUR + 1)
    assert told.titles()[1:] == ["API Scheduler: billing still fails: 47 failed"] and "And 37 more." in told.last
    clock.fail(target=billing)
    clock.tick(24 * HOUR)
    assert told.titles()[2:] == ["API Scheduler: billing still fails: 1 failed"], "and each day"

    clock.tick(HOUR)
    good = clock.succeed(target=billing)
    clock.tick()
    assert told.titles()[3:] == ["API Scheduler: billing works again"]
    assert "beginning with the one that was due " in told.last and good.timestamp.strftime("%H:%M:%S") in told.last
    clock.succeed(target=billing), clock.tick(16), clock.succeed(target=billing), clock.tick(24 * HOUR)
    assert len(told.took) == 4 and not Told.objects.exists(), "that is said once"
    clock.fail(target=billing), clock.tick()
    assert told.titles()[4:] == ["API Scheduler: billing begins to fail: 1 failed"]


def test_who_calls_nothing_more_is_not_reminded(told, clock):
    """One call that failed, and none after it: for weeks there is nothing to say."""
    clock.fail(), clock.tick()
    for _ in range(14):
        clock.tick(24 * HOUR)
    assert told.titles() == ["API Scheduler: API_URL begins to fail: 1 failed"]


def test_that_calls_succeed_again_is_told_after_a_while_without_failures(told, clock):
    clock.fail(), clock.tick()
    clock.minutes = 1
    clock.succeed(), clock.tick(0.1)
    clock.tick(13.8)
    assert len(told.took) == 1
    clock.tick(2)
    assert told.titles()[1:] == ["API Scheduler: API_URL works again"]


def test_what_goes_up_and_down_causes_no_more_notices_than_what_stays_down(told, clock, billing):
    for _ in range(120):
        clock.fail(target=billing), clock.succeed(target=billing)
        clock.tick(1)
    assert len(told.took) == 1
    clock.succeed(target=billing), clock.tick(16)
    assert told.titles()[1:] == ["API Scheduler: billing works again"] and "Since the last notice: 119 failed." in told.last


def test_notify_after(told, clock, billing):
    """So many in a row: a success in between, and it begins anew."""
    Target.objects.update(notify_after=3)
    clock.fail(2, target=billing), clock.tick(1)
    clock.minutes += 1
    clock.succeed(target=billing)
    clock.minutes += 1
    clock.fail(2, target=billing), clock.tick(1)
    assert told.took == []
    clock.fail(target=billing), clock.tick(1)
    assert told.titles() == ["API Scheduler: billing begins to fail: 3 failed"]


@pytest.mark.parametrize("status, error, title", [
    ("Missed", "not started within 60 s of its time", "billing: 1 missed"),
    ("Failed", ledger.WORKER_LOST, "billing begins to fail: 1 failed, 1 of them with an unknown outcome")])
def test_what_somebody_has_to_look_after_waits_for_no_others(told, clock, billing, status, error, title):
    Target.objects.update(notify_after=5)
    clock.fail(1, status, error, target=billing), clock.tick()
    assert told.titles() == [f"API Scheduler: {title}"]
    clock.fail(1, status, error, target=billing), clock.tick(14.9)
    assert len(told.took) == 1, "but for the time between two notices"
    clock.tick(0.1)
    assert len(told.took) == 2


def test_unknown_outcomes_are_named(told, clock, billing):
    clock.fail(9_000, target=billing)
    clock.minutes += 0.1
    lost = clock.fail(2, error="outcome unknown: cut off", target=billing) + clock.fail(1, "Missed", "not started", target=billing)
    for _ in range(2):
        clock.tick()
    assert told.titles() == ["API Scheduler: billing begins to fail: 9002 failed, 1 missed, 2 of them with an unknown outcome"]
    assert all(f"call {call.id}, failed: outcome unknown: cut off\n" in told.last for call in lost[:2])
    assert told.last.count("\nDue ") == notify.FEW and "And 8993 more." in told.last and len(told.last) < 5000
    assert "\nOutcome unknown: the API has perhaps done what it was asked for." in told.last
    assert not Failure.objects.exists()


def test_each_target_is_told_of_by_itself(told, clock, billing):
    other = Target.objects.create(name="other", url="https://api.example/")
    clock.fail(target=billing), clock.tick(), clock.fail(2, target=other), clock.fail(3), clock.tick(1)
    assert told.titles() == [f"API Scheduler: {name} begins to fail: {number} failed" for name, number in (
        ("billing", 1), ("other", 2), ("API_URL", 3))]
    clock.minutes = 20
    clock.succeed(target=other), clock.tick()
    assert told.titles()[3:] == ["API Scheduler: other works again"]


def test_what_nobody_needs_to_be_told(told, clock, billing):
    clock.fail(1, "Cancelled"), clock.succeed(), make(-5), make(-5, status="Running"), make(-5, status="Retrying", target=billing)
    targets.pause(billing, "ann", "the API is being moved")
    make(-500, target=billing), make(-1, target=billing)
    assert ledger.miss() == 2
    clock.minutes = 20 * 24 * HOUR
    clock.tick(1)
    assert told.titles() == ["API Scheduler: billing: 1 missed"], "the one that was late before the pause"


def test_nobody_is_to_be_told(clock):
    """Then nothing is kept; nor is it told to who comes later."""
    clock.fail(2), clock.tick()
    assert not Failure.objects.exists() and not Told.objects.exists()


def test_two_queries_when_nothing_fails(told, clock):
    for _ in range(3):
        with CaptureQueriesContext(connection) as queries:
            clock.tick(0.1)
        assert len(queries) == 2


def test_more_may_fail_than_are_gathered_at_once(told, clock, monkeypatch):
    monkeypatch.setattr(notify, "GATHERED", 20)
    monkeypatch.setattr(notify, "BATCH", 10)
    clock.fail(55)
    clock.tick(), clock.tick(1), clock.tick(1)
    clock.tick(15), clock.succeed(), clock.tick()
    assert told.titles() == ["API Scheduler: API_URL begins to fail: 20 failed", "API Scheduler: API_URL works again"]
    assert "Since the last notice: 35 failed." in told.last


def test_an_outcome_that_was_written_late_is_told(told, clock):
    """Its worker kept it for as long as the database was away, or was suspended in the middle of a commit."""
    clock.minutes = 30
    late = clock.fail(due=clock.zero + MINUTE, ended_at=clock.zero + 2 * MINUTE)[0]
    clock.tick()
    assert f"call {late.id}, " in told.last


def test_what_was_pruned_meanwhile_is_no_failure(told, clock):
    clock.fail()
    ScheduledCall.objects.all().delete()
    clock.tick()
    assert told.took == [] and not Failure.objects.exists()


def test_the_clock_is_set_back(told, clock):
    """The database's, by ten days: nobody waits for ten days until failures are told again."""
    clock.fail(), clock.tick()
    clock.minutes -= 10 * 24 * HOUR
    clock.fail(1, "Missed"), clock.tick(1)
    assert len(told.took) == 2
    clock.minutes += 20
    clock.succeed(), clock.tick(), clock.tick(20)
    assert told.titles()[2:] == ["API Scheduler: API_URL works again"], "nor until they succeed"


def test_a_target_that_another_version_has_removed_is_not_taken_for_api_url(told, clock, billing):
    """That version knows nothing of Told, as its delete shows."""
    clock.fail(target=billing), clock.tick()
    with connection.cursor() as cursor:
        for table in ("scheduledcall", "target"):
            cursor.execute(f"DELETE FROM scheduler_{table}")
    clock.minutes += 20
    clock.succeed(), clock.tick(20), clock.tick(20)
    assert told.titles() == ["API Scheduler: billing begins to fail: 1 failed"] and not Told.objects.exists()


# --- To whom ---------------------------------------------------------------------------------


def test_a_target_has_its_own_channels(server, told, clock, billing):
    """In place of the others. What it fails with is told there, and nowhere else."""
    own = told.url.replace("t0k3n", "s3cr3t-0f-b1ll1ng")
    billing.changes = {"notify": f"{own}, {own}2"}
    billing.full_clean(), targets.save(billing)
    clock.fail(target=billing), clock.fail(2), clock.tick()
    for path in ("/hook/s3cr3t-0f-b1ll1ng-0f-th3-hook", "/hook/s3cr3t-0f-b1ll1ng-0f-th3-hook2"):
        assert told.titles(path) == ["API Scheduler: billing begins to fail: 1 failed"]
    assert told.titles() == server.subjects == ["API Scheduler: API_URL begins to fail: 2 failed"]
    assert not Told.objects.filter(channel__contains="hook").exists()

    clock.tick(1)
    billing.changes = {"notify": None}
    billing.full_clean(), targets.save(billing)
    clock.minutes = 30
    clock.succeed(target=billing), clock.tick()
    assert len(told.took) == 3, "who was not told that it fails is not told that it works"
    assert (billing.secrets, billing.secret_names) == ("", {})


def test_a_channel_that_was_away_is_told_and_the_others_are_not_told_twice(server, told, clock):
    told.says = 503
    clock.fail(), clock.tick()
    assert server.subjects == ["API Scheduler: API_URL begins to fail: 1 failed"] and told.took == []
    clock.fail(1, "Missed"), told.__setattr__("says", 200), clock.tick(1)
    assert told.titles() == ["API Scheduler: API_URL begins to fail: 1 failed, 1 missed"] and len(server.mails) == 1


def test_mails_are_as_they_were(server, clock):
    clock.fail(), clock.tick()
    assert server.envelopes[0].rcpt_tos == TO and server.mails[0]["To"] == ", ".join(TO)
    assert server.mails[0]["Auto-Submitted"] == "auto-generated" and server.mails[0]["From"].startswith("api-scheduler@")
    assert re.search(r"call \d+, failed: HTTP status 503\n", server.last)


# --- What is written -------------------------------------------------------------------------


def test_times_are_local_and_say_so(server, clock):
    with override_settings(TIME_ZONE="America/New_York"):
        clock.zero = datetime(2096, 7, 1, 4, 0, 0, tzinfo=timezone.utc)
        clock.fail(due=clock.now - MINUTE)
        clock.tick()
        assert "Due 2096-06-30 23:59:00 EDT, call " in server.last
        assert "; the first ended at 2096-07-01 00:00:00 EDT, the last at 2096-07-01 00:00:00 EDT." in server.last


EVIL = "x\r\nBcc: eve@example.org\r\n\r\n.\r\nMAIL FROM:<eve@example.org>\n\x1b[31m\u202e\ud83d \0"


def test_what_the_api_says_is_text_and_nothing_else(server, told, clock):
    """A reason may hold anything that a server says; even where it came into the row unescaped."""
    error = EVIL.replace("\ud83d", "").replace("\0", "") if KIND == "postgresql" else EVIL.replace("\ud83d", "")
    clock.fail(error=error)
    clock.tick()
    assert server.subjects == told.titles() == ["API Scheduler: API_URL begins to fail: 1 failed"]
    assert "Bcc" not in server.mails[0] and server.envelopes[0].rcpt_tos == TO
    assert not any(line.startswith(("Bcc", "MAIL", ".")) for line in server.last.splitlines())
    for text in (server.last, told.last):
        assert r"x\r\nBcc: eve@example.org\r\n\r\n.\r\nMAIL" in text and "\x1b" not in text


def test_other_letters_than_english_ones_and_long_lines(server, told, clock):
    clock.fail(error="Zertifikat für „bücher“ abgelaufen, 证书已过期 " + "ü" * 400)
    clock.tick()
    assert all("für „bücher“ abgelaufen, 证书已过期 ü" in text for text in (server.last, told.last))
    assert max(map(len, server.envelopes[0].content.split(b"\r\n"))) <= 998


def test_no_secret_is_told(told, clock):
    with override_settings(API_URL="https://ann:hunter2@example.org/hook?key=sesame"):
        clock.fail()
        clock.tick()
    assert told.last.startswith("API_URL (https://***@example.org/hook?key=***): 1 failed;")


# --- Channels that take nothing --------------------------------------------------------------


@pytest.mark.parametrize("says, why", [(500, "HTTP status 500"), (403, "HTTP status 403"), (None, "it cannot be reached")])
def test_a_channel_is_away_and_comes_back(told, clock, caplog, says, why):
    """It is tried again, less often each time; a line says so once, and none shows its address."""
    told.says = says or 200
    away = [told.url.replace("127.0.0.1", "127.0.0.1:1/")] if says is None else [told.url]
    asked = []
    with caplog.at_level("WARNING"), override_settings(NOTIFY=away if says else [f"json://127.0.0.1:{free_port()}/hook/t0k3n"]):
        clock.fail()
        for _ in range(120):
            before = Told.objects.values_list("tried_at", flat=True).first()
            clock.tick(0.5)
            asked += [clock.minutes] * (Told.objects.get().tried_at != before)
        assert asked == [0.5, 1.5, 3.5, 7.5, 15.5, 30.5, 45.5]
        assert [record.message for record in caplog.records] == [
            f"the channel json of NOTIFY takes no notice: {why}. Notices wait; the next attempt is in 1 min"]
        if says:
            told.says = 200
            clock.tick(15)
            assert caplog.records[-1].message == "the channel json of NOTIFY takes notices again"
            assert told.titles() == ["API Scheduler: API_URL begins to fail: 1 failed"]
    assert "t0k3n" not in caplog.text


def test_what_could_not_be_told_in_a_day_is_a_line(told, clock, caplog):
    told.says = 500
    clock.fail(3), clock.tick()
    for _ in range(100):
        clock.tick(15)
    assert [record.message for record in caplog.records if "given up" in record.message] == [
        "the channel json of NOTIFY has taken no notice for a day, and this one is given up: "
        "API Scheduler: API_URL begins to fail: 3 failed"]
    told.says = 200
    clock.fail(), clock.tick(15)
    assert told.titles() == ["API Scheduler: API_URL begins to fail: 1 failed"]


def test_a_channel_that_hangs_delays_itself_and_nothing_else(server, hook, clock, monkeypatch):
    """Neither the others, nor who has people told; and there is one thread for it, however long it hangs."""
    go = threading.Event()
    hook.before = lambda: go.wait(20)
    with override_settings(NOTIFY=[hook.url]):
        clock.fail()
        notify.tell(clock.now)
        until(lambda: server.mails)
        until(lambda: len(sending()) == 1)
        for minutes in range(0, 300, 30):       # also past the lease
            clock.minutes = minutes
            clock.fail(1, "Missed"), notify.tell(clock.now)
            until(lambda: len(sending()) == 1)
        assert len(server.mails) == 10
        go.set()
        sent()


def test_what_fails_while_a_notice_is_sent_is_for_the_next(told, clock):
    """And the one that was sent is not sent again."""
    held, go = threading.Event(), threading.Event()
    told.before = lambda: (held.set(), go.wait(20))
    clock.fail(), notify.tell(clock.now)
    assert held.wait(20)
    late = clock.fail(1, "Missed")[0]
    notify.tell(clock.now)
    go.set(), sent()
    clock.tick(14), clock.tick(1)
    assert told.titles() == ["API Scheduler: API_URL begins to fail: 1 failed", "API Scheduler: API_URL: 1 missed"]
    assert f"call {late.id}, " in told.last and told.last.count("\nDue ") == 1


def test_one_of_the_recipients_is_refused(server, clock, caplog):
    server.says[TO[0]] = "550 5.1.1 no such user"
    clock.fail(), clock.tick(), clock.tick(20)
    assert [envelope.rcpt_tos for envelope in server.envelopes] == [TO[1:]]
    assert f"the mail server takes no mail for {TO[0]}: 550 b'5.1.1 no such user'" in caplog.text


@pytest.mark.parametrize("answers", [
    {"mail": "550 we do not like this"}, {"mail": "451 come back later"}, {address: "550 no such user" for address in TO}])
def test_the_mail_server_says_no(server, clock, caplog, answers):
    server.says.update(answers)
    clock.fail(), clock.tick()
    server.says.clear()
    clock.tick(0.99)
    assert server.mails == []
    clock.tick(0.02)
    assert len(server.mails) == 1
    assert "the mail server takes no notice: " in caplog.text and next(iter(answers.values())).partition(" ")[2] in caplog.text


def test_a_server_that_repeats_the_password_in_its_refusal(server, clock, caplog):
    server.says["mail"] = "550 your password hunter/2 (hunter%2F2) is not welcome\x1b[31m"
    with override_settings(EMAIL_URL="smtp://ann:hunter%2F2@h"):
        clock.fail(), clock.tick()
    assert "your password ******** (********) is not welcome" in caplog.text and "\x1b" not in caplog.text


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


@pytest.mark.processes
@pytest.mark.parametrize("behave", [
    lambda client: None, drip, lambda client: client.close(), lambda client: client.sendall(b"x" * 100_000)])
@pytest.mark.parametrize("way", ["mail", "hook"])
def test_it_is_no_such_server(clock, hook, monkeypatch, caplog, behave, way):
    """It accepts and says nothing, says a little now and then for ever, hangs up, or talks nonsense. With the process
    that sends, which is ended after a while."""
    monkeypatch.setattr(notify, "WITHIN", 10)
    monkeypatch.setattr(outage, "_channels", {})
    port = free_port()
    names = {"mail": {"FAILURES_TO": TO, "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": port},
             "hook": {"NOTIFY": [f"json://127.0.0.1:{port}/hook?rto=30"]}}
    with override_settings(**names[way]), bad_server(port, behave) as connected:
        clock.fail(), clock.tick()
        assert connected and " takes no notice: " in caplog.text
        assert Told.objects.get().sending["Failed"] == 1
    assert f":{port}" not in caplog.text


def test_it_hangs_up_before_it_has_said_whether_it_takes_the_mail(server, clock):
    """It may have taken it, so it is sent again."""
    clock.fail()
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
        clock.tick()
    server.start()
    clock.tick(1)
    assert server.subjects == ["API Scheduler: API_URL begins to fail: 1 failed"]


# --- Several at once, and those that die -----------------------------------------------------


def test_several_at_once_tell_once(server, clock, monkeypatch):
    """Eight at once, in eight ways of being interleaved; each call is told of exactly once."""
    monkeypatch.setattr(threading.Thread, "is_alive", lambda thread: False)     # as in processes of their own
    for _ in range(8):
        clock.fail(30, "Missed")
        now = clock.now
        before = len(server.mails)

        def tick(_):
            try:
                notify.tell(now)
            except Exception as error:      # SQLite's lock
                return error
        assert at_once(8, tick) == [None] * 8
        clock.tick()
        until(lambda: Told.objects.get().waiting == Told.objects.get().sending == {})
        assert len(server.mails) == before + 1
        clock.minutes += 15
    assert server.subjects == ["API Scheduler: API_URL: 30 missed"] * 8


def test_who_sends_for_longer_than_its_lease_notes_nothing(server, clock, monkeypatch):
    """What others have gathered meanwhile would be lost. It goes out again: rather twice."""
    clock.fail(1, "Missed")
    held, go = threading.Event(), threading.Event()
    server.took = lambda: (held.set(), go.wait(20))
    notify.tell(clock.now)
    suspended, = sending()
    suspended.name = "of another process"
    assert held.wait(20)
    server.took = None
    clock.fail(1, "Missed")
    other = MailServer().start()
    try:
        with override_settings(EMAIL_PORT=other.port), monkeypatch.context() as patched:
            patched.setattr(suspended, "is_alive", lambda: False)
            clock.tick(2)
    finally:
        other.stop()
    assert other.subjects == ["API Scheduler: API_URL: 2 missed"]
    clock.fail(1, "Missed"), clock.tick(1)
    go.set()
    suspended.join(20)
    assert Told.objects.get().waiting["Missed"] == 1
    clock.tick(15)
    assert server.subjects == ["API Scheduler: API_URL: 1 missed"] * 2, "of the first call, and of the third"


@pytest.mark.parametrize("way", ["mail", "hook"])
def test_killed_between_sending_and_noting(stack, hook, api, way):
    """It was taken, and its sender is dead before it can say so: it comes again."""
    server = MailServer().start()
    taken = server.mails if way == "mail" else hook.took
    try:
        stack.start("worker", "beat", **({"FAILURES_TO": TO[0], "EMAIL_URL": f"smtp://127.0.0.1:{server.port}"} if way == "mail"
                                         else {"NOTIFY": hook.url}))
        server.took = lambda: stack.kill("worker")
        hook.before = lambda: stack.kill("worker")
        calls = make(-300, 3)
        until(lambda: "worker" not in stack.processes)
        server.took = hook.before = None
        assert 1 <= Told.objects.get().sending["Missed"] <= 3
        until(lambda: len(taken) == 1)
        stack.start("worker")
        late = make(-300)
        until(lambda: ScheduledCall.objects.get(id=late.id).status == "Missed" and not Failure.objects.exists())
        assert len(taken) == 1 and Told.objects.get().waiting["Missed"] >= 1, "its lease still holds"
        Told.objects.update(tried_at=utcnow() - notify.LEASE)
        until(lambda: len(taken) == 2)
        text = server.last if way == "mail" else hook.last
        assert all(f"call {call.id}, " in text for call in [*calls, late])
    finally:
        server.stop()


# --- The whole service -----------------------------------------------------------------------


def ago(**fields):
    """Moves times of what was told into the past, as if so long had gone by."""
    for told in Told.objects.all():
        Told.objects.filter(id=told.id).update(**{name: getattr(told, name) - age for name, age in fields.items()})


def test_from_a_failure_to_the_notice_and_back(stack, hook, api):
    """With two workers and two beats, whose settings are the environment's."""
    server = MailServer().start()
    try:
        stack.start("web", "worker1", "worker2", "beat1", "beat2", FAILURES_TO=", ".join(TO),
                    EMAIL_URL=f"smtp://127.0.0.1:{server.port}", NOTIFY=f"{hook.url}, {hook.url}2")
        api.switched = "/status/503"
        stack.post(*[in_seconds(1)] * 20)
        all_ended(20)
        until(lambda: server.mails and len(hook.took) == 2)
        assert server.subjects[0].startswith("API Scheduler: API_URL begins to fail: ")
        until(lambda: Told.objects.filter(told_at__isnull=False).count() == 3 and not Failure.objects.exists())
        api.switched = None
        ago(failed_at=notify.EVERY, told_at=notify.EVERY)
        stack.post(in_seconds(1))
        all_ended(21)
        until(lambda: server.subjects[1:] == ["API Scheduler: API_URL works again"] and len(hook.took) == 4)
        assert {len(hook.titles()), len(hook.titles("/hook/t0k3n-0f-th3-hook2"))} == {2}
        for name in ("worker1", "worker2", "beat1", "beat2"):
            assert "t0k3n" not in stack.says(name)
    finally:
        server.stop()


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:Requiring AUTH")     # that server does not see that it speaks TLS
@pytest.mark.parametrize("scheme, password, trusted", [
    ("smtp+tls", "p%40ss%2fword", True), ("smtp+ssl", "p%40ss%2fword", True), ("smtp+tls", "wrong-one", True),
    ("smtp+tls", "p%40ss", False), ("smtp+ssl", "p%40ss", False)])
def test_tls_and_a_password(work, scheme, password, trusted):
    """As EMAIL_URL says. A certificate that nobody vouches for gets none, and no line shows the password."""
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
        tried = subprocess.run([sys.executable, "manage.py", "notify"], cwd=SERVICE, capture_output=True, text=True, env=os.environ | {
            "FAILURES_TO": TO[0], "DEFAULT_FROM_EMAIL": "Scheduler <s@example.org>",
            "EMAIL_URL": f"{scheme}://ops%40x:{password}@127.0.0.1:{server.port}",
            "SSL_CERT_FILE": str(files[0]) if trusted else "/dev/null"})
    finally:
        server.stop()
    if trusted and "wrong" not in password:
        assert (tried.stdout, tried.returncode) == ("the mail server: taken\n", 0)
        assert server.subjects == ["API Scheduler: a try"] and server.mails[0]["From"] == "Scheduler <s@example.org>"
    else:
        assert tried.returncode == 1 and server.mails == [] and bool(seen) == trusted
        assert ("535" if trusted else "certificate verify failed") in tried.stdout
    for secret in ("p@ss", "p%40ss", "wrong-one"):
        assert secret not in tried.stdout + tried.stderr


def test_while_a_channel_hangs_calls_are_on_time_and_health_is_good(stack, api):
    port = free_port()
    with bad_server(port, lambda client: None) as connected:
        stack.start("web", "worker", "beat", FAILURES_TO=TO[0], EMAIL_URL=f"smtp://127.0.0.1:{port}")
        make(-300, 3)
        until(lambda: connected)
        due = in_seconds(2)
        stack.post(*[due] * 10)
        assert all_ended(13) == {"Missed": 3, "Succeeded": 10}
        assert requests.get(stack.url + "/healthz", timeout=5).status_code == 200
        assert dispatch.since_beat() < 5


@pytest.mark.processes
def test_a_targets_own_channel_leads_to_public_addresses_only(clock, hook, billing, monkeypatch, caplog):
    """Else who may change a target had this service send what he likes to where he is not let in."""
    monkeypatch.setattr(outage, "_channels", {})
    billing.changes = {"notify": hook.url.replace("127.0.0.1", "localhost")}
    billing.full_clean(), targets.save(billing)
    monkeypatch.setenv("TARGET_NETWORKS", "10.0.0.0/8")
    monkeypatch.setenv("HTTP_PROXY", hook.url.replace("json", "http"))      # which is for API_URL alone
    clock.fail(target=billing), clock.tick()
    assert hook.took == [] and caplog.records[-1].message == (
        "the channel json of target billing takes no notice: it is at no public address, and TARGET_NETWORKS does not allow it. "
        "Notices wait; the next attempt is in 1 min")
    monkeypatch.setenv("TARGET_NETWORKS", "127.0.0.0/8")
    clock.tick(1)
    assert len(hook.took) == 1


@pytest.mark.processes
def test_a_targets_own_channel_sends_no_file_of_this_machine(hook, work, monkeypatch):
    """Several kinds of channels take a template: else who may change a target was sent what this service can read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(work))
    hook.server.socket = context.wrap_socket(hook.server.socket, server_side=True)
    known = work / "known.json"
    known.write_text('{"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": '
                     '{"type": "AdaptiveCard", "body": [{"type": "TextBlock", "text": "s3cr3t"}]}}]}')
    monkeypatch.setenv("TARGET_NETWORKS", "127.0.0.0/8")
    url = f"workflows://127.0.0.1:{hook.server.server_port}/{'w' * 32}/{'s' * 43}/?verify=no"

    def send(url, own):
        return channels.send([{"title": "billing begins to fail", "body": "It does.", "own": own, "url": url}], 30)[0]
    assert send(f"{url}&template={known}", False) is None and "s3cr3t" in str(hook.took.pop()), "whoever runs the service may"
    assert send(f"{url}&template={known}", True) == "it names a file of this machine, and those are not read for a target"
    assert hook.took == [] and send(url, True) is None and len(hook.took) == 1


@pytest.mark.parametrize("text", ["ops@example.org", "slack://", "json://example.org/s3cr3t nonsense://s3cr3t", "json://h/s3cr3t\x00",
                                  " ".join(f"json://example.org/s3cr3t/{i}" for i in range(21))])
def test_what_is_no_channel_is_refused_without_its_text(text, client):
    with pytest.raises(ValueError) as refused:
        channels.read(text)
    assert "s3cr3t" not in str(refused.value) and "Must be " in str(refused.value)


def test_several_channels_are_read():
    assert channels.read(" json://example.org/a, json://example.org/b json://example.org/a\n") == [
        "json://example.org/a", "json://example.org/b"]


@pytest.mark.processes
def test_the_channels_can_be_tried(hook, billing, capsys):
    with override_settings(NOTIFY=[hook.url]):
        call_command("notify")
        assert capsys.readouterr().out == "the channel json of NOTIFY: taken\n"
        hook.says = 404
        with pytest.raises(CommandError, match="1 of 1 took nothing"):
            call_command("notify", target="billing")
        assert capsys.readouterr().out == "the channel json of NOTIFY: HTTP status 404\n"
    with pytest.raises(CommandError, match="Nobody is told"):
        call_command("notify")
    assert hook.titles() == ["API Scheduler: a try"]


@pytest.mark.processes
def test_trouble_with_notices_is_none_of_the_dispatcher():
    late = make(-3600)
    connection.cursor().execute("ALTER TABLE scheduler_told RENAME TO scheduler_told_away")
    try:
        tasks.dispatch_all()
        assert Heartbeat.objects.exists() and ScheduledCall.objects.get(id=late.id).status == "Missed"
    finally:
        connection.cursor().execute("ALTER TABLE scheduler_told_away RENAME TO scheduler_told")


# --- An outside watcher ----------------------------------------------------------------------


@pytest.mark.processes
def test_an_outside_watcher_is_called_each_minute_while_all_is_well(monkeypatch, caplog):
    from scheduler.ops import heartbeat
    seen, says, hangs = [], [200], threading.Event()
    hangs.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(handler):
            seen.append(handler.path)
            hangs.wait(20)
            handler.send_response(says[0])
            handler.end_headers()

        def log_message(self, *_):
            pass
    watcher = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=watcher.serve_forever, daemon=True).start()
    monkeypatch.setattr(heartbeat, "_next", 0.0)

    def tick():
        tasks.dispatch_all()
        for thread in [thread for thread in threading.enumerate() if thread.name == "heartbeat"]:
            thread.join(20)
    with override_settings(HEARTBEAT_URL=f"http://127.0.0.1:{watcher.server_port}/s3cr3t-uuid"), caplog.at_level("WARNING"):
        tick(), tick()
        assert seen == ["/s3cr3t-uuid"]
        for says[0] in (500, 500, 200):
            monkeypatch.setattr(heartbeat, "_next", 0.0)
            tick()
        monkeypatch.setattr(heartbeat, "_next", 0.0)
        monkeypatch.setattr(dispatch, "hand_over", lambda send: 1 / 0)
        tick()
        assert len(seen) == 4, "all is not well"
        monkeypatch.undo()
        hangs.clear()
        for _ in range(2):
            monkeypatch.setattr(heartbeat, "_next", 0.0)
            tasks.dispatch_all()
        until(lambda: len(seen) == 5)
        hangs.set(), tick()
        monkeypatch.setattr(heartbeat, "_next", 0.0)
        tick()
        watcher.shutdown(), watcher.server_close()
        monkeypatch.undo()
        monkeypatch.setattr(heartbeat, "_next", 0.0)
        tick()
    assert [record.message for record in caplog.records if "HEARTBEAT" in record.message] == [
        "HEARTBEAT_URL cannot be reached: HTTP status 500", "HEARTBEAT_URL is reached again",
        "HEARTBEAT_URL cannot be reached: no answer within 60 s", "HEARTBEAT_URL is reached again",
        "HEARTBEAT_URL cannot be reached: ConnectionError"]
    assert "s3cr3t" not in caplog.text
    outage.heartbeat.over()


# --- Among many rows -------------------------------------------------------------------------


def test_looking_for_what_to_tell_reads_few_rows(told, clock, billing):
    fill(20_000, -1, status="Succeeded", ended_at=clock.now), fill(2_000, 86400)
    fill(20_000, -1, status="Failed", ended_at=clock.now)
    clock.tick(), clock.tick(), clock.tick()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if KIND == "sqlite" else "VACUUM ANALYZE")
    assert rows_read(lambda: clock.tick(1)) < 5000 and len(told.took) == 1
    clock.fail(target=billing)
    assert rows_read(lambda: clock.tick(1)) < 5000 and len(told.took) == 2
    assert rows_read(lambda: clock.tick(20)) < 5000, "it looks for those that succeed again"


def test_of_many_targets_that_fail_side_by_side_each_is_written_once_and_all_are_asked_for_at_once(told, clock, monkeypatch):
    monkeypatch.setattr(notify, "BATCH", 30)
    many = Target.objects.bulk_create([Target(name=f"target {number}", url="https://api.example/") for number in range(30)])
    for _ in range(10):
        for target in many:
            clock.fail(target=target)
    with CaptureQueriesContext(connection) as queries:
        clock.tick()
    written = [query for query in queries if query["sql"].startswith('UPDATE "scheduler_told"')]
    assert len(written) <= 2 * len(many), "what waits, and that it is sent"
    for minutes in (1, 20):
        for _ in range(5):
            clock.tick(1)       # those that were not sent in the same process
        with CaptureQueriesContext(connection) as queries:
            clock.tick(minutes)
        assert len(queries) == 2
    assert Told.objects.exclude(failing_since=None).count() == len(many)
