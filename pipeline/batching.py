"""Plan guard calls: which windows travel together in one Triton request.

Windows of one length bucket share a call, the shorter with the shorter, and are
padded to the longest of them in steps of eight: padding is small, shapes are
few, and Triton can merge calls of equal shape. A call holds at most `max_rows`
windows and `max_tokens` padded tokens. Every window is in exactly one call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

STEP: Final = 8
"""A call is padded to a multiple of so many tokens."""


class Row(NamedTuple):
    """One window of one request, by their indexes; a tuple, because it is a key so often."""

    request: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Rows that travel together, each padded to `length` tokens."""

    length: int
    rows: tuple[Row, ...]


def plan(
    lengths: Sequence[Sequence[int]],
    *,
    buckets: Sequence[int],
    max_rows: int,
    max_tokens: int,
    without: Container[Row] = (),
) -> list[Call]:
    """Calls that cover every window once; `lengths[request][window]` in tokens.

    Rows in `without` are left out: they have their answer already.
    `buckets` ascend. A window longer than the last bucket is the caller's
    mistake: ValueError.
    """
    by_bucket: dict[int, list[Row]] = {}
    for request, windows in enumerate(lengths):
        for window, length in enumerate(windows):
            row = Row(request=request, window=window)
            if row not in without:
                by_bucket.setdefault(_bucket(length, buckets), []).append(row)

    def tokens(row: Row) -> int:
        return lengths[row.request][row.window]

    return [
        Call(length=min(bucket, _stepped(tokens(rows[-1]))), rows=rows)
        for bucket in sorted(by_bucket)
        for rows in _split(
            sorted(by_bucket[bucket], key=tokens), min(max_rows, max(1, max_tokens // bucket))
        )
    ]


def halves(call: Call) -> tuple[Call, Call]:
    """A call of two or more rows cut in two, to find the row that is refused."""
    middle = len(call.rows) // 2
    return (
        Call(length=call.length, rows=call.rows[:middle]),
        Call(length=call.length, rows=call.rows[middle:]),
    )


def _stepped(length: int) -> int:
    return -(-length // STEP) * STEP


def _bucket(length: int, buckets: Sequence[int]) -> int:
    index = bisect_left(buckets, length)
    if index == len(buckets):
        raise ValueError(f"a window of {length} tokens exceeds the longest bucket {buckets[-1]}")
    return buckets[index]


def _split(rows: list[Row], size: int) -> Iterator[tuple[Row, ...]]:
    for start in range(0, len(rows), size):
        yield tuple(rows[start : start + size])
