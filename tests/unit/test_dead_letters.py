"""Specification of the bound on dead letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dead_letters import Bound, Budget
from pipeline.errors import DeadLetterLimit

spends = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20)
bounds = st.builds(
    Bound, window=st.integers(1, 20), count=st.integers(1, 10), ratio=st.floats(0.05, 1)
)


@given(bounds, spends)
def test_it_stops_exactly_when_count_and_ratio_are_both_passed(
    bound: Bound, steps: list[tuple[int, int]]
) -> None:
    """The budget agrees with counting the last `window` messages afresh each time."""
    budget, history = Budget(bound), []
    for good, dead in steps:
        history += [False] * good + [True] * dead
        recent = history[-bound.window :]
        passed = sum(recent) >= bound.count and sum(recent) / max(1, len(recent)) > bound.ratio
        if dead and passed:
            with pytest.raises(DeadLetterLimit):
                budget.spend(good=good, dead=dead)
            return
        budget.spend(good=good, dead=dead)


@given(spends)
def test_a_ratio_of_one_never_stops(steps: list[tuple[int, int]]) -> None:
    """An operator can let every dead letter pass."""
    budget = Budget(Bound(window=10, count=1, ratio=1.0))
    for good, dead in steps:
        budget.spend(good=good, dead=dead)


@given(bounds, spends, st.integers(0, 8))
def test_good_messages_that_turn_out_dead_are_counted_once(
    bound: Bound, steps: list[tuple[int, int]], turned: int
) -> None:
    """Revising is the same as having known: the latest good ones become dead."""
    budget = Budget(Bound(window=bound.window, count=10**6, ratio=1.0))
    recent: list[bool] = []
    for good, dead in steps:
        budget.spend(good=good, dead=dead)
        recent = (recent + [False] * good + [True] * dead)[-bound.window :]
    budget.revise(dead=turned)
    expected = sum(recent) + min(turned, recent.count(False))
    assert (budget._dead, sum(budget._recent)) == (expected, expected)
    assert len(budget._recent) == len(recent)


def test_revising_past_the_bound_stops_the_worker() -> None:
    """Three of four turned out dead: that is more than half."""
    budget = Budget(Bound(window=100, count=3, ratio=0.5))
    budget.spend(good=4, dead=0)
    budget.revise(dead=0)
    budget.revise(dead=2)
    with pytest.raises(DeadLetterLimit, match="3 of the last 4"):
        budget.revise(dead=1)


def test_a_few_dead_letters_at_the_start_do_not_stop_it() -> None:
    """Below `count` even a ratio of one hundred per cent goes on."""
    budget = Budget(Bound(window=100, count=5, ratio=0.5))
    budget.spend(good=0, dead=4)
    with pytest.raises(DeadLetterLimit):
        budget.spend(good=0, dead=1)


def test_old_dead_letters_are_forgotten() -> None:
    """Those that left the window count no more."""
    budget = Budget(Bound(window=10, count=3, ratio=0.25))
    budget.spend(good=8, dead=2)
    budget.spend(good=10, dead=0)
    budget.spend(good=0, dead=2)


def test_the_error_names_the_setting_to_change() -> None:
    """Whoever is woken learns how many there were and which key lets them pass."""
    budget = Budget(Bound(window=10, count=1, ratio=0.1))
    with pytest.raises(DeadLetterLimit, match=r"3 of the last 4 .*limits\.dead_letter_ratio"):
        budget.spend(good=1, dead=3)
