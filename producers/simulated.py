"""Simulated GPU hosts: what a fleet looks like, for demonstrations, benchmarks and tests. [S]

Everything follows from (seed, host number, time): the same seed shows the same jobs at the same time. Jobs come and go in
blocks of some minutes, take one or several GPUs, belong to users, train in epochs, serve in waves, or hold memory and do
nothing. Temperatures follow power slowly; energy and traffic are counters. Some hosts have no GPU, and now and then a GPU
is lost for a while. Nothing of it is hidden: facts say `simulated`, names are sim-001, sim-002, ….
"""

import math
from typing import Final, NamedTuple

from dimint.sample import Cpu, Facts, Gpu, Process, Sample

__all__ = ["SimulatedHost"]

_MASK: Final = 2**64 - 1
_GIB: Final = 1 << 30
_USERS: Final = ("alice", "bob", "chen", "dara", "emre", "fatima", "goran", "hana", "ivan", "jun", "kira", "luis")
_PROGRAMS: Final = {
    "train": ("python3 train.py", "python3 finetune.py", "torchrun pretrain.py"),
    "serve": ("python3 serve.py", "vllm serve", "tritonserver"),
    "hold": ("python3 notebook.py", "jupyter-lab"),
}
_PATHS: Final = {"python3": "/usr/bin/python3", "torchrun": "/opt/conda/bin/python3", "vllm": "/opt/venv/bin/python3"}


class _Model(NamedTuple):
    name: str
    memory: int
    idle_mw: int
    limit_mw: int
    sm_mhz: int
    memory_mhz: int
    passive: bool


_MODELS: Final = (
    _Model("NVIDIA H100 80GB HBM3", 80 * _GIB, 70_000, 700_000, 1980, 2619, True),
    _Model("NVIDIA A100-SXM4-80GB", 80 * _GIB, 60_000, 400_000, 1410, 1593, True),
    _Model("NVIDIA GeForce RTX 4090", 24 * _GIB, 22_000, 450_000, 2520, 10_501, False),
    _Model("NVIDIA L40S", 45 * _GIB, 35_000, 350_000, 2520, 9_001, True),
)
_SHAPES: Final = ((8, 0), (8, 1), (4, 2), (8, 0), (2, 3), (4, 1), (8, 0), (0, 0), (1, 2), (4, 3))
"""(GPUs, model) by host number; one host in ten has no GPU."""


class _Job(NamedTuple):
    """What runs on a group of GPUs during one block of time."""

    kind: str
    user: str
    command: str
    pid: int
    share: float
    level: float
    started_s: float


