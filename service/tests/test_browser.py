"""The admin in a real browser: log in, see the list and the picture, cancel a call.

SCHEDULER_TEST_SCREENSHOTS may name a folder that is to get the pictures.
"""
import os
from pathlib import Path

import pytest
from conftest import PASSWORD, make, until
from django.contrib.auth.models import User
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from scheduler.clock import utcnow
from scheduler.models import ScheduledCall


@pytest.fixture
def browser(work):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--disable-dev-shm-usage", "--window-size=1300,900", f"--user-data-dir={work / 'profile'}"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    yield browser
    browser.quit()


def test_log_in_see_the_picture_and_cancel_a_call(stack, browser, log):
    User.objects.create_superuser("root", password=PASSWORD)
    make(-7200, 30, status="Succeeded", started_at=utcnow(), http_status=200)
    make(-7200, 5, status="Failed", started_at=utcnow(), http_status=503, error="HTTP status 503")
    make(-3600, 3, status="Missed"), make(-3600, 2, status="Cancelled"), make(1800, status="Running")
    pending = make(7200, 12)
    stack.start("web")

    browser.get(stack.url + "/admin/")
    browser.find_element(By.NAME, "username").send_keys("root")
    browser.find_element(By.NAME, "password").send_keys(PASSWORD)
    browser.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    until(lambda: browser.find_elements(By.LINK_TEXT, "Scheduled calls"))
    browser.find_element(By.LINK_TEXT, "Scheduled calls").click()

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

    browser.find_element(By.CSS_SELECTOR, "#calls-picture svg a").click()
    until(lambda: "timestamp__gte" in browser.current_url and "35 scheduled calls" in browser.page_source)


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
    until(lambda: "201" in browser.find_element(By.CSS_SELECTOR, ".opblock-post .live-responses-table").text)


def brightness(colour):
    """0 to 255 of "rgb(r, g, b)" or "rgba(...)"."""
    red, green, blue = [float(part) for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
    return 0.299 * red + 0.587 * green + 0.114 * blue
