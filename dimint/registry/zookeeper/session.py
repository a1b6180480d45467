"""A session with ZooKeeper over kazoo: calls with a time limit, our errors, and how much longer the session is sure to live.

kazoo reconnects by itself, and makes a new session when the servers have ended the old one. Then `number` rises: all
ephemeral nodes of the old session are gone. Watches are gone whenever `connections` rises. kazoo's callbacks come on its
own threads, which must never wait: here they take a note and call `wake`.

What is known of the end of a session: the servers end it no earlier than the negotiated time after they last heard of it,
and what they answered they have heard after it was sent. So a session is sure to live `timeout_s` from `good_at`, the
moment at which the last answered request was *sent*. The servers tell of the end only to those who reach them.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, TypeAlias

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE

from dimint.errors import RegistryError, RegistryLost, RegistryUnavailable, SettingsError
from dimint.registry.zookeeper.library import Connection, Handler, Notes, tls_context
from dimint.registry.zookeeper.options import ZooKeeperOptions

__all__ = ["Check", "Create", "Delete", "Session", "SetData", "Stat", "Step", "StepFailed", "Watch"]

SURE_SHARE: Final = 2 / 3
"""For this share of the session's time after the last good answer a leader may act."""
CONNECT_SHARE: Final = 1 / 3
"""Of the session's time: how long one server may take to accept a connection before the next one is tried."""
OPEN_LOOK_S: Final = 0.2
"""How often it is looked whether to wait longer for the first answer."""
_RETRY: Final = {"max_tries": -1, "delay": 0.05, "backoff": 2, "max_delay": 1.0}

Watch: TypeAlias = Callable[[object], None]


class Stat(NamedTuple):
    """What is known of a node. `owner` is the id of the session that it goes with, 0 for a lasting one."""

    version: int
    czxid: int
    owner: int


class Create(NamedTuple):
    path: str
    value: bytes = b""
    ephemeral: bool = False


class SetData(NamedTuple):
    path: str
    value: bytes = b""
    version: int = -1
    """-1 = whatever it is."""


class Check(NamedTuple):
    path: str
    version: int


class Delete(NamedTuple):
    path: str


Step: TypeAlias = Create | SetData | Check | Delete


class StepFailed(Exception):
    """Nothing of a transaction was done, because of this step."""

    def __init__(self, step: Step, *, missing: bool) -> None:
        super().__init__(f"{step} failed")
        self.step, self.missing = step, missing


