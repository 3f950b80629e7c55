"""Move messages to Kafka in order: on schedule, with bounded numbers in flight."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD: Final = 512


class Pump(Generic[Item, Result]):
    """Sends items one after another; their results come in any order."""

    def __init__(
        self,
        send: Callable[[Item], Awaitable[asyncio.Task[Result]]],
        settle: Callable[[asyncio.Task[Result]], BaseException | None],
        *,
        in_flight: int,
        rate_per_s: float | None = None,
    ) -> None:
        """`send` queues an item; `settle` sees each ended task.

        What `settle` returns stops the pump and is raised by `run` at the end.
        """
        self._send = send
        self._settle = settle
        self._slots = asyncio.Semaphore(in_flight)
        self._rate_per_s = rate_per_s
        self._pending: set[asyncio.Task[Result]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._stopped = False
        self._error: BaseException | None = None

    async def run(self, items: AsyncIterator[Item]) -> None:
        """Send every item, wait for every result; raises the first error after that."""
        self._feeder = asyncio.create_task(self._feed(items))
        try:
            await self._feeder
        except asyncio.CancelledError:
            if not self._stopped:
                raise
        finally:
            while self._pending:
                await asyncio.wait(self._pending)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Send no more; `run` returns once what was sent has its results."""
        self._stopped = True
        if self._feeder is not None:
            self._feeder.cancel()

    async def _feed(self, items: AsyncIterator[Item]) -> None:
        loop, number = asyncio.get_running_loop(), 0
        began_s = loop.time()
        async for item in items:
            if self._rate_per_s is not None:
                # From the schedule, not from the last item: a stall is caught up, not hidden.
                await asyncio.sleep(began_s + number / self._rate_per_s - loop.time())
            await self._slots.acquire()
            task = await self._send(item)
            self._pending.add(task)
            task.add_done_callback(self._ended)
            number += 1

    def _ended(self, task: asyncio.Task[Result]) -> None:
        self._pending.discard(task)
        self._slots.release()
        error = self._settle(task)
        if error is not None:
            self._error = self._error or error
            self.stop()


async def from_thread(items: Iterable[Item], *, ahead: int = _AHEAD) -> AsyncIterator[Item]:
    """Items of a blocking iterable, at most `ahead` of them read in advance.

    The thread is a daemon: one that waits for stdin must not keep the
    process. What the iterable raises is raised here.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[Item | None, BaseException | None]] = asyncio.Queue()
    room, closed = threading.Semaphore(ahead), threading.Event()

    def read() -> None:
        """Fill the queue, waiting while it is full."""
        end: BaseException = StopAsyncIteration()
        # The loop may be gone before the thread learns of it.
        with contextlib.suppress(RuntimeError):
            try:
                for item in items:
                    room.acquire()
                    if closed.is_set():
                        return
                    loop.call_soon_threadsafe(queue.put_nowait, (item, None))
            except Exception as error:  # handed over: raised where the items are used
                end = error
            loop.call_soon_threadsafe(queue.put_nowait, (None, end))

    threading.Thread(target=read, name="reader", daemon=True).start()
    try:
        while True:
            item, end = await queue.get()
            if isinstance(end, StopAsyncIteration):
                return
            if end is not None:
                raise end
            room.release()
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        room.release()
