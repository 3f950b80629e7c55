"""`sluice publish`: messages from files and stdin to Kafka."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from pipeline.cli import console, session
from pipeline.cli.inputs import FIELDS, Format, Read, Reading
from pipeline.cli.publishing import Job
from pipeline.client import Client
from pipeline.envelope import Wire
from pipeline.errors import Misconfigured
from pipeline.events import Kind


def publish(
    files: Annotated[
        list[str] | None, typer.Argument(help="Files to publish; - or none is stdin.")
    ] = None,
    *,
    kind: Annotated[Kind, typer.Option(help="What the texts are, where they do not say.")] = (
        Kind.PROMPT
    ),
    tenant: Annotated[str, typer.Option(help="Whose policy applies, where they do not say.")] = "",
    form: Annotated[
        Format, typer.Option("--format", help="auto: by suffix; stdin by its first line.")
    ] = Format.AUTO,
    whole: Annotated[bool, typer.Option("--whole", help="A text file is one message.")] = False,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Which CSV column holds which field."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Messages per second, on a fixed schedule.")
    ] = None,
    wire: Annotated[Wire, typer.Option(help="How values are encoded.")] = "avro",
    wait: Annotated[bool, typer.Option("--wait", help="Show each verdict as it comes.")] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, help="With --wait: seconds for a verdict.")
    ] = 60.0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count lines that are no message, and go on.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Publish prompts or completions: text (one a line), JSON lines or CSV.

    Fields of a JSON line or a CSV row: text, and optionally message_id, kind,
    conversation_id, tenant, route, language, sent_at, and of a completion prompt
    and prompt_id. Ctrl-C once stops, flushes and reports; what was published
    stays published.

    Examples:
      echo "How do I bake bread?" | sluice publish --wait
      sluice publish traffic.jsonl --rate 50
      sluice publish export.csv --column text=body --column tenant=org --kind completion
    """
    reading = Reading(
        kind=kind, tenant=tenant, format=form, whole=whole, columns=_columns(column or [])
    )
    if whole and form not in (Format.AUTO, Format.TEXT):
        raise Misconfigured(f"--whole does not go with --format {form}", remedy="Leave one out")
    settings = session.begin()
    job = Job(skip_bad=skip_bad, wait_s=timeout_s if wait else None, quiet=as_json)
    names = files or ["-"]
    for name in names:
        _check(name)
    client = Client(settings, watch=wait, wire=wire, source="sluice/publish")
    try:
        session.run(job.run(client, _lines(reading, names), rate_per_s=rate))
    finally:
        job.report(ignored=reading.ignored, as_json=as_json)
    raise typer.Exit(job.exit_code())


def _lines(reading: Reading, names: Iterable[str]) -> Iterator[Read]:
    """What the inputs hold, each opened and closed when its turn comes.

    Whoever reads closes: elsewhere, closing waits for as long as a read waits for input.
    """
    for name in names:
        with _open(name) as stream:
            yield from reading.read(stream, "stdin" if name == "-" else name)


def _columns(given: list[str]) -> dict[str, str]:
    """Fields by column name; raises Misconfigured for another form or field."""
    columns = {}
    for pair in given:
        target, _, name = pair.partition("=")
        if not name or target not in FIELDS:
            raise Misconfigured(
                f"--column {pair!r} does not name a field",
                remedy=f"Write FIELD=COLUMN with a field of: {', '.join(FIELDS)}",
            )
        columns[name] = target
    return columns


def _check(name: str) -> None:
    """Raise Misconfigured where an input is not there or may not be read.

    Nothing is opened for that: a pipe with a name can be opened but once.
    """
    if name == "-":
        if os.isatty(0):
            console.note("reading from the terminal, one message a line; Ctrl-D ends")
        return
    try:
        mode = Path(name).stat().st_mode
    except OSError as error:
        raise _unreadable(name, error.strerror) from None
    if stat.S_ISDIR(mode):
        raise _unreadable(name, os.strerror(errno.EISDIR))
    if not os.access(name, os.R_OK):
        raise _unreadable(name, os.strerror(errno.EACCES))


def _open(name: str) -> BinaryIO:
    """A file, or stdin for `-`; raises Misconfigured naming what cannot be read."""
    if name == "-":
        # Not sys.stdin: a thread that waits in it would break the interpreter's end.
        return os.fdopen(os.dup(0), "rb")
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise _unreadable(name, error.strerror) from None


def _unreadable(name: str, why: str | None) -> Misconfigured:
    return Misconfigured(f"{name} cannot be read ({why})", remedy="Name a file, or - for stdin")
