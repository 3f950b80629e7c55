"""`sluice publish`: messages from files and stdin to Kafka."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
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
    conversation_id, tenant, route, language, prompt, prompt_id, sent_at. Ctrl-C
    once stops, flushes and reports; what was published stays published.

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
    with ExitStack() as stack:
        streams = [
            (stack.enter_context(_open(name)), "stdin" if name == "-" else name)
            for name in files or ["-"]
        ]
        client = Client(settings, watch=wait, wire=wire, source="sluice/publish")
        try:
            session.run(job.run(client, _lines(reading, streams), rate_per_s=rate))
        finally:
            job.report(ignored=reading.ignored, as_json=as_json)
    raise typer.Exit(job.exit_code())


def _lines(reading: Reading, streams: list[tuple[BinaryIO, str]]) -> Iterator[Read]:
    for stream, name in streams:
        yield from reading.read(stream, name)


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


def _open(name: str) -> BinaryIO:
    """A file, or stdin for `-`; raises Misconfigured naming what cannot be read."""
    if name == "-":
        if os.isatty(0):
            console.note("reading from the terminal, one message a line; Ctrl-D ends")
        # Not sys.stdin: a thread that waits in it would break the interpreter's end.
        return os.fdopen(os.dup(0), "rb")
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise Misconfigured(
            f"{name} cannot be read ({error.strerror})", remedy="Name a file, or - for stdin"
        ) from None
