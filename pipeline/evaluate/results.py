"""The figures of one contender on one set for one head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.evaluate import groups, intervals, measures
from pipeline.evaluate.contenders import Answer
from pipeline.evaluate.groups import Group, Judged
from pipeline.evaluate.intervals import Interval
from pipeline.evaluate.items import HAZARDS, Head, Item
from pipeline.evaluate.measures import Array, Ranking
from pipeline.evaluate.runs import Run, Speed

CURVE_POINTS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything known about one contender on one set for one head."""

    key: str
    run: Run
    head: Head
    point: str
    judged: Judged
    unscored: int
    partly: int
    figures: Mapping[str, Figure]
    calibration_error: float | None
    categories: Sequence[Group]
    languages: Sequence[Group]
    tags: Mapping[str, Sequence[Group]]

    @property
    def guard(self) -> str:
        """The contender's name."""
        return self.run.contender.name

    @property
    def items(self) -> int:
        """Items with a label and a score."""
        return len(self.judged.items)

    @property
    def positives(self) -> int:
        """Positives among them."""
        return int(self.judged.ranking.truth.sum())

    @property
    def speeds(self) -> Sequence[Speed]:
        """Speed by length bucket."""
        return self.run.speeds

    def curve(self) -> tuple[Array, Array]:
        """Recall and precision from recall 0, thinned to what a picture can show."""
        counts = self.judged.ranking.count()
        recall = counts.tp[0] / max(counts.positives[0], 1.0)
        precision = counts.tp[0] / (counts.tp[0] + counts.fp[0])
        shown = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).astype(int))
        return np.append(0.0, recall[shown]), np.append(precision[0], precision[shown])


def measure(run: Run, head: Head, *, draws: int = intervals.DRAWS) -> Measured | None:
    """The figures of a run for a head; None where no item is labelled for it."""
    labelled = [
        (item, answer, truth)
        for item, answer in zip(run.data.items, run.answers, strict=True)
        if (truth := item.truth(head)) is not None
    ]
    scored = [each for each in labelled if each[1].score(head) is not None]
    if not scored:
        return None
    judged = _judged(run, head, scored)
    return Measured(
        key=run.data.name if head is run.data.heads[0] else f"{run.data.name}-{head.value}",
        run=run,
        head=head,
        point=run.contender.point.words(head),
        judged=judged,
        unscored=len(labelled) - len(scored),
        partly=sum(answer.problem == "partly-scanned" for _, answer, _ in scored),
        figures=dict(_figures(judged.ranking, draws)),
        calibration_error=_calibration_error(judged.ranking),
        categories=list(groups.categories(judged)) if head is not Head.ATTACK else [],
        languages=list(groups.languages(judged)),
        tags=groups.tags(judged),
    )


def unmeasured(run: Run, head: Head) -> str:
    """Why a run has no figures for a head, in one line; empty where it has."""
    labelled = [
        answer
        for item, answer in zip(run.data.items, run.answers, strict=True)
        if item.truth(head) is not None
    ]
    if not labelled or any(answer.score(head) is not None for answer in labelled):
        return ""
    known = sorted({label for answer in labelled for label in answer.scores})
    problems = sorted({answer.problem for answer in labelled if answer.problem})
    has = f"it scores {', '.join(known)}" if known else f"no item was scored ({problems[0]})"
    return f"{run.contender.name} has no {head.value} score on {run.data.name}: {has}"


def _judged(run: Run, head: Head, scored: Sequence[tuple[Item, Answer, bool]]) -> Judged:
    point = run.contender.point
    return Judged(
        items=[item for item, _, _ in scored],
        answers=[answer for _, answer, _ in scored],
        ranking=Ranking(
            np.array([answer.score(head) for _, answer, _ in scored], dtype=np.float64),
            np.array([truth for _, _, truth in scored], dtype=np.bool_),
            np.array([point.flags(answer, head) for _, answer, _ in scored], dtype=np.bool_),
        ),
    )


def _figures(ranking: Ranking, draws: int) -> Iterator[tuple[str, Figure]]:
    """Each figure that exists; shares with Wilson's interval, the others with draws."""
    values = measures.figures(ranking.count())
    both = 0 < ranking.truth.sum() < len(ranking)
    spans = intervals.bootstrap(ranking, count=draws) if both else {}
    spans |= {
        "recall": _share(ranking, ranking.truth),
        "fpr": _share(ranking, ~ranking.truth),
    }
    for name, (value, *_) in values.items():
        if not math.isnan(value):
            low, high = spans[name]
            yield name, Figure(value=float(value), low=low, high=high)


def _share(ranking: Ranking, chosen: measures.Flags) -> Interval:
    return intervals.wilson(int((ranking.flagged & chosen).sum()), int(chosen.sum()))


def _calibration_error(ranking: Ranking) -> float | None:
    """Only where both classes are: elsewhere it would measure the set's choice."""
    if not 0 < ranking.truth.sum() < len(ranking):
        return None
    return measures.calibration_error(ranking.scores, ranking.truth)


def confusion(measured: Measured) -> tuple[list[str], list[str], Array]:
    """Rows, columns, counts: labelled category by the highest score of those flagged.

    The last column is "not flagged"; the first row the safe items. Items that
    name several categories count once in each. Empty for the attack head, and where
    the contender gives no category scores.
    """
    judged = measured.judged
    if measured.head is Head.ATTACK or not any(answer.category for answer in judged.answers):
        return [], [], np.zeros((0, 0))
    counted: dict[tuple[str, str], int] = {}
    rows = zip(judged.items, judged.answers, judged.ranking.flagged, strict=True)
    for item, answer, flagged in rows:
        column = answer.category if flagged else _NOT
        for row in _named(item, measured.head):
            counted[row, column] = counted.get((row, column), 0) + 1
    order = [_SAFE, *HAZARDS, _OTHER]
    names = [row for row in order if any(key[0] == row for key in counted)]
    columns = [c for c in (*HAZARDS, _NOT) if any(key[1] == c for key in counted)]
    matrix = np.array([[counted.get((row, c), 0) for c in columns] for row in names], float)
    return names, columns, matrix


_SAFE, _OTHER, _NOT = "safe", "other", "not flagged"


def _named(item: Item, head: Head) -> list[str]:
    """The rows that an item belongs to."""
    if not item.truth(head):
        return [_SAFE]
    return [code for code, value in item.categories.items() if value] or [_OTHER]
