"""From logits to scores that mean something, and to thresholds.

Fitted on one half of the dev rows; the other half is kept for the figures.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.guards.data import LABELS, Example

Array = NDArray[np.float64]
# Pulls thin labels towards "no change"; 20 rows weigh as much as the prior.
PRIOR_ROWS = 20.0
NEWTON_STEPS = 30
# Share of negative dev texts that may cross a threshold, per operating point.
FALSE_POSITIVES = {
    "balanced": {"unsafe": 0.05, "injection": 0.01, "jailbreak": 0.01},
    "strict": {"unsafe": 0.10, "injection": 0.03, "jailbreak": 0.03},
}
CATEGORY_FALSE_POSITIVES = {"balanced": 0.01, "strict": 0.03}
# Dev's harmless texts are easy, and 1% of them cross at scores like 0.03, which
# unfamiliar texts reach by chance: no threshold goes below these.
LOWEST = {"balanced": 0.5, "strict": 0.25}


def for_fitting(rows: Sequence[Example]) -> NDArray[np.bool_]:
    """Which rows calibration may see: half, chosen by the text alone."""
    return np.array([zlib.crc32(row.text.encode()) % 2 == 0 for row in rows])


def scores(logits: Array, scale: Array, bias: Array) -> Array:
    """Calibrated scores in 0..1, same shape as `logits`."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits * scale + bias, -60.0, 60.0))))


def platt(logits: Array, targets: Array, weights: Array) -> tuple[Array, Array]:
    """Fit scale and bias per label; all arguments are [rows, labels]."""
    fitted = [
        _platt_one(logits[known, index], targets[known, index])
        for index, known in enumerate((weights > 0).T)
    ]
    return np.array([a for a, _ in fitted]), np.array([b for _, b in fitted])


def _platt_one(logits: Array, targets: Array) -> tuple[float, float]:
    """Newton's method on two parameters, with a prior at (1, 0)."""
    inputs = np.stack([logits, np.ones_like(logits)], axis=1)
    start = np.array([1.0, 0.0])
    found = start.copy()
    for _ in range(NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(inputs @ found, -60.0, 60.0)))
        slope = inputs.T @ (chance - targets) + PRIOR_ROWS * (found - start)
        curve = (inputs * (chance * (1.0 - chance))[:, None]).T @ inputs
        step = np.linalg.solve(curve + PRIOR_ROWS * np.eye(2), slope)
        found = found - np.clip(step, -1.0, 1.0)
    return float(np.clip(found[0], 0.2, 5.0)), float(found[1])


def operating_points(values: Array, targets: Array, weights: Array) -> dict[str, dict[str, float]]:
    """Thresholds per label: the stated false positives, or fewer."""
    points: dict[str, dict[str, float]] = {}
    for name, shares in FALSE_POSITIVES.items():
        points[name] = {}
        for index, label in enumerate(LABELS):
            negative = (weights[:, index] > 0) & (targets[:, index] == 0)
            share = shares.get(label, CATEGORY_FALSE_POSITIVES[name])
            cut = float(np.quantile(values[negative, index], 1.0 - share))
            points[name][label] = round(min(max(cut, LOWEST[name]), 0.99), 4)
    return points
