"""Specification of which policy a worker starts with, and what it says of the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping, Sequence
from typing import Any, Self

import pytest
import stamina
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed
from structlog.testing import capture_logs

from pipeline import codec, policy_feed, policy_file, policy_history
from pipeline.adapters import kafka, kafka_connection
from pipeline.adapters.kafka import Record, Slice
from pipeline.health import Health
from pipeline.policy_feed import PolicyFeed
from pipeline.policy_history import PolicyRecord
from pipeline.ports import Outgoing
from pipeline.settings import KafkaSettings

from .fakes import NOON

TOPIC = "policies"


def _text(version: str) -> str:
    return f'id = "p"\nversion = "{version}"\n[default.prompt]\nunsafe = {{ block = 0.5 }}\n'


def _record(version: str) -> PolicyRecord:
    return policy_history.of_policy(_text(version), name="p", at=NOON, by="t", note=None)


def _activated(version: str) -> list[PolicyRecord]:
    record = _record(version)
    return [record, policy_history.activation(record, at=NOON, by="t", note=None)]


class _Topic:
    """The policies topic in memory; a reader and a publisher of it."""

    def __init__(self, records: Sequence[PolicyRecord], schemas: codec.Schemas) -> None:
        self._values = [policy_history.encode(each, schemas) for each in records]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def bounds(self, topic: str) -> list[Slice]:
        """All of it."""
        return [Slice(partition=0, start=0, end=len(self._values))]

    async def read(self, topic: str, slices: Sequence[Slice]) -> AsyncIterator[Record]:
        """The records."""
        for offset, value in enumerate(self._values):
            yield Record(
                topic=topic, partition=0, offset=offset, timestamp_ms=0, key=None, value=value,
                headers=(),
            )  # fmt: skip

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Nobody reads on."""


async def _begun(
    records: Sequence[PolicyRecord],
    schemas: codec.Schemas,
    monkeypatch: pytest.MonkeyPatch,
    *,
    follow: bool = True,
) -> tuple[PolicyFeed, list[MutableMapping[str, Any]]]:
    """A worker's feed with version 1 in its file, begun; and the warnings it logged."""
    topic = _Topic(records, schemas)
    monkeypatch.setattr(policy_feed, "KafkaReader", lambda *_: topic)
    feed = PolicyFeed(
        KafkaSettings(),
        TOPIC,
        own=policy_file.parse(_text("1"), name="p"),
        check=lambda _policy: None,
        schemas=schemas,
        health=Health(["policy"]),
        follow=follow,
    )
    with capture_logs() as logs:
        await feed.begin(topic, [_record("1")])
    return feed, [each for each in logs if each["log_level"] == "warning"]


async def test_a_file_that_an_activation_overrules_is_told_once(
    schemas: codec.Schemas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changed the file and believes that it judges; the warning says how it would."""
    feed, warnings = await _begun(_activated("2"), schemas, monkeypatch)
    assert feed.current().ref.version == "2"
    assert [each["event"] for each in warnings] == ["policy-file-not-in-force"]
    assert warnings[0]["digest"] == _record("1").digest
    assert warnings[0]["in_force"] == _record("2").digest
    assert "sluice policy publish" in warnings[0]["remedy"]


@pytest.mark.parametrize(
    ("records", "follow"), [([], True), (_activated("1"), True), (_activated("2"), False)]
)
async def test_a_file_in_force_is_no_warning(
    records: Sequence[PolicyRecord],
    follow: bool,
    schemas: codec.Schemas,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None was activated, the same one was, or the topic is not followed."""
    feed, warnings = await _begun(records, schemas, monkeypatch, follow=follow)
    assert (feed.current().ref.version, warnings) == ("1", [])


class _Followed(Exception):
    """The watch got as far as reading."""


class _Consumer:
    """Connects at the second attempt; the first finds no broker to talk to."""

    starts = 0

    def __init__(self, **_: Any) -> None: ...

    async def start(self) -> None:
        """Connect, or not."""
        type(self).starts += 1
        if self.starts == 1:
            raise KafkaConnectionError

    async def stop(self) -> None:
        """Close."""

    def assign(self, _: Any) -> None:
        """Begin to read."""
        raise _Followed


async def test_a_broker_that_refuses_for_a_while_does_not_end_the_watch(
    schemas: codec.Schemas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends the watch ends the worker, and its credentials were good when it began."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise SaslAuthenticationFailed

    feed, _ = await _begun([], schemas, monkeypatch)
    monkeypatch.setattr(policy_feed, "KafkaReader", kafka.KafkaReader)
    monkeypatch.setattr(kafka, "AIOKafkaConsumer", _Consumer)
    monkeypatch.setattr(kafka_connection, "create_conn", refuse)
    feed._settings = KafkaSettings.model_validate(
        {"security_protocol": "SASL_PLAINTEXT", "username": "u", "password": "p"}
    )
    with stamina.set_testing(True, attempts=2), pytest.raises(_Followed):
        await feed.watch()
    assert _Consumer.starts == 2
