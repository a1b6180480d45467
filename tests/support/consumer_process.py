"""A status consumer as a process of its own: `python -m tests.support.consumer_process DATA_DIR`."""

import sys
from pathlib import Path

from dimint.consumers.cli import run
from dimint.service import Service
from dimint.settings import ConsumerSettings, build, settings_of

__all__ = ["settings_for"]


def settings_for(data_dir: Path) -> ConsumerSettings:
    """The settings of a consumer whose log is in the same directory."""
    defaults = {row.name: row.default for row in settings_of("consumer")}
    return build(ConsumerSettings, defaults | {"data_dir": data_dir, "log": str(data_dir)}, ())


def main() -> int:
    settings = settings_for(Path(sys.argv[1]))
    return Service("consumer").main(lambda service: run(settings, service))


if __name__ == "__main__":
    raise SystemExit(main())
