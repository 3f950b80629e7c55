"""`sluice demo`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter, deque
from typing import Annotated, Self

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline import demo as service
from pipeline import settings
from pipeline.cli import console, session, tables
from pipeline.cli.up import explain
from pipeline.embedded.scratch import scratch
from pipeline.embedded.stack import EmbeddedStack
from pipeline.events import Action, Verdict
from pipeline.reconcile import Reconciliation
from pipeline.taxonomy import name_of

_ROWS = 14


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the stack running afterwards, until Ctrl-C.")
    ] = False,
) -> None:
    """Run the main job on real parts and reconcile: every input, one outcome.

    Starts Apache Kafka and Triton Inference Server on loopback and a worker,
    times single messages on the idle stack, publishes the sample traffic,
    shows the verdicts, reconciles, and shuts all of it down.
    """
    session.quiet()
    session.run(_demo(keep=keep))


async def _demo(*, keep: bool) -> None:
    began_s = time.monotonic()
    with scratch(settings.home() / "demo", prefix="run-", say=console.note) as data:
        stack = EmbeddedStack(
            settings.load(),
            home=settings.home(),
            data=data,
            environ=os.environ,
            say=console.note,
            prefer_ports=keep,
        )
        async with stack:
            await stack.start_worker()
            console.note(f"up after {time.monotonic() - began_s:.1f} s\n")
            await _show(settings.load(stack.overrides()))
            if keep:
                explain(stack)
                await stack.ended()
            console.note("shutting down")


async def _show(at: settings.Settings) -> None:
    _show_idle(await service.idle(at))
    with Screen() as screen:
        report = await service.traffic(at, screen)
    show_balance(report)
    if error := service.problem(report):
        raise error


def _show_idle(idle: service.Idle) -> None:
    worst_ms = max(idle.rounds) * 1000
    console.note(
        f"idle to verdict, one short message at a time: median {idle.median_s * 1000:.0f} ms,"
        f" worst {worst_ms:.0f} ms of {len(idle.rounds)}\n"
    )


class Screen:
    """A live table of verdicts on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self._recent: deque[Verdict] = deque(maxlen=_ROWS)
        self._actions: Counter[Action] = Counter()
        self._expected = 0
        self._began_s = time.monotonic()
        self._live = Live(console=console.out, refresh_per_second=8, transient=False)
        self._tty = console.out.is_terminal

    def __enter__(self) -> Self:
        """Take the terminal, if there is one."""
        if self._tty:
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state of the table on the terminal."""
        if self._tty:
            self._live.update(self._table())
            with contextlib.suppress(OSError):  # its window was closed, which ends the demo
                self._live.__exit__(None, None, None)
        else:
            console.out.print(self._table())

    def say(self, line: str) -> None:
        """A remark between the steps."""
        console.note(line)

    def expect(self, messages: int) -> None:
        """So many sample messages are on their way."""
        self._expected = messages

    def verdict(self, verdict: Verdict) -> None:
        """Show a verdict."""
        self._recent.append(verdict)
        self._actions[verdict.action] += 1
        if self._tty:
            self._live.update(self._table())
        elif self._actions.total() % 100 == 0:
            console.note(self._progress())

    def _progress(self) -> str:
        counts = ", ".join(f"{n} {action.value}" for action, n in sorted(self._actions.items()))
        seconds = time.monotonic() - self._began_s
        return f"{self._actions.total()} verdicts in {seconds:.1f} s ({counts})"

    def _table(self) -> Table:
        table = Table(
            title="verdicts as they arrive",
            caption=f"{self._progress()}; {self._expected} messages published",
            title_justify="left",
            caption_justify="left",
            expand=sys.stdout.isatty(),
        )
        for heading, width in (("message", 14), ("kind", 10), ("tenant", 6), ("action", 6)):
            table.add_column(heading, no_wrap=True, min_width=width)
        table.add_column("why", no_wrap=True)
        for verdict in self._recent:
            table.add_row(
                verdict.message_id,
                verdict.kind.value,
                verdict.tenant or "-",
                Text(verdict.action.value, style=console.STYLE[verdict.action]),
                _why(verdict),
            )
        return table


def _why(verdict: Verdict) -> str:
    if not verdict.flagged:
        return verdict.reason
    top = verdict.flagged[0]
    rest = f", and {len(verdict.flagged) - 1} more" if len(verdict.flagged) > 1 else ""
    return f"{name_of(top.category)} {top.score:.2f} >= {top.threshold:g}{rest}"


def show_balance(report: Reconciliation) -> None:
    """The closing reconciliation, by topic and partition."""
    counts = ("inputs", "verdicts", "dead_letters", "missing", "repeats")
    numbers = [heading.replace("_", " ") for heading in ("partition", *counts)]
    table = tables.table(["topic", *numbers], right=numbers)
    console.out.print("\npublished = verdicts + dead letters")
    for part in report.partitions:
        values = [str(getattr(part, name)) for name in counts]
        table.add_row(part.topic, str(part.partition), *values)
    table.add_section()
    table.add_row("all", "", *(str(report.total(name)) for name in counts), style="bold")
    tables.show(table)
    word = "balanced: every input has exactly one outcome" if report.balanced else "NOT balanced"
    console.out.print(f"[{'green' if report.balanced else 'bold red'}]{word}[/]")
