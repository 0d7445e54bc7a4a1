"""The log: one line for each call in the script's form, whole lines whoever else writes, no secrets."""
import os
import subprocess
import sys
from datetime import datetime, timezone

import pytest
from conftest import SERVICE
from django.test import override_settings

from scheduler.calls import log as call_log

DUE = datetime(2025, 10, 8, 12, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize("status, error, line", [
    ("Succeeded", "", "2025-10-08 12:30:00: Successfully called API at https://ifconfig.co\n"),
    ("Failed", "HTTP status 503", "2025-10-08 12:30:00: Failed to call API at https://ifconfig.co (HTTP status 503)\n"),
    ("Missed", "", "2025-10-08 12:30:00: Missed call to API at https://ifconfig.co (due 2025-10-08 12:30:00)\n"),
    ("Cancelled", "", "2025-10-08 12:30:00: Cancelled call to API at https://ifconfig.co (due 2025-10-08 12:30:00)\n"),
])
def test_the_form_of_a_line(status, error, line):
    with override_settings(API_URL="https://ifconfig.co"):
        assert call_log.line(status, DUE, DUE, error) == line


@pytest.mark.parametrize("lines, says", [([], "the lines come here"), (["one\n", "two\n"], "the lines are:\none\ntwo")])
def test_what_cannot_be_written_is_said(work, monkeypatch, lines, says):
    said = []
    monkeypatch.setattr(call_log.logger, "error", lambda text, *parts: said.append(text % parts))
    with override_settings(CALL_LOG=work / "logs" / "calls.log"):
        (work / "logs").write_text("no folder")
        call_log.write(lines)
    assert said == [f"cannot write to {work}/logs/calls.log: File exists. The outcomes are in the database; {says}"]


def test_a_password_is_left_out_and_control_characters_are_escaped():
    with override_settings(API_URL="https://ann:secret@ifconfig.co/x"):
        line = call_log.line("Failed", DUE, DUE, "a\nb\x1b]0;c\x07")
    assert "https://***@ifconfig.co/x" in line and "secret" not in line
    assert "(a\\nb\\x1b]0;c\\x07)" in line and line.count("\n") == 1


def test_a_schedules_name_stands_in_its_line_as_it_was_written():
    """But for what an older version may have let in."""
    assert 'of schedule "می\u200cخواهم 👩\u200d💻 a\\nb\\u202e"' in call_log.hole("9", "می\u200cخواهم 👩\u200d💻 a\nb\u202e", DUE, DUE)


def test_the_stamp_is_in_the_configured_zone():
    from django.utils import timezone as zone
    with zone.override("Asia/Kolkata"):
        assert call_log.line("Succeeded", DUE, DUE).startswith("2025-10-08 18:00:00: ")


def test_many_processes_share_the_file_and_no_line_is_torn(work):
    path = work / "logs" / "api_calls.log"
    code = ("import django; django.setup()\nfrom scheduler.calls import log as call_log\nimport sys\n"
            "for i in range(200): call_log.write([f'{sys.argv[1]} {i} {\"x\" * 400}\\n'] * 20)")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(n)], cwd=SERVICE,
                                env=os.environ | {"CALL_LOG": str(path)}) for n in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    lines = path.read_text().splitlines()
    assert len(lines) == 4 * 200 * 20
    assert all(line.split()[2] == "x" * 400 and len(line.split()) == 3 for line in lines)


def test_it_may_be_rotated_away_at_any_moment(work):
    path = work / "api_calls.log"
    with override_settings(CALL_LOG=path):
        call_log.write(["one\n"])
        path.rename(work / "old")
        call_log.write(["two\n"])
    assert path.read_text() == "two\n"


def test_a_disk_that_fills_up_in_the_middle_of_a_line(work, monkeypatch, caplog):
    """What is written stays, what is not is told, and the next line begins on a line of its own."""
    path = work / "api_calls.log"
    real_write, room = os.write, [7]

    def write(fd, data):
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real_write(fd, data[:room[0]])
        room[0] -= written
        return written
    caplog.set_level("ERROR")
    monkeypatch.setattr(call_log.logger, "propagate", True)
    monkeypatch.setattr(call_log.logger.parent, "propagate", True)
    with override_settings(CALL_LOG=path), monkeypatch.context() as full:
        full.setattr(os, "write", write)
        call_log.write(["one\n", "second\n", "third\n"])
    assert "No space left on device" in caplog.text and "second\nthird" in caplog.text
    assert "one\n" not in caplog.text
    with override_settings(CALL_LOG=path):
        call_log.write(["four\n"])
    assert path.read_text() == "one\nsec\nfour\n"
