"""Outcomes counted from topics in memory: offsets that hold no record miss nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from pipeline import codec, headers
from pipeline.adapters.kafka import Record, Slice
from pipeline.counting import Counting
from pipeline.reconcile import Span
from pipeline.resources import shipped
from pipeline.settings import TopicSettings

TOPICS = TopicSettings()
INPUTS = TOPICS.prompts


@dataclass
class Log:
    """A reader of inputs at some offsets of one partition, and of dead letters of some."""

    end: int
    inputs: frozenset[int]
    judged: frozenset[int]
    start: int = 0
    read_back: list[int] = field(default_factory=list)

    async def bounds(self, topic: str) -> list[Slice]:
        """What the topics hold."""
        ends = {INPUTS: self.end, TOPICS.dead_letters: len(self.judged)}
        start = self.start if topic == INPUTS else 0
        return [Slice(partition=0, start=start, end=ends.get(topic, 0))]

    async def read(self, topic: str, slices: Iterable[Slice]) -> AsyncGenerator[Record, None]:
        """Records of a slice, none where there is none."""
        for part in slices:
            for offset in range(part.start, part.end):
                if topic == INPUTS and offset in self.inputs:
                    self.read_back.append(offset)
                    yield _record(topic, offset)
                elif topic == TOPICS.dead_letters:
                    yield _record(topic, offset, sorted(self.judged)[offset])


def _record(topic: str, offset: int, judged: int | None = None) -> Record:
    stamped = () if judged is None else _letter(judged)
    return Record(
        topic=topic, partition=0, offset=offset, timestamp_ms=0, key=None, value=None,
        headers=stamped,
    )  # fmt: skip


def _letter(offset: int) -> headers.Headers:
    return (
        (headers.DLQ_TOPIC, INPUTS.encode()),
        (headers.DLQ_PARTITION, b"0"),
        (headers.DLQ_OFFSET, str(offset).encode()),
        (headers.DLQ_REASON, b"empty-text"),
        (headers.DLQ_DETAIL, b""),
        (headers.DLQ_FAILED_AT, b"2026-01-01T00:00:00+00:00"),
    )


def _counting(log: Log) -> Counting:
    spans = [Span(topic=INPUTS, partition=0, start=log.start, end=log.end)]
    return Counting(log, TOPICS, spans, codec.load_schemas(shipped("schemas")))  # type: ignore[arg-type]


async def test_the_ends_of_transactions_miss_no_outcome() -> None:
    """Every tenth offset holds the mark of a commit, which no consumer sees."""
    inputs = frozenset(offset for offset in range(10_000) if offset % 10 != 9)
    report = await _counting(Log(10_000, inputs, inputs)).settled(within_s=0)
    assert report.balanced
    assert report.total("inputs") == report.total("dead_letters") == 9_000


async def test_an_input_without_an_outcome_is_still_missing() -> None:
    """Also where gaps lie before and behind it; and one wait does not outlast the gaps."""
    inputs = frozenset({0, 2, 3, 5})
    report = await _counting(Log(8, inputs, inputs - {3})).settled(within_s=0)
    (part,) = [part for part in report.partitions if part.topic == INPUTS]
    assert (part.inputs, part.missing, part.missing_examples) == (4, 1, (3,))


async def test_gaps_do_not_use_up_the_wait() -> None:
    """Once nothing moves they are looked at, long before the time is over."""
    inputs = frozenset({0, 2})
    assert (await _counting(Log(4, inputs, inputs)).settled(within_s=600)).balanced


async def test_only_the_surroundings_of_what_is_missing_are_read() -> None:
    """The records far from a gap are not."""
    inputs = frozenset(range(100_000)) - {50_000}
    log = Log(100_000, inputs, inputs)
    assert (await _counting(log).settled(within_s=0)).balanced
    assert log.read_back == []


async def test_a_count_that_cannot_balance_is_not_read_to_the_end() -> None:
    """With nothing judged, some records are read, not the topic."""
    log = Log(100_000, frozenset(range(100_000)), frozenset())
    report = await _counting(log).settled(within_s=0)
    assert report.total("missing") == 100_000
    assert len(log.read_back) == 1_000


async def test_what_retention_has_deleted_counts_as_an_input() -> None:
    """It cannot be looked at any more."""
    log = Log(10, frozenset(range(10)), frozenset(range(5, 10)))
    counting = _counting(log)
    log.start = 5
    report = await counting.settled(within_s=0)
    assert report.total("missing") == 5
