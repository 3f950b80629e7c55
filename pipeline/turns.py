"""So many at a time, small work before large, and none kept waiting for ever. Pure of IO."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

OLDEST_EVERY: Final = 4
"""One turn in so many goes to whoever has waited longest, however large its work."""


class Turns:
    """A semaphore whose turns go to the smallest work that waits."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._given = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """A turn for work of a size; waits while as many as may be have one."""
        await self._take(size)
        try:
            yield
        finally:
            self._give()

    async def _take(self, size: int) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        entry = (size, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry[1].done() and not entry[1].cancelled():
                self._give()  # the turn had come: the next one's now
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise

    def _give(self) -> None:
        """Hand the turn on, or keep it free when nobody waits."""
        while self._waiting:
            self._given += 1
            oldest = self._given % OLDEST_EVERY == 0
            chosen = self._waiting[0] if oldest else min(self._waiting, key=lambda each: each[0])
            self._waiting.remove(chosen)
            if not chosen[1].done():
                chosen[1].set_result(None)
                return
        self._free += 1
