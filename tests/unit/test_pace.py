"""Specification of a pace: what is rare never waits, what is frequent is spread out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pace import Pace


def done(pace: Pace, wanted_s: list[float]) -> list[float]:
    """When each of these would be done, each after the one before."""
    times: list[float] = []
    for want_s in wanted_s:
        now_s = max(want_s, times[-1] if times else want_s)
        now_s += pace.wait_s(now_s)
        pace.spend(now_s, 1.0)
        times.append(now_s)
    return times


def test_after_a_pause_some_go_at_once() -> None:
    """Three in a row, the fourth has to wait for its time."""
    times = done(Pace(ahead_s=2.0), [10.0] * 5)
    assert times == pytest.approx([10.0, 10.0, 10.0, 11.0, 12.0])


def test_what_is_rare_never_waits() -> None:
    """At the pace's own distance or above, each goes when it wants."""
    wanted_s = [0.0, 1.0, 2.5, 3.5]
    assert done(Pace(ahead_s=0.0), wanted_s) == wanted_s


@given(
    st.lists(st.floats(0.0, 50.0), min_size=1, max_size=60).map(sorted),
    st.integers(1, 5),
)
def test_no_stretch_holds_more_than_the_pace_allows(wanted_s: list[float], in_a_row: int) -> None:
    """Within any span there are at most `in_a_row` and one more for each full distance."""
    times = done(Pace(ahead_s=in_a_row - 1.0), wanted_s)
    for first, start_s in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= in_a_row + (times[last] - start_s) + 1e-6


def test_the_distance_may_change() -> None:
    """What is spent at a longer distance puts off what follows by as much."""
    pace = Pace(ahead_s=0.0)
    pace.spend(10.0, 1.0)
    pace.spend(11.0, 4.0)
    assert pace.wait_s(12.0) == pytest.approx(3.0)
