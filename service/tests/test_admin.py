"""The admin: what it shows, what may be changed, and what its actions do."""
from datetime import timedelta

import pytest
from conftest import make, statuses
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client, override_settings

from scheduler import picture
from scheduler.clock import utcnow
from scheduler.models import ScheduledCall

LIST = "/admin/scheduler/scheduledcall/"


@pytest.fixture
def client():
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def act(client, action, calls):
    return client.post(LIST, {"action": action, "_selected_action": [call.id for call in calls]},
                       follow=True).content.decode()


def form(time):
    return {"timestamp_0": f"{time:%Y-%m-%d}", "timestamp_1": f"{time:%H:%M:%S}"}


def test_the_list(client):
    due = utcnow().replace(microsecond=0) - timedelta(minutes=5)
    call = ScheduledCall.objects.create(
        timestamp=due, status="Failed", http_status=503, error="HTTP status <503>",
        started_at=due + timedelta(milliseconds=12), ended_at=due + timedelta(seconds=1))
    page = client.get(LIST).content.decode()
    for text in ("Failed", f"{due:%Y-%m-%d %H:%M:%S}", "0.012 s", "503", "HTTP status &lt;503&gt;",
                 "By status", "By due", 'id="calls-picture"'):
        assert text in page
    assert f"/{call.id}/change/" in client.get(LIST, {"q": call.id}).content.decode()
    for query in ({"q": "abc"}, {"q": "9" * 30}, {"status__exact": "Pending"}, {"q": call.id + 1}):
        answer = client.get(LIST, query)
        assert answer.status_code == 200 and f"/{call.id}/change/" not in answer.content.decode()
    page = client.get(LIST, {"timestamp__year": due.year, "timestamp__month": due.month, "timestamp__day": due.day})
    assert f"/{call.id}/change/" in page.content.decode()


def test_cancel(client, log):
    pending, running = make(), make(status="Running")
    page = act(client, "cancel", [pending, running])
    assert "1 cancelled" in page and "1 not cancelled: no longer pending" in page
    assert statuses() == {"Cancelled": 1, "Running": 1} and len(log()) == 1


def test_schedule_again_makes_a_new_call_and_keeps_the_old(client):
    old = make(-3600, status="Failed", error="why")
    assert "1 scheduled for now" in act(client, "schedule_again", [old])
    assert statuses() == {"Failed": 1, "Pending": 1}
    new = ScheduledCall.objects.get(status="Pending")
    assert abs(new.timestamp - utcnow()) < timedelta(seconds=5) and new.handed_over_at
    old.refresh_from_db()
    assert old.error == "why"


def test_adding_schedules_as_the_api_does(client):
    assert client.post(LIST + "add/", form(utcnow() + timedelta(seconds=9))).status_code == 302
    call = ScheduledCall.objects.get()
    assert call.status == "Pending" and call.handed_over_at
    page = client.post(LIST + "add/", form(utcnow() - timedelta(seconds=9))).content.decode()
    assert "This time is in the past" in page and ScheduledCall.objects.count() == 1


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
    assert client.post(url, form(utcnow() + timedelta(hours=5))).status_code == 403


def test_a_call_that_begins_while_it_is_edited_is_left_alone(client, monkeypatch):
    from scheduler.admin import transitions
    call, move = make(600), transitions.move

    def begun(*arguments):
        ScheduledCall.objects.update(status="Running")
        return move(*arguments)
    monkeypatch.setattr(transitions, "move", begun)
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
    from django.contrib.auth.models import Permission
    user.user_permissions.add(Permission.objects.get(codename="view_scheduledcall"))
    client.force_login(user)
    call = make()
    assert client.get(LIST).status_code == 200
    assert "cancel" not in client.get(LIST).content.decode()
    act(client, "cancel", [call])
    assert statuses() == {"Pending": 1}


def test_the_picture_counts_by_half_hour_and_status():
    now = utcnow()
    start = picture.floor(now)
    for minutes, status, number in ((0, "Succeeded", 3), (29, "Succeeded", 2), (29, "Failed", 1), (30, "Pending", 4)):
        at = start + timedelta(minutes=minutes, seconds=59)
        ScheduledCall.objects.bulk_create([ScheduledCall(timestamp=at, status=status) for _ in range(number)])
    make(-3 * 86400), make(3 * 86400)
    found = picture.counts(start - timedelta(hours=24), start + timedelta(hours=24))
    assert found == {(start, "Succeeded"): 5, (start, "Failed"): 1,
                     (start + timedelta(minutes=30), "Pending"): 4}
    svg = picture.draw(now)
    assert "5 Succeeded" in svg and "1 Failed" in svg and "4 Pending" in svg
    assert '<svg viewBox="0 0 1000 176" role="img" aria-labelledby=' in svg
    assert "In these 48 hours: 4 Pending, 5 Succeeded, 1 Failed." in svg


def test_the_picture_of_nothing():
    assert "In these 48 hours: no calls." in picture.draw(utcnow())
