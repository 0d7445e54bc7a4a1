"""What is pasted from a spreadsheet: how its dates are read, what its columns mean, and that nothing is made of it unseen."""
import re
from datetime import datetime, timedelta, timezone
from html import unescape

import pytest
from conftest import guest
from django.test import override_settings
from django.utils.timezone import localtime

from scheduler.admin import call_form, paste
from scheduler.base.moments import days_first, from_person
from scheduler.models import CallRequest, ScheduledCall, Target

ADD = "/admin/scheduler/scheduledcall/add/"
NOON = datetime(2096, 11, 28, 14, tzinfo=timezone.utc)


def post(client, text, sure=True, **fields):
    page = client.post(ADD, {"timestamp_0": "", "timestamp_1": "", "note": "", "times": text, **(
        {"previewed": paste.mark(text)} if sure else {})} | fields, follow=True).content.decode()
    return unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page)))


def made():
    return [(f"{call.timestamp:%m-%d %H:%M}", call.note) for call in ScheduledCall.objects.order_by("id")]


@pytest.mark.parametrize("text", [
    "2096-11-28 14:00", "2096-11-28T14:00:00Z", "2096-11-28 14:00:00 UTC", "28.11.2096 14:00", "28.11.96 14:00", "28. 11. 2096, 14:00:00",
    "11/28/2096 2:00 PM", "11/28/2096, 2:00:00\u202fpm", "28/11/2096 14:00", "28-11-2096 14:00", "28-Nov-2096 14:00", "28-Nov-96 2 PM",
    "28 November 2096 2:00 p.m.", "Nov 28, 2096 14:00", "2096/11/28 14:00", "28-Nov-2096 16:00 +02:00"])
def test_the_ways_to_write_one_time(text):
    assert from_person(text) == NOON


@pytest.mark.parametrize("text, why", [
    ("01/02/2096 14:00", "could be the 1 February or the 2 January: write the month as a word, or the year first, such as 2096-02-01"),
    ("1-2-2096 2 PM", "could be"), ("28.11.2096", "is a date without a time"), ("31.2.2096 14:00", "is not a date"),
    ("31/31/2096 14:00", "is not a date"), ("28.11.2096 14:00 PM", "is not a date"), ("28.11.2096 0:30 AM", "is not a date"),
    ("28-Nix-2096 14:00", "is not a date"), ("28.11.2096 25:00", "is not a date"), ("28.11.2096 14", "is not a date"),
    ("11/28/96 14:00", "is not a date")])
