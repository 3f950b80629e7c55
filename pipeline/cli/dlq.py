"""`sluice dlq`: see why messages could not be judged, and send them again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline import dlq, wiring_admin
from pipeline.adapters.kafka import Slice
from pipeline.cli import console, session, tables
from pipeline.cli.exits import Exit
from pipeline.dlq import Found
from pipeline.errors import Misconfigured, Reason
from pipeline.events import Position
from pipeline.ranges import Range, parse_range
from pipeline.settings import Settings

app = typer.Typer(help="Dead letters: see why messages could not be judged, send them again.")
_ALWAYS = Range()

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one document a line.")]
OfReason = Annotated[
    Reason | None, typer.Option("--reason", help="Only dead letters with this reason.")
]
From = Annotated[
    str | None, typer.Option("--from", help="From this time on: -1h, 2026-11-23, RFC 3339, Unix.")
]
To = Annotated[str | None, typer.Option("--to", help="Before this time; as --from, or end.")]


@app.command()
def ls(start: From = None, end: To = None, reason: OfReason = None, as_json: Json = False) -> None:
    """List dead letters: when, where the input lay, why, how often, how large.

    Example: sluice dlq ls --from -1h --reason bad-json
    """
    settings = session.begin()
    when = parse_range(start, end, now=datetime.now(UTC))
    letters = session.run(_collect(settings, lambda one: _is_of(one, reason), when=when))
    letters.sort(key=lambda one: one.letter.failed_at)
    if as_json:
        for one in letters:
            console.print_json(dlq.as_json(one))
    elif letters:
        tables.show(_table(letters))
        console.note("`sluice dlq show POSITION` tells more about one")
    else:
        console.note("no dead letters")


@app.command()
def show(
    position: Annotated[
        str,
        typer.Argument(help="topic:partition:offset of the input, or dlq:partition:offset."),
    ],
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Print the value as text, which may upset.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show all of one dead letter: why, what to do, headers, the first bytes."""
    settings = session.begin()
    where = dlq.parse_position(position, settings.topics.dead_letters)
    letters = session.run(_collect(settings, lambda one: dlq.matches(one, where), values=True))
    one = _latest(letters, position)
    if as_json:
        console.print_json(_document(one, show_text=show_text))
    else:
        _print_letter(one, show_text=show_text)
    if len(letters) > 1:
        console.note(f"{len(letters)} dead letters share this input; this is the latest")


