"""Pictures as SVG that takes its colours from the page, and the page's style.

Shapes are drawn in marker colours, which are then replaced by CSS variables:
one picture serves the light page, the dark page and the printed one.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import Misconfigured
from pipeline.resources import packaged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, PAPER = "#010203", "#040506", "#070809"
SERIES: Final = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05")
_VARIABLES: Final = {
    INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--paper)",
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)},
}  # fmt: skip


def require() -> None:
    """Raise Misconfigured when the libraries of the report are not installed."""
    try:
        import jinja2
        import matplotlib as mpl
    except ImportError as error:
        raise Misconfigured(
            f"--out needs {error.name}, which is not installed",
            remedy="Install the extra: pip install 'sluice[report]'",
        ) from error
    assert jinja2.__version__
    assert mpl.__version__


def style() -> str:
    """The style sheet of every report: light, dark and on paper."""
    return packaged("report.css").read_text(encoding="utf-8")


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure without a window system: no pyplot, no state between calls."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="tight")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(GRID)
    return figure, axes


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, sized by the page."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sluice"}):
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        drawn = drawn.replace(color, variable)
    return drawn
