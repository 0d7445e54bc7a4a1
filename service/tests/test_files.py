"""Targets and schedules as files: `export` and `apply`."""
import json
import os
import re
from datetime import datetime, timedelta, timezone
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SERVICE, empty, examples, make

from scheduler.base.secrets import decrypt
from scheduler.calls import targets
from scheduler.files import text
from scheduler.models import Schedule, ScheduledCall, Target
from scheduler.schedules import planner

KEYS = [f"whsec_{letter * 32}" for letter in "ABC"]

EVERYTHING = """
targets:
  billing:
    url: https://api.example.org/v1/run?order={{data.order}}
    method: POST
    headers: {Content-Type: application/json, X-Reason: "{{call.note}}"}
    secret_headers:
      X-Api-Key: {env: API_KEY}
    body: {id: "{{call.id}}"}
    auth: {kind: oauth2, token_url: https://login.example.org/token, client_id: us, client_secret: {env: CLIENT}}
    connect_timeout: 1.5
    timeout: 20
    success: {statuses: "200-299, 404", contains: done}
    follow_redirects: false
    retries: {delays: [10, 60.5, 600], max_age: 7200}
    repeatable: true
    max_at_once: 5
    rate: 300/min
    signing_key: {env: SIGNING}
    previous_signing_key: {env: SIGNED}
    keep: {failures: 1000, days: 7}
  mail:
    url: http://mail.example.org/
    auth: {kind: basic, username: us, password: ""}
schedules:
  lunch, for all:
    times: 12:30:00
    zone: Europe/Berlin
    days: [mon, fri]
    first_date: 2026-01-01
    last_date: 2030-12-31
    except: [2026-12-25]
    on: false
    target: billing
    body: |
      {"lunch":
        true}
    headers: {X-Number: "007"}
    data: {order: 007, more: [1.5, null, true, {no: yes}], mark: "\\u202Eß"}
    overlap: skip
    catch_up: last
    jitter: 60
  every five minutes:
    cron: "*/5 * * * *"
    zone: UTC
"""


@pytest.fixture
def variables(monkeypatch):
    """Those that EVERYTHING names."""
    for name, value in {"API_KEY": "k3y-0f-the-api", "CLIENT": "s3cret-of-ours", "SIGNING": KEYS[0], "SIGNED": KEYS[1]}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def apply(tmp_path):
    """Applies a text; returns the lines that it writes."""
    def run(text, *options):
        file = tmp_path / "calls.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        out = StringIO()
        call_command("apply", str(file), *options, stdout=out)
        return out.getvalue().splitlines()
    return run


def export():
    out = StringIO()
    call_command("export", stdout=out)
    return out.getvalue()


def rows():
    """Whatever stands in the tables of targets, schedules and calls."""
    return [list(model.objects.order_by("id").values()) for model in (Target, Schedule, ScheduledCall)]


def problems(apply, text, *options):
    """What `apply` says is wrong, of each problem what follows the name of the file; nothing is changed."""
    before = rows()
    with pytest.raises(CommandError) as error:
        apply(text, *options)
    assert rows() == before
    *found, last = str(error.value).splitlines()
    assert last.startswith("Nothing was changed. There ")
    return [line.rpartition("calls.yaml")[2].removeprefix(", ") for line in found]


def test_a_file_makes_what_it_says(apply, variables):
    assert apply(EVERYTHING)[-1] == "Done: 4 new, 0 as before."
    billing, mail = Target.objects.order_by("name")
    assert json.loads(billing.body) == {"id": "{{call.id}}"} and billing.delays == [10, 60.5, 600] and not billing.follow_redirects
    assert (billing.keep_failures, billing.keep_successes, billing.keep_days) == (1000, 0, 7)
    assert decrypt(billing.secrets) == {"headers": {"X-Api-Key": "k3y-0f-the-api"}, "auth": {"client_secret": "s3cret-of-ours"},
                                        "signing": KEYS[:2]}
    assert decrypt(mail.secrets)["auth"] == {"password": ""} and mail.created_by == "apply"
    every, lunch = Schedule.objects.order_by("name")
    assert lunch.target == billing and lunch.times == "12:30:00" and not lunch.on and lunch.exceptions == ["2026-12-25"]
    assert lunch.data == {"order": "007", "more": [1.5, None, True, {"no": "yes"}], "mark": "\u202eß"}
    assert every.on and ScheduledCall.objects.filter(schedule=every).count() > 500, "it is planned"


