"""`sluice loadtest`: run, compare, sweep, plan. Its libraries are the extra `loadtest`."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline import settings
from pipeline.cli import console, progress, session, tables
from pipeline.cli import loadtest_tables as shown
from pipeline.cli import loadtest_target as target
from pipeline.cli.exits import Exit
from pipeline.errors import Misconfigured

if TYPE_CHECKING:
    from loadtest.workload import Workload

app = typer.Typer(help="Load tests: open loop, measured from the intended send time.")
_EXTRA: Final = ("hdrh", "jinja2", "matplotlib", "psutil")
_SEEDS: Final = 1_000_000_000

WorkloadName = Annotated[str, typer.Argument(help="A TOML file, or the name of a saved one.")]
Embedded = Annotated[bool, typer.Option("--embedded", help="Start a stack of its own.")]
Servers = Annotated[
    str | None, typer.Option("--bootstrap-servers", help="A stack's Kafka; else the settings'.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the artefacts.")]
TritonMetrics = Annotated[
    list[str] | None, typer.Option(metavar="URL", help="Triton's metrics page; may be repeated.")
]
WorkerMetrics = Annotated[
    list[str] | None, typer.Option(metavar="URL", help="A worker's metrics page; may be repeated.")
]
Watched = Annotated[
    list[str] | None,
    typer.Option("--watch", metavar="NAME=PID", help="A process of the stack that runs here."),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, help="Which texts; else the file's, or new ones for a running stack."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_workloads() -> None:
    """The saved workloads and the question each answers."""
    _require_extra()
    from loadtest import workload

    listed = tables.table(["workload", "question"])
    for name in workload.saved_names():
        listed.add_row(name, workload.read(workload.find(name)).question)
    tables.show(listed)


@app.command()
def run(
    name: WorkloadName,
    *,
    embedded: Embedded = False,
    bootstrap_servers: Servers = None,
    triton_metrics: TritonMetrics = None,
    worker_metrics: WorkerMetrics = None,
    watch: Watched = None,
    seed: Seed = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Run a workload; thresholds first, then where the time went.

    Exits with 99 when a threshold is breached or the run is invalid: its
    generator could not keep the schedule, so that its figures do not count.
    """
    _require_extra()
    from loadtest import artefacts, workload

    path = workload.find(name)
    load = _seeded(workload.read(path), seed, embedded=embedded)
    folder = out or _folder(path.stem)
    chosen = target.given(
        bootstrap_servers, triton_metrics, worker_metrics, watch, embedded=embedded
    )
    artefacts.prepare(folder)
    summary = session.run(_run(load, path.stem, folder, chosen))
    if json:
        console.print_json(summary)
    else:
        shown.show_run(summary)
        console.note(f"\nreport: {folder / 'report.html'}")
    if summary["interrupted"]:
        raise typer.Exit(Exit.INTERRUPTED)
    raise typer.Exit(Exit.OK if summary["passed"] else Exit.GATE)


@app.command()
def sweep(
    name: WorkloadName,
    *,
    embedded: Embedded = False,
    bootstrap_servers: Servers = None,
    triton_metrics: TritonMetrics = None,
    worker_metrics: WorkerMetrics = None,
    watch: Watched = None,
    rates: Annotated[
        str | None, typer.Option(metavar="R1,R2,...", help="Rates per second, ascending.")
    ] = None,
    step_s: Annotated[float | None, typer.Option("--step", min=1, help="Seconds a rate.")] = None,
    p95_ms: Annotated[float, typer.Option("--p95-ms", min=1, help="What a rate must hold.")] = 500,
    seed: Seed = None,
    out: Out = None,
) -> None:
    """Raise the rate step by step; find the knee and say what limits there.

    Each step is a run of its own, sent once the one before has settled. Ends
    at the first rate that does not hold.
    """
    _require_extra()
    from loadtest import artefacts, workload

    path = workload.find(name)
    load = _seeded(workload.read(path), seed, embedded=embedded)
    steps = _steps(load, rates, step_s)
    folder = out or _folder(path.stem)
    chosen = target.given(
        bootstrap_servers, triton_metrics, worker_metrics, watch, embedded=embedded
    )
    artefacts.prepare(folder)
    session.run(_sweep(steps, path.stem, folder, chosen, p95_ms))
    if shown.show_sweep(folder)["interrupted"]:
        raise typer.Exit(Exit.INTERRUPTED)


