"""What the agent takes from its host: processor time and memory of all its processes, with eight GPUs at 2 s.

    .venv/bin/python benchmarks/agent.py [seconds]

The driver is the tests' fake library, which reads a script file at every call: real calls wait in the kernel longer and
compute less. It is bound to stay under 1 % of one core and 70 MB. A sample every 2 s means a process list every 4 s and
counters every 30 s, so less than 30 s say little.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dimint.batch import decode
from dimint.events import STATUS_TOPIC
from dimint.log.opening import open_log
from dimint.system_clock import SystemClock
from tests.support.footprint import cpu_s, family, pss_kib
from tests.support.nvml import FakeDriver, build_library

GPUS = 8
INTERVAL_S = 2
CPU_MAX_SHARE = 0.01
PSS_MAX_MB = 70
WARM_UP_S = 6.0


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        driver = FakeDriver(build_library(folder), folder / "script")
        driver.tell(f"count {GPUS}", *(f"proc {gpu} Compute {os.getpid()} 1048576" for gpu in range(GPUS)))
        environment = {name: value for name, value in driver.environment.items() if not name.startswith("DIMINT_")}
        command = [sys.executable, "-m", "dimint", "agent", "run", f"--data_dir={folder / 'home'}", f"--interval={INTERVAL_S}"]
        agent = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(WARM_UP_S)
            pids = family(agent.pid)
            before, started = {pid: cpu_s(pid) for pid in pids}, time.monotonic()
            time.sleep(seconds)
            passed = time.monotonic() - started
            used = {pid: cpu_s(pid) - before[pid] for pid in pids}
            memory = {pid: pss_kib(pid) / 1024 for pid in pids}
        finally:
            agent.terminate()
            agent.wait(10)
        count, packed = _published(folder / "home")
    share, total_mb = sum(used.values()) / passed, sum(memory.values())
    print(f"{GPUS} GPUs, a sample every {INTERVAL_S} s, {passed:.0f} s")
    for pid, name in zip(pids, ("agent", "driver's process"), strict=False):
        print(f"  {name:18} {used[pid] / passed:7.2%} of a core   {memory[pid]:5.1f} MB PSS")
    print(f"  {'all':18} {share:7.2%} of a core   {total_mb:5.1f} MB PSS   ({len(pids)} processes)")
    print(f"  {used_ms(share):.1f} ms of processor time a sample; {count} samples in the log, {packed} bytes a sample, packed")
    missed = share >= CPU_MAX_SHARE or total_mb >= PSS_MAX_MB
    print(f"{'MISSED' if missed else 'held'}: under {CPU_MAX_SHARE:.0%} of a core and {PSS_MAX_MB} MB")
    return int(missed)


def used_ms(share: float) -> float:
    """Processor time of one sample."""
    return share * INTERVAL_S * 1000


def _published(home: Path) -> tuple[int, int]:
    """Samples in the log, and what a record of one takes."""
    log = open_log(home, clock=SystemClock())
    sizes = []
    try:
        for partition in range(log.describe().topics[STATUS_TOPIC]):
            for record in log.read(STATUS_TOPIC, partition, 0, max_records=100_000, max_bytes=1 << 30):
                if [event[0] for event in decode(record.value).events] == ["host.sample"]:
                    sizes.append(len(record.value))
    finally:
        log.close()
    return len(sizes), sum(sizes) // max(1, len(sizes))


if __name__ == "__main__":
    sys.exit(main())
