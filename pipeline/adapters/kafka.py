"""Kafka over aiokafka: publish with acknowledgement, read bounded slices, topics."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from pipeline import metrics
from pipeline.adapters import kafka_records
from pipeline.adapters.kafka_connection import (
    connected,
    failed,
    open_admin,
    security,
    unreachable,
)
from pipeline.adapters.partitions import places
from pipeline.errors import DependencyUnavailable, Misconfigured, Retryable, SluiceError
from pipeline.events import Position
from pipeline.headers import Headers
from pipeline.ports import Outgoing
from pipeline.ranges import Bound, Edge, Range
from pipeline.settings import KafkaSettings

__all__ = ["DEAD_LETTER_ROOM", "KafkaPublisher", "KafkaReader", "Record", "Slice", "security"]

log = structlog.get_logger(__name__)
kafka_records.install()

_Told = TypeVar("_Told")
_LAST_WORDS_S: Final = 1.0
_CLOSED_WITHIN_S: Final = 3.0

DEAD_LETTER_ROOM: Final = 64 * 1024
"""Bytes that provenance headers may add to a message that was already at its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as read: raw bytes, Kafka's timestamp in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Offsets [start, end) of one partition."""

    partition: int
    start: int
    end: int


class KafkaPublisher:
    """A `Publisher` and `Appender` that waits for all in-sync replicas; an async context manager.

    Without `idempotent` a record may be repeated and records may change
    places, but no record can stop those that follow. `linger_ms` is how long
    a record waits for others to share its batch.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        max_message_bytes: int,
        idempotent: bool = True,
        linger_ms: int = 1,
    ) -> None:
        self._settings = settings
        self._max_bytes = max_message_bytes + DEAD_LETTER_ROOM
        self._idempotent = idempotent
        self._linger_ms = linger_ms
        self._producer = self._made()
        self._lost_its_place = False
        self._renewing = asyncio.Lock()

    def _made(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **security(self._settings),
            acks="all",
            enable_idempotence=self._idempotent,
            linger_ms=self._linger_ms,
            max_batch_size=256 * 1024,
            max_request_size=self._max_bytes,
            compression_type="zstd",
            request_timeout_ms=int(self._settings.request_timeout_s * 1000),
        )

    async def __aenter__(self) -> Self:
        """Connect; raises DependencyUnavailable naming the address, or Misconfigured."""
        await connected(self._producer.start, self._producer.stop, self._settings)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, within seconds: who needed an acknowledgement has awaited it.

        Not `asyncio.timeout`: aiokafka lets a request under way end, whoever is cancelled.
        """
        closing = asyncio.ensure_future(_end(self._producer))
        for closed in (await asyncio.wait({closing}, timeout=_CLOSED_WITHIN_S))[0]:
            closed.result()

    async def _usable(self) -> AIOKafkaProducer:
        """The producer; a new one where the last lost its place in a partition's sequence.

        After a batch that was sent and never answered the broker may refuse
        all that follow (OutOfOrderSequenceNumber): aiokafka's producer then
        fails everything of that partition and is of no more use.
        """
        async with self._renewing:
            if self._lost_its_place:
                await self._begin_anew()
        return self._producer

    async def _begin_anew(self) -> None:
        """Replace the producer; what the old one has not sent by then is given up.

        Before anything goes to the new one: a batch that overtook an older one would
        put an audit chain out of order.
        """
        fresh, spent = self._made(), self._producer
        await connected(fresh.start, fresh.stop, self._settings, again=True)
        self._producer, self._lost_its_place = fresh, False
        log.warning("producer-begun-anew")
        await _end(spent)

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Return once every record is acknowledged; see `ports.Publisher`."""
        pending: list[asyncio.Future[int]] = []
        for (topic, partition), group in (await self.by_place(records)).items():
            taken = 0
            while taken < len(group):
                count, acknowledged = await self.append(topic, partition, group[taken:])
                pending.append(acknowledged)
                taken += count
        for result in await asyncio.gather(*pending, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def by_place(
        self, records: Sequence[Outgoing]
    ) -> Mapping[tuple[str, int], Sequence[Outgoing]]:
        """The records by topic and partition, in order; raises what `partitions` raises."""
        keys: dict[str, list[bytes | None]] = defaultdict(list)
        for record in records:
            keys[record.topic].append(record.key)
        partitions = {
            topic: iter(await self.partitions(topic, asked)) for topic, asked in keys.items()
        }
        places: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for record in records:
            places[record.topic, next(partitions[record.topic])].append(record)
        return places

    async def partitions(self, topic: str, keys: Sequence[bytes | None]) -> list[int]:
        """As Kafka's default partitioner chooses; records without a key go together."""
        producer = await self._usable()
        try:
            present = sorted(await producer.client._wait_on_metadata(topic))
        except KafkaError as error:
            raise self._failed(error, producer) from error
        anywhere = random.choice(present)  # noqa: S311 - spreads load, decides nothing
        told = iter(places([key for key in keys if key is not None]))
        return [anywhere if key is None else present[next(told) % len(present)] for key in keys]

    async def append(
        self, topic: str, partition: int, records: Sequence[Outgoing]
    ) -> tuple[int, asyncio.Future[int]]:
        """Queue as many records as one batch holds; see `ports.Appender`."""
        producer = await self._usable()
        batch = producer.create_batch()
        taken = 0
        try:
            for record in records:
                if not self._add(batch, record):
                    break
                taken += 1
            batch.close()
            queued = await producer.send_batch(batch, topic, partition=partition)
        except KafkaError as error:
            raise self._failed(error, producer) from error
        return taken, self._answer(producer, queued, lambda at: int(at.offset))

    def _add(self, batch: Any, record: Outgoing) -> bool:
        """Put a record into a batch; False when the batch is full."""
        if len(record.value or b"") > self._max_bytes:
            raise MessageSizeTooLargeError
        added = batch.append(
            key=record.key, value=record.value, timestamp=None, headers=list(record.headers)
        )
        return added is not None

    def _answer(
        self, producer: AIOKafkaProducer, queued: asyncio.Future[Any], read: Callable[[Any], _Told]
    ) -> asyncio.Future[_Told]:
        """What the broker says to what was queued, with errors in our words.

        What went to a producer that was replaced meanwhile counts as lost.
        """
        answer: asyncio.Future[_Told] = asyncio.get_running_loop().create_future()

        def heard(at: asyncio.Future[Any]) -> None:
            error = ProducerClosed() if at.cancelled() else at.exception()
            if answer.done():  # given up before, or whoever waited was cancelled
                return
            if error is None:
                answer.set_result(read(at.result()))
            else:
                _fail(answer, self._failed(error, producer), error)

        queued.add_done_callback(heard)
        if producer is not self._producer:
            _fail(answer, self._failed(ProducerClosed(), producer))
        return answer

    def _failed(self, error: BaseException, of: AIOKafkaProducer) -> SluiceError:
        metrics.PUBLISH_ERRORS.inc()
        if of is self._producer and isinstance(error, OutOfOrderSequenceNumber):
            self._lost_its_place = True
        return _mapped(error, self._settings)

    async def send(self, record: Outgoing) -> asyncio.Future[Position]:
        """Queue a record behind those sent before; the future ends with its acknowledgement.

        Waits while the buffer is full. It and the future raise what `publish` raises.
        """
        producer = await self._usable()
        try:
            queued = await producer.send(
                record.topic, record.value, key=record.key, headers=list(record.headers)
            )
        except KafkaError as error:
            raise _mapped(error, self._settings) from error
        return self._answer(producer, queued, _position)


