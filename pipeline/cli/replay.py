"""`sluice replay`: what would another policy, or another guard, have decided?"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline import audit_check, audit_log, drawing, wiring, wiring_replay
from pipeline.cli import console, progress, replay_tables, session
from pipeline.cli.exits import Exit
from pipeline.errors import Misconfigured
from pipeline.events import Action, Kind, Status
from pipeline.ranges import parse_range
from pipeline.replay import gates, report, summary
from pipeline.replay.folder import Folder
from pipeline.replay.plan import Request, Scores
from pipeline.replay.policies import OneForAll
from pipeline.replay.run import Run
from pipeline.replay.summary import Document
from pipeline.replay.tally import guard_name, policy_name
from pipeline.selection import Selection, parse_share
from pipeline.settings import Settings
from pipeline.taxonomy import spelt
from pipeline.wiring_replay import Order

Several = list[str] | None


def replay(
    *,
    policy: Annotated[
        str, typer.Option(help="A policy file, a digest, or `recorded`: the one that judged then.")
    ],
    scores: Annotated[
        Scores, typer.Option(help="Decide by the recorded scores, or score kept content again.")
    ] = Scores.RECORDED,
    start: Annotated[
        str | None, typer.Option("--from", help="Records from this time on: -1h, 2026-11-23.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Records before this time; none: up to now.")
    ] = None,
    offsets: Annotated[
        Several, typer.Option(help="PARTITION:START-END of the audit topic. Repeatable.")
    ] = None,
    tenant: Annotated[Several, typer.Option(help="Only this tenant. Repeatable.")] = None,
    kind: Annotated[list[Kind] | None, typer.Option(help="Only this kind.")] = None,
    action: Annotated[
        list[Action] | None, typer.Option(help="Only records with this action. Repeatable.")
    ] = None,
    status: Annotated[
        list[Status] | None, typer.Option(help="Only records with this status. Repeatable.")
    ] = None,
    category: Annotated[
        Several, typer.Option(help="Only records flagged in this category. Repeatable.")
    ] = None,
    ids: Annotated[
        Several, typer.Option(help="A verdict or message id, or a file of them. Repeatable.")
    ] = None,
    sample: Annotated[str, typer.Option(help="Share of the records, such as 1%.")] = "100%",
    seed: Annotated[int, typer.Option(help="Picks another sample of the same size.")] = 0,
    guard: Annotated[
        Several, typer.Option(help="Guard for a rerun; none: guards.names. Repeatable.")
    ] = None,
    embedded: Annotated[
        bool, typer.Option(help="Start a Triton for a rerun where none answers.")
    ] = True,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="A score so close to its threshold is near it.")
    ] = 0.02,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Scores of the same guard may differ by this.")
    ] = 0.0001,
    show_text: Annotated[bool, typer.Option(help="Show the texts of flips.")] = False,
    emit: Annotated[
        str, typer.Option(help="Write the audit events as they would have been to this topic.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for summary.json, flips.jsonl, report.html.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on where a replay into --out ended.")] = False,
    max_newly_blocked: Annotated[
        str | None, typer.Option(help="0.2% or a number of records; more: exit 99.")
    ] = None,
    max_newly_released: Annotated[
        str | None, typer.Option(help="0 or a share of the records; more: exit 99.")
    ] = None,
    determinism: Annotated[
        bool, typer.Option(help="Exit 99 unless the same policy and guard gave the same again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Decide the audit log again: under another policy, or by another guard.

    Reads what the audit topic holds when it starts, without a consumer group,
    and writes to no topic but that of --emit.

    Examples: sluice replay --policy strict.toml --from -24h --max-newly-blocked 0.2% --out run
              sluice replay --policy recorded --scores rerun --determinism
              sluice replay --policy strict.toml --tenant kids --sample 10% --seed 7
    """
    bounds = [
        gates.parse(what, text)
        for what, text in (("blocked", max_newly_blocked), ("released", max_newly_released))
        if text is not None
    ]
    if resume and out is None:
        raise Misconfigured("--resume needs a folder", remedy="Add --out")
    if out is not None:
        drawing.require()
    selection = Selection(
        tenants=frozenset(tenant or ()),
        kinds=frozenset(kind or ()),
        actions=frozenset(action or ()),
        statuses=frozenset(status or ()),
        categories=spelt(category or ()),
        ids=_ids(ids or ()),
        sample=parse_share(sample),
        seed=seed,
    )
    settings = session.begin()
    rerun = scores is Scores.RERUN
    guards = wiring_replay.guards_of(settings, guard or ()) if rerun else []
    if guard and not rerun:
        raise Misconfigured("--guard is for a rerun", remedy="Add --scores rerun")
    choice = session.run(wiring_replay.choose(settings, policy))
    decides = choice.policy.ref if isinstance(choice, OneForAll) else None
    order = Order(
        request=Request(
            topic=settings.topics.audit,
            policy=decides.digest if decides else policy,
            scores=scores,
            guards=tuple(guard_name(g.card.name, g.card.version, g.card.digest) for g in guards),
            start=start or "start",
            end=end or "end",
            offsets=tuple(offsets or ()),
            selection=selection.as_json(),
            margin=margin,
            tolerance=tolerance,
            show_text=show_text,
            emit=emit,
        ),
        choice=choice,
        selection=selection,
        span=parse_range(start, end, now=datetime.now(UTC)),
        offsets=[audit_log.parse_offsets(each) for each in offsets or ()],
        guards=guards,
        opener=wiring.open_keys(settings),
        folder=Folder(out, resume=resume) if out is not None else None,
        embedded=embedded,
    )
    run = session.run_quickly(_run(settings, order))
    _interrupted(run, order)
    tally = run.state.tally
    breached = list(gates.breaches(bounds, tally))
    if determinism:
        breached += gates.broken_determinism(tally)
    found = summary.document(
        run.plan,
        run.state.passed,
        tally,
        policy=policy_name(decides) if decides else "the policy of each record's day",
        bounds=bounds,
        breached=breached,
    )
    _tell(found, order, as_json=as_json)
    _end(found, breached)


