"""How often something may be done: several times in a row, then at even distances. Pure.

The generic cell rate algorithm (ITU-T I.371): what is rare is never made to
wait, what is frequent is spread out.
"""

from __future__ import annotations

import math


class Pace:
    """At the distances it is told on average; `ahead_s` may be run ahead of that after a pause."""

    def __init__(self, *, ahead_s: float) -> None:
        self._ahead_s = ahead_s
        self._due_s = -math.inf

    def wait_s(self, now_s: float) -> float:
        """Seconds until it may be done; 0 if now."""
        return max(0.0, self._due_s - self._ahead_s - now_s)

    def spend(self, now_s: float, every_s: float) -> None:
        """It is done now, and next time `every_s` seconds later."""
        self._due_s = max(self._due_s, now_s) + every_s
