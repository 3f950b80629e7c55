"""The pump keeps order and schedule, bounds what is in flight, and stops cleanly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pipeline.cli.pump import Pump, from_thread
from pipeline.errors import Misconfigured


async def numbers(count: int) -> AsyncIterator[int]:
    """0 to count - 1."""
    for number in range(count):
        yield number


class Sink:
    """Counts what is in flight; each item ends after `delay_s`."""

    def __init__(self, delay_s: float = 0.0, *, fails_at: int | None = None) -> None:
        self.sent: list[int] = []
        self.times_s: list[float] = []
        self.ended = 0
        self.most = 0
        self._delay_s = delay_s
        self._fails_at = fails_at

    async def send(self, item: int) -> asyncio.Task[int]:
        """Take an item."""
        self.sent.append(item)
        self.times_s.append(asyncio.get_running_loop().time())
        self.most = max(self.most, len(self.sent) - self.ended)
        return asyncio.create_task(self._end(item))

    async def _end(self, item: int) -> int:
        await asyncio.sleep(self._delay_s)
        if item == self._fails_at:
            raise Misconfigured("refused", remedy="")
        return item

    def settle(self, task: asyncio.Task[Any]) -> BaseException | None:
        """Count an item that ended."""
        self.ended += 1
        return task.exception()


async def test_everything_is_sent_in_order_and_awaited() -> None:
    """Even where more is to send than may be in flight."""
    sink = Sink(0.001)
    await Pump(sink.send, sink.settle, in_flight=7).run(numbers(100))
    assert sink.sent == list(range(100))
    assert (sink.ended, sink.most) == (100, 7)


async def test_a_late_start_is_caught_up() -> None:
    """The schedule holds: a stall of 0.2 s at 100 per second delays no later item."""

    async def stalled() -> AsyncIterator[int]:
        for number in range(30):
            if number == 5:
                await asyncio.sleep(0.2)
            yield number

    sink = Sink()
    began_s = asyncio.get_running_loop().time()
    await Pump(sink.send, sink.settle, in_flight=10, rate_per_s=100).run(stalled())
    took_s = sink.times_s[-1] - began_s
    assert 0.29 <= took_s < 0.45
    assert all(at - began_s >= n / 100 for n, at in enumerate(sink.times_s))


async def test_stop_waits_for_what_was_sent() -> None:
    """Nothing more is sent, nothing is dropped, and it is no error."""
    sink = Sink(0.05)
    pump: Pump[int, int] = Pump(sink.send, sink.settle, in_flight=3, rate_per_s=50)
    running = asyncio.create_task(pump.run(numbers(10_000)))
    while len(sink.sent) < 5:
        await asyncio.sleep(0.001)
    pump.stop()
    await running
    assert sink.ended == len(sink.sent) < 20


async def test_the_first_error_stops_it() -> None:
    """It is raised after the rest in flight has ended."""
    sink = Sink(0.01, fails_at=3)
    with pytest.raises(Misconfigured, match="refused"):
        await Pump(sink.send, sink.settle, in_flight=5).run(numbers(1000))
    assert sink.ended == len(sink.sent) < 20


async def test_a_thread_reads_only_so_far_ahead() -> None:
    """Back-pressure reaches the file."""
    read = 0

    def lines() -> Iterator[int]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield number

    stream = from_thread(lines(), ahead=10)
    for expected in range(5):
        assert await anext(stream) == expected
    await asyncio.sleep(0.05)
    assert read <= 5 + 10 + 1
    assert [item async for item in stream] == list(range(5, 1000))


async def test_what_the_thread_meets_is_raised_in_its_place() -> None:
    """After the items before it."""

    def lines() -> Iterator[int]:
        yield 1
        raise Misconfigured("bad header", remedy="")

    stream = from_thread(lines())
    assert await anext(stream) == 1
    with pytest.raises(Misconfigured, match="bad header"):
        await anext(stream)


async def test_an_abandoned_thread_ends() -> None:
    """Closing the stream lets the reader go."""
    stream = from_thread(iter(range(10**9)), ahead=2)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while any(thread.name == "reader" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