def _ids(given: Sequence[str]) -> frozenset[str]:
    """Ids as given, and those in the lines of a file."""
    found: set[str] = set()
    for each in given:
        path = Path(each)
        try:
            found.update(path.read_text().split() if path.is_file() else [each])
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(
                f"--ids {each} cannot be read ({type(error).__name__})", remedy="Correct the path"
            ) from error
    return frozenset(found)


async def _run(settings: Settings, order: Order) -> Run:
    async with wiring_replay.opened(settings, order, console.note) as (run, entries):
        began_s, before = time.monotonic(), run.done
        with (
            _fewer_collections(),
            progress.shown(lambda: _progress(run, before, time.monotonic() - began_s)),
            progress.stopping(run.stop),
        ):
            await run.go(entries)
        took_s = time.monotonic() - began_s
        if not run.stopped:
            told = run.done - before
            console.note(f"{told:,} records in {took_s:.1f} s, {told / max(took_s, 1e-9):,.0f}/s")
    return run


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Look for cycles seldom: records hold none, and looking took a sixth of the time."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _progress(run: Run, before: int, elapsed_s: float) -> str:
    done, records = run.done, run.plan.records
    rate = (done - before) / max(elapsed_s, 0.1)
    left = f", {_time((records - done) / rate)} left" if rate else ""
    return f"replaying: {done:,} of {records:,} records, {rate:,.0f}/s{left}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes else f"{rest} s"


def _interrupted(run: Run, order: Order) -> None:
    """End here when it was stopped before it was done."""
    if not run.stopped:
        return
    kept = f"; --resume --out {order.folder.path} goes on from there" if order.folder else ""
    console.note(f"interrupted after {run.done:,} of {run.plan.records:,} records{kept}")
    raise typer.Exit(Exit.INTERRUPTED)


def _tell(found: Document, order: Order, *, as_json: bool) -> None:
    if as_json:
        console.print_json(found)
    else:
        replay_tables.show(found)
    if order.folder is not None:
        order.folder.finish(summary.as_bytes(found), report.render(found))
        console.note(f"wrote summary.json, flips.jsonl and report.html to {order.folder.path}")


def _end(found: Document, breached: Sequence[str]) -> None:
    """Exit with 99 for a gate, and with 4 where there was nothing to compare."""
    for line in breached:
        console.error(f"gate breached: {line}")
    if breached:
        raise typer.Exit(Exit.GATE)
    if not found["records"]["compared"]:
        console.note("nothing was compared: no record in these bounds was asked for and usable")
        records = found["records"]
        if hint := audit_check.hint(records["read"], records["unreadable"]):
            console.note(hint)
        raise typer.Exit(Exit.EMPTY)
