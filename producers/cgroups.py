"""Which container, pod and Slurm job a process is in, from the text of /proc/PID/cgroup. [S]

There is no standard: every runtime names its control groups in its own way, and in two more ways with systemd. Lines are
`number:controllers:path` (version 1, one a hierarchy) or `0::path` (version 2)::

    docker        /docker/ID                   /system.slice/docker-ID.scope
    containerd    …:cri-containerd:ID          …/cri-containerd-ID.scope
    cri-o         …/crio-ID                    …/crio-ID.scope
    podman        …/libpod-ID                  /machine.slice/libpod-ID.scope/container
    lxc           /lxc/NAME                    /lxc.payload.NAME
    Kubernetes    /kubepods/burstable/podUID/ID    …/kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope
    Slurm         /slurm/uid_1000/job_7/step_0     /system.slice/slurmstepd.scope/job_7/step_0/user/task_0

A container in a container (a cluster in Docker) counts as the inner one.
"""

import re
from typing import Final, NamedTuple

__all__ = ["CONTAINER_ID_CHARS", "Placement", "placement"]

CONTAINER_ID_CHARS: Final = 12
"""As many digits of a container's id as its tools print and take."""
_ID: Final = "[0-9a-f]{64}"
_END: Final = r"(?:\.scope|\.slice)?(?=[/:]|$)"
_CONTAINER: Final = re.compile(rf"[/:](?:(docker|cri-containerd|containerd|nerdctl|crio|libpod)[-:/]|)({_ID}){_END}")
_LXC: Final = re.compile(r"/lxc(?:\.payload\.|/)([^/]{1,64})")
_UID: Final = "[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD: Final = re.compile(rf"[/-]pod({_UID}){_END}")
_JOB: Final = re.compile(r"slurm[^/]*(?:/[^/]+)*?/job_(\d{1,20})(?=/|$)")
_RUNTIMES: Final = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
}


class Placement(NamedTuple):
    """Where a process is, as far as its control groups tell; None for what it is not in."""

    container: str | None = None
    runtime: str | None = None
    pod_uid: str | None = None
    job: str | None = None


def placement(text: str) -> Placement:
    """What the groups of one process say.

    >>> placement("0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0")
    Placement(container=None, runtime=None, pod_uid=None, job='4711')
    """
    found = Placement()
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        here = _read(path)
        found = Placement(*(ours if ours is not None else theirs for ours, theirs in zip(found, here, strict=True)))
    return found


def _read(path: str) -> Placement:
    containers, pods, jobs = _CONTAINER.findall(path), _POD.findall(path), _JOB.findall(path)
    container = runtime = None
    if containers:
        named, container = containers[-1]
        runtime = _RUNTIMES.get(named)
    elif lxc := _LXC.findall(path):
        container, runtime = lxc[-1], "lxc"
    return Placement(
        container[: CONTAINER_ID_CHARS if runtime != "lxc" else None] if container else None,
        runtime,
        pods[-1].replace("_", "-") if pods else None,
        jobs[-1] if jobs else None,
    )
