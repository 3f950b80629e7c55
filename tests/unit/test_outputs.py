"""Specification of how an unpublished outcome is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pipeline import metrics
from pipeline.errors import DependencyUnavailable
from pipeline.health import Health
from pipeline.outputs import CHECK, Outputs, WatchedAudit, WatchedPublisher
from pipeline.ports import Outgoing

from .fakes import MemoryPublisher


def _record(topic: str) -> Outgoing:
    return Outgoing(topic=topic, key=None, value=b"v", headers=())


def _check(health: Health) -> tuple[bool, str]:
    body = health.ready()[1][CHECK]
    return body["ok"], body["detail"]


@pytest.fixture
def health() -> Health:
    """Only the check of outputs."""
    return Health([CHECK])


async def test_nothing_published_yet_is_well(health: Health) -> None:
    """An idle worker is ready."""
    Outputs(health)
    assert health.ready()[0]


async def test_a_failure_shows_until_the_same_topics_are_acknowledged(health: Health) -> None:
    """Verdicts that go through do not hide dead letters that cannot."""
    inner = MemoryPublisher(failures=[DependencyUnavailable("no such topic", remedy="Make it")])
    publisher = WatchedPublisher(inner, Outputs(health))
    with pytest.raises(DependencyUnavailable):
        await publisher.publish([_record("dead")])
    assert _check(health) == (False, "dead: no such topic. Make it")
    await publisher.publish([_record("verdicts")])
    assert _check(health)[0] is False
    await publisher.publish([_record("dead")])
    assert _check(health)[0] is True


class _Mute:
    """A broker that acknowledges when told to."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()

    async def write(self, events: Sequence[Outgoing]) -> None:
        await self.answer.wait()


async def test_a_broker_that_stays_silent_is_seen_and_counted_while_it_does(health: Health) -> None:
    """No error comes from below, for as long as it lasts; its end is seen, too."""
    inner = _Mute()
    audit = WatchedAudit(inner, Outputs(health, overdue_s=0.02))
    before = metrics.PUBLISH_ERRORS._value.get()
    waiting = asyncio.create_task(audit.write([_record("audit")]))
    await asyncio.sleep(0.2)
    ok, detail = _check(health)
    assert not ok
    assert "audit: no acknowledgement from Kafka" in detail
    assert metrics.PUBLISH_ERRORS._value.get() >= before + 2
    inner.answer.set()
    await waiting
    assert _check(health)[0] is True
