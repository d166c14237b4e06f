"""The report in a browser without a network: a click changes what is shown, nothing goes wrong, it fits its window."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser_for_tests import browser, complaints
from test_report import collected, written


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    results = collected(folder, percentile=[99.0, 99.9])
    written(results, folder)
    return (folder / "report.html").as_uri()


def until(found: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.1)


def test_explorer_answers_to_the_mouse(address: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    with browser(1400, downloads=tmp_path) as page:
        page.get(address)

        def drawn() -> str:
            return str(page.execute_script("return document.getElementById('explorer').dataset.drawn"))

        def rows() -> list[list[str]]:
            lines = page.find_elements(By.CSS_SELECTOR, "#explorer tbody tr")
            return [[cell.text for cell in line.find_elements(By.TAG_NAME, "td")] for line in lines]

        def click(selector: str) -> None:
            found = page.find_element(By.CSS_SELECTOR, selector)
            page.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
            found.click()

        until(lambda: drawn() == "16", "the chart")  # two kinds, two percentiles, four steps
        assert len(page.find_elements(By.CSS_SELECTOR, "#explorer-chart svg")) == 1
        assert len(rows()) == 4
        spikes = [float(row[6].replace(",", "")) for row in rows()]
        assert spikes == sorted(spikes)

        click("#explorer th[data-column=spikes] button")
        assert [float(row[6].replace(",", "")) for row in rows()] == spikes[::-1]

        click("#explorer input[value='percentile 99']")
        until(lambda: drawn() == "8", "the chart of one percentile")
        assert {row[1] for row in rows()} == {"percentile 99.9"}

        click("#explorer input[value=spikes]")
        until(lambda: "spikes per image" in page.find_element(By.ID, "explorer-chart").text, "the other axis")

        before = {row[2] for row in rows()}
        page.execute_script(
            "const slider = document.querySelector('input[name=time]'); slider.value = 0;"
            "slider.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        assert {row[2] for row in rows()} == {"1"} != before

        page.execute_script("document.documentElement.dataset.theme = 'light'")
        paper = "return getComputedStyle(document.body).backgroundColor"
        light = page.execute_script(paper)
        click("#theme")
        assert page.execute_script(paper) != light

        click("#explorer-download")
        until(lambda: list(tmp_path.glob("*.csv")), "the download")
        [head, *lines] = next(tmp_path.glob("*.csv")).read_text().splitlines()
        assert head == "weights,series,T,accuracy,low,high,ann,spikes,energy"
        assert len(lines) == 8
        assert complaints(page) == []


def test_no_page_is_wider_than_its_window(address: str) -> None:
    with browser(1400) as page:
        page.get(address)
        for width in (1400, 800, 400):
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            # the chart is drawn anew after the window has changed
            until(
                lambda width=width: page.execute_script("return document.documentElement.scrollWidth") == width,
                f"a page of {width} pixels",
            )
        assert complaints(page) == []


def test_everything_is_there_without_scripts(address: str) -> None:
    from selenium.webdriver.common.by import By

    with browser(1400) as page:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        page.get(address)
        assert page.find_element(By.CSS_SELECTOR, "#explorer-chart img").is_displayed()
        assert not page.find_element(By.CSS_SELECTOR, ".controls").is_displayed()
        assert page.find_element(By.CSS_SELECTOR, "#explorer .no-scripts").is_displayed()
        assert page.find_element(By.CSS_SELECTOR, "#glance table").is_displayed()
