"""The pages in a real browser: live, hostile names, narrow screens, no script."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.rows import HostEvent
from dimint.system_clock import SystemClock
from tests.support.browser import browser_page, launched, why_no_browser
from tests.support.fleet import MemoryTables, busy_sample, host_id
from tests.support.web import serving

pytestmark = pytest.mark.skipif(why_no_browser() is not None, reason=why_no_browser() or "")

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\x1b[2J\u202e" + "n" * 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this file; each has pages of its own."""
    with launched() as browser:
        yield browser


def fleet(count: int, gpus: int = 4) -> MemoryTables:
    """Hosts that have just reported, after the server's start."""
    tables = MemoryTables()
    for number in range(count):
        tables.register(host_id(number), f"gpu-{number:02d}", f"10.0.0.{number + 1}")
    return tables


def report(tables: MemoryTables, number: int, gpus: int = 4, **changes: object) -> None:
    content = busy_sample(number, 3, gpus)
    for name, value in changes.items():
        content["gpu"][0][name] = value
    tables.put(host_id(number), time.time_ns(), content)


def test_page_follows_new_samples_without_a_reload(browser: Browser) -> None:
    """A sample that arrives while the page is open shows, on the same document, and nothing goes wrong on the way."""
    tables = fleet(2)
    with serving(tables, SystemClock()) as (host, port), browser_page(browser) as (page, problems):
        report(tables, 0, util_pct=41)
        page.goto(f"http://{host}:{port}/?view=cards")
        page.wait_for_function("document.getElementById('live').textContent.includes('live')")
        page.evaluate("window.sameDocument = true")
        report(tables, 0, util_pct=73)
        report(tables, 1, util_pct=12)
        page.wait_for_selector("text=73 %")
        page.wait_for_selector("text=12 %")
        assert page.evaluate("window.sameDocument") is True
        assert problems == []


def test_hostile_name_stays_text(browser: Browser) -> None:
    """A name full of markup, controls and bidi characters is shown as text, first by the server, then by the script."""
    tables = fleet(1)
    tables.register(host_id(7), HOSTILE, "10.9.9.9")
    with serving(tables, SystemClock()) as (host, port), browser_page(browser) as (page, problems):
        report(tables, 0)
        report(tables, 7, name=HOSTILE)
        page.goto(f"http://{host}:{port}/?view=cards")
        page.wait_for_function("document.getElementById('live').textContent.includes('live')")
        report(tables, 7, name=HOSTILE, util_pct=66)
        page.wait_for_selector("text=66 %")
        assert page.title() == "DiMint"
        assert page.locator("img").count() == 0
        assert "onerror" in page.locator("main").inner_text()
        assert problems == []


@pytest.mark.parametrize("path", ["/?view=cards", "/?view=rows", "/?view=grid", "/?view=tiles", "/gpu_table", "/alerts", "/log"])
def test_narrow_screen_needs_no_sideways_scrolling(browser: Browser, path: str) -> None:
    """360 pixels are enough for every GPU, also beside a name of 60 letters."""
    tables = fleet(3)
    tables.register(host_id(7), HOSTILE, "10.9.9.9")
    now = time.time_ns()
    tables.opened.append(OpenAlert(host_id(7), HOSTILE, "", "critical", now, now, HOSTILE, told=True))
    tables.happened.append(HostEvent(host_id(7), 1, "driver.changed", now, now, {"now": HOSTILE}))
    with serving(tables, SystemClock()) as (host, port), browser_page(browser, width=360, height=740) as (page, _):
        for number in (0, 1, 2, 7):
            report(tables, number)
        page.goto(f"http://{host}:{port}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_pages_are_whole_without_a_script(browser: Browser) -> None:
    """A browser that runs no script shows every host with its numbers."""
    tables = fleet(2)
    with serving(tables, SystemClock()) as (host, port), browser_page(browser, scripts=False) as (page, _):
        report(tables, 0, util_pct=57)
        report(tables, 1, util_pct=58)
        for path in ("/?view=cards", "/gpu_table"):
            page.goto(f"http://{host}:{port}{path}")
            text = page.locator("main").inner_text()
            for words in ("gpu_00", "gpu_01", "57 %", "58 %"):
                assert words in text


def test_past_moments_and_what_changed(browser: Browser) -> None:
    """A moment shows what was, its link is absolute, keys step through time and back to the present, changes are told."""
    tables = fleet(2)
    now = time.time_ns()
    for minutes, util, user in ((120, 11, "alice"), (60, 22, "alice"), (10, 33, "bob")):
        content = busy_sample(0, 3, 1)
        content["gpu"][0]["util_pct"] = util
        content["proc"] = [{"g": 0, "pid": 7, "user": user, "mem": 5 << 30}]
        tables.put(host_id(0), now - minutes * 60_000_000_000, content)
    with serving(tables, SystemClock(), down_threshold=7200.0) as (host, port), browser_page(browser) as (page, problems):
        page.goto(f"http://{host}:{port}/hosts/gpu_00/?at=-65m")
        text = page.locator("main").inner_text()
        assert "11 %" in text
        assert "alice" in text
        page.get_by_role("link", name="link to this moment").click()
        assert "at=20" in page.url
        assert "11 %" in page.locator("main").inner_text()
        page.keyboard.press("]")
        page.wait_for_url("**/hosts/gpu_00/?at=20*")
        page.wait_for_selector("text=22 %")
        assert page.locator("#live").inner_text() == "◷ past"
        page.keyboard.press("l")
        page.wait_for_function("document.getElementById('live').textContent.includes('live')")
        page.goto(f"http://{host}:{port}/hosts/gpu_00/?from=-3h&to=now")
        assert "bob came to GPU 0" in page.locator("#charts").inner_text()
        assert page.locator("#charts figure").count() == 6
        page.locator("#charts summary", has_text="in words").first.click()
        assert "median" in page.locator("#charts .words").first.inner_text()
        page.goto(f"http://{host}:{port}/changes?from=-65m")
        text = page.locator("main").inner_text()
        assert "bob: 0 → 1 GPU, now holds the most" in text
        assert "alice: 1 → 0 GPU" in text
        page.goto(f"http://{host}:{port}/?at=soon")
        assert "'soon' is not a time" in page.locator("main").inner_text()
        assert [problem for problem in problems if "400" not in problem] == []
