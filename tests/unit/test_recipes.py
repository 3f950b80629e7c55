"""Specification of what can be exported: a mistake in a request is told before any work."""

from __future__ import annotations

import pytest

from pipeline.errors import Misconfigured
from pipeline.guards import recipes


@pytest.mark.parametrize(
    ("classes", "activation", "roles", "says"),
    [
        (["-", "S99"], "softmax", ["prompt"], "--classes cannot be 'S99'"),
        (["-", "S10"], "relu", ["prompt"], "--activation cannot be 'relu'"),
        (["-", "S10"], "softmax", ["prompts"], "--roles cannot be 'prompts'"),
        (["-", "S10"], "softmax", [], "--roles cannot be ''"),
        (["S10", "S10"], "softmax", ["prompt"], "a softmax needs two classes"),
        (["-", "-"], "softmax", ["prompt"], "needs its classes"),
    ],
)
def test_a_classifier_that_no_card_describes_is_refused(
    classes: list[str], activation: str, roles: list[str], says: str
) -> None:
    """The card would refuse it as well, but only once the checkpoint is loaded and traced."""
    with pytest.raises(Misconfigured) as caught:
        recipes.classifier(classes, activation, roles)
    assert says in caught.value.message
    assert caught.value.remedy


def test_a_classifier_has_its_labels_once_and_in_order() -> None:
    """One class of a sigmoid is enough, and several classes may bear one label."""
    recipe = recipes.classifier(["S10", "-", "S1", "S10"], "sigmoid", ["prompt", "completion"])
    assert recipe.labels == ("S10", "S1")
    assert recipes.classifier(["injection"], "sigmoid", ["prompt"]).classes == ("injection",)


@pytest.mark.parametrize("tokens", [-5, 0, 7])
def test_a_window_without_room_for_text_is_refused(tokens: int) -> None:
    """The remedy says how long it must be."""
    with pytest.raises(Misconfigured, match="--max-length 8 or more"):
        recipes.named("prompt-guard-2").up_to(tokens)
    assert recipes.named("prompt-guard-2").up_to(8).buckets == (8,)
