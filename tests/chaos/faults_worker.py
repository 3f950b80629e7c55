"""Faults of the workers: killed, frozen, stopped, replaced one by one, in another time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from pipeline.embedded.stack import EmbeddedWorker
from tests.chaos.catalogue import Scene, Seen, fault
from tests.support import places

_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
_CLOCK = Path(f"/tmp/sluice-chaos-clock-{os.getpid()}")
_UNDER_ANOTHER_CLOCK = {
    "LD_PRELOAD": str(_FAKETIME),
    "FAKETIME_TIMESTAMP_FILE": str(_CLOCK),
    "FAKETIME_CACHE_DURATION": "1",  # seconds until the file is read again
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
}
_FROZEN_S = 6.0  # twice the group's session timeout in these tests


def _signal(worker: EmbeddedWorker, number: signal.Signals) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, number)


@fault(
    "worker-sigkill",
    heals="started again",
    lasts_s=1.0,
    short_s=0.5,
    seen=Seen(alert="WorkerNotReady", down=True),
)
async def worker_sigkill(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL of the only worker."""
    await scene.worker.kill()
    yield
    await scene.worker.start()


@fault(
    "worker-sigstop",
    heals="SIGCONT, twice the session timeout later: the zombie finds itself evicted",
    lasts_s=_FROZEN_S,
    workers=2,
    seen=Seen(alert="WorkerNotReady", down=True),
)
async def worker_sigstop(scene: Scene) -> AsyncIterator[None]:
    """SIGSTOP of one of two workers with a batch in flight; the other takes over."""
    await _in_flight(scene.worker)
    _signal(scene.worker, signal.SIGSTOP)
    yield
    _signal(scene.worker, signal.SIGCONT)


@fault(
    "worker-sigterm",
    heals="started again",
    lasts_s=1.0,
    short_s=0.5,
    seen=Seen(alert="WorkerNotReady", down=True, said=("worker-stopping",), exit=0),
)
async def worker_sigterm(scene: Scene) -> AsyncIterator[None]:
    """SIGTERM in the middle of a batch that takes half a second a call."""
    await scene.place.texts(*["slow"] * 20)
    await _in_flight(scene.worker)
    _signal(scene.worker, signal.SIGTERM)
    await places.ended(scene.worker, within_s=15.0)
    yield
    await scene.worker.start()


@fault(
    "two-workers-rolling",
    heals="each starts again before the next is stopped",
    lasts_s=0.0,
    workers=2,
    seen=Seen(alert="WorkerNotReady", check="partitions", said=("rebalancing",), down=True),
)
async def two_workers_rolling(scene: Scene) -> AsyncIterator[None]:
    """Two workers, each stopped in order and started again: four rebalances."""
    await _roll(scene.workers)
    yield


@fault(
    "three-workers-rolling",
    heals="each starts again before the next is stopped",
    lasts_s=0.0,
    workers=3,
    seen=Seen(alert="WorkerNotReady", check="partitions", said=("rebalancing",), down=True),
)
async def three_workers_rolling(scene: Scene) -> AsyncIterator[None]:
    """Three workers, rolled twice, one of them by SIGKILL."""
    await scene.workers[1].kill()
    await scene.workers[1].launch()
    await _roll(scene.workers)
    yield


async def _roll(workers: list[EmbeddedWorker]) -> None:
    for worker in workers:
        await worker.stop()
        await worker.start()


async def _in_flight(worker: EmbeddedWorker) -> None:
    async def some() -> bool:
        return bool(await places.metric(worker, "sluice_in_flight_messages"))

    deadline_s = time.monotonic() + 10.0
    while not await some():
        assert time.monotonic() < deadline_s, "nothing is in flight"
        await asyncio.sleep(0.01)


def _no_faketime() -> str:
    _CLOCK.write_text("+0")
    return "" if _FAKETIME.exists() else "libfaketime is not installed (apt install faketime)"


@fault(
    "clock-forward",
    heals="the clock is set right, the worker started again",
    lasts_s=1.0,
    variables=_UNDER_ANOTHER_CLOCK,
    unless=_no_faketime,
    seen=Seen(alert="WorkerNotReady", down=True, said=("refuses this host's time of day",), exit=2),
)
async def clock_forward(scene: Scene) -> AsyncIterator[None]:
    """The worker's clock jumps two hours ahead; the broker refuses stamps of the future."""
    _CLOCK.write_text("+2h")
    await places.ended(scene.worker, within_s=20.0)
    yield
    _CLOCK.write_text("+0")
    await scene.worker.start()


@fault(
    "clock-back",
    heals="the clock is set right",
    lasts_s=3.0,
    variables=_UNDER_ANOTHER_CLOCK,
    unless=_no_faketime,
    seen=Seen(metric="sluice_messages_total", rises=200),
)
async def clock_back(scene: Scene) -> AsyncIterator[None]:
    """The worker's clock jumps two hours back, then forward again: work goes on."""
    _CLOCK.write_text("-2h")
    yield
    _CLOCK.write_text("+0")
