"""GET /metrics: the numbers of the whole service for Prometheus, and the README's alerts."""
import re
import subprocess
from datetime import timedelta

import pytest
import requests
from conftest import SERVICE, all_ended, fill, in_seconds, make, person, rows_read, until
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.authtoken.models import Token

from scheduler.calls import dispatch
from scheduler.base.clock import utcnow
from scheduler.models import ScheduledCall, Tally
from scheduler.ops import metrics


def parsed(text):
    """{"name" or "name{label}": value} of Prometheus' text format."""
    return {sample.name + "".join(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def measured():
    return parsed(metrics.text().decode())


def ended(seconds, number, status="Succeeded", late=0.02):
    """Calls due that many seconds from now that have ended."""
    due = utcnow() + timedelta(seconds=seconds)
    fill(number, seconds, status=status, ended_at=due + timedelta(seconds=1),
         started_at=None if late is None else due + timedelta(seconds=late))


def test_what_it_tells():
    ended(-3600, 3), ended(-30, 2, late=0.3), ended(-3600, 1, "Failed", 120), ended(-600, 4, "Missed", None)
    ended(86400, 5, "Cancelled", None)
    make(30, 7), make(90, 2), make(-1, 1, status="Running", started_at=utcnow())
    make(-90, 3, status="Retrying", next_attempt_at=utcnow(), started_at=utcnow())
    dispatch.beat(utcnow())
    told = measured()
    assert {status: told[f"scheduler_calls_ended_total{status}"] for status in ScheduledCall.FINISHED} == {
        "Succeeded": 5, "Failed": 1, "Missed": 4, "Cancelled": 5}
    assert [told[f"scheduler_calls_{status}"] for status in ("pending", "running", "retrying")] == [9, 1, 3]
    assert told["scheduler_calls_due_within_minute"] == 7
    assert 0 <= told["scheduler_last_tick_age_seconds"] < 5
    late = {bound: told[f"scheduler_call_lateness_seconds_bucket{bound}"] for bound in ("0.01", "0.025", "0.5", "60", "+Inf")}
    assert late == {"0.01": 0, "0.025": 3, "0.5": 5, "60": 5, "+Inf": 6}
    assert told["scheduler_call_lateness_seconds_sum"] == pytest.approx(120.66, abs=0.02)


def test_no_dispatcher_has_ever_run():
    assert measured()["scheduler_last_tick_age_seconds"] == float("inf")


@pytest.mark.parametrize("status", ["Running", "Retrying"])
def test_what_is_over_is_counted_once_and_never_again(status, monkeypatch):
    """In steps that hold at most so many calls, also where more than that are due at the same time."""
    monkeypatch.setattr(metrics, "STEP", 10)
    ended(-7200, 25), ended(-3600, 13, "Failed"), ended(-600, 5), make(-500, 1, status=status), ended(-400, 6)
    first = measured()
    assert first["scheduler_calls_ended_totalSucceeded"] == 36
    assert Tally.objects.get().until == ScheduledCall.objects.get(status=status).timestamp, "no further"
    ScheduledCall.objects.filter(status=status).update(status="Failed", started_at=utcnow(), ended_at=utcnow())
    second = measured()
    assert second["scheduler_calls_ended_totalFailed"] == 14
    assert utcnow() - Tally.objects.get().until < metrics.SETTLED + timedelta(seconds=5)
    assert sum(Tally.objects.get().counts["ended"].values()) == 50
    assert measured() == second | {"scheduler_last_tick_age_seconds": float("inf")}


def test_too_many_to_count_in_one_request_is_a_503_and_goes_on_with_the_next(monkeypatch):
    monkeypatch.setattr(metrics, "STEP", 10)
    monkeypatch.setattr(metrics, "CATCH_UP_WITHIN", 0)
    for i in range(3):
        ended(-7200 + i, 10)
    client = Client()
    client.force_login(person())
    answers = [client.get("/metrics") for _ in range(9)]
    codes = [answer.status_code for answer in answers]
    assert codes[0] == 503 and "still being counted" in answers[0].json()["detail"]
    monkeypatch.setattr(metrics, "CATCH_UP_WITHIN", 2)
    assert measured()["scheduler_calls_ended_totalSucceeded"] == 30


def test_prune_takes_nothing_from_the_counters():
    """Counted in the tally already, too young for it, cancelled long before their time: all stay."""
    ended(-7200, 5), ended(-10, 3, "Failed")
    before = measured()
    ended(86400, 4, "Cancelled", None)
    ScheduledCall.objects.update(ended_at=utcnow() - timedelta(days=2))
    make(3600, 2)
    call_command("prune", "1")
    assert ScheduledCall.objects.count() == 2
    after = measured()
    for status, number in (("Succeeded", 5), ("Failed", 3), ("Cancelled", 4)):
        assert after[f"scheduler_calls_ended_total{status}"] == number
    assert after["scheduler_call_lateness_seconds_count"] == before["scheduler_call_lateness_seconds_count"] == 8


def test_all_web_processes_tell_the_same_and_they_tell_what_the_workers_did(stack, api):
    stack.start("web", "worker", "beat")
    stack.post(*[in_seconds(1)] * 5)
    all_ended(5)
    told = parsed(requests.get(stack.url + "/metrics", timeout=10).text)
    assert told["scheduler_calls_ended_totalSucceeded"] == told["scheduler_call_lateness_seconds_count"] == 5
    until(lambda: parsed(requests.get(stack.url + "/metrics", timeout=10).text)["scheduler_last_tick_age_seconds"] < 30,
          what="a first tick")
    answer = requests.get(stack.url + "/metrics", timeout=10)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    result = subprocess.run(["promtool", "check", "metrics"], input=answer.content, capture_output=True)
    assert result.returncode == 0, result.stderr


def test_it_is_told_to_those_who_may_read_or_on_a_setting_to_all():
    token = Token.objects.create(user=person(may=["view"]))
    assert Client().get("/metrics").status_code == 401
    for may, code in ((["view"], 200), ([], 403)):
        person(may=may)
        assert Client().get("/metrics", headers={"Authorization": f"Token {token.key}"}).status_code == code
    with override_settings(METRICS_OPEN=True):
        assert Client().get("/metrics").status_code == 200


def test_what_is_counted_is_not_read_again():
    """Once the past is counted, a million old rows cost nothing."""
    ended(-86400, 20_000), make(86400, 20)      # of many to come PostgreSQL may find reading all cheaper
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")
    assert rows_read(measured) > 20_000
    # At best: what else PostgreSQL had to do when it looked at the table decides how it counts a few among many.
    assert min(rows_read(measured) for _ in range(3)) < 5000


def test_the_alerts_of_the_readme(work):
    """Prometheus' own tool takes the rules as they stand there, and each fires when it should."""
    readme = (SERVICE / "README.md").read_text()
    rules = next(block for block in re.findall(r"(?:^    .*\n|^\n)+", readme, re.M) if "alert:" in block)
    (work / "rules.yml").write_text(re.sub("^    ", "", rules, flags=re.M))
    expectations = {
        "SchedulerStandsStill": [("scheduler_last_tick_age_seconds", "0 15+15x40")],
        "SchedulerCallsMissed": [('scheduler_calls_ended_total{status="Missed"}', "0x10 3x40")],
        "SchedulerCallsLate": [('scheduler_call_lateness_seconds_bucket{le="1"}', "0x50"),
                               ('scheduler_call_lateness_seconds_bucket{le="2.5"}', "0+10x50"),
                               ('scheduler_call_lateness_seconds_bucket{le="+Inf"}', "0+10x50")],
        "SchedulerCallsRetrying": [("scheduler_calls_retrying", "0x10 3x40")],
    }
    assert set(re.findall(r"alert: (\w+)", rules)) == set(expectations)
    tests = "rule_files: [rules.yml]\nevaluation_interval: 15s\ntests:\n"
    for alert, series in expectations.items():
        tests += "  - interval: 15s\n    input_series:\n"
        tests += "".join(f"      - {{series: '{name}', values: '{values}'}}\n" for name, values in series)
        tests += ("    promql_expr_test:\n"
                  f"      - {{expr: 'count(ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}})', eval_time: 10m,\n"
                  "         exp_samples: [{value: 1}]}\n"
                  f"      - {{expr: 'count(ALERTS{{alertname!=\"{alert}\"}})', eval_time: 10m, exp_samples: []}}\n")
    (work / "tests.yml").write_text(tests)
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "tests.yml"]):
        result = subprocess.run(["promtool", *command], cwd=work, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
