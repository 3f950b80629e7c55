"""Kafka's administrative questions over aiokafka: topics as they are, the cluster, lag."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    NotCoordinatorForGroupError,
)

from pipeline.adapters.kafka import KafkaReader
from pipeline.adapters.kafka_connection import open_admin
from pipeline.adapters.kafka_topics import wanted_topics
from pipeline.settings import KafkaSettings, TopicSettings
from pipeline.topic_check import TopicShape

_ANSWER_WITHIN_S: Final = 5.0
_CONFIGS: Final = ("max.message.bytes", "cleanup.policy")


async def cluster_brokers(settings: KafkaSettings) -> list[str]:
    """The brokers' addresses; raises DependencyUnavailable naming the one we asked."""
    async with _admin(settings) as admin:
        cluster = await admin.describe_cluster()
        return [f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]]


def wanted_shapes(topics: TopicSettings) -> dict[str, TopicShape]:
    """The topics as they should be, by name."""
    return {
        name: TopicShape(
            partitions=topic.num_partitions,
            replication_factor=topic.replication_factor,
            max_message_bytes=int(topic.topic_configs["max.message.bytes"]),
            cleanup_policy=topic.topic_configs["cleanup.policy"],
        )
        for name, topic in wanted_topics(topics).items()
    }


async def found_shapes(settings: KafkaSettings, names: Sequence[str]) -> dict[str, TopicShape]:
    """Those of the named topics that exist, as they are."""
    async with _admin(settings) as admin:
        # Asking about a topic that is not there would create it on a lenient broker.
        there = sorted(set(names) & set(await admin.list_topics()))
        if not there:
            return {}
        described = await admin.describe_topics(there)
        configs = await _configs(admin, there)
    return {topic["topic"]: _shape(topic, configs[topic["topic"]]) for topic in described}


async def committed(settings: KafkaSettings, group: str) -> dict[tuple[str, int], int]:
    """A group's committed offsets by topic and partition; empty for an unknown group.

    Raises DependencyUnavailable when the group's coordinator does not answer.
    """
    async with _admin(settings) as admin:
        while True:
            try:
                offsets = await admin.list_consumer_group_offsets(group)
            except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
                # A fresh cluster makes its offsets topic when first asked; the deadline holds.
                await asyncio.sleep(0.1)
            else:
                return {(tp.topic, tp.partition): at.offset for tp, at in offsets.items()}


def open_reader(settings: KafkaSettings) -> KafkaReader:
    """A reader of topics, for `async with`."""
    return KafkaReader(settings)


def _admin(settings: KafkaSettings) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
    return open_admin(settings, within_s=_ANSWER_WITHIN_S)


async def _configs(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> Mapping[str, Mapping[str, str]]:
    """The settings that we compare, by topic."""
    asked = [
        ConfigResource(ConfigResourceType.TOPIC, name, configs=dict.fromkeys(_CONFIGS))
        for name in names
    ]
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(asked):
        for _code, _message, _type, name, entries in response.resources:
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def _shape(topic: Mapping[str, Any], configs: Mapping[str, str]) -> TopicShape:
    partitions = topic["partitions"]
    return TopicShape(
        partitions=len(partitions),
        replication_factor=min((len(part["replicas"]) for part in partitions), default=0),
        max_message_bytes=int(configs.get("max.message.bytes", 0)),
        cleanup_policy=configs.get("cleanup.policy", "unknown"),
    )
