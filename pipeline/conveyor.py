"""Batches in motion: bounded, greedy, and drained within a deadline.

One place owns batching, concurrency and drain. Items wait in a bounded buffer.
A batch leaves as soon as there is room for it, with all that waits then, so that
batches are small and quick when idle and full under load. When as many items
are under way as may be and the buffer is full, `admit` waits: that is the back
pressure which pauses the consumer.

Some of a batch's cost is the same whatever it holds, and whoever is in it waits for all
of it: where what judges is quick, batches may hold more.

Large items ride in a lane of their own: a batch is as slow as its largest item,
and nearly every batch would have one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that takes room in a batch."""

    @property
    def size_bytes(self) -> int:
        """Its size in bytes."""


Item = TypeVar("Item", bound=Sized)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the conveyor; sizes in bytes.

    A batch holds at most `batch_messages`, or `quick_batch_messages` if that is more and
    what judges is quick.

    `messages_in_flight` and `bytes_in_flight` hold for each lane. The buffer takes
    one item more than `buffer_bytes` allow. Items of `large_bytes` and more ride
    apart.
    """

    batch_messages: int
    batch_bytes: int
    messages_in_flight: int
    bytes_in_flight: int
    buffer_messages: int
    buffer_bytes: int
    large_bytes: int | None = None
    quick_batch_messages: int = 0


class _Lane(Generic[Item]):
    """Items that wait, and what is under way of those that waited here."""

    def __init__(self) -> None:
        self.buffer: deque[Item] = deque()
        self.changed = asyncio.Event()
        self.messages_in_flight = 0
        self.bytes_in_flight = 0

    def started(self, messages: int, size_bytes: int) -> None:
        self.messages_in_flight += messages
        self.bytes_in_flight += size_bytes

    def ended(self, messages: int, size_bytes: int) -> None:
        self.messages_in_flight -= messages
        self.bytes_in_flight -= size_bytes
        self.changed.set()


class Conveyor(Generic[Item]):
    """Groups items into batches and runs a bounded number of them at a time.

    `judge` must end each batch for good or raise; what it raises goes to
    `crash` and the batch stays unacknowledged. `abandon` is called once for
    each item that never reached `judge` or was cancelled in it.
    """

    def __init__(
        self,
        judge: Callable[[list[Item]], Awaitable[None]],
        *,
        limits: Limits,
        abandon: Callable[[Item], None],
        crash: Callable[[BaseException], None],
        quick: Callable[[], bool] = lambda: False,
    ) -> None:
        """`quick` says whether what judges is, at the moment."""
        self._judge = judge
        self._limits = limits
        self._abandon = abandon
        self._crash = crash
        self._quick = quick
        self._small: _Lane[Item] = _Lane()
        self._large: _Lane[Item] = _Lane()
        self._buffered_bytes = 0
        self._running: set[asyncio.Task[None]] = set()
        self._space = asyncio.Event()
        self._draining = False

    @property
    def draining(self) -> bool:
        """True between `drain` and `resume`: nothing is taken."""
        return self._draining

    async def admit(self, items: Iterable[Item]) -> None:
        """Take items, waiting while the buffer is full; while draining, abandon them."""
        for item in items:
            while self._full() and not self._draining:
                self._space.clear()
                await self._space.wait()
            if self._draining:
                self._abandon(item)
                continue
            lane = self._lane_of(item)
            lane.buffer.append(item)
            self._buffered_bytes += item.size_bytes
            lane.changed.set()

    def _lane_of(self, item: Item) -> _Lane[Item]:
        large_bytes = self._limits.large_bytes
        large = large_bytes is not None and item.size_bytes >= large_bytes
        return self._large if large else self._small

    def _full(self) -> bool:
        limits = self._limits
        waiting = len(self._small.buffer) + len(self._large.buffer)
        return waiting >= limits.buffer_messages or self._buffered_bytes >= limits.buffer_bytes

    async def run(self) -> None:
        """Start batches until cancelled."""
        await asyncio.gather(self._run_lane(self._small), self._run_lane(self._large))

    async def _run_lane(self, lane: _Lane[Item]) -> None:
        while True:
            while not (lane.buffer and self._room(lane)):
                lane.changed.clear()
                await lane.changed.wait()
            self._start(lane, self._next_batch(lane))

    def _most(self) -> int:
        """Items that the next batch may hold."""
        limits = self._limits
        quick = max(limits.batch_messages, limits.quick_batch_messages)
        return quick if self._quick() else limits.batch_messages

    def _room(self, lane: _Lane[Item]) -> bool:
        """Whether a batch as full as what waits may leave."""
        if not lane.messages_in_flight:
            return True
        limits = self._limits
        messages = min(len(lane.buffer), self._most())
        return (
            lane.messages_in_flight + messages <= limits.messages_in_flight
            and lane.bytes_in_flight + limits.batch_bytes <= limits.bytes_in_flight
        )

    async def drain(self, timeout_s: float) -> None:
        """Refuse new items, let batches end, and cancel what is left at the deadline."""
        self._draining = True
        for lane in (self._small, self._large):
            while lane.buffer:
                self._abandon(lane.buffer.popleft())
        self._buffered_bytes = 0
        self._space.set()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def resume(self) -> None:
        """Take items again."""
        self._draining = False

    def _next_batch(self, lane: _Lane[Item]) -> list[Item]:
        batch: list[Item] = []
        size_bytes = 0
        most = self._most()
        while lane.buffer and len(batch) < most:
            next_bytes = lane.buffer[0].size_bytes
            if batch and size_bytes + next_bytes > self._limits.batch_bytes:
                break
            size_bytes += next_bytes
            batch.append(lane.buffer.popleft())
        self._buffered_bytes -= size_bytes
        self._space.set()
        return batch

    def _start(self, lane: _Lane[Item], batch: list[Item]) -> None:
        size_bytes = sum([item.size_bytes for item in batch])
        lane.started(len(batch), size_bytes)
        task = asyncio.create_task(self._run(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: lane.ended(len(batch), size_bytes))

    async def _run(self, batch: list[Item]) -> None:
        try:
            await self._judge(batch)
        except asyncio.CancelledError:
            for item in batch:
                self._abandon(item)
            raise
        # Whatever it is, the batch is not acknowledged and the worker stops: Kafka redelivers.
        except BaseException as error:
            self._crash(error)
