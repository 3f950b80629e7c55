"""The closing tables as rows of text, for a terminal and for the report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

COLUMNS: Final = ("avg", "min", "p50", "p75", "p90", "p95", "p99", "max")
ROWS: Final = {
    "end_to_end": "end to end, from the intended send time",
    "naive": "end to end, naive: from the actual send",
    "added": "end to end, less its own guard call",
    "late": "1 produce lateness",
    "ack": "  produce to acknowledgement",
    "to_worker": "2 in Kafka, and batch wait",
    "judge": "3 judge: tokenise, call the guard, score",
    "conclude": "4 conclude",
    "deliver": "5 publish and read the verdict",
}
INSIDE: Final = {
    "worker_wait": ("to_worker", "  batch wait, oldest of a batch"),
    "worker_tokenise": ("judge", "  tokenise, a batch"),
    "worker_infer": ("judge", "  guard call"),
    "triton_queue": ("judge", "    Triton queue"),
    "triton_compute": ("judge", "    Triton compute"),
    "worker_publish": ("deliver", "  publish to acknowledgement, a batch"),
}
"""Parts that worker and Triton report themselves, and the row they belong under."""

_ASKED_FOR: Final = frozenset({"added"})
"""Rows that only some workloads have."""

ESTIMATED: Final = "~ from a histogram's buckets or a mean; not a message's own"


def latency_rows(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """Row name and milliseconds per column; `-` where there is no figure."""
    for name, title in ROWS.items():
        if name in _ASKED_FOR and name not in summary["rows_ms"]:
            continue
        yield [title, *_cells(summary["rows_ms"].get(name), "")]
        for inner, (under, label) in INSIDE.items():
            if under == name and inner in summary["inside_ms"]:
                yield [label, *_cells(summary["inside_ms"][inner], "~")]


def threshold_rows(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """A mark, the threshold, and what was measured."""
    for each in summary["thresholds"]:
        value = "nothing measured" if each["value"] is None else number(each["value"])
        unit = f" {each['unit']}" if each["unit"] and each["value"] is not None else ""
        yield ["ok" if each["holds"] else "BREACHED", each["text"], f"{value}{unit}"]


def count_rows(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """Counts with their names, zero or not: a zero is an answer."""
    for name, value in summary["counts"].items():
        yield [name.replace("_", " "), f"{value:,}"]


def usage_rows(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """Process, cores, CPU microseconds a message, peak memory in MiB."""
    for name, used in summary["usage"].items():
        yield [
            name,
            f"{used['cpu_cores']:.2f}",
            f"{used['cpu_us_per_message']:,.0f}",
            f"{used['rss_max_mib']:,.0f}",
        ]


def headline(summary: Mapping[str, Any]) -> str:
    """The run in one line."""
    pace, counts = summary["pace"], summary["counts"]
    return (
        f"{counts['sent']:,} sent at {pace['offered_per_s']:,.1f} per second offered,"
        f" {pace['throughput_per_s']:,.1f} per second answered, lag at most"
        f" {'unknown' if summary['lag_max'] is None else format(summary['lag_max'], ',')},"
        f" backlog at most {summary['backlog_max']:,}"
    )


def state(summary: Mapping[str, Any]) -> str:
    """PASSED, BREACHED or INVALID; an invalid run is neither of the others."""
    if not summary["valid"]:
        return "INVALID"
    return "PASSED" if summary["passed"] else "BREACHED"


def number(value: float) -> str:
    """A figure with digits as its size deserves."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _cells(spread: Mapping[str, float] | None, mark: str) -> list[str]:
    spread = spread or {}
    return [f"{mark}{milliseconds(spread[name])}" if name in spread else "-" for name in COLUMNS]


def share(value: float | None) -> str:
    """A share as a percentage; `-` where it is not known."""
    return "-" if value is None else f"{value:.0%}"


def milliseconds(value: float) -> str:
    """Milliseconds: tenths below a hundred, grouped above."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
