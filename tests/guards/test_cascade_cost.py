"""Specification of what a first stage costs: lost is what only settled windows would have shown."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.guards.cascade_cost import Windows, cost, threshold
from pipeline.guards.data import LABELS

CUTS = np.full(len(LABELS), 0.5)
POINTS = {"balanced": dict.fromkeys(LABELS, 0.5)}


def windows(*made: tuple[int, float, float]) -> Windows:
    """Windows as (text, the first stage's score, the full guard's score)."""
    owner, first, full = zip(*made, strict=True)
    wide = np.ones((1, len(LABELS)))
    return Windows(
        owner=np.array(owner),
        first=np.array(first)[:, None] * wide,
        full=np.array(full)[:, None] * wide,
        texts=max(owner) + 1,
    )


def test_a_text_is_lost_only_if_all_its_flagged_windows_are_settled() -> None:
    """Text 0 keeps one flagged window, text 1 keeps none, text 2 is a false alarm."""
    made = windows((0, 0.1, 0.9), (0, 0.3, 0.9), (1, 0.1, 0.9), (1, 0.3, 0.1), (2, 0.1, 0.9))
    found = cost(made, np.array([True, True, False]), POINTS, below=0.2)
    assert found["balanced: positives caught"] == 2
    assert found["balanced: lost"] == 0.5
    assert found["balanced: false alarms lost"] == 1.0
    assert found["settled"] == pytest.approx(3 / 5)
    assert found["settled_harmless"] == 1.0


def test_the_threshold_loses_no_more_than_asked() -> None:
    """Of 100 caught texts with scores 0.00 to 0.99, one may be lost."""
    made = windows(*((text, text / 100, 0.9) for text in range(100)))
    positive = np.ones(100, bool)
    below = threshold(made, positive, CUTS, 0.01)
    assert cost(made, positive, POINTS, below)["balanced: lost"] <= 0.01
    assert cost(made, positive, POINTS, below + 0.02)["balanced: lost"] > 0.01


def test_what_the_full_guard_misses_does_not_bind_the_threshold() -> None:
    """A positive that is not flagged anyway cannot be lost."""
    made = windows((0, 0.01, 0.1), (1, 0.6, 0.9))
    assert threshold(made, np.array([True, True]), CUTS, 0.0) == 0.6


def test_windows_of_other_texts_are_left_out() -> None:
    """Halves of dev are measured apart."""
    made = windows((0, 0.1, 0.9), (1, 0.1, 0.9))
    assert made.of(np.array([True, False])).flagged(CUTS).tolist() == [True, False]