@app.command()
def retry(
    positions: Annotated[
        list[str] | None, typer.Argument(help="Positions, as `sluice dlq show` takes them.")
    ] = None,
    *,
    start: From = None,
    end: To = None,
    reason: OfReason = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Send dead letters again: original key, value and headers to the original topic.

    Nothing is deleted. A message that fails again becomes a new dead letter
    with one attempt more; of those that share an input only the latest is sent.
    A letter whose retry went well is sent again by every later retry that chooses it:
    --from and --to leave it out.
    """
    settings = session.begin()
    _one_choice(positions, reason, everything=everything)
    wanted = [dlq.parse_position(p, settings.topics.dead_letters) for p in positions or ()]
    when = parse_range(start, end, now=datetime.now(UTC))
    chosen = session.run(_latest_within(settings, when))
    chosen = list(filter(_chooser(wanted, reason), chosen))
    chosen = _whole(_of_inputs(chosen, settings))
    if not chosen:
        console.error(
            "no dead letter was chosen: `sluice dlq ls` lists them; of those that share an input"
            " only the latest is sent"
        )
        raise typer.Exit(Exit.EMPTY)
    if dry_run:
        _report(chosen, sent=0, as_json=as_json)
        return
    _confirm(chosen, yes=yes)
    _report(chosen, sent=_send(settings, chosen), as_json=as_json)


def _send(settings: Settings, chosen: list[Found]) -> int:
    """Send them again; how many. Where that ends early, say how many went out before."""
    counts = [0]
    try:
        return session.run(
            wiring_admin.send_again(settings, {one.at for one in chosen}, counts.append)
        )
    except BaseException:
        console.note(f"sent at least {counts[-1]:,} of {_count(chosen)} again before this:")
        raise


async def _collect(
    settings: Settings,
    wanted: Callable[[Found], bool],
    *,
    when: Range = _ALWAYS,
    values: bool = False,
) -> list[Found]:
    """The dead letters that are wanted, without their bytes unless `values`."""
    return [
        one if values else one.without_value()
        async for one in wiring_admin.all_dead_letters(settings, when)
        if wanted(one)
    ]


async def _latest_within(settings: Settings, when: Range) -> list[Found]:
    """Of each message whose latest dead letter lies in a time range, that letter.

    What came after the range is read as well, because it supersedes what lies within.
    """
    slices = await wiring_admin.dead_letter_slices(settings, when)
    letters = await _collect(settings, lambda _: True, when=Range(start=when.start))
    return [one for one in dlq.not_superseded(letters) if any(_lies_in(one, s) for s in slices)]


def _lies_in(one: Found, part: Slice) -> bool:
    return one.at.partition == part.partition and part.start <= one.at.offset < part.end


def _is_of(one: Found, reason: Reason | None) -> bool:
    return reason is None or one.letter.reason == reason.value


def _chooser(wanted: list[Position], reason: Reason | None) -> Callable[[Found], bool]:
    if wanted:
        return lambda one: any(dlq.matches(one, position) for position in wanted)
    return lambda one: _is_of(one, reason)


def _of_inputs(chosen: list[Found], settings: Settings) -> list[Found]:
    """Those whose message lay in an input topic; nothing is published to another one."""
    for one in chosen:
        if not dlq.is_of_input(one.letter, settings.topics):
            console.note(
                f"{dlq.printable(str(one.letter.position))} is in no input topic: its dead letter"
                f" {one.at} is not sent"
            )
    return [one for one in chosen if dlq.is_of_input(one.letter, settings.topics)]


def _whole(chosen: list[Found]) -> list[Found]:
    """Those that hold their value; the others cannot be sent again from here."""
    for one in chosen:
        if one.letter.left_out_bytes:
            console.note(
                f"{one.letter.position} was too large for a dead letter"
                f" ({one.size_bytes:,} bytes): publish it again from where it lies"
            )
    return [one for one in chosen if not one.letter.left_out_bytes]


def _one_choice(positions: list[str] | None, reason: Reason | None, *, everything: bool) -> None:
    if sum((bool(positions), reason is not None, everything)) != 1:
        raise Misconfigured(
            "say which dead letters to send again",
            remedy="Give positions, or --reason REASON, or --all",
        )


def _confirm(chosen: list[Found], *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Misconfigured("nobody is there to confirm", remedy="Add --yes, or try --dry-run")
    topics = ", ".join(sorted({one.letter.position.topic for one in chosen}))
    if not typer.confirm(f"Send {_count(chosen)} again to {topics}?", err=True):
        console.note("nothing was sent")
        raise typer.Exit(Exit.FAILURE)


def _count(chosen: list[Found]) -> str:
    return f"{len(chosen):,} dead letter{'s' if len(chosen) != 1 else ''}"


def _report(chosen: list[Found], *, sent: int, as_json: bool) -> None:
    if as_json:
        listed = [dlq.as_json(one) for one in chosen]
        console.print_json({"chosen": len(chosen), "sent": sent, "letters": listed})
    elif sent:
        console.out.print(f"sent {sent:,} of {_count(chosen)} again")
    else:
        tables.show(_table(chosen))
        console.out.print(f"would send {_count(chosen)} again")


def _latest(letters: list[Found], position: str) -> Found:
    if not letters:
        console.error(f"there is no dead letter {position}: `sluice dlq ls` lists them")
        raise typer.Exit(Exit.EMPTY)
    return max(letters, key=lambda one: one.letter.failed_at)


def _table(letters: list[Found]) -> Table:
    """One row a letter; a narrow terminal leaves the detail to `show`."""
    headings = ["failed at (UTC)", "input", "reason", "attempts", "bytes", "detail"]
    shown = headings[:-1] if tables.narrow() else headings
    table = tables.table(shown, right=("attempts", "bytes"))
    for one in letters:
        table.add_row(*_cells(one)[: len(shown)])
    return table


def _cells(one: Found) -> tuple[Text, ...]:
    letter = one.letter
    return (
        Text(_when(one)),
        Text(dlq.printable(str(letter.position))),
        Text(dlq.printable(letter.reason), style="yellow"),
        Text(f"{letter.attempts:,}"),
        Text(f"{one.size_bytes:,}"),
        Text(dlq.printable(letter.detail)),
    )


def _when(one: Found) -> str:
    return one.letter.failed_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _print_letter(one: Found, *, show_text: bool) -> None:
    letter = one.letter
    grid = Table.grid(padding=(0, 2))
    for name, value in (
        ("input", str(letter.position)),
        ("dead letter", str(one.at)),
        ("failed at", _when(one)),
        ("reason", letter.reason),
        ("detail", letter.detail),
        ("what to do", dlq.what_to_do(letter.reason)),
        ("attempts", f"{letter.attempts:,}"),
        ("key", "none" if letter.key is None else dlq.printable(letter.key)),
        ("value", _size(one)),
    ):
        grid.add_row(Text(name, style="bold"), Text(dlq.printable(value)))
    for name, content in letter.headers:
        shown = f"{name}: {dlq.printable(content or b'')}"
        grid.add_row(Text("header", style="bold"), Text(shown))
    tables.show(grid)
    _print_value(letter.value or b"", show_text=show_text)


def _size(one: Found) -> str:
    if one.letter.left_out_bytes:
        kept = f"too large for a dead letter; SHA-256 {one.letter.left_out_sha256}"
        return f"{one.size_bytes:,} bytes, {kept}"
    return "none" if one.letter.value is None else f"{one.size_bytes:,} bytes"


def _print_value(value: bytes, *, show_text: bool) -> None:
    if show_text:
        console.out.print(Text(dlq.printable(value)))
        return
    for line in dlq.hex_lines(value):
        console.out.print(Text(line))
    if len(value) > dlq.PREVIEW_BYTES:
        console.note(f"the first {dlq.PREVIEW_BYTES} bytes; --show-text prints all of it as text")


def _document(one: Found, *, show_text: bool) -> dict[str, Any]:
    letter = one.letter
    value = letter.value
    return {
        **dlq.as_json(one),
        "what_to_do": dlq.what_to_do(letter.reason),
        "kafka_timestamp_ms": letter.kafka_timestamp_ms,
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        "headers": [[name, (v or b"").decode(errors="replace")] for name, v in letter.headers],
        "first_bytes_hex": None if value is None else value[: dlq.PREVIEW_BYTES].hex(),
        **({"text": (value or b"").decode(errors="replace")} if show_text else {}),
    }
