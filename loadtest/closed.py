"""The closed loop's window: how many messages are under way, and when one has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from loadtest import stamp
from pipeline import codec
from pipeline.adapters.kafka import KafkaReader, Record
from pipeline.errors import Rejected
from pipeline.ranges import Edge
from pipeline.resources import shipped
from pipeline.settings import Settings


class Window:
    """So many slots; a message holds one from `enter` until its outcome is seen or it `leave`s."""

    def __init__(self, run: str, slots: int) -> None:
        self._run = run
        self._free = asyncio.Semaphore(slots)
        self._under_way: dict[int, float] = {}
        self._schemas = codec.load_schemas(shipped("schemas"))

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, run: str, slots: int) -> AsyncIterator[Self]:
        """A window that watches verdicts and dead letters from now on."""
        window = cls(run, slots)
        async with KafkaReader(settings.kafka) as reader:
            starts: dict[tuple[str, int], int] = {}
            for topic in (settings.topics.verdicts, settings.topics.dead_letters):
                starts |= await reader.starts(topic, Edge.END)
            watching = asyncio.create_task(window._watch(reader, starts, settings))
            try:
                yield window
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def enter(self, sequence: int, *, timeout_s: float) -> None:
        """Wait for a slot and take it; a message without outcome gives its up in the end."""
        while True:
            try:
                async with asyncio.timeout(min(1.0, timeout_s)):
                    await self._free.acquire()
                break
            except TimeoutError:
                self._expire(timeout_s)
        self._under_way[sequence] = time.monotonic()

    def leave(self, sequence: int) -> None:
        """Free a message's slot: it has its outcome, or Kafka did not take it."""
        if self._under_way.pop(sequence, None) is not None:
            self._free.release()

    async def drained(self, timeout_s: float) -> None:
        """Return when nothing is under way, or after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while self._under_way and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)

    async def _watch(
        self, reader: KafkaReader, starts: dict[tuple[str, int], int], settings: Settings
    ) -> None:
        async for record in reader.follow(starts):
            ended = self._sequence(record, verdict=record.topic == settings.topics.verdicts)
            if ended is not None:
                self.leave(ended)

    def _sequence(self, record: Record, *, verdict: bool) -> int | None:
        if not verdict:
            found = stamp.read(record.headers)
            return found.sequence if found and found.run == self._run else None
        try:
            judged = codec.decode_verdict(record.value or b"", self._schemas)
        except Rejected:
            return None
        return stamp.sequence_of(judged.message_id, self._run)

    def _expire(self, timeout_s: float) -> None:
        limit_s = time.monotonic() - timeout_s
        for sequence in [each for each, at in self._under_way.items() if at < limit_s]:
            self.leave(sequence)
