"""What the README says, as it stands there: its requests are taken, its tables are what the code has, and its example of an API
lets nobody else in."""
import json
import re
import shlex
from base64 import b64encode
from datetime import datetime, timedelta, timezone

import pytest
from conftest import SERVICE
from django.contrib.auth.models import User
from django.test import Client
from standardwebhooks import Webhook

from scheduler.calls import outcomes
from scheduler.models import Schedule, ScheduledCall, Target

README = (SERVICE / "README.md").read_text()
NOW = datetime.now(timezone.utc)


def requests():
    """(method, path, body) of each curl with a body, in the order in which they stand there."""
    blocks = [re.sub("^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n)+", README, re.M)]
    for command in [command for block in blocks for command in re.split("^(?=curl )", block, flags=re.M) if command.startswith("curl")]:
        words = shlex.split(command, comments=True)
        if "-d" in words and "$(" not in command:
            url = next(word for word in words if word.startswith("http"))
            yield words[words.index("-X") + 1], url.removeprefix("http://127.0.0.1:8000"), json.loads(words[words.index("-d") + 1])


def test_its_requests_are_taken():
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    asked = list(requests())
    assert {(method, path) for method, path, _ in asked} == {
        ("POST", "/api/targets/"), ("POST", "/api/schedule-api/"), ("POST", "/api/schedule-api/again/"),
        ("PATCH", "/api/targets/billing/"), ("POST", "/api/schedules/"), ("PATCH", "/api/schedules/1/")}
    for method, path, body in asked:
        text = json.dumps(body)
        if path == "/api/schedules/1/":
            path = f"/api/schedules/{Schedule.objects.get().id}/"
        answer = client.generic(method, path, text, content_type="application/json")
        assert answer.status_code in (200, 201), f"{method} {path} {text}: {answer.content.decode()}"
    assert Target.objects.get().rate == "300/min" and Target.objects.get().paused_reason == "the API is being moved"
    assert ScheduledCall.objects.filter(target__name="billing").count() == 3


def test_its_table_of_failures_is_the_function_s():
    rows = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in
            README.split("| what happened | class |")[1].split("\n\n")[0].replace("`", "").splitlines()[2:]]
    assert [name for _, name, _, _ in rows] == [outcomes.NOTHING, outcomes.REFUSED, outcomes.UNKNOWN, outcomes.ANSWERED]
    named = {int(status): name for what, name, _, _ in rows for status in re.findall(r"\b\d{3}\b", what)}
    for status in [101, *range(400, 600)]:
        assert outcomes.classify(True, status) == named.get(status, outcomes.ANSWERED), status
    assert outcomes.classify(True, 200) == outcomes.ANSWERED, "no success by its text"
    assert outcomes.classify(False) == outcomes.NOTHING and outcomes.classify(True) == outcomes.UNKNOWN

    def again(failure, repeatable):
        return outcomes.next_attempt(failure, 1, NOW, NOW, None, (10,), 60, repeatable) is not None
    for _, name, _, retried in rows:
        assert (again(name, False), again(name, True)) == {
            "yes": (True, True), "onl": (False, True), "no": (False, False)}[retried[:3]], name
    assert outcomes.in_words("unknown", "cut off", False) == "outcome unknown: cut off"


def test_its_settings_are_those_that_are_read_with_their_defaults():
    code = (SERVICE / "scheduler" / "settings.py").read_text()
    section = README.split("\n## Settings\n")[1].split("\n## ")[0]
    rows = [(re.findall("`([A-Z_]+)`", names), default) for names, default in re.findall(r"^\| (.+?) \| (.*?) \| ", section, re.M)]
    named = [name for names, _ in rows for name in names]
    assert sorted(named) == sorted(set(re.findall(r'\b(?:env\.\w+|number)\(\s*"([A-Z_]+)"', code)))
    defaults = {name: value for names, cell in rows if re.fullmatch("[0-9., ]+", cell) for name, value in zip(names, cell.split(", "), strict=True)}
    assert {name: float(value) for name, value in defaults.items()} == {
        name: float(value) for name, value in re.findall(r'number\("([A-Z_]+)", ([0-9._]+),', code)}


def test_each_file_of_a_wing_has_its_line_and_each_line_its_file():
    named = set(re.findall(r"`([a-z_/]+\.(?:py|html|css|js))`", README.split("\n## Where what is\n")[1].split("| to change |")[1]))
    assert not [name for name in named if not any((SERVICE / folder / name).exists() for folder in ("scheduler", "scheduler/static", "."))]
    there = {f"{wing}/{path.name}" for wing in ("admin", "api", "base", "calls", "files", "ops", "schedules")
             for path in (SERVICE / "scheduler" / wing).glob("[a-z]*.py")}
    assert len(there) > 50 and not there - named


@pytest.fixture
def example():
    """(receive(headers, body), key, list of what it has worked on)"""
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    worked = []
    names = {"done": set(), "work": worked.append}
    exec(code, names)
    return names["receive"], re.search(r'"(whsec_[^"]+)"', code)[1], worked


def signed(key, body, number="call_1_5f", at=None, *others):
    """The headers that go with it, now or at another time."""
    at = at or datetime.now(timezone.utc)
    signatures = [Webhook(one).sign(number, at, body) for one in (*others, key)]
    return {"webhook-id": number, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": " ".join(signatures)}


def test_its_example_works_once_for_each_call_and_for_nobody_else(example):
    receive, key, worked = example
    body, other = '{"invoice": 7}', "whsec_" + b64encode(b"x" * 32).decode()
    for _ in range(3):
        assert receive(signed(key, body), body) == 200
    assert worked == [{"invoice": 7}], "a repetition is answered, and not done"
    assert receive(signed(key, body, "call_2_5f", None, other), body) == 200 and len(worked) == 2, "while the key is changed"
    for headers, text in ((signed(other, body, "call_3_5f"), body), (signed(key, body, "call_3_5f"), '{"invoice": 8}'),
                          (signed(key, body, "call_3_5f", datetime.now(timezone.utc) - timedelta(minutes=6)), body), ({}, body)):
        assert receive(headers, text) == 401
    assert len(worked) == 2
