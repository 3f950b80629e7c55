"""Specification of scoring: each message ends as judgements or as its own error."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import scoring
from pipeline.asking import CallLimits
from pipeline.errors import DependencyUnavailable, Misconfigured, Reason, Rejected, Retryable
from pipeline.events import Judgement, Kind, Message
from pipeline.scoring import Guard, Scorer
from pipeline.windows import Windowed

from .fakes import (
    WORD_IDS,
    FakeClock,
    Script,
    ScriptedClassifier,
    away,
    by_words,
    message,
    write_guard,
)

HIGH, LOW = pytest.approx(0.982, abs=0.001), pytest.approx(0.018, abs=0.001)


def scorer(
    guard: Guard, *scripts: Script, rows: int = 4, windows: int = 8
) -> tuple[Scorer, ScriptedClassifier]:
    """A scorer with one guard, and the classifier it asks."""
    classifier = ScriptedClassifier(list(scripts) or [by_words])
    limits = CallLimits(max_rows=rows, max_tokens=1000, max_windows=windows, in_flight=2)
    return Scorer([guard], classifier, limits, FakeClock()), classifier


def refuse(word: str) -> Script:
    """A script that refuses any call with a word in it, and scores the others."""

    def script(rows: Sequence[Sequence[int]]) -> np.ndarray[Any, Any] | Rejected:
        if any(WORD_IDS[word] in row for row in rows):
            return Rejected(Reason.GUARD_REFUSED, "the guard refused", remedy="")
        return by_words(rows)

    return script


def unsafe_score(result: object) -> object:
    """The overall score of a message that one guard judged."""
    assert isinstance(result, tuple), result
    (judgement,) = result
    assert isinstance(judgement, Judgement)
    return judgement.scores["unsafe"]


async def test_scores_come_back_in_the_order_asked(guard: Guard) -> None:
    """However calls are grouped, each message has its own scores."""
    asked = ["fine", "unsafe", "fine " * 9, "unsafe " * 9, "fine"]
    results = await scorer(guard)[0].score([message(text) for text in asked])
    expected = [LOW, HIGH, LOW, HIGH, LOW]
    assert [unsafe_score(result) for result in results] == expected


async def test_a_judgement_says_who_judged_and_how(guard: Guard) -> None:
    """Guard, version as served, digest, template, windows and rows."""
    results = await scorer(guard)[0].score([message(), message()])
    assert isinstance(results[0], tuple)
    (judgement,) = results[0]
    assert (judgement.guard.name, judgement.guard.version) == ("tiny", "7")
    assert judgement.guard.digest == guard.card.digest
    assert judgement.template_digest == guard.card.template_digest
    assert (judgement.windows, judgement.batch_rows, judgement.inference_s) == (1, 2, 0.01)


@pytest.mark.parametrize("place", [0, 20, 39])
async def test_the_worst_window_decides(guard: Guard, place: int) -> None:
    """One unsafe word anywhere in a long text is found."""
    words = ["fine"] * 40
    words[place] = "unsafe"
    (result,) = await scorer(guard)[0].score([message(" ".join(words))])
    assert unsafe_score(result) == HIGH
    assert isinstance(result, tuple)
    assert result[0].coverage.complete
    assert result[0].windows > 1


@pytest.mark.parametrize("at_once", [1, 5, 11, 1000])
async def test_texts_are_tokenised_in_runs_that_give_the_loop_back(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Nobody is left out or mixed up, whichever texts go together; no run is larger."""
    monkeypatch.setattr(scoring, "AT_ONCE_CHARS", at_once)
    asked = [message(text) for text in ("fine", "unsafe", "fine " * 3, "unsafe", "fine")]
    runs = [[len(each.text) for each in run] for run in scoring._at_once(asked)]
    assert [size for run in runs for size in run] == [len(each.text) for each in asked]
    assert all(sum(run) <= at_once or len(run) == 1 for run in runs)
    results = await scorer(guard)[0].score(asked)
    assert [unsafe_score(result) for result in results] == [LOW, HIGH, LOW, HIGH, LOW]


