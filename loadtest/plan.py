"""How much of everything a target rate takes, from a sweep. Pure.

The model. A message costs a Triton server seconds of compute, shared by the
instances that it runs of the guard, and a worker seconds of CPU: the slopes of
both over the rate, so that idling is not counted.
Their inverse is what one of them can do. At a share rho of that, p95 follows
`base + k * rho / (1 - rho)`, the shape of a single queue, fitted to the steps
that held. rho is the largest share that keeps p95 within the target, at most
0.8; a target that takes less than 0.05 is refused. Replicas add up linearly.

What it leaves out: the broker's limits, network between machines, skewed
keys, and processors other than the one that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from loadtest import costs, scrape
from loadtest.costs import Cost
from pipeline.errors import Misconfigured

_MOST: Final = 0.8
_LEAST: Final = 0.05
"""A smaller share of capacity would rest on the noise of `base` alone."""

_UNSURE: Final = 0.5

_SAYS_NOTHING: Final = frozenset({"invalid", "interrupted", "dropped"})
_STEP: Final = frozenset(
    {"state", "rate_per_s", "throughput_per_s", "p95_ms", "total_s", "answered", "usage", "triton"}
)
_KNEE: Final = frozenset({"holds_per_s", "breaks_per_s"})
_PARTITIONS_PER_WORKER: Final = 2
_FAR: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many, at best, likely and at worst."""

    low: int
    likely: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a target takes, and the figures that the answer rests on."""

    rate_per_s: float
    p95_ms: float
    utilisation: float
    base_ms: float
    slope_ms: float
    worker: Cost
    triton: Cost
    workers: Need
    triton_replicas: Need
    partitions: Need
    remarks: tuple[str, ...]


def plan(sweep: Mapping[str, Any], *, rate_per_s: float, p95_ms: float) -> Plan:
    """The plan for a target; raises Misconfigured when the sweep cannot carry one."""
    held = _held(sweep)
    # A step that was too slow still shows what a message costs; one that was late, or left
    # messages without an outcome, does not.
    seen = [each for each in sweep["steps"] if each["state"] not in _SAYS_NOTHING]
    worker, triton = costs.measured(seen)
    capacity = min(1 / triton.seconds, max(map(costs.workers, seen)) / worker.seconds)
    base_ms, slope_ms = fit([(s["rate_per_s"] / capacity, s["p95_ms"]) for s in held])
    share = _share(base_ms, slope_ms, p95_ms)
    doubt = _knee_spread(sweep)
    workers = need(rate_per_s, worker, share, doubt)
    return Plan(
        rate_per_s=rate_per_s,
        p95_ms=p95_ms,
        utilisation=share,
        base_ms=base_ms,
        slope_ms=slope_ms,
        worker=worker,
        triton=triton,
        workers=workers,
        triton_replicas=need(rate_per_s, triton, share, doubt),
        partitions=Need(
            low=workers.low,
            likely=_PARTITIONS_PER_WORKER * workers.likely,
            high=_PARTITIONS_PER_WORKER * workers.high,
        ),
        remarks=(*_recalled(seen), *_remarks(sweep, held, rate_per_s, (worker, triton))),
    )


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """`base` and `k` of p95 = base + k * rho / (1 - rho), by least squares, neither negative."""
    usable = [(rho / (1 - min(rho, 0.99)), p95) for rho, p95 in points]
    if len(usable) < 2:
        # One point fixes no slope: charge all of it to the load, which plans for more.
        x, p95 = usable[0]
        return 0.0, p95 / max(x, 1e-9)
    design = np.array([[1.0, x] for x, _ in usable])
    base, slope = np.linalg.lstsq(design, np.array([p95 for _, p95 in usable]), rcond=None)[0]
    if slope < 0:
        return max(p95 for _, p95 in usable), 0.0
    return max(0.0, float(base)), float(slope)


def utilisation(base_ms: float, slope_ms: float, p95_ms: float) -> float:
    """The share of capacity at which p95 reaches a target above the base; at most 0.8."""
    room_ms = p95_ms - base_ms
    return float(min(_MOST, room_ms / (room_ms + slope_ms)))


def need(rate_per_s: float, cost: Cost, share: float, doubt: float) -> Need:
    """How many carry the rate at a share of what each can do."""
    spread = math.hypot(cost.spread, doubt)
    likely = rate_per_s * cost.seconds / share
    return Need(
        low=max(1, math.ceil(likely / (1 + spread))),
        likely=max(1, math.ceil(likely)),
        high=max(1, math.ceil(likely * (1 + spread))),
    )


def _held(sweep: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps that held; raises Misconfigured without any, or when it is no sweep."""
    if not _is_sweep(sweep):
        raise Misconfigured("the document is not a sweep", remedy="Give a sweep's folder")
    held = [each for each in sweep["steps"] if each["state"] == "holds"]
    if not held:
        raise Misconfigured(
            "no step of the sweep held, so there is nothing to plan from",
            remedy="Sweep again from a lower rate",
        )
    return held


