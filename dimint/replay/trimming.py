"""Trims a topic: archives what goes, says so in the log, and only then lets it go. Any end of it can be gone on from.

What is archived and not trimmed yet is found again by the next call, which takes that archive and makes no second one.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from dimint.clock import Clock
from dimint.errors import BadArchive, LogError, NotApplied, NotSafe, SettingsError
from dimint.events import CLUSTER_TOPIC
from dimint.log.port import Log
from dimint.progress import NO_PROGRESS, Progress
from dimint.registry.port import Candidacy, Registry
from dimint.replay.archive import Decoder, End, Head
from dimint.replay.export import export_to_file, part_of
from dimint.replay.positions import Range
from dimint.trim_plan import Cut
from dimint.writer import BatchWriter, Outgoing

__all__ = ["Trimmed", "archives_in", "trim"]

ELECTION: Final = "trim"
_LEAD_WAIT_S: Final = 10.0
_EVENT_WAIT_S: Final = 30.0
_READ_BYTES: Final = 1 << 20


class Trimmed(NamedTuple):
    """What went, and the archive that holds it, if one was asked for."""

    cuts: list[Cut]
    archive: Path | None


def trim(
    log: Log,
    topic: str,
    cuts: Sequence[Cut],
    registry: Registry,
    *,
    archives: Path | None,
    clock: Clock,
    host: str,
    progress: Progress = NO_PROGRESS,
) -> Trimmed:
    """Do what was planned (and checked: dimint/trim_plan.py), archiving it first into the folder `archives` if that is given.

    One at a time in a system. With an archive less may go than was planned: what it holds. Raises NotSafe if another one is
    at work, BadArchive if the archive turns out damaged, and what the log raises; then nothing was trimmed that is not
    archived.
    """
    with _alone(registry, clock) as candidacy:
        archive: Path | None = None
        if archives is not None:
            archive, reached = _archive(log, topic, cuts, archives, progress)
            cuts = [cut._replace(before=min(cut.before, reached.get(cut.partition, cut.start))) for cut in cuts]
        cuts = [cut for cut in cuts if cut.records > 0]
        if not cuts:
            return Trimmed([], archive)
        _say(log, topic, cuts, archive, clock, host)
        for cut in cuts:
            if candidacy.fence() is None:
                raise NotSafe("another process trims now", hint="look again when it is done")
            log.trim(topic, cut.partition, cut.before)
        return Trimmed(cuts, archive)


def archives_in(folder: Path, topic: str, generation: str) -> list[Path]:
    """The archives of a log's topic that trims have left in a folder, the oldest first."""
    return [path for path in _numbered(folder, topic) if _head_of(path).log == generation]


@contextmanager
def _alone(registry: Registry, clock: Clock) -> Iterator[Candidacy]:
    candidacy = registry.elect(ELECTION, f"trim-{clock.time_ns()}")
    try:
        deadline = clock.monotonic() + _LEAD_WAIT_S
        while candidacy.fence() is None:
            if clock.monotonic() > deadline:
                raise NotSafe("another process trims now", hint="look again when it is done")
            time.sleep(0.05)
        yield candidacy
    finally:
        candidacy.resign()


def _say(log: Log, topic: str, cuts: Sequence[Cut], archive: Path | None, clock: Clock, host: str) -> None:
    """The event goes before the act, so that whoever finds the log shorter finds out why."""
    writer = BatchWriter(log, clock=clock, host=host, process="trim")
    before = [[cut.partition, cut.before] for cut in cuts]
    event = ["cluster.trimmed", None, 0, 0, topic, before, None if archive is None else archive.name]
    try:
        writer.append_and_wait(Outgoing(CLUSTER_TOPIC, 0, (writer.by,), [event]), _EVENT_WAIT_S)
    except NotApplied as error:
        raise LogError(f"cannot write to the log: {error}") from error
    finally:
        writer.close()


# --- archives -------------------------------------------------------------------------------------------------------
def _archive(log: Log, topic: str, cuts: Sequence[Cut], folder: Path, progress: Progress) -> tuple[Path, dict[int, int]]:
    """A sound archive that begins with the cuts, and how far it holds each partition."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot make {folder}: {error.strerror}") from error
    ranges = [Range(topic, cut.partition, cut.start, cut.before) for cut in cuts if cut.records > 0]
    numbered = _numbered(folder, topic)
    if numbered and _begins_with(_head_of(numbered[-1]), ranges, log.describe().generation):
        return numbered[-1], _reached(numbered[-1])
    last = int(numbered[-1].stem.rpartition("-")[2]) if numbered else 0
    path = folder / f"{topic}-{last + 1:06}.dma"
    try:
        export_to_file(log, ranges, path, progress=progress)
    except SettingsError:  # what is unfinished there is of another stretch
        part_of(path).unlink(missing_ok=True)
        export_to_file(log, ranges, path, progress=progress)
    return path, _reached(path)


def _numbered(folder: Path, topic: str) -> list[Path]:
    return sorted(folder.glob(f"{topic}-[0-9][0-9][0-9][0-9][0-9][0-9].dma"))


def _begins_with(head: Head, ranges: Sequence[Range], generation: str) -> bool:
    """Whether an archive was made for what starts here, and its trim did not come to an end."""
    starts = {each.place: each.start for each in head.ranges}
    return head.log == generation and bool(ranges) and all(starts.get(each.place) == each.start for each in ranges)


def _head_of(path: Path) -> Head:
    with path.open("rb") as file:
        for frame in Decoder().feed(file.read(_READ_BYTES)):
            if isinstance(frame, Head):
                return frame
    raise BadArchive(f"{path} has no head")


def _reached(path: Path) -> dict[int, int]:
    """Read all of an archive; how far it holds each partition. Raises BadArchive."""
    decoder = Decoder()
    end: End | None = None
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                for frame in decoder.feed(piece):
                    end = frame if isinstance(frame, End) else end
        decoder.close()
    except BadArchive as error:
        raise BadArchive(f"{path}: {error.message}", hint="move it away; what it was to hold is in the log still") from error
    assert end is not None
    return {partition: offset for _, partition, offset in end.reached}
