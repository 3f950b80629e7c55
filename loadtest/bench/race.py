"""One contender, once: start it, watch it to the last outcome, stop it, check it."""

from __future__ import annotations

import time
from typing import Final

import psutil

from loadtest.bench import outputs
from loadtest.bench.contenders import Contender
from loadtest.bench.figures import Lap, Sample, lap
from loadtest.bench.outputs import Ends
from loadtest.bench.scene import Scene, variables
from pipeline import settings
from pipeline.adapters.kafka_topics import create_topics
from pipeline.embedded.process import ManagedProcess
from pipeline.settings import Settings

_START_S: Final = 60.0
_SLOWEST_PER_S: Final = 100
_REMEDY: Final = "Read its log"


async def run(scene: Scene, contender: Contender) -> Lap | None:
    """The figures of one run, None if it was too short for any.

    Raises EmbeddedFailed when the contender ends or stalls, Misconfigured
    when what it wrote or committed is not what it had to.
    """
    entrance = scene.entrance(contender.name)
    loaded = settings.load(entrance)
    await create_topics(loaded.kafka, loaded.topics)
    process = ManagedProcess(
        contender.name,
        contender.command,
        log=scene.log(contender.name),
        remedy=_REMEDY,
        env=variables(entrance),
        grace_s=30.0,
    )
    await process.start()
    try:
        async with Ends(loaded) as ends:
            samples = await _watch(process, ends, loaded, scene.messages)
    finally:
        await process.stop()
    await outputs.check(loaded, scene.messages, contender.name)
    return lap(samples, scene.messages)


async def _watch(
    process: ManagedProcess, ends: Ends, loaded: Settings, messages: int
) -> list[Sample]:
    """Samples until both topics hold an outcome of every message."""
    samples: list[Sample] = []

    async def done() -> bool:
        verdicts = await ends.total(loaded.topics.verdicts)
        if (cpu_s := _cpu_s(process)) is not None:
            samples.append(Sample(at_s=time.monotonic(), cpu_s=cpu_s, verdicts=verdicts))
        return verdicts >= messages and await ends.total(loaded.topics.audit) >= messages

    await process.until(done, timeout_s=_START_S + messages / _SLOWEST_PER_S)
    return samples


def _cpu_s(process: ManagedProcess) -> float | None:
    """User and system time so far; None once it has ended, at whichever moment that was."""
    pid = process.pid
    if pid is None:
        return None
    try:
        spent = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return None
    return float(spent.user + spent.system)
