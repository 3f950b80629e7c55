"""`sluice evaluate`: how good is a guard, and is it better than another filter?"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.cli import console, evaluate_tables, session
from pipeline.cli.exits import Exit
from pipeline.errors import Misconfigured
from pipeline.evaluate import formats, gate, pictures, plain, report, runs, summary
from pipeline.evaluate import session as evaluation
from pipeline.evaluate.items import DataSet, Head
from pipeline.evaluate.runs import Run
from pipeline.evaluate.session import Wanted
from pipeline.settings import Settings

_UNMEASURED: Final = "Name the head that it scores (--head), or another filter"
_DATA = "[NAME=][FORMAT:]PATH, repeatable; formats: " + ", ".join(formats.FORMATS)


def evaluate(
    *,
    data: Annotated[list[str], typer.Option(help=_DATA)],
    guard: Annotated[
        list[str] | None, typer.Option(help="Guard by name; none: guards.names. Repeatable.")
    ] = None,
    recorded: Annotated[
        list[str] | None, typer.Option(help="[NAME=]FILE of scores (JSONL: id, score or scores).")
    ] = None,
    command: Annotated[
        list[str] | None, typer.Option(help="[NAME=]PROGRAM: a JSON line in, a score line out.")
    ] = None,
    endpoint: Annotated[str, typer.Option(help="URL of an OpenAI-compatible moderation.")] = "",
    endpoint_model: Annotated[str, typer.Option(help="Its model.")] = "",
    api_key_env: Annotated[str, typer.Option(help="The variable that holds its key.")] = "",
    point: Annotated[str, typer.Option(help="Operating point of the cards.")] = "balanced",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="For filters that have no threshold of their own.")
    ] = 0.5,
    head: Annotated[
        Head | None, typer.Option(help="Score to judge; none: as the set says.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=COLUMN,... (text=..,label=..); sets without FORMAT are then jsonl or csv."
        ),
    ] = None,
    system_prompt: Annotated[
        bool, typer.Option(help="Show the system prompt of cyberseceval-injection.")
    ] = True,
    limit: Annotated[int, typer.Option(min=0, help="Items of each set; 0: all.")] = 0,
    latency_samples: Annotated[int, typer.Option(min=0, help="Asked alone, of each length.")] = 100,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(help='[GUARD/]SET.FIGURE=LEAST or "<=MOST"; breached: exit 99. Repeatable.'),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for summary.json, scores.jsonl, report.html.")
    ] = None,
    details: Annotated[
        bool | None, typer.Option(help="By category, language and length; none: for one set.")
    ] = None,
    show_text: Annotated[bool, typer.Option(help="Show texts where two disagree.")] = False,
    embedded: Annotated[
        bool, typer.Option(help="Start a Triton for the call where none answers.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure guards on labelled sets, and compare them with other filters.

    Examples: sluice evaluate --data xstest:xstest_prompts.csv --fail-under xstest.auprc=0.80
              sluice evaluate --data mine.csv --column text=prompt,label=bad --command ./filter
              sluice evaluate --guard default --recorded last/scores.jsonl --data toxicchat:tc.csv
    """
    bounds = gate.parse(fail_under or [])
    if out:
        pictures.require()
    options = formats.Options(columns=plain.columns_of(column or []), with_system=system_prompt)
    sets = [evaluation.prepared(one, head, limit) for one in formats.load_all(data, options)]
    settings = session.begin()
    wanted = Wanted(
        guards=guard or _configured(settings, recorded, command, endpoint),
        recorded=recorded or [],
        commands=command or [],
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        key=_key(api_key_env),
        point=point,
        threshold=threshold,
        embedded=embedded,
    )
    asked = session.run(_ask(settings, wanted, sets, bounds, latency_samples))
    measured = list(evaluation.measured(asked))
    for line in (unmeasured := evaluation.unmeasured(asked)):
        console.note(line)
    if not measured:
        raise Misconfigured(f"nothing was measured: {unmeasured[0]}", remedy=_UNMEASURED)
    comparisons = list(evaluation.compared(measured))
    breached = list(gate.breaches(bounds, measured, asked[0].contender.name))
    document = summary.document(measured, comparisons, breached, show_text=show_text)
    if as_json:
        console.print_json(document)
    else:
        whole = len(asked) == 1 if details is None else details
        evaluate_tables.show(measured, comparisons, details=whole, show_text=show_text)
    if out:
        gates = [str(bound) for bound in bounds]
        page = report.render(measured, comparisons, gates, breached, show_text=show_text)
        _write(out, asked, document, page)
    if breached:
        _breach(breached)


def _configured(
    settings: Settings, recorded: object, command: object, endpoint: object
) -> Sequence[str]:
    """The configured guards, unless something else was named to measure."""
    return () if recorded or command or endpoint else settings.guards.names


def _key(variable: str) -> str:
    if variable and not os.environ.get(variable, "").strip():
        raise Misconfigured(
            f"the environment variable {variable} is not set", remedy="Put the endpoint's key in it"
        )
    return os.environ[variable] if variable else ""


async def _ask(
    settings: Settings,
    wanted: Wanted,
    sets: Sequence[DataSet],
    bounds: Sequence[gate.Bound],
    samples: int,
) -> list[Run]:
    """Every contender about every set; gates are checked before the long part."""
    found = []
    async with evaluation.contenders(settings, wanted, console.note) as contenders:
        gate.check_keys(bounds, evaluation.keys(sets), [one.name for one in contenders])
        with _progress() as progress:
            for contender in contenders:
                for one in sets:
                    told = _task(progress, f"{contender.name} on {one.name}", len(one.items))
                    found.append(await runs.run(contender, one, told, sampled=samples))
    return found


def _progress() -> Progress:
    """A bar on stderr; nothing at all where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console.err,
        transient=True,
        disable=not console.err.is_terminal,
    )


def _task(progress: Progress, name: str, items: int) -> Callable[[int], None]:
    task = progress.add_task(name, total=items)
    return lambda more: progress.advance(task, more)


def _write(out: Path, asked: Sequence[Run], document: summary.Document, page: str) -> None:
    """The three files; raises Misconfigured when the folder cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.json").write_bytes(summary.as_json(document))
        (out / "scores.jsonl").write_bytes(b"".join(summary.scores(asked)))
        (out / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise Misconfigured(
            f"{out} cannot be written ({error.strerror})", remedy="Correct --out"
        ) from error
    console.note(f"wrote summary.json, scores.jsonl and report.html to {out}")


def _breach(breached: Sequence[str]) -> NoReturn:
    for line in breached:
        console.error(f"gate breached: {line}")
    raise typer.Exit(Exit.GATE)
