"""Pages that keep themselves up to date, and are used by keyboard alone: in a real browser."""
from datetime import timedelta

import pytest
from conftest import log_in, make, until
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from scheduler.base.clock import utcnow
from scheduler.calls import dispatch
from scheduler.models import Attempt, ScheduledCall, Target

LIST = "/admin/scheduler/scheduledcall/"


@pytest.fixture
def admin(stack, browser):
    """Somebody who may do everything is logged in: opens a page, and returns the browser, which knows what it has asked
    for since."""
    stack.start("web")
    log_in(browser, stack.url)

    def go(path=LIST):
        browser.get(stack.url + path)
        browser.execute_script("window.samePage = true")
        return browser
    return go


def ids(browser):
    return browser.execute_script("return [...document.getElementsByName('_selected_action')].map(box => +box.value)")


def fragments(browser):
    """How often the page has asked for itself."""
    return browser.execute_script(
        "return performance.getEntriesByType('resource').filter(entry => entry.name === location.href).length")


def now(browser):
    """As when somebody comes back to the tab: it is not waited for five seconds."""
    browser.execute_script("document.dispatchEvent(new Event('visibilitychange'))")


def test_a_list_shows_what_is_new_by_itself(admin):
    first = make(600)
    browser = admin()
    assert ids(browser) == [first.id]
    second = make(1200)
    until(lambda: ids(browser) == [first.id, second.id], 15, "nobody has asked for it")
    assert "2 Pending" in browser.find_element(By.CSS_SELECTOR, "#calls-picture desc").get_attribute("textContent")
    assert "2 calls" in browser.find_element(By.CLASS_NAME, "paginator").text
    third = make(1800)
    now(browser)
    until(lambda: ids(browser) == [first.id, second.id, third.id])
    browser.find_elements(By.NAME, "_selected_action")[2].click()
    assert browser.find_element(By.CLASS_NAME, "action-counter").text == "1 of 3 selected", "a row that came later counts"
    browser.find_element(By.ID, "action-toggle").click()
    assert browser.find_element(By.CLASS_NAME, "action-counter").text == "3 of 3 selected"
    assert browser.execute_script("return window.samePage"), "without a reload"


BUSY = {
    "a row is selected": "document.getElementsByName('_selected_action')[0].click()",
    "an action is chosen": "document.querySelector('[name=action]').selectedIndex = 1",
    "somebody types": "document.getElementById('searchbar').focus()",
    "something is typed": "document.getElementById('searchbar').value = '7'",
    "text is selected": "document.getSelection().selectAllChildren(document.querySelector('#result_list tbody tr'))",
    "a bar has the focus": "document.querySelector('#calls-picture svg a').focus()",
    "nobody sees it": "Object.defineProperty(document, 'hidden', {value: true, configurable: true})",
}


def test_nothing_changes_under_ones_hands(admin):
    make(600)
    for what, script in BUSY.items():
        browser = admin()
        browser.execute_script("const send = fetch; window.asked = 0;"
                               "window.fetch = (url, how) => { asked += url === location.href; return send(url, how); }")
        browser.execute_script(script)
        now(browser)
        assert browser.execute_script("return asked") == 0, what
    browser.execute_script("delete document.hidden")
    now(browser)
    assert browser.execute_script("return asked") == 1, "and then it goes on"


def test_the_page_of_a_call_follows_it_unless_somebody_types_there(admin):
    call = make(600)
    browser = admin(f"{LIST}{call.id}/change/")
    until(lambda: fragments(browser) == 1)
    browser.find_element(By.NAME, "timestamp_1").send_keys("0")
    ScheduledCall.objects.update(status="Running")
    now(browser)
    assert browser.find_element(By.NAME, "timestamp_1").get_attribute("value").endswith("0")
    browser = admin(f"{LIST}{call.id}/change/")
    until(lambda: fragments(browser) == 1)
    ScheduledCall.objects.update(status="Failed", error="no answer within 30 s")
    now(browser)
    until(lambda: "no answer within 30 s" in browser.find_element(By.ID, "content-main").text)


