"""`sluice classify`: one text, judged now, without Kafka."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipeline import codec, one_off
from pipeline.cli import console, session, tables
from pipeline.errors import Misconfigured
from pipeline.events import Action, Kind, Message, Verdict
from pipeline.one_off import Judged
from pipeline.policy import Threshold
from pipeline.taxonomy import name_of

_IN_WORDS = {
    Action.ALLOW: "let it through",
    Action.FLAG: "let it through, marked",
    Action.REVIEW: "hold it for a person",
    Action.BLOCK: "do not let it through",
    Action.UNKNOWN: "do not let it through",
}
_CELLS = 20
_NOTABLE = 0.2
"""A score worth showing where no threshold names its category."""


def classify(
    text: Annotated[str, typer.Argument(help="The text, or - to read it from stdin.")],
    *,
    kind: Annotated[Kind, typer.Option(help="Which side of the conversation.")] = Kind.PROMPT,
    prompt: Annotated[
        str | None, typer.Option(help="The prompt that a completion answers: context.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose policy applies; none: the default.")] = "",
    route: Annotated[str | None, typer.Option(help="Route within the tenant.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="The policy file; none: that of policy.file.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every category.")] = False,
    embedded: Annotated[
        bool, typer.Option(help="Start a Triton for the call where none answers.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Judge one text now, without Kafka, and say why.

    By a policy file: an activated policy is in Kafka; `sluice policy get` prints it.

    Example: sluice classify "how do I pick a lock?"

    Example: sluice classify - --kind completion --tenant kids < answer.txt
    """
    message = Message(
        message_id="classify",
        kind=kind,
        text=_stdin() if text == "-" else text,
        prompt=_context(kind, prompt),
        tenant=tenant,
        route=route,
    )
    settings = session.begin(session.with_policy(policy))
    judged = session.run(one_off.judge(settings, message, embedded=embedded, say=console.note))
    if as_json:
        console.print_json(codec.as_json(judged.verdict))
    else:
        _show(judged, everything=everything)


def _stdin() -> str:
    """All of stdin without the newline that ends its last line."""
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise Misconfigured("stdin is not UTF-8", remedy="Convert the text to UTF-8") from error


def _context(kind: Kind, prompt: str | None) -> str | None:
    if prompt is not None and kind is not Kind.COMPLETION:
        raise Misconfigured("only a completion has a prompt", remedy="Add --kind completion")
    return prompt


def _show(judged: Judged, *, everything: bool) -> None:
    verdict = judged.verdict
    headline = Text(verdict.action.value.upper(), style=console.STYLE[verdict.action])
    headline.append(f"  {_IN_WORDS[verdict.action]}", style="default not bold")
    console.out.print(headline)
    console.out.print(Text(verdict.reason))
    tables.show(_scores(judged, everything=everything))
    tables.show(_provenance(judged))


def _scores(judged: Judged, *, everything: bool) -> Table:
    rules = judged.rules
    table = tables.table(["category", "", "score", "0 to 1", "thresholds"], right=("score",))
    for category in _order(judged, everything=everything):
        score = judged.verdict.scores[category]
        steps = [step for step in rules.thresholds + rules.floor if step.category == category]
        style = _style(judged.verdict, category)
        table.add_row(
            Text(category),
            Text(name_of(category)),
            Text(f"{score:.3f}", style=style),
            bar(score, [step.at for step in steps], style=style),
            _thresholds(steps, score),
        )
    return table


def _order(judged: Judged, *, everything: bool) -> list[str]:
    """The categories to show, highest score first: by default those that matter."""
    scores, rules = judged.verdict.scores, judged.rules
    named = {step.category for step in rules.thresholds + rules.floor}
    shown = [
        category
        for category, score in scores.items()
        if everything or category in named or score >= _NOTABLE
    ]
    return sorted(shown, key=lambda category: -scores[category])


def _style(verdict: Verdict, category: str) -> str:
    crossed = [flagged.action for flagged in verdict.flagged if flagged.category == category]
    return console.STYLE[crossed[0]] if crossed else "default"


def bar(score: float, marks: Sequence[float], *, style: str = "") -> Text:
    """A score as twenty cells, with each threshold's place marked."""
    places = {min(_CELLS - 1, int(at * _CELLS)) for at in marks}
    shown = Text()
    for cell in range(_CELLS):
        filled = (cell + 0.5) / _CELLS <= score
        if cell in places:
            shown.append("┃" if filled else "│", style=style if filled else "default")
        else:
            shown.append("█" if filled else "·", style=style if filled else "dim")
    return shown


def _thresholds(steps: Sequence[Threshold], score: float) -> Text:
    """Each threshold and whether it was crossed; whose it is, unless the default's."""
    shown = Text()
    for number, step in enumerate(steps):
        crossed = score >= step.at
        shown.append(" · " if number else "")
        shown.append(
            f"{step.action.value} {step.at:g}{' crossed' if crossed else ''}",
            style=console.STYLE[step.action] if crossed else "dim",
        )
        last_of_origin = number + 1 == len(steps) or steps[number + 1].origin != step.origin
        if last_of_origin and step.origin != "default":
            shown.append(f" ({step.origin})", style="dim")
    return shown


def _provenance(judged: Judged) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in _facts(judged):
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid


def _facts(judged: Judged) -> Iterator[tuple[str, str]]:
    verdict, seen = judged.verdict, judged.verdict.coverage
    yield "status", verdict.status.value
    yield "coverage", f"{seen.scanned_tokens:,} of {seen.total_tokens:,} tokens"
    for guard in verdict.guards:
        yield "guard", f"{guard.name} version {guard.version} {short(guard.digest)}"
    policy = verdict.policy
    yield "policy", f"{policy.id} version {policy.version} {short(policy.digest)}"
    yield "scored in", f"{judged.elapsed_s * 1000:.1f} ms"


def short(digest: str) -> str:
    """Enough of a digest to tell it from others."""
    algorithm, _, rest = digest.partition(":")
    return f"{algorithm}:{rest[:12]}"
