"""`report.html`: one file without scripts, links or fonts from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtest import charts, table
from loadtest.histogram import Latencies
from loadtest.series import Heat, Row

_TEMPLATES: Final = Path(__file__).with_name("templates")
_STAGES: Final = {
    "late": "produce lateness",
    "to_worker": "in Kafka, batch wait",
    "judge": "judge",
    "conclude": "conclude",
    "deliver": "publish, read",
}
_ENOUGH_BEYOND: Final = 10
"""A percentile is drawn only where so many messages lie beyond it."""


def render(
    summary: Mapping[str, Any],
    rows: Sequence[Row],
    latencies: Mapping[str, Latencies],
    heat: Heat | None,
) -> str:
    """The page of one run."""
    return _page(
        "report.html.j2",
        summary=summary,
        table=table,
        figures=list(_figures(summary, rows, latencies, heat)),
    )


def render_sweep(sweep: Mapping[str, Any]) -> str:
    """The page of a sweep."""
    measured = [step for step in sweep["steps"] if step["p95_ms"] is not None]
    rates = [step["rate_per_s"] for step in measured]
    series = {name: [step[f"{name}_ms"] for step in measured] for name in ("p50", "p95", "p99")}
    drawing = charts.points("Latency against rate", rates, series, limit_ms=sweep["limit_p95_ms"])
    return _page("sweep.html.j2", sweep=sweep, table=table, drawing=Markup(drawing))  # noqa: S704


def _figures(
    summary: Mapping[str, Any],
    rows: Sequence[Row],
    latencies: Mapping[str, Latencies],
    heat: Heat | None,
) -> Any:
    """Title, remark and drawing of each chart; drawings are our own, so they are safe."""
    for title, remark, drawing in (
        _throughput(rows),
        _behind(rows),
        _percentiles(latencies),
        _stages(summary),
        _over_time(heat),
        _processor(rows, summary),
        _triton(rows),
    ):
        if drawing:
            yield title, remark, Markup(drawing)  # noqa: S704


def _throughput(rows: Sequence[Row]) -> tuple[str, str, str]:
    title = "Throughput over time"
    shown = {"scheduled": "scheduled", "sent": "sent", "verdicts": "verdicts"}
    if any(row["dead_letters"] for row in rows):
        shown["dead_letters"] = "dead letters"
    return (
        title,
        "Where sent leaves scheduled, the generator was late.",
        charts.lines(title, rows, shown, unit="per second"),
    )


def _behind(rows: Sequence[Row]) -> tuple[str, str, str]:
    title = "Lag over time"
    shown = {"backlog": "sent, no outcome seen yet", "lag": "consumer lag, by commits"}
    return (
        title,
        "Commits come every half second, so the lag is never quite zero.",
        charts.lines(title, rows, shown, unit="messages"),
    )


def _percentiles(latencies: Mapping[str, Latencies]) -> tuple[str, str, str]:
    title = "End to end, by percentile"
    made, naive = latencies["end_to_end"], latencies["naive"]
    if not made.count:
        return title, "", ""
    limit = 100 - 100 * _ENOUGH_BEYOND / max(made.count, _ENOUGH_BEYOND * 2)
    remark = f"Drawn up to {limit:.4g} %: fewer than {_ENOUGH_BEYOND} messages lie beyond."
    return title, remark, charts.percentiles(title, made, naive, limit)


def _stages(summary: Mapping[str, Any]) -> tuple[str, str, str]:
    title = "Where the time goes"
    stages = summary["stages_ms"]
    if not stages:
        return title, "", ""
    whole_ms = table.milliseconds(sum(stages.values()))
    remark = f"Means of scored messages after the warm-up; end to end they took {whole_ms} ms."
    means = {label: stages[name] for name, label in _STAGES.items() if name in stages}
    return title, remark, charts.bars(title, means)


def _over_time(heat: Heat | None) -> tuple[str, str, str]:
    title = "Latency over time"
    remark = "Each cell counts messages; stronger is more, on a log scale."
    return title, remark, charts.heat_map(title, heat) if heat is not None else ""


def _processor(rows: Sequence[Row], summary: Mapping[str, Any]) -> tuple[str, str, str]:
    title = "Processor over time"
    shown = {f"cpu_{name}": name for name in summary["usage"]}
    known = any(row.get(column) is not None for row in rows for column in shown)
    cores = summary["environment"].get("cores")
    drawing = charts.lines(title, rows, shown, unit="cores") if known else ""
    return title, f"The machine has {cores} cores; children are counted with a process.", drawing


def _triton(rows: Sequence[Row]) -> tuple[str, str, str]:
    title = "Triton over time"
    shown = {"triton_queue_ms": "queue", "triton_compute_ms": "compute"}
    known = any(row.get(column) is not None for row in rows for column in shown)
    drawing = charts.lines(title, rows, shown, unit="ms a request") if known else ""
    return title, "Means a request, from Triton's own statistics.", drawing


def _page(name: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
