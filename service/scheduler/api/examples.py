"""The examples in the API's document: requests that can be sent as they stand, where there are such targets, as their times
are always still to come; and answers as they look."""
from datetime import timedelta

from django.urls import resolve

from ..base.clock import utcnow


def _times():
    soon = utcnow().replace(microsecond=0)
    return [f"{soon + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}" for hours in range(1, 11)]


def _requests(times):
    """{(name of the address, method): {title: body}}"""
    first, second, *_, last = times
    return {
        ("calls", "post"): {
            "at two times": {"timestamps": f"{first}, {second}"},
            "with a body": {
                "timestamps": first, "target": "billing", "body": {"invoice": 7, "run": "{{call.id}}"},
                "headers": {"X-Reason": "{{call.note}}"}, "expires": 600, "note": "month's end"},
            "in 90 seconds": {"delay": 90, "target": "billing", "data": {"invoice": 7}},
            "each with its own": {"calls": [
                {"timestamp": first, "target": "billing", "body": {"invoice": 7}},
                {"delay": 90, "target": "mail", "body": "Your invoice is there.", "headers": {"Content-Type": "text/plain"}}]}},
        ("calls-again", "post"): {
            "what would be done": {"status": ["Failed", "Missed"], "dry_run": True},
            "after an outage": {"status": ["Failed"], "due_from": "2026-08-01T14:30:00Z", "due_before": "2026-08-01T16:00:00Z",
                                "target": "billing"}},
        ("schedules", "post"): {
            "twice on working days": {"name": "lunch", "times": "12:30:00, 14:15:30", "zone": "Europe/Berlin",
                                      "days": ["mon", "tue", "wed", "thu", "fri"]},
            "by a cron expression": {"name": "every five minutes", "cron": "*/5 * * * *", "zone": "UTC", "target": "billing",
                                     "body": {"run": "{{call.id}}"}, "overlap": "skip", "jitter": 30}},
        ("schedule", "patch"): {
            "switch it off": {"on": False},
            "pause it over the holidays": {"paused": {"until": last, "reason": "holidays"}},
            "at other times": {"times": "11:00:00"}},
        ("schedule-run", "post"): {"with a note": {"note": "asked for by the accountants"}, "without": {}},
        ("targets", "post"): {"with an API key, and retries": {
            "name": "billing", "url": "https://api.example.org/v1/run", "method": "POST",
            "headers": {"Content-Type": "application/json"}, "secret_headers": {"X-Api-Key": "s3cr3t-k3y"},
            "body": '{"run": {{call.id}}, "note": "{{call.note}}"}', "auth": {"kind": "bearer", "token": "t0k3n-0f-b1ll1ng"},
            "timeout": 20, "success": {"statuses": "200-299"}, "retries": {"delays": [10, 60, 600], "max_age": 86400},
            "max_at_once": 20, "rate": "300/min"}},
        ("target", "patch"): {
            "pause it": {"paused": {"reason": "it is being moved"}},
            "resume it": {"paused": False},
            "another token": {"auth": {"kind": "bearer", "token": "n3w-t0k3n"}},
            "fewer at once": {"max_at_once": 5, "rate": "100/min"}},
        ("target-test", "post"): {"as it is": {}, "with another body": {"body": {"invoice": 7}}},
    }


def _answers(times):
    """{(name of the address, method, status): body}"""
    first, second = times[:2]
    call, new = ({"id": number, "timestamp": at, "status": "Pending"} for number, at in ((1, first), (2, second)))
    ended = "2026-08-01T14:30:00"
    attempt = {
        "number": 1, "started_at": f"{ended}.003214Z", "ended_at": f"{ended}.215614Z", "duration_ms": 212.4, "outcome": "Failed",
        "class": "answered", "http_status": 422, "error": "HTTP status 422", "version": 3, "address": "203.0.113.7",
        "phases_ms": {"name": 1.2, "connect": 8.0, "tls": 14.1, "answer": 188.0, "end": 1.1},
        "request": {"method": "POST", "url": "https://api.example.org/v1/run",
                    "headers": {"Content-Type": "application/json", "X-Api-Key": "***", "Authorization": "***"}, "body": '{"invoice": 7}'},
        "response": {"headers": {"Content-Type": "application/json"}, "body": '{"error": "there is no invoice 7"}', "truncated": False}}
    detail = {
        "id": 1, "timestamp": f"{ended}Z", "status": "Failed", "created_at": "2026-08-01T12:00:00Z",
        "handed_over_at": "2026-08-01T14:29:50.500000Z", "started_at": attempt["started_at"], "ended_at": attempt["ended_at"],
        "lateness": 0.003, "caught_up": False, "http_status": 422, "error": "HTTP status 422", "scheduled_by": "ann",
        "scheduled_via": "API", "note": "", "again_of": None, "cancelled_by": "", "schedule": None, "target": "billing",
        "request": {"body": '{"invoice": 7}', "headers": {}, "data": {}}, "next_attempt_at": None, "expires_at": None,
        "attempts": [attempt]}
    again = {"dry_run": False, "calls": 1, "unknown": 0, "more": False, "first": [new]}
    return {
        ("calls", "post", "201"): [call, new],
        ("call", "get", "200"): detail,
        ("call", "delete", "200"): call | {"status": "Cancelled"},
        ("call-again", "post", "201"): new,
        ("call-try-now", "post", "200"): call | {"status": "Retrying"},
        ("calls-again", "post", "200"): again | {"dry_run": True, "first": [call | {"status": "Failed"}]},
        ("calls-again", "post", "201"): again,
        ("schedule-run", "post", "201"): call,
        ("target-test", "post", "201"): {"call": 1, "status": "Failed", "attempt": attempt},
    }


def with_examples(result, **_):
    """A step in which drf-spectacular writes the document."""
    requests, answers = _requests(times := _times()), _answers(times)
    for path, operations in result["paths"].items():
        name = resolve(path.replace("{id}", "1").replace("{name}", "billing")).url_name
        for method, operation in operations.items():
            if some := requests.get((name, method)):
                operation["requestBody"]["content"]["application/json"]["examples"] = {
                    title: {"value": value} for title, value in some.items()}
            for status, answer in operation["responses"].items():
                if (value := answers.get((name, method, status))) is not None:
                    answer["content"]["application/json"]["examples"] = {"an answer": {"value": value}}
    return result
