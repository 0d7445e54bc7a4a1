"""The admin in a real browser: what people see, and what they do there.

SCHEDULER_TEST_SCREENSHOTS may name a folder that is to get the pictures.
"""
import os
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import requests
from conftest import anew, fill, log_in, make, person, redis_server, until
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from scheduler.base.clock import utcnow
from scheduler.models import Attempt, Heartbeat, Schedule, ScheduledCall, Target

LIST = "/admin/scheduler/scheduledcall/"


@pytest.fixture
def admin(stack, browser, request):
    """Somebody who may do everything is logged in: opens the list with a query string."""
    stack.start("web", TIME_ZONE=getattr(request, "param", "America/New_York"))
    log_in(browser, stack.url)
    return lambda query="": browser.get(f"{stack.url}{LIST}{query}")


def one(browser, selector):
    return until(lambda: browser.find_elements(By.CSS_SELECTOR, selector), what=selector)[0]


def ids(browser):
    """Of the list's rows."""
    return [int(box.get_attribute("value")) for box in browser.find_elements(By.NAME, "_selected_action")]


def follow(browser, element):
    """Clicks, and waits until another page is there."""
    element.click()
    until(lambda: gone(element), what="another page")
    one(browser, "#footer")


def choose(browser, start, hours):
    """Has the list show that many hours from the datetime `start`, in its zone."""
    for name, at in (("due_from", start), ("due_before", start + timedelta(hours=hours))):
        browser.execute_script("arguments[0].value = arguments[1]", one(browser, f"[name={name}]"), f"{at:%Y-%m-%dT%H:%M:%S}")
    follow(browser, one(browser, ".calls-due button"))


def gone(element):
    try:
        element.is_enabled()
    except StaleElementReferenceException:
        return True


def test_log_in_see_the_picture_and_cancel_a_call(stack, browser, log):
    make(-7200, 30, status="Succeeded", started_at=utcnow(), http_status=200)
    make(-7200, 5, status="Failed", started_at=utcnow(), http_status=503, error="HTTP status 503")
    ScheduledCall.objects.update(timestamp=utcnow() - timedelta(hours=2))       # in one half hour
    make(-3600, 3, status="Missed"), make(-3600, 2, status="Cancelled"), make(1800, status="Running")
    pending = make(7200, 12)
    stack.start("web")

    log_in(browser, stack.url)
    browser.find_element(By.LINK_TEXT, "Calls").click()

    picture = until(lambda: browser.find_elements(By.CSS_SELECTOR, "#calls-picture svg"))[0]
    assert picture.accessible_name == "Calls per half hour in the last and next 24 hours, by status"
    assert picture.size["width"] > 500 and picture.size["height"] > 80
    colours = set()
    for bar in browser.find_elements(By.CSS_SELECTOR, "#calls-picture svg rect"):
        colour, box = bar.value_of_css_property("fill"), bar.rect
        assert box["height"] >= 1 and colour != "none"
        colours.add(colour)
    assert len(colours) == 6, "six statuses, six colours"
    legend = browser.find_element(By.CSS_SELECTOR, "#calls-picture figcaption").text
    for text in ("Pending 12", "Running 1", "Succeeded 30", "Failed 5", "Missed 3", "Cancelled 2"):
        assert text in legend

    for theme in ("dark", "light"):
        browser.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
        title = browser.find_element(By.CSS_SELECTOR, "#calls-picture figcaption > b")
        paper = browser.find_element(By.ID, "calls-picture")
        light = [brightness(title.value_of_css_property("color")),
                 brightness(paper.value_of_css_property("background-color"))]
        assert abs(light[0] - light[1]) > 120, f"not readable in the {theme} theme"
        if folder := os.environ.get("SCHEDULER_TEST_SCREENSHOTS"):
            browser.save_screenshot(str(Path(folder) / f"admin-{theme}.png"))

    row = browser.find_element(By.CSS_SELECTOR, f"input[name=_selected_action][value='{pending[0].id}']")
    row.click()
    Select(browser.find_element(By.NAME, "action")).select_by_visible_text("Cancel the selected calls")
    browser.find_element(By.CSS_SELECTOR, "button[name=index]").click()
    until(lambda: "1 cancelled." in browser.page_source)
    assert ScheduledCall.objects.get(id=pending[0].id).status == "Cancelled"
    assert len(log()) == 1 and "Cancelled call to API at" in log()[0]

    follow(browser, browser.find_element(By.CSS_SELECTOR, "#calls-picture svg a"))
    assert "35 calls" in browser.page_source


