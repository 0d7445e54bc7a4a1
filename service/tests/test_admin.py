"""The admin: what it shows, what may be changed, and what its actions do."""
import csv
import io
import re
from collections import Counter
from datetime import datetime, timedelta, timezone
from html import unescape
from urllib.parse import parse_qsl

import pytest
from conftest import make, statuses
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User

from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from scheduler.admin import dashboard, filters, paste
from scheduler.base.clock import utcnow
from scheduler.base.moments import moment
from scheduler.calls import dispatch, ledger
from scheduler.models import Attempt, Schedule, ScheduledCall, Target

LIST = "/admin/scheduler/scheduledcall/"


def act(client, action, calls):
    return client.post(LIST, {"action": action, "_selected_action": [call.id for call in calls]},
                       follow=True).content.decode()


def form(time):
    return {"timestamp_0": f"{time:%Y-%m-%d}", "timestamp_1": f"{time:%H:%M:%S}"}


def page(client, **query):
    answer = client.get(LIST, query, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def shown(client, **query):
    """The ids of the list's first page, in its order."""
    return [int(call_id) for call_id in re.findall(r'name="_selected_action" value="([0-9]+)"', page(client, **query))]


def view(answer):
    """The title of the view that the page says it shows."""
    return re.search('aria-current="page"[^>]*>([^<]+)', answer.split('class="calls-tabs"')[1])[1]


def sample():
    """A call in every state, {name: id}, due at times from an hour ago to an hour from now."""
    return {name: make(minutes * 60, status=status).id for name, minutes, status in (
        ("succeeded", -60, "Succeeded"), ("failed", -50, "Failed"), ("missed", -40, "Missed"),
        ("cancelled", -30, "Cancelled"), ("overdue", -1, "Pending"), ("running", -0.1, "Running"),
        ("soon", 10, "Pending"), ("later", 60, "Pending"), ("cancelled, to come", 30, "Cancelled"))}


def test_a_row(client):
    due = utcnow().replace(microsecond=0) - timedelta(minutes=5)
    call = ScheduledCall.objects.create(
        timestamp=due, status="Failed", http_status=503, error="HTTP status <503>", scheduled_by="ann<b>",
        scheduled_via="API", note="why <script>alert(1)</script>",
        started_at=due + timedelta(milliseconds=12), ended_at=due + timedelta(seconds=1))
    row = page(client, view="recent")
    for text in ("Failed", f"{due:%Y-%m-%d %H:%M:%S} UTC", "0.012 s", "HTTP status &lt;503&gt;", "By status",
                 "By due time", 'id="calls-picture"', "<bdi>ann&lt;b&gt;</bdi> (API)", "<h1>Calls</h1>",
                 "<bdi>why &lt;script&gt;alert(1)&lt;/script&gt;</bdi>"):
        assert text in row, text
    assert shown(client, q=call.id) == [call.id]
    for query in ({"q": "abc"}, {"q": "9" * 30}, {"status__exact": "Pending"}, {"q": call.id + 9_000_000}):
        assert shown(client, **query) == []
    empty = make(60)
    row = page(client, q=empty.id).split("<tbody>")[1]
    assert row.count("–</span></td>") == 5, "lateness and by; duration, outcome and note"
    change = client.get(f"{LIST}{empty.id}/change/").content.decode()
    assert "–<" not in change and ">None<" not in change, "what there is nothing to say of is left out"


def test_times_have_milliseconds_where_they_are_no_whole_seconds(client):
    at = datetime(2026, 8, 1, 14, 30, tzinfo=timezone.utc)
    call = ScheduledCall.objects.create(
        timestamp=at, status="Failed", error="refused", started_at=at + timedelta(microseconds=2999),
        ended_at=at + timedelta(milliseconds=1250), handed_over_at=at - timedelta(seconds=9))
    answer = client.get(f"{LIST}{call.id}/change/").content.decode()
    for text in ("due 2026-08-01 14:30:00 UTC", "14:30:00.002 UTC", "14:30:01.250 UTC", "14:29:51 UTC"):
        assert text in answer, text
    ScheduledCall.objects.update(timestamp=at + timedelta(milliseconds=7))
    row = page(client, view="all")
    assert ">2026-08-01 14:30:00.007 UTC</a>" in row and ">1,247 ms</td>" in row.replace('<td class="field-took">', ">")


def test_durations_cost_no_query_for_each_call(client):
    billing = target()
    for call in make(-60, 30, status="Retrying", target=billing, attempts_made=1):
        Attempt.objects.create(call=call, number=1, started_at=utcnow(), ended_at=utcnow(), outcome="Failed")
    page(client, view="all", status="Retrying")
    with CaptureQueriesContext(connection) as queries:
        page(client, view="all", status="Retrying")
    assert sum("scheduler_attempt" in query["sql"] for query in queries) == 1


def test_the_list_opens_at_now(client):
    ids = sample()
    make(7200, 150)
    assert shown(client)[:4] == [ids["overdue"], ids["running"], ids["soon"], ids["later"]]
    assert shown(client) == shown(client, view="upcoming")
    assert shown(client, view="recent") == [ids[name] for name in (
        "running", "overdue", "cancelled", "missed", "failed", "succeeded")]
    assert shown(client, view="trouble") == [ids["missed"], ids["failed"]]
    assert len(shown(client, view="all")) == 100 and len(shown(client, view="all", p=2)) == 59
    assert shown(client, view="all", p=2)[-1] == ids["succeeded"]
    assert shown(client, view="trouble", o="3") == [ids["failed"], ids["missed"]]
    assert shown(client, q=ids["succeeded"]) == [ids["succeeded"]]


def test_where_nothing_is_to_come_the_list_leads_to_what_was(client):
    make(status=ScheduledCall.Status.FAILED)
    assert '<a href="?view=recent">Recent</a>' in page(client)
    assert 'under <a href="?view=recent">' not in page(client, view="tomorrow")


@override_settings(TIME_ZONE="America/New_York")
@pytest.mark.parametrize("name, start, end", [
    ("today", (2026, 11, 1, 4), (2026, 11, 2, 5)), ("tomorrow", (2026, 11, 2, 5), (2026, 11, 3, 5)),
    ("day", (2026, 10, 31, 16), (2026, 11, 1, 16)), ("month", (2026, 10, 1, 4), (2026, 11, 1, 4))])
def test_days_and_months_are_those_of_the_zone(name, start, end):
    """Of a Sunday of 25 hours."""
    now = datetime(2026, 11, 1, 16, tzinfo=timezone.utc)
    assert filters.VIEWS[name].span(now) == tuple(datetime(*at, tzinfo=timezone.utc) for at in (start, end))


def test_views_of_days(client, monkeypatch):
    now = utcnow()
    monkeypatch.setattr(filters, "utcnow", lambda: now)
    at = {name: filters.VIEWS[name].span(now) for name in ("today", "tomorrow", "day", "month")}
    second = timedelta(seconds=1)
    ids = [ScheduledCall.objects.create(timestamp=time).id for time in (
        at["month"][0] - second, at["month"][0], at["today"][0], at["today"][1] - second, at["tomorrow"][0], at["tomorrow"][1])]
    assert shown(client, view="today") == ids[2:4] and shown(client, view="tomorrow") == ids[4:5]
    assert shown(client, view="month")[-1] == ids[1] and ids[0] not in shown(client, view="month")
    assert ids[2] in shown(client, view="day") and not {ids[0], ids[4]} & set(shown(client, view="day"))
    answer = page(client, view="today")
    assert view(answer) == "Today" and f"due from {moment(at['today'][0])} and before {moment(at['today'][1])}" in answer
    assert view(page(client, view="tomorrow", due_before=at["today"][1].isoformat())) == "All", "it can hold nothing of these"
    assert view(page(client, view="tomorrow", due_from=at["today"][1].isoformat())) == "Tomorrow"


def test_a_status_is_looked_for_in_a_view_that_has_it(client):
    ids = sample()
    assert shown(client, status="Succeeded") == [ids["succeeded"]], "not in `upcoming`, with which the list opens"
    links = dict((name, query) for query, name in re.findall(r'<a href="(\?[^"]*status=[^"]*)">(\w+)</a>', page(client, view="trouble")))
    assert links["Failed"] == "?view=trouble&amp;status=Failed" and links["Running"] == "?view=all&amp;status=Running"
    assert shown(client, view="trouble", status="Failed") == [ids["failed"]]
    assert shown(client, view="trouble", status="Running") == []


@pytest.mark.parametrize("query, says", [
    ({"view": "<b>x"}, "There is no view “&lt;b&gt;x”; there are upcoming, today, tomorrow, recent, day, month, trouble, all."),
    ({"status": "Nix"}, "There is no status “Nix”"), ({"status": "a\0b"}, r"There is no status “a\x00b”"),
    ({"due_from": "soon"}, "From: “soon” is not a date and time such as"),
    ({"due_before": "2026-13-01 00:00:00"}, "Before: “2026-13-01 00:00:00” is not a date"),
    ({"due_from": "0001-01-01T00:00:00+14:00"}, "is not a time that a calendar can hold"),
    ({"due_from": "2096-01-02 00:00:00", "due_before": "2096-01-01 00:00:00"}, "From must be the earlier"),
    ({"target": "9"}, "There is no target of the number “9”"), ({"target": "x\n"}, "There is no target of the number “x”"),
    ({"ids": "1"}, "it should hold ids=FIRST-LAST"), ({"again_of": "x"}, "it should hold ids=FIRST-LAST")])
def test_an_address_that_makes_no_sense_is_told_of(client, query, says):
    call = make(60)
    answer = page(client, **query)
    assert says in answer
    assert (f"/{call.id}/change/" in answer) == ("view" in query), "and does not list everything"


@pytest.mark.parametrize("query", [
    {"ids": "1-999999999999999999"}, {"p": "9" * 30}, {"p": "x"}, {"o": "99.-99.x"}, {"again_of": "9" * 18}, {"e": "1"},
    {"nonsense": "1"}, {"all": ""}, {"view": "all", "all": ""}, {"q": "\0"},
    {"q": "x" * 60_000}, {"q": "x " * 1000, "view": "trouble", "again_of": "1"}])
def test_no_address_breaks_the_page(client, query):
    make(60)
    page(client, **query)


def test_from_and_before(client):
    ids = sample()
    now = utcnow()
    at = lambda minutes: f"{now + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S}"       # noqa: E731
    assert shown(client, due_from=at(-55), due_before=at(-35)) == [ids["missed"], ids["failed"]]
    assert shown(client, view="upcoming", due_from=at(5)) == [ids["soon"], ids["later"]]
    answer = page(client, view="upcoming", due_from=at(5))
    assert f"Only calls due from {at(5).replace('T', ' ')} UTC." in answer and f'value="{at(5)}"' in answer
    assert '<input type="hidden" name="view" value="upcoming">' in answer and "In UTC." in answer
    assert f"?view=all&amp;due_from={at(5).replace(':', '%3A')}" in answer, "the tabs keep the times"
    assert '<a href="?view=recent">Recent</a>' in answer, "but not where nothing can be"


def test_choosing_times_keeps_the_view_unless_it_can_hold_nothing_of_them(client):
    ids = sample()
    now = utcnow()
    at = lambda minutes: f"{now + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S}"       # noqa: E731

    def choose(first, **times):
        """The ids and the view after these times were chosen on the list that `first` asks for."""
        form = re.search('(?s)<form method="get" class="calls-due">(.*?)</form>', page(client, **first))[1]
        query = dict(re.findall('type="hidden" name="([^"]+)" value="([^"]*)"', form)) | times
        return shown(client, **query), view(page(client, **query))
    tomorrow = {"due_from": at(5), "due_before": at(90)}
    for first in ({}, {"view": "upcoming"}, {"o": "1"}, {"view": "recent"}):
        assert choose(first, **tomorrow) == ([ids["soon"], ids["later"]], "Upcoming"), first
    assert choose({}, due_from=at(-55), due_before=at(-35)) == ([ids["missed"], ids["failed"]], "Recent")
    assert choose({"view": "all"}, **tomorrow)[1] == "All" and choose({"view": "trouble"}, due_from=at(-55))[1] == "Failed and missed"
    assert choose({"status": "Cancelled"}, **tomorrow) == ([ids["cancelled, to come"]], "All")
    assert choose({}, due_from="soon") == ([], "Upcoming")


@override_settings(TIME_ZONE="America/New_York")
def test_all_times_are_in_one_zone_and_name_it(client):
    due = datetime(2095, 7, 1, 16, 0, 5, tzinfo=timezone.utc)
    call = ScheduledCall.objects.create(timestamp=due)
    local = "2095-07-01 12:00:05 EDT"
    assert str(call) == f"call {call.id}, due {local}"
    answer = page(client)
    assert local in answer and "all times in <b>America/New_York</b>" in answer
    change = client.get(f"{LIST}{call.id}/change/").content.decode()
    assert change.count(local) >= 2 and "In America/New_York." in change, "heading and breadcrumb"
    added = client.post(LIST + "add/", {"timestamp_0": "2095-07-01", "timestamp_1": "12:00:05"}, follow=True)
    assert f"call {call.id + 1}, due {local}" in added.content.decode()
    LogEntry.objects.update(action_time=datetime(2026, 1, 5, 5, 0, 9, tzinfo=timezone.utc))
    assert "2026-01-05 00:00:09 EST" in client.get(f"{LIST}{call.id + 1}/history/").content.decode()
    for page_of_it in (answer, change, added.content.decode()):
        assert not re.search('(07-01.|")16:00:05', page_of_it)


@override_settings(TIME_ZONE="America/New_York")
def test_bars_where_the_clocks_change(client):
    """Sunday 2026-11-01 has two hours from one to two; each half hour is one of its own."""
    first = datetime(2026, 11, 1, 5, 30, tzinfo=timezone.utc)
    ids = [ScheduledCall.objects.create(timestamp=first + timedelta(hours=hours, minutes=5)).id for hours in (0, 1)]
    svg = dashboard.picture(first)
    links = re.findall(r'<a href="([^"]+)" aria-label="Sun 01:30–0[12]:00: 1 Pending"', svg)
    assert len(links) == 2
    assert [shown(client, **parameters(link)) for link in links] == [[ids[0]], [ids[1]]]
    assert shown(client, due_from="2026-11-01T01:30:00", due_before="2026-11-01T01:40:00") == ids[::-1], "both"
    assert "does not exist in America/New_York" in page(client, due_from="2026-03-08T02:30:00")


def parameters(link):
    return dict(parse_qsl(unescape(link).removeprefix("?")))


def test_the_bars_keep_the_view_where_it_has_such_calls(client):
    now = dashboard.floor(utcnow()) + timedelta(minutes=15)
    for hours, status in ((-3, "Failed"), (-3, "Succeeded"), (-2, "Succeeded"), (2, "Pending"), (3, "Cancelled")):
        ScheduledCall.objects.create(timestamp=now + timedelta(hours=hours), status=status)

    def views(**chosen):
        return [parameters(link).get("view") for link in re.findall(r'<a href="([^"]+)" aria-label', dashboard.picture(now, **chosen))]
    assert views(view="upcoming") == ["all", "all", "upcoming", "all"]
    assert views(view="recent") == ["recent", "recent", "all", "all"]
    assert views(view="trouble") == ["trouble", "all", "all", "all"]
    assert views(view="all", wanted="Succeeded") == ["all"] * 4
    links = re.findall(r'<a href="([^"]+)" aria-label', dashboard.picture(now, view="all", wanted="Succeeded"))
    assert [parameters(link).get("status") for link in links] == ["Succeeded", "Succeeded", None, None]
    assert all(shown(client, **parameters(link)) for link in links), "none leads to an empty list"


def test_the_chosen_bar_is_marked(client):
    make(3600), make(7200)
    link = re.search(r'<a href="([^"]+)" aria-label', page(client))[1]
    answer = page(client, **parameters(link))
    assert answer.count('aria-current="true"') == 1 and 'class="band"' in answer
    assert "Show the others too" in answer and 'aria-current="true"' not in page(client)


def target(name="billing", **fields):
    return Target.objects.create(name=name, url="https://api.example/run", **fields)


def test_the_calls_of_a_target(client):
    assert "By target" not in page(client)
    billing, mail, old = target(), target("mail"), target("old", deleted_at=utcnow())
    ids = {at.name: make(600, target=at).id for at in (billing, mail, old)}
    make(600)
    ScheduledCall.objects.update(timestamp=utcnow() + timedelta(minutes=10))    # in one half hour
    assert shown(client, target=billing.id) == [ids["billing"]] and shown(client, target=old.id) == [ids["old"]]
    answer = page(client, view="upcoming", target=mail.id, due_from="2020-01-01")
    assert f'<option value="{mail.id}" selected>mail</option>' in answer and "Only calls for target mail." in answer
    assert ">old" not in answer and "old (deleted)</option>" in page(client, target=old.id)
    answer = page(client, view="upcoming", status="Pending", target=mail.id)
    links = [parameters(link) for link in re.findall(r'href="(\?view=[^"]*)"', answer.split('id="calls-picture"')[1])]
    assert Counter(link.get("target") for link in links) == {str(mail.id): 1 + len(filters.VIEWS) + 8, None: 1}, (
        "a bar, the tabs, the statuses, and show the others too")
    form = re.search('(?s)<summary> By target </summary>(.*?)</form>', answer)[1]
    assert dict(re.findall('type="hidden" name="([^"]+)" value="([^"]*)"', form)) == {"view": "upcoming", "status": "Pending"}


def test_what_is_to_be_tried_again_is_still_to_come(client):
    at = target()
    call = make(-300, target=at, status="Retrying", next_attempt_at=utcnow() + timedelta(minutes=5), failure="refused",
                error="HTTP status 503", attempts_made=2)
    later = make(600)
    make(-200, status="Failed")
    assert shown(client) == shown(client, view="upcoming") == [call.id, later.id]
    assert shown(client, status="Retrying") == [call.id]
    answer = page(client)
    line = " ".join(re.sub("<[^>]+>", "", answer.split('id="calls-summary"')[1].split(">", 1)[1].split("</p>")[0]).split())
    assert " 1 to be tried again" in line and re.search(r"next call in 4 min 5\d s", line), line
    assert "1 Retrying" in answer.split("<desc")[1].split("</desc>")[0]
    row = re.sub(r"<[^>]+>", "", answer.split("<tbody>")[1])
    assert "HTTP status 503, next attempt " in row


def test_filters_keep_each_other(client):
    schedule = Schedule.objects.create(name="lunch", times="12:30:00", zone="UTC")
    call, other = make(600, 2)
    ScheduledCall.objects.filter(id=call.id).update(schedule=schedule)
    start = f"{utcnow():%Y-%m-%dT%H:%M:%S}"
    query = {"view": "all", "status": "Pending", "due_from": start, "schedule": str(schedule.id)}
    answer = page(client, **query)
    by_time, by_schedule = [parameters(link) for link in re.findall(r'<a href="([^"]+)">[^<]*Show the others', answer)]
    assert by_time == {"view": "all", "status": "Pending", "schedule": str(schedule.id)}
    assert by_schedule == {"view": "all", "status": "Pending", "due_from": start}
    assert shown(client, **by_time) == [call.id] and set(shown(client, **by_schedule)) == {call.id, other.id}
    assert f'<input type="hidden" name="schedule" value="{schedule.id}">' in answer
    links = [parameters(link) for link in re.findall(r'href="(\?view=[^"]*)"', answer.split('id="calls-picture"')[1])]
    kept = [link for link in links if link not in (by_time, by_schedule)]
    assert len(kept) == 1 + len(filters.VIEWS) + 8 and {link.get("schedule") for link in kept} == {str(schedule.id)}, (
        "a bar, the tabs, the statuses")
    again = page(client, view="all", ids=f"{call.id}-{other.id}", again_of="7")
    assert f"ids={call.id}-{other.id}&amp;again_of=7" in again


def test_more_calls_than_are_counted(client, monkeypatch):
    make(60, 120)
    assert "\n120 calls" in page(client)
    monkeypatch.setattr("scheduler.admin.filters.COUNTED", 110)
    assert "more than 110 calls; these are the first" in page(client)
    assert len(shown(client, p=2)) == 10


@pytest.mark.processes
def test_the_line_above_the_picture(client, settings_api):
    make(-3600, 3, status="Failed"), make(-7200, 2, status="Missed"), make(-90000, status="Failed")
    make(1800, 4), make(7200)
    dispatch.beat()
    line = re.sub(r"<[^>]+>|\s+", " ", page(client).split('id="calls-summary" data-live>')[1].split("</p>")[0])
    line = re.sub(" +", " ", line)
    assert "Calls https://***@api.example/hook?key=*** service ok" in line and "secret" not in page(client)
    assert re.search(r"next call in (29 min 5\d s|30 min) , \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", line), line
    assert "4 due in the next hour" in line and "3 failed, 2 missed in the last 24 hours" in line.replace(" ,", ",")
    assert "all times in UTC" in line and "overdue" not in line
    links = [parameters(link) for link in re.findall(r'href="([^"]+)"', page(client).split('id="calls-summary" data-live>')[1].split("</p>")[0])]
    assert [len(shown(client, **link)) for link in links] == [4, 5]


@pytest.fixture
def settings_api():
    with override_settings(API_URL="https://ann:secret@api.example/hook?key=secret"):
        yield


@pytest.mark.processes
def test_the_line_says_what_fails(client):
    assert "service failing: dispatcher has never run: are worker and beat up?" in page(client)
    with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
        assert "broker takes no messages (ConnectionError)" in page(client)
    make(-500, 3)
    assert "3 overdue" in page(client)


@pytest.mark.parametrize("seconds, words", [
    (0.4, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3659, "1 h"), (90061, "1 d 1 h")])
def test_a_span_in_words(seconds, words):
    assert dashboard.span(seconds) == words


def test_cancel(client, log):
    pending, running = make(), make(status="Running")
    page = act(client, "cancel", [pending, running])
    assert "1 cancelled" in page and "1 not cancelled: no longer pending" in page
    assert statuses() == {"Cancelled": 1, "Running": 1} and len(log()) == 1


def history(call_id):
    return list(LogEntry.objects.filter(object_id=str(call_id)).order_by("id").values_list("change_message", flat=True))


def test_who_cancelled_it_and_its_history(client):
    calls = make(60, 3)
    act(client, "cancel", calls)
    assert {call.cancelled_by for call in ScheduledCall.objects.all()} == {"root"}
    assert [history(call.id) for call in calls] == [["Cancelled."]] * 3
    assert "Cancelled." in client.get(f"{LIST}{calls[0].id}/history/").content.decode()


def test_what_left_the_view_meanwhile_is_told_of(client):
    """It was upcoming when the page was made, and runs when it is to be cancelled."""
    calls = make(1, 2)
    ScheduledCall.objects.filter(id=calls[0].id).update(status="Running")
    answer = client.post(LIST + "?view=upcoming", {
        "action": "cancel", "_selected_action": [call.id for call in calls], "select_across": "0"}, follow=True)
    assert "1 cancelled." in answer.content.decode() and "1 not cancelled: no longer pending" in answer.content.decode()


@pytest.mark.parametrize("action", ["cancel", "schedule_again"])
def test_an_action_on_calls_that_were_removed_says_so(client, action):
    gone, call = make(600), make(600)
    ScheduledCall.objects.filter(id=gone.id).delete()
    answer = client.post(LIST, {"action": action, "_selected_action": [gone.id]}, follow=True).content.decode()
    assert "1 of those selected are no longer there." in answer and statuses() == {"Pending": 1}
    answer = client.post(LIST, {"action": action, "_selected_action": [gone.id, call.id]}, follow=True).content.decode()
    assert "1 of those selected are no longer there." in answer
    assert ("1 cancelled." if action == "cancel" else "1 scheduled for now.") in answer
    assert "no longer there" not in act(client, action, [call])


BAD_IDS = ["abc", "1.5", "\0", "9" * 20, "-1", "٣", ""]


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("action", ["cancel", "schedule_again"])
def test_what_is_no_id_is_left_out_of_what_is_selected(client, bad, action):
    call = make(600)
    post = {"action": action, "_selected_action": [bad]}
    assert "Items must be selected" in client.post(LIST, post, follow=True).content.decode()
    assert statuses() == {"Pending": 1}
    client.post(LIST, {"action": "cancel", "_selected_action": [bad, call.id]})
    assert statuses() == {"Cancelled": 1}


@pytest.mark.parametrize("query", ["timestamp=2026-12-01", "timestamp_0=x", "times=x", "status=x", "schedule=x"])
def test_no_address_breaks_the_form(client, query):
    assert client.get(f"{LIST}add/?note=nightly&{query}").status_code == 200


def test_all_of_the_view_and_no_others_are_cancelled(client):
    make(60, 150), make(-60, status="Failed")
    others = make(7200, 5)
    before = f"{utcnow() + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
    client.post(f"{LIST}?view=upcoming&due_before={before}", {
        "action": "cancel", "_selected_action": [1], "select_across": "1"})
    assert statuses() == {"Cancelled": 150, "Failed": 1, "Pending": 5}
    assert set(ScheduledCall.objects.filter(status="Pending")) == set(others)


def test_too_many_at_once_are_refused_and_none_is_changed(client, monkeypatch):
    monkeypatch.setattr("scheduler.admin.calls.AT_ONCE", 100)
    make(60, 101)
    answer = client.post(LIST, {"action": "cancel", "_selected_action": [1], "select_across": "1"}, follow=True)
    assert "More than 100 are selected; choose fewer." in answer.content.decode()
    assert statuses() == {"Pending": 101}


@pytest.mark.processes
def test_schedule_again_makes_new_calls_leads_to_them_and_keeps_the_old(client):
    old = make(-3600, 2, status="Failed", error="why", note="nightly")
    make(60, 3)
    answer = client.post(LIST + "?view=trouble", {
        "action": "schedule_again", "_selected_action": [call.id for call in old]}, follow=True)
    new = list(ScheduledCall.objects.filter(again_of__isnull=False).order_by("id"))
    assert [call.again_of for call in new] == [call.id for call in old]
    for call in new:
        assert abs(call.timestamp - utcnow()) < timedelta(seconds=5) and call.handed_over_at
        assert (call.scheduled_by, call.scheduled_via, call.note) == ("root", "admin", "nightly")
    assert "2 scheduled for now" in answer.content.decode()
    assert answer.redirect_chain[0][0] == f"{LIST}?view=all&ids={new[0].id}-{new[1].id}"
    assert re.findall(r'name="_selected_action" value="([0-9]+)"', answer.content.decode()) == [
        str(new[1].id), str(new[0].id)]
    assert f"scheduled together: call {new[0].id} to {new[1].id}" in answer.content.decode()
    assert history(new[0].id) == [f"Scheduled again from call {old[0].id}."]
    assert history(old[0].id) == [f"Scheduled again as call {new[0].id}."]
    old[0].refresh_from_db()
    assert (old[0].status, old[0].error) == ("Failed", "why")
    assert f">call {new[0].id}</a>" in client.get(f"{LIST}{old[0].id}/change/").content.decode()
    assert f">call {old[0].id}</a>" in client.get(f"{LIST}{new[0].id}/change/").content.decode()


def test_others_that_came_between_are_not_shown_with_the_new(client):
    first, _, last = ledger.schedule([ledger.NewCall(utcnow())])[0], make(), make()
    ScheduledCall.objects.filter(id=last.id).update(created_at=first.created_at)
    assert shown(client, ids=f"{first.id}-{last.id}") == [last.id, first.id]


@pytest.mark.processes
def test_adding_schedules_as_the_api_does(client):
    assert client.post(LIST + "add/", form(utcnow() + timedelta(seconds=9))).status_code == 302
    call = ScheduledCall.objects.get()
    assert call.status == "Pending" and call.handed_over_at
    page = client.post(LIST + "add/", form(utcnow() - timedelta(minutes=11))).content.decode()
    assert "This time is in the past" in page and ScheduledCall.objects.count() == 1


def add(client, **fields):
    """The page after new calls were saved; what was pasted is looked at before."""
    return client.post(LIST + "add/", {"timestamp_0": "", "timestamp_1": "", "times": "", "note": "",
                                       "previewed": paste.mark(fields.get("times", ""))} | fields, follow=True)


def test_several_are_added_by_pasting_them(client):
    answer = add(client, times=" 2095-07-01 12:00:05\r\n2095-07-01T13:00,2095-07-01T14:00:00Z\n\n2095-07-01T14:00:00+02:00,",
                 note="nightly & <b>")
    assert [call.timestamp.strftime("%d %H:%M:%S") for call in ScheduledCall.objects.order_by("id")] == [
        "01 12:00:05", "01 13:00:00", "01 14:00:00", "01 12:00:00"]
    assert set(ScheduledCall.objects.values_list("scheduled_by", "scheduled_via", "note")) == {
        ("root", "admin", "nightly & <b>")}
    assert "4 calls were added." in answer.content.decode() and answer.content.decode().count('name="_selected_action"') == 4
    assert LogEntry.objects.filter(action_flag=1).count() == 4
    add(client, times="2095-07-02 12:00:00", **form(utcnow() + timedelta(days=1)))
    assert ScheduledCall.objects.count() == 6, "the field above counts too"


def test_one_bad_line_and_none_is_added(client):
    answer = add(client, times="2095-07-01 12:00:00\nsoon\n2095-02-30 00:00:00\n2020-01-01T00:00:00Z\n9999-12-31T00:00:00Z\n<b>\n"
                               "2095-07-01").content.decode()
    for words in ("Line 2: “soon” is not a date and time such as 2026-08-01 14:30:00 or", "So are 3 more: lines 3, 6, 7.",
                  "Line 4: “2020-01-01T00:00:00Z” was read as 2020-01-01 00:00:00 UTC, which is in the past (it is now",
                  "Line 5: “9999-12-31T00:00:00Z” was read as 9999-12-31 00:00:00 UTC, which is too far ahead"):
        assert words in answer, words
    assert "When? Choose a time, or paste some." in add(client, times=" , ").content.decode()
    assert "at most 200 characters (it has 201)" in add(client, times="2095-07-01 12:00:00", note="x" * 201).content.decode()
    assert "This holds U+202E RIGHT-TO-LEFT OVERRIDE" in add(client, times="2095-07-01 12:00:00", note="x\u202ey").content.decode()
    with override_settings(MAX_TIMESTAMPS=2):
        assert "3 times are too many at once" in add(client, times="2095-07-01 12:00:00," * 3).content.decode()
    assert not ScheduledCall.objects.exists() and not LogEntry.objects.exists()


def test_times_as_people_type_them(client):
    add(client, times="2095-7-1 9:05\n2095-07-01t13:00:00z\n2095-7-1 9:05:30-05:00")
    assert [call.timestamp.strftime("%m-%d %H:%M:%S") for call in ScheduledCall.objects.order_by("id")] == [
        "07-01 09:05:00", "07-01 13:00:00", "07-01 14:05:30"]
    for bad in ("2095-07-01914:30:00", "2095-07-01 14:30:00+14:60", "95-7-1 9:05", "2095-07-01", "2095-7-1 9"):
        assert f"“{bad}” is not a date and time such as" in add(client, times=bad).content.decode()


@override_settings(TIME_ZONE="America/New_York")
def test_pasted_times_where_the_clocks_change(client):
    answer = add(client, times="2095-03-13 02:30:00").content.decode()
    assert "“2095-03-13 02:30:00” does not exist in America/New_York: the clocks are set forward over it." in answer
    answer = add(client, times="2095-11-06 01:30:00").content.decode()
    assert "The clocks show 2095-11-06 01:30:00 twice; the first was taken. The second is 2095-11-06T01:30:00-05:00." in answer
    assert ScheduledCall.objects.get().timestamp == datetime(2095, 11, 6, 5, 30, tzinfo=timezone.utc)
    assert "twice" not in add(client, times="2095-11-06T01:30:00-05:00\n2095-11-06T01:30:00-04:00").content.decode()


@override_settings(TIME_ZONE="America/New_York")
def test_calendar_times_where_the_clocks_change_are_read_as_pasted_ones(client):
    def chosen(path, date, time):
        return client.post(LIST + path, {"timestamp_0": date, "timestamp_1": time}, follow=True).content.decode()
    assert "This time does not exist in America/New_York" in chosen("add/", "2095-03-13", "02:30:00")
    assert statuses() == {}
    first = datetime(2095, 11, 6, 5, 30, tzinfo=timezone.utc)
    second = "The second is 2095-11-06T01:30:00-05:00."
    assert second in chosen("add/", "2095-11-06", "01:30:00")
    call = ScheduledCall.objects.get()
    assert call.timestamp == first
    ScheduledCall.objects.update(timestamp=first + timedelta(hours=1))
    answer = chosen(f"{call.pk}/change/", "2095-11-06", "01:30:00")
    assert "Nothing was changed" in answer and "twice" not in answer
    assert ScheduledCall.objects.get().timestamp == first + timedelta(hours=1), "the second, as it was"
    ScheduledCall.objects.update(timestamp=first + timedelta(days=1))
    assert second in chosen(f"{call.pk}/change/", "2095-11-06", "01:30:00")
    assert ScheduledCall.objects.get().timestamp == first
    assert "Enter a valid time" in chosen("add/", "2095-11-06", "soon")
    assert "Choose a time" in chosen("add/", "", "") and "This field is required" in chosen(f"{call.pk}/change/", "", "")


def test_the_list_says_who_cancelled_a_call_and_what_it_repeats(client):
    old = make(60)
    client.post(f"{LIST}{old.pk}/cancel/")
    new = make(120, scheduled_by="ann", scheduled_via="admin", again_of=old.pk)
    row = page(client, view="all")
    assert "cancelled by <bdi>root</bdi>" in row
    assert f'<bdi>ann</bdi> (admin), again from <a href="{LIST}{old.pk}/change/">call {old.pk}</a>' in row, new


def test_times_of_people_say_their_zone(client):
    root = User.objects.get(username="root")
    shown = client.get(f"/admin/auth/user/{root.pk}/change/").content.decode()
    assert f"{root.date_joined:%Y-%m-%d %H:%M:%S} UTC" in shown and "date_joined_0" not in shown


@override_settings(TIME_ZONE="America/New_York")
def test_of_thousands_of_lines_to_be_warned_of_the_first_are_named(client):
    doubled = [f"2095-11-06 01:{minute:02}:{second:02}" for minute in range(50) for second in range(60)]
    answer = add(client, times="\n".join(doubled[:1] * 500 + doubled[:13])).content.decode()
    assert answer.count("twice; the first was taken") == 10 and answer.count("show 2095-11-06 01:00:00 twice") == 1
    assert "And 3 more like these." in answer and ScheduledCall.objects.count() == 513
    assert "more like these" not in add(client, times="\n".join(doubled[:10])).content.decode()
    before = ScheduledCall.objects.count()
    answer = add(client, times="\n".join(["soon"] * 500 + [f"{i} o'clock" for i in range(3000)])).content.decode()
    assert answer.count("is not a date and time") == 1 and "Line 1: “soon” is not" in answer
    assert "So are 3499 more: lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …." in answer and ScheduledCall.objects.count() == before


def test_cancelling_from_the_calls_own_page_asks_first(client):
    call = make(600, note="nightly")
    change = client.get(f"{LIST}{call.id}/change/").content.decode()
    assert f'href="{LIST}{call.id}/cancel/"' in change and f"<h1>Call {call.id}</h1>" in change
    question = client.get(f"{LIST}{call.id}/cancel/").content.decode()
    assert "Cancel this call?" in question and "nightly" in question and statuses() == {"Pending": 1}
    answer = client.post(f"{LIST}{call.id}/cancel/", follow=True).content.decode()
    assert "1 cancelled." in answer and statuses() == {"Cancelled": 1} and history(call.id) == ["Cancelled."]
    assert f"{LIST}{call.id}/cancel/" not in answer, "what is cancelled cannot be cancelled"
    assert "is no longer pending." in client.get(f"{LIST}{call.id}/cancel/", follow=True).content.decode()
    assert "1 not cancelled: no longer pending" in client.post(f"{LIST}{call.id}/cancel/", follow=True).content.decode()
    assert client.get(f"{LIST}999999/cancel/").status_code == 404
    again = client.post(f"{LIST}{call.id}/again/", follow=True).content.decode()
    assert "1 scheduled for now." in again and ScheduledCall.objects.get(status="Pending").again_of == call.id


def test_another_page_cannot_have_a_call_cancelled(client):
    call = make(600)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(username="root"))
    for way in ("cancel", "again"):
        assert strict.post(f"{LIST}{call.id}/{way}/").status_code == 403
    assert statuses() == {"Pending": 1}


