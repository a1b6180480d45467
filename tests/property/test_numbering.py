"""What a writer says became of a batch is what every reader counts, whatever the log does with the sends."""

from hypothesis import given
from hypothesis import strategies as st

from dimint.dedupe import WriterTable
from dimint.numbering import Applied, Effect, Fence, Lost, NotThere, Numbering, Scan, Seen

WRITER = b"w" * 16

ANSWERS = ("ack", "fail", "hide", "lose", "park")
"""ack: landed and acknowledged; fail: certainly not; hide: landed, unknown; lose: never lands, unknown; park: unknown, lands
later or never."""


class _Partition:
    """A log partition whose parked records land when the test draws it."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.parked: list[int] = []

    def send(self, numbering: Numbering, number: int, answer: str) -> Effect:
        if answer in ("ack", "hide"):
            self.log.append(number)
        if answer == "park":
            self.parked.append(number)
        if answer == "ack":
            return numbering.acknowledged(number, len(self.log) - 1)
        if answer == "fail":
            return numbering.failed(number)
        return numbering.unknown(number)

    def land_some(self, draw: st.DataObject) -> None:
        while self.parked:
            if not draw.draw(st.booleans(), label="land"):
                break
            index = draw.draw(st.integers(0, len(self.parked) - 1), label="which")
            self.log.append(self.parked.pop(index))


@given(st.data())
def test_what_is_reported_is_what_counts(data: st.DataObject) -> None:
    """Over all interleavings of unknown sends and late landings: reported applied = counted by WriterTable, at that offset."""
    partition = _Partition()
    numbering = Numbering(scan_from=0)
    applied: dict[int, int] = {}
    fences: set[int] = set()
    refused: set[int] = set()
    for _ in range(data.draw(st.integers(1, 6), label="batches")):
        partition.land_some(data)
        number = numbering.take()
        effect = partition.send(numbering, number, data.draw(st.sampled_from(ANSWERS), label="batch"))
        for _ in range(20):
            partition.land_some(data)
            if isinstance(effect, Fence):
                fences.add(effect.number)
                effect = partition.send(numbering, effect.number, data.draw(st.sampled_from(ANSWERS), label="fence"))
            elif isinstance(effect, Scan):
                records = list(enumerate(partition.log))[effect.start : effect.end]
                effect = numbering.scanned(Seen(offset, number) for offset, number in records)
            else:
                break
        else:
            return  # the partition took nothing for very long: nothing was reported
        assert effect.number == number
        if isinstance(effect, Applied):
            applied[number] = effect.offset
        else:
            assert isinstance(effect, NotThere)
            refused.add(number)
    partition.log += partition.parked  # whatever still flies lands now, too late

    table = WriterTable()
    counted = {}
    for offset, number in enumerate(partition.log):
        if table.take(WRITER, number, log_time_us=0) and number not in fences:
            counted[number] = offset
    assert counted == applied
    assert not refused & counted.keys()


def test_a_late_batch_does_not_count_behind_its_fence() -> None:
    """Batch 1 is unknown, fence 2 is unknown but landed, then 1 lands, then fence 3 is acknowledged: 1 does not count."""
    numbering = Numbering(scan_from=0)
    assert numbering.take() == 1
    assert numbering.unknown(1) == Fence(2)
    assert numbering.unknown(2) == Fence(3)
    assert numbering.acknowledged(3, 2) == Scan(0, 3)
    assert numbering.scanned([Seen(0, 2), Seen(1, 1), Seen(2, 3)]) == NotThere(1)
    assert numbering.next_number == 4


def test_a_trimmed_range_settles_nothing_but_the_numbers() -> None:
    """The batch's fate is not known; what follows is settled from behind its fence."""
    numbering = Numbering(scan_from=0)
    numbering.take()
    numbering.unknown(1)
    assert numbering.acknowledged(2, 5) == Scan(0, 6)
    assert numbering.trimmed() == Lost(1)
    assert numbering.take() == 3
    assert numbering.unknown(3) == Fence(4)
    assert numbering.acknowledged(4, 8) == Scan(6, 9)
    assert numbering.scanned([Seen(7, 3), Seen(8, 4)]) == Applied(3, 7)


def test_a_failed_batch_uses_its_number_up() -> None:
    """After a certain failure the next batch has a new number and needs no fence."""
    numbering = Numbering(scan_from=5)
    assert numbering.take() == 1
    assert numbering.failed(1) == NotThere(1)
    assert numbering.take() == 2
    assert numbering.acknowledged(2, 5) == Applied(2, 5)