def test_the_line_says_what_is_called_how_the_service_is_and_what_comes(admin, stack, browser):
    """1: and follows what happens to it."""
    make(1800, 4), make(-3600, 3, status="Failed"), make(-7200, 2, status="Missed")
    stack.stop()
    stack.start("web", "worker", "beat", API_URL=f"http://ann:secret@127.0.0.1:{stack.port}/healthz?key=secret")
    until(lambda: Heartbeat.objects.exists(), what="the dispatcher runs")
    admin()
    line = one(browser, "#calls-summary").text
    assert f"Calls http://***@127.0.0.1:{stack.port}/healthz?key=***" in line and "secret" not in browser.page_source
    assert "service ok" in line and "4 due in the next hour" in line and "in 29 min" in line
    assert "3 failed, 2 missed in the last 24 hours" in line and "all times in America/New_York" in line
    follow(browser, browser.find_element(By.PARTIAL_LINK_TEXT, "3 failed"))
    assert len(ids(browser)) == 5
    redis_server.stop()
    try:
        browser.refresh()
        assert "service failing: broker takes no messages (ConnectionError)" in one(browser, "#calls-summary").text
    finally:
        redis_server.start()


@pytest.mark.parametrize("admin", ["America/Panama"], indirect=True)
def test_the_list_opens_at_now_and_the_bars_keep_the_view(admin, browser):
    """2: among ten thousand pending calls today's failures are one click away. In a zone whose clocks never change."""
    fill(10_000, 86000)
    soon, later = make(7200), make(14400)
    failed, missed, good = make(-7200, status="Failed"), make(-10800, status="Missed"), make(-300, status="Succeeded")
    admin()
    assert ids(browser)[:2] == [soon.id, later.id]
    assert one(browser, ".calls-tabs [aria-current]").text == "Upcoming"
    assert "more than 10000 calls" in browser.page_source
    choose(browser, datetime.now(ZoneInfo("America/Panama")), 5)
    assert one(browser, ".calls-tabs [aria-current]").text == "Upcoming" and ids(browser) == [soon.id, later.id]
    follow(browser, browser.find_element(By.PARTIAL_LINK_TEXT, "Show the others too"))
    follow(browser, browser.find_element(By.LINK_TEXT, "Failed and missed"))
    assert ids(browser) == [failed.id, missed.id]
    follow(browser, browser.find_element(By.LINK_TEXT, "Recent"))
    assert ids(browser) == [good.id, failed.id, missed.id]
    follow(browser, browser.find_element(By.LINK_TEXT, "Failed and missed"))

    follow(browser, browser.find_elements(By.CSS_SELECTOR, "#calls-picture svg a")[0])
    assert one(browser, ".calls-tabs [aria-current]").text == "Failed and missed" and ids(browser) == [missed.id]
    bars = browser.find_elements(By.CSS_SELECTOR, "#calls-picture svg a")
    assert [bar.get_attribute("aria-current") for bar in bars] == ["true", None, None, None, None, None][:len(bars)]
    band, bar = one(browser, ".band").rect, bars[0].find_element(By.TAG_NAME, "rect").rect
    assert band["x"] <= bar["x"] and bar["x"] + bar["width"] <= band["x"] + band["width"] + 1, "it is around the bar"
    assert one(browser, "[name=due_from]").get_attribute("value") and "EST" in one(browser, ".calls-chosen").text
    follow(browser, bars[-1])           # has pending calls only: none of the view
    assert one(browser, ".calls-tabs [aria-current]").text == "All" and "more than 10000 calls" not in browser.page_source
    assert not {failed.id, missed.id} & set(ids(browser)) and ids(browser)
    follow(browser, browser.find_element(By.PARTIAL_LINK_TEXT, "Show the others too"))
    assert not browser.find_elements(By.CSS_SELECTOR, "#calls-picture [aria-current], .band")

    start = datetime.now(ZoneInfo("America/Panama")) - timedelta(hours=2, minutes=30)
    choose(browser, start, 1)
    assert ids(browser) == [failed.id]


