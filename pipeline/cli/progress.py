"""Progress of a long command, on stderr: a live line, or one now and then."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.live import Live
from rich.text import Text

from pipeline.cli import console, session

_EVERY_S: Final = 5.0
"""Seconds between lines where nobody watches a terminal."""


@contextmanager
def shown(line: Callable[[], str]) -> Iterator[None]:
    """Show what `line` says while the block runs; within a running event loop."""
    if console.err.is_terminal:
        with Live(
            get_renderable=lambda: Text(line()),
            console=console.err,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
        ):
            yield
        return
    telling = asyncio.create_task(_tell(line))
    try:
        yield
    finally:
        telling.cancel()


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first Ctrl-C or SIGTERM; the next one acts as usual."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def once() -> None:
        for number in signals:
            session.handle_as_usual(number)
        stop()

    for number in signals:
        loop.add_signal_handler(number, once)
    try:
        yield
    finally:
        for number in signals:
            session.handle_as_usual(number)


async def _tell(line: Callable[[], str]) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        console.note(line())
