"""The storage of a new broker, as Kafka's own tool formats it, without a Java process for each broker.

A formatted directory holds two files: `meta.properties` with the ids of cluster, broker and directory, and
`bootstrap.checkpoint` with what a cluster begins with (the levels of its features and its users), which names none of them.
So the tool runs once a checkout, and its checkpoint is kept beside the jars.
"""

import base64
import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.support.services.process import JavaServer

__all__ = ["checkpoint_with_user", "format_storage", "new_id"]


def new_id() -> str:
    """A random id as Kafka writes them."""
    return base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode().replace("-", "a")


def format_storage(data: Path, *, cluster_id: str, node: int, checkpoint: Path) -> None:
    """Make the directory of a broker that was never started."""
    data.mkdir(parents=True)
    ids = {"version": 1, "cluster.id": cluster_id, "node.id": node, "directory.id": new_id()}
    (data / "meta.properties").write_text("".join(f"{name}={value}\n" for name, value in ids.items()))
    shutil.copy(checkpoint, data / "bootstrap.checkpoint")


def checkpoint_with_user(jars: Path, user: str, password: str) -> Path:
    """The checkpoint of a cluster with one SCRAM user."""
    found = jars.with_name(f"{jars.name}-{hashlib.sha256(f'{user} {password}'.encode()).hexdigest()[:8]}.checkpoint")
    if not found.exists():
        with found.with_suffix(".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=jars.parent) as scratch:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs at once, one formats
            if not found.exists():
                _format_with_kafka(jars, Path(scratch), user, password).rename(found)
    return found


def _format_with_kafka(jars: Path, folder: Path, user: str, password: str) -> Path:
    config = folder / "server.properties"
    settings = {
        "node.id": 1,
        "process.roles": "broker,controller",
        "controller.quorum.voters": "1@127.0.0.1:1",
        "controller.listener.names": "CONTROLLER",
        "listeners": "CLIENT://127.0.0.1:2,CONTROLLER://127.0.0.1:1",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "log.dirs": folder / "data",
    }
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    arguments = ["kafka.tools.StorageTool", "format", "-t", new_id(), "-c", str(config)]
    arguments += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
    tool = JavaServer("format", jars, folder, arguments)
    tool.start()
    tool.join()
    return folder / "data" / "bootstrap.checkpoint"
