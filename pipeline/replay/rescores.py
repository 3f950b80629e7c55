"""Scores and times of a rerun beside those recorded. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from pipeline.replay.comparison import Compared
from pipeline.replay.spread import Spread

APART: Final = 1.0
"""As far as two scores can differ."""


class Rescores:
    """How far scores moved, in all and by category, and the seconds of guard calls."""

    def __init__(self) -> None:
        self.differences = Spread()
        self.largest: dict[str, float] = {}
        self.recorded_s = Spread()
        self.rerun_s = Spread()

    def add(self, compared: Compared) -> float:
        """Count a record that was scored again; returns its largest difference.

        A category that only one side has counts as the largest difference there can be,
        and is in no mean: other guards score other categories.
        """
        then, now = compared.verdict.scores, compared.scores
        largest = 0.0 if then.keys() == now.keys() else APART
        for category in then.keys() & now.keys():
            difference = abs(then[category] - now[category])
            largest = max(largest, difference)
            self.differences.add(difference)
            self.largest[category] = max(difference, self.largest.get(category, 0.0))
        self.recorded_s.add(compared.entry.event.inference_s)
        self.rerun_s.add(max(judgement.inference_s for judgement in compared.judgements))
        return largest

    def state(self) -> dict[str, Any]:
        """Everything, as a JSON document."""
        return {
            "differences": self.differences.state(),
            "largest": self.largest,
            "recorded_s": self.recorded_s.state(),
            "rerun_s": self.rerun_s.state(),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """What `state` came from."""
        rescores = cls()
        rescores.differences = Spread.restored(state["differences"])
        rescores.largest = dict(state["largest"])
        rescores.recorded_s = Spread.restored(state["recorded_s"])
        rescores.rerun_s = Spread.restored(state["rerun_s"])
        return rescores
