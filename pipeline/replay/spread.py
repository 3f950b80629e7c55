"""How numbers from 0 up are spread: exact mean and maximum, quantiles in fine steps. Pure.

Memory does not grow with the count: a number falls into one of 48 steps a
decade, so a quantile is at most 5 % above the true one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Self

_STEPS: Final = 48
_ZERO: Final = -1_000_000
"""The step of 0 itself, below every other."""


class Spread:
    """Counts numbers; one is added at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.highest = 0.0
        self._steps: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """Count a number of at least 0."""
        self.count += 1
        self.total += value
        self.highest = max(self.highest, value)
        self._steps[math.ceil(math.log10(value) * _STEPS) if value > 0 else _ZERO] += 1

    def quantile(self, share: float) -> float:
        """The least step that `share` of the numbers do not pass; 0 when there are none."""
        left = math.ceil(share * self.count)
        for step in sorted(self._steps):
            left -= self._steps[step]
            if left <= 0:
                return 0.0 if step == _ZERO else min(self.highest, 10 ** (step / _STEPS))
        return 0.0

    def as_json(self) -> dict[str, float]:
        """Count, mean, quantiles and maximum."""
        return {
            "count": self.count,
            "mean": self.total / self.count if self.count else 0.0,
            **{f"p{name}": self.quantile(int(name) / 100) for name in ("50", "90", "95", "99")},
            "max": self.highest,
        }

    def state(self) -> dict[str, Any]:
        """Everything, as a JSON document."""
        steps = {str(step): count for step, count in self._steps.items()}
        return {"count": self.count, "total": self.total, "highest": self.highest, "steps": steps}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """The spread that `state` came from."""
        spread = cls()
        spread.count, spread.total = state["count"], state["total"]
        spread.highest = state["highest"]
        spread._steps = Counter({int(step): count for step, count in state["steps"].items()})
        return spread