def test_every_time_is_in_the_zone_and_says_so(admin, browser, stack):
    """3: in the list, the heading, the breadcrumb, the message and the history."""
    due = datetime(2095, 7, 1, 16, 0, 5, tzinfo=timezone.utc)
    call, local = ScheduledCall.objects.create(timestamp=due), "2095-07-01 12:00:05 EDT"
    admin()
    follow(browser, browser.find_element(By.LINK_TEXT, local))
    assert local in one(browser, ".breadcrumbs").text and f"due {local}" == one(browser, "#content > h2").text
    assert one(browser, "[name=timestamp_1]").get_attribute("value") == "12:00:05"
    assert "In America/New_York." in one(browser, ".form-row.field-timestamp").text
    browser.get(stack.url + LIST + "add/")
    one(browser, "[name=timestamp_0]").send_keys("2095-07-01"), one(browser, "[name=timestamp_1]").send_keys("12:00:05")
    follow(browser, one(browser, "[name=_save]"))
    assert f"call {call.id + 1}, due {local}" in one(browser, ".messagelist").text
    browser.get(f"{stack.url}{LIST}{call.id + 1}/history/")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d E[SD]T", one(browser, "#change-history tbody th").text)
    assert local in one(browser, "#content > h1").text


def test_who_and_why_and_the_new_calls_of_schedule_again(admin, browser, stack):
    """4: by API and admin; a note that is a script is text."""
    evil = "<script>document.title='run'</script>"
    person("ann")
    requests.post(stack.url + "/api/schedule-api/", json={"timestamps": "2095-07-01T16:00:05Z", "note": evil}, timeout=10,
                  headers={"Authorization": f"Token {Token.objects.create(user=User.objects.get(username='ann')).key}"})
    call = ScheduledCall.objects.get()
    admin()
    row = one(browser, "#result_list tbody tr").text
    assert "ann (API)" in row and evil in row and browser.title != "run"
    one(browser, "[name=_selected_action]").click()
    Select(one(browser, "[name=action]")).select_by_visible_text("Schedule again, now")
    follow(browser, one(browser, "button[name=index]"))
    new = ScheduledCall.objects.get(again_of=call.id)
    assert one(browser, "#content h1").text == f"Call {new.id}" and one(browser, ".field-scheduled_by .readonly").text == "root"
    follow(browser, browser.find_element(By.LINK_TEXT, f"call {call.id}"))
    assert f"call {new.id}" in one(browser, ".field-again_as").text
    follow(browser, browser.find_element(By.PARTIAL_LINK_TEXT, "CANCEL THIS CALL"))
    follow(browser, one(browser, "input[value='Yes, cancel it']"))
    assert "root" in one(browser, ".field-cancelled_by").text and ScheduledCall.objects.get(id=call.id).status == "Cancelled"
    follow(browser, browser.find_element(By.LINK_TEXT, "HISTORY"))
    assert [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#change-history tbody td:last-child")] == [
        f"Scheduled again as call {new.id}.", "Cancelled."]
    assert browser.title != "run"


def test_pasting_several_times_and_what_is_wrong_with_them(admin, browser, stack):
    """6: nothing is added until all are right, and then they are shown."""
    browser.get(stack.url + LIST + "add/")
    one(browser, "[name=times]").send_keys("2095-07-01 12:00:00\nnoon\n2095-03-13 02:30:00")
    follow(browser, one(browser, "[name=_save]"))
    wrong = one(browser, ".field-times .errorlist").text
    assert "Line 2: “noon” is not a date and time" in wrong and "“2095-03-13 02:30:00” does not exist in America/New_York" in wrong
    assert not ScheduledCall.objects.exists()
    one(browser, "[name=times]").clear()
    # As a spreadsheet puts it on the clipboard: send_keys would leave the field at a tab.
    browser.execute_script("arguments[0].value = arguments[1]", one(browser, "[name=times]"),
                           "28-Nov-2095 2:00 PM\tthe first\n11/29/2095 2:00 PM\t\n")
    one(browser, "[name=note]").send_keys("by hand")
    follow(browser, one(browser, "[name=_save]"))
    assert [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#pasted tbody tr")] == [
        "Mon 2095-11-28 14:00:00 EST 28-Nov-2095 2:00 PM the first", "Tue 2095-11-29 14:00:00 EST 11/29/2095 2:00 PM by hand"]
    assert not ScheduledCall.objects.exists()
    follow(browser, one(browser, "#pasted [name=_save]"))
    assert "2 calls were added." in one(browser, ".messagelist").text and len(ids(browser)) == 2
    assert {call.note for call in ScheduledCall.objects.all()} == {"the first", "by hand"}


