"""Pictures of the pages with simulated hosts, for eyes: `make screenshots` writes them to build/screenshots."""

import sys
import time
from pathlib import Path
from typing import Final

from dimint.system_clock import SystemClock
from tests.support.browser import browser_page, launched, why_no_browser
from tests.support.fleet import simulated_fleet
from tests.support.web import serving

SIZES: Final = (1, 10, 100, 1000)
SCREENS: Final = ((1400, 900, False), (1400, 900, True), (360, 740, False))
PATHS: Final = {
    "hosts": "/", "gpus": "/gpu_table", "host": "/hosts/sim_002/", "past": "/?at=-30m", "changes": "/changes", "users": "/users",
    "alerts": "/alerts", "log": "/log",
}  # fmt: skip
WHOLE: Final = frozenset({"host", "hosts"})
"""Pages of which everything is seen, not only what a screen shows."""


def main() -> int:
    """A PNG for each number of hosts, page, width and colour scheme."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots")
    sizes = [int(word) for word in sys.argv[2:]] or SIZES
    if (reason := why_no_browser()) is not None:
        print(f"screenshots: {reason}", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with launched() as browser:
        for size in sizes:
            fleet = simulated_fleet(size, time.time_ns(), minutes=60)
            with serving(fleet.tables, SystemClock()) as (host, port):
                fleet.report(time.time_ns())
                for name, path in PATHS.items() if size <= 100 else [("hosts", "/")]:
                    for width, height, dark in SCREENS:
                        with browser_page(browser, width=width, height=height, dark=dark) as (page, problems):
                            page.goto(f"http://{host}:{port}{path}")
                            page.wait_for_timeout(400)
                            file = folder / f"{size:04d}-{name}-{width}{'-dark' if dark else ''}.png"
                            page.screenshot(path=file, full_page=name in WHOLE and size <= 10)
                            print(file, *problems)
    return 0


if __name__ == "__main__":
    sys.exit(main())
