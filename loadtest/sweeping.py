"""A sweep: one run a rate, on the same stack, until a rate does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from loadtest import artefacts, environment, knee
from loadtest.report import render_sweep
from loadtest.run import Running, Target
from loadtest.workload import Constant, Sweep, Workload
from pipeline.errors import Misconfigured

FILE: Final = "sweep.json"
FORMAT: Final = 1
_ATTEMPTS: Final = 3
_SEEDS_APART: Final = 2
"""From run to run, as workers remember texts; what primes a run has the seed in between."""


class Sweeping:
    """A sweep under way."""

    def __init__(
        self,
        steps: Sequence[tuple[float, Workload]],
        name: str,
        target: Target,
        *,
        p95_limit_ms: float,
    ) -> None:
        self._steps = list(steps)
        self._name = name
        self._target = target
        self._limit_ms = p95_limit_ms
        self._running: Running | None = None
        self._stopped = False

    def line(self) -> str:
        """Progress in one line."""
        return self._running.line() if self._running else f"{self._name}: connecting"

    def stop(self) -> None:
        """End after the step under way, which is cut short."""
        self._stopped = True
        if self._running:
            self._running.stop()

    async def finish(self, folder: Path) -> None:
        """Run the steps, then write sweep.json and report.html to `folder`."""
        began_at = datetime.now(UTC).isoformat(timespec="seconds")
        machine = environment.describe()
        done: list[dict[str, Any]] = []
        for rate, workload in self._steps:
            done.append(await self._step(rate, workload, folder))
            if done[-1]["state"] != "holds" or self._stopped:
                break
        document = {
            "format": FORMAT,
            "name": self._name,
            "question": self._steps[0][1].question,
            "target": self._target.name,
            "seed": self._steps[0][1].seed,
            "began_at": began_at,
            "environment": machine,
            "limit_p95_ms": self._limit_ms,
            "steps": done,
            "interrupted": self._stopped,
            "knee": knee.find(done, cores=machine["cores"]),
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(artefacts.json(document))
        (folder / "report.html").write_text(render_sweep(document), encoding="utf-8")

    async def _step(self, rate: float, workload: Workload, folder: Path) -> dict[str, Any]:
        """One rate; tried again when the generator, not the stack, was the one that failed."""
        name = f"{rate:g}-per-s"
        for attempt in range(_ATTEMPTS):
            self._running = Running(later(workload, attempt), name, self._target)
            summary = await self._running.finish(folder / name)
            step = knee.step(summary, rate, p95_limit_ms=self._limit_ms)
            if step["state"] != "invalid" or self._stopped:
                break
        return step


def steps(
    workload: Workload, rates: Sequence[float] | None, step_s: float | None
) -> list[tuple[float, Workload]]:
    """The runs of a sweep, no two with the same texts.

    Raises Misconfigured when rates are missing or not ascending.
    """
    load = workload.load
    if isinstance(load, Sweep):
        rates, step_s = rates or load.rates_per_s, step_s or load.step_s
    if not rates or any(b <= a for a, b in pairwise(rates)) or rates[0] <= 0:
        raise Misconfigured(
            "a sweep needs ascending rates",
            remedy="Give --rates 50,100,200, or a workload with load.mode = 'sweep'",
        )
    return [
        (rate, later(_at(workload, rate, step_s or 15.0), number * _ATTEMPTS))
        for number, rate in enumerate(rates)
    ]


def later(workload: Workload, runs: int) -> Workload:
    """The workload so many runs later: the same load with other texts, as its seed says."""
    return workload.model_copy(update={"seed": workload.seed + _SEEDS_APART * runs})


def read(where: Path) -> dict[str, Any]:
    """The document of a sweep, by its folder or file; raises Misconfigured."""
    file = where / FILE if where.is_dir() else where
    try:
        found = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise Misconfigured(
            f"there is no sweep at {where} ({type(error).__name__})",
            remedy="Give a folder that `sluice loadtest sweep` wrote",
        ) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or "knee" not in found:
        raise Misconfigured(f"{file.name} is not a sweep", remedy="Give a sweep's folder")
    return found


def _at(workload: Workload, rate: float, step_s: float) -> Workload:
    try:
        load = Constant(mode="rate", rate_per_s=rate, duration_s=step_s)
    except ValidationError as error:
        raise Misconfigured(
            f"a step of {rate:g} per second for {step_s:g} s: {error.errors()[0]['msg']}",
            remedy="Correct --rates or --step",
        ) from None
    return workload.model_copy(update={"load": load})