def rows(answer):
    return list(csv.reader(io.StringIO(b"".join(answer.streaming_content).decode())))


@override_settings(TIME_ZONE="America/New_York")
def test_csv_of_what_is_filtered(client):
    due = datetime(2026, 7, 1, 16, 0, 5, tzinfo=timezone.utc)
    ScheduledCall.objects.create(
        timestamp=due, status="Failed", started_at=due + timedelta(milliseconds=20), http_status=503,
        error="=HYPERLINK(1)", note='+a "b", c', scheduled_by="@ann", scheduled_via="API", cancelled_by="-x", attempts_made=3,
        target=target("-x"), schedule=Schedule.objects.create(name="=1+1", times="12:30:00", zone="UTC"))
    ScheduledCall.objects.create(timestamp=due + timedelta(hours=1), status="Missed")
    make(60)
    answer = client.get(LIST + "csv/?view=trouble")
    assert answer["Content-Type"] == "text/csv; charset=utf-8" and 'filename="calls-' in answer["Content-Disposition"]
    head, second, first = rows(answer)
    first = dict(zip(head, first))
    assert (first["timestamp"], first["lateness"]) == ("2026-07-01T12:00:05-04:00", "0.02")
    assert (first["error"], first["note"], first["scheduled_by"], first["cancelled_by"]) == (
        "'=HYPERLINK(1)", "'+a \"b\", c", "'@ann", "'-x")
    assert (first["target"], first["attempts"], first["schedule"]) == ("'-x", "3", "'=1+1")
    second = dict(zip(head, second))
    assert second["status"] == "Missed" and second["target"] == second["attempts"] == first["again_of"] == first["ended_at"] == ""
    assert f'href="{LIST}csv/?view=trouble"' in page(client, view="trouble")
    assert len(rows(client.get(LIST + "csv/"))) == 2 and len(rows(client.get(LIST + "csv/?view=all"))) == 4
    assert len(rows(client.get(LIST + "csv/?due_from=soon"))) == 1
    assert client.get(LIST + "csv/?nonsense=1").status_code == 302


