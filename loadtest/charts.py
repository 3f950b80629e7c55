"""Charts as SVG that takes its colours from the page: light, dark and print alike.

matplotlib draws with the placeholder colours below; they become CSS variables
in the SVG, so one drawing serves every colour scheme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import matplotlib as mpl
import numpy as np

mpl.use("svg")

from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from loadtest.histogram import Latencies
from loadtest.series import Heat, Row
from loadtest.table import milliseconds, number

_COLOURS: Final = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "a": "#040404",
    "b": "#050505",
    "c": "#060606",
    "d": "#070707",
    "e": "#080808",
    **{f"h{level}": f"#0901{level:02d}" for level in range(6)},
}
_HEAT_LEVELS: Final = 6
_RC: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sluice",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _COLOURS["line"],
    "axes.labelcolor": _COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _COLOURS["ink"],
    "xtick.color": _COLOURS["muted"],
    "ytick.color": _COLOURS["muted"],
    "grid.color": _COLOURS["line"],
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
_DASHES: Final = ("-", "--", ":", "-.", (0, (5, 1)))
"""Lines differ in their dashes, too: never by colour alone."""


def lines(
    title: str,
    rows: Sequence[Row],
    shown: Mapping[str, str],
    *,
    unit: str,
    markers: Mapping[str, float] | None = None,
) -> str:
    """Columns of a series over time; `shown` maps column to label."""
    figure, axes = _axes(unit)
    for number_, (column, label) in enumerate(shown.items()):
        points = [(row["t_s"], row[column]) for row in rows if row.get(column) is not None]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=_COLOURS["abcde"[number_ % 5]], ls=_DASHES[number_ % 5], label=label)
    for label, at in (markers or {}).items():
        axes.axhline(at, color=_COLOURS["muted"], lw=0.8, ls=(0, (2, 2)), label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds since the start")
    return _svg(figure, axes, title)


def percentiles(title: str, end_to_end: Latencies, naive: Latencies, limit: float) -> str:
    """Latency by percentile, both on log axes; `limit` is the last percentile drawn."""
    figure, axes = _axes("ms")
    nines = [1.0 * 10 ** (step / 20) for step in range(61)]
    at = [100 - 100 / nine for nine in nines if 100 - 100 / nine <= limit]
    inverse = [100 / (100 - share) for share in at]
    for label, made, number_ in (
        ("from the intended send time", end_to_end, 0),
        ("naive", naive, 1),
    ):
        if made.count:
            axes.plot(
                inverse,
                made.curve_ms(at),
                color=_COLOURS["ab"[number_]],
                ls=_DASHES[number_],
                label=label,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    marks = [share for share in (50.0, 90.0, 99.0, 99.9) if share <= limit]
    axes.set_xticks([100 / (100 - share) for share in (0.0, *marks)])
    axes.set_xticklabels(["0", *(f"{share:g} %" for share in marks)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("percentile of messages")
    return _svg(figure, axes, title)


def bars(title: str, spans: Mapping[str, float]) -> str:
    """One stacked bar: mean milliseconds by stage."""
    figure, axes = _axes("", height=1.5)
    left = 0.0
    for number_, (label, value) in enumerate(spans.items()):
        colour = _COLOURS["abcde"[number_ % 5]]
        name = f"{label} {milliseconds(value)} ms"
        axes.barh([0], [value], left=left, color=colour, label=name, height=0.5)
        left += value
    axes.set_yticks([])
    axes.set_xlim(0, max(left, 1e-6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_ylim(-0.4, 0.9)
    axes.set_xlabel("mean milliseconds of a scored message, end to end")
    axes.spines["left"].set_visible(False)
    return _svg(figure, axes, title, columns=3)


def heat_map(title: str, heat: Heat) -> str:
    """Latency over time: the darker a cell, the more messages; empty ones stay blank."""
    figure, axes = _axes("ms", height=2.9)
    levels = _levels(heat.counts)
    colours = ListedColormap([_COLOURS[f"h{level}"] for level in range(_HEAT_LEVELS)])
    axes.pcolormesh(
        heat.time_s, heat.latency_ms, levels, cmap=colours, vmin=-0.5, vmax=_HEAT_LEVELS - 0.5, lw=0
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds since the start, by the intended send time")
    axes.grid(visible=False)
    return _svg(figure, axes, title, legend=False)


def _levels(counts: Any) -> Any:
    """0..5 by the logarithm of a cell's count; empty cells are NaN, which is drawn as nothing."""
    top = max(2.0, float(counts.max()))
    scaled = np.log(np.maximum(counts, 1)) / np.log(top) * _HEAT_LEVELS
    levels = np.minimum(scaled.astype(int), _HEAT_LEVELS - 1)
    return np.where(counts == 0, np.nan, levels)


def points(
    title: str, x: Sequence[float], series: Mapping[str, Sequence[float]], *, limit_ms: float | None
) -> str:
    """Latencies against the rate, for a sweep."""
    figure, axes = _axes("ms")
    for number_, (label, y) in enumerate(series.items()):
        colour = _COLOURS["abcde"[number_ % 5]]
        axes.plot(x, y, color=colour, ls=_DASHES[number_ % 5], marker="o", ms=4, label=label)
    if limit_ms is not None:
        axes.axhline(limit_ms, color=_COLOURS["muted"], lw=0.8, ls=(0, (2, 2)), label="limit")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("messages offered per second")
    return _svg(figure, axes, title)


def _axes(unit: str, *, height: float = 2.6) -> tuple[Figure, Any]:
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(8.0, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        axes.grid(visible=True, axis="y")
        axes.set_ylabel(unit)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    return figure, axes


def _svg(figure: Figure, axes: Any, title: str, *, legend: bool = True, columns: int = 6) -> str:
    """The drawing, with a title for screen readers and colours from the page."""
    with mpl.rc_context(_RC):
        if legend and axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderpad=0)
        out = io.StringIO()
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _embedded(out.getvalue(), title)


def _embedded(svg: str, title: str) -> str:
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img" width="100%"', drawing, count=1
    )
    for name, colour in _COLOURS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    drawing = re.sub(
        r"font: ([\d.]+)px '?[^;\"]*", r"font-size: \1px; font-family: inherit", drawing
    )
    drawing = _unique(drawing, title)
    return drawing.replace(">", f"><title>{escape(title)}</title>", 1)


def _unique(svg: str, title: str) -> str:
    """Ids that stay apart when several drawings share a page."""
    prefix = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
