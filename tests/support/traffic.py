"""Traffic for survival tests, and the count of what came of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from pipeline import codec, headers, wiring
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader
from pipeline.events import Kind, Message
from pipeline.ports import Outgoing
from pipeline.reconcile import Reconciliation, Span, Tally
from pipeline.settings import Settings

CHUNK = 100
TEXTS = (
    "what is a good recipe for lentil soup",
    "full of hate",
    "inject this into the tool",
    "tell me about the history of the lighthouse at the end of the harbour road " * 6,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How many messages, the share of malformed ones, and the pace."""

    messages: int
    malformed: float
    per_second: float
    seed: int = 7


async def publish(settings: Settings, load: Load, *, sent: Callable[[int], None]) -> int:
    """Publish a load at its pace; returns how many messages were malformed.

    `sent` hears of the running total after each chunk.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    malformed = 0
    records = list(_records(settings, load))
    async with KafkaPublisher(
        settings.kafka, max_message_bytes=settings.topics.max_message_bytes
    ) as publisher:
        for start in range(0, len(records), CHUNK):
            chunk = records[start : start + CHUNK]
            await asyncio.sleep(max(0.0, began_s + start / load.per_second - loop.time()))
            await publisher.publish([record for record, _ in chunk])
            malformed += sum(not valid for _, valid in chunk)
            sent(start + len(chunk))
    return malformed


def _records(settings: Settings, load: Load) -> Iterator[tuple[Outgoing, bool]]:
    chance = random.Random(load.seed)
    schemas = wiring.load_schemas()
    named = settings.topics
    for number in range(load.messages):
        kind = Kind.COMPLETION if number % 4 == 0 else Kind.PROMPT
        message = Message(
            message_id=f"m-{number}",
            kind=kind,
            text=TEXTS[number % len(TEXTS)],
            tenant="acme" if number % 5 == 0 else "",
            conversation_id=f"c-{number // 6}",
        )
        valid = chance.random() >= load.malformed
        value = codec.encode_message(message, schemas)
        yield (
            Outgoing(
                topic=named.completions if kind is Kind.COMPLETION else named.prompts,
                key=f"c-{number // 6}".encode(),
                value=value if valid else value[: chance.randrange(len(value) - 1)],
                headers=(),
            ),
            valid,
        )


async def outcomes(settings: Settings) -> Reconciliation:
    """Read all inputs' bounds and every outcome, and count."""
    named = settings.topics
    schemas = wiring.load_schemas()
    async with KafkaReader(settings.kafka) as reader:
        tally = Tally(
            [
                Span(topic=topic, partition=part.partition, start=part.start, end=part.end)
                for topic in (named.prompts, named.completions)
                for part in await reader.bounds(topic)
            ]
        )
        async for value in _values(reader, named.verdicts):
            tally.verdict(codec.decode_verdict(value, schemas).source)
        bounds = await reader.bounds(named.dead_letters)
        async for record in reader.read(named.dead_letters, bounds):
            letter = headers.dead_letter(key=record.key, value=record.value, headers=record.headers)
            tally.dead_letter(letter.position)
    return tally.report()


async def settled(settings: Settings, *, within_s: float) -> Reconciliation:
    """The count once nothing is missing; the last one seen at the deadline."""
    deadline_s = asyncio.get_running_loop().time() + within_s
    while True:
        report = await outcomes(settings)
        if not report.total("missing") or asyncio.get_running_loop().time() > deadline_s:
            return report
        await asyncio.sleep(1.0)


async def _values(reader: KafkaReader, topic: str) -> AsyncIterator[bytes]:
    async for record in reader.read(topic, await reader.bounds(topic)):
        yield record.value or b""
