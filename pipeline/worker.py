"""Run a worker until it is told to stop, or must."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import structlog

from pipeline import metrics
from pipeline.faust_app import SluiceApp
from pipeline.health import Health
from pipeline.ports import Clock
from pipeline.selftest import VerifiedScorer
from pipeline.stream import Flow

log = structlog.get_logger(__name__)

BEAT_EVERY_S: Final = 0.5
_STOP_MARGIN_S: Final = 10.0
_YOUNG_OBJECTS: Final = 100_000
"""New objects before a collection: more than the messages that may be under way consist of."""


class Stop:
    """The one place that ends a worker: a signal, or the first error."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()
        self.error: BaseException | None = None

    def crash(self, error: BaseException) -> None:
        """End the worker because of an error; nothing more is acknowledged."""
        if self.error is None:
            self.error = error
        self._stopped.set()

    def request(self) -> None:
        """End the worker in order."""
        self._stopped.set()

    async def wait(self) -> None:
        """Return once the worker must end."""
        await self._stopped.wait()


async def run(
    app: SluiceApp,
    flow: Flow,
    scorer: VerifiedScorer,
    *,
    health: Health,
    clock: Clock,
    stop: Stop,
    drain_s: float,
    beside: Sequence[Coroutine[Any, Any, None]] = (),
) -> None:
    """Run until a signal or an error; raises the error once everything is put down.

    `beside` runs as long as the worker; its failure ends it.
    """
    tasks = [
        asyncio.create_task(_guarded(work, stop))
        for work in (
            flow.conveyor.run(),
            scorer.watch(),
            _beat(app, flow, health, clock, stop),
            *beside,
        )
    ]
    with _signals(stop):
        try:
            await _start(app, stop)
            _collect_rarely()
            log.info("worker-started", group=app.conf.id)
            await stop.wait()
        finally:
            log.info("worker-stopping", cause=str(stop.error or "requested"))
            await _put_down(app, drain_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if stop.error is not None:
        raise stop.error


def _collect_rarely() -> None:
    """Let Python look for cycles in what messages leave behind only, and seldom.

    What is loaded by now lives as long as the worker, and a message's records
    hold no cycles: reference counts free them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


async def _start(app: SluiceApp, stop: Stop) -> None:
    """Start Faust, giving up when the worker must end before it is up."""
    starting = asyncio.ensure_future(app.start())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        starting.result()
    else:
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting


async def _put_down(app: SluiceApp, drain_s: float) -> None:
    """Stop Faust; past the deadline it is left, and Kafka redelivers what it held."""
    within_s = drain_s + _STOP_MARGIN_S
    # Not `asyncio.timeout`: where Faust waits for a broker that is away it swallows a cancellation.
    stopping = asyncio.ensure_future(app.stop())
    _, late = await asyncio.wait({stopping}, timeout=within_s)
    if late:
        log.error("stop-timed-out", after_s=within_s)
    else:
        stopping.result()


async def _guarded(work: object, stop: Stop) -> None:
    """Run a background coroutine whose failure ends the worker."""
    try:
        await work  # type: ignore[misc]
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        stop.crash(error)


async def _beat(app: SluiceApp, flow: Flow, health: Health, clock: Clock, stop: Stop) -> None:
    """Show that the loop turns, measure lag, and notice a Faust service that crashed."""
    while True:
        health.beat()
        _measure(app, flow, clock)
        if app.crashed:
            stop.crash(app.crash_reason or RuntimeError("Faust stopped by itself"))
        await asyncio.sleep(BEAT_EVERY_S)


def _measure(app: SluiceApp, flow: Flow, clock: Clock) -> None:
    oldest_s: dict[str, float] = defaultdict(float)
    now_s = clock.now().timestamp()
    for slot in flow.ledger.heads():
        age_s = now_s - slot.timestamp_ms / 1000 if slot.timestamp_ms else 0.0
        topic = slot.position.topic
        oldest_s[topic] = max(oldest_s[topic], age_s)
    for topic in flow.topics.inputs.values():
        metrics.LAG_SECONDS.labels(topic).set(oldest_s[topic])
    if app.started:
        app.measure_lag()


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT end the worker in order; the process ends with it, so a second is late."""
    loop = asyncio.get_running_loop()
    chosen = (signal.SIGTERM, signal.SIGINT)
    for number in chosen:
        loop.add_signal_handler(number, stop.request)
    try:
        yield
    finally:
        for number in chosen:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
