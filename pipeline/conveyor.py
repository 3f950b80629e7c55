"""Batches in motion: bounded, greedy, and drained within a deadline.

One place owns batching, concurrency and drain. Items wait in a bounded
buffer; whenever one of the batch slots is free, the next batch takes what is
there, so batches are small and quick when idle and full under load. When
all slots are busy and the buffer is full, `admit` waits: that is the back
pressure which pauses the consumer.
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
    """Bounds of the conveyor; `linger_s` lets a burst gather before it leaves.

    The buffer takes one item more than `buffer_bytes` allow.
    """

    batch_messages: int
    batch_bytes: int
    batches_in_flight: int
    buffer_messages: int
    buffer_bytes: int
    linger_s: float


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
    ) -> None:
        self._judge = judge
        self._limits = limits
        self._abandon = abandon
        self._crash = crash
        self._buffer: deque[Item] = deque()
        self._buffered_bytes = 0
        self._running: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(limits.batches_in_flight)
        self._work = asyncio.Event()
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
            self._buffer.append(item)
            self._buffered_bytes += item.size_bytes
            self._work.set()

    def _full(self) -> bool:
        limits = self._limits
        return (
            len(self._buffer) >= limits.buffer_messages
            or self._buffered_bytes >= limits.buffer_bytes
        )

    async def run(self) -> None:
        """Start batches until cancelled."""
        while True:
            await self._slots.acquire()
            await self._work.wait()
            if self._limits.linger_s and len(self._buffer) < self._limits.batch_messages:
                await asyncio.sleep(self._limits.linger_s)
            self._start(self._next_batch())

    async def drain(self, timeout_s: float) -> None:
        """Refuse new items, let batches end, and cancel what is left at the deadline."""
        self._draining = True
        while self._buffer:
            self._abandon(self._buffer.popleft())
        self._buffered_bytes = 0
        self._work.clear()
        self._space.set()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def resume(self) -> None:
        """Take items again."""
        self._draining = False

    def _next_batch(self) -> list[Item]:
        batch: list[Item] = []
        size_bytes = 0
        while self._buffer and len(batch) < self._limits.batch_messages:
            next_bytes = self._buffer[0].size_bytes
            if batch and size_bytes + next_bytes > self._limits.batch_bytes:
                break
            size_bytes += next_bytes
            batch.append(self._buffer.popleft())
        self._buffered_bytes -= size_bytes
        self._space.set()
        if not self._buffer:
            self._work.clear()
        return batch

    def _start(self, batch: list[Item]) -> None:
        if not batch:  # drained while the batch was gathering
            self._slots.release()
            return
        task = asyncio.create_task(self._run(batch))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._slots.release()

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
