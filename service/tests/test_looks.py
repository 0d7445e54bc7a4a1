"""How pages look, wherever one lands: their ways, their colours, and what stands in place of a page."""
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import PASSWORD, SERVICE, guest, make
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, override_settings

from scheduler.base.clock import utcnow
from scheduler.models import Attempt, ScheduledCall

LIST = "/admin/scheduler/scheduledcall/"
LOOK = (SERVICE / "scheduler" / "static" / "scheduler" / "look.css").read_text()
BROWSER = {"headers": {"Accept": "text/html,application/xhtml+xml"}}


def ways(page):
    """The ways to other pages, in their order, and the one that is here."""
    bar = re.search('(?s)<nav id="ways".*?</nav>', page)[0]
    return re.findall('<a href="([^"]+)"[^>]*>([^<]+)</a>', bar), re.findall('aria-current="page">([^<]+)', bar)


def test_each_page_has_the_ways_to_all_others(client):
    for path, here in ((LIST, ["Calls"]), (f"{LIST}{make(60).id}/change/", ["Calls"]), ("/admin/scheduler/target/add/", ["Targets"]),
                       ("/admin/", [])):
        page = client.get(path).content.decode()
        found, current = ways(page)
        assert [name for _, name in found] == ["Calls", "Targets", "Schedules", "Users", "Groups", "Tokens"] and current == here
        assert all(client.get(url).status_code == 200 for url, _ in found)
        assert "View site" not in page and 'href="/" ' not in page and 'id="nav-sidebar"' not in page
    index = client.get("/admin/").content.decode()
    places = [index.index(f'id="{app}-{model}"') for app, model in (
        ("scheduler", "scheduledcall"), ("scheduler", "target"), ("scheduler", "schedule"), ("auth", "user"), ("authtoken", "tokenproxy"))]
    assert places == sorted(places)


def test_the_address_alone_opens_what_one_may_see(client):
    assert client.get("/").url == LIST
    assert guest("view_schedule").get("/").url == "/admin/scheduler/schedule/"
    assert guest(name="ben").get("/").url == "/admin/"
    assert Client().get("/").url == "/admin/login/?next=/"


def test_each_list_is_called_by_what_it_lists(client):
    for url, name in ways(client.get("/admin/").content.decode())[0]:
        page = client.get(url).content.decode()
        assert f"<h1>{name}</h1>" in page and f"<title>{name} | API Scheduler</title>" in page
        assert "Authentication" not in page and "Auth Token" not in page


def test_the_same_words_do_not_stand_twice_on_the_page_of_a_call(client):
    call = make(-60, status="Retrying", attempts_made=1, started_at=utcnow(), next_attempt_at=utcnow(), error="no answer within 10 s")
    Attempt.objects.create(call=call, number=1, ended_at=utcnow(), outcome="Failed", error=call.error)
    page = client.get(f"{LIST}{call.pk}/change/").content.decode()
    assert [page.count(words) for words in ("ext attempt", "no answer within 10 s")] == [1, 1] and "form-row field-how" in page
    ScheduledCall.objects.update(status="Failed", ended_at=utcnow())
    assert "form-row field-how" not in client.get(f"{LIST}{call.pk}/change/").content.decode(), "its last attempt says so"


def test_a_row_of_the_list_has_the_beginning_of_a_long_error(client):
    call = make(-60, status="Retrying", error="<b>" + 80 * "error ", next_attempt_at=utcnow())
    page = client.get(LIST).content.decode()
    shown = re.sub("<.*?>", "", re.search('(?s)<td class="field-outcome">(.*?)</td>', page)[1])
    assert shown.startswith("&lt;b&gt;error ") and len(shown) < 250 and "…, next attempt " in shown
    assert call.error[:400] in client.get(f"{LIST}{call.pk}/change/").content.decode().replace("&lt;", "<").replace("&gt;", ">")


def test_what_is_wrong_with_a_filter_is_not_folded_away_on_a_phone(client):
    assert '<details id="fold-views">' in client.get(LIST).content.decode()
    assert '<details id="fold-views" open>' in client.get(LIST + "?due_from=soon").content.decode()


