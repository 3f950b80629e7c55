"""How much of everything a target rate takes, from a sweep. Pure.

The model. A message costs a Triton server seconds of compute, shared by the
instances that it runs of the guard, and a worker seconds of CPU: the slopes of
both over the rate, so that idling is not counted.
Their inverse is what one of them can do. At a share rho of that, p95 follows
`base + k * rho / (1 - rho)`, the shape of a single queue, fitted to the steps
that held. rho is the largest share that keeps p95 within the target, at most
0.8. Replicas add up linearly.

What it leaves out: the broker's limits, network between machines, skewed
keys, and processors other than the one that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.errors import Misconfigured

_MOST: Final = 0.8
_LEAST: Final = 0.05
_SPREAD_ALONE: Final = 0.25
"""The uncertainty of a cost that one or two steps measured: a guess, and a wide one."""

_SPREAD_LEAST: Final = 0.05
_UNSURE: Final = 0.5

_PARTITIONS_PER_WORKER: Final = 2
_FAR: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds a message takes of one worker or Triton server; `spread` is +- a share."""

    seconds: float
    spread: float


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
    held = [each for each in sweep["steps"] if each["state"] == "holds"]
    if not held:
        raise Misconfigured(
            "no step of the sweep held, so there is nothing to plan from",
            remedy="Sweep again from a lower rate",
        )
    # A step that was too slow still shows what a message costs; one that was late does not.
    seen = [each for each in sweep["steps"] if each["state"] not in {"invalid", "interrupted"}]
    worker, triton = _cost(seen, _worker_busy), _cost(seen, _triton_busy)
    if triton is None or worker is None:
        raise Misconfigured(
            "the sweep did not see what worker and Triton use",
            remedy="Sweep with --embedded, or name --triton-metrics and --watch worker=PID",
        )
    workers_used = _workers(held[-1])
    capacity = min(1 / triton.seconds, workers_used / worker.seconds)
    base_ms, slope_ms = fit([(s["rate_per_s"] / capacity, s["p95_ms"]) for s in held])
    if base_ms >= p95_ms:
        raise Misconfigured(
            f"p95 is {base_ms:,.0f} ms without load: no number of replicas brings {p95_ms:g} ms",
            remedy="Take a faster guard, or shorter texts",
        )
    share = utilisation(base_ms, slope_ms, p95_ms)
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
        remarks=tuple(_remarks(sweep, held, rate_per_s, (worker, triton))),
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
    """The share of capacity at which p95 reaches the target; between 0.05 and 0.8."""
    if slope_ms <= 0:
        return _MOST
    room = (p95_ms - base_ms) / slope_ms
    return float(min(_MOST, max(_LEAST, room / (1 + room))))


def need(rate_per_s: float, cost: Cost, share: float, doubt: float) -> Need:
    """How many carry the rate at a share of what each can do."""
    spread = math.hypot(cost.spread, doubt)
    likely = rate_per_s * cost.seconds / share
    return Need(
        low=max(1, math.ceil(likely / (1 + spread))),
        likely=max(1, math.ceil(likely)),
        high=max(1, math.ceil(likely * (1 + spread))),
    )


def _cost(steps: Sequence[Mapping[str, Any]], busy: Any) -> Cost | None:
    """The slope of busy seconds a second over answers a second; what idles costs nothing."""
    known = [
        (step["throughput_per_s"], value) for step in steps if (value := busy(step)) is not None
    ]
    if not known:
        return None
    x, y = (np.array(column, dtype=float) for column in zip(*known, strict=True))
    if len(known) < 2:
        return Cost(seconds=float(y[0] / x[0]), spread=_SPREAD_ALONE)
    slope, idle = np.polyfit(x, y, 1)
    if slope <= 0 or idle < 0:
        slope, idle = float(x @ y / (x @ x)), 0.0
    return Cost(seconds=float(slope), spread=_spread(x, y - slope * x - idle, float(slope)))


def _spread(x: Any, residuals: Any, slope: float) -> float:
    """Two standard errors of a slope, as a share of it; at least 5 %."""
    if len(x) < 3:
        return _SPREAD_ALONE
    variance = float(residuals @ residuals) / (len(x) - 2)
    error = math.sqrt(variance / float(((x - x.mean()) ** 2).sum()))
    return max(_SPREAD_LEAST, 2 * error / slope)


def _worker_busy(step: Mapping[str, Any]) -> float | None:
    used = [each["cpu_cores"] for name, each in step["usage"].items() if "worker" in name]
    return sum(used) if used else None


def _triton_busy(step: Mapping[str, Any]) -> float | None:
    compute_s, instances = step["triton"].get("compute_s"), step["triton"].get("instances", 1.0)
    return compute_s / instances / step["total_s"] if compute_s and step["answered"] else None


def _workers(step: Mapping[str, Any]) -> int:
    return sum("worker" in name for name in step["usage"])


def _knee_spread(sweep: Mapping[str, Any]) -> float:
    """Half the gap between the rate that held and the one that broke, as a share."""
    holds, breaks = sweep["knee"]["holds_per_s"], sweep["knee"]["breaks_per_s"]
    if holds is None or breaks is None:
        return _SPREAD_ALONE
    return float((breaks - holds) / (breaks + holds))


def _remarks(
    sweep: Mapping[str, Any],
    held: Sequence[Mapping[str, Any]],
    rate_per_s: float,
    costs: Sequence[Cost],
) -> list[str]:
    found = []
    if max(each.spread for each in costs) > _UNSURE:
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
