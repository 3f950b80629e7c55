"""How often something may be done: several times in a row, then at even distances. Pure.

The generic cell rate algorithm (ITU-T I.371): what is rare is never made to
wait, what is frequent is spread out.
"""

from __future__ import annotations

import math


class Pace:
    """Once every `every_s` seconds on average, `in_a_row` times at once after a pause."""

    def __init__(self, *, every_s: float, in_a_row: int) -> None:
        self._every_s = every_s
        self._ahead_s = every_s * (in_a_row - 1)
        self._due_s = -math.inf

    def wait_s(self, now_s: float) -> float:
        """Seconds until it may be done; 0 if now."""
        return max(0.0, self._due_s - self._ahead_s - now_s)

    def spend(self, now_s: float) -> None:
        """It is done now."""
        self._due_s = max(self._due_s, now_s) + self._every_s
