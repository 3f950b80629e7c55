"""A replay's result as one self-contained page: no scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.drawing import GRID, INK, SERIES, blank, style, svg
from pipeline.events import Action
from pipeline.replay.groups import BY
from pipeline.replay.summary import Document
from pipeline.taxonomy import name_of

_DRAWN: Final = 12
_LISTED: Final = 50
"""Groups of one sort in the page's tables; `summary.json` has them all."""


def render(found: Document) -> str:
    """The whole page as HTML, from the document alone."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.replay", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": "{:,}".format, "percent": percent, "interval": interval, "named": name_of,
        "number": number, "ms": milliseconds,
    }  # fmt: skip
    return environment.get_template("report.html.j2").render(
        found=found,
        style=style(),
        flipped={by: [g for g in found["groups"][by] if g["flips"]["records"]] for by in BY},
        pictures={by: picture(found["groups"][by], by) for by in BY},
        shade=shade,
        listed=_LISTED,
    )


def picture(groups: Sequence[Mapping[str, Any]], by: str) -> str:
    """Share of flips with its interval, for the groups with most; `""` for fewer than two."""
    chosen = [group for group in groups if group["flips"]["records"]][:_DRAWN]
    if len(chosen) < 2:
        return ""
    figure, axes = blank(6.4, 0.9 + 0.34 * len(chosen))
    for place, group in enumerate(reversed(chosen)):
        share = group["flips"]
        axes.plot(
            [share["low"] * 100, share["high"] * 100], [place, place], color=SERIES[0], alpha=0.5,
            linewidth=5, solid_capstyle="butt",
        )  # fmt: skip
        axes.plot(share["share"] * 100, place, "o", color=SERIES[0], markersize=6)
    names = [name_of(g["name"]) if by == "category" else g["name"] for g in reversed(chosen)]
    axes.set_yticks(range(len(chosen)), names)
    axes.set_ylim(-0.6, len(chosen) - 0.4)
    axes.set_xlim(left=0)
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.6, alpha=0.6)
    axes.set_xlabel("records that flip, %", color=INK)
    return svg(figure)


def shade(found: Document, then: str, now: str) -> str:
    """The background of a cell of the matrix: stronger for more of its row's flips."""
    row = found["matrix"][then]
    flips = sum(count for name, count in row.items() if name != then)
    if then == now or not row[now] or not flips:
        return ""
    stricter = Action(now).severity > Action(then).severity
    colour = "var(--bad)" if stricter else "var(--series-2)"
    return f"background: color-mix(in srgb, {colour} {8 + 32 * row[now] / flips:.0f}%, transparent)"


def percent(share: float | None) -> str:
    """A share as a percentage, with more digits for small ones."""
    if share is None:
        return "–"
    return f"{share:.2%}" if not share or share >= 0.001 else f"{share:.4%}"


def interval(share: Mapping[str, Any]) -> str:
    """A share's 95 % interval in per cent, as people write one."""
    if share["low"] is None:
        return "–"
    return f"{share['low'] * 100:.2f}–{share['high'] * 100:.2f}"


def number(value: float) -> str:
    """A small number with two digits that count."""
    return f"{value:.2g}"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds."""
    return f"{seconds * 1000:.1f}"