def test_now_beside_the_calendar_is_now(admin, browser, stack):
    browser.get(stack.url + LIST + "add/")
    one(browser, ".field-timestamp .datetimeshortcuts a[href='#']")
    browser.find_element(By.LINK_TEXT, "Now").click()
    at = one(browser, "[name=timestamp_1]").get_attribute("value")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", at) and not one(browser, "[name=timestamp_0]").get_attribute("value")
    follow(browser, one(browser, "[name=_save]"))
    assert abs(ScheduledCall.objects.get().timestamp - utcnow()) < timedelta(seconds=10)


def test_a_phone_shows_a_card_for_each_call(stack, phone):
    """6: its status, its time and the reason; the first is on the first screen, and only the picture, once it is
    unfolded, is wider than the screen, and is scrolled by itself."""
    failed = make(-3600, 3, status="Failed", error="HTTP status 503", note="nightly import", scheduled_by="ann")[0]
    make(-3600, status="Missed", error="not started within 60 s of its time"), make(60, 3)
    stack.start("web")
    log_in(phone, stack.url)
    phone.get(stack.url + LIST + "?view=trouble")

    def width():
        return phone.execute_script("return document.documentElement.scrollWidth")
    cards = phone.find_elements(By.CSS_SELECTOR, "#result_list tbody tr")
    assert width() == 390 and len(cards) == 4 and cards[0].rect["y"] + cards[0].rect["height"] < 844
    card = next(card for card in cards if "Failed" in card.text)
    assert card.text == f"Failed {failed.due} HTTP status 503 nightly import", "no ids, and no dashes"
    status = card.find_element(By.CSS_SELECTOR, ".call-status")
    assert status.size["height"] < 1.5 * float(status.value_of_css_property("font-size")[:-2]) + 6, "dot and word on a line"
    assert one(phone, "#content h1").text == "Calls" and phone.title.startswith("Calls")
    file = phone.execute_async_script("fetch(arguments[0]).then(answer => answer.text()).then(arguments[1])",
                                      phone.find_element(By.PARTIAL_LINK_TEXT, "CSV").get_attribute("href"))
    assert len(file.splitlines()) == 5 and file.startswith("id,timestamp,"), "of the four that this view shows"

    one(phone, "#action-toggle").click()
    assert phone.find_elements(By.CSS_SELECTOR, "[name=_selected_action]:checked") and not phone.find_elements(
        By.CSS_SELECTOR, "[name=_selected_action]:not(:checked)"), "all are chosen at once"
    one(phone, "#action-toggle").click()

    paper, tabs = one(phone, "#calls-picture .paper"), one(phone, ".calls-tabs")
    assert not paper.is_displayed() and not tabs.is_displayed() and not one(phone, "#changelist-filter").is_displayed()
    one(phone, "#fold-now summary").click()
    assert "3 failed, 1 missed" in one(phone, "#calls-summary").text
    assert paper.size["width"] < 390 and one(phone, "#calls-picture svg").size["width"] >= 900 and width() == 390
    assert phone.execute_script("arguments[0].scrollLeft = 9999; return arguments[0].scrollLeft", paper) > 400
    one(phone, "#fold-views summary").click()
    assert one(phone, "#changelist-filter").is_displayed() and one(phone, "#searchbar").is_displayed() and width() == 390
    follow(phone, phone.find_element(By.LINK_TEXT, "Upcoming"))
    follow(phone, phone.find_elements(By.CSS_SELECTOR, "#result_list tbody tr")[1])
    assert one(phone, "#content h1").text.startswith("Call "), "the whole card leads to it"


