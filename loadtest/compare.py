"""Two runs beside each other: what is worse by more than their noise. Pure.

The noise of a latency or a throughput is the standard error over the ten
stretches of each run; a difference counts when it exceeds three of both
together and 5 % of the first run. Stretches of one run share its luck, so
this bound is a floor: repeat a run to know how much two of the same differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Final

_SIGMAS: Final = 3.0
_FLOOR: Final = 0.05
_CPU_FLOOR: Final = 0.15
"""CPU a message has one figure a run, so its bound is a plain share."""
_UNLIKE_LOOPS: Final = 1.15
_UNLIKE_RECALLED: Final = 0.05

_BLOCKS: Final = {"p50_ms": 1, "p95_ms": 1, "p99_ms": 1, "answers_per_s": -1}
_COUNTS: Final = ("lost", "dropped", "duplicates", "both", "degraded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A figure in both runs; `worse` when it changed for the worse beyond `bound`."""

    name: str
    before: float
    after: float
    bound: float
    sign: int

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    @property
    def word(self) -> str:
        """worse, better, or same within noise."""
        if abs(self.change) <= self.bound:
            return "same"
        return "worse" if self.change * self.sign > 0 else "better"


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Every figure that both runs have."""
    return [*_blocks(before, after), *_counts(before, after), *_cpu(before, after)]


def doubts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Why the two may not be comparable; empty when they are."""
    return [
        *_doubts_of("first", before),
        *_doubts_of("second", after),
        *_unlike(before, after),
    ]


def _doubts_of(label: str, run: Mapping[str, Any]) -> Iterator[str]:
    if not run["valid"]:
        yield f"the {label} run is invalid: {'; '.join(run['invalid_because'])}"
    if run["environment"]["load_average"][0] > run["environment"]["cores"]:
        yield f"the machine was busy when the {label} run began"


def _unlike(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if _asked(before) != _asked(after):
        yield "the workloads differ"
    told = [run.get("recalled_share") for run in (before, after)]
    if abs((told[0] or 0.0) - (told[1] or 0.0)) > _UNLIKE_RECALLED:
        shares = ["an unknown share" if each is None else f"{each:.0%}" for each in told]
        yield f"workers remembered {shares[0]} and {shares[1]} of the texts from before"
    for name in ("processor", "cores"):
        if before["environment"][name] != after["environment"][name]:
            yield f"the machines differ: {name}"
    loops = [run["environment"].get("python_loop_ms", 0.0) for run in (before, after)]
    if min(loops) > 0 and max(loops) > _UNLIKE_LOOPS * min(loops):
        yield f"Python ran unlike fast: a loop took {loops[0]:g} and {loops[1]:g} ms"
    for name in ("policies", "guards"):
        if before[name] != after[name]:
            yield f"the {name} differ"


def _asked(run: Mapping[str, Any]) -> dict[str, Any]:
    """The workload but for its seed: other texts of the same kind are the same load."""
    return {k: v for k, v in run["workload"].items() if k not in {"seed", "digest"}}


def bound(before: Sequence[float], after: Sequence[float]) -> float:
    """The noise of a difference of means: three standard errors, at least 5 %."""
    errors = [
        stdev(values) / math.sqrt(len(values)) for values in (before, after) if len(values) > 1
    ]
    return max(_SIGMAS * math.hypot(*errors), _FLOOR * abs(mean(before)))


def _blocks(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    if not before["blocks"] or not after["blocks"]:
        return
    for name, sign in _BLOCKS.items():
        first, second = ([block[name] for block in run["blocks"]] for run in (before, after))
        yield Difference(
            name=name,
            before=mean(first),
            after=mean(second),
            bound=bound(first, second),
            sign=sign,
        )


def _counts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name in _COUNTS:
        first, second = (float(run["counts"][name]) for run in (before, after))
        yield Difference(name=name, before=first, after=second, bound=0.0, sign=1)


def _cpu(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted(before["usage"].keys() & after["usage"].keys()):
        first, second = (run["usage"][name]["cpu_us_per_message"] for run in (before, after))
        yield Difference(
            name=f"{name} cpu_us_per_message",
            before=first,
            after=second,
            bound=_CPU_FLOOR * first,
            sign=1,
        )
