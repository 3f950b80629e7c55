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
def test_windows_of_one_bucket_share_a_call(asked: list[list[int]]) -> None:
    """A call fits the smallest bucket of each of its windows, and no smaller one."""
    for call in plan(asked, buckets=BUCKETS, max_rows=4, max_tokens=256):
        for row in call.rows:
            length = asked[row.request][row.window]
            bucket = min(bucket for bucket in BUCKETS if bucket >= length)
            below = max((other for other in BUCKETS if other < bucket), default=0)
            assert below < length <= call.length <= bucket


@given(lengths)
def test_a_call_is_padded_to_its_longest_window_in_steps_of_eight(asked: list[list[int]]) -> None:
    """At most seven tokens beyond the longest window are padding for all."""
    for call in plan(asked, buckets=BUCKETS, max_rows=4, max_tokens=256):
        longest = max(asked[row.request][row.window] for row in call.rows)
        assert call.length % 8 == 0
        assert call.length - longest < 8


def test_shorter_windows_travel_with_shorter_ones() -> None:
    """A short window is not padded to a long one of the same bucket."""
    calls = plan([[64], [17], [63], [18]], buckets=BUCKETS, max_rows=2, max_tokens=1000)
    assert [call.length for call in calls] == [24, 64]


@given(st.lists(st.integers(0, 3), max_size=8))
def test_a_window_with_an_answer_does_not_travel(answered: list[int]) -> None:
    """What a first stage settled is left out, everything else goes."""
    done = {Row(request=0, window=window) for window in answered}
    calls = plan([[5, 5, 5, 5]], buckets=BUCKETS, max_rows=4, max_tokens=1000, without=done)
    travelled = {row for call in calls for row in call.rows}
    assert travelled == {Row(request=0, window=window) for window in range(4)} - done


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