def _position(at: Any) -> Position:
    return Position(topic=at.topic, partition=at.partition, offset=at.offset)


def _fail(
    answer: asyncio.Future[Any], failure: SluiceError, cause: BaseException | None = None
) -> None:
    failure.__cause__ = cause
    answer.set_exception(failure)
    answer.exception()  # so that asyncio does not complain where nobody waits


async def _end(spent: AIOKafkaProducer) -> None:
    """Stop a producer; what it cannot send at once it never will, and whoever waits is told.

    aiokafka's own stop leaves those waiting who queued while it flushed, and one that is
    cut short leaves the sender at work.
    """
    with suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_S):
            await spent.stop()
    spent._message_accumulator.fail_all(ProducerClosed())
    for close in (spent._sender.close, spent.client.close):
        # A sender that would try again what was failed here ends with a KeyError.
        with suppress(KafkaError, KeyError):
            await close()


def _mapped(error: BaseException, settings: KafkaSettings) -> SluiceError:
    """Foreign errors in our words: is it worth another try?"""
    if isinstance(error, MessageSizeTooLargeError):
        return Misconfigured(
            "a record is larger than its topic takes",
            remedy="Raise max.message.bytes of the audit and dead-letter topics"
            " (`sluice topics check` compares them)",
        )
    if isinstance(error, ProducerClosed):
        return Retryable(
            "the producer was replaced before the broker answered",
            remedy="It is tried again by itself",
        )
    if isinstance(error, TopicAuthorizationFailedError):
        return Misconfigured("the broker refuses this user", remedy="Grant WRITE on the topics")
    if isinstance(error, UnknownTopicOrPartitionError):
        return DependencyUnavailable(
            "an output topic does not exist", remedy="Run `sluice topics create`"
        )
    if isinstance(error, KafkaError) and not isinstance(error, OutOfOrderSequenceNumber):
        lasting = not error.retriable and not _transient(error)
        return _refused(error) if lasting else unreachable(settings, error)
    return Retryable(
        f"publishing failed ({type(error).__name__})", remedy="It is tried again by itself"
    )


