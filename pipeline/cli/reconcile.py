"""`sluice reconcile`: every input against its outcome."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.table import Table

from pipeline.cli import console, session, tables
from pipeline.cli.exits import Exit
from pipeline.counting import Counting
from pipeline.ranges import Bound, parse_range
from pipeline.reconcile import Balance, Reconciliation, as_json
from pipeline.settings import Settings

_COUNTS: Final = ("inputs", "verdicts", "dead_letters", "missing", "both", "repeats")


def reconcile(
    start: Annotated[
        str | None, typer.Option("--from", help="Only inputs from this time on: -1h, 2026-11-23.")
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for outcomes to come.")
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check that every input has exactly one outcome: a verdict or a dead letter.

    Inputs are those that the topics hold when it starts. Exits with 0 when
    they balance, else with 1: missing inputs have no outcome (yet), both have
    a verdict and a dead letter. Repeats of a redelivery do no harm: consumers
    drop them by verdict id.
    """
    first = parse_range(start, None, now=datetime.now(UTC)).start
    report, unreadable = session.run(_counted(session.begin(), first, wait_s))
    if json:
        console.print_json({**as_json(report), "unreadable": unreadable})
    else:
        show(report, unreadable=unreadable)
    raise typer.Exit(Exit.OK if report.balanced else Exit.FAILURE)


async def _counted(settings: Settings, start: Bound, wait_s: float) -> tuple[Reconciliation, int]:
    async with Counting.open(settings, start) as counting:
        report = await counting.settled(within_s=wait_s)
        return report, counting.unreadable


def show(report: Reconciliation, *, unreadable: int = 0) -> None:
    """Print the balance by topic and partition, then what does not balance."""
    tables.show(_table(report))
    for part in report.partitions:
        _show_offsets(part, "missing", part.missing_examples, part.missing)
        _show_offsets(part, "both", part.both_examples, part.both)
    if report.outside:
        console.note(f"{report.outside:,} outcomes belong to inputs outside these bounds")
    if unreadable:
        console.note(f"{unreadable:,} records are neither verdict nor dead letter")
    if report.balanced:
        console.out.print("[green]balanced[/]: every input has exactly one outcome")
    else:
        console.out.print("[bold red]not balanced[/]: see missing and both")


def _table(report: Reconciliation) -> Table:
    numbers = ["partition", *(name.replace("_", " ") for name in _COUNTS)]
    table = tables.table(["topic", *numbers], right=numbers)
    for part in report.partitions:
        values = (f"{getattr(part, name):,}" for name in _COUNTS)
        table.add_row(part.topic, str(part.partition), *values)
    table.add_section()
    table.add_row("all", "", *(f"{report.total(name):,}" for name in _COUNTS), style="bold")
    return table


def _show_offsets(part: Balance, what: str, offsets: tuple[int, ...], count: int) -> None:
    if count:
        listed = ", ".join(f"{part.topic}:{part.partition}:{offset}" for offset in offsets)
        more = f" and {count - len(offsets):,} more" if count > len(offsets) else ""
        console.note(f"{what}: {listed}{more}")