def test_applying_an_export_changes_nothing(apply, variables):
    apply(EVERYTHING)
    targets.pause(Target.objects.get(name="mail"), "ann", "it moves")
    planned, before = export(), rows()
    for name, value in {"BILLING_X_API_KEY": "API_KEY", "BILLING_CLIENT_SECRET": "CLIENT", "BILLING_SIGNING_KEY": "SIGNING",
                        "BILLING_PREVIOUS_SIGNING_KEY": "SIGNED"}.items():
        variables.setenv(name, os.environ[value])
        assert f"{{env: {name}}}" in planned and os.environ[value] not in planned
    assert apply(planned, "--prune") == ["Done: 4 as before."]
    for same in (EVERYTHING, EVERYTHING.replace("12:30:00", "12:30"), EVERYTHING.replace("12:30:00", "12:30 PM")):
        assert apply(same, "--dry-run") == ["Would be: 4 as before."]
    assert rows() == before and export() == planned
    # And makes the same where there is nothing.
    empty()
    apply(planned)
    assert export() == planned
    assert decrypt(Target.objects.get(name="billing").secrets)["signing"] == KEYS[:2]


def changed_lines(said):
    return {line for line in said if line[:1] in ("+", "-") and line[:3] not in ("+++", "---")}


def test_a_dry_run_shows_as_a_diff_what_would_change_and_changes_nothing(apply, variables):
    apply(EVERYTHING)
    before = rows()
    changed = EVERYTHING.replace("300/min", "10/s").replace("12:30:00", "13:00:00").replace("  mail:", "  post:")
    said = apply(changed, "--dry-run", "--prune")
    assert rows() == before
    assert changed_lines(said) >= {"-    rate: 300/min", "+    rate: 10/s", "-    times: 12:30:00", "+    times: 13:00:00",
                                   "-  mail:", "+  post:", "+      password: ''"}
    assert len(changed_lines(said)) == 2 + 2 + 7 + 7, said
    assert said[-1] == "Would be: 1 new, 2 changed, 1 removed, 1 as before."
    done = apply(changed, "--prune")
    assert done[:-1] == said[:-1] and done[-1] == "Done: 1 new, 2 changed, 1 removed, 1 as before."
    assert Target.objects.get(name="billing").rate == "10/s" and Target.objects.get(name="billing").version == 2
    assert {one.name for one in targets.there()} == {"billing", "post"}


def test_what_a_file_leaves_out_is_the_default(apply, variables):
    apply(EVERYTHING)
    apply("targets: {billing: {url: 'https://api.example.org/'}}\nschedules: {every five minutes: {times: 08:00:00, zone: UTC}}")
    billing = Target.objects.get(name="billing")
    assert (billing.method, billing.headers, billing.body, billing.auth, billing.secrets, billing.secret_names, billing.delays,
            billing.rate, billing.keep_days) == ("GET", {}, "", {"kind": "none"}, "", {}, [], "", 30)
    schedule = Schedule.objects.get(name="every five minutes")
    assert (schedule.cron, schedule.times) == ("", "08:00:00")


