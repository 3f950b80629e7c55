"""What `sluice loadtest` shows of runs, sweeps, comparisons and plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pipeline.cli import console, tables

_P: Final = ("p50", "p95", "p99")


def show_run(summary: dict[str, Any]) -> None:
    """The state and thresholds first, then counts, latencies and processes."""
    from loadtest import table

    state = table.state(summary)
    colour = "green" if state == "PASSED" else "bold red"
    console.out.print(f"[{colour}]{state}[/] {summary['name']}: {summary['workload']['question']}")
    for reason in summary["invalid_because"]:
        console.out.print(f"  invalid: {reason}")
    for mark, text, value in table.threshold_rows(summary):
        console.out.print(
            f"  [{'green' if mark == 'ok' else 'bold red'}]{mark:<8}[/] {text:<24} {value}"
        )
    for warning in summary["warnings"]:
        console.out.print(f"  warning: {warning}")
    console.out.print(f"\n{table.headline(summary)}")
    counts = ", ".join(f"{value} {name}" for name, value in table.count_rows(summary))
    console.out.print(f"{counts}\n")
    _print("milliseconds", table.COLUMNS, table.latency_rows(summary))
    console.out.print(f"{table.ESTIMATED}\n")
    if summary["usage"]:
        heads = ("cores", "CPU µs a message", "peak MiB")
        _print("process", heads, table.usage_rows(summary))


def _print(first: str, heads: tuple[str, ...], rows: Any) -> None:
    shown = tables.table([first, *heads], right=heads)
    for row in rows:
        shown.add_row(*row)
    tables.show(shown)


def show_sweep(folder: Path) -> dict[str, Any]:
    """A row a step, then the knee and what limits there; returns the sweep's document."""
    from loadtest import sweeping, table

    found = sweeping.read(folder)
    heads = ("answered/s", "p50 ms", "p95 ms", "p99 ms", "backlog", "no guard call")
    shown = tables.table(["offered/s", *heads, "state"], right=["offered/s", *heads])
    for step in found["steps"]:
        latency = ["-" if (v := step[f"{p}_ms"]) is None else table.milliseconds(v) for p in _P]
        shown.add_row(
            table.number(step["rate_per_s"]),
            table.number(round(step["throughput_per_s"], 1)),
            *latency,
            table.number(step["backlog_max"]),
            table.share(step.get("recalled_share")),
            step["state"],
        )
    tables.show(shown)
    console.out.print(f"{found['knee']['text']}\n{found['knee']['limit']}")
    console.note(f"\nreport: {folder / 'report.html'}")
    return found


def show_differences(found: Any, doubts: list[str]) -> None:
    """A row a figure, with its noise; doubts go to stderr."""
    from loadtest.table import number

    for doubt in doubts:
        console.note(f"take care: {doubt}")
    heads = ("first", "second", "change", "noise")
    shown = tables.table(["figure", *heads, ""], right=heads)
    for each in found:
        figures = (each.before, each.after, each.change, each.bound)
        style = "bold red" if each.word == "worse" else ""
        shown.add_row(each.name, *(number(round(v, 3)) for v in figures), each.word, style=style)
    tables.show(shown)


def show_plan(made: Any) -> None:
    """How many of each part, then the model and its uncertainty."""
    shown = tables.table(["part", "likely", "range"], right=["likely", "range"])
    rows = (
        ("partitions of each input topic", made.partitions),
        ("workers", made.workers),
        ("Triton replicas", made.triton_replicas),
    )
    for name, need in rows:
        shown.add_row(name, f"{need.likely:,}", f"{need.low:,} to {need.high:,}")
    console.out.print(f"{made.rate_per_s:,g} messages per second, p95 within {made.p95_ms:g} ms")
    tables.show(shown)
    say: Callable[[str], None] = console.out.print
    say("\nModel: replicas = rate * cost / utilisation; p95 = base + k * u / (1 - u)")
    say(f"  worker {_cost(made.worker)}; Triton {_cost(made.triton)}")
    say(
        f"  utilisation {made.utilisation:.2f} (at most 0.80), base {made.base_ms:,.0f} ms,"
        f" k {made.slope_ms:,.1f} ms"
    )
    for remark in made.remarks:
        say(f"  {remark}")
    say("  not in the model: the broker's limits, the network, skewed keys, other processors")


def _cost(cost: Any) -> str:
    return f"{1e6 * cost.seconds:,.0f} µs a message ± {100 * cost.spread:.0f} %"
