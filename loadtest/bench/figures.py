"""From samples to figures: CPU a message, medians, ratios, targets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

EDGE: Final = 0.05
"""Share of the messages left out at either end: start-up, and the last partial batches."""

WORKER_US: Final = 45.0
BELOW_FAUST: Final = 6.0
ABOVE_RAW: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A look at a contender: time and CPU time in seconds, verdicts so far."""

    at_s: float
    cpu_s: float
    verdicts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One contender's run: microseconds of CPU a message, messages a second.

    `tokenise_us`: what of it tokenising cost in the same round, by itself.
    """

    cpu_us: float
    per_s: float
    tokenise_us: float = 0.0

    @property
    def net_us(self) -> float:
        """CPU a message without tokenising."""
        return self.cpu_us - self.tokenise_us


Turn = Mapping[str, Lap | None]
"""Laps that ran one directly after the other, by contender; None: too short to measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A contender's medians over its laps; times in microseconds a message.

    `net_us` is CPU without tokenising; `spread_us` the range of `cpu_us`.
    """

    cpu_us: float
    tokenise_us: float
    net_us: float
    spread_us: tuple[float, float]
    per_s: float
    laps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A target, what was measured, and whether that meets it."""

    text: str
    value: float
    met: bool


def lap(samples: Sequence[Sample], messages: int) -> Lap | None:
    """The figures between the first and the last 5 % of verdicts.

    None when the samples hold less than half of the messages between them:
    the run was too short to be measured.
    """
    low, high = messages * EDGE, messages * (1 - EDGE)
    inside = [sample for sample in samples if low <= sample.verdicts <= high]
    if len(inside) < 2:
        return None
    first, last = inside[0], inside[-1]
    done = last.verdicts - first.verdicts
    if done < messages / 2 or last.at_s <= first.at_s:
        return None
    return Lap(
        cpu_us=1e6 * (last.cpu_s - first.cpu_s) / done,
        per_s=done / (last.at_s - first.at_s),
    )


def standing(laps: Sequence[Lap | None]) -> Standing | None:
    """A contender's medians; None when no lap could be measured."""
    known = [each for each in laps if each is not None]
    if not known:
        return None
    spent = [each.cpu_us for each in known]
    return Standing(
        cpu_us=median(spent),
        tokenise_us=median(each.tokenise_us for each in known),
        net_us=median(each.net_us for each in known),
        spread_us=(min(spent), max(spent)),
        per_s=median(each.per_s for each in known),
        laps=len(known),
    )


def ratios(turns: Sequence[Turn], base: str) -> dict[str, float]:
    """Each contender's CPU a message over that of `base`, without tokenising; medians.

    Taken within turns: a busy minute of the machine is in both laps. Nothing
    of a contender that shares no turn with `base` in which both were measured.
    """
    found: dict[str, list[float]] = {}
    for turn in turns:
        under = turn.get(base)
        if under is None or under.net_us <= 0:
            continue
        for name, over in turn.items():
            if over is not None:
                found.setdefault(name, []).append(over.net_us / under.net_us)
    return {name: median(values) for name, values in found.items()}


def goals(standings: Mapping[str, Standing], over_sluice: Mapping[str, float]) -> list[Goal]:
    """The targets that what was measured can answer."""
    found = []
    if "sluice" in standings:
        net_us = standings["sluice"].net_us
        text = f"worker CPU a message <= {WORKER_US:g} us, tokenising apart"
        found.append(Goal(text=text, value=net_us, met=net_us <= WORKER_US))
    if over_sluice.get("faust"):
        value = over_sluice["faust"]
        text = f"at least {BELOW_FAUST:g}x less than the Faust agent"
        found.append(Goal(text=text, value=value, met=value >= BELOW_FAUST))
    if over_sluice.get("raw"):
        value = 1 / over_sluice["raw"]
        text = f"within {ABOVE_RAW:g}x of the raw loop"
        found.append(Goal(text=text, value=value, met=value <= ABOVE_RAW))
    return found