async def test_long_texts_are_tokenised_together_beside_the_loop(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In runs on the loop, a quick guard's answers would look slow and its calls stay small."""
    monkeypatch.setattr(scoring, "AT_ONCE_CHARS", 10)
    monkeypatch.setattr(scoring, "LONG_CHARS", 8)
    made: list[tuple[int, bool]] = []

    def framed(guard: Guard, messages: Sequence[Message], most: int) -> list[Windowed]:
        made.append((len(messages), threading.current_thread() is threading.main_thread()))
        return plainly(guard, messages, most)

    plainly = scoring._frame_all
    monkeypatch.setattr(scoring, "_frame_all", framed)
    await scorer(guard)[0].score([message("fine"), message("fine fine"), message("unsafe")])
    await scorer(guard)[0].score([message("fine"), message("unsafe"), message("fine")])
    assert made == [(3, False), (2, True), (1, True)]


async def test_no_message_at_all_has_no_result(guard: Guard) -> None:
    """A batch may hold nothing that a guard judges."""
    assert await scorer(guard)[0].score([]) == []


class _Exchanged(ScriptedClassifier):
    """A guard that is another version from its second call on."""

    async def infer(self, *args: Any, **options: Any) -> Any:
        """As the scripts say."""
        self.version = "8" if self.calls else "7"
        return await super().infer(*args, **options)


async def test_versions_of_one_guard_answer_for_their_own_windows(guard: Guard) -> None:
    """Exchanged between two calls of one text, both are told: neither hides behind the other."""
    classifier = _Exchanged()
    limits = CallLimits(max_rows=1, max_tokens=1000, max_windows=8, in_flight=2)
    made = Scorer([guard], classifier, limits, FakeClock())
    (result,) = await made.score([message("fine " * 20 + "unsafe")])
    assert isinstance(result, tuple)
    assert [judgement.guard.version for judgement in result] == ["7", "8"]
    assert sum(judgement.windows for judgement in result) == len(classifier.calls) > 1


async def test_coverage_admits_what_too_many_windows_left_out(guard: Guard) -> None:
    """With two windows allowed a text of forty tokens is not covered."""
    (result,) = await scorer(guard, windows=2)[0].score([message("fine " * 40)])
    assert isinstance(result, tuple)
    coverage = result[0].coverage
    assert (coverage.scanned_tokens, coverage.total_tokens) == (28, 40)


async def test_a_completion_is_judged_in_the_context_of_its_prompt(guard: Guard) -> None:
    """The prompt's first tokens stand before the answer in the row the guard sees."""
    asked = message("fine", kind=Kind.COMPLETION, prompt="minor poison")
    _, classifier = made = scorer(guard)
    await made[0].score([asked])
    cls, sep = guard.card.window.cls_id, guard.card.window.sep_id
    minor, poison, fine = (WORD_IDS[word] for word in ("minor", "poison", "fine"))
    assert classifier.calls == [[[cls, minor, poison, sep, fine, sep]]]


async def test_a_refused_text_does_not_take_its_neighbours_along(guard: Guard) -> None:
    """The call is halved until the culprit stands alone; the others are scored."""
    asked = [message(text) for text in ("fine", "unsafe", "poison", "fine")]
    made, classifier = scorer(guard, refuse("poison"))
    results = await made.score(asked)
    assert isinstance(results[2], Rejected)
    assert [unsafe_score(results[n]) for n in (0, 1, 3)] == [LOW, HIGH, LOW]
    assert len(classifier.calls) <= 5


async def test_a_refused_window_rejects_its_whole_message(guard: Guard) -> None:
    """A text of which a part was refused is not called scored."""
    (result,) = await scorer(guard, refuse("poison"))[0].score([message("fine " * 30 + "poison")])
    assert isinstance(result, Rejected)


async def test_a_lost_call_leaves_only_its_own_messages_waiting(guard: Guard) -> None:
    """Of three calls the first gets no answer: two messages are retryable."""
    made, _ = scorer(guard, away, by_words, rows=2)
    results = await made.score([message() for _ in range(6)])
    assert [isinstance(result, Retryable) for result in results].count(True) == 2
    assert [isinstance(result, tuple) for result in results].count(True) == 4


async def test_one_score_that_is_no_number_rejects_that_text(guard: Guard) -> None:
    """NaN for one text among good ones is that text's fault."""
    results = await scorer(guard)[0].score([message(text) for text in ("fine", "nan", "fine")])
    assert isinstance(results[1], Rejected)
    assert results[1].reason is Reason.GUARD_REFUSED
    assert [unsafe_score(results[n]) for n in (0, 2)] == [LOW, LOW]


async def test_only_scores_that_are_no_numbers_are_the_guards_fault(guard: Guard) -> None:
    """A broken engine must not turn the whole topic into dead letters."""
    results = await scorer(guard)[0].score([message("nan"), message("nan")])
    assert all(isinstance(result, Retryable) for result in results)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (2,), (0, 0), (3, 3)])
async def test_an_answer_of_the_wrong_shape_is_retryable_and_named(
    guard: Guard, shape: tuple[int, ...]
) -> None:
    """Scores are never read from the wrong row or label."""
    made, _ = scorer(guard, lambda _: np.zeros(shape, dtype=np.float32))
    for result in await made.score([message(), message()]):
        assert isinstance(result, Retryable)
        assert str(shape) in result.message
        assert "(2, 3)" in result.remedy


async def test_a_misconfiguration_is_raised(guard: Guard) -> None:
    """What a person must repair is not hidden in a result."""
    wrong = Misconfigured("no such guard", remedy="Load it")
    with pytest.raises(Misconfigured):
        await scorer(guard, lambda _: wrong)[0].score([message()])


async def test_each_kind_goes_to_the_guards_that_judge_it(tmp_path: Path, guard: Guard) -> None:
    """Two guards judge the prompt, one of them the completion."""
    prompts_only = write_guard(tmp_path, roles='["prompt"]')
    limits = CallLimits(max_rows=4, max_tokens=100, max_windows=8, in_flight=2)
    made = Scorer([guard, prompts_only], ScriptedClassifier(), limits, FakeClock())
    results = await made.score([message(), message(kind=Kind.COMPLETION)])
    assert [len(result) if isinstance(result, tuple) else -1 for result in results] == [2, 1]


async def test_with_one_of_two_guards_away_the_message_waits(tmp_path: Path, guard: Guard) -> None:
    """Half a judgement is none."""
    limits = CallLimits(max_rows=4, max_tokens=100, max_windows=8, in_flight=1)
    classifier = ScriptedClassifier([by_words, away])
    made = Scorer([guard, write_guard(tmp_path)], classifier, limits, FakeClock())
    (result,) = await made.score([message()])
    assert isinstance(result, DependencyUnavailable)


async def test_no_messages_need_no_call(guard: Guard) -> None:
    """An empty batch asks nobody."""
    made, classifier = scorer(guard)
    assert await made.score([]) == []
    assert classifier.calls == []
