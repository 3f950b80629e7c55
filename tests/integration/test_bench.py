"""The benchmark on the real broker, small: who takes part really does the work."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from loadtest.bench import contenders, session, table
from loadtest.bench.session import Plan
from pipeline.embedded import EmbeddedKafka
from pipeline.embedded.process import EmbeddedFailed, ManagedProcess

pytestmark = pytest.mark.timeout(120)


def quiet(_line: str) -> None:
    """Nobody watches."""


_START = ManagedProcess.start


async def start_and_see_it_end(process: ManagedProcess) -> None:
    """Start; a contender is back only once it is gone."""
    await _START(process)
    while process.name == "raw" and process.running:
        await asyncio.sleep(0.02)


async def test_worker_and_raw_loop_take_turns(kafka: EmbeddedKafka) -> None:
    """Both answer all 200 messages in both topics and commit, or this would raise."""
    said: list[str] = []
    plan = Plan(messages=200, rounds=1, only=("sluice", "raw"))
    report = await session.run(plan, say=said.append, kafka=kafka)
    assert [list(turn) for turn in report.turns] == [["sluice", "raw"]]
    assert [line.split(": ")[1].split()[0] for line in said[1:]] == ["sluice", "raw"]
    laps = [lap for turn in report.turns for lap in turn.values() if lap is not None]
    assert all(lap.tokenise_us > 0 for lap in laps)
    text = "\n".join(table.lines(report))
    assert "Sluice worker, as shipped" in text
    assert "raw aiokafka loop" in text


@pytest.mark.parametrize("seen", ["as it comes", "ended before the first look"])
async def test_a_contender_that_ends_early_ends_the_benchmark(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """No figures of a process that wrote nothing, and its name, whenever it ended."""
    raw = next(each for each in contenders.ALL if each.name == "raw")
    monkeypatch.setattr(contenders, "ALL", (replace(raw, module=("this",)),))
    if seen != "as it comes":
        monkeypatch.setattr(ManagedProcess, "start", start_and_see_it_end)
    with pytest.raises(EmbeddedFailed, match="raw ended"):
        await session.run(Plan(messages=20, rounds=1, only=("raw",)), say=quiet, kafka=kafka)
