"""`sluice loadtest`: run, compare, sweep, plan. Its libraries are the extra `loadtest`."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline import settings
from pipeline.cli import console, progress, session, tables
from pipeline.cli.exits import Exit
from pipeline.errors import Misconfigured

if TYPE_CHECKING:
    from loadtest.run import Target
    from loadtest.workload import Workload

app = typer.Typer(
    help="Load tests: open loop, measured from the intended send time.", no_args_is_help=True
)
_EXTRA: Final = ("hdrh", "jinja2", "matplotlib", "psutil")

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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_workloads() -> None:
    """The saved workloads and the question each answers."""
    _require_extra()
    from loadtest import workload

    shown = tables.table(["workload", "question"])
    for name in workload.saved_names():
        shown.add_row(name, workload.read(workload.find(name)).question)
    tables.show(shown)


@app.command()
def run(
    name: WorkloadName,
    *,
    embedded: Embedded = False,
    bootstrap_servers: Servers = None,
    triton_metrics: TritonMetrics = None,
    worker_metrics: WorkerMetrics = None,
    watch: Watched = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Run a workload; thresholds first, then where the time went.

    Exits with 99 when a threshold is breached or the run is invalid: its
    generator could not keep the schedule, so that its figures do not count.
    """
    _require_extra()
    from loadtest import workload

    path = workload.find(name)
    load = workload.read(path)
    folder = out or _folder(path.stem)
    chosen = _given(bootstrap_servers, triton_metrics, worker_metrics, watch, embedded=embedded)
    summary = session.run(_run(load, path.stem, folder, chosen))
    if json:
        console.print_json(summary)
    else:
        _show(summary)
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
    out: Out = None,
) -> None:
    """Raise the rate step by step; find the knee and say what limits there.

    Each step is a run of its own, sent once the one before has settled. Ends
    at the first rate that does not hold.
    """
    _require_extra()
    from loadtest import workload

    path = workload.find(name)
    load = workload.read(path)
    steps = _steps(load, rates, step_s)
    folder = out or _folder(path.stem)
    chosen = _given(bootstrap_servers, triton_metrics, worker_metrics, watch, embedded=embedded)
    session.run(_sweep(steps, path.stem, folder, chosen, p95_ms))
    _show_sweep(folder)


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
        _show_differences(found, doubts)
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
        _show_plan(made)


async def _run(load: Workload, name: str, folder: Path, chosen: _Chosen) -> dict[str, Any]:
    from loadtest.run import Running

    async with _target(load, chosen) as target:
        running = Running(load, name, target)
        with progress.shown(running.line), progress.stopping(running.stop):
            return await running.finish(folder)


async def _sweep(
    steps: list[tuple[float, Workload]], name: str, folder: Path, chosen: _Chosen, p95_ms: float
) -> None:
    from loadtest.sweeping import Sweeping

    async with _target(steps[0][1], chosen) as target:
        sweeping = Sweeping(steps, name, target, p95_limit_ms=p95_ms)
        with progress.shown(sweeping.line), progress.stopping(sweeping.stop):
            await sweeping.finish(folder)


class _Chosen:
    """Which stack the arguments choose."""

    def __init__(
        self,
        *,
        embedded: bool,
        servers: str | None,
        triton: tuple[str, ...],
        worker: tuple[str, ...],
        processes: dict[str, int],
    ) -> None:
        self.embedded = embedded
        self.servers = servers
        self.triton = triton
        self.worker = worker
        self.processes = processes


def _given(
    servers: str | None,
    triton: list[str] | None,
    worker: list[str] | None,
    watch: list[str] | None,
    *,
    embedded: bool,
) -> _Chosen:
    if embedded and (servers or triton or worker or watch):
        raise Misconfigured(
            "--embedded starts a stack of its own", remedy="Leave out the addresses of another"
        )
    urls = [*(triton or ()), *(worker or ())]
    if bad := next((url for url in urls if not url.startswith(("http://", "https://"))), None):
        raise Misconfigured(f"{bad!r} is no http address", remedy="Give http://HOST:PORT/metrics")
    return _Chosen(
        embedded=embedded,
        servers=servers,
        triton=tuple(triton or ()),
        worker=tuple(worker or ()),
        processes=dict(_process(each) for each in watch or ()),
    )


def _process(text: str) -> tuple[str, int]:
    name, _, pid = text.partition("=")
    if not name or not pid.isdigit():
        raise Misconfigured(f"{text!r} is not NAME=PID", remedy="For example worker-1=4711")
    return name, int(pid)


@asynccontextmanager
async def _target(load: Workload, chosen: _Chosen) -> AsyncIterator[Target]:
    """The stack under test; an embedded one lives as long as the block."""
    from loadtest.run import Target

    session.quiet()
    overrides: dict[str, Any] = {"topics": dict(load.topics)}
    if chosen.embedded:
        async with _embedded(load, overrides) as target:
            yield target
        return
    if chosen.servers:
        overrides["kafka"] = {"bootstrap_servers": chosen.servers}
    at = settings.load(overrides)
    yield Target(
        name=f"Kafka at {at.kafka.bootstrap_servers}",
        settings=at,
        overrides=overrides,
        triton_urls=chosen.triton,
        worker_urls=chosen.worker,
        processes=chosen.processes,
    )