def test_on_a_phone_all_lists_are_cards(stack, phone):
    """Nothing of a row is out of sight, what there is nothing to say of is left out, and the whole card leads to its page."""
    stack.start("web")
    log_in(phone, stack.url)
    root = User.objects.get()
    Token.objects.create(user=root)
    target = Target.objects.create(name="billing", url="https://api.example.org/", delays=[10, 60])
    Target.objects.create(name="other", url="https://api.example.org/", rate="300/min")
    schedule = Schedule.objects.create(name="lunch", times="12:30:00, 14:15:30", zone="America/Argentina/ComodRivadavia", target=target)
    make(-60, 30, target=target, schedule=schedule, status="Failed")
    for path, title, words in (
            ("scheduler/target/", "billing", ["GET", "ready", "0 %", "10 s, 60 s"]), ("auth/user/", "root", []), ("auth/group/", "Viewer", []),
            ("scheduler/schedule/", "lunch", ["12:30:00, 14:15:30", "ComodRivadavia", "billing", "0 %", "to come, so far"]),
            ("authtoken/tokenproxy/", root.auth_token.key, ["root"])):
        phone.get(f"{stack.url}/admin/{path}")
        card = next(row for row in phone.find_elements(By.CSS_SELECTOR, "#result_list tbody tr") if title in row.text)
        assert not any(head.is_displayed() for head in phone.find_elements(By.CSS_SELECTOR, "#result_list [class*=column-]:not(.action-checkbox-column)"))
        assert "\N{EN DASH}" not in card.text
        assert card.text.startswith(title) and all(word in card.text for word in words), card.text
        for cell in card.find_elements(By.CSS_SELECTOR, "td, th"):
            assert cell.rect["x"] + cell.rect["width"] < 390, (path, cell.text)
        follow(phone, card)
        assert phone.current_url.endswith("/change/")
    phone.get(stack.url + "/admin/scheduler/schedule/")
    follow(phone, phone.find_element(By.LINK_TEXT, "so far"))
    assert f"schedule={schedule.pk}" in phone.current_url, "a link on a card leads where it says"
    phone.get(f"{stack.url}{LIST}add/")
    phone.execute_script("arguments[0].value = arguments[1]", one(phone, "[name=times]"), "28-Nov-2095 2:00 PM\t" + "the first delivery " * 8)
    follow(phone, one(phone, "[name=_save]"))
    row = one(phone, "#pasted tbody tr")
    assert row.text.startswith("Mon 2095-11-28 14:00:00 UTC") and row.rect["x"] + row.rect["width"] < 390
    assert phone.execute_script("const box = document.querySelector('.pasted-rows'); return box.scrollWidth <= box.clientWidth")


def test_what_the_api_answered_is_one_click_from_the_list(admin, browser):
    target = Target.objects.create(name="billing", url="https://api.example.org/run", method="POST")
    at = utcnow() - timedelta(minutes=1)
    call = make(-60, target=target, status="Failed", attempts_made=1, error="HTTP status 500", http_status=500, failure="unknown",
                started_at=at, ended_at=at + timedelta(milliseconds=812))
    Attempt.objects.create(call=call, number=1, started_at=at, ended_at=call.ended_at, outcome="Failed", failure="unknown",
                           http_status=500, error="HTTP status 500", kept={
                               "phases": {"name": 2, "connect": 10, "tls": 100, "answer": 700},
                               "request": {"method": "POST", "url": target.url, "headers": {"X-One": "1"}, "body": '{"order":7}'},
                               "response": {"headers": {"Content-Type": "application/json"}, "body": '{"error":"no such order"}'}})
    admin("?view=trouble")
    assert one(browser, "#result_list .field-took").text == "812.0 ms"
    follow(browser, browser.find_element(By.LINK_TEXT, str(call.id)))
    said = one(browser, "#attempts").text
    for text in ("812.0 ms", '{\n  "error": "no such order"\n}', "Content-Type: application/json", f"POST {target.url}", "X-One: 1",
                 '{\n  "order": 7\n}'):
        assert text in said, text
    assert one(browser, "#attempts pre.body").rect["y"] < 900, "without scrolling"
    bar = one(browser, ".phases-bar")
    parts = [part.size["width"] for part in bar.find_elements(By.TAG_NAME, "i")]
    assert bar.accessible_name == "name 2.0 ms, connection 10.0 ms, TLS 100.0 ms, answer 700.0 ms"
    assert parts == sorted(parts) and 6 < parts[3] / parts[2] < 8 and one(browser, ".object-tools a").text == "SCHEDULE AGAIN, NOW"


