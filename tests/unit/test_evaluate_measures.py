"""Specification of the figures: known by hand, and by formulas written another way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate import intervals, measures
from pipeline.evaluate.measures import Ranking

# Descending: P .9, N .8, P .7, P .6, N .5, N .4, N .3, P .2
SCORES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
TRUTH = (1, 0, 1, 1, 0, 0, 0, 1)

rows = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.8, 1.0]), st.booleans()),
    min_size=2,
    max_size=40,
)


def ranking(scores: Sequence[float], truth: Sequence[object], at: float = 0.5) -> Ranking:
    """A ranking that flags from a threshold on."""
    values = np.array(scores, dtype=np.float64)
    return Ranking(values, np.array(truth, dtype=np.bool_), values >= at)


def figure(name: str, one: Ranking) -> float:
    """One figure of one ranking."""
    return float(measures.figures(one.count())[name][0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auprc", (1 + 2 / 3 + 3 / 4 + 4 / 8) / 4),
        ("roc_auc", (4 + 3 + 3 + 0) / 16),
        ("f1", 2 * 3 / (5 + 4)),
        ("optimal_f1", 2 * 3 / (4 + 4)),
        ("recall_at_1_fpr", 1 / 4),
        ("recall_at_5_fpr", 1 / 4),
        ("precision", 3 / 5),
        ("recall", 3 / 4),
        ("fpr", 2 / 4),
    ],
)
def test_eight_rows_give_what_a_pencil_gives(name: str, value: float) -> None:
    """Each figure of eight rows equals its value worked out by hand."""
    assert figure(name, ranking(SCORES, TRUTH)) == pytest.approx(value)


def test_one_tie_over_everything_is_chance() -> None:
    """With one score for all rows AUPRC is the base rate and ROC-AUC a half."""
    tied = ranking([0.4] * 10, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    assert figure("auprc", tied) == pytest.approx(0.2)
    assert figure("roc_auc", tied) == pytest.approx(0.5)
    assert figure("recall_at_5_fpr", tied) == 0.0


def test_order_of_tied_rows_does_not_matter() -> None:
    """Ties are one step: shuffling the rows changes no figure."""
    scores, truth = [0.5, 0.5, 0.5, 0.9, 0.1], [1, 0, 1, 0, 1]
    there, back = ranking(scores, truth), ranking(scores[::-1], truth[::-1])
    for name in measures.MEASURES:
        assert figure(name, there) == pytest.approx(figure(name, back))


@given(rows)
def test_roc_auc_counts_the_pairs_that_are_won(pairs: list[tuple[float, bool]]) -> None:
    """ROC-AUC equals the share of pairs in which the positive scores higher."""
    up = [score for score, truth in pairs if truth]
    down = [score for score, truth in pairs if not truth]
    found = figure("roc_auc", ranking(*zip(*pairs, strict=True)))
    if not up or not down:
        assert math.isnan(found)
        return
    won = sum((p > n) + (p == n) / 2 for p in up for n in down)
    assert found == pytest.approx(won / (len(up) * len(down)))


@given(rows)
def test_auprc_sums_precision_over_thresholds(pairs: list[tuple[float, bool]]) -> None:
    """AUPRC equals the sum of precision times gained recall, threshold by threshold."""
    positives = sum(truth for _, truth in pairs)
    found = figure("auprc", ranking(*zip(*pairs, strict=True)))
    if positives in {0, len(pairs)}:
        assert math.isnan(found)
        return
    total = before = 0.0
    for at in sorted({score for score, _ in pairs}, reverse=True):
        taken = [truth for score, truth in pairs if score >= at]
        recall = sum(taken) / positives
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    assert found == pytest.approx(total)


@given(rows, st.sampled_from([0.01, 0.05, 0.3]))
def test_recall_at_a_rate_is_the_best_threshold_that_keeps_it(
    pairs: list[tuple[float, bool]], share: float
) -> None:
    """No threshold with so few false positives has a higher recall."""
    up = [score for score, truth in pairs if truth]
    down = [score for score, truth in pairs if not truth]
    if not up or not down:
        return
    recalls = [
        sum(score >= at for score in up) / len(up)
        for at in {score for score, _ in pairs}
        if sum(score >= at for score in down) <= share * len(down)
    ]
    counts = ranking(*zip(*pairs, strict=True)).count()
    assert float(measures.recall_at(counts, share)[0]) == pytest.approx(max(recalls, default=0.0))


def test_weights_count_as_repeated_rows() -> None:
    """A row of weight two gives the figures of a set that holds it twice."""
    weights = np.array([[2.0, 1, 0, 1, 3, 1, 1, 1]])
    whole = [n for n, times in enumerate(weights[0]) for _ in range(int(times))]
    repeated = ranking([SCORES[n] for n in whole], [TRUTH[n] for n in whole])
    weighted = measures.figures(ranking(SCORES, TRUTH).count(weights))
    for name, values in weighted.items():
        assert float(values[0]) == pytest.approx(figure(name, repeated)), name


def test_one_class_has_only_its_own_share() -> None:
    """All-positive sets have recall and all-negative ones FPR, and nothing else."""
    ups = {
        name for name in measures.MEASURES if not math.isnan(figure(name, ranking(SCORES, [1] * 8)))
    }
    downs = {
        name for name in measures.MEASURES if not math.isnan(figure(name, ranking(SCORES, [0] * 8)))
    }
    assert ups == {"recall"}
    assert downs == {"fpr"}


def test_bootstrap_repeats_itself_and_holds_the_value() -> None:
    """The same seed gives the same interval, and the value lies inside it."""
    rng = np.random.default_rng(3)
    truth = rng.random(400) < 0.4
    one = ranking(np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1).tolist(), truth.tolist())
    first, again = intervals.bootstrap(one, count=300), intervals.bootstrap(one, count=300)
    assert first == again
    for name, (low, high) in first.items():
        assert low <= figure(name, one) <= high, name


def test_bootstrap_of_a_mean_matches_its_standard_error() -> None:
    """The interval of a share over 1,000 rows is 1.96 standard errors each way."""
    truth = [True] * 1000 + [False] * 10
    one = ranking([0.9] * 300 + [0.1] * 710, truth)
    low, high = intervals.bootstrap(one, count=2000)["recall"]
    error = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == (
        pytest.approx(0.3 - error, abs=0.004),
        pytest.approx(0.3 + error, abs=0.004),
    )


def test_draws_do_not_depend_on_how_many_are_held_at_once() -> None:
    """A set too large for one matrix gets each draw of its full size."""
    parts = list(intervals.draws(600_000, 3, 1))
    assert [part.shape for part in parts] == [(1, 600_000)] * 3
    assert all(part.sum() == 600_000 for part in parts)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_gives_the_published_values(hits: int, n: int, low: float, high: float) -> None:
    """Known Wilson intervals, at the ends and inside (81 of 263 is Newcombe's example)."""
    assert intervals.wilson(hits, n) == (
        pytest.approx(low, abs=5e-4),
        pytest.approx(high, abs=5e-4),
    )


def test_a_filter_does_not_differ_from_itself() -> None:
    """Paired differences of a filter with itself are exactly zero."""
    one = ranking(SCORES, TRUTH)
    for low, high in intervals.paired(one, one, count=50).values():
        assert math.isnan(low) or (low, high) == (0.0, 0.0)


def test_calibration_of_scores_that_mean_what_they_say_is_good() -> None:
    """Scores drawn as probabilities have a small error; their squares a larger one."""
    rng = np.random.default_rng(5)
    scores = rng.random(20_000)
    truth = rng.random(20_000) < scores
    assert measures.calibration_error(scores, truth) < 0.02
    assert measures.calibration_error(scores**2, truth) > 0.1
    assert sum(rows for _, _, rows in measures.reliability(scores, truth)) == 20_000
