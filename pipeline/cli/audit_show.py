"""`sluice audit show`: one message's story."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipeline import audit_find, audit_story, codec, schema_ids, wiring, wiring_policy
from pipeline.adapters.kafka_admin import open_reader
from pipeline.audit_find import Places
from pipeline.cli import audit_screen, console, session
from pipeline.cli.audit_screen import Story
from pipeline.cli.exits import Exit
from pipeline.dlq import printable
from pipeline.errors import Misconfigured, SealBroken, Unopenable
from pipeline.events import AuditEvent
from pipeline.policy import Policy
from pipeline.ranges import parse_range
from pipeline.sealing import Opened, opened
from pipeline.settings import Settings


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
    policies = session.run(wiring_policy.lookup(settings))
    policy = policies(found.event.verdict.policy.digest)
    if as_json:
        console.print_json(_document(found, policy, texts, problem))
    else:
        audit_screen.print_story(found, policy, texts)
    if problem is not None:
        console.error(str(problem))
    if isinstance(problem, SealBroken):
        raise typer.Exit(Exit.FAILURE)


async def _look(
    settings: Settings, places: Places, wanted: str, *, with_related: bool
) -> Story | None:
    await schema_ids.adopt(places.schemas, settings)
    async with open_reader(settings.kafka) as reader:
        entries = await audit_find.find(reader, places, wanted)
        if not entries:
            places.numbering.require_ours()
            return None
        latest = max(entries, key=lambda entry: entry.event.verdict.received_at)
        verdict_id = latest.event.verdict.verdict_id
        same = [entry for entry in entries if entry.event.verdict.verdict_id == verdict_id]
        others = {entry.event.verdict.verdict_id for entry in entries} - {verdict_id}
        kin = await audit_find.related(reader, places, same[0].event) if with_related else []
    return Story(
        entry=same[0], repeats=len(same) - 1, others=tuple(sorted(others)), related=tuple(kin)
    )


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


def _text(text: bytes | None) -> str | None:
    return None if text is None else text.decode(errors="replace")
