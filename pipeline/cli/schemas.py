"""`sluice schemas`: are they compatible with the released ones; register them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from pipeline import schema_check, wiring_admin
from pipeline.cli import console, session, tables
from pipeline.cli.exits import Exit
from pipeline.resources import shipped
from pipeline.schema_check import SchemaFinding

app = typer.Typer(help="Avro schemas: check them against the released ones, register them.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

_WORDS = {True: "[green]✓ ok[/]", False: "[bold red]✗ no[/]", None: "[yellow]- skipped[/]"}


@app.command()
def check(as_json: Json = False) -> None:
    """Check the schemas against the released ones, and that a registry has them.

    Exit 1 when one is incompatible or missing from the registry.
    """
    settings = session.begin()
    found = schema_check.check(shipped("schemas"))
    if settings.registry.url:
        found += _registry_findings(session.run(wiring_admin.registered(settings)))
    wrong = [finding for finding in found if finding.ok is False]
    if as_json:
        console.print_json({"ok": not wrong, "findings": [asdict(finding) for finding in found]})
    else:
        _show(found)
        if not settings.registry.url:
            console.note("registry: none configured; the ids of schemas/ids.json serve")
    if wrong:
        raise typer.Exit(Exit.FAILURE)


@app.command()
def register(as_json: Json = False) -> None:
    """Register the schemas with the registry at registry.url; prints subject and id."""
    settings = session.begin()
    ids = session.run(wiring_admin.register(settings))
    if as_json:
        console.print_json({"ids": ids})
        return
    for subject, schema_id in ids.items():
        console.out.print(Text(f"{schema_id:>6}  {subject}"))


def _registry_findings(ids: Mapping[str, int | None]) -> list[SchemaFinding]:
    return [
        SchemaFinding(
            schema=subject,
            check="in the registry",
            ok=schema_id is not None,
            detail=f"id {schema_id}" if schema_id is not None else "run `sluice schemas register`",
        )
        for subject, schema_id in ids.items()
    ]


def _show(found: list[SchemaFinding]) -> None:
    table = tables.table(["schema", "check", "", "detail"])
    for finding in found:
        table.add_row(finding.schema, finding.check, _WORDS[finding.ok], Text(finding.detail))
    tables.show(table)
