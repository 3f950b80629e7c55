"""A producer that lost its place is replaced: nobody waits for ever, nothing overtakes.

The publisher, aiokafka's accumulator and its sender are the real ones; only the
broker is scripted: the first producer's batches of partition 0 are out of sequence.
"""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    OutOfOrderSequenceNumber,
    SaslAuthenticationFailed,
)

from pipeline.adapters import kafka, kafka_connection
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.errors import DependencyUnavailable, Retryable
from pipeline.ports import Outgoing
from pipeline.settings import KafkaSettings

RECORD = Outgoing(topic="t", key=b"k", value=b"v", headers=())
PARTITIONS = {0, 1}


class _Broker:
    """Two partitions, and which producer wrote each batch of them, in the order they came."""

    def __init__(self, *, slow_s: float) -> None:
        self.slow_s = slow_s
        self.written: dict[int, list[int]] = {partition: [] for partition in PARTITIONS}
        self.producers = itertools.count(1)


class _Client:
    """aiokafka's connection, answered by the scripted broker."""

    def __init__(self, broker: _Broker) -> None:
        self.broker = broker
        self.id = 0
        self._client_id = "test"
        self.cluster = SimpleNamespace(
            leader_for_partition=lambda _: 0, partitions_for_topic=lambda _: PARTITIONS
        )

    async def bootstrap(self) -> None:
        """There is nothing to find."""

    async def close(self) -> None:
        """There is nothing to close."""

    def get_random_node(self) -> int:
        """The only one."""
        return 0

    async def _wait_on_metadata(self, _topic: str) -> set[int]:
        return PARTITIONS

    async def _maybe_wait_metadata(self) -> None:
        """Known from the start."""

    def force_metadata_update(self) -> asyncio.Future[None]:
        """At once."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def send(self, _node: int, request: Any, group: Any = None) -> Any:
        """Number a producer, or take its batches."""
        if type(request).__name__.startswith("InitProducerId"):
            self.id = next(self.broker.producers)
            return SimpleNamespace(error_code=0, producer_id=self.id, producer_epoch=0)
        await asyncio.sleep(self.broker.slow_s if self.id == 1 else 0.001)
        topics = [
            (topic, [self._taken(partition) for partition, _ in batches])
            for topic, batches in request._topics
        ]
        return SimpleNamespace(topics=topics, API_VERSION=7)

    def _taken(self, partition: int) -> tuple[int, int, int, int, int]:
        if partition == 0 and self.id == 1:
            return partition, OutOfOrderSequenceNumber.errno, -1, -1, 0
        self.broker.written[partition].append(self.id)
        return partition, 0, len(self.broker.written[partition]) - 1, -1, 0


def _publisher(monkeypatch: pytest.MonkeyPatch, broker: _Broker) -> KafkaPublisher:
    made = KafkaPublisher._made

    def scripted(self: KafkaPublisher) -> Any:
        producer, client = made(self), _Client(broker)
        producer.client, producer._metadata = client, client.cluster
        producer._sender.client = client
        producer._message_accumulator._cluster = client.cluster
        return producer

    monkeypatch.setattr(KafkaPublisher, "_made", scripted)
    monkeypatch.setattr(kafka, "_LAST_WORDS_S", 0.3)
    return KafkaPublisher(KafkaSettings(), max_message_bytes=10**6)


@pytest.mark.parametrize("slow_s", [0.02, 1.0], ids=["flushed", "cut-off"])
async def test_everybody_hears_and_no_batch_is_overtaken(
    monkeypatch: pytest.MonkeyPatch, slow_s: float
) -> None:
    """Each append ends, if need be with an error that means again; then the new producer writes."""
    broker = _Broker(slow_s=slow_s)
    async with _publisher(monkeypatch, broker) as publisher:

        async def written(partition: int) -> int:
            for attempt in itertools.count(1):
                try:
                    _, offset = await publisher.append("t", partition, [RECORD])
                    await offset
                except Retryable:
                    continue
                return attempt
            raise AssertionError

        work = [written(partition) for _ in range(12) for partition in sorted(PARTITIONS)]
        attempts = await asyncio.wait_for(asyncio.gather(*work), timeout=10.0)
        # What a cut-off sender might still have sent would come by now.
        await asyncio.sleep(slow_s)
    assert max(attempts) > 1
    assert set(broker.written[0]) == {2}
    assert broker.written[1] == sorted(broker.written[1])


async def test_a_broker_that_refuses_for_a_while_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The credentials were good when it started; the new producer is tried again."""

    async def no_connection() -> None:
        raise KafkaConnectionError

    async def refuse(*_: Any, **__: Any) -> None:
        raise SaslAuthenticationFailed

    settings = KafkaSettings.model_validate(
        {"security_protocol": "SASL_PLAINTEXT", "username": "u", "password": "p"}
    )
    publisher = KafkaPublisher(settings, max_message_bytes=10**6)
    fresh = publisher._producer
    monkeypatch.setattr(fresh, "start", no_connection)
    monkeypatch.setattr(publisher, "_made", lambda: fresh)
    monkeypatch.setattr(kafka_connection, "create_conn", refuse)
    publisher._lost_its_place = True
    with pytest.raises(DependencyUnavailable, match="refuses the credentials"):
        await publisher.publish([RECORD])
