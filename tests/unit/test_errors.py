"""Specification of the error tree."""

from __future__ import annotations

import pytest

from pipeline import errors
from pipeline.errors import Misconfigured, Reason, Rejected, Retryable, SluiceError


def test_an_error_says_what_happened_then_what_to_do() -> None:
    """The message comes first, the remedy after it."""
    assert str(Misconfigured("the port is taken", remedy="Set another")) == (
        "the port is taken. Set another"
    )


def test_without_a_remedy_only_the_message_is_said() -> None:
    """No dangling full stop."""
    assert str(Retryable("no answer", remedy="")) == "no answer"


def test_a_rejection_knows_its_reason() -> None:
    """The reason is the closed set that metrics are labelled with."""
    error = Rejected(Reason.OVERSIZE, "too long", remedy="Shorten it")
    assert (error.reason, error.message, error.remedy) == (
        Reason.OVERSIZE, "too long", "Shorten it",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (errors.DependencyUnavailable, Retryable),
        (errors.DeadLetterLimit, Misconfigured),
        (Retryable, SluiceError),
        (Rejected, SluiceError),
        (Misconfigured, SluiceError),
    ],
)
def test_every_error_answers_then_what(error: type[Exception], parent: type[Exception]) -> None:
    """Each error is retried, buried or shown to a person by its place in the tree."""
    assert issubclass(error, parent)


def test_the_three_answers_exclude_each_other() -> None:
    """No error is at once retryable and final."""
    answers = (Retryable, Rejected, Misconfigured)
    assert not any(issubclass(a, b) for a in answers for b in answers if a is not b)


def test_reasons_are_fit_for_labels() -> None:
    """Lower case words and hyphens: the same in metrics, headers and documents."""
    assert all(reason.replace("-", "").isascii() for reason in Reason)
    assert all(reason == reason.lower() and " " not in reason for reason in Reason)
