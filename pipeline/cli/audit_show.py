"""`sluice audit show`: one message's story."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from pipeline import audit_find, audit_story, codec, wiring
from pipeline.adapters.kafka_admin import open_reader
from pipeline.audit_find import Places
from pipeline.audit_log import Entry
from pipeline.cli import console, rows, session, tables
from pipeline.cli.exits import Exit
from pipeline.dlq import printable
from pipeline.errors import Misconfigured, SealBroken, Unopenable
from pipeline.events import Action, AuditEvent
from pipeline.policy import Policy, Rules
from pipeline.ranges import parse_range
from pipeline.sealing import Opened, opened
from pipeline.settings import Settings

Policies = Callable[[str], Policy | None]
"""The policy of a digest, None when it is not at hand."""

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


def show(
    id: Annotated[
        str, typer.Argument(help="A message id, or a verdict id: topic:partition:offset.")
    ],
    *,
    start: Annotated[
        str | None, typer.Option("--from", help="Look from this time on: -1h, 2026-11-23.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Look before this time.")] = None,
    related: Annotated[
        bool, typer.Option(help="Look for the prompt, the answers and the conversation as well.")
    ] = True,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Show kept texts, which may upset; opens sealed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tell one message's story: input, guards, scores against thresholds, policy, times, chain.

    A message id is found in one partition of the audit topic; a verdict id
    too, while its input is retained. Exits with 4 when there is no such event.
    """
    span = parse_range(start, end, now=datetime.now(UTC))
    settings = session.begin()
    places = Places(topics=settings.topics, schemas=wiring.load_schemas(), span=span)
    found = session.run(_look(settings, places, id, with_related=related))
    if found is None:
        console.error(f"there is no audit event of {printable(id)!r}. {_what_to_try(id)}")
        raise typer.Exit(Exit.EMPTY)
    texts, problem = _texts(settings, found.event) if show_text else (None, None)
    policy = _policies(settings)(found.event.verdict.policy.digest)
    if as_json:
        console.print_json(_document(found, policy, texts, problem))
    else:
        _print(found, policy, texts)
    if problem is not None:
        console.error(str(problem))
    if isinstance(problem, SealBroken):
        raise typer.Exit(Exit.FAILURE)


async def _look(
    settings: Settings, places: Places, wanted: str, *, with_related: bool
) -> Story | None:
    async with open_reader(settings.kafka) as reader:
        entries = await audit_find.find(reader, places, wanted)
        if not entries:
            return None
        latest = max(entries, key=lambda entry: entry.event.verdict.received_at)
        verdict_id = latest.event.verdict.verdict_id
        same = [entry for entry in entries if entry.event.verdict.verdict_id == verdict_id]
        others = {entry.event.verdict.verdict_id for entry in entries} - {verdict_id}
        kin = await audit_find.related(reader, places, same[0].event) if with_related else []
    return Story(
        entry=same[0], repeats=len(same) - 1, others=tuple(sorted(others)), related=tuple(kin)
    )


def _policies(settings: Settings) -> Policies:
    """The configured policy where its digest is the one asked for."""

    def by_digest(digest: str) -> Policy | None:
        try:
            policy = wiring.load_policy(settings)
        except Misconfigured:
            return None
        return policy if policy.ref.digest == digest else None

    return by_digest


def _texts(
    settings: Settings, event: AuditEvent
) -> tuple[Opened | None, Unopenable | Misconfigured | None]:
    try:
        return opened(event, wiring.open_keys(settings)), None
    except (Unopenable, Misconfigured) as error:
        return None, error


def _what_to_try(wanted: str) -> str:
    if audit_find.position_of(wanted):
        return (
            f"It may be a dead letter: `sluice dlq show {printable(wanted)}`; or not judged yet:"
            " `sluice reconcile`; or older than the audit topic keeps"
        )
    return (
        "Ids are case-sensitive; `sluice verdicts --id` finds a verdict by either id,"
        " `sluice dlq ls` lists what was not judged; without --from and --to all is searched"
    )


def _document(
    found: Story, policy: Policy | None, texts: Opened | None, problem: Exception | None
) -> dict[str, Any]:
    entry = found.entry
    story = audit_story.document(
        found.event,
        stored_ms=entry.timestamp_ms,
        policy=policy,
        verdict=codec.as_json(found.event.verdict),
    )
    kin = [
        {"verdict_id": v.verdict_id, "message_id": v.message_id, "kind": v.kind.value,
         "action": v.action.value, "emitted_at": v.emitted_at.isoformat()}
        for v in (each.event.verdict for each in found.related)
    ]  # fmt: skip
    document = {"audit_position": str(entry.at), **story, "repeats": found.repeats}
    document |= {"other_verdicts": list(found.others), "related": kin}
    if texts is not None:
        document |= {"content": _text(texts.content), "context": _text(texts.context)}
    if problem is not None:
        document["content_problem"] = str(problem)
    return document


def _print(found: Story, policy: Policy | None, texts: Opened | None) -> None:
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
            "thresholds: only those that were crossed; with policy.file set to the policy of"
            " that digest, all of them are shown"
        )
    tables.show(_timeline(event, found.entry.timestamp_ms))
    if found.related:
        console.out.print(Text("related", style="bold"))
        console.out.print(rows.heading())
        for each in found.related:
            console.out.print(rows.verdict(each.event.verdict))
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
        f" in a guard call of {event.batch_rows:,} rows"
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
    headings = ["category", "", "score", *(step.value for step in _STEPS), "asked for", "set by"]
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


def _print_texts(event: AuditEvent, texts: Opened | None) -> None:
    if texts is None:
        return
    for name, text in (("context", texts.context), ("text", texts.content)):
        if text is not None:
            console.out.print(Text(f"\n{name}", style="bold"))
            console.out.print(Text(printable(text)))
    if texts.content is None:
        console.note(f"no text was kept: retention is {event.retention.value}")


def _text(text: bytes | None) -> str | None:
    return None if text is None else text.decode(errors="replace")
