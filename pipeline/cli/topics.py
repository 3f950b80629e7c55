"""`sluice topics`: make the topics, or compare them with the settings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from pipeline import wiring_admin
from pipeline.cli import console, session, tables
from pipeline.cli.exits import Exit
from pipeline.topic_check import TopicSetting

app = typer.Typer(help="Make the topics, or compare them with the settings.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def create(as_json: Json = False) -> None:
    """Create the topics that are missing; those that exist stay as they are.

    Partitions, replication and size limit come from the settings [topics].
    """
    settings = session.begin()
    made = session.run(wiring_admin.make_topics(settings))
    if as_json:
        console.print_json({"topics": [{"topic": n, "created": c} for n, c in made.items()]})
        return
    for name, created in made.items():
        console.out.print(f"{'created' if created else 'exists ':<8} {name}")


@app.command()
def check(as_json: Json = False) -> None:
    """Compare the topics with the settings: exit 1 on a difference.

    A size limit above the wanted one will do.
    """
    settings = session.begin()
    found = session.run(wiring_admin.check_topics(settings))
    differ = [setting for setting in found if not setting.ok]
    if as_json:
        console.print_json({"ok": not differ, "settings": [asdict(setting) for setting in found]})
    else:
        tables.show(_table(found))
        if differ:
            console.note(_remedy(differ))
    if differ:
        raise typer.Exit(Exit.FAILURE)


def _remedy(differ: list[TopicSetting]) -> str:
    if any(setting.name == "exists" for setting in differ):
        return "Run `sluice topics create` for what is missing"
    return "Alter the topics with your Kafka tools, or change the settings [topics]"


def _table(found: list[TopicSetting]) -> Table:
    """One row a topic; a cell that differs says what is wanted."""
    names = list(dict.fromkeys(setting.name for setting in found))
    table = tables.table(["topic", *(name.replace("_", " ") for name in names)])
    for topic in dict.fromkeys(setting.topic for setting in found):
        cells = {setting.name: setting for setting in found if setting.topic == topic}
        table.add_row(topic, *(_cell(cells.get(name)) for name in names))
    return table


def _cell(setting: TopicSetting | None) -> str:
    if setting is None:
        return ""
    found = f"{int(setting.found):,}" if setting.found.isdigit() else setting.found
    if setting.ok:
        return f"[green]✓[/] {found}"
    return f"[bold red]✗ {found}[/], wanted {setting.wanted}"
