"""Repeats are dropped exactly, in bounded memory, and nothing new ever is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedupe import Deduplicator
from pipeline.events import Position

PAGE = 65_536


def at(offset: int, partition: int = 0, topic: str = "t") -> Position:
    """A source position."""
    return Position(topic=topic, partition=partition, offset=offset)


positions = st.builds(
    Position,
    topic=st.sampled_from(["a", "b"]),
    partition=st.integers(0, 2),
    offset=st.integers(0, 40) | st.integers(PAGE - 2, PAGE + 2) | st.integers(0, 2**62),
)


@given(st.lists(positions, max_size=200))
def test_it_is_a_set_of_positions(given_positions: list[Position]) -> None:
    """Within its memory every position passes once, in whatever order they come."""
    dedupe, seen = Deduplicator(), set()
    for position in given_positions:
        assert dedupe.is_new(position) == (position not in seen)
        seen.add(position)
    assert dedupe.repeats == len(given_positions) - len(seen)


def test_redelivery_repeats_older_offsets_of_a_partition() -> None:
    """A worker that died at 150 with 100 committed: 100 to 149 are repeats, 150 is not."""
    dedupe = Deduplicator()
    delivered = [*range(150), *range(100, 200)]
    assert [o for o in delivered if dedupe.is_new(at(o))] == list(range(200))
    assert dedupe.repeats == 50


def test_verdict_partitions_read_one_after_another_lose_nothing() -> None:
    """Later verdict partitions hold lower offsets of the same source partition."""
    dedupe = Deduplicator()
    delivered = [*range(0, 100_000, 2), *range(1, 100_000, 2)]
    assert all(dedupe.is_new(at(offset)) for offset in delivered)


def test_memory_stays_within_the_limit() -> None:
    """However far the offsets lie apart, pages are forgotten, longest untouched first."""
    dedupe = Deduplicator(limit_bytes=2 * 8192)
    for page in range(50):
        assert dedupe.is_new(at(page * PAGE))
        assert dedupe.size_bytes <= 2 * 8192
    assert not dedupe.is_new(at(49 * PAGE))
    assert dedupe.is_new(at(0))


def test_a_limit_below_one_page_is_refused() -> None:
    """It could remember nothing."""
    with pytest.raises(ValueError, match="at least 8192"):
        Deduplicator(limit_bytes=8191)
