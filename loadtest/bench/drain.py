"""Let workers drain an input that lies ready, and watch them: throughput, CPU, memory.

Nothing waits for the next message here, so that what is measured is what the
workers, or the guard behind them, can do at most.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from loadtest.bench.outputs import Ends
from loadtest.bench.scene import variables
from pipeline import settings
from pipeline.adapters.kafka_topics import create_topics
from pipeline.embedded.loopback import free_ports
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.errors import SluiceError

Settings = Mapping[str, Mapping[str, Any]]

_EVERY_S: Final = 0.1
_ENOUGH: Final = 10
"""Samples without which a run is too short."""

_STALLED_S: Final = 60.0
_QUIET_S: Final = 1.0
_OUTPUTS: Final = ("verdicts", "audit", "dead_letters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Outcomes so far, and what all workers together have used.

    `reading`: a worker had said that it is ready.
    """

    at_s: float
    reading: bool
    outcomes: int
    cpu_s: float
    rss_mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """How a drain went: in its middle, and `whole_per_s` from readiness to the last outcome.

    Long texts end last, so that the middle flatters a mix with some. From the
    first outcome would flatter it too: by then the guard has judged hundreds
    whose batches are not complete.
    """

    per_s: float
    whole_per_s: float
    cpu_us: float
    samples: tuple[Sample, ...]

    def rss_mib(self, share: float) -> float:
        """The median memory of the tenth of the samples that ends at `share` of the run."""
        end = max(1, round(len(self.samples) * share))
        part = self.samples[max(0, end - len(self.samples) // 10 - 1) : end]
        return statistics.median(sample.rss_mib for sample in part)


def figures(samples: Sequence[Sample], messages: int) -> Drained:
    """Throughput and CPU a message; raises SluiceError when there are too few samples."""
    begun = next(s for s in samples if s.outcomes)
    middle = [s for s in samples if 0.1 * messages <= s.outcomes <= 0.9 * messages]
    if len(middle) < 2 and len(samples) - samples.index(begun) >= _ENOUGH:
        middle = [begun, samples[-1]]  # outcomes that come in lumps have no middle
    if len(middle) < 2 or middle[-1].outcomes == middle[0].outcomes:
        raise SluiceError("the run was too short to measure", remedy="Drain more messages")
    first, last = middle[0], middle[-1]
    done = last.outcomes - first.outcomes
    return Drained(
        per_s=done / (last.at_s - first.at_s),
        whole_per_s=samples[-1].outcomes / (samples[-1].at_s - _idle_until_s(samples)),
        cpu_us=(last.cpu_s - first.cpu_s) / done * 1e6,
        samples=tuple(samples),
    )


def _idle_until_s(samples: Sequence[Sample]) -> float:
    """When no worker was known to read yet: before its first outcome, not after."""
    return max((s.at_s for s in samples if not s.reading), default=samples[0].at_s)


async def drain(common: Settings, messages: int, folder: Path, workers: int = 1) -> Drained:
    """Start fresh workers on all of the input; raises when they end, stall or go wrong.

    `common` leads to broker, Triton and input topics; group and outputs are the run's own.
    """
    own = f"drain-{uuid.uuid4().hex[:8]}"
    chosen = {
        **common,
        "kafka": {**common["kafka"], "group": own},
        "topics": {**common["topics"], **{role: f"{role}-{own}" for role in _OUTPUTS}},
    }
    loaded = settings.load(chosen)
    await create_topics(loaded.kafka, loaded.topics)
    async with AsyncExitStack() as stack:
        started = [
            EmbeddedWorker(
                f"worker-{number + 1}",
                port=free_ports(1)[0],
                log=folder / f"{own}-{number + 1}.log",
                environ=variables(chosen),
            )
            for number in range(workers)
        ]
        for worker in started:
            stack.push_async_callback(worker.stop)
        ends = await stack.enter_async_context(Ends(loaded))
        await asyncio.gather(*(worker.launch() for worker in started))
        samples = await _watch(started, ends, loaded.topics.verdicts, messages)
        dead = await ends.total(loaded.topics.dead_letters)
    # Workers that join take partitions over: what was under way there is judged again.
    if dead or (workers == 1 and samples[-1].outcomes != messages):
        raise SluiceError(
            f"{samples[-1].outcomes:,} verdicts and {dead:,} dead letters of {messages:,} messages",
            remedy=f"Read the workers' logs in {folder}",
        )
    return figures(samples, messages)


async def _watch(
    workers: Sequence[EmbeddedWorker], ends: Ends, topic: str, messages: int
) -> list[Sample]:
    """Samples up to the last outcome: all are there once no more come."""
    samples: list[Sample] = []
    moved_s, outcomes, last, reading = time.monotonic(), 0, 0, False
    while outcomes < messages or time.monotonic() - moved_s < _QUIET_S:
        await asyncio.sleep(_EVERY_S)
        now_s, before = time.monotonic(), outcomes
        outcomes = await ends.total(topic)
        if outcomes > before:
            moved_s, last = now_s, len(samples) + 1
        ended = next((worker for worker in workers if worker.status is not None), None)
        if ended or now_s - moved_s > _STALLED_S:
            log = (ended or workers[0]).log
            raise SluiceError("a worker ended or stalled", remedy=f"Read its log, {log}")
        reading = reading or outcomes > 0 or await _any_ready(workers)
        cpu_s, rss = _used(workers)
        samples.append(
            Sample(
                at_s=now_s,
                reading=reading,
                outcomes=outcomes,
                cpu_s=cpu_s,
                rss_mib=rss / 2**20,
            )
        )
    return samples[:last]


async def _any_ready(workers: Sequence[EmbeddedWorker]) -> bool:
    return any(await asyncio.gather(*(worker.ready() for worker in workers)))


def _used(workers: Sequence[EmbeddedWorker]) -> tuple[float, int]:
    """CPU seconds and resident bytes of all workers together."""
    cpu_s, rss = 0.0, 0
    for pid in [worker.pid for worker in workers if worker.pid is not None]:
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            cpu_s += times.user + times.system
            rss += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return cpu_s, rss