def test_a_secret_is_shown_nowhere_and_is_written_only_where_it_is_another(apply, variables):
    apply(EVERYTHING)
    before = Target.objects.get(name="billing").secret_names
    Target.objects.filter(name="billing").update(secret_names=json.loads(json.dumps(before).replace("20", "19")))
    variables.setenv("API_KEY", "an0ther-k3y")
    said = apply(EVERYTHING)
    assert changed_lines(said) == {"-      X-Api-Key: '***'", "+      X-Api-Key: {env: API_KEY}"}
    assert not any(word in "".join(said) for word in ("an0ther", "k3y-0f", "s3cret", "whsec_"))
    billing = Target.objects.get(name="billing")
    assert decrypt(billing.secrets)["headers"] == {"X-Api-Key": "an0ther-k3y"}
    assert billing.secret_names["headers"]["X-Api-Key"] > "20" and billing.secret_names["auth"]["client_secret"] < "20"
    # Taken away, under another name, in other letters.
    apply(EVERYTHING.replace("X-Api-Key: {env: API_KEY}", "x-api-key: {env: API_KEY}"))
    assert list(Target.objects.get(name="billing").secret_names["headers"]) == ["x-api-key"]
    apply(EVERYTHING.replace("      X-Api-Key: {env: API_KEY}", "      X-Other: {env: API_KEY}"))
    assert decrypt(Target.objects.get(name="billing").secrets)["headers"] == {"X-Other": "an0ther-k3y"}


def test_secrets_go_along_where_a_target_leads_elsewhere(apply, variables):
    apply(EVERYTHING)
    apply(EVERYTHING.replace("api.example.org", "api.example.com").replace("login.example.org", "login.example.com"))
    billing = Target.objects.get(name="billing")
    assert ".com" in billing.url and ".com" in billing.auth["token_url"]
    assert decrypt(billing.secrets)["auth"] == {"client_secret": "s3cret-of-ours"}


@pytest.mark.parametrize("had", ["", "A", "B", "AB", "BA", "CB", "CA"])
@pytest.mark.parametrize("wanted", ["", "A", "AB"])
def test_signing_keys_become_those_of_the_file(apply, monkeypatch, had, wanted):
    for letter, key in zip("ABC", KEYS):
        monkeypatch.setenv(letter, key)

    def with_keys(letters):
        names = ("signing_key", "previous_signing_key")
        return "targets: {t: {url: http://t.example.org/%s}}" % "".join(
            f", {name}: {{env: {letter}}}" for name, letter in zip(names, letters))
    apply(with_keys(had)), apply(with_keys(wanted))
    assert decrypt(Target.objects.get(name="t").secrets).get("signing", []) == [KEYS["ABC".index(letter)] for letter in wanted]
    assert len(Target.objects.get(name="t").secret_names.get("signing", [])) == len(wanted)
    assert apply(with_keys(wanted)) == ["Done: 1 as before."]


def test_secrets_that_cannot_be_read_are_given_anew(apply, variables):
    apply(EVERYTHING)
    with override_settings(SECRETS_KEY=["another key, of which there is no other" * 2]):
        apply(EVERYTHING)
        assert decrypt(Target.objects.get(name="billing").secrets)["signing"] == KEYS[:2]
        assert apply(EVERYTHING) == ["Done: 4 as before."]


def test_everything_that_is_wrong_is_said_at_once_and_by_its_line(apply, variables):
    apply(EVERYTHING)
    wrong = (EVERYTHING.replace("method: POST", "method: SEND").replace("{env: API_KEY}", "{env: THERE_IS_NONE}")
             .replace("Europe/Berlin", "Europe/Bonn").replace("[10, 60.5, 600]", "10").replace("target: billing", "target: bill"))
    variables.setenv("CLIENT", "")
    assert problems(apply, wrong) == [
        "line 8: targets: billing: secret_headers.X-Api-Key: THERE_IS_NONE is not set in the environment.",
        "line 10: targets: billing: auth.client_secret: CLIENT is empty in the environment.",
        "line 28: schedules: lunch, for all: zone: 'Europe/Bonn' is no IANA time zone such as Europe/Berlin or UTC.",
        'line 34: schedules: lunch, for all: target: There is no target "bill".']
    variables.setenv("CLIENT", "s3cret-of-ours"), variables.setenv("THERE_IS_NONE", "now")
    assert [line.partition(":")[0] for line in problems(apply, wrong)] == ["line 5", "line 15", "line 28", "line 34"]


