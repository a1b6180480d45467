"""A real key-value system in processes of its own: overlords, nodes and consumers on one data directory, on free ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dimint.client import Client
from dimint.errors import DimintError
from tests.support.forked import Forked
from tests.support.ports import free_ports

READY_S = 60.0


class KvSystem:
    """Started processes by name ("overlord-1", "node-1", …)."""

    def __init__(
        self, directory: Path, *, overlords: int, nodes: int, flags: Sequence[str] = (), slaves: int = 2, consumers: int = 0
    ) -> None:
        self.directory = directory
        self.flags, self._slaves = flags, slaves
        ports = free_ports(2 * overlords)
        self._ports = {f"overlord-{n + 1}": (ports[2 * n], ports[2 * n + 1]) for n in range(overlords)}
        self._nodes = [f"node-{n + 1}" for n in range(nodes)] + [f"consumer-{n + 1}" for n in range(consumers)]
        self.key_file = next((Path(flag.partition("=")[2]) for flag in flags if flag.startswith("--key_file=")), None)
        self.flags_of: dict[str, Sequence[str]] = {}
        """More flags of single processes, by name; they overrule those of all."""
        self.program = "dimint"
        """The module that is run."""
        self.processes: dict[str, Forked] = {}

    @property
    def addresses(self) -> list[str]:
        """Client doors of the overlords, in order."""
        return [f"127.0.0.1:{client}" for client, _ in self._ports.values()]

    @property
    def address(self) -> str:
        return self.addresses[0]

    def ports(self, overlord: str) -> tuple[int, int]:
        """Of an overlord's doors: for clients, for nodes."""
        return self._ports[overlord]

    def start(self, name: str) -> None:
        """Start one process (again)."""
        role, _, number = name.partition("-")
        if role == "overlord":
            client, node = self._ports[name]
            flags = [f"--port_for_client={client}", f"--port_for_node={node}", f"--max_slave_count={self._slaves}"]
        else:
            flags = [f"--node_name={number}"] if role == "node" else []
        command = [sys.executable, "-m", self.program, role, "run", f"--data_dir={self.directory}", *flags, *self.flags]
        command += self.flags_of.get(name, ())
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
        with open(self.directory / f"{name}.out", "ab") as output:
            self.processes[name] = Forked(command, stdout=output, stderr=output, env=environment)

    def start_all(self) -> None:
        for name in (*self._ports, *self._nodes):
            self.start(name)
        self.wait_ready()

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End one process and wait for it."""
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(20)

    def wait_ready(self) -> None:
        """Until every overlord that runs answers a strong read and every partition has a caught-up master."""
        deadline = time.monotonic() + READY_S
        running = [self._ports[name][0] for name in self.processes if name in self._ports]
        problem = "nothing yet"
        for port in running:
            while True:
                ended = [name for name, process in self.processes.items() if process.poll() is not None]
                if ended or time.monotonic() > deadline:
                    raise AssertionError(f"not ready: {problem}; ended: {ended}; {self.output()}")
                try:
                    with Client(f"127.0.0.1:{port}", timeout=1, key_file=self.key_file) as client:
                        status = client.status()
                        parts = status["partitions"]
                        if parts and all((part["replicas"].get(part["master"]) or {}).get("caught_up") for part in parts):
                            client.get("ready?", consistency="strong")
                            if len(client.overlords()) >= len(running):
                                break
                        problem = str(status)[:500]
                except DimintError as error:
                    problem = str(error)
                time.sleep(0.1)

    def output(self) -> str:
        """What the processes said, for failures."""
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.directory.glob("*.out")))

    def stop(self) -> None:
        """End everything; asks first."""
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@contextmanager
def kv_system(
    directory: Path, *, overlords: int = 1, nodes: int = 1, flags: Sequence[str] = (), slaves: int = 2, consumers: int = 0
) -> Iterator[KvSystem]:
    """A system that is ready; ended at the end. `flags` go to every process, a master has up to `slaves` slaves."""
    system = KvSystem(directory, overlords=overlords, nodes=nodes, flags=flags, slaves=slaves, consumers=consumers)
    try:
        system.start_all()
        yield system
    finally:
        system.stop()
