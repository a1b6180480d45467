"""A real browser for the tests of the pages: the system's Chromium, driven through Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.foundation import LEFT_OUT

__all__ = ["CHROMIUM", "browser_page", "launched", "why_no_browser"]

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_MS: Final = 15_000
"""A busy machine with two cores needs some of it; nothing waits longer than it must."""


def why_no_browser() -> str | None:
    """The reason to skip a test that needs a browser; None where there is one."""
    if LEFT_OUT:
        return LEFT_OUT
    return None if CHROMIUM else "no Chromium here; on Debian: apt install chromium"


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser, headless. It can reach nothing but this machine: names do not resolve and proxies are off."""
    # as root, as in a container, Chromium's own sandbox does not start
    arguments = [
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--disable-background-networking",
    ]
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def browser_page(
    browser: Browser, *, width: int = 1400, height: int = 900, dark: bool = False, scripts: bool = True
) -> Iterator[tuple[Page, list[str]]]:
    """A new page, and a list in which everything appears that went wrong on it: errors of scripts, refused by the policy."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        java_script_enabled=scripts,
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    try:
        yield page, problems
    finally:
        context.close()