class Session:
    """Opened at once. All methods are for any thread.

    Until a server has answered `patience` is asked with the seconds so far and the trouble whether to go on; without it
    that ends after `options.open_s`. Raises RegistryUnavailable then, and SettingsError if the servers refuse this process.

    RegistryError: no answer now; a change may or may not have been made. RegistryLost: closed, or refused for good.
    """

    def __init__(
        self, options: ZooKeeperOptions, wake: Callable[[], None], patience: Callable[[float, str], bool] | None = None
    ) -> None:
        self._options, self._wake = options, wake
        self.number = 1
        """Rises with every new session."""
        self.connections = 0
        """Rises with every connection, also within a session."""
        self.connected = False
        self._good_at = float("-inf")
        self._notes = Notes()
        self._open = True
        self._closing = threading.Lock()
        self._client = self._make_client()
        self._client.add_listener(self._note_state)
        self._start(patience or (lambda waited_s, _trouble: waited_s < options.open_s))

    # --- the session ------------------------------------------------------------------------------------------------
    @property
    def id(self) -> int:
        """The servers' number for this session; 0 without one."""
        found = self._client.client_id
        return 0 if found is None or found[0] is None else int(found[0])

    @property
    def trouble(self) -> str:
        """Why there is no connection, as far as kazoo says."""
        return self._notes.last or "no answer"

    @property
    def timeout_s(self) -> float:
        """As the servers allowed it."""
        return float(self._connection.negotiated_s)

    def sure_until(self, number: int) -> float:
        """The monotonic time until which a leader by this session may act; -inf if the session is over."""
        good_at, timeout_s = self._good_at, self.timeout_s
        return good_at + SURE_SHARE * timeout_s if number == self.number and self._open else float("-inf")

    def check(self) -> None:
        """Raises RegistryLost if this can never work again."""
        if not self._open:
            raise RegistryLost("the registry is closed")
        state = self._client.client_state
        if state in (KeeperState.AUTH_FAILED, KeeperState.CLOSED):
            raise RegistryLost("ZooKeeper refuses this process", hint="check zookeeper_auth and the server's log")

    def close(self) -> None:
        """End the session: its ephemeral nodes go at once. Idempotent."""
        with self._closing:
            if not self._open:
                return
            self._open = False
        self._client.remove_listener(self._note_state)
        self.connected = False
        try:
            self._client.stop()
            self._client.close()
        except KazooException as error:  # its thread hangs in a dead connection: the servers end the session in time
            logging.getLogger("dimint").warning("the session with ZooKeeper did not end in time: %s", error)

    # --- nodes ------------------------------------------------------------------------------------------------------
    def exists(self, path: str) -> Stat | None:
        found = self._call(lambda: self._client.exists_async(path))
        return None if found is None else _stat(found)

    def get(self, path: str, watch: Watch | None = None) -> tuple[bytes, Stat] | None:
        """A node's value; the watch is only set if there is one."""
        try:
            value, found = self._call(lambda: self._client.get_async(path, watch=watch))
        except NoNodeError:
            return None
        return value or b"", _stat(found)

    def get_all(self, paths: Sequence[str]) -> list[bytes | None]:
        """Values of many nodes, asked together; None for those that are not there."""
        found = self._call(lambda: _Gathered([self._client.get_async(path) for path in paths]))
        return [None if each is None else each[0] or b"" for each in found]

    def children(self, path: str, watch: Watch | None = None) -> list[str] | None:
        """Names below a node, None if it is not there (no watch is set then)."""
        try:
            return list(self._call(lambda: self._client.get_children_async(path, watch=watch)))
        except NoNodeError:
            return None

    def create(self, path: str, value: bytes = b"") -> bool:
        """Make a lasting node; False if it is there already."""
        try:
            self._call(lambda: self._client.create_async(path, value))
        except NodeExistsError:
            return False
        except NoNodeError as error:
            raise _removed(path) from error
        return True

    def create_in_line(self, path: str, value: bytes) -> None:
        """Make an ephemeral node whose name is `path` and the next number."""
        try:
            self._call(lambda: self._client.create_async(path, value, ephemeral=True, sequence=True))
        except NoNodeError as error:
            raise _removed(path) from error

    def delete_own(self, path: str) -> None:
        """Delete a node if it belongs to the session of now."""
        found = self.exists(path)
        if found is not None and found.owner == self.id:
            try:
                self._call(lambda: self._client.delete_async(path))
            except NoNodeError:
                return

    def do(self, *steps: Step) -> None:
        """All steps or none. Raises StepFailed with the first that cannot be done."""

        def start() -> Any:
            transaction = self._client.transaction()
            for step in steps:
                if isinstance(step, Create):
                    transaction.create(step.path, step.value, acl=self._client.default_acl, ephemeral=step.ephemeral)
                elif isinstance(step, SetData):
                    transaction.set_data(step.path, step.value, step.version)
                elif isinstance(step, Check):
                    transaction.check(step.path, step.version)
                else:
                    transaction.delete(step.path)
            return transaction.commit_async()

        for step, result in zip(steps, self._call(start), strict=True):
            if isinstance(result, NoNodeError | NodeExistsError | BadVersionError):
                raise StepFailed(step, missing=isinstance(result, NoNodeError))
            if isinstance(result, Exception) and not isinstance(result, RolledBackError | RuntimeInconsistency):
                raise self._translated(result)

    # --- inside -----------------------------------------------------------------------------------------------------
    def _make_client(self) -> Any:
        options = self._options
        scheme, user, password = options.credentials or ("", "", "")
        if scheme == "sasl" and find_spec("puresasl") is None:
            raise SettingsError("zookeeper_auth: sasl needs the package pure-sasl", hint="pip install pure-sasl")
        sasl = {"mechanism": "DIGEST-MD5", "username": user, "password": password} if scheme == "sasl" else None
        client = KazooClient(
            hosts=",".join(options.hosts),
            timeout=options.session_s,
            handler=Handler(options.session_s * CONNECT_SHARE, tls_context(options)),
            connection_retry=dict(_RETRY),
            default_acl=CREATOR_ALL_ACL if scheme else OPEN_ACL_UNSAFE,
            auth_data=[("digest", f"{user}:{password}")] if scheme == "digest" else None,
            logger=self._notes,
        )
        self._connection = Connection(client, client._conn_retry.copy(), logger=self._notes, sasl_options=sasl)
        client._connection = self._connection
        return client

    def _start(self, patience: Callable[[float, str], bool]) -> None:
        options = self._options
        hosts = ",".join(options.hosts)
        began = time.monotonic()
        answered = self._client.start_async()
        while True:
            answered.wait(OPEN_LOOK_S)
            try:
                self.check()
                if self.connected:
                    self.exists(options.root)
                    return
            except RegistryLost as error:
                self.close()
                raise SettingsError(f"zookeeper_hosts: {hosts}: {error}", hint="is this the right user?") from error
            except RegistryError:
                time.sleep(OPEN_LOOK_S)
            waited_s = time.monotonic() - began
            if not patience(waited_s, self.trouble):
                break
        why = self.trouble
        self.close()
        what = "do certificate and host name fit, and does the port speak TLS?" if options.tls else "does the port ask for TLS?"
        raise RegistryUnavailable(
            f"zookeeper_hosts: no server of {hosts} took this process within {waited_s:.0f} s ({why})",
            hint=f"is ZooKeeper running, is host:port right, {what}",
        )

    def _note_state(self, state: str) -> None:
        """On kazoo's thread."""
        self.connected = state == KazooState.CONNECTED
        if self.connected:
            self.connections += 1
        elif state == KazooState.LOST:
            self.number += 1
        self._wake()

    def _call(self, start: Callable[[], Any]) -> Any:
        self.check()
        if not self.connected:
            raise RegistryError("no connection to ZooKeeper")
        number, sent = self.number, time.monotonic()
        try:
            found = start().get(timeout=self._options.session_s)
        except (NoNodeError, NodeExistsError, BadVersionError):
            raise
        except (KazooException, KazooTimeoutError) as error:
            raise self._translated(error) from error
        if number == self.number:
            self._good_at = max(self._good_at, sent)
        return found

    def _translated(self, error: Exception) -> RegistryError:
        if not self._open:
            return RegistryLost("the registry is closed")
        if isinstance(error, AuthFailedError | NoAuthError):
            return RegistryLost(
                f"ZooKeeper refuses this process ({type(error).__name__})", hint="check zookeeper_auth and zookeeper_root"
            )
        if isinstance(error, SessionExpiredError):
            return RegistryError("the session with ZooKeeper has ended")
        if isinstance(error, ConnectionLoss | ConnectionClosedError | KazooTimeoutError):
            return RegistryError("no answer from ZooKeeper")
        return RegistryError(f"ZooKeeper: {type(error).__name__} {error}".rstrip())


class _Gathered:
    """Answers to reads that were sent together; None for a node that is not there."""

    def __init__(self, started: Sequence[Any]) -> None:
        self._started = started

    def get(self, timeout: float) -> list[Any]:
        deadline = time.monotonic() + timeout
        found = []
        for each in self._started:
            try:
                found.append(each.get(timeout=max(0.0, deadline - time.monotonic())))
            except NoNodeError:
                found.append(None)
        return found


def _removed(path: str) -> RegistryLost:
    return RegistryLost(f"what {path} stands in was removed from ZooKeeper")


def _stat(found: Any) -> Stat:
    return Stat(found.version, found.czxid, found.ephemeralOwner)
