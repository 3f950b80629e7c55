"""`sluice up`."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pipeline import settings
from pipeline.cli import console, session
from pipeline.embedded.scratch import cannot_write
from pipeline.embedded.stack import EmbeddedStack
from pipeline.errors import Misconfigured

_TOPICS = "prompts, completions, verdicts, audit and dead letters: `sluice topics check`"


def up(
    workers: Annotated[int, typer.Option(min=0, max=16, help="How many workers to start.")] = 1,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what an earlier run kept.")
    ] = False,
) -> None:
    """Start a real Kafka, a real Triton and workers on loopback, until Ctrl-C.

    Takes the default ports where they are free, so that `sluice publish` and
    `sluice verdicts` in another terminal find it; topics are kept in .sluice/up.
    """
    session.run(_up(workers, fresh=fresh))


async def _up(workers: int, *, fresh: bool) -> None:
    data = settings.home() / "up"
    with _alone(data.with_suffix(".lock")) as lock:
        if fresh:
            shutil.rmtree(data, ignore_errors=True)
        stack = EmbeddedStack(
            settings.load(),
            home=settings.home(),
            data=data,
            environ=os.environ,
            say=console.note,
            prefer_ports=True,
            keep_open=(lock,),
        )
        async with stack:
            for _ in range(workers):
                await stack.start_worker()
            explain(stack)
            await stack.ended()


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """Hold the lock of a data folder: two brokers, or --fresh beside one, would ruin it.

    Yields its descriptor. The kernel lets go of the lock when all who hold that
    have ended, in whatever way: a broker outlives a killed owner by its shutdown.
    """
    try:
        lock = path.open("w")
    except OSError as error:
        raise cannot_write(path, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(
                f"a stack runs already in {path.with_suffix('')}, or still stops there",
                remedy="Use it, stop it with Ctrl-C, or set SLUICE_HOME to another folder",
            ) from None
        yield lock.fileno()


def explain(stack: EmbeddedStack) -> None:
    """Say how other programs reach the stack, and what to try."""
    console.note("")
    for name, value in stack.variables().items():
        console.note(f"  export {name}={value}")
    console.note("")
    console.note('  echo "how do I pick a lock" | sluice publish --wait -')
    console.note("  sluice verdicts --follow")
    console.note(f"  Topics: {_TOPICS}")
    console.note("Ctrl-C stops everything.")
