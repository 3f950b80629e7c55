"""`sluice config`: the settings in force and where from; a file to start with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.text import Text

from pipeline import settings, settings_file
from pipeline.cli import console, session, tables
from pipeline.errors import Misconfigured

app = typer.Typer(help="Settings: what is in force and where it came from.")

_MASK = "********"


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show every setting, its value and where that came from; secrets are masked."""
    loaded = session.begin()
    found = list(settings.origins(loaded, {}))
    if as_json:
        entries = [{"key": k, "value": plain(v), "origin": origin} for k, v, origin in found]
        console.print_json({"file": _file(), "settings": entries})
        return
    table = tables.table(["key", "value", "from"])
    for key, value, origin in found:
        style = "dim" if origin == "default" else "bold"
        table.add_row(Text(key), Text(_shown(value)), Text(origin, style=style))
    tables.show(table)
    console.note(f"file: {_file() or 'none (sluice config init writes one)'}")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("sluice.toml"),
) -> None:
    """Write a commented settings file with every default; never overwrites one."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(settings_file.template())
    except FileExistsError:
        raise Misconfigured(
            f"{path} exists already", remedy="Name another path, or move it away"
        ) from None
    except OSError as error:
        raise Misconfigured(
            f"{path} cannot be written ({error.strerror})", remedy="Name another path"
        ) from error
    console.note(f"wrote {path}; `sluice config show` tells what is in force")


def plain(value: Any) -> Any:
    """A value as JSON has it, with nothing in it that is secret."""
    match value:
        case SecretStr():
            return _MASK
        case Path():
            return str(value)
        case tuple():
            return [plain(item) for item in value]
        case _:
            return value


def _shown(value: Any) -> str:
    match plain(value):
        case None:
            return "not set"
        case list() as items:
            return ", ".join(str(item) for item in items)
        case bool() as flag:
            return "true" if flag else "false"
        case other:
            return str(other)


def _file() -> str | None:
    found = settings.config_file(os.environ)
    return None if found is None else str(found)
