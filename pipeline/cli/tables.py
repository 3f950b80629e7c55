"""Tables whose cells can be copied: never cut short, whatever the width."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.measure import Measurement
from rich.table import Table

from pipeline.cli import console


def table(headings: Sequence[str], *, right: Sequence[str] = ()) -> Table:
    """An empty table; columns named in `right` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        side = "right" if heading in right else "left"
        made.add_column(heading, justify=side, no_wrap=True)  # type: ignore[arg-type]
    return made


def show(shown: RenderableType) -> None:
    """Print at natural width; where the terminal is narrower, it wraps the lines."""
    out, own = console.out, console.out._width
    unbounded = out.options.update(width=10_000)
    try:
        out.width = max(Measurement.get(out, unbounded, shown).maximum, 1)
        out.print(shown)
    finally:
        out._width = own


def narrow(below: int = 120) -> bool:
    """Whether a person reads this on a terminal of fewer columns."""
    return console.out.is_terminal and console.out.width < below
