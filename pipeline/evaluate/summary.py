"""Results as documents: summary.json and the scores that can be used again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from pipeline.evaluate import meta_shape
from pipeline.evaluate.compare import Comparison
from pipeline.evaluate.intervals import DRAWS, SEED
from pipeline.evaluate.items import Head
from pipeline.evaluate.results import Measured, confusion
from pipeline.evaluate.runs import Run, Speed

VERSION: Final = 1
LISTED: Final = 1000
"""Disagreements that summary.json lists at most; it says how many there are."""

Document = dict[str, Any]


def document(
    measured: Sequence[Measured],
    comparisons: Sequence[Comparison],
    breached: Sequence[str],
    *,
    show_text: bool,
) -> Document:
    """All figures; no text of any item unless `show_text`."""
    return {
        "format": VERSION,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "interval": {"percent": 95, "bootstrap_draws": DRAWS, "seed": SEED},
        "guards": {one.guard: dict(one.run.contender.facts) for one in measured},
        "results": [_result(one) for one in measured],
        "comparisons": [_comparison(one, show_text=show_text) for one in comparisons],
        "gates_breached": list(breached),
        "cyberseceval": {
            f"{one.guard}/{one.key}": shape for one in measured if (shape := meta_shape.result(one))
        },
    }


def _result(measured: Measured) -> Document:
    rows, columns, matrix = confusion(measured)
    return {
        "set": measured.key,
        "guard": measured.guard,
        "format": measured.run.data.format,
        "head": measured.head.value,
        "score": score_words(measured.head),
        "point": measured.point,
        "notes": list(measured.run.data.notes),
        "n": measured.items,
        "positives": measured.positives,
        "base_rate": measured.positives / measured.items,
        "unscored": measured.unscored,
        "partly_scanned": measured.partly,
        "figures": {name: asdict(figure) for name, figure in measured.figures.items()},
        "calibration_error": measured.calibration_error,
        "categories": [asdict(group) for group in measured.categories],
        "languages": [asdict(group) for group in measured.languages],
        "tags": {tag: [asdict(group) for group in found] for tag, found in measured.tags.items()},
        "confusion": {"rows": rows, "columns": columns, "counts": matrix.astype(int).tolist()},
        "speed": [_speed(speed) for speed in measured.speeds],
    }


def score_words(head: Head) -> str:
    """Which score a head is, in words."""
    labels = head.labels
    return labels[0] if len(labels) == 1 else f"max({', '.join(labels)})"


def _speed(speed: Speed) -> Document:
    return {
        "characters": speed.length,
        "items": speed.items,
        "items_per_s": speed.rate,
        **{f"p{percent}_ms": speed.latency_ms(percent) for percent in (50, 95, 99)},
        "latency_samples": len(speed.latencies_s),
    }


def _comparison(comparison: Comparison, *, show_text: bool) -> Document:
    listed = [asdict(one) for one in comparison.disagreements[:LISTED]]
    for one in listed if not show_text else ():
        del one["text"]
    return {
        "set": comparison.key,
        "head": comparison.head.value,
        "first": comparison.first,
        "second": comparison.second,
        "n": comparison.items,
        "differences": {name: asdict(figure) for name, figure in comparison.differences.items()},
        "disagreement_count": len(comparison.disagreements),
        "disagreements": listed,
    }


def scores(runs: Iterable[Run]) -> Iterator[bytes]:
    """A JSON line per answer, in the form that `--recorded` reads; no text."""
    for run in runs:
        point, heads = run.contender.point, run.data.heads
        for item, answer in zip(run.data.items, run.answers, strict=True):
            if not answer.scores:
                continue
            line = {
                "guard": run.contender.name,
                "set": run.data.name,
                "id": item.id,
                "score": answer.score(heads[0]),
                "scores": {label: round(value, 6) for label, value in answer.scores.items()},
                "flagged": {head.value: point.flags(answer, head) for head in Head},
            }
            yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def as_json(document: Document) -> bytes:
    """A document as people can read it too, with a newline at its end."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
