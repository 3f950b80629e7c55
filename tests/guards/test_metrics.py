"""Ranking figures, calibration and thresholds on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.guards import calibrate, metrics
from pipeline.guards.data import LABELS


def test_a_perfect_ranking_scores_one() -> None:
    """All positives above all negatives: both areas are 1."""
    values, truth = np.array([0.9, 0.8, 0.2, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    assert metrics.auprc(values, truth) == pytest.approx(1.0)
    assert metrics.roc_auc(values, truth) == pytest.approx(1.0)


def test_average_precision_matches_the_definition() -> None:
    """Positives at ranks 1 and 3 of 4: (1/1 + 2/3) / 2."""
    values, truth = np.array([0.9, 0.8, 0.7, 0.1]), np.array([1.0, 0.0, 1.0, 0.0])
    assert metrics.auprc(values, truth) == pytest.approx((1.0 + 2.0 / 3.0) / 2.0)
    assert metrics.roc_auc(values, truth) == pytest.approx(0.75)


def test_ties_do_not_depend_on_the_order_of_rows() -> None:
    """A constant score has AUPRC = base rate and ROC-AUC = one half."""
    truth = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    assert metrics.auprc(np.ones(5), truth) == pytest.approx(0.4)
    assert metrics.roc_auc(np.ones(5), truth) == pytest.approx(0.5)


def test_calibration_pulls_an_overconfident_score_back() -> None:
    """Logits three times too large get a scale well below one."""
    rng = np.random.default_rng(3)
    honest = rng.normal(0.0, 1.5, (4000, 1))
    truth = (rng.random((4000, 1)) < 1.0 / (1.0 + np.exp(-honest))).astype(float)
    scale, bias = calibrate.platt(honest * 3.0, truth, np.ones_like(truth))
    assert scale[0] == pytest.approx(1.0 / 3.0, abs=0.05)
    assert bias[0] == pytest.approx(0.0, abs=0.1)


def test_a_threshold_keeps_its_share_of_false_positives() -> None:
    """At the balanced point 5% of harmless texts cross `unsafe`."""
    rng = np.random.default_rng(4)
    values = rng.random((5000, len(LABELS)))
    none = np.zeros_like(values)
    points = calibrate.operating_points(values, none, np.ones_like(values))
    crossed = np.mean(values[:, LABELS.index("unsafe")] >= points["balanced"]["unsafe"])
    assert crossed == pytest.approx(0.05, abs=0.005)
    assert all(points["strict"][name] <= points["balanced"][name] for name in LABELS)
