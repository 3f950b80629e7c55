"""Random faults from a printed seed, for as long as it is wished: all is accounted for.

`make soak MESSAGES=1000000 STORM_SEED=7` is the long one; a seed repeats a storm.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

import pytest

from pipeline import audit_check
from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.ranges import Range
from pipeline.settings import home
from tests.chaos.catalogue import CATALOGUE, Fault, Scene, Seen
from tests.chaos.faults import FAULTS
from tests.chaos.harness import caught_up, reckon, unproved
from tests.chaos.load import Load
from tests.chaos.watch import Watch
from tests.support import places, stacks, tiny_guard

_MESSAGES = int(os.environ.get("SOAK_MESSAGES") or 20_000)
_PER_S = float(os.environ.get("SOAK_PER_S") or 600)
_STRIKES = (
    "worker-sigkill", "worker-sigkill", "worker-sigstop", "worker-sigterm", "triton-sigkill",
    "triton-errors", "triton-nan", "triton-slow", "model-replaced", "broker-restart",
)  # fmt: skip
_GROWTH_MIB = 60


async def _rage(scene: Scene, chance: random.Random, struck: list[str]) -> None:
    """One fault after another, each healed, until enough is published."""
    assert FAULTS
    while scene.load.sent < _MESSAGES:
        await asyncio.sleep(chance.uniform(1.0, 5.0))
        fault: Fault = CATALOGUE[chance.choice(_STRIKES)]
        struck.append(fault.name)
        sys.stderr.write(f" {fault.name}")
        async with fault.injected(scene):
            await asyncio.sleep(chance.uniform(0.2, 1.0) * fault.lasts_s)


@pytest.mark.soak
@pytest.mark.timeout(600 + _MESSAGES // 50)
async def test_a_storm_loses_nothing(tmp_path: Path) -> None:
    """Two workers, of which one is struck and one endures: exact account, memory flat."""
    seed = int(os.environ.get("STORM_SEED") or random.randrange(10_000))
    sys.stderr.write(f"\nSTORM_SEED={seed} MESSAGES={_MESSAGES}:")
    repository = tiny_guard.make(tmp_path / "models")
    # Nothing is deleted before it is counted, however much there is.
    kafka = EmbeddedKafka(home(), tmp_path / "kafka", overrides={"log.retention.bytes": -1})
    async with kafka, EmbeddedTriton(repository, ["tiny"], tmp_path) as triton, places.open_place(
        tmp_path, kafka=kafka.bootstrap_servers, triton=triton.grpc_address, repository=repository,
        SLUICE_TELEMETRY__LOG_LEVEL="ERROR",
    ) as place:  # fmt: skip
        await place.start_worker()
        enduring = await place.start_worker()
        load = Load(place.settings, per_s=_PER_S)
        scene = Scene(place=place, load=load, kafka=kafka, triton=triton, repository=repository)
        struck: list[str] = []
        memory = stacks.Memory(lambda: enduring.pid, every_s=1.0)
        began_s = time.monotonic()
        async with load, Watch(place, Seen()) as watch, memory:
            await _rage(scene, random.Random(seed), struck)
            await load.stop()
            in_time = await caught_up(place, within_s=120 + _MESSAGES / 500)
        sys.stderr.write(f"\ncaught up after {time.monotonic() - began_s:.0f} s, counting\n")
        account = await reckon(place, sent=load.sent)
        proof = await audit_check.verify(place.settings, Range())
        sys.stderr.write(f"counted and proved after {time.monotonic() - began_s:.0f} s")
    _tell(account, memory, struck, logs=tmp_path / "kafka" / "topics")
    assert in_time
    assert account.faults() == {}
    assert unproved(proof, account) == []
    assert watch.went_back == []
    assert enduring.status in (None, 0)
    assert memory.highest - memory.at(0.2) < _GROWTH_MIB


def _tell(account: object, memory: stacks.Memory, struck: list[str], *, logs: Path) -> None:
    size_mib = sum(path.stat().st_blocks * 512 for path in logs.rglob("*.log")) / 2**20
    tenths = [round(memory.at(tenth / 10)) for tenth in range(1, 11)]
    sys.stderr.write(
        f"\n{account}\n{len(struck)} faults, {size_mib:.0f} MiB on the broker's disk;"
        f" memory of the worker that endures, by tenth of the run, MiB: {tenths}\n"
    )
