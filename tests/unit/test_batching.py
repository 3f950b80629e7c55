"""Specification of the plan of guard calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batching import OLDEST_EVERY, PATIENCE_S, Call, Pool, halves, plan

BUCKETS = (8, 16, 64)
lengths = st.lists(st.lists(st.integers(1, 64), max_size=6), max_size=20)


@given(lengths, st.integers(1, 9), st.integers(1, 300))
def test_every_window_travels_exactly_once(
    asked: list[list[int]], max_rows: int, max_tokens: int
) -> None:
    """No window is lost and none travels twice, whatever the limits."""
    calls = plan(asked, buckets=BUCKETS, max_rows=max_rows, max_tokens=max_tokens)
    travelled = [(row[0], row[1]) for call in calls for row in call.rows]
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
            length = asked[row[0]][row[1]]
            bucket = min(bucket for bucket in BUCKETS if bucket >= length)
            below = max((other for other in BUCKETS if other < bucket), default=0)
            assert below < length <= call.length <= bucket


@given(lengths)
def test_a_call_is_padded_to_its_longest_window_in_steps_of_eight(asked: list[list[int]]) -> None:
    """At most seven tokens beyond the longest window are padding for all."""
    for call in plan(asked, buckets=BUCKETS, max_rows=4, max_tokens=256):
        longest = max(asked[row[0]][row[1]] for row in call.rows)
        assert call.length % 8 == 0
        assert call.length - longest < 8


def test_shorter_windows_travel_with_shorter_ones() -> None:
    """A short window is not padded to a long one of the same bucket."""
    calls = plan([[64], [17], [63], [18]], buckets=BUCKETS, max_rows=2, max_tokens=1000)
    assert [call.length for call in calls] == [24, 64]


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 500)), max_size=30),
    st.lists(st.one_of(st.just("call"), st.integers(0, 29)), max_size=40),
)
def test_what_was_discarded_does_not_travel_and_all_else_does(
    asked: list[tuple[int, int]], steps: list[str | int]
) -> None:
    """Whatever the order of adding, taking and giving up."""
    pool: Pool[int] = Pool(buckets=BUCKETS, max_rows=4, max_tokens=1000)
    for item, (length, size) in enumerate(asked):
        pool.add(item, length=length, size=size)
    left, gone = [], set()
    for step in steps:
        if isinstance(step, int):
            gone |= {step} & set(range(len(asked))) - set(left)
            pool.discard(step)
        elif (call := pool.next_call()) is not None:
            left += call.rows
    while (call := pool.next_call()) is not None:
        left += call.rows
    assert sorted(left) == sorted(set(range(len(asked))) - gone)
    assert len(pool) == 0


def test_a_small_text_passes_a_large_ones_windows() -> None:
    """It came last and goes first, though both are of one bucket."""
    pool: Pool[str] = Pool(buckets=BUCKETS, max_rows=2, max_tokens=1000)
    for window in range(6):
        pool.add(f"long {window}", length=60, size=360)
    pool.add("short", length=50, size=50)
    call = pool.next_call()
    assert call is not None
    assert call.rows == ("short", "long 0")


def test_a_large_text_is_not_kept_waiting_for_ever() -> None:
    """However many small ones come, every so many calls begin with who has waited longest."""
    pool: Pool[str] = Pool(buckets=BUCKETS, max_rows=1, max_tokens=1000)
    pool.add("long", length=60, size=999)
    taken: list[str] = []
    for number in range(OLDEST_EVERY):
        pool.add(f"short {number}", length=5, size=5)
        call = pool.next_call(PATIENCE_S)
        assert call is not None
        taken += call.rows
    assert taken.index("long") == OLDEST_EVERY - 1


def test_a_large_text_waits_until_it_has_a_claim() -> None:
    """Before its patience is over, all that is smaller passes it."""
    pool: Pool[str] = Pool(buckets=BUCKETS, max_rows=1, max_tokens=1000)
    pool.add("long", length=60, size=999)
    for number in range(3 * OLDEST_EVERY):
        pool.add(f"short {number}", length=5, size=5)
        call = pool.next_call(PATIENCE_S / 2)
        assert call is not None
        assert call.rows != ("long",)


def test_what_left_out_of_turn_does_not_pile_up() -> None:
    """Under lasting overload the oldest leave from the bottom of a heap whose top never does."""
    pool: Pool[tuple[int, int]] = Pool(buckets=BUCKETS, max_rows=1, max_tokens=1000)
    left: dict[int, int] = {}

    def add(windows: int) -> None:
        text = len(sizes)
        sizes.append(windows)
        left[text] = windows
        for window in range(windows):
            pool.add((text, window), length=60, size=60 * windows, now_s=now_s)

    sizes: list[int] = []
    now_s = 0.0
    for windows in (1,) * 10 + (10,) * 4:
        add(windows)
    for _ in range(4000):  # each text that is done is followed by another of its size
        now_s += PATIENCE_S / 10
        call = pool.next_call(now_s)
        assert call is not None
        for text, _window in call.rows:
            left[text] -= 1
            if not left[text]:
                add(sizes[text])
    assert len(pool) <= 50
    assert sum(map(len, pool._heaps.values())) <= 2 * 50 + 100


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
    call = Call(length=8, rows=tuple((n, 0) for n in range(size)))
    left, right = halves(call)
    assert left.rows + right.rows == call.rows
    assert 0 < len(left.rows) < size
    assert 0 < len(right.rows) < size
    assert left.length == right.length == call.length
