"""A whole benchmark: rounds in which each peer runs beside the worker, then the figures."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from loadtest import environment
from loadtest.bench import contenders, figures, race, scene
from loadtest.bench.contenders import WORKER, Contender
from loadtest.bench.figures import Lap, Standing, Turn
from loadtest.bench.scene import Scene
from pipeline.embedded import EmbeddedKafka
from pipeline.embedded.process import ManagedProcess
from pipeline.settings import home

_TOKENISE_S: Final = 120.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run."""

    messages: int
    rounds: int
    only: tuple[str, ...] = contenders.NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of it, turn by turn; `absent` says why a contender did not take part."""

    plan: Plan
    environment: dict[str, Any]
    value_bytes: int
    titles: dict[str, str]
    turns: list[Turn]
    absent: dict[str, str]

    @property
    def standings(self) -> dict[str, Standing]:
        """Medians of those that could be measured."""
        made = {
            name: figures.standing([turn[name] for turn in self.turns if name in turn])
            for name in self.titles
        }
        return {name: standing for name, standing in made.items() if standing is not None}

    @property
    def over_sluice(self) -> dict[str, float]:
        """Each contender's net CPU over the worker's, by turns."""
        return figures.ratios(self.turns, WORKER)

    @property
    def goals(self) -> list[figures.Goal]:
        """The targets that this run can answer."""
        return figures.goals(self.standings, self.over_sluice)

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            **asdict(self),
            "standings": {name: asdict(each) for name, each in self.standings.items()},
            "over_sluice": self.over_sluice,
            "goals": [asdict(goal) for goal in self.goals],
        }


async def run(plan: Plan, *, say: Say, kafka: EmbeddedKafka | None = None) -> Report:
    """Run a plan on a broker of its own, or on a running one that is given.

    Raises what `race.run` raises: no figures without complete outputs.
    """
    before = environment.describe()
    taking_part, absent = await _taking_part(plan.only)
    with TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        async with (
            _broker(kafka, folder, say) as broker,
            scene.open_scene(broker, folder, plan.messages) as ready,
        ):
            say(f"{plan.messages:,} messages of {ready.value_bytes} bytes are in Kafka")
            done = await _rounds(ready, taking_part, plan.rounds, say)
    return Report(
        plan=plan,
        environment=before,
        value_bytes=ready.value_bytes,
        titles={contender.name: contender.title for contender in taking_part},
        turns=done,
        absent=absent,
    )


async def _taking_part(only: Sequence[str]) -> tuple[list[Contender], dict[str, str]]:
    wanted = [contender for contender in contenders.ALL if contender.name in only]
    absent = {
        contender.name: why
        for contender in wanted
        if (why := await contenders.why_absent(contender))
    }
    return [contender for contender in wanted if contender.name not in absent], absent


@asynccontextmanager
async def _broker(
    given: EmbeddedKafka | None, folder: Path, say: Say
) -> AsyncIterator[EmbeddedKafka]:
    if given is not None:
        yield given
        return
    async with EmbeddedKafka(home(), folder / "kafka", on_progress=say) as started:
        yield started


def turns(taking_part: Sequence[Contender], number: int) -> list[tuple[Contender, ...]]:
    """Who runs directly after whom in a round: every peer beside the worker.

    One lap of the worker stands between two peers and serves both. Each order of
    the peers serves two rounds, one after the other way round: with an order to
    each round, two peers would never change places.
    """
    worker = [each for each in taking_part if each.name == WORKER]
    peers = [each for each in taking_part if each.name != WORKER]
    if not peers:
        return [tuple(worker)]
    first = number // 2 % len(peers)
    rotated = [*peers[first:], *peers[:first]]
    made = [
        (before, *worker, *rotated[at + 1 : at + 2])
        for at, before in enumerate(rotated)
        if at % 2 == 0
    ]
    return made if number % 2 else [turn[::-1] for turn in made]


async def _rounds(
    ready: Scene, taking_part: Sequence[Contender], rounds: int, say: Say
) -> list[Turn]:
    """The laps of all turns; tokenising is measured in each round, at its speed."""
    done: list[Turn] = []
    for number in range(rounds):
        by_rows = await _tokenising(ready, {each.rows for each in taking_part})
        for contending in turns(taking_part, number):
            turn: dict[str, Lap | None] = {}
            for each in contending:
                lap = await race.run(ready, each)
                turn[each.name] = lap and replace(lap, tokenise_us=by_rows[each.rows])
                say(f"round {number + 1} of {rounds}: {each.name} {_short(lap)}")
            done.append(turn)
    return done


async def _tokenising(ready: Scene, batches: Collection[int]) -> dict[int, float]:
    """Microseconds of CPU a message for tokenising alone, by messages at a time."""
    return {rows: await _tokenising_at(ready, rows) for rows in batches}


async def _tokenising_at(ready: Scene, rows: int) -> float:
    command = [sys.executable, "-m", "loadtest.bench.tokenising", str(ready.messages), str(rows)]
    process = ManagedProcess(
        "tokenising",
        command,
        log=ready.log(f"tokenising-{rows}"),
        remedy="Read its log",
        env=scene.variables(ready.common),
    )
    await process.start()
    await process.completed(timeout_s=_TOKENISE_S)
    return float(process.said().split()[-1])


def _short(lap: Lap | None) -> str:
    return "was too short to measure" if lap is None else f"{lap.cpu_us:.0f} us of CPU a message"
