"""One run from end to end: generators and observer together, then the numbers."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from loadtest import artefacts, environment, schedule
from loadtest.figures import Taken
from loadtest.fleet import Fleet
from loadtest.guard_calls import GuardCalls
from loadtest.measure import join
from loadtest.observer import Observer
from loadtest.orders import Order
from loadtest.rows import OBSERVER
from loadtest.summary import About, summarise
from loadtest.vitals import Watch
from loadtest.workload import Closed, Constant, Texts, Workload
from pipeline.settings import Settings

PRIME_PER_S: Final = 200.0
_PRIMING: Final = "priming"
_POLL_S: Final = 0.1
_GRACE_S: Final = 0.5
"""After the last outcome: long enough for a duplicate that was on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The stack under test: how to reach it, and which of its processes run here.

    `overrides` lead other processes to the same settings; metrics pages by
    URL; `processes` maps names to process ids. A Triton server runs
    `triton_instances` of the guards.
    """

    name: str
    settings: Settings
    overrides: dict[str, Any]
    triton_urls: tuple[str, ...] = ()
    worker_urls: tuple[str, ...] = ()
    processes: Mapping[str, int] = field(default_factory=dict)
    triton_instances: int = 1


class Running:
    """A run under way: what it is doing, and the way to end it early."""

    def __init__(self, workload: Workload, name: str, target: Target) -> None:
        self._workload = workload
        self._name = name
        self._target = target
        self._run = secrets.token_hex(4)
        self._scheduled = self._due = planned(workload)
        self._began_s = time.monotonic()
        self._phase = "connecting"
        self._fleet: Fleet | None = None
        self._observer: Observer | None = None
        self._interrupted = False

    def line(self) -> str:
        """Progress in one line."""
        sent = self._fleet.total("sent") if self._fleet else 0
        late_ms = self._fleet.late_ms() if self._fleet else 0.0
        seen = len(self._observer.answered) if self._observer else 0
        return (
            f"{self._name}: {self._phase}, t={time.monotonic() - self._began_s:.0f}s"
            f" sent={sent:,}/{self._due:,} outcomes={seen:,} late={late_ms:.0f}ms"
        )

    def stop(self) -> None:
        """Send no more; what was sent is still counted."""
        self._interrupted = True
        if self._fleet:
            self._fleet.halt()

    async def finish(self, folder: Path) -> dict[str, Any]:
        """Run to the end, write the artefacts to `folder`, return the summary."""
        began_at = datetime.now(UTC).isoformat(timespec="seconds")
        machine = environment.describe()
        with tempfile.TemporaryDirectory(prefix="sluice-loadtest-") as scratch:
            taken, observer = await self._take(Path(scratch))
        about = About(
            run=self._run,
            name=self._name,
            target=self._target.name,
            began_at=began_at,
            environment=machine,
            policies=tuple(sorted(observer.policies)),
            guards=tuple(sorted(observer.guards)),
        )
        summary = summarise(taken, about)
        artefacts.write(folder, taken, summary)
        return summary

    async def _take(self, scratch: Path) -> tuple[Taken, Observer]:
        settings = self._target.settings
        if self._workload.prime_messages:
            await self._prime(scratch)
        async with AsyncExitStack() as stack:
            observer = await stack.enter_async_context(Observer.open(settings, self._run))
            self._observer = observer
            # Stopped while it was primed, it needs no generator to send nothing.
            stopped = self._interrupted
            orders = [] if stopped else self._orders(self._workload, self._run, scratch)
            fleet = await stack.enter_async_context(Fleet(orders))
            self._fleet = fleet
            calls = await GuardCalls.from_now(settings) if self._workload.guard_calls else None
            watch = self._watch(fleet)
            await watch.once()
            watching = asyncio.create_task(watch.run())
            stack.callback(watching.cancel)
            before_us = _offset_us()
            self._phase = "sending"
            start_ns = await self._send(fleet)
            self._phase = "settling"
            await self._settle(fleet, observer)
            ended_ns, after_us = time.monotonic_ns(), _offset_us()
            watching.cancel()
            (ended,) = await asyncio.gather(watching, return_exceptions=True)
            await watch.once()
            rows = fleet.rows()
            taken = Taken(
                workload=self._workload,
                scheduled=self._scheduled,
                start_ns=start_ns,
                sent_until_ns=int(rows["sent_ns"].max(initial=start_ns)),
                ended_ns=ended_ns,
                joined=join(rows, observer.rows(), await calls.read() if calls else None),
                late=fleet.merged("late"),
                ack=fleet.merged("ack"),
                offset_us=(before_us, after_us),
                vitals=tuple(watch.samples),
                unreadable=observer.unreadable,
                triton_instances=self._target.triton_instances,
                interrupted=self._interrupted,
                unwatched=_unwatched(watch, ended),
            )
        return taken, observer

    async def _prime(self, scratch: Path) -> None:
        """Send other texts first, which count for nothing: code and caches are warm then."""
        self._phase = _PRIMING
        load, run = priming(self._workload), secrets.token_hex(4)
        orders = self._orders(load, run, scratch)
        async with Observer.open(self._target.settings, run) as observer, Fleet(orders) as fleet:
            self._fleet, self._observer, self._due = fleet, observer, planned(load)
            await self._send(fleet)
            await self._settle(fleet, observer)
        self._fleet, self._observer = None, None
        self._due, self._phase = self._scheduled, "connecting"

    async def _send(self, fleet: Fleet) -> int:
        """Send what is due, nothing once the run was stopped; returns the start."""
        return time.monotonic_ns() if self._interrupted else await fleet.run(self._due)

    async def _settle(self, fleet: Fleet, observer: Observer) -> None:
        """Wait until every accepted message has an outcome, at most `settle_s`."""
        deadline_s = time.monotonic() + self._workload.settle_s
        rows = fleet.rows()
        awaited = set(rows["sequence"][rows["acked_ns"] > 0].tolist())
        while (awaited := awaited - observer.answered) and time.monotonic() < deadline_s:
            if self._interrupted and self._phase == _PRIMING:
                return  # its outcomes count for nothing
            observer.check()
            await asyncio.sleep(_POLL_S)
        await asyncio.sleep(_GRACE_S)

    def _orders(self, workload: Workload, run: str, scratch: Path) -> list[Order]:
        of = workload.generators
        return [
            Order(
                run=run,
                workload=workload.model_dump(mode="json"),
                overrides=self._target.overrides,
                part=part,
                of=of,
                rows=str(scratch / f"{run}-{part}.npy"),
            )
            for part in range(of)
        ]

    def _watch(self, fleet: Fleet) -> Watch:
        fixed = {**self._target.processes, OBSERVER: os.getpid()}
        return Watch(
            self._target.settings,
            triton_urls=self._target.triton_urls,
            worker_urls=self._target.worker_urls,
            pids=lambda: {**fixed, **fleet.pids},
        )


def priming(workload: Workload) -> Workload:
    """What is sent before a workload: short generated texts, of which it sends none."""
    load = Constant(mode="rate", rate_per_s=PRIME_PER_S, messages=workload.prime_messages)
    texts = Texts(source="generated", median_chars=40, p95_chars=120, max_chars=300)
    messages = workload.messages.model_copy(update={"texts": texts, "malformed": 0.0})
    changed = {"load": load, "messages": messages, "seed": workload.seed + 1}
    return workload.model_copy(update=changed)


def planned(workload: Workload) -> int:
    """How many messages a workload schedules."""
    if isinstance(workload.load, Closed):
        return workload.load.messages
    plan = schedule.segments(workload.load)
    due = schedule.due(plan, arrivals=workload.arrivals, seed=workload.seed)
    return sum(1 for _ in due)


def _unwatched(watch: Watch, ended: BaseException | None) -> tuple[str, ...]:
    """What the watch missed, in words; `ended` is what ended it, its cancellation as a rule."""
    found = [f"no metrics came from {url}: its figures are missing" for url in watch.silent]
    if isinstance(ended, Exception):
        found.append(f"samples of the stack ended early ({type(ended).__name__}: {ended})")
    return tuple(found)


def _offset_us() -> float:
    """Wall clock minus monotonic clock, in microseconds."""
    return (time.time_ns() - time.monotonic_ns()) / 1000
