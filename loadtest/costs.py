"""What a message costs a worker and a Triton server, from the steps of a sweep. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.errors import Misconfigured

SPREAD_ALONE: Final = 0.25
"""The uncertainty of a cost that one or two steps measured: a guess, and a wide one."""

_SPREAD_LEAST: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds a message takes of one worker or Triton server; `spread` is +- a share."""

    seconds: float
    spread: float


def measured(steps: Sequence[Mapping[str, Any]]) -> tuple[Cost, Cost]:
    """What a message costs a worker and Triton; raises Misconfigured where that was not seen."""
    worker, triton = _cost(steps, _worker_busy), _cost(steps, _triton_busy)
    if triton is None or worker is None:
        raise Misconfigured(
            "the sweep did not see what worker and Triton use",
            remedy="Sweep with --embedded, or name --triton-metrics and --watch worker=PID; give"
            " a --step of some seconds",
        )
    return worker, triton


def _cost(steps: Sequence[Mapping[str, Any]], busy: Any) -> Cost | None:
    """The slope of busy seconds a second over answers a second; what idles costs nothing.

    A step that answered nothing, or showed no use, says nothing: looks at a process lie a
    second apart, and a child that ended takes what it used with it.
    """
    known = [
        (step["throughput_per_s"], value)
        for step in steps
        if step["throughput_per_s"] > 0 and (value := busy(step) or 0.0) > 0
    ]
    if not known:
        return None
    x, y = (np.array(column, dtype=float) for column in zip(*known, strict=True))
    if len(known) < 2:
        return Cost(seconds=float(y[0] / x[0]), spread=SPREAD_ALONE)
    slope, idle = np.polyfit(x, y, 1)
    if slope <= 0 or idle < 0:
        slope, idle = float(x @ y / (x @ x)), 0.0
    return Cost(seconds=float(slope), spread=_spread(x, y - slope * x - idle, float(slope)))


def _spread(x: Any, residuals: Any, slope: float) -> float:
    """Two standard errors of a slope, as a share of it; at least 5 %."""
    if len(x) < 3:
        return SPREAD_ALONE
    variance = float(residuals @ residuals) / (len(x) - 2)
    error = math.sqrt(variance / float(((x - x.mean()) ** 2).sum()))
    return max(_SPREAD_LEAST, 2 * error / slope)


def _worker_busy(step: Mapping[str, Any]) -> float | None:
    """CPU seconds a second, over the same seconds as the throughput."""
    used = [each["cpu_us_per_message"] for name, each in step["usage"].items() if "worker" in name]
    return sum(used) * step["throughput_per_s"] / 1e6 if used else None


def _triton_busy(step: Mapping[str, Any]) -> float | None:
    compute_s, instances = step["triton"].get("compute_s"), step["triton"].get("instances", 1.0)
    return compute_s / instances / step["total_s"] if compute_s and step["answered"] else None


def workers(step: Mapping[str, Any]) -> int:
    """How many workers were seen in a step."""
    return sum("worker" in name for name in step["usage"])