def test_the_example_of_the_documentation_is_executed(stack, browser):
    """As a newcomer does: open the page, try it out, execute; two calls are there."""
    stack.start("web")
    browser.get(stack.url + "/api/docs/")

    def press(selector):
        button = until(lambda: browser.find_elements(By.CSS_SELECTOR, selector))[0]
        browser.execute_script("arguments[0].scrollIntoView(); arguments[0].click()", button)
    press(".opblock-post .opblock-summary-control")
    press(".opblock-post .try-out__btn")
    press(".opblock-post .execute")
    until(lambda: ScheduledCall.objects.count() == 2, what="the example's two calls")
    until(lambda: any("201" in answer.text for answer in browser.find_elements(By.CSS_SELECTOR, ".opblock-post .live-responses-table")))


def ask(browser, button, yes, **fields):
    """Presses a button above the page, fills in what it asks for, and says yes."""
    follow(browser, browser.find_element(By.LINK_TEXT, button))
    for name, text in fields.items():
        field = one(browser, f".ask [name={name}]")
        field.clear(), field.send_keys(text)
    follow(browser, one(browser, f"input[value='{yes}']"))


def test_a_target_is_added_tried_paused_and_resumed(stack, api, browser):
    """As somebody does who has only the pages: a call is made, and what came of it is shown."""
    stack.start("web", "worker", "beat", TARGET_NETWORKS="127.0.0.0/8")
    log_in(browser, stack.url)
    browser.get(stack.url + "/admin/scheduler/target/add/")
    for name, text in {"name": "billing", "url": api.url + "/ok", "headers": "Content-Type: application/json",
                       "body": '{"order": {{data.order}}}', "auth_secret": "the-bearer-token", "delays": "10, 60"}.items():
        one(browser, f"[name={name}]").send_keys(text)
    Select(one(browser, "[name=method]")).select_by_visible_text("POST")
    Select(one(browser, "[name=auth_kind]")).select_by_visible_text("Bearer token")
    follow(browser, one(browser, "[name=_continue]"))

    ask(browser, "TEST", "Yes, call it now", data="{}")
    assert "Lacks order" in one(browser, ".errorlist").text and not api.seen, "asked again, as the body has a place for it"
    one(browser, ".ask [name=data]").clear(), one(browser, ".ask [name=data]").send_keys('{"order": 7}')
    follow(browser, one(browser, "input[value='Yes, call it now']"))
    call = ScheduledCall.objects.get()
    until(lambda: ScheduledCall.objects.get().status == "Succeeded", what="the call")
    browser.refresh()
    assert one(browser, "#attempts .call-status").text == "Succeeded" and "127.0.0.1" in one(browser, "#attempts").text
    assert "POST" not in one(browser, "#attempts").text, "of a success it is folded"
    one(browser, "#attempts .sent summary").click()
    sent = one(browser, "#attempts .sent").text
    assert f"POST {api.url}/ok" in sent and "Authorization: ***" in sent
    request, = api.seen
    assert request["body"] == '{"order": 7}'
    assert request["headers"]["Authorization"] == "Bearer the-bearer-token" and "the-bearer-token" not in browser.page_source

    follow(browser, browser.find_element(By.LINK_TEXT, "billing"))
    ask(browser, "PAUSE", "Yes, pause it", reason="it moves")
    said = one(browser, "#paused").text
    assert "Paused by root since " in said and "it moves" in said and "So far no call was missed by that." in said
    browser.get(f"{stack.url}{LIST}?view=recent")
    assert ids(browser) == [call.id] and one(browser, "#result_list .field-called").text == "billing"
    follow(browser, browser.find_element(By.LINK_TEXT, "1 target, 1 paused"))
    follow(browser, browser.find_element(By.LINK_TEXT, "billing"))
    ask(browser, "RESUME", "Yes, resume it")
    assert not browser.find_elements(By.ID, "paused") and not Target.objects.get().paused_at


