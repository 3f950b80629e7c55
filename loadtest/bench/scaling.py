"""`python -m loadtest.bench.scaling`: how the worker's cost grows, beside a guard that is none.

Throughput against workers and partitions, CPU against the length of a text, and
memory over a long run. `--plot` draws what `--json` wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import orjson

from loadtest import environment
from loadtest.bench import scene
from loadtest.bench.answer import answer, say
from loadtest.bench.drain import Drained, drain
from loadtest.bench.messages import TEXT_CHARS
from loadtest.bench.options import natural, positive, writable
from pipeline.embedded import EmbeddedKafka
from pipeline.settings import home

WORKERS: Final = (1, 2, 4)
CHARS: Final = (100, 400, 1600, 6400)
SHARES: Final = (0.1, 0.25, 0.5, 0.75, 1.0)


async def measure(messages: int, long_run: int) -> dict[str, Any]:
    """Every figure, as it goes to `--json`; a long run of 0 messages is left out."""
    machine = environment.describe()
    with TemporaryDirectory(prefix="sluice-scaling-") as name:
        folder = Path(name)
        async with EmbeddedKafka(home(), folder / "kafka", on_progress=say) as kafka:
            place = _Place(kafka, folder)
            return {
                "environment": machine,
                "workers": [await place.workers(count, messages) for count in WORKERS],
                "lengths": [await place.length(chars, messages) for chars in CHARS],
                "memory": await place.memory(long_run) if long_run else None,
            }


class _Place:
    """A broker, and a folder for guards and logs."""

    def __init__(self, kafka: EmbeddedKafka, folder: Path) -> None:
        self._kafka = kafka
        self._folder = folder

    async def workers(self, count: int, messages: int) -> dict[str, Any]:
        """So many workers on as many partitions."""
        done = await self._drain(messages, workers=count, chars=TEXT_CHARS)
        say(f"{count} workers, {count} partitions: {done.per_s:,.0f}/s, {done.cpu_us:.0f} µs each")
        return {"workers": count, "per_s": done.per_s, "cpu_us": done.cpu_us}

    async def length(self, chars: int, messages: int) -> dict[str, Any]:
        """One worker on texts of a length."""
        done = await self._drain(
            max(500, messages * 400 // max(400, chars)), workers=1, chars=chars
        )
        say(f"{chars} characters: {done.cpu_us:.0f} µs each")
        return {"chars": chars, "per_s": done.per_s, "cpu_us": done.cpu_us}

    async def memory(self, messages: int) -> dict[str, Any]:
        """One worker over a long run: its resident memory, by share of the run."""
        done = await self._drain(messages, workers=1, chars=TEXT_CHARS)
        levels = {str(share): done.rss_mib(share) for share in SHARES}
        say(f"{messages:,} messages: {', '.join(f'{mib:.0f}' for mib in levels.values())} MiB")
        return {"messages": messages, "per_s": done.per_s, "rss_mib": levels}

    async def _drain(self, messages: int, *, workers: int, chars: int) -> Drained:
        opened = scene.open_scene(
            self._kafka, self._folder, messages, partitions=workers, chars=chars
        )
        async with opened as ready:
            return await drain(ready.common, messages, self._folder, workers)


def lines(found: Mapping[str, Any]) -> list[str]:
    """The result as Markdown tables."""
    made = ["| workers = partitions | messages/s, all | CPU a message |", "|---|---|---|"]
    made += [
        f"| {row['workers']} | {row['per_s']:,.0f} | {row['cpu_us']:.0f} µs |"
        for row in found["workers"]
    ]
    made += ["", *_lengths(found["lengths"])]
    if memory := found["memory"]:
        made += ["", f"| share of {memory['messages']:,} messages | resident memory |", "|---|---|"]
        made += [
            f"| {float(share):.0%} | {mib:.0f} MiB |" for share, mib in memory["rss_mib"].items()
        ]
    return made


def _lengths(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a character costs, without what any message does: beyond the shortest text."""
    short = rows[0]
    yield f"| characters | CPU a message | a character beyond the first {short['chars']:,} |"
    yield "|---|---|---|"
    yield f"| {short['chars']:,} | {short['cpu_us']:.0f} µs | - |"
    for row in rows[1:]:
        more_us = (row["cpu_us"] - short["cpu_us"]) / (row["chars"] - short["chars"])
        yield f"| {row['chars']:,} | {row['cpu_us']:.0f} µs | {more_us:.2f} µs |"


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Both curves as an SVG file that reads on light and dark."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib.figure import Figure

    grey = "#808080"
    style: dict[Any, Any] = {"svg.hashsalt": "sluice", "svg.fonttype": "none"}
    style |= {f"{what}.color": grey for what in ("xtick", "ytick", "text", "grid")}
    style |= {"axes.edgecolor": grey, "axes.labelcolor": grey}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(8.5, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes, rows, x, label in (
            (left, found["workers"], "workers", "workers = partitions"),
            (right, found["lengths"], "chars", "characters of a text"),
        ):
            key = "per_s" if x == "workers" else "cpu_us"
            axes.plot([r[x] for r in rows], [r[key] for r in rows], "o-", color="#3b7dd8")
            axes.set(xlabel=label, ylabel="messages/s" if key == "per_s" else "µs CPU a message")
            axes.set_ylim(0, 1.08 * max(r[key] for r in rows))
            axes.grid(visible=True, linewidth=0.4)
        left.set_xticks([row["workers"] for row in found["workers"]])
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or draw; 1 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.scaling", description=__doc__)
    parser.add_argument("--messages", type=positive, default=12_000)
    parser.add_argument(
        "--long-run", type=natural, default=0, help="messages; 1000000 takes minutes"
    )
    parser.add_argument("--json", type=writable, metavar="FILE", help="write every figure there")
    parser.add_argument("--plot", type=writable, metavar="SVG", help="draw the figures in --json")
    given = parser.parse_args(arguments)
    if given.plot:
        if given.json is None or not given.json.is_file():
            parser.error("--plot needs the --json FILE of an earlier run")
        plot(orjson.loads(given.json.read_bytes()), given.plot)
        return 0
    return answer(measure(given.messages, given.long_run), lines, given.json)


if __name__ == "__main__":
    sys.exit(main())
