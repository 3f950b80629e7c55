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
    """One contender's run: microseconds of CPU a message, messages a second."""

    cpu_us: float
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A contender's medians over its rounds; times in microseconds a message.

    `net_us` is `cpu_us` without tokenising; `spread_us` the range of its rounds.
    """

    cpu_us: float
    tokenise_us: float
    net_us: float
    spread_us: tuple[float, float]
    per_s: float
    rounds: int


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


def standing(laps: Sequence[Lap | None], tokenise_us: float) -> Standing | None:
    """A contender's medians; None when no round could be measured."""
    known = [each for each in laps if each is not None]
    if not known:
        return None
    spent = [each.cpu_us for each in known]
    return Standing(
        cpu_us=median(spent),
        tokenise_us=tokenise_us,
        net_us=median(spent) - tokenise_us,
        spread_us=(min(spent), max(spent)),
        per_s=median(each.per_s for each in known),
        rounds=len(known),
    )


def ratio(
    above: Sequence[Lap | None], below: Sequence[Lap | None], tokenise: tuple[float, float]
) -> float | None:
    """The median over rounds of one contender's CPU over another's, without tokenising.

    A round's two laps ran one after the other, so that a busy minute of the
    machine is in both. None without a round in which both were measured.
    """
    found = [
        (over.cpu_us - tokenise[0]) / (under.cpu_us - tokenise[1])
        for over, under in zip(above, below, strict=True)
        if over is not None and under is not None and under.cpu_us > tokenise[1]
    ]
    return median(found) if found else None


def ratios(
    laps: Mapping[str, Sequence[Lap | None]], tokenise_us: Mapping[str, float], base: str
) -> dict[str, float]:
    """Each contender's CPU a message over that of `base`, without tokenising."""
    if base not in laps:
        return {}
    found = {
        name: ratio(own, laps[base], (tokenise_us[name], tokenise_us[base]))
        for name, own in laps.items()
    }
    return {name: value for name, value in found.items() if value is not None}


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
