"""What readers tell: many at once, and a registry that does not answer."""

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.errors import RegistryError, RegistryUnavailable, SettingsError
from dimint.log.port import TopicPartition
from dimint.readers import READERS_PATH, ReaderSeen, decode_readers, encode_readers
from dimint.registry.memory import MemoryHub, MemoryRegistry
from dimint.registry.port import Fence
from dimint.replay.readers import KnownReader, forget_reader, readers_in, tell_reader

PLACE = TopicPartition("dimint.kv", 0)
POSITIONS = st.dictionaries(
    st.builds(TopicPartition, st.just("dimint.kv"), st.integers(0, 1023)), st.integers(0, 10**17), min_size=1
)
SEEN = st.builds(ReaderSeen, st.text(), POSITIONS, st.text(), st.integers(0, 1 << 62))


@given(st.dictionaries(st.text(), SEEN))
def test_round_trip(readers: dict[str, ReaderSeen]) -> None:
    """Whatever names are."""
    assert decode_readers(encode_readers(readers)) == readers


@given(st.binary() | st.sampled_from([b"[]", b'{"a": 1}', b'{"a": {"log": "", "needs": "x", "host": "", "told_ns": 1}}']))
def test_junk(value: bytes) -> None:
    """Is no reader and no other error."""
    if value.strip() != b"{}":
        with pytest.raises(RegistryError):
            decode_readers(value)


def test_many_at_once() -> None:
    """Nobody's words are lost."""
    hub = MemoryHub()

    def tell(number: int) -> Callable[[], None]:
        def go() -> None:
            registry = MemoryRegistry(hub)
            for offset in range(30):
                tell_reader(registry, f"r{number}", ReaderSeen("log", {PLACE: offset}, "h", offset))
            registry.close()

        return go

    threads = [threading.Thread(target=tell(number)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry = MemoryRegistry(hub)
    assert {name: seen.needs for name, seen in readers_in(registry).items()} == {f"r{n}": {PLACE: 29} for n in range(5)}
    assert forget_reader(registry, "r3")
    assert not forget_reader(registry, "r3")
    assert len(readers_in(registry)) == 4
    registry.close()


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", "\x1b[2J"])
def test_names_that_are_none(name: str) -> None:
    """They are printed."""
    registry = MemoryRegistry()
    with pytest.raises(SettingsError, match="a reader's name has"):
        tell_reader(registry, name, ReaderSeen("log", {PLACE: 1}, "h", 1))
    registry.close()


def test_a_registry_that_does_not_answer() -> None:
    """The first time it is an error: nothing would be kept. Later the reader goes on, and what it told stays."""
    registry = _Away()
    with pytest.raises(RegistryUnavailable):
        KnownReader("r", "log", registry).needs({PLACE: 5})
    registry.is_away = False
    reader = KnownReader("r", "log", registry)
    reader.needs({PLACE: 5})
    reader.needs({PLACE: 6})
    assert readers_in(registry)["r"].needs == {PLACE: 5}, "it was told a moment ago"
    registry.is_away = True
    reader.needs({PLACE: 7}, now=True)
    registry.is_away = False
    assert readers_in(registry)["r"].needs == {PLACE: 5}
    reader.needs({PLACE: 8}, now=True)
    assert readers_in(registry)["r"].needs == {PLACE: 8}
    registry.close()


class _Away(MemoryRegistry):
    is_away = True

    def put(self, path: str, value: bytes, *, version: int, fence: Fence | None = None) -> int:
        if self.is_away:
            raise RegistryUnavailable("no server answers")
        assert path == READERS_PATH
        return super().put(path, value, version=version, fence=fence)