@pytest.mark.parametrize("view", ["upcoming", "all"])
def test_csv_of_many_holds_each_once_and_reads_few_at_a_time(client, view, monkeypatch):
    monkeypatch.setattr("scheduler.admin.export.BATCH", 7)
    calls = make(60, 30) + make(90, 20)
    found = [int(row[0]) for row in rows(client.get(f"{LIST}csv/?view={view}"))[1:]]
    assert found == sorted((call.id for call in calls), reverse=view == "all")


@pytest.mark.parametrize("view, order, arrows", [
    ("upcoming", "", ["due ascending"]), ("recent", "", ["due descending"]),
    ("upcoming", "1", ["id ascending"]), ("all", "-3", ["due descending"])])
def test_an_arrow_in_the_heading_tells_the_order(client, view, order, arrows):
    """Of the view, or of the column that was chosen; and no second one for the ids among calls of the same time."""
    make(60), make(-60, status="Succeeded")
    query = {"view": view, **({"o": order} if order else {})}
    found = re.findall(r'class="sortable column-(\w+) sorted (\w+)"', page(client, **query))
    assert [f"{column} {way}" for column, way in found] == arrows


@pytest.mark.parametrize("order", ["1", "-1", "3", "-3", "3.1", "3.-1", "-3.1", "1.3", "3.3", "2", "x"])
def test_csv_is_in_the_order_of_the_list(client, order, monkeypatch):
    monkeypatch.setattr("scheduler.admin.export.BATCH", 7)
    make(90, 20), make(60, 30), make(90, 3)
    found = [int(row[0]) for row in rows(client.get(f"{LIST}csv/?view=all&o={order}"))[1:]]
    assert found == shown(client, view="all", o=order) and len(found) == 53


