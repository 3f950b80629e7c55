"""Specification of the windows over a tokenised text."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.windows import WindowSpec, cut

CLS, SEP = -1, -2
MANY = 10_000


def spec_of(max_length: int, overlap: int, context_length: int) -> WindowSpec:
    """A guard's input shape with easily recognised specials."""
    return WindowSpec(
        max_length=max_length, overlap=overlap, context_length=context_length,
        cls_id=CLS, sep_id=SEP,
    )  # fmt: skip


@st.composite
def shapes(draw: st.DrawFn) -> WindowSpec:
    """Any shape that a card lets through: context and overlap leave room for text."""
    max_length = draw(st.integers(8, 40))
    overlap = draw(st.integers(0, max_length - 4))
    return spec_of(max_length, overlap, draw(st.integers(0, max_length - 4 - overlap)))


def text_of(window: tuple[int, ...]) -> list[int]:
    """The part of a window that is text: between the specials, after the context."""
    inner = window[1:-1]
    return list(inner[len(inner) - inner[::-1].index(SEP) :] if SEP in inner else inner)


totals = st.integers(0, 200)
context_sizes = st.integers(0, 60)


@given(totals, context_sizes, shapes())
def test_enough_windows_cover_every_token(total: int, context: int, spec: WindowSpec) -> None:
    """Without a bound on windows each token is in one, and coverage is complete."""
    result = cut(range(total), range(1000, 1000 + context), spec, max_windows=MANY)
    assert {token for window in result.windows for token in text_of(window)} == set(range(total))
    assert result.coverage.scanned_tokens == result.coverage.total_tokens == total
    assert result.coverage.complete


@given(totals, context_sizes, shapes(), st.integers(1, 12))
def test_coverage_counts_exactly_the_tokens_that_are_in_a_window(
    total: int, context: int, spec: WindowSpec, max_windows: int
) -> None:
    """Coverage never claims a token no window holds, and never exceeds the total."""
    result = cut(range(total), range(1000, 1000 + context), spec, max_windows=max_windows)
    seen = {token for window in result.windows for token in text_of(window)}
    assert result.coverage.scanned_tokens == len(seen) <= total == result.coverage.total_tokens


@given(totals, context_sizes, shapes(), st.integers(1, 12))
def test_every_window_fits_the_guard(
    total: int, context: int, spec: WindowSpec, max_windows: int
) -> None:
    """No window is longer than max_length, and there are 1 to max_windows of them."""
    result = cut(range(total), range(1000, 1000 + context), spec, max_windows=max_windows)
    assert 1 <= len(result.windows) <= max_windows
    assert all(len(window) <= spec.max_length for window in result.windows)
    assert all(window[0] == CLS and window[-1] == SEP for window in result.windows)


@given(st.integers(0, 400), shapes())
def test_neighbours_share_the_overlap(total: int, spec: WindowSpec) -> None:
    """A payload no longer than the overlap is whole in some window."""
    windows = [text_of(w) for w in cut(range(total), (), spec, max_windows=MANY).windows]
    for left, right in pairwise(windows):
        assert len(set(left) & set(right)) >= spec.overlap


@given(st.integers(50, 400), shapes(), st.integers(2, 6))
def test_both_ends_are_kept_when_there_are_too_many_windows(
    total: int, spec: WindowSpec, max_windows: int
) -> None:
    """The first and the last tokens are scanned however few windows are allowed."""
    result = cut(range(total), (), spec, max_windows=max_windows)
    assume(not result.coverage.complete)
    assert text_of(result.windows[0])[0] == 0
    assert text_of(result.windows[-1])[-1] == total - 1
    assert len(set(result.windows)) == len(result.windows) == max_windows


def test_one_window_is_the_start_of_the_text() -> None:
    """With a single window allowed it is the first, and coverage says so."""
    result = cut(range(20), (), spec_of(10, 2, 0), max_windows=1)
    assert result.windows == ((CLS, *range(8), SEP),)
    assert (result.coverage.scanned_tokens, result.coverage.total_tokens) == (8, 20)


def test_each_window_of_a_completion_begins_with_its_prompt() -> None:
    """The first tokens of the prompt stand before every window's text."""
    result = cut(range(20), [90, 91, 92, 93], spec_of(12, 2, 3), max_windows=MANY)
    assert len(result.windows) > 1
    assert {window[:5] for window in result.windows} == {(CLS, 90, 91, 92, SEP)}


def test_no_context_is_given_to_a_guard_that_takes_none() -> None:
    """A context length of 0 leaves the prompt out, separator and all."""
    assert cut([5], [90], spec_of(12, 2, 0), max_windows=1).windows == ((CLS, 5, SEP),)


def test_an_empty_text_has_one_empty_window_and_is_covered() -> None:
    """There is nothing to scan, and nothing was left out."""
    result = cut([], [], spec_of(12, 2, 0), max_windows=3)
    assert result.windows == ((CLS, SEP),)
    assert result.coverage.complete
