"""Specification of `sluice guard verify`: what the worker's self-test refuses does not pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import guard
from pipeline.errors import Misconfigured
from pipeline.guards import cards, verify

from .fakes import write_card

_TIGHT = """tolerance = 0.001

[[golden]]
role = "prompt"
text = "fine"
scores = {{ unsafe = {score} }}
tolerance = 0.4
"""


def _run(odds: float) -> verify.Run:
    """A graph that gives every text these odds of being unsafe, and even ones for the rest."""

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray([[np.log(odds / (1 - odds)), 0.0, 0.0]] * len(ids), dtype=np.float32)

    return run


@pytest.mark.parametrize(
    ("score", "bound", "passes"),
    [
        (0.0205, None, True),
        (0.03, None, False),
        (0.03, 0.3, False),
        (0.0205, 0.0001, False),
    ],
)
def test_a_golden_text_is_held_to_its_own_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, bound: float | None, passes: bool
) -> None:
    """Another text's tolerance does not widen it, and a bound can only narrow it."""
    (tmp_path / "tiny").mkdir()
    path = write_card(tmp_path / "tiny") / "card.toml"
    path.write_text(path.read_text().rstrip() + "\n" + _TIGHT.format(score=score))
    monkeypatch.setattr(verify, "onnx_run", lambda _: _run(score))

    def check() -> None:
        guard.verify_(
            "tiny", checkpoint=None, repository=tmp_path, bound=bound, precision="fp32",
            served=False,
        )  # fmt: skip

    if passes:
        check()
    else:
        with pytest.raises(Misconfigured, match="golden text 1 scores"):
            check()


def test_a_golden_text_says_nothing_of_labels_it_does_not_list(tmp_path: Path) -> None:
    """As in the self-test: a score without an expectation cannot decide otherwise."""
    path = write_card(tmp_path) / "card.toml"
    path.write_text(path.read_text().replace("unsafe = 0.5\n", "unsafe = 0.5\nS4 = 0.3\n"))
    (compared,) = verify.golden(cards.load(tmp_path), _run(0.02))
    assert (compared.label, compared.decided_otherwise) == ("unsafe", ())
    (compared,) = verify.golden(cards.load(tmp_path), _run(0.6))
    assert compared.decided_otherwise == ("unsafe",)
