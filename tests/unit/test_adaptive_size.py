"""Specification of a size that follows how quickly things come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.adaptive_size import AdaptiveSize

QUICK_S, SLOW_S = 0.02, 0.05

answers = st.lists(st.tuples(st.integers(1, 10_000), st.floats(0.0, 1.0)), max_size=60)


def sized(least: int, most: int) -> AdaptiveSize:
    """One with a guard call's bounds of time."""
    return AdaptiveSize(least=least, most=most, quick_s=QUICK_S, slow_s=SLOW_S)


def test_full_calls_that_are_back_quickly_let_the_next_be_twice_as_large() -> None:
    """Up to the bound, and not beyond."""
    size = sized(1000, 3000)
    seen = []
    for _ in range(3):
        size.ended(size.now, QUICK_S / 2)
        seen.append(size.now)
    assert seen == [2000, 3000, 3000]


def test_a_small_call_that_is_back_quickly_says_nothing() -> None:
    """An idle guard answers one short text at once; a full call may take it long."""
    size = sized(1000, 8000)
    size.ended(499, 0.001)
    assert size.now == 1000
    size.ended(500, 0.001)
    assert size.now == 2000


def test_a_call_that_took_long_halves_the_next_however_little_it_held() -> None:
    """A guard that has become slow is not asked for more at once than at the beginning."""
    size = sized(1000, 8000)
    for _ in range(3):
        size.ended(size.now, 0.001)
    seen = []
    for _ in range(4):
        size.ended(8, SLOW_S * 2)
        seen.append(size.now)
    assert seen == [4000, 2000, 1000, 1000]


def test_between_quick_and_slow_the_size_stands_still() -> None:
    """Twice as much in twice the time is neither: it does not swing to and fro."""
    size = sized(1000, 8000)
    size.ended(1000, QUICK_S * 0.99)
    assert size.now == 2000
    size.ended(2000, QUICK_S * 1.98)
    assert size.now == 2000


@given(st.integers(1, 4096), st.integers(0, 65_536), answers)
def test_it_stays_within_its_bounds(
    least: int, most: int, answered: list[tuple[int, float]]
) -> None:
    """Whatever the guard does; a bound below the start counts as the start."""
    size = sized(least, most)
    for held, elapsed_s in answered:
        size.ended(held, elapsed_s)
        assert least <= size.now <= max(least, most)
