"""The web pages as a person sees them, in headless Chromium. The screenshots are kept in artifacts/."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.stack.dicom import PATIENT
from tests.stack.like_dev import Dev

SECONDS = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium or Chrome, with a profile of its own, that speaks to nobody but the pages it is shown."""
    paths = {"chromium": shutil.which("chromium") or shutil.which("google-chrome"), "chromium-driver": shutil.which("chromedriver")}
    if missing := [package for package, path in paths.items() if path is None]:
        pytest.skip(f"the tests of web pages need a browser: apt-get install -y {' '.join(missing)}")
    options = Options()
    options.binary_location = str(paths["chromium"])
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-component-update", "disable-sync", "no-proxy-server", "window-size=1400,1000"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    # Its own searches for updates and time go nowhere: loopback is all that it may resolve.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost")
    driver = webdriver.Chrome(options=options, service=Service(executable_path=str(paths["chromium-driver"])))
    try:
        driver.set_page_load_timeout(SECONDS)
        yield driver
    finally:
        driver.quit()


def until(browser: webdriver.Chrome, what: str, does: Callable[[webdriver.Chrome], bool]) -> None:
    """Wait; a page that is replaced while it is read is read again."""
    WebDriverWait(browser, SECONDS, ignored_exceptions=(StaleElementReferenceException, NoSuchElementException)).until(does, what)


def wait_for(browser: webdriver.Chrome, text: str) -> None:
    """Wait until the page shows a text."""
    until(browser, f"the page shows {text!r}", lambda page: text in page.find_element(By.TAG_NAME, "body").text)


def follow(browser: webdriver.Chrome, text: str) -> None:
    """Click on a link as soon as there is one."""

    def click(page: webdriver.Chrome) -> bool:
        page.find_element(By.LINK_TEXT, text).click()
        return True

    until(browser, f"there is a link {text!r}", click)


@pytest.mark.usefixtures("forwarded")
def test_adminer_logs_in_to_the_index_and_shows_orthancs_tables(dev: Dev, browser: webdriver.Chrome, artifacts: Path) -> None:
    browser.get(dev.stack.outputs()["adminerUrl"])
    assert browser.find_element(By.NAME, "auth[server]").get_attribute("value") == "db"
    Select(browser.find_element(By.NAME, "auth[driver]")).select_by_visible_text("PostgreSQL")
    login = {"username": "orthanc_server", "password": dev.stack.secrets["dbPassword.server"], "db": "orthanc_server"}
    for field, value in login.items():
        browser.find_element(By.NAME, f"auth[{field}]").send_keys(value)
    browser.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
    for table in ("resources", "maindicomtags", "dicomidentifiers", "attachedfiles"):
        wait_for(browser, table)
    browser.save_screenshot(str(artifacts / "adminer-tables.png"))
    follow(browser, "maindicomtags")
    follow(browser, "Select data")
    wait_for(browser, "tagelement")
    browser.save_screenshot(str(artifacts / "adminer-maindicomtags.png"))


def test_adminer_refuses_a_wrong_password(dev: Dev, browser: webdriver.Chrome) -> None:
    browser.delete_all_cookies()
    browser.get(dev.stack.outputs()["adminerUrl"])
    Select(browser.find_element(By.NAME, "auth[driver]")).select_by_visible_text("PostgreSQL")
    browser.find_element(By.NAME, "auth[username]").send_keys("orthanc_server")
    browser.find_element(By.NAME, "auth[password]").send_keys("not-the-password")
    browser.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
    wait_for(browser, "password authentication failed")


@pytest.mark.parametrize("name", ["client", "server"])
@pytest.mark.usefixtures("forwarded")
def test_orthancs_page_shows_the_study(dev: Dev, browser: webdriver.Chrome, artifacts: Path, name: str) -> None:
    node = dev.stack.node(name)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": node.authorization}})
    patient = next(p["ID"] for p in node.get("/patients?expand") if p["MainDicomTags"].get("PatientName") == PATIENT)
    browser.get(f"{node.url}/app/explorer.html#patient?uuid={patient}")
    wait_for(browser, PATIENT)
    wait_for(browser, "Phantom")
    browser.save_screenshot(str(artifacts / f"orthanc-{name}.png"))
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