@asynccontextmanager
async def _embedded(load: Workload, overrides: dict[str, Any]) -> AsyncIterator[Target]:
    from loadtest.run import Target
    from pipeline.embedded.stack import EmbeddedStack

    overrides["topics"]["partitions"] = load.stack.partitions
    data = settings.home() / "loadtest" / f"stack-{os.getpid()}"
    wanted = settings.load(overrides)
    # Workers read the topics' names from their environment, as any worker does.
    environ = {**os.environ, **{f"SLUICE_TOPICS__{k.upper()}": v for k, v in load.topics.items()}}
    stack = EmbeddedStack(
        wanted, home=settings.home(), data=data, environ=environ, say=console.note
    )
    try:
        async with stack:
            for _ in range(load.stack.workers):
                await stack.start_worker()
            reached = overrides | stack.overrides()
            pids = {"kafka": stack.kafka.pid, "triton": stack.triton.pid}
            pids |= {f"worker-{n + 1}": worker.pid for n, worker in enumerate(stack.workers)}
            yield Target(
                name="embedded",
                settings=settings.load(reached),
                overrides=reached,
                triton_urls=(f"http://{stack.triton.metrics_address}/metrics",),
                worker_urls=tuple(f"http://{each.address}/metrics" for each in stack.workers),
                processes={name: pid for name, pid in pids.items() if pid is not None},
            )
    finally:
        shutil.rmtree(data, ignore_errors=True)


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


# Showing ------------------------------------------------------------------------


def _show(summary: dict[str, Any]) -> None:
    from loadtest import table

    state = table.state(summary)
    colour = "green" if state == "PASSED" else "bold red"
    console.out.print(f"[{colour}]{state}[/] {summary['name']}: {summary['workload']['question']}")
    for reason in summary["invalid_because"]:
        console.out.print(f"  invalid: {reason}")
    for mark, text, value in table.threshold_rows(summary):
        console.out.print(
            f"  [{'green' if mark == 'ok' else 'bold red'}]{mark:<8}[/] {text:<24} {value}"
        )
    for warning in summary["warnings"]:
        console.out.print(f"  warning: {warning}")
    console.out.print(f"\n{table.headline(summary)}")
    counts = ", ".join(f"{value} {name}" for name, value in table.count_rows(summary))
    console.out.print(f"{counts}\n")
    _print("milliseconds", table.COLUMNS, table.latency_rows(summary))
    console.out.print(f"{table.ESTIMATED}\n")
    if summary["usage"]:
        heads = ("cores", "CPU µs a message", "peak MiB")
        _print("process", heads, table.usage_rows(summary))


def _print(first: str, heads: tuple[str, ...], rows: Any) -> None:
    shown = tables.table([first, *heads], right=heads)
    for row in rows:
        shown.add_row(*row)
    tables.show(shown)


def _show_sweep(folder: Path) -> None:
    from loadtest import sweeping, table

    found = sweeping.read(folder)
    heads = ("answered/s", "p50 ms", "p95 ms", "p99 ms", "backlog")
    shown = tables.table(["offered/s", *heads, "state"], right=["offered/s", *heads])
    for step in found["steps"]:
        latency = ["-" if (v := step[f"{p}_ms"]) is None else table.milliseconds(v) for p in _P]
        shown.add_row(
            table.number(step["rate_per_s"]),
            table.number(round(step["throughput_per_s"], 1)),
            *latency,
            table.number(step["backlog_max"]),
            step["state"],
        )
    tables.show(shown)
    console.out.print(f"{found['knee']['text']}\n{found['knee']['limit']}")
    console.note(f"\nreport: {folder / 'report.html'}")


_P: Final = ("p50", "p95", "p99")


def _show_differences(found: Any, doubts: list[str]) -> None:
    from loadtest.table import number

    for doubt in doubts:
        console.note(f"take care: {doubt}")
    heads = ("first", "second", "change", "noise")
    shown = tables.table(["figure", *heads, ""], right=heads)
    for each in found:
        figures = (each.before, each.after, each.change, each.bound)
        style = "bold red" if each.word == "worse" else ""
        shown.add_row(each.name, *(number(round(v, 3)) for v in figures), each.word, style=style)
    tables.show(shown)


def _show_plan(made: Any) -> None:
    shown = tables.table(["part", "likely", "range"], right=["likely", "range"])
    rows = (
        ("partitions of each input topic", made.partitions),
        ("workers", made.workers),
        ("Triton replicas", made.triton_replicas),
    )
    for name, need in rows:
        shown.add_row(name, f"{need.likely:,}", f"{need.low:,} to {need.high:,}")
    console.out.print(f"{made.rate_per_s:,g} messages per second, p95 within {made.p95_ms:g} ms")
    tables.show(shown)
    say: Callable[[str], None] = console.out.print
    say("\nModel: replicas = rate * cost / utilisation; p95 = base + k * u / (1 - u)")
    say(f"  worker {_cost(made.worker)}; Triton {_cost(made.triton)}")
    say(
        f"  utilisation {made.utilisation:.2f} (at most 0.80), base {made.base_ms:,.0f} ms,"
        f" k {made.slope_ms:,.1f} ms"
    )
    for remark in made.remarks:
        say(f"  {remark}")
    say("  not in the model: the broker's limits, the network, skewed keys, other processors")


def _cost(cost: Any) -> str:
    return f"{1e6 * cost.seconds:,.0f} µs a message ± {100 * cost.spread:.0f} %"
