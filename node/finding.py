"""Find the log by asking an overlord: what the config of an old node (host and port of the overlord) is enough for."""

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from dimint.curve import Key, read_key
from dimint.door import AskLog, LogPlace, decode_log_place, encode
from dimint.errors import ParseError, SettingsError
from dimint.settings import NodeSettings
from dimint.transport import Context

__all__ = ["ask_for_log", "with_log_of_overlord"]

ASK_S: Final = 10.0
ASK_AGAIN_S: Final = 0.5


def with_log_of_overlord(settings: NodeSettings, timeout_s: float = ASK_S) -> NodeSettings:
    """The settings with the log that the overlord at `overlord_host` has; unchanged if no such host or a log is named.

    Raises SettingsError if no overlord answers, or if its log is in a directory of another machine.
    """
    if settings.overlord_host is None or "log" in settings.given:
        return settings
    host = f"[{settings.overlord_host}]" if ":" in settings.overlord_host else settings.overlord_host
    address = f"tcp://{host}:{settings.overlord_port}"
    place = ask_for_log(address, timeout_s, read_key(settings.key_file))
    if "://" not in place.log and not _is_here(place):
        raise SettingsError(
            f"the overlord at {address} keeps its log in {place.log} on its own machine",
            hint="start this node there, or name a log that both machines reach with --log",
        )
    return replace(settings, log=place.log, given=settings.given | {"log"})


def ask_for_log(address: str, timeout_s: float, key: Key | None = None) -> LogPlace:
    """Where the log of the overlord with this node door is. Raises SettingsError if nobody answers in time."""
    deadline = time.monotonic() + timeout_s
    with closing(Context(key)) as context, closing(context.dealer(address)) as dealer:
        while time.monotonic() < deadline:
            dealer.send(encode(AskLog()))
            if dealer.wait(ASK_AGAIN_S):
                for frame in dealer.receive():
                    try:
                        return decode_log_place(frame)
                    except ParseError as error:
                        raise SettingsError(f"at {address} is something else than an overlord's node door: {error}") from error
    raise SettingsError(f"no overlord answers at {address}", hint="check host and port of its node door, and the key_file")


def _is_here(place: LogPlace) -> bool:
    try:
        return (Path(place.log) / "log" / "generation").read_text().strip() == place.generation
    except OSError:
        return False
