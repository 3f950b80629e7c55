"""One message's story on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from rich.table import Table
from rich.text import Text

from pipeline import audit_story
from pipeline.audit_log import Entry
from pipeline.cli import console, tables
from pipeline.dlq import printable
from pipeline.events import Action, AuditEvent
from pipeline.policy import Policy, Rules
from pipeline.sealing import Opened

_STEPS: Final = (Action.FLAG, Action.REVIEW, Action.BLOCK)
_SHORT: Final = 19
"""Characters of a digest on a narrow terminal: `sha256:` and twelve digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What was found: the first event, its repeats, other inputs of the message, kin."""

    entry: Entry
    repeats: int
    others: tuple[str, ...]
    related: tuple[Entry, ...]

    @property
    def event(self) -> AuditEvent:
        """The event that counts: of a verdict's repeats the first wins."""
        return self.entry.event


def print_story(found: Story, policy: Policy | None, texts: Opened | None) -> None:
    """Print what happened to a message, and its texts where there are some."""
    event = found.event
    rules = audit_story.rules_of(event, policy)
    grid = Table.grid(padding=(0, 2))
    for name, value in _facts(found, rules):
        grid.add_row(Text(name, style="bold"), Text(value))
    _heading(event)
    tables.show(grid)
    tables.show(_scores(event, rules))
    if rules is None:
        console.note(
            "only thresholds that were crossed: the policy of that digest is neither in the"
            " policies topic nor policy.file"
        )
    tables.show(_timeline(event, found.entry.timestamp_ms))
    if found.related:
        console.out.print(Text("related", style="bold"))
        tables.show(_related(found.related))
    _print_texts(event, texts)


def _heading(event: AuditEvent) -> None:
    verdict = event.verdict
    line = Text(verdict.action.value.upper(), style=console.STYLE[verdict.action])
    line.append(f"  {verdict.kind.value} {printable(verdict.message_id)}", style="default bold")
    console.out.print(line)
    console.out.print(Text(printable(verdict.reason)))


def _facts(found: Story, rules: Rules | None) -> Iterator[tuple[str, str]]:
    event, verdict = found.event, found.event.verdict
    yield "status", verdict.status.value
    yield "input", verdict.verdict_id
    yield "tenant", printable(verdict.tenant) or "none"
    for name, value in (
        ("route", event.route),
        ("language", event.language),
        ("conversation", verdict.conversation_id),
        ("answers", event.prompt_id),
    ):
        if value:
            yield name, printable(value)
    for guard in verdict.guards:
        yield "guard", f"{guard.name} version {guard.version} {_digest(guard.digest)}"
    policy = verdict.policy
    yield "policy", f"{policy.id} version {policy.version} {_digest(policy.digest)}"
    yield "coverage", _coverage(event)
    yield "judged by", f"{event.worker_id}, attempt {event.attempt}"
    yield "kept", audit_story.kept(event, rules)
    if event.content_hash:
        yield "content", _digest(event.content_hash)
    yield "audit event", str(found.entry.at)
    yield "chain", _chain(event)
    if found.repeats:
        yield "repeats", f"{found.repeats:,}, of a redelivery; the first event is shown"
    if found.others:
        yield "also", f"the message was judged at {', '.join(found.others)}"


def _coverage(event: AuditEvent) -> str:
    seen = event.verdict.coverage
    if not event.verdict.guards:
        return "no guard saw it"
    windows = f"{event.windows:,} window{'s' if event.windows != 1 else ''}"
    return (
        f"{seen.scanned_tokens:,} of {seen.total_tokens:,} tokens in {windows},"
        f" in a guard call of {event.batch_rows:,} row{'s' if event.batch_rows != 1 else ''}"
    )


def _chain(event: AuditEvent) -> str:
    link = event.chain
    if link is None:
        return "none: its writer kept no chain"
    after = (
        f", after {_digest('sha256:' + link.previous.hex())}" if link.previous else ", the first"
    )
    return f"{printable(link.chain)} number {link.sequence:,}{after}"


def _digest(digest: str) -> str:
    return f"{digest[:_SHORT]}..." if tables.narrow() and len(digest) > _SHORT else digest


def _scores(event: AuditEvent, rules: Rules | None) -> Table:
    headings = ["category", "", "score", *(step.value for step in _STEPS), "asked", "set by"]
    shown = headings[:-1] if tables.narrow(100) else headings
    table = tables.table(shown, right=["score", *(step.value for step in _STEPS)])
    for each in audit_story.scores(event, rules):
        style = console.STYLE[each.asked] if each.asked else ""
        cells = [
            Text(each.category),
            Text(each.name),
            Text("-" if each.score is None else f"{each.score:.3f}", style=style),
            *(Text(_at(each, step)) for step in _STEPS),
            Text(each.asked.value if each.asked else "-", style=style),
            Text(", ".join(dict.fromkeys(limit.origin for limit in each.limits))),
        ]
        table.add_row(*cells[: len(shown)])
    return table


def _at(score: audit_story.Score, step: Action) -> str:
    found = [f"{limit.at:g}" for limit in score.limits if limit.action is step]
    return "/".join(found) or "-"


def _timeline(event: AuditEvent, stored_ms: int) -> Table:
    table = tables.table(["time (UTC)", "", "ms", ""], right=["ms"])
    for step in audit_story.timeline(event, stored_ms):
        table.add_row(
            Text(step.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]),
            Text(step.name, style="bold"),
            Text(f"{step.offset_s * 1000:+,.1f}"),
            Text(step.what),
        )
    return table


def _related(related: Sequence[Entry]) -> Table:
    headings = ["emitted (UTC)", "kind", "action", "message", "input"]
    shown = headings[:-1] if tables.narrow() else headings
    table = tables.table(shown)
    for verdict in (each.event.verdict for each in related):
        cells = (
            Text(verdict.emitted_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")),
            Text(verdict.kind.value),
            Text(verdict.action.value, style=console.STYLE[verdict.action]),
            Text(printable(verdict.message_id)),
            Text(printable(verdict.verdict_id)),
        )
        table.add_row(*cells[: len(shown)])
    return table


def _print_texts(event: AuditEvent, texts: Opened | None) -> None:
    if texts is None:
        return
    for name, text in (("context", texts.context), ("text", texts.content)):
        if text is not None:
            console.out.print(Text(f"\n{name}", style="bold"))
            console.out.print(Text(printable(text)))
    if texts.content is None:
        console.note(f"no text was kept: retention is {event.retention.value}")
