"""A generator's sending: when it begins, and what a refusal of Kafka's means to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from loadtest import generator
from loadtest.closed import Window
from loadtest.generator import Generator
from loadtest.orders import Order
from loadtest.sending import Ready, Sender
from loadtest.workload import validated
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.errors import DependencyUnavailable
from pipeline.events import Position
from pipeline.ports import Outgoing
from pipeline.settings import Settings

REFUSAL = DependencyUnavailable("Kafka does not answer", remedy="Wait")


class Kafka:
    """Takes every message, or refuses it: at once, or when it was to be acknowledged."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses

    async def send(self, record: Outgoing) -> asyncio.Future[Position]:
        """The future of its acknowledgement."""
        self._perhaps("at once")
        return self._ended(Position(topic=record.topic, partition=0, offset=0))

    async def by_place(
        self, records: Sequence[Outgoing]
    ) -> Mapping[tuple[str, int], Sequence[Outgoing]]:
        """All in one partition."""
        self._perhaps("at once")
        return {("t", 0): records}

    async def append(
        self, topic: str, partition: int, records: Sequence[Outgoing]
    ) -> tuple[int, asyncio.Future[int]]:
        """A batch of all of them."""
        self._perhaps("a batch")
        return len(records), self._ended(0)

    def _perhaps(self, when: str) -> None:
        if self.refuses == when:
            raise REFUSAL

    def _ended(self, value: Any) -> asyncio.Future[Any]:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.refuses == "later":
            ended.set_exception(REFUSAL)
        else:
            ended.set_result(value)
        return ended


def ready(sequence: int) -> Ready:
    """A message that is due at once."""
    record = Outgoing(topic="t", key=None, value=b"v", headers=())
    return Ready(sequence=sequence, intended_ns=0, record=record, malformed=False)


def closed_loop(messages: int, slots: int, *, timeout_s: float) -> Order:
    """The order of one generator."""
    load = {"mode": "closed", "concurrency": slots, "messages": messages, "timeout_s": timeout_s}
    given = validated({"question": "?", "load": load}, "test").model_dump(mode="json")
    return Order(run="ab12", workload=given, overrides={}, part=0, of=1, rows="")


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """The windows that a generator opens, which watch nothing."""
    opened = []

    @asynccontextmanager
    async def opens(_: Settings, run: str, slots: int) -> AsyncIterator[Window]:
        opened.append(Window(run, slots))
        yield opened[-1]

    monkeypatch.setattr(Window, "open", opens)
    monkeypatch.setattr(generator, "say", lambda _: None)
    return opened


def made(order: Order, kafka: Kafka) -> Generator:
    """A generator that sends to it."""
    return Generator(order, cast("KafkaPublisher", kafka), Settings())


async def test_a_closed_loop_begins_at_the_start(window: list[Window]) -> None:
    """Rates count from it: what was sent before would make them too high."""
    given = made(closed_loop(3, 3, timeout_s=0.01), Kafka())
    start_ns = time.monotonic_ns() + 200_000_000
    await given.run(start_ns)
    assert given._sender.table()["sent_ns"].tolist() == sorted(given._sender.table()["sent_ns"])
    assert given._sender.table()["sent_ns"][0] >= start_ns


@pytest.mark.parametrize("refuses", ["at once", "later"])
async def test_a_refused_message_leaves_its_slot(window: list[Window], refuses: str) -> None:
    """It will have no outcome, so that the next of a closed loop need not wait for one."""
    given = made(closed_loop(3, 1, timeout_s=3600), Kafka(refuses))
    await asyncio.wait_for(given.run(0), 30)
    assert given._sender.refused == 3
    assert len(window) == 1


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("refuses", ["at once", "a batch", "later", ""])
async def test_every_refused_message_is_named(refuses: str, count: int) -> None:
    """Once, whether it was sent alone or with others, whenever it was refused."""
    sender, named = Sender(cast("KafkaPublisher", Kafka(refuses)), "completions"), list[int]()
    sender.on_refused = named.append
    await sender.send([ready(number) for number in range(count)])
    await sender.flush(30)
    await asyncio.sleep(0)
    refused = refuses if count > 1 or refuses != "a batch" else ""
    assert named == (list(range(count)) if refused else [])
    assert (sender.refused, sender.accepted) == (len(named), count - len(named))


async def test_what_is_on_its_way_when_a_run_is_stopped_was_not_refused() -> None:
    """Kafka takes it a moment later: without that its row would say that Kafka did not."""
    kafka, later = Kafka(), asyncio.get_running_loop().create_future()
    kafka._ended = lambda _: later  # type: ignore[method-assign,assignment]
    load = {"mode": "rate", "rate_per_s": 0.1, "messages": 2}
    given = validated({"question": "?", "arrivals": "even", "load": load}, "test")
    order = replace(closed_loop(1, 1, timeout_s=1), workload=given.model_dump(mode="json"))
    stopped = made(order, kafka)
    sending = asyncio.create_task(stopped.run(time.monotonic_ns()))
    while not stopped._sender.sent:
        await asyncio.sleep(0.01)
    position = Position(topic="t", partition=0, offset=0)
    asyncio.get_running_loop().call_later(0.05, later.set_result, position)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (stopped._sender.sent, stopped._sender.accepted) == (1, 1)
