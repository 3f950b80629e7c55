"""Every input ends as exactly one outcome, through restarts, an outage, and a long run.

Each single fault has its entry in `tests/chaos`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from pipeline.embedded.stack import EmbeddedStack, EmbeddedWorker
from pipeline.reconcile import Reconciliation
from pipeline.settings import Settings
from tests.support import stacks, tiny_guard, traffic
from tests.support.places import metric, until
from tests.support.traffic import Load


class Progress:
    """How much was published, for faults that wait for their moment."""

    def __init__(self) -> None:
        self.sent = 0

    def hear(self, sent: int) -> None:
        """Remember the running total."""
        self.sent = sent

    async def reach(self, messages: int) -> None:
        """Return once so many messages were published."""
        while self.sent < messages:
            await asyncio.sleep(0.02)


async def _restart(worker: EmbeddedWorker) -> None:
    await worker.kill()
    await worker.start()


async def _run_through_crashes(
    stack: EmbeddedStack, settings: Settings, load: Load, *, kills: int, within_s: float
) -> tuple[Reconciliation, int]:
    """Publish a load; kill the worker `kills` times and Triton once meanwhile."""
    worker = await stack.start_worker()
    progress = Progress()

    async def faults() -> None:
        for number in range(kills):
            await progress.reach(load.messages * (number + 1) // (kills + 2))
            await _restart(worker)
        await progress.reach(load.messages * (kills + 1) // (kills + 2))
        await stack.triton.kill()
        await asyncio.sleep(2.0)
        await stack.triton.start()

    malformed, _ = await asyncio.gather(
        traffic.publish(settings, load, sent=progress.hear), faults()
    )
    return await traffic.settled(settings, within_s=within_s), malformed


def _assert_accounted(report: Reconciliation, load: Load, malformed: int) -> None:
    """Distinct verdicts = valid inputs, distinct dead letters = malformed ones."""
    assert report.total("inputs") == load.messages
    assert report.total("missing") == 0
    assert report.total("both") == 0
    assert report.total("verdicts") == load.messages - malformed
    assert report.total("dead_letters") == malformed
    assert report.outside == 0


async def test_rolling_restart_of_two_workers_loses_nothing(tmp_path: Path) -> None:
    """Two workers, each stopped in order and started again under load: all accounted for."""
    load = Load(messages=3000, malformed=0.02, per_second=300)
    repository = tiny_guard.make(tmp_path / "models")
    async with stacks.open_stack(tmp_path, repository=repository, guard="tiny") as (stack, at):
        workers = [await stack.start_worker(), await stack.start_worker()]
        progress = Progress()

        async def roll() -> None:
            for number, worker in enumerate(workers):
                await progress.reach(load.messages * (number + 1) // 4)
                await worker.stop()
                assert worker.status == 0
                await worker.start()

        malformed, _ = await asyncio.gather(traffic.publish(at, load, sent=progress.hear), roll())
        report = await traffic.settled(at, within_s=60)
    _assert_accounted(report, load, malformed)


async def test_a_worker_told_to_end_while_its_broker_is_away_does(tmp_path: Path) -> None:
    """In order and within the grace of a supervisor; what it held is delivered again."""
    load = Load(messages=2000, malformed=0.0, per_second=2000)
    repository = tiny_guard.make(tmp_path / "models")
    async with stacks.open_stack(tmp_path, repository=repository, guard="tiny") as (stack, at):
        worker = await stack.start_worker()
        publishing = asyncio.create_task(traffic.publish(at, load, sent=lambda _: None))
        await until(lambda: _settling(worker), "verdicts")
        await stack.kafka.kill()
        await worker.stop()
        assert worker.status == 0
        await stack.kafka.start()
        await publishing
        await worker.start()
        report = await traffic.settled(at, within_s=60)
    _assert_accounted(report, load, 0)


async def _settling(worker: EmbeddedWorker) -> bool:
    return bool(await metric(worker, "sluice_messages_total"))


async def _memory_through_an_outage(folder: Path, *, away_s: float) -> tuple[float, float]:
    """The worker's highest memory before and while 5,000 messages wait for Triton, in MiB."""
    load = Load(messages=5000, malformed=0.0, per_second=2500)
    warm = Load(messages=1000, malformed=0.0, per_second=1000)
    repository = tiny_guard.make(folder / "models")
    async with stacks.open_stack(folder, repository=repository, guard="tiny") as (stack, at):
        worker = await stack.start_worker()
        await traffic.publish(at, warm, sent=lambda _: None)
        await traffic.settled(at, within_s=60)
        async with stacks.Memory(lambda: worker.pid) as before:
            await asyncio.sleep(1.0)
        await stack.triton.kill()
        async with stacks.Memory(lambda: worker.pid) as during:
            await traffic.publish(at, load, sent=lambda _: None)
            await asyncio.sleep(away_s)
            assert not await worker.ready()
        await stack.triton.start()
        report = await traffic.settled(at, within_s=60)
    assert report.total("verdicts") == load.messages + warm.messages
    return before.highest, during.highest


async def test_memory_stays_flat_while_triton_is_away(tmp_path: Path) -> None:
    """Triton away with 5,000 messages waiting: the worker's memory does not follow the lag."""
    before, during = await _memory_through_an_outage(tmp_path, away_s=8.0)
    assert during - before < 40


@pytest.mark.soak
async def test_memory_stays_flat_through_a_long_outage(tmp_path: Path) -> None:
    """The same for half a minute."""
    before, during = await _memory_through_an_outage(tmp_path, away_s=30.0)
    sys.stderr.write(f"\nworker memory, MiB: {before:.0f} before, at most {during:.0f} meanwhile\n")
    assert during - before < 40


@pytest.mark.soak
@pytest.mark.timeout(1500)
async def test_soak_with_the_default_guard(tmp_path: Path) -> None:
    """20,000 messages, three SIGKILLs of the worker and one of Triton: all accounted for."""
    load = Load(messages=20_000, malformed=0.02, per_second=150)
    workers: list[EmbeddedWorker] = []
    async with (
        stacks.open_stack(tmp_path) as (stack, at),
        stacks.Memory(lambda: workers[0].pid if workers else None) as memory,
    ):
        workers = stack.workers
        report, malformed = await _run_through_crashes(stack, at, load, kills=3, within_s=900)
    sys.stderr.write(
        f"\ninputs {report.total('inputs'):,}, distinct verdicts {report.total('verdicts'):,},"
        f" dead letters {report.total('dead_letters'):,}, repeats {report.total('repeats'):,}\n"
        f"worker memory by tenth of the run, MiB:"
        f" {[round(memory.at(tenth / 10)) for tenth in range(1, 11)]}\n"
    )
    _assert_accounted(report, load, malformed)
    assert memory.highest - memory.at(0.2) < 60
