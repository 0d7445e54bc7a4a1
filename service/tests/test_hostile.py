"""What a hostile user sends: each is answered with words, and soon."""
import json
import time

import pytest
from django.test import override_settings
from test_targets import BILLING, PATH, post

from scheduler.models import Schedule, Target

DEEP = ["[" * 101 + "]" * 101, "[" * 700 + "]" * 700, '{"a":' * 101 + "1" + "}" * 101, '{"a":' * 700 + "1" + "}" * 700, "[" * 100_000]
SCHEDULE = {"name": "n", "zone": "Europe/Berlin", "times": "10:00:00"}


def in_json(client, method, path, raw, code):
    began = time.monotonic()
    answer = client.generic(method, path, raw, content_type="application/json")
    assert answer.status_code == code, answer.content[:500]
    assert time.monotonic() - began < 3 and len(answer.content) < 5000
    return answer.json()["detail"]


@pytest.mark.parametrize("raw", DEEP, ids=lambda raw: raw[:6] + str(len(raw)))
def test_json_that_is_nested_too_deeply(client, raw):
    post(client)
    schedule = client.post("/api/schedules/", json.dumps(SCHEDULE), "application/json").json()["id"]
    for path, keys in ((PATH + "billing/", ("headers", "secret_headers", "body", "auth", "paused", "success", "signing_key")),
                       (f"/api/schedules/{schedule}/", ("body", "headers", "data", "except", "paused"))):
        for key in keys:
            assert "nested too deeply" in in_json(client, "PATCH", path, f'{{"{key}": {raw}}}', 400)
    for key in ("body", "headers", "data", "expires"):
        one = f'{{"delay": 90, "target": "billing", "{key}": {raw}}}'
        for whole in (one, f'{{"calls": [{one}]}}'):
            assert "nested too deeply" in in_json(client, "POST", "/api/schedule-api/", whole, 400)


NO_JSON = "This is no JSON"


@pytest.mark.parametrize("raw, says", [
    *[(raw, NO_JSON) for raw in DEEP], ("1" * 5000, NO_JSON), ('{"a": ' + "1" * 5000 + "}", NO_JSON), ('{"a": NaN}', NO_JSON),
    ('{"a": 1, "a": 1}', "The key &quot;a&quot; stands twice")], ids=lambda raw: raw[:6] + str(len(raw)))
def test_json_in_a_form(client, raw, says):
    post(client)
    target = Target.objects.get().pk
    client.post("/api/schedules/", json.dumps(SCHEDULE | {"target": "billing"}), "application/json")
    for page, name in (("scheduledcall/add/", "data"), ("scheduledcall/add/", "headers"), (f"target/{target}/test/", "data"),
                       (f"schedule/{Schedule.objects.get().pk}/change/", "data"), ("schedule/add/", "headers")):
        answer = client.post(f"/admin/scheduler/{page}", {name: raw})
        assert answer.status_code == 200 and says in answer.content.decode()


def test_headers_by_the_thousand(client):
    many = json.dumps({f"X-{number}": "v" for number in range(10_000)})
    post(client)
    for key in ("headers", "secret_headers"):
        assert "There are 10000; at most 100" in in_json(client, "PATCH", PATH + "billing/", f'{{"{key}": {many}}}', 400)
        assert "There are 10000; at most 100" in in_json(
            client, "POST", PATH, f'{json.dumps(BILLING | {"name": "new"})[:-1]}, "{key}": {many}}}', 400)


@pytest.mark.parametrize("key", ["name", "url", "method", "rate", "signing_key", "body"])
def test_what_is_wrong_is_not_said_again_at_length(client, key):
    post(client)
    in_json(client, "PATCH", PATH + "billing/", json.dumps({key: "x" * 300_000}), 400)


@pytest.mark.parametrize("name", ["%00", "a%00b", "%ff", "%ED%A0%80", "a%0Ab", "a b", "x" * 5000])
def test_a_name_that_no_target_can_have(client, name):
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "test/")):
        assert "There is no" in in_json(client, method, f"{PATH}{name}/{path}", "{}", 404)
    in_json(client, "GET", f"/api/schedule-api/?target={name}", "", 400)


@override_settings(API_URL="https://ann:p4ssw0rd@api.example.org/hook?key=s3cr3t")
def test_the_form_of_a_schedule_shows_api_url_without_its_secrets(client):
    page = client.get("/admin/scheduler/schedule/add/").content.decode()
    assert "api.example.org/hook" in page and "p4ssw0rd" not in page and "s3cr3t" not in page
