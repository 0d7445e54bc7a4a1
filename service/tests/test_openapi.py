"""The OpenAPI document, and the running service held to it."""
import os
import re
import subprocess
import sys
from datetime import datetime, timezone

import pytest
import requests
from django.contrib.auth.models import Permission
from django.test import Client
from rest_framework.authtoken.models import Token

from selenium.webdriver.common.by import By

from conftest import PASSWORD, SERVICE, log_in, make, person, until

from scheduler.models import Attempt, CallRequest, Schedule, Target
from scheduler.schedules import planner


def test_the_document_is_written_without_a_warning():
    result = subprocess.run([sys.executable, "manage.py", "spectacular", "--validate", "--fail-on-warn"],
                            cwd=SERVICE, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for path in ("/api/schedule-api/:", "/api/schedule-api/{id}/:", "/api/schedule-api/{id}/again/:",
                 "/api/schedule-api/{id}/try-now/:", "/api/schedule-api/again/:", "/api/schedules/:", "/api/schedules/{id}/:",
                 "/healthz:"):
        assert path in result.stdout


@pytest.mark.parametrize("debug", ["true", "false"])
def test_the_page_that_shows_it(stack, debug):
    """All that it loads is served here: a script from elsewhere could act as whoever looks at it."""
    token = Token.objects.create(user=person()).key
    stack.start("web", DEBUG=debug)
    page = requests.get(stack.url + "/api/docs/", timeout=10, headers={"Authorization": f"Token {token}"})
    assert page.status_code == 200 and "swagger-ui" in page.text and "//cdn" not in page.text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) >= 3 and all(re.match("/[^/]", path) for path in loaded), loaded
    for path in loaded:
        assert requests.get(stack.url + path, timeout=10).status_code == 200, path


def test_the_service_keeps_to_it(stack):
    """Thousands of requests made up by schemathesis, good and bad ones.

    Two of its checks do not fit: a cancelled call is still there to be looked at (use_after_free),
    and no schema can say which texts are dates that exist (positive_data_acceptance).
    """
    make(86400, 20)
    for name in "abc":
        planner.save(Schedule(name=name, times="12:00:00", zone="UTC"))
    user = person()
    user.user_permissions.add(*Permission.objects.filter(codename__regex="_(schedule|target)$|see_request"))
    Target.objects.create(name="billing", url="http://127.0.0.1:9/", method="POST", delays=[600])
    token = Token.objects.create(user=user).key
    stack.start("web", "worker", "beat", DEBUG="false", WRITE_RATE="100000/min")
    until(lambda: requests.get(stack.url + "/healthz", timeout=5).status_code == 200)
    result = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", stack.url + "/api/schema/",
         "--max-examples", "40", "--seed", "1", "--no-color", "--generation-database", "none",
         "--exclude-checks", "use_after_free,positive_data_acceptance",
         "--exclude-path-regex", "/test/$",     # which would call what it made up
         "-H", f"Authorization: Token {token}"],
        cwd=os.path.dirname(stack.outputs["web"]), capture_output=True, text=True, timeout=480)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert "Internal Server Error" not in stack.outputs["web"].read_text()


def test_the_limits_of_a_key_stand_in_it():
    client = Client()
    client.force_login(person())
    post = client.get("/api/schema/?format=json").json()["paths"]["/api/schedule-api/"]["post"]
    key = next(parameter for parameter in post["parameters"] if parameter["name"] == "Idempotency-Key")
    assert (key["schema"]["minLength"], key["schema"]["maxLength"], key["schema"]["pattern"]) == (1, 255, "^[ -~]+$")


