"""Ranking figures for one label, in plain numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Figure = Callable[[Array, Array], float]


def auprc(values: Array, truth: Array) -> float:
    """Average precision; ties count as one step. NaN without positives."""
    precision, recall, _ = _curve(values, truth)
    if not len(recall):
        return float("nan")
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * precision))


def roc_auc(values: Array, truth: Array) -> float:
    """Chance that a positive scores above a negative; ties count half."""
    positive, negative = values[truth > 0], values[truth == 0]
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    upto = np.searchsorted(ordered, positive, "right")
    return float(np.mean((below + upto) / 2.0) / len(negative))


def recall_at(values: Array, truth: Array, share: float) -> float:
    """Recall at the threshold where `share` of the negatives cross it."""
    positive, negative = values[truth > 0], values[truth == 0]
    if not len(positive) or not len(negative):
        return float("nan")
    return float(np.mean(positive > np.quantile(negative, 1.0 - share)))


def interval(figure: Figure, values: Array, truth: Array, draws: int = 200) -> tuple[float, float]:
    """95% bootstrap interval of `figure`, from a fixed seed."""
    if not 0 < truth.sum() < len(truth):
        return float("nan"), float("nan")
    rng = np.random.default_rng(7)
    found = []
    for _ in range(draws):
        pick = rng.integers(0, len(values), len(values))
        found.append(figure(values[pick], truth[pick]))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def f1(values: Array, truth: Array, threshold: float) -> float:
    """F1 of "score >= threshold"."""
    flagged = values >= threshold
    hit = float(np.sum(flagged & (truth > 0)))
    return 2.0 * hit / max(float(np.sum(flagged) + np.sum(truth > 0)), 1.0)


def _curve(values: Array, truth: Array) -> tuple[Array, Array, Array]:
    """Precision, recall and threshold at each distinct score, descending."""
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    if not truth.sum():
        return np.empty(0), np.empty(0), np.empty(0)
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    hits = np.cumsum(truth)[ends]
    return hits / (ends + 1.0), hits / truth.sum(), values[ends]
