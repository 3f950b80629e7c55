"""A target that could not fail would prove nothing: each of these mistakes is caught."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from msgspec import structs

from pipeline import policy
from pipeline.batching import Call, plan
from pipeline.errors import Rejected
from pipeline.events import Message
from pipeline.guards import templates as product_templates
from pipeline.ranges import Edge, Range, parse_bound
from pipeline.scoring import Scored, Scorer
from pipeline.tokenization import Tokenizer
from pipeline.windows import Windowed

from . import decoding, planning, policies, templates, typed
from .target import Target


def inputs(count: int, longest: int = 200) -> list[bytes]:
    """The same pseudo-random inputs each time."""
    source = random.Random(7)
    return [source.randbytes(source.randint(8, longest)) for _ in range(count)]


def caught(entry: Callable[[bytes], None], count: int = 400) -> bool:
    """Whether some input makes the target's assertions fail."""
    for data in inputs(count):
        try:
            entry(data)
        except AssertionError:
            return True
        except Exception:  # noqa: S112 - another kind of end, which is not what is looked for
            continue
    return False


def _dropped(calls: list[Call]) -> list[Call]:
    """The last window of a full plan does not travel."""
    return [*calls[:-1], replace(calls[-1], rows=calls[-1].rows[:-1])] if len(calls) > 1 else calls


def _twice(calls: list[Call]) -> list[Call]:
    """One call is made twice."""
    return [*calls, calls[0]] if calls else calls


def _swapped(calls: list[Call]) -> list[Call]:
    """A window of another request stands where one's own should."""
    full = [call for call in calls if len(call.rows) > 1]
    if not full:
        return calls
    rows = (full[0].rows[1], *full[0].rows[1:])
    return [replace(call, rows=rows) if call is full[0] else call for call in calls]


def _shorter(calls: list[Call]) -> list[Call]:
    """Calls are padded to less than their longest window."""
    return [replace(call, length=call.length - 1) for call in calls]


@pytest.mark.parametrize("mistake", [_dropped, _twice, _swapped, _shorter])
def test_a_wrong_plan_is_caught(mistake: Callable[[list[Call]], list[Call]]) -> None:
    """A window lost, doubled, exchanged, or in a call too short for it."""
    assert caught(
        lambda data: planning.planned(data, planner=lambda *a, **k: mistake(plan(*a, **k)))
    )
    assert not caught(planning.planned)


class _Shifting(Scorer):
    """Gives each message the scores of its neighbour."""

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """The right results in the wrong order."""
        found = await super().score(messages)
        return [*found[1:], *found[:1]]


class _Forgetting(Scorer):
    """Never asks about the last message, and answers for it with another's scores."""

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """The first message's result at the end."""
        found = await super().score(messages[:-1])
        return [*found, found[0]] if found else await super().score(messages)


@pytest.mark.parametrize("mistake", [_Shifting, _Forgetting])
def test_another_requests_scores_are_caught(mistake: type[Scorer]) -> None:
    """Scores by content tell whose they are."""
    assert caught(lambda data: planning.scored(data, scorer=mistake))
    assert not caught(planning.scored, 100)


def test_a_window_that_coverage_does_not_miss_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage that counts a window which is not there is seen."""
    right = planning.cut

    def fewer(*given: Any, **limits: Any) -> Windowed:
        found = right(*given, **limits)
        return structs.replace(found, windows=found.windows[:1])

    monkeypatch.setattr(planning, "cut", fewer)
    assert caught(planning.windows)


def test_a_range_that_holds_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds taken as they come, the start after the end, are seen."""

    def unchecked(start: str | None, end: str | None, *, now: datetime) -> Range:
        bounds = [Edge.END if each is None else parse_bound(each, now=now) for each in (start, end)]
        return Range(start=bounds[0], end=bounds[1])

    monkeypatch.setattr(typed, "parse_range", unchecked)
    assert caught(typed.both, 4000)


def test_a_policy_that_forgets_the_floor_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision milder than the floor asks for is seen."""
    right = policy.decide
    monkeypatch.setattr(
        policies, "decide", lambda scores, rules: right(scores, replace(rules, floor=()))
    )
    assert caught(policies.built, 1500)


def test_a_forged_border_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that takes typed special tokens at their word is seen."""
    right = Tokenizer.encode

    def trusting(self: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        self._tokenizer.encode_special_tokens = False
        try:
            return right(self, texts)
        finally:
            self._tokenizer.encode_special_tokens = True

    monkeypatch.setattr(Tokenizer, "encode", trusting)
    assert caught(templates.chat)


def test_a_slot_filled_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filling by search and replace would let a text pull in the prompt."""

    def searching(shape: str, values: Any) -> str:
        for slot, value in values.items():
            shape = shape.replace(slot, value)
        return shape

    monkeypatch.setattr(product_templates, "fill", searching)
    assert caught(templates.filled, 1500)


def test_an_error_without_a_remedy_is_a_finding() -> None:
    """Being of the right type is not enough: the error must say what to do."""

    def silent(data: bytes) -> None:
        raise Rejected(decoding.codec.Reason.BAD_JSON, "wrong", remedy="")

    with pytest.raises(AssertionError, match="names no remedy"):
        Target(name="silent", entry=silent, allowed=(Rejected,)).run(b"")
