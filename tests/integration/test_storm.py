"""Random faults of every kind, from a printed seed: all inputs accounted for.

`STORM_SEED=7 make soak` repeats a storm.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pipeline.embedded.stack import EmbeddedStack, EmbeddedWorker
from tests.support import stacks, tiny_guard, traffic
from tests.support.traffic import Load

_LOAD = Load(messages=20_000, malformed=0.02, per_second=300)
_FROZEN_S = 9.0
"""Longer than the group's session timeout in tests: the others take over meanwhile."""


class Storm:
    """Faults of one stack, chosen by a seeded generator."""

    def __init__(self, stack: EmbeddedStack, workers: list[EmbeddedWorker], seed: int) -> None:
        self._stack = stack
        self._workers = workers
        self._chance = random.Random(seed)
        self._faults: list[Callable[[EmbeddedWorker], Awaitable[None]]] = [
            self._kill,
            self._kill,
            self._restart,
            self._freeze,
            self._triton,
            self._broker,
        ]

    async def rage(self) -> None:
        """One fault after another, until cancelled."""
        while True:
            await asyncio.sleep(self._chance.uniform(1.0, 5.0))
            fault = self._chance.choice(self._faults)
            worker = self._chance.choice(self._workers)
            sys.stderr.write(f" {fault.__name__.strip('_')}")
            await fault(worker)

    async def calm(self) -> None:
        """Everything runs again."""
        await asyncio.gather(self._stack.kafka.start(), self._stack.triton.start())
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGCONT)
            else:
                await worker.start()

    async def _kill(self, worker: EmbeddedWorker) -> None:
        await worker.kill()
        await worker.launch()

    async def _restart(self, worker: EmbeddedWorker) -> None:
        await worker.stop()
        await worker.launch()

    async def _freeze(self, worker: EmbeddedWorker) -> None:
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGSTOP)
            await asyncio.sleep(_FROZEN_S)
            os.kill(worker.pid, signal.SIGCONT)

    async def _triton(self, _worker: EmbeddedWorker) -> None:
        await self._stack.triton.kill()
        await asyncio.sleep(1.0)
        await self._stack.triton.start()

    async def _broker(self, _worker: EmbeddedWorker) -> None:
        await self._stack.kafka.kill()
        await asyncio.sleep(1.0)
        await self._stack.kafka.start()


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_storm_loses_nothing(tmp_path: Path) -> None:
    """Two workers, Triton and the broker killed, frozen and restarted at random for a minute."""
    seed = int(os.environ.get("STORM_SEED") or random.randrange(10_000))
    sys.stderr.write(f"\nSTORM_SEED={seed}:")
    repository = tiny_guard.make(tmp_path / "models")
    async with stacks.open_stack(tmp_path, repository=repository, guard="tiny") as (stack, at):
        workers = [await stack.start_worker(), await stack.start_worker()]
        storm = Storm(stack, workers, seed)
        raging = asyncio.create_task(storm.rage())
        malformed = await traffic.publish(at, _LOAD, sent=lambda _: None)
        raging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await raging
        await storm.calm()
        report = await traffic.settled(at, within_s=180)
    sys.stderr.write(f"\n{report.total('repeats'):,} repeats of {report.total('inputs'):,}\n")
    assert report.total("missing") == 0
    assert report.total("both") == 0
    assert report.total("verdicts") == _LOAD.messages - malformed
    assert report.total("dead_letters") == malformed
