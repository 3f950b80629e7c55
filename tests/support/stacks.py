"""Stacks of a test's own: broker, Triton and workers that it may kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import psutil

from pipeline import settings
from pipeline.embedded.stack import EmbeddedStack
from pipeline.settings import Settings

# Short enough that a killed worker's partitions are handed on within a test.
_QUICK_GROUP = {
    "SLUICE_KAFKA__SESSION_TIMEOUT_S": "6",
    "SLUICE_KAFKA__HEARTBEAT_S": "1",
    "SLUICE_WORKER__DRAIN_S": "3",
}
# Their few texts repeat, and what is tested is the guard: a recalled score would hide it.
_EVERY_MESSAGE_JUDGED = {"SLUICE_GUARDS__CACHE_ENTRIES": "0"}


@asynccontextmanager
async def open_stack(
    folder: Path, *, repository: Path | None = None, guard: str = "default", **variables: str
) -> AsyncIterator[tuple[EmbeddedStack, Settings]]:
    """A running stack without workers, and the settings that lead to it."""
    chosen = {"names": (guard,)} | ({"repository": repository} if repository else {})
    environ = {
        **os.environ,
        **_QUICK_GROUP,
        **_EVERY_MESSAGE_JUDGED,
        "SLUICE_GUARDS__NAMES": f'["{guard}"]',
        **({"SLUICE_GUARDS__REPOSITORY": str(repository)} if repository else {}),
        **variables,
    }
    wanted = settings.load({"guards": chosen})
    stack = EmbeddedStack(wanted, home=settings.home(), data=folder, environ=environ)
    async with stack:
        yield stack, settings.load({"guards": chosen, **stack.overrides()})


class Memory:
    """Resident memory of a process over time, in MiB; an async context manager."""

    def __init__(self, pid: Callable[[], int | None], every_s: float = 0.25) -> None:
        self._pid = pid
        self._every_s = every_s
        self.samples: list[tuple[float, float]] = []

    async def __aenter__(self) -> Self:
        """Begin to sample."""
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop sampling."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def highest(self) -> float:
        """The highest sample."""
        return max(mib for _, mib in self.samples)

    def at(self, share: float) -> float:
        """The median of the tenth of the samples that ends at `share` (0.1..1) of the run."""
        end = max(1, int(len(self.samples) * share))
        part = sorted(
            mib for _, mib in self.samples[max(0, end - len(self.samples) // 10 - 1) : end]
        )
        return part[len(part) // 2]

    async def _sample(self) -> None:
        while True:
            if (pid := self._pid()) is not None and psutil.pid_exists(pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    rss = psutil.Process(pid).memory_info().rss
                    self.samples.append((time.monotonic(), rss / 2**20))
            await asyncio.sleep(self._every_s)
