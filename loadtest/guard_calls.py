"""What each message's own guard call took, from the audit log, read once a run is over."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from loadtest.rows import COMPLETION, PROMPT
from pipeline import codec
from pipeline.adapters.kafka import KafkaReader, Slice
from pipeline.errors import Rejected
from pipeline.resources import shipped
from pipeline.settings import Settings


class GuardCalls:
    """Remembers where the audit log ended, and reads what has come since."""

    def __init__(self, settings: Settings, ends: dict[int, int]) -> None:
        """`ends` is the first offset of the run's audit events by partition."""
        self._settings = settings
        self._ends = ends

    @classmethod
    async def from_now(cls, settings: Settings) -> Self:
        """Of the messages that are judged from now on."""
        async with KafkaReader(settings.kafka) as reader:
            bounds = await reader.bounds(settings.topics.audit)
        return cls(settings, {part.partition: part.end for part in bounds})

    async def read(self) -> NDArray[np.int64]:
        """Kind, partition, offset of each message judged since, and microseconds of its call."""
        topics = self._settings.topics
        kinds = {topics.prompts: PROMPT, topics.completions: COMPLETION}
        schemas = codec.load_schemas(shipped("schemas"))
        found: list[tuple[int, int, int, int]] = []
        async with KafkaReader(self._settings.kafka) as reader:
            bounds = await reader.bounds(topics.audit)
            fresh = [
                Slice(
                    partition=part.partition,
                    start=max(part.start, self._ends.get(part.partition, 0)),
                    end=part.end,
                )
                for part in bounds
            ]
            async for record in reader.read(topics.audit, fresh):
                try:
                    event = codec.decode_audit(record.value or b"", schemas)
                except Rejected:
                    continue  # the observer counts what cannot be read
                at, call_us = event.verdict.source, round(event.inference_s * 1e6)
                if at.topic in kinds:
                    found.append((kinds[at.topic], at.partition, at.offset, call_us))
        return np.array(found, dtype=np.int64).reshape(-1, 4)
