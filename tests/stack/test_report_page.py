"""The report as a reviewer sees it, in headless Chromium, in light and in dark; UPDATE_EXAMPLES=1 keeps a picture of each in docs/."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from ops.preview.page import markdown
from tests.stack.dev.test_web import browser
from tests.stack.page import MERMAID, page
from tests.unit.reports import report_of
from tests.unit.test_report_escape import HOSTILE, hostile_report

__all__ = ["browser"]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "examples"
#: The screenshots may not weigh more than this.
MOST_BYTES = 150_000
SECONDS = 30


def show(browser: webdriver.Chrome, folder: Path, written: str, *, dark: bool) -> None:
    """Load the page of a report, and wait until its pictures are drawn."""
    file = folder / f"report-{'dark' if dark else 'light'}.html"
    file.write_text(page(written, dark=dark), encoding="utf-8")
    media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.set_window_size(940, 1150)
    browser.get(file.as_uri())
    if MERMAID:
        WebDriverWait(browser, SECONDS).until(lambda shown: shown.find_elements(By.CSS_SELECTOR, "pre.mermaid svg"))


def luminance(color: str) -> float:
    """The relative luminance of a CSS colour (WCAG 2.2)."""
    parts = [int(part) / 255 for part in color.removeprefix("rgba(").removeprefix("rgb(").rstrip(")").split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_matters_is_on_the_first_screen(browser: webdriver.Chrome, tmp_path: Path, artifacts: Path, dark: bool) -> None:
    """Verdict, data at risk, and who goes down, without scrolling; no table is wider than the page."""
    show(browser, tmp_path, markdown(report_of("node-removed"))[0], dark=dark)
    titles = {title.text: title.location["y"] for title in browser.find_elements(By.CSS_SELECTOR, "h2, h3")}
    assert next(iter(titles)).startswith("🔴 dev: Deleted for good: the images of client")
    assert titles["Data at risk"] < titles["Downtime"] < titles["Changes"] < 900
    widths = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
    text, back = (browser.find_element(By.TAG_NAME, "body").value_of_css_property(name) for name in ("color", "background-color"))
    lighter, darker = sorted((luminance(text), luminance(back)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) > 7
    assert (luminance(back) < 0.1) is dark
    name = f"report-{'dark' if dark else 'light'}.png"
    browser.save_screenshot(str(artifacts / name))
    if os.environ.get("UPDATE_EXAMPLES") == "1":
        browser.save_screenshot(str(DOCS / name))
    assert (DOCS / name).stat().st_size <= MOST_BYTES


@pytest.mark.skipif(not MERMAID, reason="MERMAID_JS names no file of Mermaid's: pictures are not drawn here")
@pytest.mark.parametrize("name", ["aet-changed", "node-added", "node-removed", "node-renamed", "image-changed", "prod-node-removed"])
def test_mermaid_draws_the_picture(browser: webdriver.Chrome, tmp_path: Path, name: str) -> None:
    show(browser, tmp_path, markdown(report_of(name))[0], dark=False)
    drawn = browser.find_element(By.CSS_SELECTOR, "pre.mermaid svg").text
    assert "Syntax error" not in drawn
    assert "ORTHANC_CLIENT" in drawn


def test_hostile_names_do_nothing_in_a_browser(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """A report for each, on one page."""
    names = [text for text in HOSTILE if len(text) < 1000]
    show(browser, tmp_path, "\n\n".join(hostile_report(f"x{text}x") for text in names), dark=False)
    titles = [title.text for title in browser.find_elements(By.CSS_SELECTOR, "h3")]
    assert titles.count("Data at risk") == len(names)
    assert "forged" not in "".join(titles)
    assert browser.find_elements(By.CSS_SELECTOR, "img, iframe, a[href]") == []
    assert len(browser.find_elements(By.CSS_SELECTOR, "script")) == (2 if MERMAID else 0)
    if MERMAID:
        drawn = WebDriverWait(browser, SECONDS).until(lambda shown: _all_drawn(shown, len(names)))
        assert not any("Syntax error" in picture.text for picture in drawn)


def _all_drawn(browser: webdriver.Chrome, count: int) -> list[WebElement]:
    drawn = browser.find_elements(By.CSS_SELECTOR, "pre.mermaid svg")
    return drawn if len(drawn) == count else []