def test_somebody_is_told_that_a_target_fails(stack, api, browser, hook):
    """The channel is written on its page, and never shown there again."""
    stack.start("web", "worker", "beat", TARGET_NETWORKS="127.0.0.0/8")
    log_in(browser, stack.url)
    browser.get(stack.url + "/admin/scheduler/target/add/")
    for name, text in {"name": "billing", "url": api.url + "/status/500", "notify": hook.url}.items():
        one(browser, f"[name={name}]").send_keys(text)
    follow(browser, one(browser, "[name=_continue]"))
    assert "Empty leaves what is there: ***" in one(browser, ".field-notify").text and "t0k3n" not in browser.page_source
    ask(browser, "TEST", "Yes, call it now")
    until(lambda: hook.titles() == ["API Scheduler: billing begins to fail: 1 failed, 1 of them with an unknown outcome"]
          or hook.titles() == ["API Scheduler: billing begins to fail: 1 failed"], what="a notice")
    assert f"call {ScheduledCall.objects.get().id}, failed: HTTP status 500" in hook.last


def test_between_two_attempts_a_call_is_tried_now_and_cancelled(admin, browser, stack):
    target = Target.objects.create(name="billing", url="https://api.example.org/run", delays=[600])
    later = utcnow() + timedelta(minutes=9)
    call = make(-60, target=target, status="Retrying", attempts_made=1, next_attempt_at=later, error="HTTP status 503")
    Attempt.objects.create(call=call, number=1, started_at=utcnow(), ended_at=utcnow(), outcome="Failed", failure="refused",
                           http_status=503, error="HTTP status 503",
                           kept={"response": {"headers": [["Retry-After", "540"]], "body": "<b>not now</b>"}})
    admin()
    assert "1 to be tried again" in one(browser, "#calls-summary").text
    follow(browser, browser.find_element(By.LINK_TEXT, str(call.id)))
    attempts = one(browser, "#attempts")
    assert "it refused" in attempts.text and "The next attempt is made at" in attempts.text
    assert "Retry-After: 540" in attempts.text and "<b>not now</b>" in attempts.text
    ask(browser, "TRY NOW", "Yes, try now")
    assert f"Call {call.id} is tried now." in one(browser, ".messagelist").text
    assert ScheduledCall.objects.get().next_attempt_at < later - timedelta(minutes=8)
    ask(browser, "CANCEL THIS CALL", "Yes, cancel it")
    assert one(browser, ".field-how .call-status").text == "Cancelled" and "root" in one(browser, ".field-cancelled_by").text
    ask(browser, "SCHEDULE AGAIN, NOW", "Yes, call now")
    new = ScheduledCall.objects.get(again_of=call.id)
    assert one(browser, "#content h1").text == f"Call {new.id}" and new.target == target


def test_a_schedule_of_a_target_is_run_now_and_paused(admin, browser, stack):
    Target.objects.create(name="billing", url="https://api.example.org/run", method="POST", headers={"Content-Type": "text/plain"})
    browser.get(stack.url + "/admin/scheduler/schedule/add/")
    for name, text in {"name": "lunch", "times": "12:30:00", "body": "{{schedule.name}}"}.items():
        one(browser, f"[name={name}]").send_keys(text)
    Select(one(browser, "[name=target]")).select_by_visible_text("billing")
    follow(browser, one(browser, "[name=_continue]"))
    planned = ScheduledCall.objects.filter(status="Pending").count()
    assert Schedule.objects.get().body == "{{schedule.name}}" and planned
    ask(browser, "RUN NOW", "Yes, call now")
    assert ScheduledCall.objects.filter(occurrence=None).count() == 1
    browser.get(f"{stack.url}/admin/scheduler/schedule/{Schedule.objects.get().pk}/change/")
    ask(browser, "PAUSE", "Yes, pause it", reason="holidays")
    said = one(browser, "#paused").text
    assert "holidays" in said and f"That cancelled {planned} call" in said
    assert ScheduledCall.objects.filter(status="Cancelled").count() == planned