def _refused(error: KafkaError) -> Misconfigured:
    again = "nothing was acknowledged, so Kafka delivers it again"
    if isinstance(error, InvalidTimestampError):
        return Misconfigured(
            "the broker refuses this host's time of day",
            remedy=f"Set this host's clock right, and the broker's; {again}",
        )
    return Misconfigured(
        f"the broker will not take a record ({type(error).__name__})",
        remedy=f"Restart the worker; {again}",
    )


def _transient(error: KafkaError) -> bool:
    return isinstance(error, KafkaConnectionError) or "Timeout" in type(error).__name__


class KafkaReader:
    """Reads slices of topics without a consumer group; an async context manager.

    `wait_ms`: how long the broker may hold a fetch that finds nothing. A long
    one makes following a quiet topic cheap and delays no record. `again`: as
    `connected` has it.
    """

    def __init__(self, settings: KafkaSettings, *, wait_ms: int = 100, again: bool = False) -> None:
        self._settings = settings
        self._again = again
        self._wait_ms = wait_ms
        self._consumer = AIOKafkaConsumer(
            **security(settings),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",  # a silent jump would read as records that are missing
            fetch_max_wait_ms=wait_ms,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )

    async def __aenter__(self) -> Self:
        """Connect; raises DependencyUnavailable naming the address, or Misconfigured."""
        await connected(
            self._consumer.start, self._consumer.stop, self._settings, again=self._again
        )
        # aiokafka's stop raises CancelledError where a task of its start never ran.
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; what aiokafka raised meanwhile leaves as one of our errors."""
        await self._consumer.stop()
        if isinstance(error, KafkaError):
            raise failed(self._settings, error) from error

    async def partitions(self, topic: str) -> list[int]:
        """A topic's partitions; raises Misconfigured when it does not exist."""
        # The first metadata answer may predate the topic, so ask again for a moment.
        for _ in range(20):
            await self._consumer._client.force_metadata_update()
            found = self._consumer._client.cluster.partitions_for_topic(topic) or set()
            if not found:
                self._consumer._client.add_topic(topic)
                await asyncio.sleep(0.05)
                continue
            return sorted(found)
        raise Misconfigured(f"there is no topic {topic!r}", remedy="Run `sluice topics create`")

    async def bounds(self, topic: str) -> list[Slice]:
        """The offsets each partition holds now."""
        tps = [TopicPartition(topic, partition) for partition in await self.partitions(topic)]
        starts = await self._consumer.beginning_offsets(tps)
        ends = await self._consumer.end_offsets(tps)
        return [Slice(partition=tp.partition, start=starts[tp], end=ends[tp]) for tp in tps]

    async def offsets_at(self, topic: str, timestamp_ms: int) -> dict[int, int]:
        """First offset at or after a time, by partition; the end where there is none."""
        bounds = await self.bounds(topic)
        asked = {TopicPartition(topic, part.partition): timestamp_ms for part in bounds}
        found = await self._consumer.offsets_for_times(asked)
        ends = {part.partition: part.end for part in bounds}
        return {
            tp.partition: at.offset if at is not None else ends[tp.partition]
            for tp, at in found.items()
        }

    async def within(self, topic: str, span: Range) -> list[Slice]:
        """What each partition holds of a time range, which may be nothing."""
        bounds = await self.bounds(topic)
        starts = await self._edges(topic, span.start, bounds)
        ends = await self._edges(topic, span.end, bounds)
        return [
            Slice(partition=part.partition, start=starts[part.partition], end=ends[part.partition])
            for part in bounds
        ]

    async def starts(self, topic: str, bound: Bound) -> dict[tuple[str, int], int]:
        """The offset in each partition that a bound stands for, as `follow` takes it."""
        edges = await self._edges(topic, bound, await self.bounds(topic))
        return {(topic, partition): offset for partition, offset in edges.items()}

    async def _edges(self, topic: str, bound: Bound, bounds: Sequence[Slice]) -> dict[int, int]:
        if bound is Edge.START:
            return {part.partition: part.start for part in bounds}
        if bound is Edge.END:
            return {part.partition: part.end for part in bounds}
        return await self.offsets_at(topic, int(bound))

    async def read(self, topic: str, slices: Iterable[Slice]) -> AsyncGenerator[Record, None]:
        """Every record of the slices; bounds are fixed, so it ends.

        Raises DependencyUnavailable when the broker deletes what was not read yet.
        Offsets without a record (compaction, the end of a transaction) are passed over.
        """
        left = {
            TopicPartition(topic, part.partition): part for part in slices if part.end > part.start
        }
        self._assign({tp: part.start for tp, part in left.items()})
        while left:
            try:
                batches = await self._consumer.getmany(timeout_ms=200)
            except OffsetOutOfRangeError as error:
                if gone := _out_of_range(error) & left.keys():
                    tp = min(gone)
                    raise _deleted(tp, await self._consumer.position(tp)) from error
                continue  # it is of a partition that is read to its end
            for tp, records in batches.items():
                for record in records:
                    if tp in left and record.offset < left[tp].end:
                        yield _record(record)
            for tp in list(left):
                # Position, not the last offset: the tail may be gaps of compaction.
                if await self._consumer.position(tp) >= left[tp].end:
                    del left[tp]
                    self._consumer.pause(tp)

    async def follow(self, starts: Mapping[tuple[str, int], int]) -> AsyncIterator[Record]:
        """Records from the given offsets on, or the first that is kept, for ever."""
        self._assign({TopicPartition(*where): offset for where, offset in starts.items()})
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=2 * self._wait_ms)
            except OffsetOutOfRangeError as error:
                if gone := _out_of_range(error) & self._consumer.assignment():
                    await self._consumer.seek_to_beginning(*gone)
                continue
            for records in batches.values():
                for record in records:
                    yield _record(record)

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """A group's committed offsets of a topic, by partition."""
        async with open_admin(self._settings) as admin:
            offsets = await admin.list_consumer_group_offsets(group)
        return {tp.partition: at.offset for tp, at in offsets.items() if tp.topic == topic}

    def _assign(self, starts: Mapping[TopicPartition, int]) -> None:
        self._consumer.assign(list(starts))
        for tp, offset in starts.items():
            self._consumer.seek(tp, offset)


def _record(record: Any) -> Record:
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )


def _out_of_range(error: OffsetOutOfRangeError) -> set[TopicPartition]:
    """The partitions whose offsets were asked for in vain."""
    return set(error.args[0])


def _deleted(tp: TopicPartition, offset: int) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"retention deleted what was being read: offset {offset} of partition {tp.partition} of"
        f" {tp.topic} is gone",
        remedy="Run it again, from a later start if it cannot keep up; a replay cannot be resumed"
        " from there, so begin another",
    )
