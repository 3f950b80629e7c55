"""How much one guard call carries: more while the guard answers quickly. Pure.

A call costs the worker the same whatever it holds, some 0.2 ms; a guard on a GPU
computes 8,192 tokens sooner than one on a CPU does 1,024. What suits one makes the
other's short texts wait, so the size follows what the guard shows.
"""

from __future__ import annotations

from typing import Final

QUICK_S: Final = 0.02
"""A full call back within this: the next may carry twice as much."""

SLOW_S: Final = 0.05
"""A call back after this: the next carries half. Far enough from quick to be steady between."""


class CallSize:
    """The padded tokens that a call may hold: from `least` up to `most`."""

    def __init__(self, *, least: int, most: int) -> None:
        """`most` below `least` counts as `least`: the size stands still."""
        self._least = least
        self._most = max(least, most)
        self.tokens = least

    def answered(self, padded_tokens: int, elapsed_s: float) -> None:
        """Learn from a call: only one at least half full says that more would fit.

        One that never came back took infinitely long.
        """
        if elapsed_s > SLOW_S:
            self.tokens = max(self._least, self.tokens // 2)
        elif elapsed_s < QUICK_S and 2 * padded_tokens >= self.tokens:
            self.tokens = min(self._most, self.tokens * 2)
