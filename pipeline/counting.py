"""Reads outcomes from Kafka for `reconcile`: once, or until all have arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final, Self

from pipeline import codec, headers, schema_ids
from pipeline.adapters.kafka import KafkaReader, Record, Slice
from pipeline.errors import Rejected
from pipeline.events import Position
from pipeline.ranges import Bound, Edge, Range
from pipeline.reconcile import Reconciliation, Span, Tally
from pipeline.resources import shipped
from pipeline.settings import Settings, TopicSettings

_POLL_S: Final = 0.25
_APART: Final = 500
"""Records that are read rather than skipped between two places to look at."""
_SEEN_ENOUGH: Final = 1_000
"""Inputs without an outcome, after which no further look makes the count balance."""


class Counting:
    """Inputs of both topics, fixed when opened, against outcomes read so far.

    `unreadable` counts records that are neither verdict nor dead letter.
    """

    def __init__(
        self,
        reader: KafkaReader,
        topics: TopicSettings,
        inputs: list[Span],
        schemas: codec.Schemas,
    ) -> None:
        self._reader = reader
        self._topics = topics
        self._tally = Tally(inputs)
        self._schemas = schemas
        self._read: dict[tuple[str, int], int] = {}
        self.unreadable = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, start: Bound = Edge.START) -> AsyncIterator[Self]:
        """Count inputs from `start` to where their topics end now.

        Outcomes are read from `start`, too: none is older than its input.
        """
        topics, schemas = settings.topics, codec.load_schemas(shipped("schemas"))
        await schema_ids.adopt(schemas, settings)
        async with KafkaReader(settings.kafka) as reader:
            span = Range(start=start, end=Edge.END)
            inputs = [
                Span(topic=topic, partition=part.partition, start=part.start, end=part.end)
                for topic in (topics.prompts, topics.completions)
                for part in await reader.within(topic, span)
            ]
            counting = cls(reader, topics, inputs, schemas)
            for topic in (topics.verdicts, topics.dead_letters):
                counting._read |= await reader.starts(topic, start)
            yield counting

    async def refresh(self) -> Reconciliation:
        """Read what outcomes came since the last time; return the balance."""
        for topic in (self._topics.verdicts, self._topics.dead_letters):
            async for record in self._reader.read(topic, await self._new(topic)):
                self._count(record)
        return self._tally.report()

    async def settled(self, *, within_s: float) -> Reconciliation:
        """Refresh until no input misses its outcome, or the time is over.

        Offsets at which no record lies miss nothing: they are looked at once nothing moves.
        """
        deadline_s = time.monotonic() + within_s
        before, looked = -1, -1
        while True:
            report = await self.refresh()
            over, missing = time.monotonic() > deadline_s, report.total("missing")
            if missing and (over or before == missing != looked):
                report = await self._without_gaps()
                looked = missing = report.total("missing")
            if not missing or over:
                return report
            before = missing
            await asyncio.sleep(_POLL_S)

    async def _without_gaps(self) -> Reconciliation:
        """Read back where outcomes are missing, and count no offset that holds no record."""
        held: dict[tuple[str, int], int] = {}
        for topic in (self._topics.prompts, self._topics.completions):
            for part in await self._reader.bounds(topic):
                held[topic, part.partition] = part.start
        left = _SEEN_ENOUGH
        for span in self._tally.lacking(apart=_APART):
            # What retention has deleted was an input, for all that is known.
            start = max(span.start, held[span.topic, span.partition])
            if left > 0 and start < span.end:
                left -= await self._look(replace(span, start=start), left)
        return self._tally.report()

    async def _look(self, span: Span, most: int) -> int:
        """How many inputs without an outcome lie there, at most `most`; what is none is marked."""
        at, found = span.start, 0
        only = Slice(partition=span.partition, start=span.start, end=span.end)
        async with aclosing(self._reader.read(span.topic, [only])) as records:
            async for record in records:
                self._tally.empty(replace(span, start=at, end=record.offset))
                at = record.offset + 1
                found += self._tally.lacks(_position(record))
                if found >= most:
                    return found
        self._tally.empty(replace(span, start=at))
        return found

    async def _new(self, topic: str) -> list[Slice]:
        """What the partitions hold beyond what was read."""
        found = []
        for part in await self._reader.bounds(topic):
            at = (topic, part.partition)
            start = max(self._read.get(at, part.start), part.start)
            self._read[at] = part.end
            found.append(Slice(partition=part.partition, start=start, end=part.end))
        return found

    def _count(self, record: Record) -> None:
        try:
            if record.topic == self._topics.verdicts:
                self._tally.verdict(codec.decode_verdict(record.value or b"", self._schemas).source)
            else:
                letter = headers.dead_letter(key=None, value=None, headers=record.headers)
                self._tally.dead_letter(letter.position)
        except (Rejected, ValueError):
            self.unreadable += 1


def _position(record: Record) -> Position:
    return Position(topic=record.topic, partition=record.partition, offset=record.offset)