@pytest.mark.parametrize("wrong, words", [
    ("", "There must be targets: or schedules: in it"),
    ("[]", "There must be targets: or schedules: in it"),
    ("targets:", "line 1: targets: Must be names, and what each is; {} for none at all."),
    ("calls: {}", "line 1: calls: There is no key calls; there are targets and schedules."),
    ("targets: {a: {url: http://a.example.org/, name: b}}", "line 1: targets: a: name: There is no key name; there are url, "),
    ("targets: {a: {url: http://a.example.org/, paused: true}}", "line 1: targets: a: paused: There is no key paused"),
    ("targets: {a: }", "line 1: targets: a: Must be keys and values, of url, "),
    ("targets: {a: {}}", "line 1: targets: a: url: Is missing."),
    ("targets: {a: {url: http://a.example.org/}}\ntargets: {}", "line 2: The key 'targets' stands twice."),
    ("targets:\n  a: {url: http://a.example.org/, url: x}", "line 2: The key 'url' stands twice."),
    ("targets: {a: {url: http://a.example.org/, auth: {kind: bearer, token: t0k3n-0f-0urs}}}",
     "line 1: targets: a: auth.token: Is a secret: give the name of the environment variable that holds it, such as {env: A_TOKEN}."),
    ("targets: {a: {url: http://a.example.org/, secret_headers: {X-Key: {env: no name}}}}", "line 1: targets: a: secret_headers.X-Key: Is a secret"),
    ("targets: {a: {url: http://a.example.org/, auth: [bearer]}}", "line 1: targets: a: auth: Must be an object"),
    ("targets: {a: {url: http://a.example.org/, auth: {kind: [x]}}}", "line 1: targets: a: auth: Must be an object"),
    ("targets: {a: {url: http://a.example.org/, secret_headers: []}}", "line 1: targets: a: secret_headers: Must be an object"),
    ("targets: {a: {url: http://a.example.org/, previous_signing_key: {env: HOME}}}", "line 1: targets: a: previous_signing_key: Must be the key before"),
    ("targets: {a: {url: http://a.example.org/, was: a}}", "line 1: targets: a: was: Must be the name before this one"),
    ("targets: {a b: {url: http://a.example.org/}}", "line 1: targets: a b: name"),
    ("schedules: {a: {times: 12:00:00, zone: UTC, target: [b]}}", "line 1: schedules: a: target: Must be a string."),
    ("schedules: {'': {times: 12:00:00, zone: UTC}}", "line 1: schedules: : name"),
    ("schedules: {' a': {times: 12:00:00, zone: UTC}}", "line 1: schedules:  a: Must be a name without blanks around it."),
    ("targets: {a", "line 1: This is no YAML: "),
    ("targets: !!python/object:os.system {}", "line 1: It holds a tag (!), which means nothing here."),
    ("targets: !!set {a}", "line 1: It holds a tag (!), which means nothing here."),
    ("targets: {[a]: 1}", "line 1: A key must be a text."),
    ("a: &a [*a]", "It is nested too deeply."),
    ("[" * 1000, "It is nested too deeply."),
    ("a: " + "9" * 5000, "line 1: It holds a number that is too large."),
    ("a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9)), "There are more than 200000 values"),
    ("--- {}\n--- {}", "This is no YAML: but found another document."),
    (b"targets: \xff", "This is no YAML: it is no text in UTF-8."),
    (b"targets: \0", "This is no YAML: U+0000 stands in it, which YAML does not take."),
])
def test_what_is_no_such_file_is_refused_in_words(apply, wrong, words):
    said, *more = problems(apply, wrong)
    assert words in said and not more and "t0k3n" not in said


def test_a_file_with_too_many_values_is_not_read_to_its_end(apply):
    said, = problems(apply, "targets:\n" + "-\n" * 200_000 + "- [ what follows is no YAML")
    assert said.endswith("line 200001: There are more than 200000 values in it.")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CommandError, match="none.yaml cannot be read: No such file or directory."):
        call_command("apply", str(tmp_path / "none.yaml"))
    with pytest.raises(CommandError, match="/dev/zero is larger than 10 MB. Nothing was changed."):
        call_command("apply", "/dev/zero")
    with pytest.raises(CommandError, match="The name of --by holds U"):
        call_command("apply", str(tmp_path / "none.yaml"), "--by", "a\nb")


