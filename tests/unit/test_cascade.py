"""Specification of a first stage: it settles what is clear, all else is judged in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.asking import CallLimits
from pipeline.cascade import put_first, unmeasured
from pipeline.errors import Misconfigured, Reason, Rejected, SluiceError
from pipeline.events import Judgement, Kind
from pipeline.health import Health
from pipeline.moderation import merge
from pipeline.ports import Inference
from pipeline.scoring import Guard, Scored, Scorer
from pipeline.selftest import VerifiedScorer

from .fakes import WORD_IDS, FakeClock, Script, away, by_words, message, write_guard

CLEAR, DOUBTFUL = -4.0, 0.0


def doubts(*words: str) -> Script:
    """A first stage that finds everything clear but these words."""

    def script(rows: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
        odd = [any(WORD_IDS[word] in row for word in words) for row in rows]
        return np.asarray([[DOUBTFUL if each else CLEAR] * 3 for each in odd], np.float32)

    return script


class Served:
    """Two guards in one server, each with a script."""

    def __init__(self, first: Script, full: Script = by_words) -> None:
        self.scripts = {"first": first, "tiny": full}
        self.asked: list[tuple[str, int]] = []

    async def infer(
        self, guard: str, rows: Sequence[Sequence[int]], *, length: int, pad_id: int
    ) -> Inference:
        """What the guard's script says."""
        self.asked.append((guard, len(rows)))
        answer = self.scripts[guard](rows)
        if isinstance(answer, SluiceError):
            raise answer
        return Inference(logits=answer, version="7", elapsed_s=0.01)

    async def served_digest(self, guard: str) -> str | None:
        """Not stated."""
        return None

    def rows(self, guard: str) -> int:
        """How many windows a guard was asked about."""
        return sum(count for name, count in self.asked if name == guard)


@pytest.fixture
def first(tmp_path: Path, guard: Guard) -> Guard:
    """A guard with the full one's framing that settles below 0.1."""
    own = tmp_path / "first"
    own.mkdir()
    made = write_guard(own)
    return replace(made, card=replace(made.card, name="first", settles_below=0.1))


def scorer(first: Guard, full: Guard, served: Served) -> Scorer:
    """The full guard behind the first stage."""
    limits = CallLimits(max_rows=8, max_tokens=1000, max_windows=8, in_flight=2)
    return Scorer(put_first(first, [full]), served, limits, FakeClock())


def judges(result: Scored) -> list[tuple[str, int]]:
    """Who judged how many windows."""
    assert isinstance(result, tuple), result
    return [(each.guard.name, each.windows) for each in result if isinstance(each, Judgement)]


async def test_a_clear_text_is_judged_by_the_first_stage_alone(first: Guard, guard: Guard) -> None:
    """And its verdict names it, with its digest and its own scores."""
    served = Served(doubts("unsafe"))
    clear, doubtful = await scorer(first, guard, served).score([message(), message("unsafe")])
    assert judges(clear) == [("first", 1)]
    assert isinstance(clear, tuple)
    assert clear[0].guard.digest == first.card.digest
    assert clear[0].scores["unsafe"] == pytest.approx(0.018, abs=0.001)
    assert judges(doubtful) == [("tiny", 1)]
    assert merge(doubtful)["unsafe"] == pytest.approx(0.982, abs=0.001)  # type: ignore[arg-type]
    assert served.rows("tiny") == 1


async def test_each_window_of_a_long_text_has_one_judge(first: Guard, guard: Guard) -> None:
    """Only the doubtful window goes on; coverage is that of the text."""
    served = Served(doubts("unsafe"))
    text = "fine " * 30 + "unsafe " + "fine " * 9
    (result,) = await scorer(first, guard, served).score([message(text)])
    (alone,) = await Scorer(
        [guard], Served(away), CallLimits(max_rows=8, max_tokens=1000, max_windows=8, in_flight=2),
        FakeClock(),
    ).score([message(text)])  # fmt: skip
    assert isinstance(result, tuple)
    assert isinstance(alone, tuple)
    assert dict(judges(result)).keys() == {"first", "tiny"}
    assert sum(windows for _, windows in judges(result)) == alone[0].windows
    assert {each.coverage for each in result} == {alone[0].coverage}
    assert merge(result)["unsafe"] == pytest.approx(0.982, abs=0.001)


