"""A run as one document: what `summary.json` holds and reports are made from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from loadtest import figures
from loadtest.figures import Taken
from loadtest.thresholds import Checked, check
from loadtest.workload import Workload

FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Which run it was: names, times in UTC as ISO 8601, parts that judged."""

    run: str
    name: str
    target: str
    began_at: str
    environment: Mapping[str, Any]
    policies: tuple[tuple[str, str, str], ...]
    guards: tuple[tuple[str, str, str], ...]


def summarise(taken: Taken, about: About) -> dict[str, Any]:
    """The document; its `passed` is false when a threshold is breached or the run invalid."""
    rows = {name: made.summary_ms() for name, made in figures.latencies(taken).items()}
    counts, pace = figures.counts(taken), figures.pace(taken)
    extremes = {
        "lag_max": figures.lag_max(taken),
        "backlog_max": figures.backlog_max(taken),
    }
    values: dict[str, float | None] = {**counts, **pace, **extremes, **figures.statistics(rows)}
    checked = check(taken.workload.limits, values)
    invalid = figures.reasons(taken)
    return {
        "format": FORMAT,
        **_about(taken.workload, about),
        "valid": not invalid,
        "interrupted": taken.interrupted,
        "invalid_because": invalid,
        "warnings": figures.warnings(taken),
        "passed": not invalid and all(each.holds for each in checked),
        "thresholds": [_threshold(each) for each in checked],
        "counts": counts,
        "pace": pace,
        **extremes,
        "rows_ms": rows,
        "stages_ms": figures.stages(taken),
        "inside_ms": figures.inside(taken),
        "triton": figures.triton_load(taken),
        "recalled_share": figures.recalled_share(taken),
        "usage": figures.usage(taken),
        "blocks": figures.blocks(taken),
    }


def _about(workload: Workload, about: About) -> dict[str, Any]:
    document = asdict(about)
    for name in ("policies", "guards"):
        document[name] = [
            dict(zip(("name", "version", "digest"), part, strict=True)) for part in document[name]
        ]
    document["workload"] = {"digest": workload.digest, **workload.model_dump(mode="json")}
    return document


def _threshold(checked: Checked) -> dict[str, Any]:
    limit = checked.threshold
    unit = "%" if limit.share else ("ms" if limit.name.endswith("_ms") else "")
    return {
        "text": limit.text,
        "name": limit.name,
        "value": checked.value,
        "unit": unit,
        "holds": checked.holds,
    }
