"""Whoever reads from Kafka meets errors of ours: aiokafka's own would be told as bugs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka.errors import KafkaTimeoutError

from pipeline.adapters import kafka, kafka_admin
from pipeline.client import Client
from pipeline.counting import Counting
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.ranges import Edge, Range
from pipeline.settings import Settings, load


class _Consumer:
    """Connects, knows one partition of every topic, and is told nothing of it in time."""

    def __init__(self, **_: Any) -> None:
        self._client = SimpleNamespace(
            force_metadata_update=self.start,
            cluster=SimpleNamespace(partitions_for_topic=lambda _topic: {0}),
        )

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Close."""

    async def beginning_offsets(self, _: Any) -> Any:
        """Wait in vain."""
        raise KafkaTimeoutError


class _Producer(_Consumer):
    """Connects, and closes."""

    _message_accumulator, _sender, client = Mock(), AsyncMock(), AsyncMock()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a broker that takes connections and answers nothing."""
    monkeypatch.setattr(kafka, "AIOKafkaConsumer", _Consumer)
    monkeypatch.setattr(kafka, "AIOKafkaProducer", _Producer)
    return load()


SILENT = r"Kafka at 127\.0\.0\.1:9092 does not answer \(KafkaTimeoutError\)"
ALL = Range(start=Edge.START, end=Edge.END)


async def test_a_client_that_cannot_watch_is_not_opened(settings: Settings) -> None:
    """As its contract says."""
    with pytest.raises(DependencyUnavailable, match=SILENT):
        async with Client(settings):
            pass


async def test_verdicts_that_cannot_be_read_are_an_error_of_ours(settings: Settings) -> None:
    """Also without an open client."""
    with pytest.raises(DependencyUnavailable, match=SILENT):
        await anext(aiter(Client(settings, watch=False).verdicts(ALL)))


async def test_a_count_that_cannot_begin_is_an_error_of_ours(settings: Settings) -> None:
    """`sluice reconcile` exits 3."""
    with pytest.raises(DependencyUnavailable, match=SILENT):
        async with Counting.open(settings):
            pass


async def test_what_others_raise_while_a_reader_is_open_stays_as_it_is(settings: Settings) -> None:
    """Only aiokafka's errors are put into other words."""
    with pytest.raises(Misconfigured, match="theirs"):
        async with kafka_admin.open_reader(settings.kafka):
            raise Misconfigured("theirs", remedy="")