@override_settings(TIME_ZONE="Pacific/Kiritimati")
def test_the_last_time_that_is_taken_can_be_shown_in_every_zone(client):
    page = client.post(LIST + "add/", {"timestamp_0": "9999-12-31", "timestamp_1": "23:59:59"}).content.decode()
    assert "This time is too far ahead" in page and not ScheduledCall.objects.exists()
    answer = client.post("/api/schedule-api/", '{"timestamps": "9998-12-31T23:59:59Z"}', "application/json")
    assert answer.status_code == 201
    assert "9999-01-01 13:59:59" in client.get(LIST).content.decode()
    assert client.get(f"{LIST}{answer.json()[0]['id']}/change/").status_code == 200
    assert client.delete(f"/api/schedule-api/{answer.json()[0]['id']}/").status_code == 200


def test_a_pending_call_may_be_moved_and_its_results_not_written(client):
    call = make(600)
    later = (utcnow() + timedelta(hours=5)).replace(microsecond=0)
    url = f"{LIST}{call.id}/change/"
    assert client.post(url, form(later) | {"status": "Succeeded", "error": "x", "http_status": 1}).status_code == 302
    call.refresh_from_db()
    assert (call.timestamp, call.status, call.error, call.http_status) == (later, "Pending", "", None)
    assert "This time is in the past" in client.post(url, form(utcnow() - timedelta(1))).content.decode()


