"""A real browser, headless Chromium, for pages that a test looks at (the fixture `chromium`)."""

import json
import shutil
from urllib.parse import urlsplit

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WAIT = 300
"""seconds at most until a condition of the page holds"""
in_a_browser = pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="chromium or chromedriver is not installed")


def opened():
    """A browser that writes down what goes wrong and what is asked for; closed at the end."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # scrolling that takes its time would have clicks miss
    quiet = ("--disable-gpu", "--disable-dev-shm-usage", "--force-prefers-reduced-motion", "--window-size=1280,1000")
    for argument in ("--headless=new", "--no-sandbox", *quiet):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def resized(driver, width):
    """Give the page a window of a width, a telephone's below 600."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def until(driver, script, *arguments):
    """Wait until a script gives something true, and return that."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(driver, WAIT, poll_frequency=0.05).until(
        lambda driver: driver.execute_script(f"return {script}", *arguments)
    )


def requested(driver):
    """The schemes of all that was asked for since the last look."""
    sent = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    addresses = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    return [urlsplit(address).scheme for address in addresses]
