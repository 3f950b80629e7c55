"""The five topics over aiokafka: as they should be, made, and missing."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from pipeline.adapters.kafka import DEAD_LETTER_ROOM, connected, security
from pipeline.errors import Misconfigured
from pipeline.settings import KafkaSettings, TopicSettings

RETENTION_MS: Final = {
    "prompts": 7 * 24 * 3600_000,
    "completions": 7 * 24 * 3600_000,
    "verdicts": 30 * 24 * 3600_000,
    "audit": 365 * 24 * 3600_000,
    "dead_letters": 28 * 24 * 3600_000,
}


def wanted_topics(topics: TopicSettings) -> dict[str, NewTopic]:
    """The five topics as they should be, by name."""
    return {
        name: NewTopic(
            name=name,
            num_partitions=topics.partitions,
            replication_factor=topics.replication_factor,
            topic_configs={
                "cleanup.policy": "delete",
                "retention.ms": str(RETENTION_MS[role]),
                "max.message.bytes": str(_max_bytes(role, topics)),
            },
        )
        for role, name in _roles(topics).items()
    }


def _roles(topics: TopicSettings) -> dict[str, str]:
    return {role: getattr(topics, role) for role in RETENTION_MS}


def _max_bytes(role: str, topics: TopicSettings) -> int:
    extra = DEAD_LETTER_ROOM if role in ("dead_letters", "audit") else 0
    return topics.max_message_bytes + extra


async def create_topics(settings: KafkaSettings, topics: TopicSettings) -> list[str]:
    """Create the topics that are missing; returns the names created."""
    admin = AIOKafkaAdminClient(**security(settings))
    await connected(admin.start, admin.close, settings)
    try:
        wanted = wanted_topics(topics)
        missing = [wanted[name] for name in wanted if name not in await admin.list_topics()]
        if missing:
            _raise_for(await admin.create_topics(missing, timeout_ms=15_000))
        await _until_led(admin, list(wanted))
        return [topic.name for topic in missing]
    finally:
        await admin.close()


def _raise_for(response: Any) -> None:
    for topic, code, *rest in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise Misconfigured(
                f"topic {topic!r} was not created: {rest[0] if rest else code}",
                remedy="Check topics.partitions, topics.replication_factor and the name",
            )


async def _until_led(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until every partition has a leader, so that the first produce succeeds."""
    deadline_s = time.monotonic() + 15.0
    while time.monotonic() < deadline_s:
        described = await admin.describe_topics(names)
        partitions = [part for topic in described for part in topic["partitions"]]
        if partitions and all(part["leader"] >= 0 for part in partitions):
            return
        await asyncio.sleep(0.1)


async def missing_topics(settings: KafkaSettings, topics: TopicSettings) -> list[str]:
    """The names of those of the five topics that do not exist."""
    admin = AIOKafkaAdminClient(**security(settings))
    await connected(admin.start, admin.close, settings)
    try:
        present = set(await admin.list_topics())
    finally:
        await admin.close()
    return [name for name in wanted_topics(topics) if name not in present]