@pytest.mark.parametrize("status", sorted(set(ScheduledCall.Status.values) - {"Pending"}))
def test_what_has_begun_cannot_be_edited(client, status):
    call = make(600, status=status)
    url = f"{LIST}{call.id}/change/"
    assert 'name="_save"' not in client.get(url).content.decode()
    answer = client.post(url, form(utcnow() + timedelta(hours=5)), follow=True)
    assert answer.redirect_chain == [(url, 302)]
    assert f"Call {call.id} is no longer pending; nothing was changed." in answer.content.decode()
    assert ScheduledCall.objects.get().timestamp == call.timestamp and not LogEntry.objects.exists()
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_scheduledcall"))
    client.force_login(user)
    assert client.post(url, form(utcnow() + timedelta(hours=5))).status_code == 403


def test_a_call_that_begins_while_it_is_edited_is_left_alone(client, monkeypatch):
    from scheduler.admin.calls import ledger
    call, move = make(600), ledger.move

    def begun(*arguments):
        ScheduledCall.objects.update(status="Running")
        return move(*arguments)
    monkeypatch.setattr(ledger, "move", begun)
    page = client.post(f"{LIST}{call.id}/change/", form(utcnow() + timedelta(hours=5)), follow=True)
    assert "no longer pending; nothing was changed" in page.content.decode()
    assert "changed successfully" not in page.content.decode()
    assert ScheduledCall.objects.get().timestamp == call.timestamp
    assert not LogEntry.objects.exists()
    monkeypatch.undo()
    ScheduledCall.objects.update(status="Pending")
    client.post(f"{LIST}{call.id}/change/", form(utcnow() + timedelta(hours=5)))
    assert LogEntry.objects.get().is_change()


