"""Two contenders on the same items: where they differ, and whether it matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluate import intervals, measures
from pipeline.evaluate.items import Head
from pipeline.evaluate.measures import Ranking
from pipeline.evaluate.results import Figure, Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """An item that one flags and the other does not; `right` names who has it right."""

    id: str
    positive: bool
    first_score: float
    second_score: float
    flagged_by: str
    right: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """First against second on the items that both scored.

    `differences` are first minus second with paired bootstrap intervals.
    """

    key: str
    head: Head
    first: str
    second: str
    items: int
    differences: Mapping[str, Figure]
    disagreements: Sequence[Disagreement]


def compare(first: Measured, second: Measured, *, draws: int = intervals.DRAWS) -> Comparison:
    """The two on their common items; the same set and head, or the figures mean nothing."""
    places = {item.id: at for at, item in enumerate(second.judged.items)}
    common = [
        (at, places[item.id]) for at, item in enumerate(first.judged.items) if item.id in places
    ]
    ours = _picked(first, [at for at, _ in common])
    theirs = _picked(second, [at for _, at in common])
    return Comparison(
        key=first.key,
        head=first.head,
        first=first.guard,
        second=second.guard,
        items=len(common),
        differences=_differences(ours, theirs, draws) if common else {},
        disagreements=_disagreements(first, second, common),
    )


def _picked(measured: Measured, places: Sequence[int]) -> Ranking:
    ranking, chosen = measured.judged.ranking, np.array(places, dtype=int)
    return Ranking(ranking.scores[chosen], ranking.truth[chosen], ranking.flagged[chosen])


def _differences(ours: Ranking, theirs: Ranking, draws: int) -> dict[str, Figure]:
    spans = intervals.paired(ours, theirs, count=draws)
    first, second = measures.figures(ours.count()), measures.figures(theirs.count())
    return {
        name: Figure(value=float(first[name][0] - second[name][0]), low=low, high=high)
        for name, (low, high) in spans.items()
        if not np.isnan(first[name][0] - second[name][0])
    }


def _disagreements(
    first: Measured, second: Measured, common: Sequence[tuple[int, int]]
) -> list[Disagreement]:
    """Those where one flags and the other does not, the widest apart first."""
    ours, theirs = first.judged.ranking, second.judged.ranking
    found = []
    for here, there in common:
        if ours.flagged[here] == theirs.flagged[there]:
            continue
        positive = bool(ours.truth[here])
        item, by_first = first.judged.items[here], bool(ours.flagged[here])
        found.append(
            Disagreement(
                id=item.id,
                positive=positive,
                first_score=float(ours.scores[here]),
                second_score=float(theirs.scores[there]),
                flagged_by=first.guard if by_first else second.guard,
                right=first.guard if by_first == positive else second.guard,
                text=item.text,
            )
        )
    return sorted(found, key=lambda one: -abs(one.first_score - one.second_score))