class SimulatedHost:
    """One host that does not exist. `number` counts from 0; `sample` is asked with times that do not go back."""

    def __init__(self, seed: int, number: int, *, interval_ms: int) -> None:
        self._key = _mix(seed, number)
        self.number, self.name = number, f"sim-{number + 1:03d}"
        self.ip = f"198.18.{number // 250 % 256}.{number % 250 + 1}"  # addresses for tests (RFC 2544)
        count, model = _SHAPES[number % len(_SHAPES)]
        self._model, self._interval_ms = _MODELS[model], interval_ms
        self._cores = (32, 64, 96, 128)[self._key % 4] if count else 16
        self._ram = self._cores * 8 * _GIB
        self._group = max(1, min(count, (1, 2, 4, 8)[self._key // 7 % 4]))
        self._uuids = [_uuid(self._key, index) for index in range(count)]
        self._boot = _uuid(self._key, 1000)[4:]
        self._temperature = [34.0 + _unit(self._key, 2, index) * 4 for index in range(count)]
        self._energy_mj = [float(_mix(self._key, 3, index) % 10**12) for index in range(count)]
        self._capped_ns = [0] * count
        self._pcie = [[0, 0] for _ in range(count)]
        self._traffic = [float(_mix(self._key, 4, way) % 10**13) for way in range(2)]
        self._last_s: float | None = None
        self._draw = 0

    def facts(self) -> Facts:
        """What `host.registered` says; `simulated` is always True."""
        model = self._model
        facts: Facts = {
            "agent": "simulated",
            "os": "Ubuntu 24.04 LTS (simulated)",
            "kernel": "6.8.0-45-generic",
            "cpu_model": "AMD EPYC 9354 32-Core Processor",
            "cores": self._cores,
            "ram": self._ram,
            "simulated": True,
            "interval_ms": self._interval_ms,
            "tags": {"rack": f"rack{self.number // 16 + 1:02d}", "lab": f"lab{self.number % 3 + 1}"},
            "gpus": [
                {"i": index, "u": uuid, "name": model.name, "pci": _bus(index), "mem_tot": model.memory,
                 "minor": index, "p_lim_mW": model.limit_mw, "p_kind": "average", "t_slow_mC": 87_000, "t_shut_mC": 92_000,
                 "mig": False, "persistence": True}
                for index, uuid in enumerate(self._uuids)
            ],
        }  # fmt: skip
        if self._uuids:
            facts |= {"driver": "570.86.15", "driver_module": "570.86.15", "cuda": "12.8", "nvml": "12.570.86.15"}
        return facts

    def sample(self, time_ns: int, mono_ns: int) -> Sample:
        """The sample at a time."""
        now = time_ns / 1e9
        passed = 0.0 if self._last_s is None else max(0.0, now - self._last_s)
        self._last_s = now
        self._draw = _mix(self._key, time_ns)
        jobs = [self._job(group, now) for group in range(math.ceil(len(self._uuids) / self._group))]
        gpus: list[Gpu] = []
        processes: list[Process] = []
        for index in range(len(self._uuids)):
            job = jobs[index // self._group]
            gpu = self._gpu(index, job, now, passed)
            gpus.append(gpu)
            if gpu["st"] == "ok" and job is not None:
                processes += self._processes(index, job, gpu)
        busy = sum(job is not None and job.kind != "hold" for job in jobs)
        cpu = self._cpu(busy / max(1, len(jobs)) if jobs else 0.3 + 0.3 * math.sin(now / 900 + self._key % 7))
        used = int(self._ram * (0.06 + 0.5 * sum(job.share for job in jobs if job) / max(1, len(jobs))))
        for way, rate in enumerate((4e6 + 250e6 * busy, 2e6 + 60e6 * busy)):
            self._traffic[way] += passed * rate * (0.6 + 0.8 * self._random())
        return {
            "mono_ns": mono_ns,
            "boot": self._boot,
            "int_ms": self._interval_ms,
            "dur_us": 600 + int(300 * self._random()),
            "spool": {"events": 0, "bytes": 0, "max": 256 << 20},
            "gpu_state": "ok" if self._uuids else "no_library",
            "cpu": cpu,
            "mem": {"tot": self._ram, "used": used, "avail": self._ram - used, "swap_tot": 8 * _GIB, "swap_used": 0},
            "net": [{"if": "eth0", "rx": int(self._traffic[0]), "tx": int(self._traffic[1])}],
            "disk": [{"mnt": "/", "tot": 1800 * _GIB, "used": (400 + self._key % 900) * _GIB}],
            "temp_mC": {"k10temp/Tctl": 38_000 + 12 * (cpu["tot_pm"] or 0)},
            "slow_age_ms": 0,
            "gpu": gpus,
            **({"proc": processes, "proc_age_ms": 0} if self._uuids else {}),
        }

    def _job(self, group: int, now: float) -> _Job | None:
        """The job of a group of GPUs: each group has its own length of blocks, from 5 to 45 minutes."""
        length = 300 + _mix(self._key, 5, group) % 2400
        block, into = divmod(now + _mix(self._key, 6, group) % length, length)
        draw = _mix(self._key, 7, group, int(block))
        dice = draw % 100
        if dice < 22:
            return None
        kind = "train" if dice < 70 else "serve" if dice < 88 else "hold"
        programs = _PROGRAMS[kind]
        return _Job(
            kind=kind,
            user=_USERS[draw // 100 % len(_USERS)],
            command=programs[draw // 2000 % len(programs)],
            pid=2000 + draw // 9000 % 4_000_000,
            share=0.25 + 0.7 * _unit(draw, 1),
            level=_unit(draw, 2),
            started_s=now - into,
        )

    def _gpu(self, index: int, job: _Job | None, now: float, passed: float) -> Gpu:
        model = self._model
        gpu: Gpu = {"i": index, "u": self._uuids[index], "name": model.name, "pci": _bus(index)}
        if self._is_lost(index, now):
            gpu.update({"st": "lost", "err": {"memory_v2": 15}})
            return gpu
        age = now - job.started_s if job else 0.0
        busy = self._busy(job, index, age, now)
        loaded = min(1.0, age / 25)
        used = 4 << 20 if job is None else int(model.memory * job.share * (0.15 + 0.85 * loaded))
        power = model.idle_mw + (model.limit_mw - model.idle_mw) * (0.9 * busy**0.8) * (0.97 + 0.06 * self._random())
        target = 32 + 46 * power / model.limit_mw + 2 * (index % 4)
        temperature = self._temperature[index]
        temperature += (target - temperature) * (1 - math.exp(-passed / 45))
        self._temperature[index] = temperature
        self._energy_mj[index] += power * passed
        working = job is not None and busy > 0.01
        capped = busy > 0.9
        values: Gpu = {
            "st": "ok",
            "util_pct": round(100 * busy),
            "mutil_pct": round(100 * busy * (0.35 + 0.3 * (job.level if job else 0))),
            "mem_tot": model.memory,
            "mem_used": used,
            "mem_rsv": 600 << 20,
            "t_mC": round(temperature) * 1000,
            "tmem_mC": round(temperature + 6) * 1000 if model.passive else None,
            "p_mW": int(power),
            "p_inst_mW": int(power * (0.97 + 0.06 * self._random())),
            "p_lim_mW": model.limit_mw,
            "e_mJ": int(self._energy_mj[index]),
            "sm_MHz": int(model.sm_mhz * (0.93 if capped else 1.0)) if working else 345,
            "mem_MHz": model.memory_mhz if job else 405,
            "ev": (4 if capped else 0) if working else 1,
            "fan_pct": None if model.passive else [max(30, min(100, int(temperature * 1.3 - 35)))],
            "pst": 0 if working else 8,
            "enc_pct": 0,
            "dec_pct": 0,
            "mem_orphan": 0,
            "mem_other": min(used, 4 << 20),
            **self._counters(index, passed, busy, capped),
        }
        gpu.update(values)
        return gpu

    def _counters(self, index: int, passed: float, busy: float, capped: bool) -> Gpu:
        """What a driver counts since it was loaded, and errors for life; cards for desks have no ECC memory."""
        if capped:
            self._capped_ns[index] += int(passed * 1e9)
        for way, share in enumerate((0.7, 0.3)):
            self._pcie[index][way] += int(passed * busy * share * 6e9)
        received, sent = self._pcie[index]
        counters: Gpu = {
            "thr_ns": {"sw_power_cap": self._capped_ns[index], "hw_thermal": 0},
            "pcie_rx": received,
            "pcie_tx": sent,
        }
        if self._model.passive:
            corrected, rows = _mix(self._key, 8, index) % 40, int(_mix(self._key, 9, index) % 16 == 0)
            counters["nvl_rx"], counters["nvl_tx"] = received * 9 >> 10 << 10, received * 9 >> 10 << 10
            counters["ecc"] = {"vc": corrected // 4, "vu": 0, "ac": corrected, "au": rows}
            counters["remap"] = {"c": 0, "u": rows, "pend": False, "fail": False}
            counters["rec"] = 0
        return counters

    def _busy(self, job: _Job | None, index: int, age: float, now: float) -> float:
        if job is None or job.kind == "hold" or age < 12:
            return 0.0
        noise = self._random() - 0.5
        if job.kind == "train":
            if age % (180 + 240 * job.level) < 9:  # validation between epochs
                return max(0.0, 0.12 + 0.1 * noise)
            return min(1.0, 0.86 + 0.12 * job.level + 0.05 * noise)
        wave = 0.5 + 0.5 * math.sin(now / (70 + 90 * job.level) + index)
        return min(1.0, max(0.02, 0.12 + 0.55 * job.level * wave + 0.2 * noise))

    def _is_lost(self, index: int, now: float) -> bool:
        """One GPU of every twentieth host is lost for ten minutes in every two hours."""
        return self.number % 20 == 6 and index == self._key % len(self._uuids) and (now + self._key % 7200) % 7200 < 600

    def _processes(self, index: int, job: _Job, gpu: Gpu) -> list[Process]:
        program = job.command.split()[0]
        rank = index % self._group
        process: Process = {
            "g": index,
            "pid": job.pid + rank,
            "t0_ms": int(job.started_s * 1000) + rank,
            "name": _PATHS.get(program, f"/usr/local/bin/{program}"),
            "uid": 1000 + _USERS.index(job.user),
            "user": job.user,
            "mem": max(0, (gpu["mem_used"] or 0) - (4 << 20)),
            "sm_pct": gpu["util_pct"],
            "cpu_pm": 20 if job.kind == "hold" else 900 + int(400 * self._random()),
            "rss": int((2 + 10 * job.level) * _GIB),
            "type": "C",
            "cmd": job.command,
        }
        if self._key % 3 == 0 and self._uuids:
            process["job"] = str(100_000 + job.pid % 9000)
        elif self._key % 3 == 1:
            container = f"{_mix(self._key, job.pid):016x}"[:12]
            process |= {"ctr": container, "rt": "containerd", "pod": f"{job.kind}-{job.pid % 97}", "ns": f"team-{job.user[0]}"}
        return [process]

    def _cpu(self, level: float) -> Cpu:
        cores = [min(100, max(0, int(100 * (level * 0.7 + 0.5 * (self._random() - 0.45))))) for _ in range(self._cores)]
        total = 10 * sum(cores) // self._cores
        load = round(self._cores * total / 1000, 2)
        return {
            "n": self._cores,
            "tot_pm": total,
            "util_pct": list(cores),
            "load": [load, round(load * 0.97, 2), round(load * 0.9, 2)],
            "iowait_pm": int(6 * self._random()),
        }

    def _random(self) -> float:
        """The next number of this sample's own sequence, 0 ≤ x < 1 (Knuth's MMIX generator)."""
        self._draw = (self._draw * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._draw >> 11) / 2**53


def _mix(*parts: int) -> int:
    """A number 0 … 2⁶⁴−1 that follows from the parts (splitmix64)."""
    state = 0
    for part in parts:
        state = (state ^ part) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def _unit(*parts: int) -> float:
    return (_mix(*parts) >> 11) / 2**53


def _uuid(key: int, index: int) -> str:
    digits = f"{_mix(key, 11, index):016x}{_mix(key, 12, index):016x}"
    return f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _bus(index: int) -> str:
    return f"0000:{0x1B + 0x10 * index:02x}:00.0"
