"""The pages in a real browser: live, hostile names, narrow screens, no script."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

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
        page.locator("#live", has_text="● live").wait_for()
        page.evaluate("window.sameDocument = true")
        report(tables, 0, util_pct=73)
        report(tables, 1, util_pct=12)
        page.wait_for_selector("text=73 %")
        page.wait_for_selector("text=12 %")
        assert page.evaluate("window.sameDocument") is True
        assert problems == []


def test_the_filter_works_while_it_is_typed(browser: Browser) -> None:
    """On the same document, with its address; nothing that matches is said, what is wrong too; Escape shows all again."""
    tables = fleet(3)
    with serving(tables, SystemClock()) as (host, port), browser_page(browser) as (page, problems):
        for number, util in enumerate((3, 50, 97)):
            report(tables, number, gpus=1, util_pct=util)
        page.goto(f"http://{host}:{port}/?view=rows")
        names = page.locator("#hosts .rowname")
        empty = page.locator("#empty")
        page.locator("#live", has_text="● live").wait_for()
        page.evaluate("window.sameDocument = true")
        page.keyboard.press("/")
        page.keyboard.type("gpu.util<5")
        names.nth(1).wait_for(state="detached")
        assert names.inner_text().endswith("gpu_00")
        assert "filter=gpu.util" in page.url
        assert not empty.is_visible()
        page.locator("#filter").fill("user==nobody")
        empty.wait_for()
        assert (empty.inner_text(), names.count()) == ("Nothing matches.", 0)
        page.locator("#filter").fill("gpu.utl<5")
        page.locator("#wrong", has_text="did you mean gpu.util").wait_for()
        page.keyboard.press("Escape")
        names.nth(2).wait_for()
        assert not empty.is_visible()
        assert "filter" not in page.url
        assert page.evaluate("window.sameDocument") is True
        assert problems == []
        page.goto(f"http://{host}:{port}/?filter=user%3D%3Dnobody")
        page.locator("#live", has_text="● live").wait_for()
        assert empty.is_visible()


def test_hostile_name_stays_text(browser: Browser) -> None:
    """A name full of markup, controls and bidi characters is shown as text, first by the server, then by the script."""
    tables = fleet(1)
    tables.register(host_id(7), HOSTILE, "10.9.9.9")
    with serving(tables, SystemClock()) as (host, port), browser_page(browser) as (page, problems):
        report(tables, 0)
        report(tables, 7, name=HOSTILE)
        page.goto(f"http://{host}:{port}/?view=cards")
        page.locator("#live", has_text="● live").wait_for()
        report(tables, 7, name=HOSTILE, util_pct=66)
        page.wait_for_selector("text=66 %")
        assert page.title() == "DiMint"
        assert page.locator("img").count() == 0
        assert "onerror" in page.locator("main").inner_text()
        assert problems == []


@pytest.mark.parametrize(
    "path", ["/?view=cards", "/?view=rows", "/?view=grid", "/?view=tiles", "/gpu_table", "/alerts", "/log", "/users"]
)
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
        page.wait_for_load_state()
        assert "at=20" in page.url
        assert "11 %" in page.locator("main").inner_text()
        page.keyboard.press("]")
        page.wait_for_url("**/hosts/gpu_00/?at=20*")
        page.wait_for_selector("text=22 %")
        assert page.locator("#live").inner_text() == "◷ past"
        page.keyboard.press("l")
        page.locator("#live", has_text="● live").wait_for()
        page.goto(f"http://{host}:{port}/hosts/gpu_00/?from=-3h&to=now")
        assert "bob came to GPU 0" in page.locator("#charts").inner_text()
        assert page.locator("#charts [data-chart]").count() == 5
        page.locator("#charts summary", has_text="in words").first.click()
        assert "median" in page.locator("#charts .words").first.inner_text()
        page.goto(f"http://{host}:{port}/changes?from=-65m")
        text = page.locator("main").inner_text()
        assert "bob: 0 → 1 GPU, now holds the most" in text
        assert "alice: 1 → 0 GPU" in text
        page.goto(f"http://{host}:{port}/?at=soon")
        assert "'soon' is not a time" in page.locator("main").inner_text()
        assert [problem for problem in problems if "400" not in problem] == []


def test_charts_have_a_cursor_and_zoom_by_dragging(browser: Browser) -> None:
    """Hovering tells values, keys move the cursor, dragging leads to the address of that range, and back out again."""
    tables = fleet(1)
    now = time.time_ns()
    for minute in range(60, 0, -1):
        content = busy_sample(0, 3, 2)
        content["gpu"][0]["util_pct"] = 100 - minute
        tables.put(host_id(0), now - minute * 60_000_000_000, content)
    tables.happened.append(HostEvent(host_id(0), 1, "gpu.xid", now - 30 * 60_000_000_000, now, {"xid": 79, "uuid": ""}))
    with serving(tables, SystemClock(), down_threshold=7200.0) as (host, port), browser_page(browser) as (page, problems):
        page.goto(f"http://{host}:{port}/hosts/gpu_00/")
        page.wait_for_selector("[data-chart=util][data-drawn] .u-over")
        assert page.locator("[data-chart=util] svg").count() == 0
        legend = page.locator("[data-chart=util] .u-legend").inner_text()
        assert "99 %" in legend, "without a cursor the newest values"
        box = page.locator("[data-chart=util] .u-over").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        page.locator("[data-chart=util] .u-legend", has_text="70 %").wait_for()
        assert page.locator(".lanebox .here").is_visible()
        page.locator("[data-chart=util]").focus()
        for _ in range(9):
            page.keyboard.press("ArrowRight")
        page.locator("[data-chart=util] .u-legend", has_text="73 %").wait_for()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20, steps=4)
        page.mouse.up()
        page.wait_for_url("**/hosts/gpu_00/?from=20*&to=20*")
        page.wait_for_selector("[data-chart=util][data-drawn] .u-over")
        assert page.locator("#live").inner_text() == "◷ past"
        zoomed = page.url
        page.locator("[data-chart=power]").focus()
        page.keyboard.press("-")
        page.wait_for_url(lambda url: url != zoomed and "from=" in url)
        page.goto(f"http://{host}:{port}/hosts/gpu_00/?last=6h")
        page.wait_for_selector("[data-chart=util][data-drawn] .u-over")
        assert page.locator("#live").inner_text() != "◷ past"
        assert page.locator(".ranges [aria-current]").inner_text() == "6 h"
        assert "alice" in page.locator(".whowashere").inner_text() or "bob" in page.locator(".whowashere").inner_text()
        assert problems == []


def test_host_page_at_360_pixels_and_without_a_script(browser: Browser) -> None:
    """Charts fit the narrow screen, with a script and without one, where they are pictures."""
    tables = fleet(1)
    with serving(tables, SystemClock()) as (host, port):
        report(tables, 0)
        for scripts in (True, False):
            with browser_page(browser, width=360, height=740, scripts=scripts) as (page, _):
                page.goto(f"http://{host}:{port}/hosts/gpu_00/")
                if scripts:
                    page.wait_for_selector("[data-chart=util][data-drawn] .u-over")
                else:
                    assert page.locator("[data-chart=util] svg").count() == 1
                    assert page.get_by_role("link", name="6 h").get_attribute("href") == "/hosts/gpu_00/?last=6h"
                assert page.locator("html").evaluate("element => element.scrollWidth") <= 360


def test_charts_without_a_zone_that_the_browser_knows(browser: Browser) -> None:
    """A server whose zone is a file without a name tells its offset; the clock under the cursor is the page's."""
    zone = timezone(timedelta(hours=5, minutes=45))
    tables = fleet(1)
    with serving(tables, SystemClock(), zone=zone) as (host, port), browser_page(browser) as (page, problems):
        report(tables, 0)
        page.goto(f"http://{host}:{port}/hosts/gpu_00/")
        page.wait_for_selector("[data-chart=util][data-drawn] .u-over")
        page.locator("[data-chart=util]").focus()
        page.keyboard.press("ArrowLeft")
        near = [datetime.now(zone) - timedelta(minutes=minutes) for minutes in (0, 1)]
        legend = page.locator("[data-chart=util] .u-legend")
        legend.filter(has_text="%").wait_for()
        assert any(f"{one:%H:%M}" in legend.inner_text() for one in near)
        assert problems == []
