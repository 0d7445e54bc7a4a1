"""The search above the list of calls: what it finds, where it looks, and that it reads no more than it says."""
import re
from datetime import timedelta
from html import unescape

import pytest
from conftest import fill, make, rows_read

from django.db import connection

from scheduler.admin import search
from scheduler.base.clock import utcnow
from scheduler.models import Schedule, ScheduledCall, Target

LIST = "/admin/scheduler/scheduledcall/"


@pytest.fixture
def ask(client):
    """What the list shows for a search: (set of ids, what it says of it)."""
    def ask(text, **query):
        answer = client.get(LIST, {"q": text} | query)
        assert answer.status_code == 200
        page = answer.content.decode()
        said = re.search(r'<p class="calls-chosen">Only calls (with.*?)\. <a', page)
        return (set(map(int, re.findall('name="_selected_action" value="([0-9]+)"', page))), unescape(said[1]) if said else "")
    return ask


def test_it_finds_ids_notes_targets_schedules_and_words_of_errors(ask):
    billing = Target.objects.create(name="billing", url="https://a.example/")
    lunch = Schedule.objects.create(name="lunch in Rome", times="12:30:00", zone="UTC")
    calls = {"target": make(60, target=billing), "schedule": make(-60, schedule=lunch, status="Succeeded"),
             "note": make(60, note="Nightly import, part 2"), "error": make(-60, status="Failed", error="HTTP status 503"),
             "other": make(60)}
    ids = {name: call.id for name, call in calls.items()}
    for text, found in (("billing", "target"), ("ROME", "schedule"), ("import", "note"), ("part nightly", "note"),
                        ('"import, part"', "note"), ("status 503", "error")):
        assert ask(text)[0] == {ids[found]}, text
    assert ids["other"] in ask(str(ids["other"]))[0]
    for text in ('"part nightly"', "billing 503", "none", "'", '"', "%", "_", "\\", "9" * 40):
        assert ask(text)[0] == set(), text
    assert ask("  ") == (set(ids.values()), ""), "nothing is looked for"
    both = make(-60, target=billing, status="Failed", error="HTTP status 503")
    assert ask("billing 503")[0] == {both.id} and ask("status")[0] == {both.id, ids["error"]}


def test_it_says_what_it_looked_for(ask):
    assert ask("<b> 7")[1] == "with “<b>” and “7” as id, or in note, error, name of target or schedule"
    assert ask("\0\0")[1] == "with nothing that can be looked for as id, or in note, error, name of target or schedule"


def test_it_looks_in_all_views_and_each_narrows_it(ask, client):
    billing = Target.objects.create(name="billing", url="https://a.example/")
    failed, pending, its = make(-60, status="Failed", note="x1"), make(60, note="x1"), make(60, note="x1", target=billing)
    assert ask("x1")[0] == {failed.id, pending.id, its.id}
    assert ask("x1", view="trouble")[0] == ask("x1", status="Failed")[0] == {failed.id}
    assert ask("x1", view="upcoming", target=billing.id)[0] == {its.id}
    soon = f"{utcnow():%Y-%m-%dT%H:%M:%S}"
    assert ask("x1", due_from=soon)[0] == {pending.id, its.id} and ask("x1", due_before=soon)[0] == {failed.id}
    assert ask("x1", due_from="soon")[0] == set()
    page = client.get(LIST, {"q": "x1", "target": billing.id}).content.decode()
    assert '<a href="?view=trouble&amp;target=' in page and page.count("&amp;q=x1") >= 4 + 8, "tabs and statuses keep it"
    form = re.search('(?s)<form id="changelist-search".*?</form>', page)[0]
    assert re.findall('type="hidden" name="([^"]+)"', form) == ["target"] and 'value="x1"' in form
    csv = b"".join(client.get(LIST + "csv/", {"q": "x1", "status": "Failed"}).streaming_content).decode()
    assert [line.split(",")[0] for line in csv.splitlines()] == ["id", str(failed.id)]


def test_what_is_found_is_bounded_and_it_says_so(ask, monkeypatch):
    monkeypatch.setattr(search, "FOUND", 5)
    make(60, 8, note="many")
    found, says = ask("many")
    assert len(found) == 5 and "more than 5 are, and these are some" in says


def test_what_is_read_is_bounded_and_it_says_so(ask, monkeypatch):
    """The nearest on each side of now, and the latest failures behind them."""
    monkeypatch.setattr(search, "NEAR", 10)
    far = [make(-86400, note="needle", status="Succeeded"), make(86400, note="needle")]
    failed = make(-86400, error="needle", status="Failed")
    make(-600, 10, status="Succeeded"), make(600, 10)
    near = [make(-60, note="needle", status="Succeeded"), make(60, note="needle")]
    found, says = ask("needle")
    assert found == {failed.id, *(call.id for call in near)}
    assert re.search(r"notes were read of those due after .* and before .*, and errors of the latest 10 that failed or were missed", says)
    before = f"{utcnow() - timedelta(hours=23):%Y-%m-%dT%H:%M:%S}"
    assert ask("needle", due_before=before) == ({far[0].id, failed.id}, "with “needle” as id, or in note, error, name of target or schedule")
    assert far[1].id in ask("needle", view="upcoming", due_from=f"{utcnow() + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}")[0]


def test_it_reads_no_more_among_many(monkeypatch):
    monkeypatch.setattr(search, "NEAR", 100)
    billing = Target.objects.create(name="billing", url="https://a.example/")
    fill(10_000, -3 * 86400, status="Succeeded", target=billing, note="many"), fill(10_000, 3 * 86400, note="many")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    every = ScheduledCall.Status.values
    for text in ("needle", "billing", "many needle", "1 needle"):
        for statuses in (every, ["Failed", "Missed"], ["Pending"]):
            calls = ScheduledCall.objects.all() if statuses is every else ScheduledCall.objects.of(statuses)
            assert rows_read(lambda: search.Search(calls, text, utcnow())) < 10_000, (text, statuses)


def test_of_many_targets_that_are_named_no_more_is_read_than_of_one(monkeypatch):
    monkeypatch.setattr(search, "NEAR", 1000)
    for number in range(10):
        fill(1500, -3 * 86400, status="Succeeded", target=Target.objects.create(name=f"shop {number}", url="https://a.example/"))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    one, all_of_them = (rows_read(lambda text=text: search.Search(ScheduledCall.objects.all(), text, utcnow()))
                        for text in ('"shop 7" needle', "shop needle"))
    assert all_of_them < 1.5 * one
