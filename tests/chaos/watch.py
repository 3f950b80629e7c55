"""What an operator would have seen: readiness, metrics, logs, memory, commits."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import psutil

from pipeline.embedded.stack import EmbeddedWorker
from pipeline.errors import SluiceError
from tests.chaos.catalogue import Seen
from tests.support import places
from tests.support.places import Place

_EVERY_S: Final = 0.25
_COMMITS_EVERY_S: Final = 0.5


@dataclass(slots=True)
class Watch:
    """Looks at every worker four times a second; an async context manager.

    `failing`: the details of checks that failed. `down`: whether a worker did
    not answer. `risen`: how far the fault's metric rose at most. `went_back`:
    committed offsets that did. `rss_mib`: memory, the first and the highest.
    """

    place: Place
    seen: Seen
    failing: dict[str, set[str]] = field(default_factory=dict)
    down: bool = False
    risen: float = 0.0
    went_back: list[str] = field(default_factory=list)
    rss_mib: tuple[float, float] = (0.0, 0.0)
    exits: list[int] = field(default_factory=list)
    _committed: dict[tuple[str, int], int] = field(default_factory=dict)
    _before: dict[str, float] = field(default_factory=dict)
    _log_starts: dict[str, int] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        """Take memory and the metric's value before, then watch."""
        for worker in self.place.workers:
            self._weigh(worker)
            self._log_starts[worker.address] = worker.log.stat().st_size
            await self._measure(worker)
        self.risen = 0.0
        self._tasks = [
            asyncio.create_task(self._look()),
            asyncio.create_task(self._follow_commits()),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def missed(self) -> list[str]:
        """What the catalogue promises an operator and this one did not see."""
        seen, log = self.seen, self._said()
        told = {
            f"check {seen.check} fails": not seen.check or seen.check in self.failing,
            "a worker is down": not seen.down or self.down,
            f"{seen.metric} rises by {seen.rises:g}, not {self.risen:g}": not seen.metric
            or self.risen >= seen.rises,
            f"exit status {seen.exit}, not {self.exits}": seen.exit is None
            or seen.exit in self.exits,
            **{f"log says {words!r}": words in log for words in seen.said},
        }
        return [what for what, holds in told.items() if not holds]

    def _said(self) -> str:
        """What the workers have logged since the watch began."""
        texts = []
        for worker in self.place.workers:
            with worker.log.open("rb") as log:
                log.seek(self._log_starts.get(worker.address, 0))
                texts.append(log.read().decode(errors="replace"))
        return "\n".join(texts)

    async def _look(self) -> None:
        while True:
            await asyncio.gather(*(self._look_at(worker) for worker in list(self.place.workers)))
            await asyncio.sleep(_EVERY_S)

    async def _look_at(self, worker: EmbeddedWorker) -> None:
        if (status := worker.status) is not None and status not in self.exits:
            self.exits.append(status)
        self._weigh(worker)
        try:
            async with asyncio.timeout(1.0):
                await self._measure(worker)
                page = await places.get(worker, "/readyz")
        except (OSError, TimeoutError):
            self.down = True
            return
        for name, check in page.checks.items():
            if not check["ok"]:
                self.failing.setdefault(name, set()).add(check["detail"])

    def _weigh(self, worker: EmbeddedWorker) -> None:
        with contextlib.suppress(psutil.Error):
            if (pid := worker.pid) is not None:
                mib = psutil.Process(pid).memory_info().rss / 2**20
                first, highest = self.rss_mib
                self.rss_mib = (first or mib, max(highest, mib))

    async def _measure(self, worker: EmbeddedWorker) -> None:
        """A counter of a worker that started anew counts from nothing."""
        if name := self.seen.metric:
            value = _sum(name, (await places.get(worker, "/metrics")).body.decode())
            before = self._before.setdefault(worker.address, value)
            self._before[worker.address] = min(before, value)
            self.risen = max(self.risen, value - self._before[worker.address])

    async def _follow_commits(self) -> None:
        while True:
            with contextlib.suppress(SluiceError, TimeoutError, OSError):
                async with asyncio.timeout(5.0):
                    self._compare(await self.place.committed())
            await asyncio.sleep(_COMMITS_EVERY_S)

    def _compare(self, committed: dict[tuple[str, int], int]) -> None:
        for at, offset in committed.items():
            if offset < (before := self._committed.get(at, 0)):
                self.went_back.append(f"{at[0]}/{at[1]}: {before} -> {offset}")
            self._committed[at] = offset


def _sum(name: str, page: str) -> float:
    """A metric's samples added up; a page holds one sample a line."""
    return sum(
        float(value)
        for value in re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
    )
