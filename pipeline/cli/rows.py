"""A verdict as one line for people, in columns that hold while it streams."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from rich.text import Text

from pipeline.cli import console
from pipeline.dlq import printable
from pipeline.events import Action, Kind, Message, Status, Verdict
from pipeline.taxonomy import name_of

_COLUMNS: Final = (
    ("time (UTC)", 20), ("kind", 10), ("tenant", 10), ("action", 7), ("why", 40),
    ("coverage", 8), ("message", 0),
)  # fmt: skip
_GAP: Final = "  "


def heading() -> Text:
    """The names of the columns."""
    return Text(_joined([name for name, _ in _COLUMNS]), style="bold")


def verdict(found: Verdict) -> Text:
    """A verdict's line; coverage only where the guard did not see all."""
    what = (found.kind, found.tenant, found.message_id)
    return _row(found.emitted_at, what, found.action, why(found), coverage(found))


def dead_letter(message: Message, reason: str, *, at: datetime) -> Text:
    """The line of a message that became a dead letter instead."""
    what = (message.kind, message.tenant, message.message_id)
    return _row(at, what, None, f"dead letter: {reason}")


def why(found: Verdict) -> str:
    """What decided, in few words: the first category that crossed, or the reason."""
    if found.flagged:
        top = found.flagged[0]
        more = f" +{len(found.flagged) - 1}" if len(found.flagged) > 1 else ""
        return f"{name_of(top.category)} {top.score:.2f}/{top.threshold:g}{more}"
    return "" if found.status is Status.SCORED else f"{found.status.value}: {found.reason}"


def coverage(found: Verdict) -> str:
    """Share of the tokens that a guard saw, where it is not all of them."""
    if found.coverage.complete and found.status is not Status.UNSCANNED:
        return ""
    total = found.coverage.total_tokens
    return f"{100 * found.coverage.scanned_tokens // total} %" if total else "none"


def _row(
    at: datetime, what: tuple[Kind, str, str], action: Action | None, why: str, seen: str = ""
) -> Text:
    kind, tenant, message_id = what
    word = action.value if action else "-"
    stamp = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    cells = [
        stamp,
        kind.value,
        printable(tenant) or "-",
        word,
        printable(why),
        seen,
        printable(message_id),
    ]
    line = Text(_joined(cells).replace("\n", " "))
    style = console.STYLE[action] if action else "yellow"
    start = sum(width + len(_GAP) for _, width in _COLUMNS[:3])
    if len(cells[2]) <= _COLUMNS[2][1]:
        line.stylize(style, start, start + len(word))
    return line


def _joined(cells: list[str]) -> str:
    padded = (cell.ljust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    return _GAP.join(padded)
