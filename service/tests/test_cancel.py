"""DELETE /api/schedule-api/{id}/ cancels a pending call, and says how it stands otherwise."""
import pytest
from conftest import make, person
from django.test import Client

from scheduler.models import ScheduledCall


@pytest.fixture
def delete():
    client = Client()
    client.force_login(person())
    return lambda call_id: client.delete(f"/api/schedule-api/{call_id}/")


def test_a_pending_call_is_cancelled_and_kept(delete, log):
    call = make()
    answer = delete(call.id)
    assert answer.status_code == 200
    assert answer.json()["status"] == "Cancelled" and answer.json()["id"] == call.id
    call.refresh_from_db()
    assert call.status == "Cancelled" and call.ended_at
    assert len(log()) == 1 and "Cancelled call to API at" in log()[0]
    assert f"(due {call.timestamp:%Y-%m-%d %H:%M:%S})" in log()[0]


@pytest.mark.parametrize("status", sorted(set(ScheduledCall.Status.values) - {"Pending", "Retrying"}))
def test_any_other_is_left_alone(delete, log, status):
    call = make(status=status)
    answer = delete(call.id)
    assert answer.status_code == 409
    assert answer.json()["status"] == status and status in answer.json()["detail"]
    call.refresh_from_db()
    assert call.status == status and log() == []


def test_there_is_none(delete):
    assert delete(12345).status_code == 404
