"""How much one guard call carries: more while the guard answers quickly. Pure.

A guard call costs the worker some 0.2 ms whatever it holds; a guard on a GPU computes
8,192 tokens sooner than one on a CPU does 1,024. What suits one makes the other's short
texts wait, so the size follows what the guard shows.
"""

from __future__ import annotations


class AdaptiveSize:
    """A size from `least` up to `most`, in whatever its user counts.

    What is back within `quick_s` says that the next may be twice as large, what takes
    above `slow_s` halves it. Between the two it stands still, so that twice as much in
    twice the time does not swing to and fro: `slow_s` is more than twice `quick_s`.
    """

    def __init__(self, *, least: int, most: int, quick_s: float, slow_s: float) -> None:
        """`most` below `least` counts as `least`: the size stands still."""
        self._least = least
        self._most = max(least, most)
        self._quick_s = quick_s
        self._slow_s = slow_s
        self.now = least

    @property
    def grown(self) -> bool:
        """Whether what came back has shown that more than `least` may travel together."""
        return self.now > self._least

    def ended(self, size: int, elapsed_s: float) -> None:
        """Learn from one that ended: only one at least half full says that more would fit.

        One that never came back took infinitely long.
        """
        if elapsed_s > self._slow_s:
            self.now = max(self._least, self.now // 2)
        elif elapsed_s < self._quick_s and 2 * size >= self.now:
            self.now = min(self._most, self.now * 2)
