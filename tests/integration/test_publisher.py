"""Publisher and reader on the real broker: whole batches, right partitions, quiet ends."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict

import pytest
from aiokafka import TopicPartition

from pipeline.adapters.kafka import KafkaPublisher, KafkaReader
from pipeline.adapters.kafka_topics import ROLES, create_topics
from pipeline.embedded import EmbeddedKafka
from pipeline.errors import Misconfigured, Retryable
from pipeline.ports import Outgoing
from pipeline.settings import Settings, load

LIMIT = 1_000_000


@pytest.fixture
async def settings(kafka: EmbeddedKafka) -> Settings:
    """Topics of the test's own, of three partitions."""
    own = uuid.uuid4().hex[:8]
    made = load({
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        "topics": {role: f"{role}-{own}" for role in ROLES} | {"partitions": 3},
    })  # fmt: skip
    await create_topics(made.kafka, made.topics)
    return made


def _record(settings: Settings, key: bytes | None, value: bytes) -> Outgoing:
    return Outgoing(topic=settings.topics.audit, key=key, value=value, headers=(("h", b"1"),))


async def _values(settings: Settings) -> dict[int, list[bytes | None]]:
    found: dict[int, list[bytes | None]] = defaultdict(list)
    topic = settings.topics.audit
    async with KafkaReader(settings.kafka) as reader:
        async for record in reader.read(topic, await reader.bounds(topic)):
            found[record.partition].append(record.value)
    return found


async def test_more_than_a_batch_is_published_in_order(settings: Settings) -> None:
    """A megabyte in one call, one record larger than a batch among it."""
    values = [b"%06d" % n + bytes(1000) for n in range(1000)]
    values[500] = b"000500" + bytes(400_000)
    async with KafkaPublisher(settings.kafka, max_message_bytes=LIMIT) as publisher:
        await publisher.publish(
            [_record(settings, b"%d" % (n % 7), v) for n, v in enumerate(values)]
        )
    found = await _values(settings)
    assert sorted(v or b"" for part in found.values() for v in part) == values
    assert all(part == sorted(part, key=lambda v: v or b"") for part in found.values())


async def test_a_key_has_the_partition_that_every_client_gives_it(settings: Settings) -> None:
    """What is published and what is sent under one key lie together."""
    keys = [uuid.uuid4().hex.encode() for _ in range(60)]
    async with KafkaPublisher(settings.kafka, max_message_bytes=LIMIT) as publisher:
        sent = [await publisher.send(_record(settings, key, b"sent")) for key in keys]
        places = [(await task).partition for task in sent]
        assert await publisher.partitions(settings.topics.audit, keys) == places


async def test_records_without_a_key_go_together(settings: Settings) -> None:
    """To one partition of those there are."""
    async with KafkaPublisher(settings.kafka, max_message_bytes=LIMIT) as publisher:
        await publisher.publish([_record(settings, None, b"%d" % n) for n in range(9)])
    assert [len(part) for part in (await _values(settings)).values()] == [9]


async def test_batches_of_a_partition_keep_the_order_of_the_calls(settings: Settings) -> None:
    """Queued side by side, each acknowledged at the offset where it lies."""
    async with KafkaPublisher(settings.kafka, max_message_bytes=LIMIT) as publisher:
        pending = []
        for number in range(20):
            records = [_record(settings, b"k", b"%d" % number)] * 3
            taken, acknowledged = await publisher.append(settings.topics.audit, 1, records)
            assert taken == 3
            pending.append(acknowledged)
        assert await asyncio.gather(*pending) == [number * 3 for number in range(20)]


async def test_a_record_that_no_topic_takes_is_named(settings: Settings) -> None:
    """Larger than any message may be: a person must raise the limit."""
    async with KafkaPublisher(settings.kafka, max_message_bytes=1000) as publisher:
        with pytest.raises(Misconfigured, match="larger than its topic takes"):
            await publisher.publish([_record(settings, b"k", bytes(100_000))])


async def test_a_producer_that_lost_its_place_begins_anew(settings: Settings) -> None:
    """A hole in a partition's sequence fails what is under way, as retryable, and no more."""
    async with KafkaPublisher(settings.kafka, max_message_bytes=LIMIT) as publisher:
        await publisher.publish([_record(settings, b"k", b"before")])
        (partition,) = await publisher.partitions(settings.topics.audit, [b"k"])
        # As a batch leaves it that was sent, and whose answer never came.
        publisher._producer._txn_manager.increment_sequence_number(
            TopicPartition(settings.topics.audit, partition), 5
        )
        with pytest.raises(Retryable):
            await publisher.publish([_record(settings, b"k", b"lost")])
        await publisher.publish([_record(settings, b"k", b"after")])
        at = await (await publisher.send(_record(settings, b"k", b"sent")))
    assert (await _values(settings))[partition] == [b"before", b"after", b"sent"]
    assert at.partition == partition


async def test_a_reader_that_reads_nothing_closes_quietly(settings: Settings) -> None:
    """Closed as soon as it is open, as by a replay that had only its report left to write."""
    async with KafkaReader(settings.kafka):
        pass
