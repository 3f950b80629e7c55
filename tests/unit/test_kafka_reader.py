"""Bounded reads never jump: what the broker deletes meanwhile ends them, gaps do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from pipeline.adapters.kafka import KafkaReader, Record, Slice
from pipeline.errors import DependencyUnavailable
from pipeline.settings import load

ONE, TWO = TopicPartition("t", 0), TopicPartition("t", 1)
Answer = dict[TopicPartition, list[int]] | OffsetOutOfRangeError


@dataclass
class Consumer:
    """Answers as aiokafka does that resets no offset: records, positions or an error."""

    answers: list[Answer]
    places: dict[TopicPartition, int] = field(default_factory=dict)
    begun_again: list[TopicPartition] = field(default_factory=list)

    def assign(self, tps: list[TopicPartition]) -> None:
        """Read these."""
        self.places = dict.fromkeys(tps, 0)

    def assignment(self) -> frozenset[TopicPartition]:
        """What is read."""
        return frozenset(self.places)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on from there."""
        self.places[tp] = offset

    def pause(self, tp: TopicPartition) -> None:
        """Nothing to do."""

    async def position(self, tp: TopicPartition) -> int:
        """The offset after what was read."""
        return self.places[tp]

    async def seek_to_beginning(self, *tps: TopicPartition) -> None:
        """Go on from the first record."""
        self.begun_again += tps

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """The next answer; the last offset of each partition is a gap."""
        answer = self.answers.pop(0)
        if isinstance(answer, OffsetOutOfRangeError):
            raise answer
        for tp, offsets in answer.items():
            self.places[tp] = offsets[-1] + 1
        return {
            tp: [_record(tp, offset) for offset in offsets[:-1]] for tp, offsets in answer.items()
        }


def _record(tp: TopicPartition, offset: int) -> Any:
    return SimpleNamespace(
        topic=tp.topic, partition=tp.partition, offset=offset, timestamp=0, key=None, value=b"",
        headers=(),
    )  # fmt: skip


@pytest.fixture
async def reader() -> AsyncIterator[KafkaReader]:
    """One that is not connected."""
    made = KafkaReader(load().kafka)
    real = made._consumer
    yield made
    await real.stop()


def _slices(*bounds: tuple[int, int]) -> list[Slice]:
    return [Slice(partition=n, start=start, end=end) for n, (start, end) in enumerate(bounds)]


async def _read(reader: KafkaReader, slices: list[Slice]) -> list[tuple[int, int]]:
    return [(r.partition, r.offset) async for r in reader.read("t", slices)]


async def test_no_offset_is_reset_silently(reader: KafkaReader) -> None:
    """The client would otherwise go on with the first record that is left."""
    assert reader._consumer._auto_offset_reset == "none"


async def test_what_is_deleted_while_it_is_read_ends_the_reading(reader: KafkaReader) -> None:
    """With the place and what to do, and no exit code that means a broken chain."""
    reader._consumer = Consumer([{ONE: [5, 6, 7]}, OffsetOutOfRangeError({ONE: 8})])
    with pytest.raises(DependencyUnavailable, match=r"retention deleted.*offset 8.*Run it again"):
        await _read(reader, _slices((5, 20)))


async def test_gaps_and_a_tail_without_records_are_passed_over(reader: KafkaReader) -> None:
    """As compaction and the ends of transactions leave them."""
    reader._consumer = Consumer([{ONE: [5, 9]}, {ONE: [19]}])
    assert await _read(reader, _slices((5, 20))) == [(0, 5)]


async def test_a_partition_that_is_read_may_be_deleted(reader: KafkaReader) -> None:
    """The client asks ahead for what nobody wants any more."""
    gone = OffsetOutOfRangeError({ONE: 2})
    reader._consumer = Consumer([{ONE: [0, 1]}, gone, {TWO: [0, 1]}])
    assert await _read(reader, _slices((0, 2), (0, 2))) == [(0, 0), (1, 0)]


async def test_following_goes_on_with_the_first_record_that_is_kept(reader: KafkaReader) -> None:
    """Whoever follows wants what comes, and has no bounds."""
    consumer = Consumer([OffsetOutOfRangeError({ONE: 3}), {ONE: [8, 9]}])
    reader._consumer = consumer
    found: Record = await anext(reader.follow({("t", 0): 3}))
    assert (found.offset, consumer.begun_again) == (8, [ONE])
