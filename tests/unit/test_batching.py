"""Specification of the plan of guard calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batching import Call, Row, halves, plan

BUCKETS = (8, 16, 64)
lengths = st.lists(st.lists(st.integers(1, 64), max_size=6), max_size=20)


@given(lengths, st.integers(1, 9), st.integers(1, 300))
def test_every_window_travels_exactly_once(
    asked: list[list[int]], max_rows: int, max_tokens: int
) -> None:
    """No window is lost and none travels twice, whatever the limits."""
    calls = plan(asked, buckets=BUCKETS, max_rows=max_rows, max_tokens=max_tokens)
    travelled = [(row.request, row.window) for call in calls for row in call.rows]
    expected = [(r, w) for r, windows in enumerate(asked) for w in range(len(windows))]
    assert sorted(travelled) == expected


@given(lengths, st.integers(1, 9), st.integers(1, 300))
def test_calls_stay_within_their_limits(
    asked: list[list[int]], max_rows: int, max_tokens: int
) -> None:
    """A call has at most max_rows rows, and max_tokens padded tokens unless it is one row."""
    for call in plan(asked, buckets=BUCKETS, max_rows=max_rows, max_tokens=max_tokens):
        assert 1 <= len(call.rows) <= max_rows
        assert len(call.rows) == 1 or len(call.rows) * call.length <= max_tokens


@given(lengths)
def test_a_window_takes_the_smallest_bucket_that_holds_it(asked: list[list[int]]) -> None:
    """Padding is as small as the buckets allow."""
    for call in plan(asked, buckets=BUCKETS, max_rows=4, max_tokens=256):
        for row in call.rows:
            length = asked[row.request][row.window]
            assert call.length == min(bucket for bucket in BUCKETS if bucket >= length)


def test_full_calls_are_made_before_another_is_opened() -> None:
    """Nine equal windows at four rows a call make three calls, not nine."""
    calls = plan([[5]] * 9, buckets=BUCKETS, max_rows=4, max_tokens=1000)
    assert [len(call.rows) for call in calls] == [4, 4, 1]


def test_a_window_beyond_the_last_bucket_is_the_callers_mistake() -> None:
    """A window no bucket holds raises ValueError and names both lengths."""
    with pytest.raises(ValueError, match=r"65 tokens.*64"):
        plan([[65]], buckets=BUCKETS, max_rows=1, max_tokens=64)


@given(st.integers(2, 33))
def test_halves_lose_no_row_and_are_both_smaller(size: int) -> None:
    """Halving ends: both halves are shorter, and together they are the call."""
    call = Call(length=8, rows=tuple(Row(request=n, window=0) for n in range(size)))
    left, right = halves(call)
    assert left.rows + right.rows == call.rows
    assert 0 < len(left.rows) < size
    assert 0 < len(right.rows) < size
    assert left.length == right.length == call.length
