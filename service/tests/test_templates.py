"""Placeholders, and what is built of a target, a schedule and a call."""
import json
import re
import time
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from conftest import make

from scheduler.calls import request, template
from scheduler.models import CallRequest, Schedule, Target

NASTY = ['a"b', "a\\", "a\r\nX-Injected: 1", "../../admin", "a/b?c=d&e#f", "{{call.id}}", "}}", "é€🦆", "\u2028", "%00", "", " ",
         '", "admin": true, "x": "', "\x00\x01\x7f", "\ud800", "</a><b c='1'>&amp;", ']]>" d="']


@pytest.mark.parametrize("value", NASTY)
def test_no_value_becomes_more_than_a_value(value):
    values = {"data.x": value}
    meant = value.encode("utf-8", "replace").decode()
    url = urlsplit(template.fill("http://example.org/a/{{data.x}}/b?q={{data.x}}&r=1", values, template.URL))
    assert url.path.count("/") == 3 and url.netloc == "example.org" and not url.fragment
    assert parse_qs(url.query, keep_blank_values=True) == {"q": [meant], "r": ["1"]}
    header = template.fill("call {{data.x}}", values, template.HEADER)
    assert header.isascii() and header.isprintable()
    body = '{"in": "<{{data.x}}>", "bare": {{ data.x }}, "{{data.x}}!": 1}'
    template.check(body, template.JSON)
    assert json.loads(template.fill(body, values, template.JSON)) == {"in": f"<{meant}>", "bare": value, f"{meant}!": 1}
    form = template.fill("a={{data.x}}&b=2", values, template.FORM)
    assert parse_qs(form, keep_blank_values=True) == {"a": [meant], "b": ["2"]}
    xml = ElementTree.fromstring(template.fill('<a b="{{data.x}}">{{data.x}}<c/></a>', values, template.XML))
    assert (xml.text or "") == re.sub("[\0\1]", "\ufffd", meant).replace("\r\n", "\n")
    assert xml.get("b") == (xml.text or "").replace("\n", " ")
    assert [part.tag for part in xml.iter()] == ["a", "c"] and list(xml.attrib) == ["b"]
    assert template.fill("a {{data.x}}.", values, template.TEXT) == f"a {meant}."


@pytest.mark.parametrize("content_type, kind", [
    ("application/json", template.JSON), ("Text/JSON; charset=utf-8", template.JSON), ("application/vnd.x+json", template.JSON),
    ("text/xml", template.XML), ("application/soap+xml; action=x", template.XML), ("text/html", template.XML),
    ("application/x-www-form-urlencoded", template.FORM), ("text/plain", template.TEXT), ("", template.TEXT)])
def test_the_content_type_says_how_values_are_escaped(content_type, kind):
    assert template.kind(content_type) == kind


def test_values_of_json_stay_what_they_are():
    values = {"data.x": {"a": [1, 2.5, None, True]}, "call.id": 7}
    filled = template.fill('{"id":{{call.id}},"x":{{data.x}},"s":"{{data.x}}"}', values, template.JSON)
    assert json.loads(filled) == {"id": 7, "x": {"a": [1, 2.5, None, True]}, "s": '{"a":[1,2.5,null,true]}'}


@pytest.mark.parametrize("kind", [template.URL, template.HEADER, template.FORM, template.TEXT])
def test_a_backslash_before_a_placeholder_escapes_nothing_but_in_json(kind):
    assert template.fill('\\{{call.id}} "{{call.attempt}}', {"call.id": 7, "call.attempt": 1}, kind) == '\\7 "1'
    with pytest.raises(ValueError, match="is no JSON"):
        template.check('"\\{{call.id}}"', template.JSON)


@pytest.mark.parametrize("text", [
    "{{", "{{}}", "{{call}}", "{{call.ip}}", "{{data.}}", "{{data.a b}}", "{{data.a.b}}", "{{call.id|upper}}", "{{1+1}}", "{{{call.id}}}",
    "{{call.id}", "{{ {{call.id}} }}", "{{" * 100_000, "{{" + " " * 100_000, "{{" + "x" * 100_000 + "}}", "{{data." + "x" * 65 + "}}"])
def test_what_is_no_placeholder_is_refused_in_a_few_words(text):
    began = time.monotonic()
    with pytest.raises(ValueError) as refusal:
        template.check(text, template.TEXT)
    assert len(str(refusal.value)) < 300 and time.monotonic() - began < 1


@pytest.mark.parametrize("text", ["{{call.id}", '{"a": 1{{call.id}}}', '{"a": "b}', "[NaN]", '{"a": {{call.id}}{{call.id}}}', "[" * 100_000,
                                  '"' + "\\" * 100_000])
