"""Specification of acknowledgement in offset order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import Ledger, Slot

from .fakes import Commits


@given(st.permutations(range(12)), st.integers(0, 12))
def test_acknowledged_is_always_the_settled_head(order: list[int], settled: int) -> None:
    """In any order of settling, exactly the settled prefix is acknowledged, ascending."""
    commits, ledger = Commits(), Ledger()
    slots = [commits.slot(offset) for offset in range(12)]
    for slot in slots:
        ledger.take(slot)
    for done in range(settled):
        ledger.settle(slots[order[done]])
        ended = set(order[: done + 1])
        head = next((n for n in range(12) if n not in ended), 12)
        assert commits.acknowledged == list(range(head))
        assert len(ledger) == 12 - head


@given(st.lists(st.tuples(st.sampled_from("ts"), st.integers(0, 30)), max_size=60))
def test_taking_between_settling_never_overtakes_an_unsettled_message(
    steps: list[tuple[str, int]],
) -> None:
    """Takes and settles in any mixture acknowledge nothing behind an open message."""
    commits, ledger = Commits(), Ledger()
    slots: list[Slot] = []
    for step, pick in steps:
        if step == "t" or not slots:
            slots.append(commits.slot(len(slots) * 3))  # offsets have gaps: compaction
            ledger.take(slots[-1])
        else:
            ledger.settle(slots[pick % len(slots)])
        head = next((n for n, slot in enumerate(slots) if not slot.settled), len(slots))
        assert commits.acknowledged == [n * 3 for n in range(head)]


def test_partitions_do_not_wait_for_each_other() -> None:
    """An open message holds back its own partition only."""
    commits, ledger = Commits(), Ledger()
    held, free = commits.slot(1, partition=0), commits.slot(2, partition=1)
    ledger.take(held)
    ledger.take(free)
    assert ledger.settle(free) == 1
    assert commits.acknowledged == [2]
    assert list(ledger.heads()) == [held]


def test_settle_says_how_many_it_let_go() -> None:
    """Settling the head lets its settled followers go with it."""
    commits, ledger = Commits(), Ledger()
    slots = [commits.slot(offset) for offset in range(3)]
    for slot in slots:
        ledger.take(slot)
    assert [ledger.settle(slots[n]) for n in (1, 2, 0)] == [0, 0, 3]


def test_settling_twice_acknowledges_once() -> None:
    """A message is acknowledged a single time."""
    commits, ledger = Commits(), Ledger()
    slot = commits.slot(0)
    ledger.take(slot)
    assert [ledger.settle(slot), ledger.settle(slot)] == [1, 0]
    assert commits.acknowledged == [0]


def test_what_was_given_up_is_never_acknowledged() -> None:
    """After a rebalance a late outcome of the old assignment commits nothing."""
    commits, ledger = Commits(), Ledger()
    old = [commits.slot(offset) for offset in range(2)]
    for slot in old:
        ledger.take(slot)
    assert ledger.give_up() == old
    assert len(ledger) == 0
    again = commits.slot(0, generation=2)
    ledger.take(again)
    assert ledger.settle(old[0]) == 0
    assert commits.acknowledged == []
    assert list(ledger.slots()) == [again]


@pytest.mark.parametrize("offset", [4, 5])
def test_an_offset_that_does_not_ascend_is_refused(offset: int) -> None:
    """A repeated or earlier offset in one assignment means something is badly wrong."""
    commits, ledger = Commits(), Ledger()
    ledger.take(commits.slot(5))
    with pytest.raises(ValueError, match="prompts:0:"):
        ledger.take(commits.slot(offset))


def test_the_head_of_a_partition_is_its_oldest_open_message() -> None:
    """Of that partition only; none when all are settled, or none was taken."""
    commits, ledger = Commits(), Ledger()
    slots = [commits.slot(offset, partition=offset % 2) for offset in range(3, 8)]
    for slot in slots:
        ledger.take(slot)
    assert (ledger.head("prompts", 1), ledger.head("prompts", 0)) == (3, 4)
    ledger.settle(slots[0])
    assert ledger.head("prompts", 1) == 5
    assert ledger.head("prompts", 9) is None
    assert ledger.head("completions", 0) is None
