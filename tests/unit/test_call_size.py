"""Specification of a guard call's size: it follows how quickly the guard answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.call_size import QUICK_S, SLOW_S, CallSize

answers = st.lists(st.tuples(st.integers(1, 10_000), st.floats(0.0, 1.0)), max_size=60)


def test_full_calls_that_are_back_quickly_let_the_next_be_twice_as_large() -> None:
    """Up to the bound, and not beyond."""
    size = CallSize(least=1000, most=3000)
    seen = []
    for _ in range(3):
        size.answered(size.tokens, QUICK_S / 2)
        seen.append(size.tokens)
    assert seen == [2000, 3000, 3000]


def test_a_small_call_that_is_back_quickly_says_nothing() -> None:
    """An idle guard answers one short text at once; a full call may take it long."""
    size = CallSize(least=1000, most=8000)
    size.answered(499, 0.001)
    assert size.tokens == 1000
    size.answered(500, 0.001)
    assert size.tokens == 2000


def test_a_call_that_took_long_halves_the_next_however_little_it_held() -> None:
    """A guard that has become slow is not asked for more at once than at the beginning."""
    size = CallSize(least=1000, most=8000)
    for _ in range(3):
        size.answered(size.tokens, 0.001)
    seen = []
    for _ in range(4):
        size.answered(8, SLOW_S * 2)
        seen.append(size.tokens)
    assert seen == [4000, 2000, 1000, 1000]


def test_between_quick_and_slow_the_size_stands_still() -> None:
    """Twice as much in twice the time is neither: it does not swing to and fro."""
    size = CallSize(least=1000, most=8000)
    size.answered(1000, QUICK_S * 0.99)
    assert size.tokens == 2000
    size.answered(2000, QUICK_S * 1.98)
    assert size.tokens == 2000


@given(st.integers(1, 4096), st.integers(0, 65_536), answers)
def test_it_stays_within_its_bounds(
    least: int, most: int, answered: list[tuple[int, float]]
) -> None:
    """Whatever the guard does; a bound below the start counts as the start."""
    size = CallSize(least=least, most=most)
    for padded_tokens, elapsed_s in answered:
        size.answered(padded_tokens, elapsed_s)
        assert least <= size.tokens <= max(least, most)