def test_what_is_removed_is_said_first(apply, variables, tmp_path):
    """Where nobody can be told, nothing is removed."""
    class Gone(StringIO):
        def write(self, text):
            if "-targets:" in text:
                raise BrokenPipeError
    apply(EVERYTHING)
    before = rows()
    (tmp_path / "calls.yaml").write_text("targets: {}\nschedules: {}\n")
    with pytest.raises(BrokenPipeError):
        call_command("apply", str(tmp_path / "calls.yaml"), "--prune", stdout=Gone())
    assert rows() == before


def test_what_a_file_lacks_goes_with_prune_alone_and_only_of_the_kinds_that_it_names(apply, variables):
    apply(EVERYTHING)
    only = "targets:\n  post: {url: http://post.example.org/}\n"
    *_, left, done = apply(only)
    assert left == "Not in the file, and left as they are (--prune removes them): target billing, target mail."
    assert done == "Done: 1 new, 0 as before." and Schedule.objects.filter(deleted_at=None).count() == 2
    # The schedules stay, and one of them names a target.
    assert problems(apply, only, "--prune") == [
        "targets: billing: Cannot be removed: 1 schedule names it. Cancel or change them first."]
    done = apply(only + "schedules: {}", "--prune", "--by", "ann")
    assert done[-1] == "Done: 4 removed, 1 as before." and [one.name for one in targets.there()] == ["post"]
    assert not Schedule.objects.filter(deleted_at=None) and not ScheduledCall.objects.exclude(status="Cancelled")
    assert set(ScheduledCall.objects.values_list("cancelled_by", flat=True)) == {"ann"}


def test_nothing_is_done_where_something_cannot_be(apply, variables):
    apply(EVERYTHING)
    make(target=Target.objects.get(name="mail"))
    assert problems(apply, EVERYTHING.replace("  mail:", "  post:").replace("300/min", "1/s"), "--prune") == [
        "targets: mail: Cannot be removed: 1 pending call names it. Cancel or change them first."]


def test_another_name_is_the_same_target_and_the_same_schedule(apply, variables):
    apply(EVERYTHING)
    ids = set(ScheduledCall.objects.filter(status="Pending").values_list("id", flat=True))
    renamed = (EVERYTHING.replace("  mail:", "  post:\n    was: mail")
               .replace("  every five minutes:", "  often:\n    was: every five minutes"))
    said = apply(renamed, "--prune")
    assert said[-1] == "Done: 2 changed, 2 as before." and {"-  mail:", "+  post:", "-  every five minutes:", "+  often:"} == changed_lines(said)
    assert set(ScheduledCall.objects.filter(status="Pending").values_list("id", flat=True)) == ids, "no call is another"
    assert apply(renamed, "--prune") == ["Done: 4 as before."]


def test_a_change_leaves_a_pause_and_says_who(apply, variables):
    apply(EVERYTHING.replace("on: false", "on: true"), "--by", "ann")
    lunch = Schedule.objects.get(name="lunch, for all")
    lunch.begin_pause("bob", "holidays", datetime.now(timezone.utc) + timedelta(days=30)), planner.save(lunch, "bob")
    targets.pause(Target.objects.get(name="billing"), "bob", "it moves")
    apply(EVERYTHING.replace("on: false", "on: true").replace("12:30:00", "13:30:00").replace("300/min", "1/s"), "--by", "eve")
    lunch, billing = Schedule.objects.get(name="lunch, for all"), Target.objects.get(name="billing")
    assert (lunch.times, lunch.paused_by, lunch.paused_reason, lunch.created_by) == ("13:30:00", "bob", "holidays", "ann")
    assert (billing.rate, billing.paused_by, billing.created_by) == ("1/s", "bob", "ann")
    assert not ScheduledCall.objects.filter(schedule=lunch, status="Pending")


