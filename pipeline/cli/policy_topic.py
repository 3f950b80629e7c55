"""`sluice policy publish`, `activate`, `history`, `get`: the policies topic."""

from __future__ import annotations

import os
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline import wiring, wiring_policy
from pipeline.cli import console, session, tables
from pipeline.cli.exits import Exit
from pipeline.policy_history import History, Placed, RecordKind

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one document a line.")]
Note = Annotated[str | None, typer.Option("--note", help="Why, for whoever reads the history.")]
Digest = Annotated[
    str, typer.Argument(help="A digest, or its first hex digits (six or more).", metavar="DIGEST")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `sluice policy`."""
    for command in (publish, activate, history, get):
        app.command()(command)


def publish(
    file: Annotated[Path, typer.Argument(help="The policy file.", metavar="FILE")],
    *,
    note: Note = None,
    inactive: Annotated[
        bool, typer.Option("--inactive", help="Keep it in the history; do not put it in force.")
    ] = False,
) -> None:
    """Publish a policy; every worker that follows the topic switches to it.

    Example: sluice policy publish acme-8.toml --note "S12 for kids"
    """
    settings = session.begin(session.with_policy(file))
    policy = wiring.load_policy(settings)
    wiring.check_policy(policy, wiring.load_guards(settings.guards))
    if not inactive:
        wiring.require_key_folder(policy, settings)
    record = session.run(wiring_policy.publish(settings, note=note, activate=not inactive))
    state = "kept" if inactive else "in force"
    console.out.print(Text(f"{state}  {record.id} version {record.version} {record.digest}"))


def activate(digest: Digest, *, note: Note = None) -> None:
    """Put a policy in force that was published before: the way back.

    Example: sluice policy activate 3f2a91
    """
    found = session.run(wiring_policy.activate(session.begin(), digest, note=note))
    record = found.record
    console.out.print(Text(f"in force  {record.id} version {record.version} {record.digest}"))


def history(as_json: Json = False) -> None:
    """List what the topic holds: policies, guards' cards, and since when which is in force."""
    found, refused = session.run(wiring_policy.history(session.begin()))
    placed = found.placed
    if as_json:
        for each in placed:
            console.print_json(_document(each, found))
    elif placed:
        tables.show(_table(placed, found))
    else:
        console.note("the topic is empty: a worker publishes its policy when it starts")
    for offset, why in refused:
        console.note(f"refused at offset {offset}: {why}")
    if not placed:
        raise typer.Exit(Exit.EMPTY)


def get(digest: Digest) -> None:
    """Print a policy or a guard's card as it was published.

    Example: sluice policy get 3f2a91 > policy-of-that-day.toml
    """
    found, _ = session.run(wiring_policy.history(session.begin()))
    # As it is: a terminal's width or markup must not change what a digest was taken of.
    os.write(1, (found.find(digest).record.document or "").encode())


def _table(placed: list[Placed], found: History) -> Table:
    """One row a record; a narrow terminal leaves out who and why."""
    headings = ["offset", "at (UTC)", "record", "id", "version", "digest", "by", "note"]
    shown = headings[:-2] if tables.narrow() else headings
    table = tables.table(shown, right=("offset",))
    for each in placed:
        table.add_row(*_cells(each, found)[: len(shown)])
    return table


def _cells(placed: Placed, found: History) -> list[Text]:
    record = placed.record
    now = found.active is not None and found.active.offset == placed.offset
    label = "in force" if now else record.record.value.replace("_", " ")
    when = record.published_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    known = record.record is RecordKind.ACTIVATION or now
    return [
        Text(f"{placed.offset:,}"),
        Text(when),
        Text(label, style="bold green" if now else "bold" if known else ""),
        Text(record.id),
        Text(record.version),
        Text(record.digest.removeprefix("sha256:")[:12]),
        Text(record.published_by),
        Text(record.note or ""),
    ]


def _document(placed: Placed, found: History) -> dict[str, Any]:
    record = placed.record
    return {
        "offset": placed.offset,
        "record": record.record.value,
        "digest": record.digest,
        "id": record.id,
        "version": record.version,
        "published_at": record.published_at.isoformat(),
        "published_by": record.published_by,
        "note": record.note,
        "in_force": found.active is not None and found.active.offset == placed.offset,
    }
