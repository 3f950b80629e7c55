"""When each message is due: a plan fixed before the run, never changed by it. Pure.

A plan is a row of segments whose rate goes evenly from one value to another.
Message k is due when the area under the rate reaches k; with Poisson arrivals
when it reaches the sum of k exponential gaps, which has the same mean rate.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from loadtest.workload import Constant, Ramp, Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of `duration_s` from `first_per_s` to `last_per_s` messages a second."""

    first_per_s: float
    last_per_s: float
    duration_s: float

    @property
    def messages(self) -> float:
        """Expected messages in it."""
        return (self.first_per_s + self.last_per_s) / 2 * self.duration_s

    def when(self, area: float) -> float:
        """Seconds into it when `area` messages are due; 0 <= area <= messages."""
        slope = (self.last_per_s - self.first_per_s) / self.duration_s
        # The stable form of the quadratic's root; a slope of 0 needs no case of its own.
        root = math.sqrt(max(0.0, self.first_per_s**2 + 2 * slope * area))
        return 2 * area / (self.first_per_s + root)


def segments(load: Constant | Ramp | Sweep) -> tuple[Segment, ...]:
    """The plan of an open-loop load."""
    match load:
        case Constant():
            duration_s = load.duration_s or (load.messages or 0) / load.rate_per_s
            return (_level(load.rate_per_s, duration_s),)
        case Ramp():
            return (
                Segment(
                    first_per_s=load.from_per_s,
                    last_per_s=load.to_per_s,
                    duration_s=load.duration_s,
                ),
            )
        case Sweep():
            return tuple(_level(rate, load.step_s) for rate in load.rates_per_s)


def duration_s(plan: Sequence[Segment]) -> float:
    """Seconds from the first message's time to the end of the plan."""
    return sum(segment.duration_s for segment in plan)


def due(plan: Sequence[Segment], *, arrivals: str, seed: int) -> Iterator[float]:
    """Seconds from the start at which each message is due, ascending."""
    areas = _poisson(seed) if arrivals == "poisson" else (float(k) for k in count())
    left = iter(plan)
    segment, done, began_s = next(left), 0.0, 0.0
    for area in areas:
        # A whole number of messages may come out a hair short in floating point.
        while area - done >= segment.messages - 1e-6:
            done += segment.messages
            began_s += segment.duration_s
            following = next(left, None)
            if following is None:
                return
            segment = following
        yield began_s + segment.when(area - done)


def _poisson(seed: int) -> Iterator[float]:
    chance = random.Random(seed)  # noqa: S311 - reproducible by design
    area = 0.0
    while True:
        area += chance.expovariate(1.0)
        yield area


def _level(rate_per_s: float, duration_s: float) -> Segment:
    return Segment(first_per_s=rate_per_s, last_per_s=rate_per_s, duration_s=duration_s)
