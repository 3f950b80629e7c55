"""Figures of a ranking, in plain numpy; many weightings of the rows at once.

A row's weight is how often a bootstrap draw took it, so one cumulative sum
over scores sorted once gives every figure of every draw. All functions take
`Counts` with a leading axis of draws and return one value per draw; NaN where
a figure does not exist (no positives, no negatives).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows at or above each distinct score, descending: `tp`, `fp` [draws, scores].

    `hits` and `alarms` [draws] are the flagged positives and negatives;
    `scores` [scores] are the distinct scores themselves.
    """

    scores: Array
    tp: Array
    fp: Array
    hits: Array
    alarms: Array

    @property
    def positives(self) -> Array:
        """Positives in each draw."""
        return np.asarray(self.tp[:, -1])

    @property
    def negatives(self) -> Array:
        """Negatives in each draw."""
        return np.asarray(self.fp[:, -1])


class Ranking:
    """Scores [n] in 0..1, truth [n] and flags [n] of one filter on one set.

    Sorted once; `count` is then cheap for any weights. n is at least 1.
    """

    def __init__(self, scores: Array, truth: Flags, flagged: Flags) -> None:
        order = np.argsort(-scores, kind="stable")
        self.scores, self.truth, self.flagged = scores, truth, flagged
        self._order = order
        # The last row of each run of equal scores: ties are taken all together.
        self._ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.scores)

    def count(self, weights: Array | None = None) -> Counts:
        """Counts under row weights [draws, n]; without any, each row once."""
        weights = np.ones((1, len(self))) if weights is None else weights
        positive = weights * self.truth
        negative = weights - positive
        flagged = self.flagged.astype(np.float64)
        return Counts(
            scores=self.scores[self._order][self._ends],
            tp=np.cumsum(positive[:, self._order], axis=1)[:, self._ends],
            fp=np.cumsum(negative[:, self._order], axis=1)[:, self._ends],
            hits=positive @ flagged,
            alarms=negative @ flagged,
        )


def _ratio(part: Array, whole: Array) -> Array:
    """Their quotient, NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def auprc(counts: Counts) -> Array:
    """Average precision: precision at each score times the recall it adds."""
    precision = _ratio(counts.tp, counts.tp + counts.fp)
    gained = np.diff(counts.tp, axis=1, prepend=0.0)
    return _known(_ratio(np.nansum(precision * gained, axis=1), counts.positives), counts)


def roc_auc(counts: Counts) -> Array:
    """Chance that a positive scores above a negative; a tie counts half."""
    gained = np.diff(counts.tp, axis=1, prepend=0.0)
    below = counts.negatives[:, None] - counts.fp
    tied = np.diff(counts.fp, axis=1, prepend=0.0)
    won = np.sum(gained * (below + tied / 2.0), axis=1)
    return _ratio(won, counts.positives * counts.negatives)


def f1(counts: Counts) -> Array:
    """F1 of the flags as given, at the shipped threshold."""
    return _known(_ratio(2.0 * counts.hits, counts.hits + counts.alarms + counts.positives), counts)


def optimal_f1(counts: Counts) -> Array:
    """The best F1 of any threshold, chosen on these very rows: a bound, not a result."""
    every = _ratio(2.0 * counts.tp, counts.tp + counts.fp + counts.positives[:, None])
    return _known(np.max(np.nan_to_num(every), axis=1), counts)


def recall_at(counts: Counts, share: float) -> Array:
    """The highest recall of any threshold that flags at most `share` of the negatives."""
    allowed = counts.fp <= share * counts.negatives[:, None] + 1e-9
    best = np.max(np.where(allowed, counts.tp, 0.0), axis=1)
    return _known(_ratio(best, counts.positives), counts)


def recall(counts: Counts) -> Array:
    """Share of the positives that are flagged."""
    return _ratio(counts.hits, counts.positives)


def fpr(counts: Counts) -> Array:
    """Share of the negatives that are flagged."""
    return _ratio(counts.alarms, counts.negatives)


def precision(counts: Counts) -> Array:
    """Share of the flagged that are positive."""
    return _known(_ratio(counts.hits, counts.hits + counts.alarms), counts)


def _known(values: Array, counts: Counts) -> Array:
    """NaN where a draw lacks one of the classes: the figure would flatter."""
    return np.where((counts.positives > 0) & (counts.negatives > 0), values, np.nan)


MEASURES: Final = {
    "auprc": auprc,
    "roc_auc": roc_auc,
    "f1": f1,
    "optimal_f1": optimal_f1,
    "recall_at_1_fpr": lambda counts: recall_at(counts, 0.01),
    "recall_at_5_fpr": lambda counts: recall_at(counts, 0.05),
    "precision": precision,
    "recall": recall,
    "fpr": fpr,
}
"""Every figure by the name it has in JSON and in gates."""
LOWER_IS_BETTER: Final = frozenset({"fpr"})


def figures(counts: Counts) -> dict[str, Array]:
    """All figures, each [draws]."""
    return {name: measure(counts) for name, measure in MEASURES.items()}


def reliability(scores: Array, truth: Flags, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean score, share positive, rows) of each of `bins` equal steps with rows."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    found = []
    for each in np.unique(place):
        here = place == each
        found.append((float(scores[here].mean()), float(truth[here].mean()), int(here.sum())))
    return found


def calibration_error(scores: Array, truth: Flags) -> float:
    """Expected calibration error: mean distance of score from share, by rows."""
    table = reliability(scores, truth)
    return sum(abs(mean - share) * rows for mean, share, rows in table) / len(scores)