def test_one_is_not_true(apply):
    def file(value):
        return f"targets: {{t: {{url: http://t.example.org/}}}}\nschedules: {{s: {{times: 08:00:00, zone: UTC, target: t, data: {{x: {value}}}}}}}"
    apply(file("1"))
    assert apply(file("true"))[-1] == "Done: 1 changed, 1 as before."
    assert Schedule.objects.get().data["x"] is True and apply(file("true")) == ["Done: 2 as before."]


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"targets: {t: {url: nowhere}}")))
    with pytest.raises(CommandError, match="^standard input, line 1: targets: t: url: Must be a whole"):
        call_command("apply", "-")
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"targets: {t: {url: http://t.example.org/}}")))
    call_command("apply", "-", stdout=StringIO())
    assert Target.objects.get().name == "t"


def test_names_of_variables_are_each_one_s_own(apply, monkeypatch):
    monkeypatch.setenv("T", "t0k3n")
    apply("targets: {%s}" % ", ".join(
        f"{name}: {{url: http://a.example.org/, auth: {{kind: bearer, token: {{env: T}}}}}}" for name in ("a-b", "a_b", "7.b")))
    first, *lines = export().splitlines()
    assert first == "# Secrets, from the environment: A_B_TOKEN, A_B_TOKEN_2, _7_B_TOKEN"
    assert [line.strip() for line in lines if "env" in line] == [
        f"token: {{env: {name}}}" for name in ("_7_B_TOKEN", "A_B_TOKEN", "A_B_TOKEN_2")]


def test_thousands_that_are_as_the_file_says_cost_a_few_queries(apply):
    apply("targets: {%s}" % ", ".join(f"t{i}: {{url: http://a.example.org/}}" for i in range(100)))
    same = export()
    with CaptureQueriesContext(connection) as queries:
        apply(same)
    assert len(queries) < 20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")) | st.sampled_from(["on", "no", "12:30:00", "2026-12-25", "007", "1e3", "~", "", "=", "<<", "0x1", "a: b", " a\n b "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3))


@settings(max_examples=examples(400), deadline=None)
@given(JSON)
def test_what_is_written_is_read_as_it_was(value):
    written = text.write({"value": value})
    found, _ = text.read(written.encode(), "calls.yaml")
    assert json.dumps(found) == json.dumps({"value": value})
    assert all(c.isprintable() or c == "\n" for c in written)


def test_the_file_of_the_readme_can_be_applied(apply, monkeypatch):
    for name in ("BILLING_API_KEY", "BILLING_TOKEN"):
        monkeypatch.setenv(name, "s3cret-0f-ours")
    example = re.search(r"```yaml\n(targets:.*?)```", (SERVICE / "README.md").read_text(), re.S)[1]
    assert apply(example)[-1] == "Done: 2 new, 0 as before." and apply(example) == ["Done: 2 as before."]


def test_whom_a_target_s_notices_go_to_is_a_secret(apply, monkeypatch):
    file = "targets: {a: {url: http://a.example.org/, notify: {env: TO}, notify_after: 3}}"
    monkeypatch.setenv("TO", "json://127.0.0.1:9/s3cret, mailto://us:pass@mail.example.org?to=a@example.org,b@example.org")
    apply(file)
    target = Target.objects.get()
    assert target.notify_after == 3 and len(decrypt(target.secrets)["notify"]) == 2
    assert apply(file) == ["Done: 1 as before."] and "notify: {env: A_NOTIFY}" in export() and "s3cret" not in export()
    monkeypatch.setenv("TO", "json://127.0.0.1:9/another")
    said = apply(file)
    assert changed_lines(said) == {"-    notify: '***'", "+    notify: {env: TO}"}
    assert decrypt(Target.objects.get().secrets)["notify"] == ["json://127.0.0.1:9/another"]
    apply("targets: {a: {url: http://a.example.org/}}")
    assert not Target.objects.get().secrets and Target.objects.get().notify_after == 1
