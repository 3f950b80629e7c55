"""What every command that is not a service begins with."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from pipeline import settings, telemetry

log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
"""From `docker stop` or a supervisor; from a terminal that was closed."""

_LEFT_ENDS_WITHIN_S: Final = 2.0

_cancelled_by: Final[ContextVar[dict[signal.Signals, Callable[[int], None]]]] = ContextVar(
    "cancelled_by"
)
"""Within `run`: its handlers by signal."""


def begin(overrides: dict[str, Any] | None = None) -> settings.Settings:
    """The settings in force, with the libraries' logs kept off the terminal.

    Raises Misconfigured naming key, problem and remedy.
    """
    loaded = settings.load(overrides)
    quiet()
    return loaded


def quiet() -> None:
    """Let only errors of our own be logged: a command tells the rest in words."""
    telemetry.configure_logging("ERROR", "console")
    for library in ("aiokafka", "kafka", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def with_policy(path: Path | None) -> dict[str, Any]:
    """Overrides that put another policy file in place; none without a path."""
    return {"policy": {"file": path}} if path else {}


def run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end; Ctrl-C cancels it and arrives as KeyboardInterrupt.

    SIGTERM and SIGHUP cancel it too, so that what it started ends in order, and
    arrive as SystemExit with the code that a shell knows such an end by.
    """
    received: list[int] = []
    try:
        return asyncio.run(_cancelled_by_signals(coroutine, received))
    except asyncio.CancelledError:
        if not received:
            raise
        raise SystemExit(128 + received[0]) from None


async def _cancelled_by_signals(
    coroutine: Coroutine[Any, Any, _Result], received: list[int]
) -> _Result:
    """Await it; a signal is noted in `received` and cancels it."""
    main = asyncio.current_task()
    assert main is not None

    def cancel(number: int) -> None:
        received.append(number)
        # Shell and kernel both tell of a closed terminal: the second is no reason to hurry.
        if len(received) == 1:
            main.cancel()

    chosen = _unhandled()
    _cancelled_by.set(dict.fromkeys(chosen, cancel))
    for number in chosen:
        handle_as_usual(number)
    try:
        return await coroutine
    finally:
        for number in chosen:
            asyncio.get_running_loop().remove_signal_handler(number)


def handle_as_usual(number: signal.Signals) -> None:
    """Take back what handled a signal meanwhile: `run` acts on it, elsewhere its default does."""
    loop = asyncio.get_running_loop()
    cancel = _cancelled_by.get({}).get(number)
    if cancel is None:
        loop.remove_signal_handler(number)
    else:
        loop.add_signal_handler(number, cancel, number)


def _unhandled() -> list[signal.Signals]:
    """Signals that would end the process on the spot; `nohup` had one ignored."""
    if threading.current_thread() is not threading.main_thread():
        return []  # handlers are the main thread's
    return [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]


def run_quickly(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end, on uvloop where there is one: it takes 15 % off Faust's cost.

    For what must be quick and sees to its signals itself, worker and replay: once in a
    long while uvloop waits for ever for a socket when it closes, which nobody expects of
    the other commands.
    """
    runner = asyncio.Runner(loop_factory=_quick_loop())
    try:
        return runner.run(coroutine)
    finally:
        left = _end_what_is_left(runner.get_loop())
        if left:  # the runner would wait for them for ever
            log.warning("left-behind", tasks=left)
        else:
            runner.close()


def _quick_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _end_what_is_left(loop: asyncio.AbstractEventLoop) -> int:
    """Cancel every task; returns how many did not end by that.

    Faust's do not where it waits for a broker that is away.
    """
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        ended, _ = loop.run_until_complete(asyncio.wait(left, timeout=_LEFT_ENDS_WITHIN_S))
        for task in ended:
            if not task.cancelled():
                task.exception()  # else it is told as never retrieved
    return len(asyncio.all_tasks(loop))