def test_json_that_is_none_whatever_the_values_are_is_refused(text):
    with pytest.raises(ValueError):
        template.check(text, template.JSON)


def test_the_names_of_a_text():
    assert template.names("{{call.id}}{{ data.Order-1_x }}") == {"call.id", "data.Order-1_x"}
    assert template.names('{"a": {"b": 1}}') == set()


def test_a_value_cannot_lead_to_another_path_nor_fill_the_memory():
    for value in ("..", "."):
        with pytest.raises(ValueError, match="leads elsewhere"):
            template.fill("http://example.org/a/{{data.x}}/b", {"data.x": value}, template.URL)
    with pytest.raises(ValueError, match="more than"):
        template.fill("{{data.x}}" * 20_000, {"data.x": "x" * 60_000}, template.TEXT)


def target(**fields):
    made = Target(**{"name": "billing", "url": "https://api.example.org/v1/run"} | fields)
    made.full_clean()
    made.save()
    return made


def test_a_request_is_built_of_the_target_the_schedule_and_the_call():
    billing = target(
        method="POST", url="https://api.example.org/{{call.id}}?n={{call.note}}", delays=[1, 2], rate="10/s", max_at_once=3,
        headers={"Content-Type": "application/json", "X-Of": "{{schedule.name}} {{call.attempt}}"}, statuses="200-299, 404",
        body='{"due": "{{call.due}}", "o": {{data.o}}}')
    call = make(note="a b", target=billing)
    schedule = Schedule(name="nightly", headers={"x-of": "s"}, data={"o": 1})
    built = request.build(call, billing, None, schedule, 2)
    due = call.timestamp.isoformat().replace("+00:00", "Z")
    assert (built.method, built.url) == ("POST", f"https://api.example.org/{call.id}?n=a%20b")
    assert built.headers == (("Content-Type", "application/json"), ("x-of", "s"))
    assert json.loads(built.body) == {"due": due, "o": 1}
    assert (built.target_id, built.target, built.version, built.number) == (billing.pk, "billing", 1, 2)
    assert built.delays == (1, 2) and built.max_age == 86400
    assert built.statuses == ((200, 299), (404, 404)) and not built.repeatable and built.guarded and built.keep_method
    own = CallRequest(call=call, body="<{{data.o}}>", headers={"Content-Type": "text/plain"}, data={"o": "é"})
    built = request.build(call, billing, own, schedule, 1)
    assert built.body == "<é>".encode() and dict(built.headers) == {"X-Of": "nightly 1", "Content-Type": "text/plain"}
    again = request.build(call, billing, None, schedule, 1)
    assert built.message_id == again.message_id and built.message_id.startswith(f"call_{call.id}_")
    assert request.message_id(make()) != built.message_id
    call.refresh_from_db()
    assert request.message_id(call) == built.message_id


def test_a_safe_method_may_be_repeated():
    assert [request.build(SimpleNamespace(id=1, timestamp=make().timestamp, created_at=make().created_at, note="", scheduled_via=""),
                          Target(name="t", url="http://example.org", method=method), None, None, 1).repeatable
            for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")] == [True] * 3 + [False] * 4


def test_what_cannot_be_filled_in_is_not_sent():
    billing = target(url="https://api.example.org/{{data.order}}")
    with pytest.raises(request.Unsendable, match="there is no data.order to fill in"):
        request.build(make(target=billing), billing, None, None, 1)


def test_what_can_be_known_when_a_call_is_scheduled_is_said_then():
    billing = target(url="https://api.example.org/{{data.a}}", method="POST", body='{"b": {{data.b}}}',
                     headers={"Content-Type": "application/json"})
    assert billing.problems_with() == {"data": "Lacks a, b, to be filled in."}
    assert billing.problems_with(data={"a": 1, "b": 2, "c": 3}) == {}
    assert billing.problems_with(body="[1]", data={"a": 1}) == {}
    assert set(billing.problems_with(body="{{x", data={"a": 1})) == {"body"}
    assert set(billing.problems_with(body="no JSON", data={"a": 1})) == {"body"}
    assert set(billing.problems_with(headers={"Host": "x"}, data={"a b": 1})) == {"headers", "data"}
    for data in ({"a": "\0"}, {"a": float("inf")}, {"a": ["\ud800"]}, {"x": 1, "a": "x" * 70_000}, [], {str(i): 1 for i in range(101)}):
        assert set(billing.problems_with(body="[1]", data=data)) == {"data"}, data
