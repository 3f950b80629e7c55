"""Faults of the broker: away, cut off, full, or without the topics it should have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.adapters.kafka_topics import create_topics
from tests.chaos.catalogue import Broker, Scene, Seen, fault
from tests.support import places

_SILENT = "no acknowledgement from Kafka"
_ERRORS = "sluice_publish_errors_total"
BALLAST = "ballast"
"""A file beside the broker's logs that takes the room they need."""


@fault(
    "broker-restart",
    heals="started again",
    lasts_s=1.0,
    short_s=1.0,
    broker=Broker.OWN,
    unreadable=True,
    seen=Seen(alert="LagSecondsHigh", metric="sluice_consumer_lag_seconds"),
)
async def broker_restart(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL of the broker, and a start on what its disk holds."""
    await scene.kafka.kill()
    yield
    await scene.kafka.start()


@fault(
    "broker-stopped",
    heals="started again",
    lasts_s=60.0,
    broker=Broker.OWN,
    unreadable=True,
    seen=Seen(alert="PublishErrors", check="outputs", said=(_SILENT,), metric=_ERRORS),
)
async def broker_stopped(scene: Scene) -> AsyncIterator[None]:
    """An orderly stop of the broker, for a minute."""
    await scene.kafka.stop()
    yield
    await scene.kafka.start()


@fault(
    "connection-reset",
    heals="connections live again",
    lasts_s=6.0,
    broker=Broker.PROXIED,
    seen=Seen(said=("Got error produce response",), metric="sluice_messages_total", rises=100),
)
async def connection_reset(scene: Scene) -> AsyncIterator[None]:
    """Every tenth produce is cut by RST: half sent, or written and never answered."""
    assert scene.proxy is not None
    scene.proxy.every = 10
    yield
    scene.proxy.every = 0
    assert all(scene.proxy.cuts.values()), scene.proxy.cuts


@fault(
    "dead-letter-topic-missing",
    heals="`sluice topics create`",
    lasts_s=12.0,
    unreadable=True,
    malformed_every=sys.maxsize,
    seen=Seen(
        alert="PublishErrors", check="outputs", metric=_ERRORS,
        said=(_SILENT, "not found in cluster metadata"),
    ),
)  # fmt: skip
async def dead_letter_topic_missing(scene: Scene) -> AsyncIterator[None]:
    """Somebody deletes the dead-letter topic; then the first malformed messages come in."""
    settings = scene.place.settings
    async with _admin(scene) as admin:
        await admin.delete_topics([settings.topics.dead_letters])
    scene.load.malformed_every = 50
    yield
    await create_topics(settings.kafka, settings.topics)


@fault(
    "audit-refuses-large",
    heals="max.message.bytes raised again, the worker started again",
    lasts_s=1.0,
    short_s=0.5,
    seen=Seen(
        alert="WorkerNotReady", down=True, exit=2,
        said=("larger than its topic takes", "sluice topics check"),
    ),
)  # fmt: skip
async def audit_refuses_large(scene: Scene) -> AsyncIterator[None]:
    """The audit topic takes no record above 200 bytes any more."""
    limit = scene.place.settings.topics.max_message_bytes
    await _limit(scene, 200)
    await places.ended(scene.worker, within_s=20.0)
    yield
    await _limit(scene, limit)
    await scene.worker.start()


@fault(
    "broker-disk-full",
    heals="room is made, the broker started again",
    lasts_s=8.0,
    broker=Broker.SMALL_DISK,
    unreadable=True,
    unless=lambda: "" if os.geteuid() == 0 else "a small disk cannot be mounted: not root",
    seen=Seen(alert="PublishErrors", check="outputs", said=(_SILENT,), metric=_ERRORS),
)
async def broker_disk_full(scene: Scene) -> AsyncIterator[None]:
    """The disk of the broker's log folder is full: the broker gives up."""
    ballast = scene.kafka.log.parent / "topics" / BALLAST
    await asyncio.to_thread(_fill, ballast)
    yield
    await scene.kafka.kill()  # where it still stands, it has its only log folder offline
    assert "No space left" in scene.kafka.log.read_text(errors="replace")
    ballast.unlink()
    await scene.kafka.start()


def _fill(path: Path) -> None:
    """Write until nothing goes any more."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65_536))


@contextlib.asynccontextmanager
async def _admin(scene: Scene) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.kafka.bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _limit(scene: Scene, size_bytes: int) -> None:
    change = ConfigResource(
        ConfigResourceType.TOPIC,
        scene.place.settings.topics.audit,
        configs={"max.message.bytes": str(size_bytes)},
    )
    async with _admin(scene) as admin:
        await admin.alter_configs([change])