def test_what_was_written_and_came_back_stays(admin):
    """A form with an error, or with the preview of what was pasted, is the answer to a POST: it is not asked for again."""
    target = Target.objects.create(name="billing", url="https://api.example.org")
    call = make(600)
    for path, field, text, says in ((f"{LIST}{call.id}/change/", "timestamp_1", "soon", ".errornote"),
                                    (f"{LIST}add/", "times", "2099-11-28 14:00\tthe delivery", "#pasted")):
        browser = admin(path)
        browser.execute_script("document.getElementsByName(arguments[0])[0].value = arguments[1]", field, text)
        browser.find_element(By.NAME, "_save").click()
        until(lambda: browser.find_elements(By.CSS_SELECTOR, says), what=says)
        ScheduledCall.objects.update(status="Running")
        Target.objects.update(name=f"{target.name}-2")
        now(browser)
        until(lambda: browser.execute_script(       # which the same script asks for
            "return performance.getEntriesByType('resource').some(entry => entry.name.endsWith('/healthz'))"), what="its icon")
        browser.execute_async_script("fetch('/healthz').then(arguments[0], arguments[0])")
        assert fragments(browser) == 0, path
        assert browser.find_element(By.NAME, field).get_attribute("value") == text and browser.find_elements(By.CSS_SELECTOR, says)


def test_what_one_has_opened_on_the_page_of_a_call_stays_open(admin):
    call = make(-60, status="Retrying", target=Target.objects.create(name="billing", url="https://api.example.org", delays=[60]),
                started_at=utcnow(), attempts_made=1, next_attempt_at=utcnow() + timedelta(hours=1), failure="nothing", error="refused")
    kept = {"request": {"method": "GET", "url": "https://api.example.org", "headers": [], "body": None}}
    Attempt.objects.create(call=call, number=1, ended_at=utcnow(), outcome="Failed", failure="nothing", error="refused", kept=kept)
    browser = admin(f"{LIST}{call.id}/change/")
    until(lambda: fragments(browser) == 1)
    summary = browser.find_elements(By.CSS_SELECTOR, "#attempts summary")[0]
    summary.click()
    opened = browser.execute_script("return document.querySelector('#attempts details').open")
    ScheduledCall.objects.update(status="Cancelled", cancelled_by="ben")
    now(browser)
    until(lambda: "ben" in browser.find_element(By.ID, "content-main").text)
    assert browser.execute_script("return document.querySelector('#attempts details').open") == opened
    assert browser.execute_script("return window.samePage"), "without a reload"


def test_the_picture_is_one_stop_of_the_tab_key_and_can_be_skipped(admin):
    for hours in range(-5, 6):
        make(3600 * hours)
    browser = admin()

    def focus():
        return browser.execute_script("const it = document.activeElement; return it.closest('svg') ? 'bar' : it.className || it.id")
    stops = []
    browser.execute_script("document.querySelector('#calls-summary').tabIndex = -1; document.querySelector('#calls-summary').focus()")
    while focus() != "searchbar":
        ActionChains(browser).send_keys(Keys.TAB).perform()
        stops.append(focus())
        assert len(stops) < 40
    assert stops.count("bar") == 1 and stops.index("skip") == stops.index("bar") - 1
    browser.execute_script("document.querySelector('#calls-picture svg a[tabindex=\"0\"]').focus()")

    def bar():
        return browser.execute_script("return document.activeElement.getAttribute('aria-label')")
    names = [bar()]
    for key in (Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.HOME, Keys.ARROW_LEFT, Keys.END):
        ActionChains(browser).send_keys(key).perform()
        names.append(bar())
    bars = browser.execute_script("return [...document.querySelectorAll('#calls-picture svg a')].map(bar => bar.getAttribute('aria-label'))")
    at = bars.index(names[0])
    assert names == [bars[at], bars[at - 1], bars[at], bars[0], bars[0], bars[-1]]
    assert browser.execute_script("return document.querySelectorAll('#calls-picture svg a[tabindex=\"0\"]').length") == 1
    browser.find_element(By.CLASS_NAME, "skip").send_keys(Keys.ENTER)
    ActionChains(browser).send_keys(Keys.TAB).perform()
    assert browser.execute_script("return document.querySelector('#changelist').contains(document.activeElement)")


def test_the_icon_says_whether_the_service_is_well(admin):
    def icon():
        return browser.find_element(By.ID, "icon").get_attribute("href").rsplit("/", 1)[1].split(".")[0]
    browser = admin()
    until(lambda: icon() == "icon-ill", what="no dispatcher has ever run")
    dispatch.beat()
    browser = admin()
    until(lambda: icon() == "icon")
