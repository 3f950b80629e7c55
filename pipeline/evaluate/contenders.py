"""What can be measured: a guard or any other filter, seen as scores for items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pipeline.evaluate.items import HAZARDS, Head, Item

SCORE: Final = "score"
"""The label of a filter's one score, which stands for every head."""
DEFAULT_THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Scores in 0..1 by label for one item; `problem` says why there are none.

    `flagged` is the filter's own decision, one or by head, where it makes one.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    flagged: Mapping[str, bool] | bool | None = None
    problem: str = ""

    def score(self, head: Head) -> float | None:
        """The highest of the head's scores, or the filter's one; None if it has neither."""
        found = [self.scores[label] for label in head.within(self.scores)]
        return max(found) if found else self.scores.get(SCORE)

    @property
    def category(self) -> str:
        """The hazard category with the highest score, or `""` without any."""
        named = {label: self.scores[label] for label in HAZARDS if label in self.scores}
        return max(named, key=lambda label: named[label]) if named else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """When a score counts as a flag: the card's thresholds, or one for all."""

    name: str
    thresholds: Mapping[str, float] = field(default_factory=dict)
    otherwise: float = DEFAULT_THRESHOLD

    def flags(self, answer: Answer, head: Head) -> bool:
        """Whether a label of the head crosses its own threshold.

        Without thresholds the filter's own decision counts, and without that
        its score against `otherwise`.
        """
        held = head.within(self.thresholds)
        if held:
            return any(answer.scores.get(one, 0.0) >= self.thresholds[one] for one in held)
        own = answer.flagged
        if isinstance(own, Mapping):
            own = own.get(head.value)
        return (answer.score(head) or 0.0) >= self.otherwise if own is None else own

    def words(self, head: Head) -> str:
        """The point as people read it, with the thresholds of a head."""
        held = [f"{one} {self.thresholds[one]:g}" for one in head.within(self.thresholds)]
        return f"{self.name} ({', '.join(held)})" if held else self.name


class Contender(Protocol):
    """A guard or another filter under measurement.

    `batch` items are asked at once, `in_flight` batches at a time; `sampled`
    items of each length are asked again, alone, for their latency.
    """

    name: str
    """How the output names it."""

    @property
    def point(self) -> Point:
        """When it flags."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What identifies it: digest, version, where its scores come from."""

    @property
    def pace(self) -> Pace:
        """How it is asked."""

    async def answer(self, data: str, items: Sequence[Item], /) -> list[Answer]:
        """One answer per item of set `data`, in order.

        Raises a SluiceError when it cannot answer at all.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a contender is asked; see `Contender`. `timed`: its speed means something."""

    batch: int = 64
    in_flight: int = 4
    sampled: int = 100
    timed: bool = True
