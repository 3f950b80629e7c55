"""`sluice audit keys`: the keys that the audit log's encrypted content is read with."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline.adapters import key_admin
from pipeline.adapters.key_admin import whose
from pipeline.adapters.keys import KeyFile
from pipeline.cli import console, session, tables
from pipeline.cli.exits import Exit
from pipeline.dlq import printable
from pipeline.errors import Misconfigured

app = typer.Typer(
    help="Keys of encrypted audit content: one folder, a key for each tenant."
    " Workers follow a change within a second."
)

Tenant = Annotated[str | None, typer.Argument(help="The tenant.", metavar="TENANT")]
Default = Annotated[bool, typer.Option("--default", help="The key of messages without a tenant.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def create(tenant: Tenant = None, default: Default = False, as_json: Json = False) -> None:
    """Make a tenant's first key, or a new one after an erasure.

    Back the folder up: a lost key is as final as an erased one.
    """
    made = key_admin.create(_folder(), _whom(tenant, default=default), now=datetime.now(UTC))
    _report([made], "created", as_json=as_json)


@app.command()
def rotate(tenant: Tenant = None, default: Default = False, as_json: Json = False) -> None:
    """Seal with a new key from now on; what older keys sealed stays readable.

    A key is good for 4 billion texts (2^32, NIST SP 800-38D): rotate before that.
    """
    made = key_admin.rotate(_folder(), _whom(tenant, default=default), now=datetime.now(UTC))
    _report([made], "rotated: the active key is now", as_json=as_json)


@app.command()
def erase(
    tenant: Tenant = None,
    default: Default = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Destroy all keys of a tenant: none of its encrypted texts can be read again.

    Verdicts, hashes and chain stay as they are, and what was kept in plain
    stays plain. Copies of the folder, backups and snapshots hold the keys
    still: erase them there as well. Exits with 4 where there is no key.
    """
    folder, whom = _folder(), _whom(tenant, default=default)
    living = [key for key in _listed(folder) if key.tenant == whom and key.erased_at is None]
    if not living:
        console.error(f"{whose(whom)} has no key to erase: `sluice audit keys ls` lists them")
        raise typer.Exit(Exit.EMPTY)
    _confirm(whom, len(living), yes=yes)
    gone = key_admin.erase(folder, whom, now=datetime.now(UTC))
    _report(gone, "erased", as_json=as_json)


@app.command()
def ls(as_json: Json = False) -> None:
    """List keys by tenant and version: which is active, which is erased and since when."""
    found = _listed(_folder())
    if as_json:
        console.print_json({"keys": [_document(key, found) for key in found]})
    elif found:
        tables.show(_table(found))
    else:
        console.note("no keys: `sluice audit keys create TENANT` makes one")


def _listed(folder: Path) -> list[KeyFile]:
    return key_admin.listed(folder) if folder.exists() else []


def _folder() -> Path:
    folder = session.begin().audit.keys_folder
    if folder is None:
        raise Misconfigured(
            "there is no key folder", remedy="Set audit.keys_folder (SLUICE_AUDIT__KEYS_FOLDER)"
        )
    return folder


def _whom(tenant: str | None, *, default: bool) -> str:
    if default == bool(tenant):
        raise Misconfigured("say whose key", remedy="Give a TENANT, or --default")
    return tenant or ""


def _confirm(tenant: str, count: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Misconfigured("nobody is there to confirm", remedy="Add --yes")
    keys = f"{count:,} key{'s' if count != 1 else ''}"
    question = f"Erase {keys} of {printable(whose(tenant))}? Its texts can never be read again."
    if not typer.confirm(question, err=True):
        console.note("nothing was erased")
        raise typer.Exit(Exit.FAILURE)


def _report(keys: list[KeyFile], done: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json({"keys": [_document(key, keys) for key in keys]})
        return
    for key in keys:
        named = Text(f"{done}  version {key.version} of {printable(whose(key.tenant))}")
        console.out.print(named.append(f", key {key.key_id}"))


def _state(key: KeyFile, among: list[KeyFile]) -> str:
    if key.erased_at is not None:
        return "erased"
    living = [each.version for each in among if each.tenant == key.tenant and not each.erased_at]
    return "active" if key.version == max(living) else "opens only"


def _document(key: KeyFile, among: list[KeyFile]) -> dict[str, Any]:
    return {
        "tenant": key.tenant,
        "version": key.version,
        "key_id": key.key_id,
        "state": _state(key, among),
        "created_at": key.created_at.isoformat(),
        "erased_at": key.erased_at.isoformat() if key.erased_at else None,
    }


def _table(found: list[KeyFile]) -> Table:
    headings = ["tenant", "version", "state", "created (UTC)", "erased (UTC)", "key id"]
    shown = headings[:-1] if tables.narrow(100) else headings
    table = tables.table(shown, right=["version"])
    for key in found:
        cells = (
            Text(printable(key.tenant) or "(default)"),
            Text(f"{key.version}"),
            _styled(_state(key, found)),
            Text(_when(key.created_at)),
            Text(_when(key.erased_at)),
            Text(key.key_id),
        )
        table.add_row(*cells[: len(shown)])
    return table


def _styled(state: str) -> Text:
    return Text(state, style={"active": "green", "erased": "red"}.get(state, ""))


def _when(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if moment else "-"
