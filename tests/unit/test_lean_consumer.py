"""The lean consumer changes two moments of Faust's fetch loop, and only while it is that loop."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.drivers import by_url
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from pipeline import lean_consumer
from pipeline.lean_consumer import LeanConsumer, LeanTransport

WRITTEN_AGAINST = {
    BaseConsumer._drain_messages: "44a2500309e83c63",
    BaseConsumer._wait_next_records: "6218e1969a636b3f",
    BaseConsumer.getmany: "4b168d84882a70d6",
    AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc3e6f6cad",
}


@pytest.mark.parametrize("method", WRITTEN_AGAINST, ids=lambda method: method.__qualname__)
def test_faust_is_the_one_it_was_written_against(method: Any) -> None:
    """A changed method of Faust must be read again before the overrides are kept."""
    digest = hashlib.sha256(inspect.getsource(method).encode()).hexdigest()
    assert digest[:16] == WRITTEN_AGAINST[method]


def test_our_scheme_leads_to_the_lean_transport() -> None:
    """Broker addresses of the app are served by it."""
    assert by_url(f"{lean_consumer.SCHEME}://localhost") is LeanTransport


class _Slow(Exception):
    """Faust's own way was taken."""


def _consumer(*, active: bool = True, full: bool = False) -> LeanConsumer:
    consumer = object.__new__(LeanConsumer)
    queue = SimpleNamespace(full=lambda: full)
    consumer.app = SimpleNamespace(
        flow_control=SimpleNamespace(is_active=lambda: active),
        topics=[SimpleNamespace(queue=queue)],
    )
    consumer.flow_active = active
    return consumer


@pytest.fixture
def _fausts_way_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(_self: Any, *waiting: Any, **_options: Any) -> None:
        for each in waiting:
            each.close()
        raise _Slow

    monkeypatch.setattr(BaseConsumer, "wait_first", slow)


async def _handed(consumer: LeanConsumer) -> list[str]:
    handed: list[str] = []

    async def on_message() -> None:
        handed.append("message")

    await consumer.wait_first(on_message(), asyncio.Event().wait())
    return handed


@pytest.mark.usefixtures("_fausts_way_raises")
async def test_a_hand_over_with_room_is_awaited_as_it_is() -> None:
    """No tasks are made for it."""
    assert await _handed(_consumer()) == ["message"]


@pytest.mark.usefixtures("_fausts_way_raises")
@pytest.mark.parametrize("state", [{"full": True}, {"active": False}])
async def test_a_hand_over_that_may_block_goes_fausts_way(state: dict[str, bool]) -> None:
    """A full channel, or a flow that is suspended, must not hold up a rebalance."""
    with pytest.raises(_Slow):
        await _handed(_consumer(**state))


@pytest.mark.usefixtures("_fausts_way_raises")
async def test_other_waits_go_fausts_way() -> None:
    """Only the fetch loop's hand-over is known."""
    with pytest.raises(_Slow):
        await _consumer().wait_first(asyncio.Event().wait(), asyncio.Event().wait())