# The texts of a page that cannot be read well: below 4.5:1, or 3:1 where they are large (WCAG 2.2, 1.4.3).
FAINT = r"""
const parts = colour => { const found = colour.match(/[\d.]+/g).map(Number); return found.length > 3 ? found : [...found, 1]; };
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
function behind(element) {
    const layers = [];
    for (; element; element = element.parentElement)
        layers.push(parts(getComputedStyle(element).backgroundColor));
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
}
const luminance = colour => [.2126, .7152, .0722].reduce((sum, share, i) => {
    const part = colour[i] / 255;
    return sum + share * (part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
}, 0);
document.getAnimations().forEach(animation => animation.finish());      // from the other mode
const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || element.matches('script, style, option, title, desc') || !element.checkVisibility({visibilityProperty: true}))
        continue;
    const back = behind(element), text = over(parts(element.closest('svg') ? style.fill : style.color), back);
    const [dark, light] = [luminance(text), luminance(back)].sort((one, other) => one - other), size = parseFloat(style.fontSize);
    if ((light + .05) / (dark + .05) < (size >= 24 || size >= 18.66 && style.fontWeight >= 700 ? 3 : 4.5))
        found.add(walker.currentNode.data.trim().slice(0, 40));
}
return [...found];
"""


@pytest.mark.parametrize("width", [1400, 390])
def test_all_can_be_seen_and_read_in_both_modes(stack, chromium, width):
    """No page is wider than the screen, whatever stands on it without a blank; what is written into is within it, and no
    list on a desk has a column out of sight; a text can be told from what is behind it."""
    User.objects.create_user("u" * 150)
    target = Target.objects.create(name="n" * 64, url="https://api.example.org/" + "long/" * 30)
    paused = Target.objects.create(name="paused", url="https://api.example.org/", paused_at=utcnow(), paused_by="a" * 150, paused_reason="w" * 200)
    for status, more in {"Retrying": {"attempts_made": 1, "next_attempt_at": utcnow()}, "Failed": {}, "Cancelled": {"cancelled_by": "c" * 150}}.items():
        call = make(-60, 3, target=target, status=status, error="e" * 500, note="n" * 200, started_at=utcnow(), scheduled_by="b" * 150, **more)[0]
    retrying = ScheduledCall.objects.filter(status="Retrying").first()
    nightly = Schedule.objects.create(
        name="s" * 100, times="12:30:00", zone="America/Argentina/ComodRivadavia", target=target, paused_at=utcnow(), paused_reason="w" * 200)
    make(-60, 30, schedule=nightly, status="Failed")
    stack.start("web")
    browser = anew(chromium, width, 900)
    log_in(browser, stack.url)
    lists = ["scheduler/target/", "scheduler/schedule/", *(f"scheduler/scheduledcall/?view={view}" for view in ("upcoming", "trouble", "all")),
             "auth/user/"]
    for path in (*lists, "", "scheduler/target/add/", *(f"scheduler/target/{target.pk}/{page}/" for page in ("change", "pause", "test", "history")),
                 f"scheduler/target/{paused.pk}/change/", f"scheduler/target/{paused.pk}/resume/", "scheduler/scheduledcall/add/",
                 *(f"scheduler/scheduledcall/{call.pk}/{page}/" for page in ("change", "again", "history")),
                 f"scheduler/scheduledcall/{retrying.pk}/change/", f"scheduler/scheduledcall/{retrying.pk}/try/", "scheduler/schedule/add/",
                 *(f"scheduler/schedule/{nightly.pk}/{page}/" for page in ("change", "resume", "run", "delete")), "auth/group/add/", "nowhere/"):
        browser.get(f"{stack.url}/admin/{path}")
        until(lambda: browser.find_elements(By.CSS_SELECTOR, "#footer, .ways"))
        assert browser.execute_script("return document.documentElement.scrollWidth") == width, path
        assert not browser.execute_script(
            "return [...document.querySelectorAll('#content form input, #content form select, #content form textarea')]"
            ".filter(field => !field.closest('table') && field.getBoundingClientRect().right > innerWidth).map(field => field.name)"), path
        if path in lists and width == 1400:
            assert browser.execute_script("const list = document.querySelector('.results'); return list.scrollWidth - list.clientWidth") <= 0, path
        for mode in ("light", "dark"):
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": mode}]})
            assert not browser.execute_script(FAINT), (path, mode)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def brightness(colour):
    """0 to 255 of "rgb(r, g, b)" or "rgba(...)"."""
    red, green, blue = [float(part) for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
    return 0.299 * red + 0.587 * green + 0.114 * blue
