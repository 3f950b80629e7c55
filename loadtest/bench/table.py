"""The benchmark's report as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from loadtest.bench.session import Report

BUSY_SHARE: Final = 0.25
"""Load average before the run, as a share of the cores, from which figures are doubtful."""

_HEAD: Final = ("", "CPU", "tokenise", "net", "laps' range", "/ sluice", "messages/s")


def lines(report: Report) -> Iterator[str]:
    """Machine, table, targets and what is missing."""
    yield _machine(report.environment)
    if warning := busy(report.environment):
        yield warning
    yield (
        f"{report.plan.messages:,} messages of {report.value_bytes} bytes, medians of the laps of"
        f" {report.plan.rounds} rounds; microseconds of CPU a message"
    )
    yield ""
    yield from _aligned([_HEAD, *_rows(report)])
    yield ""
    for goal in report.goals:
        yield f"{'met   ' if goal.met else 'MISSED'}  {goal.text}: {goal.value:.1f}"
    for name, why in report.absent.items():
        yield f"left out: {name} ({why})"


def busy(machine: dict[str, Any]) -> str | None:
    """A warning when the machine had other work before the run; None otherwise."""
    load, cores = machine["load_average"][0], machine["cores"]
    if load < BUSY_SHARE * cores:
        return None
    return (
        f"WARNING: the machine was busy (load average {load:g} on {cores} cores):"
        " trust the ratios, not the microseconds"
    )


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, load average"
        f" {machine['load_average'][0]:g}; Python {machine['python']}, whose loop of reference"
        f" takes {machine['python_loop_ms']:g} ms; {versions}"
    )


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    standings, over = report.standings, report.over_sluice
    for name, title in report.titles.items():
        standing = standings.get(name)
        if standing is None:
            yield (title, "too short to measure", *("-" for _ in _HEAD[2:]))
            continue
        low, high = standing.spread_us
        yield (
            title,
            f"{standing.cpu_us:.1f}",
            f"-{standing.tokenise_us:.1f}",
            f"{standing.net_us:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{over[name]:.2f}" if name in over else "-",
            f"{standing.per_s:,.0f}",
        )


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()
