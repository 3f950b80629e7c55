"""Guard calls: which windows travel together in one Triton request.

Windows of one length bucket share a call, those of small texts first, and are
padded to the longest of them in steps of eight: padding is small, shapes are
few, and Triton can merge calls of equal shape. A call holds at most `max_rows`
windows and `max_tokens` padded tokens. Every window is in exactly one call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

STEP: Final = 8
"""A call is padded to a multiple of so many tokens."""

PATIENCE_S: Final = 1.0
"""Who has waited so long has a claim to a call, however large the text."""

OLDEST_EVERY: Final = 4
"""One call in so many begins with the window that has waited longest, if it has that claim."""

_FEW: Final = 64
"""So many that have left may stay in a heap, however few wait."""

Item = TypeVar("Item", bound=Hashable)


Row = tuple[int, int]
"""One window of one request: the request's index and the window's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Item]):
    """Rows that travel together, each padded to `length` tokens."""

    length: int
    rows: tuple[Item, ...]


class Pool(Generic[Item]):
    """Windows that wait, and the call that goes next when one may.

    Small texts first, so that a short one does not wait for a long one's many
    windows; but nobody waits for ever.
    """

    def __init__(self, *, buckets: Sequence[int], max_rows: int, max_tokens: int) -> None:
        """`buckets` ascend. `max_tokens` may be set anew: it counts from the next call on."""
        self._buckets = tuple(buckets)
        self._max_rows = max_rows
        self.max_tokens = max_tokens
        self._heaps: dict[int, list[tuple[int, int, Item]]] = {bucket: [] for bucket in buckets}
        # Length and time of coming of those that wait, oldest first; heaps may hold others still.
        self._waiting: dict[Item, tuple[int, float]] = {}
        self._order = count()
        self._calls = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Item, *, length: int, size: int, now_s: float = 0.0) -> None:
        """Let a window wait: `length` tokens of a text of `size`.

        One longer than the last bucket is the caller's mistake: ValueError.
        """
        heappush(self._heaps[self._bucket(length)], (size, next(self._order), item))
        self._waiting[item] = length, now_s

    def discard(self, item: Item) -> None:
        """Nobody wants its answer any more; of no effect once it has left."""
        self._waiting.pop(item, None)

    def next_call(self, now_s: float = 0.0) -> Call[Item] | None:
        """Take the windows that go next out of the pool; None where none waits."""
        if not self._waiting:
            return None
        self._calls += 1
        if self._calls % OLDEST_EVERY == 0:
            oldest, (_, came_s) = next(iter(self._waiting.items()))
            if now_s - came_s >= PATIENCE_S:
                return self._call(oldest)
        return self._call(self._smallest())

    def _smallest(self) -> Item:
        tops = (heap[0] for bucket in self._buckets if (heap := self._pruned(bucket)))
        return min(tops, key=lambda top: top[:2])[2]

    def _call(self, first: Item) -> Call[Item]:
        """A call of this window and of those of its bucket that are the smallest texts'."""
        longest, _ = self._waiting.pop(first)
        bucket, rows = self._bucket(longest), [first]
        most = min(self._max_rows, self.max_tokens // bucket)
        heap = self._pruned(bucket)
        while len(rows) < most and heap:
            item = heappop(heap)[2]
            if (came := self._waiting.pop(item, None)) is not None:
                rows.append(item)
                longest = max(longest, came[0])
        return Call(length=min(bucket, _stepped(longest)), rows=tuple(rows))

    def _pruned(self, bucket: int) -> list[tuple[int, int, Item]]:
        """A bucket's heap, whose top waits still.

        The oldest left out of turn, from below the top: a heap made up mostly of such is
        built anew, or under lasting overload it would grow for ever.
        """
        heap = self._heaps[bucket]
        if len(heap) > 2 * len(self._waiting) + _FEW:
            heap[:] = [entry for entry in heap if entry[2] in self._waiting]
            heapify(heap)
        while heap and heap[0][2] not in self._waiting:
            heappop(heap)
        return heap

    def _bucket(self, length: int) -> int:
        index = bisect_left(self._buckets, length)
        if index == len(self._buckets):
            longest = self._buckets[-1]
            raise ValueError(f"a window of {length} tokens exceeds the longest bucket {longest}")
        return self._buckets[index]


def plan(
    lengths: Sequence[Sequence[int]],
    *,
    buckets: Sequence[int],
    max_rows: int,
    max_tokens: int,
) -> list[Call[Row]]:
    """Calls that cover every window once; `lengths[request][window]` in tokens.

    `buckets` ascend; raises what `Pool.add` raises.
    """
    pool: Pool[Row] = Pool(buckets=buckets, max_rows=max_rows, max_tokens=max_tokens)
    for request, windows in enumerate(lengths):
        for window, length in enumerate(windows):
            pool.add((request, window), length=length, size=sum(windows))
    calls = []
    while (call := pool.next_call()) is not None:
        calls.append(call)
    return calls


def halves(call: Call[Item]) -> tuple[Call[Item], Call[Item]]:
    """A call of two or more rows cut in two, to find the row that is refused."""
    middle = len(call.rows) // 2
    return (
        Call(length=call.length, rows=call.rows[:middle]),
        Call(length=call.length, rows=call.rows[middle:]),
    )


def _stepped(length: int) -> int:
    return -(-length // STEP) * STEP
