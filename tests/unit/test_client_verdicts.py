"""Verdicts are read under the ids that the worker wrote them with; the rest is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from pipeline import codec, schema_ids
from pipeline.adapters import kafka
from pipeline.adapters.kafka import KafkaReader, Record, Slice
from pipeline.cli.exits import Exit
from pipeline.client import Client
from pipeline.events import Position
from pipeline.ranges import Range
from pipeline.resources import shipped
from pipeline.settings import Settings, load
from tests.support.cli import Sluice
from tests.support.golden_records import VERDICT

REGISTRYS_ID = 103
SETTINGS = load()


class _Consumer:
    """A broker that answers."""

    def __init__(self, **_: object) -> None:
        """Take the settings."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Close."""


@dataclass(slots=True)
class Topic:
    """What the topic of verdicts holds, and how often a registry was asked."""

    values: list[bytes] = field(default_factory=list)
    asked: int = 0

    def add(self, schema_id: int) -> None:
        """Write a verdict as a worker does whose registry has that id for it."""
        schemas = codec.load_schemas(shipped("schemas"))
        schemas.use_id(codec.VERDICT, schema_id)
        at = Position(topic="t", partition=0, offset=len(self.values))
        self.values.append(codec.encode_verdict(replace(VERDICT, source=at), schemas))

    async def adopt(self, schemas: codec.Schemas, settings: Settings) -> None:
        """Answer as the worker's registry."""
        self.asked += 1
        schemas.use_id(codec.VERDICT, REGISTRYS_ID)

    async def within(self, topic: str, span: Range) -> list[Slice]:
        """All of it."""
        return [Slice(partition=0, start=0, end=len(self.values))]

    async def read(self, topic: str, slices: Collection[Slice]) -> AsyncIterator[Record]:
        """Every record."""
        for offset, value in enumerate(self.values):
            yield Record(
                topic=topic, partition=0, offset=offset, timestamp_ms=0, key=None, value=value,
                headers=(),
            )  # fmt: skip


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    """An empty topic of verdicts, in place of the broker; and a registry."""
    made = Topic()
    monkeypatch.setattr(kafka, "AIOKafkaConsumer", _Consumer)
    monkeypatch.setattr(KafkaReader, "within", lambda _, *given: made.within(*given))
    monkeypatch.setattr(KafkaReader, "read", lambda _, *given: made.read(*given))
    monkeypatch.setattr(schema_ids, "adopt", made.adopt)
    return made


async def test_verdicts_are_read_without_opening_the_client(topic: Topic) -> None:
    """Under the registry's ids, which are asked for once."""
    topic.add(REGISTRYS_ID)
    client = Client(SETTINGS, watch=False)
    for _ in range(2):
        found = [verdict async for verdict in client.verdicts(Range())]
        assert [verdict.message_id for verdict in found] == [VERDICT.message_id]
    assert (topic.asked, client.passed_over) == (1, 0)


async def test_what_is_no_verdict_is_counted(topic: Topic) -> None:
    """Junk, and a schema that is not known; those beside them are read."""
    topic.add(REGISTRYS_ID)
    topic.add(4711)
    topic.values.append(b"junk")
    topic.add(REGISTRYS_ID)
    client = Client(SETTINGS, watch=False)
    assert len([verdict async for verdict in client.verdicts(Range())]) == 2
    assert client.passed_over == 2


def test_the_command_says_how_many_it_passed_over(
    capfdbinary: pytest.CaptureFixture[bytes], topic: Topic
) -> None:
    """Else nothing would tell a foreign registry from an empty topic."""
    topic.add(REGISTRYS_ID)
    sluice = Sluice(capfdbinary)
    assert "passed over" not in sluice("verdicts").err
    topic.values.clear()
    topic.add(4711)
    done = sluice("verdicts")
    assert (done.code, done.out) == (Exit.EMPTY, "")
    assert "1 record passed over" in done.err
    assert "registry.url" in done.err
