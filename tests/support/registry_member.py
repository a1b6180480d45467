"""A real process that takes part in an embedded registry until it is killed: DIRECTORY join|lead NAME."""

import sys
import time
from pathlib import Path

from dimint.registry.embedded import EmbeddedRegistry


def main() -> None:
    registry = EmbeddedRegistry(Path(sys.argv[1]))
    if sys.argv[2] == "join":
        registry.join("node", sys.argv[3], {"who": "child"})
    else:
        candidacy = registry.elect(sys.argv[3], "child")
        while candidacy.fence() is None:
            time.sleep(0.01)
    print("here", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()