def _is_sweep(document: Mapping[str, Any]) -> bool:
    """Whether a document has what a plan reads."""
    knee, steps = document.get("knee"), document.get("steps")
    return (
        "target" in document
        and isinstance(knee, Mapping)
        and knee.keys() >= _KNEE
        and isinstance(steps, list)
        and all(isinstance(each, Mapping) and each.keys() >= _STEP for each in steps)
    )


def _share(base_ms: float, slope_ms: float, p95_ms: float) -> float:
    """The utilisation that keeps the target; raises Misconfigured where next to none does."""
    if base_ms >= p95_ms:
        raise Misconfigured(
            f"p95 is {base_ms:,.0f} ms without load: no number of replicas brings {p95_ms:g} ms",
            remedy="Take a faster guard, or shorter texts",
        )
    share = utilisation(base_ms, slope_ms, p95_ms)
    if share < _LEAST:
        raise Misconfigured(
            f"p95 within {p95_ms:g} ms would leave replicas more than {1 - _LEAST:.0%} idle:"
            f" the fit has base {base_ms:,.0f} ms and k {slope_ms:,.0f} ms",
            remedy="Allow more, take a faster guard or shorter texts, or sweep more rates",
        )
    return share


def _knee_spread(sweep: Mapping[str, Any]) -> float:
    """Half the gap between the rate that held and the one that broke, as a share."""
    holds, breaks = sweep["knee"]["holds_per_s"], sweep["knee"]["breaks_per_s"]
    if holds is None or breaks is None:
        return costs.SPREAD_ALONE
    return float((breaks - holds) / (breaks + holds))


def _recalled(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    share = max(each.get("recalled_share") or 0.0 for each in steps)
    if share > scrape.RECALLED_MUCH:
        yield (
            f"up to {share:.0%} of a step's messages had no guard call, as workers remembered their"
            " texts: messages cost more than this, so sweep again with texts that differ"
        )


def _remarks(
    sweep: Mapping[str, Any],
    held: Sequence[Mapping[str, Any]],
    rate_per_s: float,
    both: Sequence[Cost],
) -> list[str]:
    found = []
    if max(each.spread for each in both) > _UNSURE:
        found.append("the steps disagree about what a message costs: sweep on a quiet machine")
    beyond = rate_per_s / max(each["rate_per_s"] for each in held)
    if beyond > _FAR:
        found.append(
            f"the target is {beyond:,.0f} times the highest rate that held: measure again at a"
            " tenth of it before you buy"
        )
    if sweep["knee"]["breaks_per_s"] is None:
        found.append("the sweep did not reach its knee, so there may be room left")
    if len(held) < 3:
        found.append(f"only {len(held)} steps held: the fit is weak")
    if sweep["target"] == "embedded":
        found.append(
            "broker, Triton, worker and generator shared this machine's cores:"
            " on machines of their own each can do more"
        )
    return found
