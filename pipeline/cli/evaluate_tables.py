"""The figures of an evaluation as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from pipeline.cli import console, tables
from pipeline.evaluate.compare import Comparison
from pipeline.evaluate.groups import Group
from pipeline.evaluate.items import Head
from pipeline.evaluate.measures import LOWER_IS_BETTER
from pipeline.evaluate.report import TITLES, number, signed, span
from pipeline.evaluate.results import Figure, Measured
from pipeline.evaluate.summary import score_words
from pipeline.taxonomy import name_of

_LISTED: Final = 10
_GROUPED: Final = ("auprc", "roc_auc", "recall", "fpr")
_OVERVIEW: Final = (
    "auprc", "roc_auc", "f1", "optimal_f1", "recall_at_1_fpr", "recall_at_5_fpr", "recall", "fpr",
)  # fmt: skip


def show(
    measured: Sequence[Measured],
    comparisons: Sequence[Comparison],
    *,
    details: bool,
    show_text: bool,
) -> None:
    """Print the figures, with `details` also groups and speed, then the comparisons."""
    order = list(dict.fromkeys(one.key for one in measured))
    measured = sorted(measured, key=lambda one: order.index(one.key))
    for one in measured if details else ():
        _headline(one)
        _figures(one)
        _groups("category", one.categories)
        _groups("language", one.languages)
        for tag, groups in one.tags.items():
            _groups(tag.replace("_", " "), groups)
        if one.head is one.run.data.heads[0]:
            _speeds(one)
    for comparison in comparisons:
        _comparison(comparison, show_text=show_text)
    _overview(measured)


def _overview(measured: Sequence[Measured]) -> None:
    """One line for each set and contender."""
    titles = [TITLES[name] for name in _OVERVIEW]
    table = tables.table(
        ["set", "guard", "head", "n", "positive", *titles], right=("n", "positive", *titles)
    )
    for one in measured:
        share = f"{one.positives / one.items:.1%}"
        figures = [number(one.figures.get(name)) for name in _OVERVIEW]
        table.add_row(one.key, one.guard, one.head.value, f"{one.items:,}", share, *figures)
    tables.show(table)
    for remark in dict.fromkeys(line for one in measured for line in _remarks(one)):
        console.out.print(Text(remark, style="dim"))


def _headline(one: Measured) -> None:
    console.out.print(Text(f"\n{one.key}", style="bold") + Text(f"  {one.guard}", style="default"))
    if one.calibration_error is not None:
        words = f"calibration error {one.calibration_error:.3f}"
        console.out.print(Text(words, style="dim"))


def _remarks(one: Measured) -> Iterator[str]:
    """What the figures rest on."""
    yield f"{one.guard}: point {one.run.contender.point.words(Head.ANY)}"
    yield "; ".join([f"{one.key}: score {score_words(one.head)}", *one.run.data.notes])
    if one.unscored:
        yield f"{one.key}: {one.unscored:,} items have no score of {one.guard} and are not counted"
    if one.partly:
        yield f"{one.key}: {one.guard} scanned {one.partly:,} items in part: they are too long"


def _figures(one: Measured) -> None:
    table = tables.table(["figure", "value", "95% interval"], right=("value",))
    for name, figure in _in_order(one):
        table.add_row(TITLES[name], number(figure), span(figure))
    tables.show(table)


def _in_order(one: Measured) -> Iterator[tuple[str, Figure]]:
    return ((name, one.figures[name]) for name in TITLES if name in one.figures)


def _groups(heading: str, groups: Sequence[Group]) -> None:
    """One line for each group; a figure that no group has gets no column."""
    if not groups:
        return
    names = [name for name in _GROUPED if any(getattr(one, name) is not None for one in groups)]
    right = ["n", "positive", *(TITLES[name] for name in names)]
    table = tables.table([heading, *right], right=right)
    for group in groups:
        name = name_of(group.name)
        table.add_row(
            group.name if name == group.name else f"{group.name} {name}",
            f"{group.items:,}",
            f"{group.positives:,}",
            *(number(getattr(group, figure)) for figure in names),
        )
    tables.show(table)


def _speeds(one: Measured) -> None:
    if not one.speeds:
        return
    right = ("items", "items/s", "p50 ms", "p95 ms", "p99 ms")
    table = tables.table(["characters", *right], right=right)
    for speed in one.speeds:
        alone = [speed.latency_ms(percent) for percent in (50, 95, 99)]
        told = ["–" if value is None else f"{value:.1f}" for value in alone]
        table.add_row(speed.length, f"{speed.items:,}", f"{speed.rate:,.0f}", *told)
    tables.show(table)


def _comparison(comparison: Comparison, *, show_text: bool) -> None:
    title = f"\n{comparison.key}: {comparison.first} against {comparison.second}"
    console.out.print(Text(title, style="bold"))
    table = tables.table(["figure", "difference", "95% interval", ""], right=("difference",))
    for name, figure in comparison.differences.items():
        interval = f"{signed(figure.low)} to {signed(figure.high)}"
        table.add_row(TITLES[name], signed(figure.value), interval, verdict(name, figure))
    tables.show(table)
    _disagreements(comparison, show_text=show_text)


def verdict(name: str, figure: Figure) -> Text:
    """Whether a difference is one: its interval leaves out 0."""
    if figure.low <= 0 <= figure.high:
        return Text("")
    better = (figure.low > 0) != (name in LOWER_IS_BETTER)
    return Text("better", style="green") if better else Text("worse", style="red")


def _disagreements(comparison: Comparison, *, show_text: bool) -> None:
    found = comparison.disagreements
    console.out.print(Text(f"{len(found):,} of {comparison.items:,} items are flagged by one only"))
    if not found:
        return
    headings = ["item", "label", comparison.first, comparison.second, "flagged by", "right"]
    table = tables.table([*headings, *(["text"] if show_text else [])])
    for one in found[:_LISTED]:
        label = "positive" if one.positive else "negative"
        scores = number(one.first_score), number(one.second_score)
        shown = [Text(one.text)] if show_text else []
        table.add_row(one.id, label, *scores, one.flagged_by, one.right, *shown)
    tables.show(table)
