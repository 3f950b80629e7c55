"""The work as a bare aiokafka loop: getmany, batches, pre-built producer batches.

Offsets are committed once everything before them is acknowledged. It has no
rebalance handling, no dead letters, no metrics and no back pressure: it is a
floor to measure against, not something to run.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from loadtest.bench.contenders import BATCH
from loadtest.bench.peers import stopping
from loadtest.bench.work import Work, open_work
from pipeline.adapters.kafka import security
from pipeline.events import Position
from pipeline.ports import Outgoing
from pipeline.settings import Settings

_POLL_RECORDS: Final = 500

Routed = tuple[int, Outgoing]
"""A record and the partition it goes to."""


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Consume, judge, produce, commit, until told to stop."""
    consumer = AIOKafkaConsumer(
        settings.topics.prompts,
        **security(settings.kafka),
        group_id=settings.kafka.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    producer = AIOKafkaProducer(
        **security(settings.kafka),
        acks="all",
        enable_idempotence=True,
        linger_ms=1,
        max_batch_size=256 * 1024,
        compression_type="zstd",
    )
    async with consumer, producer, open_work(settings) as work:
        await _loop(consumer, producer, work, settings, stop)


async def _loop(
    consumer: AIOKafkaConsumer,
    producer: AIOKafkaProducer,
    work: Work,
    settings: Settings,
    stop: asyncio.Event,
) -> None:
    done: dict[TopicPartition, int] = {}
    committed_s = time.monotonic()
    while not stop.is_set():
        polled = await consumer.getmany(timeout_ms=100, max_records=_POLL_RECORDS)
        records = [record for part in polled.values() for record in part]
        await asyncio.gather(
            *(
                _batch(producer, work, records[start : start + BATCH])
                for start in range(0, len(records), BATCH)
            )
        )
        done |= {tp: part[-1].offset + 1 for tp, part in polled.items()}
        if done and time.monotonic() - committed_s >= settings.kafka.commit_interval_s:
            await consumer.commit(done)
            done, committed_s = {}, time.monotonic()
    if done:
        await consumer.commit(done)


async def _batch(producer: AIOKafkaProducer, work: Work, records: Sequence[Any]) -> None:
    """Judge some records and have both outcomes of each acknowledged."""
    cases = [
        work.desk.admit(
            record.value,
            Position(topic=record.topic, partition=record.partition, offset=record.offset),
            record.headers,
        )
        for record in records
    ]
    # Inputs are keyed as outcomes are, so an outcome's partition is its input's.
    routed = [
        (record.partition, outcome)
        for record, pair in zip(records, await work.judge(cases), strict=True)
        for outcome in pair
    ]
    await _produce(producer, routed)


async def _produce(producer: AIOKafkaProducer, routed: Iterable[Routed]) -> None:
    by_place: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
    for partition, outcome in routed:
        by_place[outcome.topic, partition].append(outcome)
    waiting = [
        await _send(producer, topic, partition, outcomes)
        for (topic, partition), outcomes in by_place.items()
    ]
    await asyncio.gather(*waiting)


async def _send(
    producer: AIOKafkaProducer, topic: str, partition: int, outcomes: Sequence[Outgoing]
) -> Any:
    batch = producer.create_batch()
    for outcome in outcomes:
        added = batch.append(
            key=outcome.key,
            value=outcome.value,
            timestamp=None,
            headers=list(outcome.headers),
        )
        if added is None:
            raise RuntimeError(f"{len(outcomes)} outcomes do not fit into one batch")
    batch.close()
    return await producer.send_batch(batch, topic, partition=partition)


if __name__ == "__main__":
    stopping.main(run)