def test_what_is_no_time_or_may_be_two(text, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        from_person(text)


def test_twelve_and_what_is_the_same_either_way():
    assert [from_person(f"5/5/2096 {time}").hour for time in ("12:30 AM", "12:30 PM", "1:30 AM", "11 PM")] == [0, 12, 1, 23]


def test_a_column_decides_which_number_is_the_day():
    assert days_first(["01/02/2096 14:00", "28/02/2096 14:00"]) is True
    assert days_first(["01/02/2096 14:00", "2/28/2096 14:00"]) is False
    assert days_first(["28/02/2096 14:00", "2/28/2096 14:00"]) is days_first(["1/2/2096 14:00"]) is None
    assert [row.at.month for row in paste.read("01/02/2096 14:00\n28/02/2096 14:00")[0]] == [2, 2]
    assert [row.at.month for row in paste.read("01/02/2096 14:00\n02/28/2096 14:00")[0]] == [1, 2]


@pytest.mark.parametrize("text", [
    "28.11.2096 14:00\tship, then\n29.11.2096 15:30\t", "28.11.2096 14:00;ship, then\n29.11.2096 15:30;\n\n",
    '28.11.2096 14:00,"ship, then"\r\n29.11.2096 15:30,\r\n', 'When\tNOTE\n28.11.2096 14:00\tship, then\n29.11.2096 15:30',
    "note\ttime\tdate\nship, then\t14:00\t28.11.2096\n\t3:30 PM\t29-Nov-2096"])
def test_two_columns(client, text):
    post(client, text)
    assert made() == [("11-28 14:00", "ship, then"), ("11-29 15:30", "")]


def test_the_note_of_the_form_is_that_of_lines_without_one(client):
    post(client, "28.11.2096 14:00\tmine\n29.11.2096 14:00", note="of all")
    assert made() == [("11-28 14:00", "mine"), ("11-29 14:00", "of all")]


@pytest.mark.parametrize("text", ["2096-11-28 14:00, 2096-11-28 15:00", "Nov 28, 2096 14:00\nNov 28, 2096 3 PM", "28.11.2096 14:00,\n28-Nov-2096 15:00"])
def test_commas_between_times_and_in_them(client, text):
    post(client, text)
    assert made() == [("11-28 14:00", ""), ("11-28 15:00", "")]


def test_nothing_is_made_before_it_was_looked_at(client):
    text = "28.11.2096 14:00\tthe <b>first</b>\n29.11.2096 14:00\tthe second"
    page = post(client, text, sure=False)
    assert "2 calls to be made" in page and "Nothing is made yet." in page and not ScheduledCall.objects.exists()
    assert "Wed 2096-11-28 14:00:00 UTC 28.11.2096 14:00 the <b>first</b>" in page
    assert "2 calls to be made" in post(client, text, previewed=paste.mark("28.11.2096 14:00")), "another text was looked at"
    assert not ScheduledCall.objects.exists()
    source = client.post(ADD, {"timestamp_0": "", "timestamp_1": "", "note": "", "times": text}).content.decode()
    sent = dict(re.findall('name="(previewed|form_key)" value="([^"]+)"', source))
    post(client, text.replace("\n", "\r\n"), **sent)
    assert "sent twice" in post(client, text.replace("\n", "\r\n"), **sent) and len(made()) == 2


def test_of_many_the_first_are_shown(client):
    page = post(client, "\n".join(f"2096-11-28 14:00:{i % 60:02}" for i in range(300)), sure=False)
    assert "300 calls to be made" in page and "And 250 more." in page and page.count("2096-11-28 14:00:00 UTC") < 10


def test_targets_bodies_and_data_by_their_headings(client):
    billing, other = (Target.objects.create(name=name, url="https://api.example/{{data.order}}", method="POST",
                                            headers={"Content-Type": "application/json"}) for name in ("billing", "other"))
    form = {"to_target": other.pk, "body": '{"all": 1}', "headers": "{}", "data": '{"order": 1}', "expires_0": "", "expires_1": ""}
    text = ('time\ttarget\tbody\tdata\n28.11.2096 14:00\tbilling\t{"a": 1}\t{"order": 7}\n28.11.2096 15:00\n'
            '28.11.2096 16:00\t\t"{""b"":\n 2}"')
    assert 'billing {"a": 1} {"order": 7}' in post(client, text, sure=False, **form)
    post(client, text, **form)
    calls = ScheduledCall.objects.order_by("id").select_related("target", "request")
    assert [(call.target.name, call.request.body, call.request.data) for call in calls] == [
        ("billing", '{"a": 1}', {"order": 7}), ("other", '{"all": 1}', {"order": 1}), ("other", '{"b":\n 2}', {"order": 1})]
    before = CallRequest.objects.count()
    page = post(client, "time\ttarget\tdata\n28.11.2096 14:00\tnone\n28.11.2096 15:00\tbilling\t[\n28.11.2096 16:00\tno-ne", **form)
    assert "Line 2: “28.11.2096 14:00” names the target “none”, which there is not." in page and "Line 4:" in page
    assert "Line 3: “28.11.2096 15:00” has data that is no JSON" in page and CallRequest.objects.count() == before
    page = post(client, 'time\ttarget\tdata\n28.11.2096 14:00\tbilling\t{"order": 1, "order": 2}', **form)
    assert 'the key "order" stands twice' in page and CallRequest.objects.count() == before
    page = post(client, "time\tbody\n28.11.2096 14:00\tno json\n28.11.2096 15:00\tno json", **form)
    assert "Line 2: “28.11.2096 14:00” cannot be sent: body: " in page and "So is 1 more: line 3." in page
    page = post(client, "time\ttarget\n28.11.2096 14:00\tnone\nsoon\tbilling\n01/02/2020 14:00\tbilling\n02/28/2096 14:00", **form)
    places = [page.index(words) for words in (
        "Line 2: “28.11.2096 14:00” names the target “none”", "Line 3: “soon” is not a date", "Line 4: “01/02/2020 14:00” was read as 2020-01-02 14:00")]
    assert places == sorted(places), "whatever is wrong is said together, by lines"
    assert billing.pk and CallRequest.objects.count() == before


def test_targets_are_for_who_may_use_them(client):
    Target.objects.create(name="billing", url="https://api.example/")
    ann = guest("view_scheduledcall", "add_scheduledcall")
    assert "scheduler.use_target" in post(ann, "time\ttarget\n28.11.2096 14:00\tbilling") and not ScheduledCall.objects.exists()
    post(ann, "28.11.2096 14:00\tbilling")
    assert made() == [("11-28 14:00", "billing")], "without a heading it is a note"
    assert ScheduledCall.objects.get().target is None and client


@pytest.mark.parametrize("text, says", [
    ("01/02/2096 14:00\n02/03/2096 14:00\n01/02/2096 15:00", "Line 1: “01/02/2096 14:00” could be the 1 February or the 2 January"),
    ("01/02/2096 14:00\n02/03/2096 14:00\n01/02/2096 15:00", "So are 2 more: lines 2, 3."),
    ("28.11.2020 14:00\n29.11.2020 14:00\n28.11.2096 14:00", "Line 1: “28.11.2020 14:00” was read as 2020-11-28 14:00:00 UTC, which is in the past (it is now "),
    ("28.11.2020 14:00\n29.11.2020 14:00\n28.11.2096 14:00", "So is 1 more: line 2."),
    ("time\tcolour\n28.11.2096 14:00\tred", "has a column “colour”, which means nothing here: leave it out, or call it one of time, date, note, target, body, data"),
    ("note\tbody\na\tb", "has no column of the name time"), ("time\twhen\na\tb", "has two columns for time"),
    ("28.11.2096 14:00\ta\tb", "Line 1: “b” stands in a column that has no name"), ("time\t\tnote\n28.11.2096 14:00\tlost\ta", "Line 2: “lost” stands in a column that has no name"),
    ("time\tnote\n\ta", "Line 2: “a” has no time"),
    ("28.11.2096 14:00\t" + "x" * 201, "as a note has 201 characters; at most 200 are taken"),
    ("28.11.2096 14:00\ta\u202eb", "as a note holds U+202E RIGHT-TO-LEFT OVERRIDE"),
    ('28.11.2096 14:00\t"' + "x" * 140_000, "cannot be read as a table")])
def test_what_is_wrong_is_said_once_for_each_kind(client, text, says):
    page = post(client, text)
    assert says in page and page.count("is in the past") < 2 and not ScheduledCall.objects.exists()


@override_settings(TIME_ZONE="Europe/Berlin")
def test_they_are_times_of_the_zone(client):
    page = post(client, "28.10.2096 2:30\n28.10.2096 02:30 +01:00", sure=False)
    assert page.count("the clocks show this twice; the first is taken") == 1 and "2096-10-28 02:30:00 CEST" in page
    assert "does not exist in Europe/Berlin" in post(client, "25.3.2096 2:30 AM")


@override_settings(TIME_ZONE="America/New_York")
@pytest.mark.parametrize("now", [
    datetime(2096, 7, 1, 16, tzinfo=timezone.utc), datetime(2096, 7, 1, 4, 1, tzinfo=timezone.utc),
    datetime(2096, 11, 4, 6, 30, tzinfo=timezone.utc)], ids=["noon", "a minute after midnight", "the clocks were set back"])
def test_now_is_still_now_when_the_form_is_sent(client, monkeypatch, now):
    monkeypatch.setattr(call_form, "utcnow", lambda: now)

    def ago(**time):
        return f"{localtime(now - timedelta(**time)):%Y-%m-%d %H:%M:%S}"
    form = {"timestamp_0": "", "timestamp_1": ago(minutes=2).split()[1]}
    post(client, "", **form)
    call = ScheduledCall.objects.get()
    assert call.timestamp == now
    ScheduledCall.objects.update(timestamp=now + timedelta(days=1))
    client.post(f"/admin/scheduler/scheduledcall/{call.pk}/change/", form)
    assert ScheduledCall.objects.get().timestamp == now
    date, time = ago(minutes=11).split()
    assert "is in the past" in post(client, "", timestamp_0=date, timestamp_1=time)
    assert "is in the past" in post(client, ago(seconds=5)), "what is pasted was not meant as now"


@override_settings(TIME_ZONE="America/New_York")
def test_a_time_without_a_day_that_has_not_just_passed_is_one_of_today(client, monkeypatch):
    monkeypatch.setattr(call_form, "utcnow", lambda: datetime(2096, 7, 1, 4, 1, tzinfo=timezone.utc))
    for time in ("23:40:00", "00:30:00"):
        post(client, "", timestamp_1=time)
    assert made() == [("07-02 03:40", ""), ("07-01 04:30", "")]
