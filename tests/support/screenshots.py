"""Pictures of the pages with simulated hosts, for eyes: `make screenshots` writes them to build/screenshots."""

import sys
import time
from pathlib import Path
from typing import Final

from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.rows import HostEvent
from dimint.system_clock import SystemClock
from tests.support.browser import browser_page, launched, why_no_browser
from tests.support.fleet import Fleet, host_id, simulated_fleet
from tests.support.web import serving

SIZES: Final = (1, 10, 100, 1000)
SCREENS: Final = ((1400, 900, False), (1400, 900, True), (360, 740, False))
PATHS: Final = {
    "hosts": "/", "gpus": "/gpu_table", "host": "/hosts/sim_001/", "past": "/?at=-30m", "changes": "/changes", "users": "/users",
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
            _happen(fleet, time.time_ns())
            with serving(fleet.tables, SystemClock()) as (host, port):
                for name, path in PATHS.items() if size <= 100 else [("hosts", "/")]:
                    for width, height, dark in SCREENS:
                        fleet.report(time.time_ns())  # or the hosts would be down before the last picture
                        with browser_page(browser, width=width, height=height, dark=dark) as (page, problems):
                            page.goto(f"http://{host}:{port}{path}")
                            page.wait_for_timeout(400)
                            file = folder / f"{size:04d}-{name}-{width}{'-dark' if dark else ''}.png"
                            page.screenshot(path=file, full_page=name in WHOLE and size <= 10)
                            print(file, *problems)
    return 0


def _happen(fleet: Fleet, now_ns: int) -> None:
    """What logs, lanes and alerts show: an XID, another driver, a lost GPU that is back, and an alert that is open."""
    minute = 60_000_000_000
    first, last = host_id(fleet.hosts[0].number), host_id(fleet.hosts[-1].number)
    uuid = fleet.hosts[0].facts()["gpus"][0]["u"]
    happened: tuple[tuple[str, str, int, dict[str, object]], ...] = (
        (first, "driver.changed", 50, {"before": "570.86.15", "now": "580.65.06"}),
        (last, "agent.started", 41, {"version": "0.1.0", "clean": False}),
        (first, "gpu.xid", 30, {"uuid": uuid, "xid": 79}),
        (first, "gpu.lost", 30, {"uuid": uuid, "state": "lost"}),
        (first, "gpu.back", 12, {"uuid": uuid}),
    )
    for number, (host, kind, ago, fields) in enumerate(happened):
        fleet.tables.happened.append(HostEvent(host, number, kind, now_ns - ago * minute, now_ns - ago * minute, fields))
    raised_ns = now_ns - 30 * minute
    text = f"`{fleet.hosts[0].name}`: GPU 0 reported XID 79"
    fleet.tables.opened.append(OpenAlert(first, "xid", uuid, "warning", raised_ns, raised_ns, text, told=True))


if __name__ == "__main__":
    sys.exit(main())
