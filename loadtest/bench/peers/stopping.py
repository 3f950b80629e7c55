"""How a peer's process runs: on uvloop, as the worker does, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import uvloop

from pipeline import settings
from pipeline.settings import Settings


def main(run: Callable[[Settings, asyncio.Event], Awaitable[None]]) -> None:
    """Run a peer with the settings of its environment; the event is set by SIGTERM."""

    async def body() -> None:
        """The peer's whole run."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await run(settings.load(), stop)

    uvloop.run(body())
