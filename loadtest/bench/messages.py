"""The messages that every contender reads: prompts of about 300 bytes as Avro."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Final

from pipeline import codec
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.events import Kind, Message
from pipeline.ports import Outgoing
from pipeline.settings import Settings

_PROSE: Final = (
    "please write short story about river town where every spring the water rises and people"
    " carry their books up stairs then explain how to mend old clock with few tools what does"
    " this error mean in my program can you make it faster without a new library thank you"
)
WORDS: Final = tuple(_PROSE.split())
TEXT_CHARS: Final = 210
_AT_ONCE: Final = 1_000


def make(count: int, *, seed: int = 1, chars: int = TEXT_CHARS) -> list[Message]:
    """`count` prompts of `chars` characters or a word more; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - texts, not secrets
    return [
        Message(
            message_id=f"bench-{number:08d}",
            kind=Kind.PROMPT,
            text=_text(chance, chars),
            conversation_id=f"conversation-{number % 997}",
            tenant="acme",
            route="chat",
            language="en",
            sent_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        for number in range(count)
    ]


def _text(chance: random.Random, chars: int) -> str:
    words: list[str] = []
    size = 0
    while size < chars:
        words.append(chance.choice(WORDS))
        size += len(words[-1]) + 1
    return " ".join(words)


async def preload(settings: Settings, messages: list[Message], schemas: codec.Schemas) -> int:
    """Publish them to the prompt topic, keyed by id; returns the mean value size in bytes."""
    limit = settings.topics.max_message_bytes
    size_bytes = 0
    async with KafkaPublisher(settings.kafka, max_message_bytes=limit) as publisher:
        for start in range(0, len(messages), _AT_ONCE):
            records = [
                Outgoing(
                    topic=settings.topics.prompts,
                    key=message.message_id.encode(),
                    value=codec.encode_message(message, schemas),
                    headers=(),
                )
                for message in messages[start : start + _AT_ONCE]
            ]
            size_bytes += sum(len(record.value or b"") for record in records)
            await publisher.publish(records)
    return size_bytes // len(messages)
