"""The figures of parts of a set: its categories, languages and own tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.evaluate import measures
from pipeline.evaluate.contenders import Answer
from pipeline.evaluate.items import HAZARDS, Item
from pipeline.evaluate.measures import Array, Ranking

SMALL_GROUP: Final = 5
"""Groups of fewer positives get no figure of their own: it would be noise."""
MOST_GROUPS: Final = 60
_LANGUAGE_TAG: Final = "speaking_language"
"""Told under languages already; kept as a tag for Meta's result shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The items of a run that count for a head, with their scores."""

    items: Sequence[Item]
    answers: Sequence[Answer]
    ranking: Ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Figures of the items of one category, language or tag; None where there is none.

    `recall` and `fpr` are of the overall flag; a category's `auprc` and
    `roc_auc` are of its own score, where the contender gives one.
    """

    name: str
    items: int
    positives: int
    auprc: float | None = None
    roc_auc: float | None = None
    recall: float | None = None
    fpr: float | None = None


def categories(judged: Judged) -> Iterator[Group]:
    """Each category with positives, against items known not to be of it."""
    ranking = judged.ranking
    for code in HAZARDS:
        said = np.array([item.categories.get(code) is not None for item in judged.items])
        truth = np.array([bool(item.categories.get(code)) for item in judged.items])
        if not truth.any():
            continue
        scores = np.array([answer.scores.get(code, np.nan) for answer in judged.answers])
        usable = said & ~np.isnan(scores)
        yield Group(
            name=code,
            items=int(said.sum()),
            positives=int(truth.sum()),
            auprc=_ranked(measures.auprc, scores, truth, usable),
            roc_auc=_ranked(measures.roc_auc, scores, truth, usable),
            recall=float(ranking.flagged[truth].mean()),
        )


def _ranked(
    measure_of: Callable[[measures.Counts], Array],
    scores: Array,
    truth: measures.Flags,
    usable: measures.Flags,
) -> float | None:
    """A figure of the usable rows, None with too few of either class."""
    positives = int((truth & usable).sum())
    if positives < SMALL_GROUP or int(usable.sum()) - positives < SMALL_GROUP:
        return None
    picked = Ranking(scores[usable], truth[usable], truth[usable])
    return float(measure_of(picked.count())[0])


def languages(judged: Judged) -> Iterator[Group]:
    """Each language of a set that has more than one, most frequent first."""
    return _groups(judged, [item.language or "(unknown)" for item in judged.items])


def tags(judged: Judged) -> dict[str, list[Group]]:
    """The source's own groups, by tag; a tag with too many values is not one."""
    tags = dict.fromkeys(tag for item in judged.items for tag in item.tags)
    named = {tag: [item.tags.get(tag) or "(none)" for item in judged.items] for tag in tags}
    return {
        tag: list(_groups(judged, names))
        for tag, names in named.items()
        if tag != _LANGUAGE_TAG and 1 < len(set(names)) <= MOST_GROUPS
    }


def _groups(judged: Judged, given: Sequence[str]) -> Iterator[Group]:
    """Each group of items by its name, most frequent first; none for a single one."""
    names = np.array(given)
    found, counts = np.unique(names, return_counts=True)
    ranking = judged.ranking
    for name in found[np.argsort(-counts, kind="stable")] if len(found) > 1 else ():
        here = names == name
        truth = ranking.truth & here
        negatives = here & ~ranking.truth
        yield Group(
            name=str(name),
            items=int(here.sum()),
            positives=int(truth.sum()),
            auprc=_ranked(measures.auprc, ranking.scores, truth, here),
            roc_auc=_ranked(measures.roc_auc, ranking.scores, truth, here),
            recall=float(ranking.flagged[truth].mean()) if truth.any() else None,
            fpr=float(ranking.flagged[negatives].mean()) if negatives.any() else None,
        )
