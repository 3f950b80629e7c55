"""One self-contained page: tables and pictures, no scripts, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from pipeline.drawing import style
from pipeline.evaluate import pictures
from pipeline.evaluate.compare import Comparison
from pipeline.evaluate.intervals import DRAWS
from pipeline.evaluate.measures import MEASURES
from pipeline.evaluate.results import Figure, Measured
from pipeline.evaluate.summary import score_words
from pipeline.taxonomy import name_of

TITLES: Final = {
    "auprc": "AUPRC",
    "roc_auc": "ROC-AUC",
    "f1": "F1",
    "optimal_f1": "optimal F1",
    "recall_at_1_fpr": "recall at 1% FPR",
    "recall_at_5_fpr": "recall at 5% FPR",
    "precision": "precision",
    "recall": "recall",
    "fpr": "FPR",
}
"""Figures as people read them, in the order of the tables."""
_SHOWN: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One set in the report: its contenders side by side, with their pictures."""

    key: str
    each: Sequence[Measured]
    precision_recall: str
    calibration: str
    confusions: Sequence[tuple[str, str]]
    comparisons: Sequence[Comparison]


def render(
    measured: Sequence[Measured],
    comparisons: Sequence[Comparison],
    gates: Sequence[str],
    breached: Sequence[str],
    *,
    show_text: bool,
) -> str:
    """The whole page as HTML; item texts only with `show_text`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number, "span": span, "percent": percent, "signed": signed, "named": name_of,
    }  # fmt: skip
    return environment.get_template("report.html.j2").render(
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        guards={one.guard: one.run.contender.facts for one in measured},
        sections=[_section(key, list(group), comparisons) for key, group in _by_set(measured)],
        style=style(),
        titles=TITLES,
        ranked=[name for name in MEASURES if name not in {"recall", "fpr", "precision"}],
        gates=gates,
        breached=breached,
        draws=DRAWS,
        shown=_SHOWN,
        show_text=show_text,
        score_words=score_words,
    )


def _by_set(measured: Sequence[Measured]) -> list[tuple[str, list[Measured]]]:
    order = list(dict.fromkeys(one.key for one in measured))
    ordered = sorted(measured, key=lambda one: order.index(one.key))
    return [(key, list(group)) for key, group in groupby(ordered, key=lambda one: one.key)]


def _section(key: str, each: list[Measured], comparisons: Sequence[Comparison]) -> Section:
    ranked = [one for one in each if "auprc" in one.figures]
    drawn = [(one.guard, pictures.confusion_matrix(one)) for one in each]
    return Section(
        key=key,
        each=each,
        precision_recall=pictures.precision_recall(ranked) if ranked else "",
        calibration=pictures.calibration(ranked) if ranked else "",
        confusions=[(guard, picture) for guard, picture in drawn if picture],
        comparisons=[one for one in comparisons if one.key == key],
    )


def number(value: float | Figure | None) -> str:
    """Three digits, or a dash where there is no figure."""
    plain = value.value if isinstance(value, Figure) else value
    return "–" if plain is None or math.isnan(plain) else f"{plain:.3f}"


def signed(value: float) -> str:
    """Three digits with their sign."""
    return f"{value:+.3f}"


def span(figure: Figure | None) -> str:
    """A figure's interval as people write one, or nothing."""
    if figure is None or math.isnan(figure.low):
        return ""
    return f"{figure.low:.3f}–{figure.high:.3f}"


def percent(value: float) -> str:
    """A share as a percentage with one digit."""
    return f"{value * 100:.1f}%"
