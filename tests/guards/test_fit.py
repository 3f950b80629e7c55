"""The schedule of training: where the rate rises and falls, and what may resume."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="the 'train' extra is not installed")

from pipeline.guards.encoder import FROZEN_LAYERS, GuardEncoder, freeze
from pipeline.guards.fit import Recipe, same_run, shape

pytestmark = pytest.mark.guards

RECIPE = Recipe(epochs=2.0, warm_up_epochs=0.1, cool_down=0.4)


def kept(recipe: Recipe, done_epochs: float) -> dict[str, object]:
    """What a state says of the run that wrote it."""
    return {
        "recipe": repr(replace(recipe, epochs=0.0)),
        "epochs": recipe.epochs,
        "done_epochs": done_epochs,
    }


@pytest.mark.parametrize(
    ("progress", "share"),
    [(0.0, 0.0), (0.025, 0.5), (0.05, 1.0), (0.59, 1.0), (0.8, 0.5), (1.0, 0.0)],
)
def test_the_rate_rises_stays_and_falls(progress: float, share: float) -> None:
    """Warm-up in epochs, then steady, then down to nothing over the last share."""
    assert shape(progress, RECIPE) == pytest.approx(share)


def test_a_run_does_not_depend_on_its_length_before_the_rate_falls() -> None:
    """At the same epoch the rate is the same in a longer run."""
    longer = replace(RECIPE, epochs=3.0)
    for epoch in (0.02, 0.1, 0.7, 1.19):
        assert shape(epoch / 2.0, RECIPE) == pytest.approx(shape(epoch / 3.0, longer))


def test_an_early_state_resumes_with_another_length() -> None:
    """Until either rate would have begun to fall."""
    assert same_run(kept(RECIPE, 0.5), replace(RECIPE, epochs=1.0))
    assert not same_run(kept(RECIPE, 0.7), replace(RECIPE, epochs=1.0))
    assert not same_run(kept(RECIPE, 1.3), replace(RECIPE, epochs=3.0))


def test_a_late_state_resumes_its_own_run() -> None:
    """The same length is the same run at any time."""
    assert same_run(kept(RECIPE, 1.9), RECIPE)


def test_a_state_of_another_recipe_is_refused() -> None:
    """Another seed is another run."""
    assert not same_run(kept(RECIPE, 0.1), replace(RECIPE, seed=1))


def test_words_and_lowest_layers_are_left_alone() -> None:
    """What the checkpoint knows of words stays; the layers above and the head learn."""
    model = GuardEncoder(3)
    freeze(model)
    learnt = {name for name, value in model.named_parameters() if value.requires_grad}
    assert not [name for name in learnt if name.startswith(("words", "positions", "norm"))]
    blocks = {int(name.split(".")[1]) for name in learnt if name.startswith("blocks")}
    assert blocks == set(range(FROZEN_LAYERS, len(model.blocks)))
    assert {"head.weight", "head.bias"} <= learnt
