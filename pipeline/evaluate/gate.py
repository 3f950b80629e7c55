"""Bounds that figures must keep, such as `xstest.auprc=0.80` or `notinject.fpr<=0.08`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.errors import Misconfigured
from pipeline.evaluate.measures import LOWER_IS_BETTER, MEASURES
from pipeline.evaluate.results import Measured

_BOUND: Final = re.compile(
    r"\s*(?:(?P<guard>.+)/)?\s*(?P<key>[A-Za-z0-9_-]+)\.(?P<name>[a-z0-9_]+)"
    r"\s*(?P<sign><=|>=|=)\s*(?P<value>\d*\.?\d+)\s*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A figure of a set that may not pass a value; `guard` empty: the first one's."""

    guard: str
    key: str
    name: str
    at_most: bool
    value: float

    def __str__(self) -> str:
        return f"{self.key}.{self.name} {'<=' if self.at_most else '>='} {self.value:g}"


def parse(given: Sequence[str]) -> list[Bound]:
    """The bounds as written; raises Misconfigured naming the one that is wrong."""
    return [_parse(text) for text in given]


def _parse(text: str) -> Bound:
    match = _BOUND.fullmatch(text)
    if not match:
        raise Misconfigured(
            f"--fail-under {text!r} is not a bound",
            remedy='Write [GUARD/]SET.FIGURE=LEAST, or "SET.FIGURE<=MOST"',
        )
    if match["name"] not in MEASURES:
        raise Misconfigured(
            f"--fail-under names the figure {match['name']!r}, which there is not",
            remedy=f"Use one of: {', '.join(MEASURES)}",
        )
    if match["sign"] == "=" and match["name"] in LOWER_IS_BETTER:
        raise Misconfigured(
            f"--fail-under {text!r} asks for at least so many false positives",
            remedy=f'Write "{match["key"]}.{match["name"]}<={match["value"]}"',
        )
    return Bound(
        guard=(match["guard"] or "").strip(),
        key=match["key"],
        name=match["name"],
        at_most=match["sign"] == "<=",
        value=float(match["value"]),
    )


def check_keys(bounds: Sequence[Bound], keys: Sequence[str], guards: Sequence[str]) -> None:
    """Raise Misconfigured for a bound on a set or guard that is not measured."""
    for bound in bounds:
        if bound.key not in keys:
            raise Misconfigured(
                f"--fail-under names the set {bound.key!r}, which is not measured",
                remedy=f"The sets are: {', '.join(keys)}; name one with --data NAME=FORMAT:PATH",
            )
        if bound.guard and bound.guard not in guards:
            raise Misconfigured(
                f"--fail-under names {bound.guard!r}, which is not measured",
                remedy=f"Measured are: {', '.join(guards)}",
            )


def breaches(bounds: Sequence[Bound], measured: Sequence[Measured], lead: str) -> Iterator[str]:
    """A line for each bound that does not hold; one without a guard is about `lead`.

    A figure that is not there breaks its bound, and so does an item without a score:
    a gate never passes because a part was not looked at.
    """
    for bound in bounds:
        guard = bound.guard or lead
        found = next((one for one in measured if one.key == bound.key and one.guard == guard), None)
        figure = found.figures.get(bound.name) if found else None
        if found is None or figure is None:
            yield f"{bound}: {guard} has no such figure on this set"
        elif found.unscored:
            yield f"{bound}: {found.unscored:,} items have no score of {guard}"
        elif (figure.value > bound.value) if bound.at_most else (figure.value < bound.value):
            yield f"{bound}: {found.guard} has {figure.value:.4f}"
