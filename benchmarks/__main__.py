"""`make bench`: every benchmark in turn, or the ones named: `make bench ARGS="kv replay"`.

Each is a program of its own with more options: `python -m benchmarks.kv --help`.
"""

import subprocess
import sys
from typing import Final

PROGRAMS: Final = {
    "kv": "set, get, mset, mget beside Redis and etcd",
    "kafka": "the store on Kafka beside etcd, materialization from Kafka beside quixstreams",
    "replay": "rebuilding a node's store from the log",
    "events": "counting, streaming, exporting and rebuilding a log of ten million events",
    "consumer": "turning samples into status tables",
    "storage": "bytes a number of stored samples",
    "agent": "processor time and memory of the agent with eight GPUs",
    "fleet": "a whole system under a thousand simulated hosts: lag and memory over ten minutes",
    "pages": "server time of the pages for 1000 hosts",
}


def main() -> int:
    """Run them one after the other; the number that failed."""
    unknown = [name for name in sys.argv[1:] if name not in PROGRAMS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in sys.argv[1:] or PROGRAMS:
        print(f"\n=== {name}: {PROGRAMS[name]}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
