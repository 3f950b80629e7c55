"""A replay's result for the terminal: matrix first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from pipeline.cli import console, tables
from pipeline.events import Action
from pipeline.replay.comparison import newly
from pipeline.replay.groups import BY
from pipeline.replay.report import interval, percent
from pipeline.replay.summary import Document
from pipeline.replay.tally import NEWLY
from pipeline.taxonomy import name_of

_LABEL: Final = 15
_EXAMPLES: Final = 8
_GROUPS: Final = 5
_WIDE: Final = 110


def show(found: Document) -> None:
    """Print it."""
    for label, line in _head(found):
        _line(label, line)
    _matrix(found)
    for label, line in (*_changes(found), *_rerun(found), *_caveats(found)):
        _line(label, line)
    _groups(found)
    _examples(found)


def _line(label: str, line: str) -> None:
    """A label and what belongs to it, wrapped beneath itself."""
    width = max(20, console.out.width - _LABEL)
    for number, part in enumerate(Text(line).wrap(console.out, width)):
        mark = ("" if number else label).ljust(_LABEL)
        console.out.print(Text.assemble((mark, "bold"), part.plain.rstrip()))


def _head(found: Document) -> Iterator[tuple[str, str]]:
    request, records = found["request"], found["records"]
    window = found["window"]
    if window["first"]:
        yield "window", f"{_minute(window['first'])} .. {_minute(window['last'])}"
    sample = request["selection"].get("sample")
    sampled = (
        f", a sample of {percent(sample)}, seed {request['selection']['seed']}" if sample else ""
    )
    yield (
        "records",
        f"{records['read']:,} read, {records['compared']:,} compared{sampled}",
    )
    if request["scores"] == "recorded":
        yield "scores", "recorded (no guard was asked)"
    else:
        yield "scores", f"rerun by {_names(found['guards_now'])}"
    yield "policy", f"{_names(found['policies_then'])}  ->  {found['policy']}"


def _matrix(found: Document) -> None:
    """Then in rows, now in columns."""
    actions = [Action(name) for name in found["actions"]]
    wide = console.out.width >= _WIDE or not console.out.is_terminal
    columns = [action.value for action in actions]
    table = tables.table(["then \\ now", *columns, *([""] if wide else [])], right=columns)
    for then in actions:
        row = found["matrix"][then.value]
        cells = [_cell(then, now, row[now.value]) for now in actions]
        table.add_row(
            Text(then.value, style=console.STYLE[then]),
            *cells,
            *([_newly(then, row)] if wide else []),
        )
    tables.show(table)


def _cell(then: Action, now: Action, count: int) -> Text:
    if then is now or not count:
        return Text(f"{count:,}", style="dim" if then is now else "")
    return Text(f"{count:,}", style="bold red" if now.severity > then.severity else "bold yellow")


def _newly(then: Action, row: Mapping[str, int]) -> Text:
    counts = {
        what: sum(count for now, count in row.items() if newly(then, Action(now)) == what)
        for what in NEWLY
    }
    told = ", ".join(f"newly {what} {count:,}" for what, count in counts.items() if count)
    return Text(f"<- {told}" if told else "", style="dim")


def _changes(found: Document) -> Iterator[tuple[str, str]]:
    flips, near = found["flips"], found["near"]
    top = ", ".join(
        f"{name_of(group['name'])} {group['stricter'] - group['milder']:+,}"
        for group in found["groups"]["category"][:3]
        if group["stricter"] != group["milder"]
    )
    yield "flips", _shares(flips) + (f"   top: {top}" if top else "")
    for what in NEWLY:
        if found["newly"][what]["records"]:
            yield f"newly {what}", _shares(found["newly"][what])
    if flips["records"]:
        yield (
            "near",
            (
                f"{near['flips']['records']:,} of the flips were decided within"
                f" {near['margin']:g} of a threshold"
            ),
        )


def _shares(share: Mapping[str, Any]) -> str:
    words = f"{share['records']:,}"
    if share["share"] is not None:
        words += f" ({percent(share['share'])}, 95 % interval {interval(share)})"
    return words


def _rerun(found: Document) -> Iterator[tuple[str, str]]:
    if found["rerun"]:
        moved, took = found["rerun"]["score_differences"], found["rerun"]["inference_s"]
        yield (
            "scores moved",
            (
                f"mean {moved['mean']:.2g}, p99 {moved['p99']:.2g}, at most {moved['max']:.2g}"
                f" of {moved['count']:,} scores"
            ),
        )
        yield (
            "guard call",
            (
                f"recorded p50 {_ms(took['recorded'], 'p50')} p95 {_ms(took['recorded'], 'p95')};"
                f" rerun p50 {_ms(took['rerun'], 'p50')} p95 {_ms(took['rerun'], 'p95')}"
            ),
        )
    check = found["determinism"]
    if check["checked"]:
        otherwise = (
            f"{check['other_decision']:,} decisions otherwise"
            f", largest score difference {check['largest_difference']:.2g}"
            f" (tolerance {check['tolerance']:g})"
        )
        held = "held" if check["held"] else "BROKEN"
        yield "determinism", f"{held}: {check['checked']:,} checked, {otherwise}"


def _caveats(found: Document) -> Iterator[tuple[str, str]]:
    records = found["records"]
    for reason in found["left_out"].values():
        yield "left out", f"{reason['records']:,}: {reason['why']}"
    for digest, count in found["unknown_policies"].items():
        yield "", f"no policy {digest}: {count:,} records"
    for category, count in found["lacking_scores"].items():
        yield (
            "no score",
            f"{count:,}: the policy has a threshold for {category}, the guard no score",
        )
    if records["repeats"]:
        yield "repeats", f"{records['repeats']:,}: a verdict that came again; the first one counts"
    if records["unreadable"]:
        yield "unreadable", f"{records['unreadable']:,} records are no audit events"


def _groups(found: Document) -> None:
    """The groups with most flips, of each sort that has some."""
    narrow = ("flips", "share", "95 % interval", "stricter")
    wide = ("records", *narrow, "milder")
    numbers = narrow if tables.narrow(_WIDE) else wide
    table = tables.table(["by", "", *numbers], right=numbers)
    for by in BY:
        flipped = [group for group in found["groups"][by] if group["flips"]["records"]]
        for number, group in enumerate(flipped[:_GROUPS]):
            name = name_of(group["name"]) if by == "category" else group["name"]
            figures = {
                "records": f"{group['records']:,}",
                "flips": f"{group['flips']['records']:,}",
                "share": percent(group["flips"]["share"]),
                "95 % interval": interval(group["flips"]),
                "stricter": f"{group['stricter']:,}",
                "milder": f"{group['milder']:,}",
            }
            cells = (figures[name] for name in numbers)
            table.add_row("" if number else by, Text(name), *cells)
    if table.row_count:
        tables.show(table)


def _examples(found: Document) -> None:
    """The first flip of each sort; all of them are in `flips.jsonl`."""
    for cell, lines in list(found["examples"].items())[:_EXAMPLES]:
        then, now = cell.split()
        text = lines[0].get("text")
        shown = f"  {text[:200]!r}" if text is not None else ""
        because = _because(lines[0])
        _line("example", f"{then} -> {now}  {lines[0]['verdict_id']}{because}{shown}")


def _because(example: Mapping[str, Any]) -> str:
    sides = (example["after"]["because"], example["before"]["because"])
    why = next((side for side in sides if side), None)
    return f"  {why['category']} {why['score']:.3f} >= {why['threshold']:g}" if why else ""


def _names(counts: Mapping[str, int]) -> str:
    names: Sequence[str] = list(counts)
    if not names:
        return "none"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _minute(moment: str) -> str:
    return f"{moment[:16]}Z"


def _ms(spread: Mapping[str, float], name: str) -> str:
    return f"{spread[name] * 1000:.1f} ms"