def test_nothing_is_deleted_there(client):
    call = make(status="Succeeded")
    assert client.post(f"{LIST}{call.id}/delete/", {"post": "yes"}).status_code == 403
    assert statuses() == {"Succeeded": 1}


def test_people_without_the_right_can_look_only():
    client = Client()
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_scheduledcall"))
    client.force_login(user)
    call = make()
    for address in (LIST, f"{LIST}{call.id}/change/"):
        answer = client.get(address).content.decode()
        for word in ("Cancel this", "Cancel the", "Schedule again", "Schedule calls", 'name="_save"', "/add/"):
            assert word not in answer, (address, word)
    act(client, "cancel", [call])
    for address in (f"{LIST}{call.id}/cancel/", f"{LIST}{call.id}/again/", LIST + "add/", f"{LIST}{call.id}/change/"):
        assert client.post(address, form(utcnow() + timedelta(hours=1))).status_code == 403, address
    assert len(rows(client.get(LIST + "csv/"))) == 2
    assert statuses() == {"Pending": 1} and not ScheduledCall.objects.exclude(cancelled_by="").exists()
    user.user_permissions.clear()
    for address in (LIST, LIST + "csv/", f"{LIST}{call.id}/change/", f"{LIST}{call.id}/cancel/"):
        assert Client().get(address).status_code == 302, "logs in first"
        assert client.get(address).status_code == 403, address


def test_the_picture_counts_by_half_hour_and_status():
    now = utcnow()
    start = dashboard.floor(now)
    for minutes, status, number in ((0, "Succeeded", 3), (29, "Succeeded", 2), (29, "Failed", 1), (30, "Pending", 4)):
        at = start + timedelta(minutes=minutes, seconds=59)
        ScheduledCall.objects.bulk_create([ScheduledCall(timestamp=at, status=status) for _ in range(number)])
    make(-3 * 86400), make(3 * 86400)
    found = dashboard.counts([start + timedelta(minutes=30 * i) for i in range(-48, 48)])
    assert found == {(start, "Succeeded"): 5, (start, "Failed"): 1,
                     (start + timedelta(minutes=30), "Pending"): 4}
    svg = dashboard.picture(now)
    assert "5 Succeeded" in svg and "1 Failed" in svg and "4 Pending" in svg
    assert '<svg viewBox="0 0 1000 176" role="group" aria-labelledby=' in svg
    assert "In these 48 hours: 4 Pending, 5 Succeeded, 1 Failed." in svg


def test_the_picture_of_nothing():
    assert "In these 48 hours: no calls." in dashboard.picture(utcnow())
