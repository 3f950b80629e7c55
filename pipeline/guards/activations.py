"""From a guard's raw logits to the log-odds of each label.

Every activation ends in log-odds, so that one calibration (a scale and a bias,
then a sigmoid) fits all guards, and a scale of 1 with a bias of 0 leaves the
guard's own probability as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

UNNAMED: Final = "-"
"""A logit that belongs to no label, such as the harmless class of a softmax."""
SAFE: Final = "safe"
UNSAFE: Final = "unsafe"
EVERY: Final = "*"
"""The logarithm of the sum over the whole vocabulary, where a graph gives it."""


def sigmoid(logits: Values, classes: Sequence[str], labels: Sequence[str]) -> Values:
    """Log-odds [rows, labels] of independent logits; a label's highest logit counts."""
    return np.stack([logits[:, _columns(classes, label)].max(axis=1) for label in labels], axis=1)


def softmax(logits: Values, classes: Sequence[str], labels: Sequence[str]) -> Values:
    """Log-odds [rows, labels] of classes that exclude one another."""
    return np.stack(
        [
            _log_sum(logits[:, _columns(classes, label)])
            - _log_sum(logits[:, _columns(classes, label, inside=False)])
            for label in labels
        ],
        axis=1,
    )


def safe_unsafe(
    logits: Values, classes: Sequence[str], labels: Sequence[str], excluded: Sequence[str] = ()
) -> Values:
    """Log-odds [rows, labels] of a guard that answers `safe`, or `unsafe` and a category.

    P(unsafe) is the share of `unsafe` among the two answers; a category's
    score is P(unsafe) times its share among the categories not excluded.
    """
    unsafe = logits[:, classes.index(UNSAFE)] - logits[:, classes.index(SAFE)]
    log_unsafe = -np.logaddexp(0.0, -unsafe)
    open_ = [index for index, name in enumerate(classes) if _is_category(name, excluded)]
    log_all = _log_sum(logits[:, open_]) if open_ else log_unsafe
    odds = [
        unsafe if label == UNSAFE else _odds(log_unsafe + logits[:, classes.index(label)] - log_all)
        for label in labels
    ]
    return np.stack(odds, axis=1)


def health(logits: Values, classes: Sequence[str]) -> Values | None:
    """log(P(safe) + P(unsafe)) by row, about 0 when the template fits; None if not given."""
    if EVERY not in classes:
        return None
    answers = logits[:, [classes.index(SAFE), classes.index(UNSAFE)]]
    return np.asarray(_log_sum(answers) - logits[:, classes.index(EVERY)])


def _is_category(name: str, excluded: Sequence[str]) -> bool:
    return name not in {SAFE, UNSAFE, EVERY, UNNAMED, *excluded}


def _columns(classes: Sequence[str], label: str, *, inside: bool = True) -> list[int]:
    return [index for index, name in enumerate(classes) if (name == label) is inside]


def _log_sum(logits: Values) -> Values:
    highest = logits.max(axis=1, keepdims=True)
    return np.asarray(highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1)))


def _odds(log_share: Values) -> Values:
    """Log-odds of a probability given as its logarithm, kept below certainty."""
    kept = np.minimum(log_share, -1e-12)
    return np.asarray(kept - np.log(-np.expm1(kept)))
