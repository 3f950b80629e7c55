"""Copies an audit log with its chain heads, so that one thing in the copy can be changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from msgspec import structs

from pipeline import chain_heads, codec
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader
from pipeline.adapters.kafka_topics import create_topics
from pipeline.events import AuditEvent
from pipeline.ports import Outgoing
from pipeline.settings import Settings
from tests.support.places import SCHEMAS

Spoil = Callable[[list[bytes]], object]
"""Changes the frames of one partition in their order."""


def dropped(frames: list[bytes]) -> object:
    """One record is gone."""
    return frames.pop(len(frames) // 2)


def other_score(frames: list[bytes]) -> object:
    """A score was lowered, the rest is as it was."""
    at = len(frames) // 2
    event = codec.decode_audit(frames[at], SCHEMAS)
    frames[at] = codec.encode_audit(_with_score(event, 0.0078125), SCHEMAS)
    return None


def swapped(frames: list[bytes]) -> object:
    """Two neighbours changed places."""
    at = len(frames) // 2
    frames[at], frames[at + 1] = frames[at + 1], frames[at]
    return None


def truncated(frames: list[bytes]) -> object:
    """The last three records are gone."""
    del frames[-3:]
    return None


async def copy(settings: Settings, name: str, spoil: Spoil | None, *, partition: int) -> Settings:
    """Copy both topics record by record under a new name; `spoil` changes one partition."""
    named = settings.topics
    topics = named.model_copy(
        update={"audit": f"{named.audit}-{name}", "chain_heads": f"{named.chain_heads}-{name}"}
    )
    there = settings.model_copy(update={"topics": topics})
    await create_topics(settings.kafka, topics)
    async with (
        KafkaReader(settings.kafka) as reader,
        KafkaPublisher(settings.kafka, max_message_bytes=named.max_message_bytes) as publisher,
    ):
        for part in await reader.bounds(named.audit):
            frames = [r.value or b"" async for r in reader.read(named.audit, [part])]
            if spoil is not None and part.partition == partition:
                spoil(frames)
            await _append(publisher, topics.audit, part.partition, frames)
        bounds = await reader.bounds(named.chain_heads)
        async for record in reader.read(named.chain_heads, bounds):
            found = chain_heads.decode(record.value or b"", SCHEMAS)
            head = replace(found.head, topic=topics.audit)
            frame = chain_heads.encode(head, found.at, None, SCHEMAS)
            await _append(publisher, topics.chain_heads, 0, [frame], key=record.key)
    return there


async def _append(
    publisher: KafkaPublisher,
    topic: str,
    partition: int,
    frames: Sequence[bytes],
    *,
    key: bytes | None = b"k",
) -> None:
    records = [Outgoing(topic=topic, key=key, value=frame, headers=()) for frame in frames]
    while records:
        count, acknowledged = await publisher.append(topic, partition, records)
        await acknowledged
        records = records[count:]


def _with_score(event: AuditEvent, score: float) -> AuditEvent:
    scores = {**event.verdict.scores, next(iter(event.verdict.scores)): score}
    return structs.replace(event, verdict=structs.replace(event.verdict, scores=scores))
