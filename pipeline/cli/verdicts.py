"""`sluice verdicts`: read verdicts, or follow them as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from pipeline import codec
from pipeline.cli import console, progress, rows, session
from pipeline.cli.exits import Exit
from pipeline.client import Client
from pipeline.dedupe import Deduplicator
from pipeline.errors import Misconfigured
from pipeline.events import Action, Kind, Status, Verdict
from pipeline.ranges import Edge, Range, parse_range

_SORTED_UP_TO: Final = 10_000
"""So many rows are put in order of time before they are shown; more stream as read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which verdicts are wanted; an empty choice takes all."""

    actions: frozenset[Action] = frozenset()
    statuses: frozenset[Status] = frozenset()
    categories: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    kind: Kind | None = None
    ids: frozenset[str] = frozenset()

    def takes(self, verdict: Verdict) -> bool:
        """Whether a verdict passes every choice; categories are upper- or lower-case."""
        crossed = {flagged.category.casefold() for flagged in verdict.flagged}
        return (
            (not self.actions or verdict.action in self.actions)
            and (not self.statuses or verdict.status in self.statuses)
            and (not self.categories or not crossed.isdisjoint(self.categories))
            and (not self.tenants or verdict.tenant in self.tenants)
            and (self.kind is None or verdict.kind is self.kind)
            and (not self.ids or not self.ids.isdisjoint({verdict.message_id, verdict.verdict_id}))
        )


def verdicts(
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl-C.")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", help="From this time on: -1h, 2026-11-23, RFC 3339.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Before this time; 1h is an hour after --from.")
    ] = None,
    action: Annotated[list[Action] | None, typer.Option(help="Only these actions.")] = None,
    status: Annotated[list[Status] | None, typer.Option(help="Only these statuses.")] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="Only where one of these crossed: S1, injection.")
    ] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only these tenants.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only prompts or completions.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="Only these message or verdict ids.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one document a line.")
    ] = False,
) -> None:
    """Show verdicts, each once: repeats of a redelivery are dropped and counted.

    Without --follow it shows what there is now, and exits with 4 where there
    is nothing. With --follow it begins with the next verdict, or at --from.
    Records that cannot be read as verdicts are passed over and counted at the end.
    Times are those of Kafka: start, end, -1h30m, 2026-11-23,
    2026-11-23T10:15:00Z, or Unix time in 10 or 13 digits.

    Examples:
      sluice verdicts -f --action block
      sluice verdicts --from -1h --category S1 --json
    """
    wanted = Filter(
        actions=frozenset(action or ()),
        statuses=frozenset(status or ()),
        categories=frozenset(code.casefold() for code in category or ()),
        tenants=frozenset(tenant or ()),
        kind=kind,
        ids=frozenset(id or ()),
    )
    if follow and end is not None:
        raise Misconfigured("--to does not go with --follow", remedy="Leave one out")
    span = parse_range(start, end, now=datetime.now(UTC))
    settings = session.begin()
    dedupe = Deduplicator()
    show = Shown(as_json=as_json, limit=limit, in_order=not follow)
    client = Client(settings, watch=False)
    if follow:
        first = Range(start=Edge.END if start is None else span.start)
        session.run(_followed(client.verdicts(first, follow=True, dedupe=dedupe), wanted, show))
    else:
        session.run(_shown(client.verdicts(span, dedupe=dedupe), wanted, show))
    show.finish()
    _report(show.count, repeats=dedupe.repeats, passed_over=client.passed_over)
    if not show.count and not follow:
        raise typer.Exit(Exit.EMPTY)


def _report(count: int, *, repeats: int, passed_over: int) -> None:
    word = "verdict" if count == 1 else "verdicts"
    console.note(f"{count:,} {word}, {repeats:,} repeats dropped")
    if passed_over:
        records = "record" if passed_over == 1 else "records"
        console.note(
            f"{passed_over:,} {records} passed over: no verdict, or of a schema that is not known;"
            " is registry.url the worker's?"
        )


class Shown:
    """Prints verdicts; rows of a bounded range in order of time, while they are few."""

    def __init__(self, *, as_json: bool, limit: int | None, in_order: bool) -> None:
        self.count = 0
        self._limit = limit
        self._print: Callable[[Verdict], None] = _print_json if as_json else _print_row
        self._held: list[Verdict] | None = [] if in_order and not as_json else None
        self._headed = as_json

    @property
    def full(self) -> bool:
        """Whether as many were shown as were asked for."""
        return self._limit is not None and self.count >= self._limit

    def add(self, verdict: Verdict) -> None:
        """Show one, or hold it until `finish`."""
        self.count += 1
        if self._held is None:
            self._show(verdict)
            return
        self._held.append(verdict)
        if len(self._held) > _SORTED_UP_TO:
            self.finish()

    def finish(self) -> None:
        """Show what is held, earliest first."""
        for verdict in sorted(self._held or (), key=lambda found: found.emitted_at):
            self._show(verdict)
        self._held = None

    def _show(self, verdict: Verdict) -> None:
        if not self._headed:
            console.out.print(rows.heading())
            self._headed = True
        self._print(verdict)


async def _followed(found: AsyncIterator[Verdict], wanted: Filter, show: Shown) -> None:
    """Show until Ctrl-C, which is how following ends in order, or the limit."""
    showing = asyncio.ensure_future(_shown(found, wanted, show))
    with progress.stopping(lambda: _cancel(showing)):
        await asyncio.wait([showing])
    if not showing.cancelled():
        showing.result()


def _cancel(showing: asyncio.Future[None]) -> None:
    showing.cancel()


async def _shown(found: AsyncIterator[Verdict], wanted: Filter, show: Shown) -> None:
    async with aclosing(found) as stream:  # type: ignore[type-var]
        async for verdict in stream:
            if wanted.takes(verdict):
                show.add(verdict)
            if show.full:
                return


def _print_json(verdict: Verdict) -> None:
    console.print_json(codec.as_json(verdict))


def _print_row(verdict: Verdict) -> None:
    console.out.print(rows.verdict(verdict))