@pytest.mark.parametrize(
    "script",
    [away, lambda _: Rejected(Reason.GUARD_REFUSED, "refused", remedy=""),
     lambda rows: np.full((len(rows), 3), np.nan, np.float32),
     lambda rows: np.full((len(rows), 2), CLEAR, np.float32)],
    ids=["away", "refuses", "not a number", "wrong shape"],
)  # fmt: skip
async def test_an_error_of_the_first_stage_settles_nothing(
    first: Guard, guard: Guard, script: Script
) -> None:
    """What it could not judge is judged in full."""
    results = await scorer(first, guard, Served(script)).score([message(), message("unsafe")])
    assert [judges(result) for result in results] == [[("tiny", 1)], [("tiny", 1)]]


async def test_a_score_at_the_threshold_is_not_settled(first: Guard, guard: Guard) -> None:
    """Settled is what lies below."""
    score = float(first.card.scores(np.full((1, 3), CLEAR, np.float32))[0, 0])
    edge = replace(first, card=replace(first.card, settles_below=score))
    (result,) = await scorer(edge, guard, Served(doubts())).score([message()])
    assert judges(result) == [("tiny", 1)]


async def test_the_self_test_asks_both_guards_their_golden_texts(
    first: Guard, guard: Guard
) -> None:
    """A full guard that went wrong is found, though the first stage would settle its texts."""
    wrong = Served(doubts(), full=lambda rows: -by_words(rows))
    verified = VerifiedScorer(scorer(first, guard, wrong), wrong, Health(["guard"]))
    with pytest.raises(Misconfigured, match="guard tiny scores golden text 1"):
        await verified.verify()
    wrong = Served(lambda rows: -doubts()(rows))  # type: ignore[operator]
    verified = VerifiedScorer(scorer(first, guard, wrong), wrong, Health(["guard"]))
    with pytest.raises(Misconfigured, match="guard first scores golden text 1"):
        await verified.verify()


def test_a_guard_without_a_threshold_settles_nothing(guard: Guard) -> None:
    """Its card must say below which score it may."""
    with pytest.raises(Misconfigured, match="does not say below which score"):
        put_first(guard, [guard])


@pytest.mark.parametrize(
    "differing",
    [{"tokenizer_digest": "sha256:other"}, {"normalise": True}, {"template_digest": "sha256:t"},
     {"labels": ("unsafe",)}, {"roles": frozenset({Kind.PROMPT})}],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_it_stands_only_before_a_guard_with_its_framing(
    first: Guard, guard: Guard, differing: dict[str, Any]
) -> None:
    """Both must see the same windows, and it must give every score and judge every kind."""
    other = replace(first, card=replace(first.card, **differing))
    with pytest.raises(Misconfigured, match="cannot stand before any"):
        put_first(other, [guard])


def test_a_guard_that_it_does_not_fit_is_asked_in_full(
    tmp_path: Path, first: Guard, guard: Guard
) -> None:
    """Others keep theirs."""
    shape = replace(guard.card, name="long", normalise=True)
    placed = put_first(first, [guard, replace(guard, card=shape)])
    assert [each.first is not None for each in placed] == [True, False]


def test_a_threshold_measured_before_other_weights_is_told(first: Guard, guard: Guard) -> None:
    """It holds for the weights that the card names."""
    assert unmeasured(put_first(first, [guard])) == ["tiny"]
    known = replace(first, card=replace(first.card, measured_before=guard.card.model_digest))
    assert unmeasured(put_first(known, [guard])) == []
