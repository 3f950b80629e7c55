"""Specification of the activations: logits to scores, for every kind of guard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.guards import activations, llama_guard

CODES = llama_guard.categories(llama_guard.LLAMA_GUARD_3_8B)
CLASSES = ("safe", "unsafe", *CODES, "*")

_rows = hnp.arrays(np.float64, (3, len(CLASSES)), elements=st.floats(-50, 50))
_excluded = st.sets(st.sampled_from(CODES), max_size=len(CODES) - 1)


def probability(odds: np.ndarray) -> np.ndarray:
    """The probabilities behind log-odds."""
    return 1 / (1 + np.exp(-odds))


@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(-30, 30)))
def test_softmax_scores_are_the_shares_of_their_classes(logits: np.ndarray) -> None:
    """Two classes of one label add up; an unnamed class only takes its share."""
    odds = activations.softmax(logits, ("-", "S10", "S10"), ("S10",))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert probability(odds)[:, 0] == pytest.approx(shares[:, 1:].sum(axis=1), abs=1e-9)


def test_sigmoid_takes_the_highest_logit_of_a_label() -> None:
    """A label that several classes feed is as likely as the likeliest of them."""
    odds = activations.sigmoid(np.array([[1.0, -2.0, 3.0]]), ("S10", "-", "S10"), ("S10",))
    assert odds.tolist() == [[3.0]]


@given(_rows, _excluded)
def test_categories_share_out_the_probability_of_unsafe(
    logits: np.ndarray, excluded: set[str]
) -> None:
    """For every set of excluded categories: the others' scores add up to P(unsafe)."""
    labels = ("unsafe", *(code for code in CODES if code not in excluded))
    odds = activations.safe_unsafe(logits, CLASSES, labels, tuple(excluded))
    scores = probability(odds)
    assert scores[:, 1:].sum(axis=1) == pytest.approx(scores[:, 0], rel=1e-6, abs=1e-9)
    assert scores[:, 0] == pytest.approx(probability(logits[:, 1] - logits[:, 0]), abs=1e-12)


@given(_rows, st.integers(0, len(CODES) - 1), st.floats(0.1, 5))
def test_a_higher_category_logit_never_lowers_its_score(
    logits: np.ndarray, category: int, more: float
) -> None:
    """The category's own score is monotone in its logit."""
    raised = logits.copy()
    raised[:, 2 + category] += more
    before, after = (
        activations.safe_unsafe(each, CLASSES, (CODES[category],)) for each in (logits, raised)
    )
    assert (after >= before - 1e-9).all()


def test_health_is_zero_when_only_the_two_answers_are_likely() -> None:
    """log(P(safe) + P(unsafe)) falls as other words take the place of the answer."""
    fits = np.array([[2.0, 1.0, np.logaddexp(2.0, 1.0)]])
    assert activations.health(fits, ("safe", "unsafe", "*")) == pytest.approx([0.0])
    broken = np.array([[2.0, 1.0, 9.0]])
    found = activations.health(broken, ("safe", "unsafe", "*"))
    assert found is not None
    assert found[0] < -6
    assert activations.health(fits[:, :2], ("safe", "unsafe")) is None
