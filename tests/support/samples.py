"""Realistic samples of a GPU host, and the batches and logs that carry them, for tests and benchmarks.

`Machine` is a host whose numbers move as real ones do: every core's load is noise, GPUs are busy or idle for minutes,
power and use jitter, temperatures drift by a degree, memory moves in steps, counters grow, processes come and go.
"""

import random
from collections.abc import Iterator
from typing import Any

__all__ = ["START_NS", "Machine", "host_id", "registered", "sample_event"]

START_NS = 1_700_000_000_000_000_000
_GIB = 1 << 30
_HOST_FIELDS = ("agent", "os", "kernel", "cpu_model")


class Machine:
    """One host; the same seed gives the same samples."""

    def __init__(self, seed: int = 0, *, gpus: int = 8, cores: int = 64, interval_s: float = 5.0) -> None:
        self.random = random.Random(seed)
        self.id = host_id(seed)
        self.run = self.random.randbytes(8)
        self.interval_ns = int(interval_s * 1e9)
        self.time_ns = START_NS + self.random.randrange(self.interval_ns)
        self.seq = 0
        self._cores = cores
        self._boot = self.random.randbytes(16).hex()
        self._used = 40 * _GIB
        self._counters = [self.random.randrange(1 << 40) for _ in range(4)]
        self._gpus = [_Gpu(self.random, index) for index in range(gpus)]

    @property
    def facts(self) -> dict[str, Any]:
        """What the host registers with."""
        return dict.fromkeys(_HOST_FIELDS, "x") | {
            "cores": self._cores,
            "ram": 512 * _GIB,
            "simulated": True,
            "gpus": [{"i": gpu.index, "u": gpu.uuid, "name": gpu.name, "mem_tot": gpu.total} for gpu in self._gpus],
        }

    def step(self) -> dict[str, Any]:
        """The next sample; `time_ns` and `seq` are of it afterwards."""
        noise = self.random
        self.time_ns += self.interval_ns + int(noise.gauss(0, 2e6))
        self.seq += 1
        cores = [min(100, max(0, int(noise.gauss(50, 25)))) for _ in range(self._cores)]
        self._used += int(noise.gauss(0, 64 << 20))
        for at, rate in enumerate((40e6, 30e6, 2e6, 1e6)):
            self._counters[at] += max(0, int(noise.gauss(rate, rate / 4) * self.interval_ns / 1e9))
        load = sum(cores) / 100
        sample: dict[str, Any] = {
            "mono_ns": self.time_ns - START_NS + noise.randrange(50_000),
            "boot": self._boot,
            "int_ms": self.interval_ns // 1_000_000,
            "dur_us": int(noise.gauss(9000, 600)),
            "gpu_state": "ok" if self._gpus else "no_gpu",
            "cpu": {
                "n": self._cores,
                "tot_pm": sum(cores) * 10 // max(1, len(cores)),
                "util_pct": cores,
                "load": [round(load + noise.gauss(0, 1), 2), round(load, 2), round(load / 2, 2)],
                "iowait_pm": abs(int(noise.gauss(0, 3))),
            },
            "mem": {"tot": 512 * _GIB, "used": self._used, "avail": 500 * _GIB - self._used, "swap_tot": 0, "swap_used": 0},
            "net": [
                {"if": "eth0", "rx": self._counters[0], "tx": self._counters[1]},
                {"if": "eth1", "rx": self._counters[2], "tx": self._counters[3]},
            ],
            "temp_mC": {"Package id 0": 52_000 + 1000 * noise.randint(-1, 1)},
            "gpu": [gpu.step() for gpu in self._gpus],
            "proc": [gpu.process() for gpu in self._gpus if gpu.busy],
        }
        if self.seq % 6 == 1:
            sample["disk"] = [{"mnt": "/", "tot": 1 << 40, "used": (1 << 39) + self.seq * 4096}]
        return sample

    def events(self, count: int) -> Iterator[tuple[int, list[Any]]]:
        """(time, `host.sample` event) of the next `count` samples; dt_ns is 0, so the time is the batch's."""
        for _ in range(count):
            sample = self.step()
            yield self.time_ns, sample_event(self.id, self.run, self.seq, sample)


class _Gpu:
    name = "NVIDIA H100 80GB HBM3"
    total = 80 * _GIB

    def __init__(self, noise: random.Random, index: int) -> None:
        self.random, self.index = noise, index
        self.uuid = f"GPU-{noise.randbytes(16).hex()}"
        self.busy = index % 2 == 0
        self.used = 20 * _GIB
        self.heat = 55
        self.energy = noise.randrange(1 << 36)
        self.pid = 1000 + noise.randrange(60_000)

    def step(self) -> dict[str, Any]:
        noise = self.random
        if noise.random() < 0.003:
            self.busy = not self.busy
            self.pid = 1000 + noise.randrange(60_000)
        if self.busy and noise.random() < 0.05:
            self.used = min(self.total, max(_GIB, self.used + noise.choice((-2, -1, 1, 2)) * 512 * (1 << 20)))
        self.heat += noise.choice((-1, 0, 0, 0, 0, 1))
        power = int(noise.gauss(520_000, 25_000)) if self.busy else int(noise.gauss(75_000, 2_000))
        self.energy += power * 5
        return {
            "i": self.index, "u": self.uuid, "name": self.name, "st": "ok",
            "util_pct": min(100, max(0, int(noise.gauss(85, 6)))) if self.busy else 0,
            "mutil_pct": min(100, max(0, int(noise.gauss(40, 6)))) if self.busy else 0,
            "mem_tot": self.total, "mem_used": self.used if self.busy else 4 << 20, "mem_rsv": 600 << 20,
            "t_mC": 1000 * self.heat, "tmem_mC": 1000 * (self.heat + 8), "p_mW": power, "p_lim_mW": 700_000,
            "e_mJ": self.energy, "sm_MHz": 1980 if noise.random() < 0.8 else 1965, "mem_MHz": 2619,
            "ev": 4 if self.busy and noise.random() < 0.1 else 0, "fan_pct": None, "pst": 0, "enc_pct": 0, "dec_pct": 0,
            "parent": None,
        }  # fmt: skip

    def process(self) -> dict[str, Any]:
        noise = self.random
        return {
            "g": self.index, "pid": self.pid, "t0_ms": START_NS // 1_000_000 + self.pid, "name": "python3", "uid": 1007,
            "user": "ada", "mem": self.used - (300 << 20), "sm_pct": min(100, max(0, int(noise.gauss(84, 6)))),
            "cpu_pm": int(noise.gauss(1000, 30)), "rss": 6 * _GIB + noise.randrange(256) * 4096, "type": "C",
            "cmd": "python3 train.py", "orphan": False,
        }  # fmt: skip


def host_id(number: int) -> str:
    """A well-spread host id for a number."""
    return random.Random(f"host {number}").randbytes(16).hex()


def sample_event(host: str, run: bytes, seq: int, sample: dict[str, Any], dt_ns: int = 0) -> list[Any]:
    """A `host.sample` event."""
    return ["host.sample", host, dt_ns, 0, run, seq, sample]


def registered(host: str, name: str, ip: str = "10.0.0.1", facts: dict[str, Any] | None = None) -> list[Any]:
    """A `host.registered` event."""
    return ["host.registered", host, 0, 0, name, ip, facts or {}]
