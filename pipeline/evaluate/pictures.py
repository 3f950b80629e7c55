"""The report's pictures: precision and recall, calibration, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.drawing import GRID, INK, PAPER, SERIES, blank, require, svg
from pipeline.evaluate.measures import reliability
from pipeline.evaluate.results import Measured, confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["calibration", "confusion_matrix", "precision_recall", "require"]

_DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_FAINTEST: Final = 0.06
_FEWEST: Final = 5
"""Items that a step of the calibration needs to be drawn: fewer are noise."""


def precision_recall(measured: Sequence[Measured]) -> str:
    """Precision over recall of each contender; a dot where its shipped threshold lies."""
    figure, axes = _axes("recall", "precision")
    for number, one in enumerate(measured):
        recall, precision = one.curve()
        color, dash = SERIES[number % len(SERIES)], _DASHES[number % len(_DASHES)]
        axes.step(recall, precision, where="pre", color=color, linestyle=dash, label=one.guard)
        if {"recall", "precision"} <= one.figures.keys():
            place = one.figures["recall"].value, one.figures["precision"].value
            axes.plot(*place, "o", color=color, markeredgecolor=PAPER, markersize=8)
    base = measured[0].positives / measured[0].items
    axes.axhline(base, color=GRID, linewidth=1)
    axes.text(0.01, base + 0.01, "chance", color=INK, fontsize=8, va="bottom")
    return _finish(figure, axes)


def calibration(measured: Sequence[Measured]) -> str:
    """Share of positives over mean score, by tenths of the score; size shows rows."""
    figure, axes = _axes("score", "share that is positive")
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.5, label="ideal")
    for number, one in enumerate(measured):
        ranking = one.judged.ranking
        table = reliability(ranking.scores, ranking.truth)
        mean, share, rows = np.array([step for step in table if step[2] >= _FEWEST] or table).T
        color, dash = SERIES[number % len(SERIES)], _DASHES[number % len(_DASHES)]
        axes.plot(mean, share, color=color, linestyle=dash, label=one.guard, linewidth=1.5)
        axes.scatter(mean, share, s=12 + 180 * rows / rows.sum(), color=color, edgecolors=PAPER)
    return _finish(figure, axes)


def confusion_matrix(measured: Measured) -> str:
    """Labelled category by the guard's; shade is the share of its row. `""` without one."""
    rows, columns, counts = confusion(measured)
    if len(rows) < 2 or len(columns) < 2:
        return ""
    figure, axes = blank(2.6 + 0.46 * len(columns), 1.3 + 0.34 * len(rows))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    for (y, x), share in np.ndenumerate(shares):
        axes.add_patch(_cell(x, y, share))
        if counts[y, x]:
            ink = PAPER if share > 0.7 else INK
            axes.text(x, y, f"{counts[y, x]:g}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("highest category score of the flagged", color=INK)
    axes.set_ylabel("labelled", color=INK)
    axes.tick_params(length=0)
    return svg(figure)


def _cell(x: int, y: int, share: float) -> Any:
    from matplotlib.patches import Rectangle

    opacity = _FAINTEST + (1 - _FAINTEST) * share if share else 0.0
    corner = (x - 0.47, y - 0.47)
    return Rectangle(corner, 0.94, 0.94, color=SERIES[0], alpha=opacity, linewidth=0)


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    figure, axes = blank(4.6, 4.0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(visible=True, color=GRID, linewidth=0.6, alpha=0.6)
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    return figure, axes


def _finish(figure: Figure, axes: Axes) -> str:
    legend = axes.legend(frameon=False, fontsize=9, loc="best")
    for text in legend.get_texts():
        text.set_color(INK)
    return svg(figure)
