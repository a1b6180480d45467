"""The key of a system: whoever has its file may talk to the system's ZeroMQ doors, and nobody reads what is said.

CURVE (CurveZMQ, https://rfc.zeromq.org/spec/26/) with one key pair a system. A door proves that it has the secret key, and
lets only those in who prove it too; the authenticator of pyzmq asks `_Same`. One file to copy to every machine is what
people get right; who needs to lock a single client out makes a new key.

The file is a certificate as `zmq.auth.load_certificate` reads it.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import zmq

from dimint.errors import SettingsError

__all__ = ["Gate", "Key", "create_key_file", "read_key"]

_KEY_CHARS: Final = 40
_HEAD: Final = """\
# The key of a DiMint system. Whoever has this file may read and write everything: mode 0600, and no copy that is not needed.

metadata
curve
"""


class Key(NamedTuple):
    """A CURVE25519 key pair in Z85, 40 characters each."""

    public: bytes
    secret: bytes


def create_key_file(path: Path) -> Key:
    """Write a new key into a new file that only its owner reads. Raises SettingsError, also if the file is there."""
    key = Key(*zmq.curve_keypair())
    text = f'{_HEAD}    public-key = "{key.public.decode()}"\n    secret-key = "{key.secret.decode()}"\n'
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise SettingsError(f"{path} exists", hint="a key is never written over: remove it, or name another file") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
    return key


def read_key(path: Path | None) -> Key | None:
    """The key in a file; None for no file. Raises SettingsError for one that is not there, damaged, or read by others."""
    if path is None:
        return None
    from zmq.auth import load_certificate  # brings asyncio with it, which most commands do without

    try:
        mode = path.stat().st_mode
        public, secret = load_certificate(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no key stands in it"
        raise SettingsError(f"key_file: {path}: {why}", hint="dimint key create FILE makes one") from error
    if secret is None or len(public) != _KEY_CHARS or len(secret) != _KEY_CHARS or not _fit(public, secret):
        raise SettingsError(f"key_file: {path} is damaged", hint="copy it again from another machine of the system")
    if mode & 0o077:
        raise SettingsError(f"key_file: others may read {path}", hint=f"chmod 600 {path}")
    return Key(public, secret)


def _fit(public: bytes, secret: bytes) -> bool:
    try:
        return zmq.curve_public(secret) == public
    except (ValueError, zmq.ZMQError):
        return False


class Gate:
    """Asks everybody who connects to the doors of a context for the key, on a thread of pyzmq."""

    def __init__(self, context: "zmq.Context[Any]", key: Key) -> None:
        from zmq.auth.thread import ThreadAuthenticator

        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", _Same(key))

    def close(self) -> None:
        """Before the context. Idempotent."""
        with contextlib.suppress(zmq.ZMQError):
            self._authenticator.stop()


class _Same:
    def __init__(self, key: Key) -> None:
        self._key = key

    def callback(self, _domain: str, public: bytes) -> bool:
        """Whether a client, which has just proved to have the secret of `public`, is let in."""
        return public == self._key.public
