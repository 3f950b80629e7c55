"""95 % intervals: bootstrap for figures of a ranking, Wilson's for plain shares."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np

from pipeline.evaluate.measures import Array, Ranking, figures
from pipeline.proportions import Interval, wilson

__all__ = ["Interval", "bootstrap", "draws", "paired", "span", "wilson"]

DRAWS: Final = 1000
SEED: Final = 20261
_CELLS: Final = 1_000_000
"""Weights held at once: 8 MB a matrix, so that large sets stay small in memory."""


def draws(rows: int, count: int, seed: int) -> Iterator[Array]:
    """Bootstrap weights [some, rows], `count` draws in all; the same for a seed."""
    rng = np.random.default_rng(seed)
    step = max(1, min(count, _CELLS // rows))
    for begin in range(0, count, step):
        some = min(step, count - begin)
        picked = rng.integers(0, rows, (some, rows)) + np.arange(some)[:, None] * rows
        counted = np.bincount(picked.ravel(), minlength=some * rows)
        yield counted.reshape(some, rows).astype(np.float64)


def bootstrap(ranking: Ranking, *, count: int = DRAWS, seed: int = SEED) -> dict[str, Interval]:
    """The 95 % percentile interval of every figure; NaN where there is none."""
    parts = [figures(ranking.count(weights)) for weights in draws(len(ranking), count, seed)]
    return {name: span(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def paired(
    first: Ranking, second: Ranking, *, count: int = DRAWS, seed: int = SEED
) -> dict[str, Interval]:
    """The interval of first minus second, both on the same draws of the same rows."""
    parts = []
    for weights in draws(len(first), count, seed):
        ours, theirs = figures(first.count(weights)), figures(second.count(weights))
        parts.append({name: ours[name] - theirs[name] for name in ours})
    return {name: span(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def span(values: Array) -> Interval:
    """The middle 95 % of values, without those that are NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: then so is the interval
        low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
