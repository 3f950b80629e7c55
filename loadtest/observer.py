"""Reads verdicts and dead letters as an application would, and notes when each came."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self

import numpy as np

from loadtest import stamp
from loadtest.rows import COMPLETION, FIELDS, PROMPT, STATUSES
from pipeline import codec, headers
from pipeline.adapters.kafka import KafkaReader, Record
from pipeline.errors import Rejected, SluiceError
from pipeline.events import Position, Verdict
from pipeline.ranges import Edge
from pipeline.resources import shipped
from pipeline.settings import Settings


class Observer:
    """Outcomes since it was opened, as rows of `FIELDS`.

    `answered` are the sequence numbers that they carry, of this run alone.
    """

    def __init__(self, settings: Settings, run: str) -> None:
        topics = settings.topics
        self._run = run
        self._verdicts = topics.verdicts
        self._kinds = {topics.prompts: PROMPT, topics.completions: COMPLETION}
        self._schemas = codec.load_schemas(shipped("schemas"))
        self._rows = array("q")
        self._task: asyncio.Task[None] | None = None
        self.unreadable = 0
        self.answered: set[int] = set()
        self.policies: set[tuple[str, str, str]] = set()
        self.guards: set[tuple[str, str, str]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, run: str) -> AsyncIterator[Self]:
        """Watch both topics from where they end now."""
        observer = cls(settings, run)
        async with KafkaReader(settings.kafka) as reader:
            starts: dict[tuple[str, int], int] = {}
            for topic in (settings.topics.verdicts, settings.topics.dead_letters):
                starts |= await reader.starts(topic, Edge.END)
            task = observer._task = asyncio.create_task(observer._follow(reader, starts))
            try:
                yield observer
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def check(self) -> None:
        """Raise what ended the watching, if anything did."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()
            raise SluiceError("reading outcomes ended by itself", remedy="Run it again")

    def rows(self) -> np.ndarray[Any, Any]:
        """What was seen, int64 [outcomes, len(FIELDS)]."""
        return np.array(self._rows, dtype=np.int64).reshape(-1, len(FIELDS))

    async def _follow(self, reader: KafkaReader, starts: dict[tuple[str, int], int]) -> None:
        async for record in reader.follow(starts):
            seen_ns = time.monotonic_ns()
            try:
                if record.topic == self._verdicts:
                    self._verdict(record, seen_ns)
                else:
                    self._dead_letter(record, seen_ns)
            except (Rejected, ValueError):
                self.unreadable += 1

    def _verdict(self, record: Record, seen_ns: int) -> None:
        verdict = codec.decode_verdict(record.value or b"", self._schemas)
        self._name_parts(verdict)
        sequence = stamp.sequence_of(verdict.message_id, self._run)
        times = (verdict.received_at, verdict.scored_at, verdict.emitted_at)
        status = STATUSES.index(verdict.status)
        self._note(verdict.source, sequence, seen_ns, times, dead=False, status=status)

    def _dead_letter(self, record: Record, seen_ns: int) -> None:
        letter = headers.dead_letter(key=None, value=None, headers=record.headers)
        found = stamp.read(letter.headers)
        sequence = found.sequence if found and found.run == self._run else None
        self._note(letter.position, sequence, seen_ns, (None, None, letter.failed_at), dead=True)

    def _note(
        self,
        at: Position,
        sequence: int | None,
        seen_ns: int,
        times: tuple[datetime | None, ...],
        *,
        dead: bool,
        status: int = 0,
    ) -> None:
        kind = self._kinds.get(at.topic)
        if kind is None:
            return  # another deployment's input on a shared outcome topic
        if sequence is not None:
            self.answered.add(sequence)
        own = -1 if sequence is None else sequence
        stamps = [0 if moment is None else _micros(moment) for moment in times]
        self._rows.extend((int(dead), kind, at.partition, at.offset, own, seen_ns, *stamps, status))

    def _name_parts(self, verdict: Verdict) -> None:
        policy = verdict.policy
        self.policies.add((policy.id, policy.version, policy.digest))
        self.guards.update((each.name, each.version, each.digest) for each in verdict.guards)


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
