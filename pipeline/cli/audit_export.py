"""`sluice audit export`: audit events as Parquet or JSON lines."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline import audit_check, audit_export, audit_log, schema_ids, wiring
from pipeline.adapters.kafka_admin import open_reader
from pipeline.audit_export import BROKEN, Tally, Texts
from pipeline.cli import console, progress, session
from pipeline.cli.exits import Exit
from pipeline.events import Action, Kind, Status
from pipeline.export_file import Sink, written
from pipeline.ranges import Range, parse_range
from pipeline.selection import Selection, parse_share
from pipeline.settings import Settings
from pipeline.taxonomy import spelt


class _Empty(Exception):
    """Nothing was selected: the file must not appear."""


def export(
    *,
    out: Annotated[
        Path, typer.Option("--out", help="The file to write: .parquet or .jsonl.", metavar="FILE")
    ],
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
    kind: Annotated[list[Kind] | None, typer.Option(help="Only prompts or completions.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="Only these message or verdict ids.")] = None,
    sample: Annotated[
        str, typer.Option(help="A share of them, the same each time: 1% or 0.01.")
    ] = "1",
    seed: Annotated[int, typer.Option(help="Another seed draws another sample.")] = 0,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Export kept texts as well, sealed ones opened.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write audit events to a file, one row an event, by partition and offset.

    The bounds are fixed at the start. A repeat of a redelivery is a row of
    its own with the same verdict_id. The file appears when it is complete.
    Exits with 4, without a file, where nothing was selected.

    Example: sluice audit export --out today.parquet --from -24h --action block
    """
    span = parse_range(start, end, now=datetime.now(UTC))
    selection = Selection(
        tenants=frozenset(tenant or ()),
        kinds=frozenset(kind or ()),
        actions=frozenset(action or ()),
        statuses=frozenset(status or ()),
        categories=spelt(category or ()),
        ids=frozenset(id or ()),
        sample=parse_share(sample),
        seed=seed,
    )
    settings = session.begin()
    texts = Texts(opener=wiring.open_keys(settings)) if show_text else None
    tally = Tally()
    try:
        with written(out, force=force, private=show_text) as sink:
            session.run(_export(settings, span, selection, sink, tally=tally, texts=texts))
            if not tally.rows:
                raise _Empty
    except _Empty:
        hint = audit_check.hint(tally.passed.records, tally.passed.unreadable)
        try_this = hint or "see --from, --to and the filters"
        console.error(f"nothing was selected: {_read(tally)}; {try_this}")
        raise typer.Exit(Exit.EMPTY) from None
    _report(out, tally, as_json=as_json)


async def _export(
    settings: Settings,
    span: Range,
    selection: Selection,
    sink: Sink,
    *,
    tally: Tally,
    texts: Texts | None,
) -> None:
    topic, began_s = settings.topics.audit, time.monotonic()
    schemas = wiring.load_schemas()
    await schema_ids.adopt(schemas, settings)
    async with open_reader(settings.kafka) as reader:
        slices = await audit_log.slices_within(reader, topic, span)
        with progress.shown(lambda: _progress(tally, time.monotonic() - began_s)):
            await audit_export.export(
                reader,
                topic,
                slices,
                schemas,
                selection=selection,
                sink=sink,
                tally=tally,
                texts=texts,
            )


def _progress(tally: Tally, elapsed_s: float) -> str:
    done, rate = tally.passed.records, tally.passed.records / max(elapsed_s, 0.001)
    left_s = (tally.total - done) / rate if rate else 0.0
    return (
        f"{done:,} of {tally.total:,} records, {tally.rows:,} rows, {rate:,.0f}/s,"
        f" {left_s:,.0f} s left"
    )


def _read(tally: Tally) -> str:
    word = "record" if tally.passed.records == 1 else "records"
    return f"{tally.passed.records:,} {word} read"


def _report(out: Path, tally: Tally, *, as_json: bool) -> None:
    size_bytes = out.stat().st_size
    if as_json:
        console.print_json(
            {
                "file": str(out),
                "size_bytes": size_bytes,
                "rows": tally.rows,
                "records": tally.passed.records,
                "unreadable": tally.passed.unreadable,
                "actions": dict(tally.actions),
                "statuses": dict(tally.statuses),
                "texts": dict(tally.texts),
            }
        )
    else:
        word = "row" if tally.rows == 1 else "rows"
        console.out.print(f"{out}: {tally.rows:,} {word}, {size_bytes:,} bytes", markup=False)
        console.note(f"  {_read(tally)}, {tally.passed.unreadable:,} unreadable")
        for name in ("actions", "statuses", "texts"):
            if counts := getattr(tally, name):
                console.note(f"  {name}: {_counted(counts)}")
    if tally.texts[BROKEN]:
        console.note("  broken seals: the log was changed; `sluice audit verify` finds where")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