def test_a_fragment_is_the_page_without_its_frame(client):
    """With all that changes on it, and with no statement more than the page."""
    make(60)
    whole, part = client.get(LIST).content.decode(), client.get(LIST, headers={"X-Fragment": "1"}).content.decode()
    for needed in ('id="result_list"', 'id="calls-summary" data-live', 'id="calls-picture" data-live', 'class="paginator"'):
        assert needed in whole and needed in part
    for frame in ("<html", "<style", "<script", 'id="ways"', 'id="user-tools"'):
        assert frame in whole and frame not in part
    with statements() as of_page:
        client.get(LIST)
    with statements() as of_part:
        client.get(LIST, headers={"X-Fragment": "1"})
    assert 0 < len(of_part) <= len(of_page)
    assert Client().get(LIST, headers={"X-Fragment": "1"}).status_code == 302, "logged out, it is asked for no more"


@contextmanager
def statements():
    sent = []

    def note(execute, sql, *rest):
        sent.append(sql)
        return execute(sql, *rest)
    with connection.execute_wrapper(note):
        yield sent


def luminance(colour):
    """Of #rrggbb, by WCAG 2.2."""
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def colours(text):
    """{name: #rrggbb} of the custom properties of a style sheet that are colours."""
    found = dict(re.findall("--([a-zA-Z-]+): (#[0-9a-f]{3,6})", text))
    return {name: "#" + "".join(2 * digit for digit in colour[1:]) if len(colour) == 4 else colour for name, colour in found.items()}


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_dots_and_lines_can_be_told_from_what_is_behind_them(mode):
    """3:1, WCAG 2.2 (1.4.11): on a page, on every second row, and on one that is chosen."""
    light, by_system, by_choice = re.split("@media|html\\[data-theme=\"dark\"\\]", LOOK)[:3]
    assert colours(by_system) == colours(by_choice), "whoever chose it, it is the same"
    django = Path(admin.__file__).parent / "static" / "admin" / "css" / ("base.css" if mode == "light" else "dark_mode.css")
    behind, ours = colours(django.read_text()), colours(light if mode == "light" else by_choice)
    assert set(ours) == {"Pending", "Retrying", "Running", "Succeeded", "Failed", "Missed", "Cancelled", "line"}
    for name, colour in (ours | {"link-fg": behind["link-fg"]}).items():
        for ground in ("body-bg", "darkened-bg", "selected-row"):
            assert contrast(colour, behind[ground]) >= 3, (name, ground, mode)


def test_no_other_style_has_colours_of_its_own_for_a_status():
    for path in (SERVICE / "scheduler" / "templates").rglob("*.html"):
        assert not re.search("(Pending|Succeeded|Failed|Missed)[^}]*#[0-9a-f]{6}", path.read_text()), path


def told(answer, code, words):
    """Whether it is a page of ours, with that status and these words, and a way back."""
    page = answer.content.decode()
    assert answer.status_code == code and words in page
    assert "<title>" in page and "API Scheduler</a>" in page and 'class="ways"' in page
    assert "http" not in re.sub("<!DOCTYPE.*?>", "", page) and "<script" not in page and "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("debug", [True, False])
def test_what_stands_in_place_of_a_page(client, debug):
    with override_settings(DEBUG=debug):
        for path in ("/nowhere", "/admin/nowhere/", "/admin/scheduler/scheduledcall/9/cancel/"):
            told(client.get(path, **BROWSER), 404, "There is no such page")
        ann = guest()
        told(ann.get(LIST, **BROWSER), 403, "You may not do this")
        strict = Client(enforce_csrf_checks=True)
        told(strict.post("/admin/login/", {"username": "x"}, **BROWSER), 403, "This form is not taken")
        assert client.get("/api/nowhere", **BROWSER).headers["Content-Type"] == "application/json"


def test_who_is_locked_out_is_told_on_a_page():
    User.objects.create_superuser("root", password=PASSWORD)
    for _ in range(11):
        answer = Client().post("/admin/login/", {"username": "root", "password": "wrong"})
    told(answer, 429, "Wait ten minutes")


def test_what_breaks_says_so_on_a_page(monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")
    User.objects.create_superuser("root")
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get())
    monkeypatch.setattr(admin.site, "get_app_list", broken)
    told(client.get("/admin/", **BROWSER), 500, "Something is broken here")


@pytest.mark.parametrize("debug", [True, False])
def test_a_database_that_was_not_migrated_says_what_to_do(client, debug):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE scheduler_scheduledcall RENAME TO elsewhere")
    try:
        with override_settings(DEBUG=debug):
            told(client.get(LIST, **BROWSER), 503, "python3 manage.py migrate")
            assert client.get(LIST).content.decode().count("\n") == 1, "to a program in a line"
            assert "python3 manage.py migrate" in client.get("/api/schedule-api/").json()["detail"]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO scheduler_scheduledcall")
