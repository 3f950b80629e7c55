"""`sluice audit`: prove the audit log, tell a message's story, export it, keep its keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline import audit_check, signing
from pipeline.chain_heads import Checkpoint
from pipeline.cli import (
    audit_export,
    audit_keys,
    audit_show,
    audit_tables,
    console,
    session,
    tables,
)
from pipeline.cli.exits import Exit
from pipeline.ranges import parse_range
from pipeline.settings import Settings
from pipeline.signing import Checker

app = typer.Typer(help="The audit log: prove it, tell one message's story, export it, keep keys.")
signing_key = typer.Typer(help="The key that signs chain heads.")
app.command("show")(audit_show.show)
app.command("export")(audit_export.export)
app.add_typer(audit_keys.app, name="keys")
app.add_typer(signing_key, name="signing-key")


@app.command()
def verify(
    start: Annotated[
        str | None,
        typer.Option("--from", help="From this time on: -1h, 2026-11-23, RFC 3339, Unix."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Before this time; as --from, or end.")
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--public-key", help="Trust only heads signed by this Ed25519 key (PEM); repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Prove that no audit event is missing, changed or reordered; or name the first break.

    The range is what the topic holds when it starts. Exits with 0 when it is
    proved, 1 when a chain is broken, 4 when there is nothing to verify, 3 when
    retention deletes what is being read. A range that begins in the middle of
    a chain takes that chain's first event in it as it is.

    Example: sluice audit verify --from -24h --public-key audit.pem
    """
    settings = session.begin()
    when = parse_range(start, end, now=datetime.now(UTC))
    checkers = [Checker.load(path) for path in public_key or ()]
    proof = session.run(audit_check.verify(settings, when, checkers))
    if as_json:
        console.print_json(audit_tables.document(proof))
    else:
        audit_tables.show(proof)
    if not proof.proved:
        raise typer.Exit(Exit.FAILURE)
    if not proof.events:
        raise typer.Exit(Exit.EMPTY)


@app.command()
def heads(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one document a line.")
    ] = False,
) -> None:
    """List the latest head of each chain: how far it had come, when, signed by whom."""
    latest = session.run(_latest(session.begin()))
    if not latest:
        console.note("no chain head is written down")
        raise typer.Exit(Exit.EMPTY)
    if as_json:
        for one in latest:
            console.print_json(audit_tables.head_document(one))
    else:
        tables.show(audit_tables.heads(latest))


@signing_key.command()
def create(
    path: Annotated[Path, typer.Argument(help="The new private key's file.")],
) -> None:
    """Make an Ed25519 key that only its owner may read; print its public key and digest.

    Name the file in audit.signing_key_file of the workers, and keep the public
    key where whoever writes to the topics cannot change it.
    """
    public, name = signing.create_key(path)
    typer.echo(public, nl=False)
    console.note(f"{name}: its digest, which heads name as their signer")


async def _latest(settings: Settings) -> list[Checkpoint]:
    """By chain; the last record of a chain is its latest head."""
    found = {one.head.chain: one async for one in audit_check.checkpoints(settings)}
    return sorted(found.values(), key=lambda one: (one.at, one.head.partition))
