"""What contenders wrote: how far they are, and whether it is what it had to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline import codec, wiring
from pipeline.adapters.kafka import KafkaReader, security
from pipeline.errors import Misconfigured
from pipeline.events import Status, Verdict
from pipeline.settings import Settings


class Ends:
    """How many records topics hold, asked cheaply; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = settings.topics.partitions
        self._consumer = AIOKafkaConsumer(**security(settings.kafka), group_id=None)

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._consumer.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self._consumer.stop()

    async def total(self, topic: str) -> int:
        """Records in a topic that nobody has deleted from."""
        tps = [TopicPartition(topic, number) for number in range(self._partitions)]
        ends: Mapping[Any, int] = await self._consumer.end_offsets(tps)
        return sum(ends.values())


async def check(settings: Settings, messages: int, name: str) -> None:
    """Raise Misconfigured unless every message has one scored verdict and one audit event.

    Also when the group did not commit exactly to the end of the input.
    """
    schemas = wiring.load_schemas()

    def verdict_of(value: bytes) -> Verdict:
        """The verdict that a record of the verdicts topic is."""
        return codec.decode_verdict(value, schemas)

    def audited_of(value: bytes) -> Verdict:
        """The verdict inside a record of the audit topic."""
        return codec.decode_audit(value, schemas).verdict

    async with KafkaReader(settings.kafka) as reader:
        topics = settings.topics
        for topic, read in ((topics.verdicts, verdict_of), (topics.audit, audited_of)):
            require(name, topic, await _verdicts(reader, topic, read), messages)
        committed = sum((await reader.committed(settings.kafka.group, topics.prompts)).values())
    if committed != messages:
        raise _broken(name, f"committed {committed:,} of {messages:,} messages")


async def _verdicts(
    reader: KafkaReader, topic: str, read: Callable[[bytes], Verdict]
) -> list[Verdict]:
    slices = await reader.bounds(topic)
    return [read(record.value or b"") async for record in reader.read(topic, slices)]


def require(name: str, topic: str, found: list[Verdict], messages: int) -> None:
    """One verdict for each message, a guard's score in each; raises Misconfigured."""
    different = len({verdict.message_id for verdict in found})
    if len(found) != messages or different != messages:
        raise _broken(
            name, f"wrote {len(found):,} records, {different:,} different, to {topic}:"
            f" {messages:,} of both were due"
        )  # fmt: skip
    unscored = sum(verdict.status is not Status.SCORED for verdict in found)
    if unscored:
        raise _broken(name, f"left {unscored:,} of {messages:,} messages unscored in {topic}")


def _broken(name: str, problem: str) -> Misconfigured:
    return Misconfigured(
        f"contender {name} {problem}",
        remedy="Its figures would mean nothing: correct it, or leave it out with --only",
    )
