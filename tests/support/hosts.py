"""Samples and hosts for tests of the pages: the documented ones, and whatever hypothesis makes of them."""

from datetime import UTC, datetime
from typing import Any

from dimint.webapp.models import Host, Status
from dimint.webapp.view import Facts, host_view, sampled

__all__ = ["GTX", "H100", "MIB", "cpu", "gpu", "host", "ns", "sample"]

MIB = 1 << 20
GTX = "GeForce GTX 1080 Ti"
H100 = "NVIDIA H100 80GB HBM3 with NVLink"


def ns(text: str) -> int:
    """Nanoseconds of a time in UTC, `2018/12/03 23:16:59` or with milliseconds."""
    form = "%Y/%m/%d %H:%M:%S.%f" if "." in text else "%Y/%m/%d %H:%M:%S"
    at = datetime.strptime(text, form).replace(tzinfo=UTC)
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000


def gpu(index: int, name: str, used: int | None, total: int | None, util: int | None, heat: int | None) -> dict[str, Any]:
    """One GPU of a sample; memory in MiB, temperature in °C."""
    return {
        "i": index, "u": f"GPU-{index:08x}", "name": name, "st": "ok", "util_pct": util,
        "mem_tot": None if total is None else total * MIB, "mem_used": None if used is None else used * MIB,
        "t_mC": None if heat is None else heat * 1000,
    }  # fmt: skip


def cpu(percent: float = 12.5) -> dict[str, Any]:
    """The CPU and memory parts of a sample."""
    return {
        "cpu": {"n": 16, "tot_pm": int(percent * 10), "load": [0.5, 1.25, 2.0]},
        "mem": {"tot": 64 << 30, "used": 12 << 30, "avail": 52 << 30},
    }


def sample(gpus: list[dict[str, Any]], processes: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A sample with these GPUs and processes."""
    return {"gpu_state": "ok", "gpu": gpus, "proc": processes or [], **more}


def host(
    name: str,
    content: dict[str, Any] | None,
    *,
    ip: str = "127.0.0.1",
    at: str = "2018/12/03 23:16:59",
    status: Status = Status.RUNNING,
    simulated: bool = False,
    facts: dict[str, Any] | None = None,
) -> Host:
    """A host with one sample (or none) taken `at`."""
    samples = [] if content is None else [sampled(ns(at), content)]
    return host_view(name, name, ip, Facts.of(facts or {}, simulated), status, ns(at), samples)
