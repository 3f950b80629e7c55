"""Reads outcomes from Kafka for `reconcile`: once, or until all have arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from pipeline import codec, headers, schema_ids
from pipeline.adapters.kafka import KafkaReader, Record, Slice
from pipeline.errors import Rejected
from pipeline.ranges import Bound, Edge, Range
from pipeline.reconcile import Reconciliation, Span, Tally
from pipeline.resources import shipped
from pipeline.settings import Settings, TopicSettings

_POLL_S: Final = 0.25


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
        """Refresh until no input misses its outcome, or the time is over."""
        deadline_s = time.monotonic() + within_s
        while True:
            report = await self.refresh()
            if not report.total("missing") or time.monotonic() > deadline_s:
                return report
            await asyncio.sleep(_POLL_S)

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
