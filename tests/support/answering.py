"""Topics of a test's own, and a few lines that answer prompts as a worker would."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from pipeline import codec, headers
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader, Record
from pipeline.adapters.kafka_topics import ROLES, create_topics
from pipeline.events import (
    Action,
    Coverage,
    DeadLetter,
    Kind,
    PolicyRef,
    Position,
    Status,
    Verdict,
)
from pipeline.ports import Outgoing
from pipeline.ranges import Edge
from pipeline.resources import shipped
from pipeline.settings import Settings, load

SCHEMAS = codec.load_schemas(shipped("schemas"))


async def own_topics(bootstrap_servers: str) -> Settings:
    """Settings with topics of two partitions that nobody else uses."""
    own = uuid.uuid4().hex[:8]
    names: dict[str, Any] = {role: f"{role}-{own}" for role in ROLES}
    loaded = load(
        {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "topics": {**names, "partitions": 2},
        }
    )
    await create_topics(loaded.kafka, loaded.topics)
    return loaded


def verdict_of(record: Record, *, action: Action = Action.ALLOW) -> Verdict:
    """A verdict on a published record, as the worker would make it."""
    message = codec.decode_avro(record.value or b"", Kind.PROMPT, SCHEMAS)
    source = Position(topic=record.topic, partition=record.partition, offset=record.offset)
    now = datetime.now(UTC)
    return Verdict(
        verdict_id=str(source), message_id=message.message_id, tenant=message.tenant,
        conversation_id=message.conversation_id, kind=message.kind, action=action,
        status=Status.SCORED, reason="", taxonomy="t", scores={}, flagged=(),
        coverage=Coverage(scanned_tokens=1, total_tokens=1), guards=(),
        policy=PolicyRef(id="p", version="1", digest="d"), received_at=now, scored_at=now,
        emitted_at=now, source=source,
    )  # fmt: skip


def dead_letter_of(record: Record) -> DeadLetter:
    """A dead letter of a published record, as the worker would make it."""
    return DeadLetter(
        position=Position(topic=record.topic, partition=record.partition, offset=record.offset),
        key=record.key, value=record.value, headers=record.headers, reason="empty-text",
        detail="the text is empty", failed_at=datetime.now(UTC),
    )  # fmt: skip


def outcome(settings: Settings, record: Record) -> Outgoing:
    """A verdict; a dead letter where the text is empty; `block` where it says bad."""
    text = codec.decode_avro(record.value or b"", Kind.PROMPT, SCHEMAS).text
    if not text:
        letter = dead_letter_of(record)
        return Outgoing(
            topic=settings.topics.dead_letters, key=letter.key, value=letter.value,
            headers=headers.provenance(letter),
        )  # fmt: skip
    verdict = verdict_of(record, action=Action.BLOCK if "bad" in text else Action.ALLOW)
    return Outgoing(
        topic=settings.topics.verdicts, key=verdict.message_id.encode(),
        value=codec.encode_verdict(verdict, SCHEMAS), headers=(),
    )  # fmt: skip


@asynccontextmanager
async def worker(settings: Settings, *, times: int = 1) -> AsyncIterator[None]:
    """Answer every prompt from now on, each outcome `times` over."""

    async def answer(publisher: KafkaPublisher, reader: KafkaReader) -> None:
        async for record in reader.follow(starts):
            await publisher.publish([outcome(settings, record)] * times)

    async with (
        KafkaPublisher(settings.kafka, max_message_bytes=1_000_000) as publisher,
        KafkaReader(settings.kafka) as reader,
    ):
        starts = await reader.starts(settings.topics.prompts, Edge.END)
        task = asyncio.create_task(answer(publisher, reader))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
