"""The topics over aiokafka: as they should be, made, and missing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from pipeline.adapters.kafka import DEAD_LETTER_ROOM
from pipeline.adapters.kafka_connection import open_admin
from pipeline.errors import Misconfigured
from pipeline.settings import KafkaSettings, TopicSettings

_DAY_MS: Final = 24 * 3600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """How the topic of a role is made; `room_bytes` on top of the largest message.

    A `single` topic has one partition: its order is that of the facts in it.
    `retention_ms` None: compacted, the latest record of each key stays.
    """

    retention_ms: int | None
    room_bytes: int = 0
    single: bool = False


ROLES: Final = {
    "prompts": Role(retention_ms=7 * _DAY_MS),
    "completions": Role(retention_ms=7 * _DAY_MS),
    "verdicts": Role(retention_ms=30 * _DAY_MS),
    "audit": Role(retention_ms=365 * _DAY_MS, room_bytes=DEAD_LETTER_ROOM),
    "dead_letters": Role(retention_ms=28 * _DAY_MS, room_bytes=DEAD_LETTER_ROOM),
    "policies": Role(retention_ms=None, single=True),
    "chain_heads": Role(retention_ms=None, single=True),
}
"""Every topic by its name in `TopicSettings`."""


def wanted_topics(topics: TopicSettings) -> dict[str, NewTopic]:
    """The topics as they should be, by name."""
    return {getattr(topics, name): _wanted(name, role, topics) for name, role in ROLES.items()}


def _wanted(name: str, role: Role, topics: TopicSettings) -> NewTopic:
    kept = (
        {"cleanup.policy": "compact"}
        if role.retention_ms is None
        else {"cleanup.policy": "delete", "retention.ms": str(role.retention_ms)}
    )
    return NewTopic(
        name=getattr(topics, name),
        num_partitions=1 if role.single else topics.partitions,
        replication_factor=topics.replication_factor,
        topic_configs={
            **kept,
            "max.message.bytes": str(topics.max_message_bytes + role.room_bytes),
        },
    )


async def create_topics(settings: KafkaSettings, topics: TopicSettings) -> list[str]:
    """Create the topics that are missing; returns the names created."""
    async with open_admin(settings) as admin:
        wanted = wanted_topics(topics)
        missing = [wanted[name] for name in wanted if name not in await admin.list_topics()]
        if missing:
            _raise_for(await admin.create_topics(missing, timeout_ms=15_000))
        await _until_led(admin, list(wanted))
        return [topic.name for topic in missing]


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
    """The names of those topics that do not exist."""
    async with open_admin(settings) as admin:
        present = set(await admin.list_topics())
    return [name for name in wanted_topics(topics) if name not in present]