def keys(value):
    """What a value of JSON has for keys, and what these have: its shape. Of a list, that of the first."""
    if isinstance(value, dict):
        return {key: keys(part) for key, part in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else None


def test_each_request_has_examples_that_can_be_sent_as_they_stand_and_their_answers_look_as_it_says(client):
    paths = client.get("/api/schema/?format=json").json()["paths"]
    asked = [(method, path, operation["requestBody"]["content"]["application/json"]["examples"])
             for path, operations in paths.items() for method, operation in operations.items() if "requestBody" in operation]
    assert len(asked) == 8 and all(len(examples) > 0 for _, _, examples in asked)
    Target.objects.create(name="mail", url="https://api.example.org/", method="POST")
    asked.sort(key=lambda one: one[1].startswith("/api/schedule"))      # targets first, which the others name
    names, made = {}, []
    for method, path, examples in asked:
        if path.endswith("/test/"):
            continue            # which waits for a worker
        for title, example in examples.items():
            answer = getattr(client, method)(path.format(name="billing", **names), example["value"], "application/json")
            assert answer.status_code in (200, 201), (path, title, answer.content)
            if path in ("/api/schedules/", "/api/schedule-api/"):
                names["id"] = (answer.json() if isinstance(answer.json(), dict) else answer.json()[0])["id"]
            shown = paths[path][method]["responses"][str(answer.status_code)]["content"]["application/json"].get("examples")
            if shown and "calls" not in example["value"]:
                whole, = (one["value"] for one in shown.values())
                assert (keys(whole) == keys(answer.json())
                        or "first" in whole and {**keys(whole), "first": None} == keys(answer.json())), (path, title)
            made.append((path, title))
    assert len(made) == len(set(made)) == sum(len(examples) for _, path, examples in asked if "/test/" not in path)


def test_the_answer_about_one_call_looks_as_the_example_says(client):
    example, = client.get("/api/schema/?format=json").json()["paths"]["/api/schedule-api/{id}/"]["get"]["responses"]["200"][
        "content"]["application/json"]["examples"].values()
    shown = example["value"]
    target = Target.objects.create(name="billing", url="https://api.example.org/", method="POST")
    call = make(-60, target=target, status="Failed", error="HTTP status 422", attempts_made=1)
    CallRequest.objects.create(call=call, body=shown["request"]["body"])
    now = datetime.now(timezone.utc)
    attempt = shown["attempts"][0]
    Attempt.objects.create(
        call=call, number=1, started_at=now, ended_at=now, outcome="Failed", failure="answered", http_status=422, error="HTTP status 422",
        kept={"version": 3, "address": "203.0.113.7", "phases": attempt["phases_ms"], "request": attempt["request"],
              "response": {**attempt["response"], "headers": [["Content-Type", "application/json"]]}})
    assert keys(client.get(f"/api/schedule-api/{call.pk}/").json()) == keys(shown)


def test_the_page_asks_to_log_in_and_says_what_is_lacking():
    client = Client()
    answer = client.get("/api/docs/")
    assert (answer.status_code, answer.url) == (302, "/admin/login/?next=/api/docs/")
    assert client.get("/api/schema/").status_code == 401, "for programs"
    user = person(may=[])
    user.is_staff = True
    user.set_password(PASSWORD), user.save()
    answer = client.post(answer.url, {"username": "ann", "password": PASSWORD}, follow=True)
    assert answer.status_code == 403 and answer["Content-Type"].startswith("text/html")
    person()
    assert b"swagger-ui" in client.get("/api/docs/").content


def test_it_is_dark_where_the_reader_s_system_is(stack, browser):
    person()
    stack.start("web")
    log_in(browser, stack.url)
    for scheme, expected in (("light", False), ("dark", True)):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        browser.get(stack.url + "/api/docs/")
        until(lambda: browser.find_elements(By.CSS_SELECTOR, ".opblock-summary-path"))
        ground, text = (browser.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]].match(/[0-9]+/g).slice(0, 3).map(Number)", *what)
            for what in (("body", "backgroundColor"), (".opblock-summary-path", "color")))
        assert (sum(ground) < 200) is expected and (sum(text) > 400) is expected, (ground, text)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
