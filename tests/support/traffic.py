"""Traffic for survival tests, and the count of what came of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline import codec, wiring
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.counting import Counting
from pipeline.events import Kind, Message
from pipeline.ports import Outgoing
from pipeline.reconcile import Reconciliation
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


async def settled(settings: Settings, *, within_s: float) -> Reconciliation:
    """The count once nothing is missing; the last one seen at the deadline."""
    async with Counting.open(settings) as counting:
        return await counting.settled(within_s=within_s)
