"""The composition root of the administrative commands: settings in, answers out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping

from pipeline import dlq, schema_check, topic_check
from pipeline.adapters import kafka_admin
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader, Record, Slice
from pipeline.adapters.kafka_topics import create_topics
from pipeline.adapters.registry import Registry
from pipeline.errors import Misconfigured
from pipeline.events import Position
from pipeline.ports import Outgoing, Publisher
from pipeline.ranges import Bound, Edge, Range
from pipeline.resources import shipped
from pipeline.schema_ids import subjects
from pipeline.settings import Settings

_SEND_AT_ONCE = 100
_SEND_AT_ONCE_BYTES = 8 * 1024 * 1024


async def make_topics(settings: Settings) -> dict[str, bool]:
    """Create the topics that are missing; all by name, True where created."""
    created = await create_topics(settings.kafka, settings.topics)
    return {name: name in created for name in kafka_admin.wanted_shapes(settings.topics)}


async def check_topics(settings: Settings) -> list[topic_check.TopicSetting]:
    """Every setting of the topics, wanted and found."""
    wanted = kafka_admin.wanted_shapes(settings.topics)
    found = await kafka_admin.found_shapes(settings.kafka, list(wanted))
    return topic_check.compare(wanted, found, compactable=(settings.topics.verdicts,))


async def slices_of(reader: KafkaReader, topic: str, when: Range) -> list[Slice]:
    """A topic's offsets in a time range, by Kafka's timestamps; the end is fixed now."""
    bounds = await reader.bounds(topic)
    starts = await _offsets(reader, topic, when.start, bounds)
    ends = await _offsets(reader, topic, when.end, bounds)
    return [
        Slice(partition=part.partition, start=starts[part.partition], end=ends[part.partition])
        for part in bounds
    ]


async def _offsets(
    reader: KafkaReader, topic: str, bound: Bound, bounds: list[Slice]
) -> dict[int, int]:
    if isinstance(bound, Edge):
        return {p.partition: p.start if bound is Edge.START else p.end for p in bounds}
    return await reader.offsets_at(topic, bound)


async def dead_letters(
    reader: KafkaReader, topic: str, slices: Collection[Slice]
) -> AsyncIterator[dlq.Found]:
    """The dead letters in slices of their topic; foreign records are passed over."""
    async for record in reader.read(topic, slices):
        if letter := _found(record):
            yield letter


async def all_dead_letters(settings: Settings, when: Range) -> AsyncIterator[dlq.Found]:
    """The dead letters in a time range; it ends where their topic ends now."""
    topic = settings.topics.dead_letters
    async with kafka_admin.open_reader(settings.kafka) as reader:
        slices = await slices_of(reader, topic, when)
        async for letter in dead_letters(reader, topic, slices):
            yield letter


async def dead_letter_slices(settings: Settings, when: Range) -> list[Slice]:
    """Where in their topic the dead letters of a time range lie now."""
    async with kafka_admin.open_reader(settings.kafka) as reader:
        return await slices_of(reader, settings.topics.dead_letters, when)


async def send_again(
    settings: Settings,
    chosen: Collection[Position],
    on_sent: Callable[[int], None] = lambda _count: None,
) -> int:
    """Publish the dead letters at `chosen` to their original topics; how many.

    They are read once more, so that only a part of them is held at a time;
    one that names another topic than an input topic is not sent.
    `on_sent` gets the count so far.
    """
    topic, sent = settings.topics.dead_letters, 0
    limit = settings.topics.max_message_bytes
    async with (
        kafka_admin.open_reader(settings.kafka) as reader,
        KafkaPublisher(settings.kafka, max_message_bytes=limit) as publisher,
    ):
        slices = _covering(chosen)
        pending: list[Outgoing] = []
        async for letter in dead_letters(reader, topic, slices):
            if letter.at in chosen and dlq.is_of_input(letter.letter, settings.topics):
                pending.append(dlq.again(letter.letter))
            if _is_full(pending):
                sent += await _flush(publisher, pending)
                on_sent(sent)
        return sent + await _flush(publisher, pending)


async def _flush(publisher: Publisher, pending: list[Outgoing]) -> int:
    await publisher.publish(pending)
    count = len(pending)
    pending.clear()
    return count


def _is_full(pending: list[Outgoing]) -> bool:
    size_bytes = sum(len(record.value or b"") for record in pending)
    return len(pending) >= _SEND_AT_ONCE or size_bytes >= _SEND_AT_ONCE_BYTES


def _covering(chosen: Collection[Position]) -> list[Slice]:
    """One slice a partition, from its first chosen offset to its last."""
    offsets: dict[int, list[int]] = {}
    for position in chosen:
        offsets.setdefault(position.partition, []).append(position.offset)
    return [
        Slice(partition=partition, start=min(found), end=max(found) + 1)
        for partition, found in offsets.items()
    ]


def _found(record: Record) -> dlq.Found | None:
    at = Position(topic=record.topic, partition=record.partition, offset=record.offset)
    return dlq.found(at, key=record.key, value=record.value, record_headers=record.headers)


async def registered(settings: Settings) -> dict[str, int | None]:
    """The registry's id by subject, None where it lacks ours."""
    registry, ours = Registry(settings.registry), schema_check.texts(shipped("schemas"))
    return {
        subject: await registry.lookup(subject, ours[schema])
        for schema, subject in subjects(settings.topics).items()
    }


async def register(settings: Settings) -> dict[str, int]:
    """Register our schemas; the ids by subject. Raises Misconfigured if refused."""
    if not settings.registry.url:
        raise Misconfigured(
            "no schema registry is configured",
            remedy="Set registry.url; without a registry the ids of schemas/ids.json serve",
        )
    registry, ours = Registry(settings.registry), schema_check.texts(shipped("schemas"))
    return {
        subject: await registry.register(subject, ours[schema])
        for schema, subject in subjects(settings.topics).items()
    }


async def lag(settings: Settings) -> Mapping[str, int]:
    """Messages of each input topic that the worker's group has not committed."""
    committed = await kafka_admin.committed(settings.kafka, settings.kafka.group)
    async with kafka_admin.open_reader(settings.kafka) as reader:
        return {
            topic: sum(
                part.end - max(part.start, committed.get((topic, part.partition), part.start))
                for part in await reader.bounds(topic)
            )
            for topic in (settings.topics.prompts, settings.topics.completions)
        }
