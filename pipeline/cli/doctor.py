"""`sluice doctor`: what is up, what is not, and what to do next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from pipeline import diagnosis, findings
from pipeline.cli import console, session
from pipeline.cli.exits import Exit
from pipeline.errors import Misconfigured
from pipeline.findings import Finding, State
from pipeline.settings import Settings

_WORDS = {
    State.OK: ("✓ ok", "green"),
    State.WRONG: ("✗ wrong", "bold red"),
    State.DOWN: ("✗ down", "bold red"),
    State.SKIPPED: ("- skipped", "yellow"),
    State.INFO: ("  info", "dim"),
}
_EXITS = {State.OK: Exit.OK, State.WRONG: Exit.USAGE, State.DOWN: Exit.UNREACHABLE}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check settings, Kafka, topics, Triton, guards and worker, one by one.

    Exit 0 when all is well, 2 when a setting, file or deployment is wrong, 3
    when something does not answer. What the embedded stack needs is only told.
    """
    found = session.run(_collect(show=not as_json))
    verdict = findings.worst(found)
    if as_json:
        checks = [asdict(finding) for finding in found]
        console.print_json({"ok": verdict is State.OK, "checks": checks})
    else:
        _close(found, verdict)
    if verdict is not State.OK:
        raise typer.Exit(_EXITS[verdict])


async def _collect(*, show: bool) -> list[Finding]:
    found = []
    async for finding in _checks():
        found.append(finding)
        if show:
            _print(finding)
    return found


async def _checks() -> AsyncIterator[Finding]:
    yield diagnosis.python()
    settings, found = _settings()
    yield found
    if settings is not None:
        async for finding in diagnosis.examine(settings):
            yield finding
    async for finding in diagnosis.embedded():
        yield finding


def _settings() -> tuple[Settings | None, Finding]:
    try:
        settings = session.begin()
    except Misconfigured as error:
        wrong = Finding(
            name="settings", state=State.WRONG, detail=error.message, remedy=error.remedy
        )
        return None, wrong
    return settings, Finding(name="settings", state=State.OK, detail="every key is valid")


def _print(finding: Finding) -> None:
    word, style = _WORDS[finding.state]
    line = Text(f"{word:<10}", style=style)
    line.append(f"{finding.name:<24}", style="default not dim")
    line.append(finding.detail, style="default not bold")
    console.out.print(line)
    if finding.remedy:
        console.out.print(Text(f"{'':<10}{'':<24}→ {finding.remedy}"))


def _close(found: list[Finding], verdict: State) -> None:
    if verdict is State.OK:
        console.note("all is well")
        return
    bad = [finding.name for finding in found if finding.state in (State.WRONG, State.DOWN)]
    console.note(f"not well: {', '.join(bad)}; each → says what to do next")