@app.command()
def compare(first: Path, second: Path, json: Json = False) -> None:
    """What the second run does worse than the first, beyond their noise.

    Takes folders that `run` wrote. Exits with 99 when anything is worse.
    """
    _require_extra()
    from loadtest import artefacts
    from loadtest import compare as comparing

    before, after = artefacts.read(first), artefacts.read(second)
    found, doubts = comparing.compare(before, after), comparing.doubts(before, after)
    if json:
        rows = [
            {"name": d.name, "before": d.before, "after": d.after, "bound": d.bound, "word": d.word}
            for d in found
        ]
        console.print_json({"doubts": doubts, "differences": rows})
    else:
        shown.show_differences(found, doubts)
    worse = any(each.word == "worse" for each in found)
    raise typer.Exit(Exit.GATE if worse else Exit.OK)


@app.command()
def plan(
    *,
    target_rate: Annotated[float, typer.Option(min=0.1, help="Messages per second to carry.")],
    p95_ms: Annotated[float, typer.Option("--p95-ms", min=1, help="Latency to keep.")] = 500,
    source: Annotated[Path, typer.Option("--from", help="A folder that `sweep` wrote.")],
    json: Json = False,
) -> None:
    """How many partitions, workers and Triton replicas a rate takes, and how sure that is."""
    _require_extra()
    from dataclasses import asdict

    from loadtest import plan as planning
    from loadtest import sweeping

    made = planning.plan(sweeping.read(source), rate_per_s=target_rate, p95_ms=p95_ms)
    if json:
        console.print_json(asdict(made))
    else:
        shown.show_plan(made)


async def _run(load: Workload, name: str, folder: Path, chosen: target.Chosen) -> dict[str, Any]:
    from loadtest.run import Running

    async with target.opened(load, chosen) as stack:
        running = Running(load, name, stack)
        with progress.shown(running.line), progress.stopping(running.stop):
            return await running.finish(folder)


async def _sweep(
    steps: list[tuple[float, Workload]],
    name: str,
    folder: Path,
    chosen: target.Chosen,
    p95_ms: float,
) -> None:
    from loadtest.sweeping import Sweeping

    async with target.opened(steps[0][1], chosen) as stack:
        sweeping = Sweeping(steps, name, stack, p95_limit_ms=p95_ms)
        with progress.shown(sweeping.line), progress.stopping(sweeping.stop):
            await sweeping.finish(folder)


def _seeded(load: Workload, seed: int | None, *, embedded: bool) -> Workload:
    """The workload with the texts that were asked for.

    Workers that run on remember what they judged: unless a seed is named, each
    run brings other texts, and its summary says by which seed.
    """
    if seed is None:
        if embedded or "seed" in load.model_fields_set:
            return load
        seed = secrets.randbelow(_SEEDS)
    return load.model_copy(update={"seed": seed})


def _steps(load: Workload, rates: str | None, step_s: float | None) -> list[tuple[float, Workload]]:
    from loadtest import sweeping

    return sweeping.steps(load, _rates(rates) if rates else None, step_s)


def _rates(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise Misconfigured(
            f"{text!r} is not a list of rates", remedy="For example --rates 50,100,200"
        ) from None


def _folder(name: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return settings.home() / "loadtest" / f"{stamp}-{name}"


def _require_extra() -> None:
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise Misconfigured(
            f"load tests need {', '.join(missing)}", remedy="Run: pip install 'sluice[loadtest]'"
        )
