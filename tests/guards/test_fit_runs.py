"""Training twice gives the same weights, and so does a run that was cut and resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the 'train' extra is not installed")

import torch

from pipeline.guards import fit as loop
from pipeline.guards import train
from pipeline.guards.batches import Windower
from pipeline.guards.contrast import made
from pipeline.guards.data import LABELS, Example
from pipeline.guards.encoder import GuardEncoder, freeze

pytestmark = pytest.mark.guards

RECIPE = loop.Recipe(epochs=2.0, tokens=64, documents=4)
WORDS = ("harbour", "lamp", "threat", "bread", "winter", "letter")


class Letters:
    """A tokenizer of one id a letter."""

    def encode_batch(self, texts: Sequence[str], /) -> list[Any]:
        """Ids well above the special tokens."""
        return [SimpleNamespace(ids=[1000 + ord(letter) for letter in text]) for text in texts]


def rows(epoch: int) -> list[Example]:
    """Twelve texts, half of them harmful, others in each epoch."""
    return [
        made(f"{word} {epoch} {side}", ("S1",) if side else (), bool(side), "test")
        for word in WORDS
        for side in (0, 1)
    ]


def trained(state: Path) -> dict[str, Any]:
    """The weights after a run, or after the rest of one that `state` holds."""
    torch.manual_seed(1)
    model = GuardEncoder(len(LABELS))
    freeze(model)
    loop.fit(model, rows, Windower(Letters()), RECIPE, state)
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Bit for bit."""
    return all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run from beginning to end."""
    return trained(tmp_path_factory.mktemp("whole") / "state.pt")


def test_the_same_seed_gives_the_same_weights(whole: dict[str, Any], tmp_path: Path) -> None:
    """Bit for bit, on the same processor with as many threads."""
    assert same(whole, trained(tmp_path / "state.pt"))


def test_a_run_cut_in_the_second_epoch_ends_as_if_it_had_not_been(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, rate, optimiser and dropout go on where the last saved state stopped."""
    state = tmp_path / "state.pt"
    steps = 0
    really = loop._step

    def cut(*given: Any) -> float:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return really(*given)

    monkeypatch.setattr(loop, "SAVE_STEPS", 2)
    monkeypatch.setattr(loop, "_step", cut)
    with pytest.raises(KeyboardInterrupt):
        trained(state)
    monkeypatch.setattr(loop, "_step", really)
    assert torch.load(state, weights_only=True)["step"] == 4
    assert same(whole, trained(state))


@pytest.mark.parametrize("kept", [None, {}, {"finished": False}])
def test_only_runs_that_have_ended_are_averaged(
    kept: dict[str, Any] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file, another file, or half a run: one line that names it, and nothing is published."""
    state = tmp_path / "state.pt"
    if kept is not None:
        torch.save({"model": GuardEncoder(len(LABELS)).state_dict(), **kept}, state)
    assert train.main(["--average", str(state), "--nice", "0"]) == 2
    assert str(state) in capsys.readouterr().out
