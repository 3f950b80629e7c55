"""Inputs against outcomes: the sums always hold, and gaps are named."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.events import Position
from pipeline.reconcile import Span, as_json, reconcile


def at(offset: int, partition: int = 0, topic: str = "t") -> Position:
    """An input's position."""
    return Position(topic=topic, partition=partition, offset=offset)


def span(start: int, end: int, partition: int = 0, topic: str = "t") -> Span:
    """Offsets [start, end) of a partition."""
    return Span(topic=topic, partition=partition, start=start, end=end)


some = st.lists(st.builds(at, st.integers(0, 12), st.integers(0, 2)), max_size=60)


@given(some, some, st.integers(0, 5), st.integers(5, 12))
def test_the_sums_hold(
    verdicts: list[Position], dead_letters: list[Position], start: int, end: int
) -> None:
    """Inputs = verdicts + dead letters - both + missing; every record is counted."""
    report = reconcile([span(start, end, 0), span(start, end, 1)], verdicts, dead_letters)
    for part in report.partitions:
        assert part.inputs == end - start
        assert part.inputs == part.verdicts + part.dead_letters - part.both + part.missing
    counted = sum(report.total(name) for name in ("verdicts", "dead_letters", "repeats"))
    assert counted + report.outside == len(verdicts) + len(dead_letters)
    assert report.balanced == (report.total("missing") == report.total("both") == 0)


@given(some, some)
def test_it_agrees_with_counting_by_hand(
    verdicts: list[Position], dead_letters: list[Position]
) -> None:
    """The bytes say what sets and counters say."""
    report = reconcile([span(0, 13, part) for part in range(3)], verdicts, dead_letters)
    inputs = {at(offset, part) for part in range(3) for offset in range(13)}
    assert report.total("verdicts") == len(set(verdicts))
    assert report.total("dead_letters") == len(set(dead_letters))
    assert report.total("both") == len(set(verdicts) & set(dead_letters))
    assert report.total("missing") == len(inputs - set(verdicts) - set(dead_letters))
    repeats = sum(n - 1 for found in (verdicts, dead_letters) for n in Counter(found).values())
    assert report.total("repeats") == repeats


def test_missing_inputs_are_named() -> None:
    """The first few offsets of each partition are listed."""
    report = reconcile([span(10, 30)], [at(offset) for offset in range(12, 20)], [])
    assert report.partitions[0].missing == 12
    assert report.partitions[0].missing_examples == (10, 11, 20, 21, 22)


def test_deleted_and_later_inputs_do_not_count() -> None:
    """Only offsets between the bounds do; the rest is outside."""
    report = reconcile([span(5, 7)], [at(4), at(5), at(6), at(7), at(0, 9), at(0, 0, "x")], [])
    assert report.balanced
    assert report.outside == 4


def test_a_verdict_and_a_dead_letter_do_not_balance() -> None:
    """An input with two outcomes is named, not hidden in the sum."""
    report = reconcile([span(0, 2)], [at(0), at(1)], [at(1)])
    assert not report.balanced
    assert report.partitions[0].both_examples == (1,)


def test_nothing_published_is_balanced() -> None:
    """An empty topic has nothing to miss."""
    assert reconcile([span(3, 3)], [], []).balanced


def test_the_document_names_every_count() -> None:
    """`--json` holds the totals and the partitions."""
    document = as_json(reconcile([span(0, 2), span(0, 1, 1)], [at(0)], [at(1), at(0, 1)]))
    totals = {key: value for key, value in document.items() if key != "partitions"}
    assert totals == {
        "balanced": True, "inputs": 3, "verdicts": 1, "dead_letters": 2,
        "repeats": 0, "both": 0, "missing": 0, "outside": 0,
    }  # fmt: skip
    assert [part["partition"] for part in document["partitions"]] == [0, 1]
