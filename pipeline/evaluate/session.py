"""The whole of an evaluation: open the contenders, ask, measure, compare."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from pipeline.errors import Misconfigured
from pipeline.evaluate import command, recorded, results, served
from pipeline.evaluate.compare import Comparison, compare
from pipeline.evaluate.contenders import DEFAULT_THRESHOLD, Contender
from pipeline.evaluate.endpoint import EndpointFilter
from pipeline.evaluate.items import DataSet, Head
from pipeline.evaluate.results import Measured, measure
from pipeline.evaluate.runs import Run
from pipeline.settings import Settings

_SAMPLE_SEED: Final = 20261


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be measured: served guards, recorded scores, commands, an endpoint."""

    guards: Sequence[str] = ()
    recorded: Sequence[str] = ()
    commands: Sequence[str] = ()
    endpoint: str = ""
    endpoint_model: str = ""
    key: str = ""
    point: str = "balanced"
    threshold: float = DEFAULT_THRESHOLD
    embedded: bool = True


@asynccontextmanager
async def contenders(
    settings: Settings, wanted: Wanted, say: Callable[[str], None]
) -> AsyncIterator[list[Contender]]:
    """All of them, in the order guards, recorded, commands, endpoint, until the block ends.

    Raises a SluiceError for the first that cannot be had.
    """
    found: list[Contender] = []
    async with AsyncExitStack() as stack:
        for spec in wanted.recorded:
            found += recorded.load(spec, wanted.threshold)
        if wanted.endpoint:
            found.append(EndpointFilter(wanted.endpoint, wanted.endpoint_model, wanted.key))
        for spec in wanted.commands:
            started = await stack.enter_async_context(command.start(spec, wanted.threshold))
            found.insert(len(found) - bool(wanted.endpoint), started)
        if wanted.guards:
            serving = served.serve(
                settings, wanted.guards, wanted.point, embedded=wanted.embedded, say=say
            )
            found[:0] = await stack.enter_async_context(serving)
        yield _named_apart(found)


def _named_apart(found: list[Contender]) -> list[Contender]:
    """The contenders, a repeated name numbered: every figure is filed by name."""
    taken: set[str] = set()
    for one in found:
        number, name = 1, one.name
        while one.name in taken:
            number += 1
            one.name = f"{name}-{number}"
        taken.add(one.name)
    return found


def prepared(data: DataSet, head: Head | None, limit: int) -> DataSet:
    """A set with the head asked for, and at most `limit` items of it (0: all).

    The sample is the same every time. Raises Misconfigured when the set has no
    labels for the head.
    """
    heads = (head,) if head else data.heads
    labelled = [one for one in data.items if any(one.truth(each) is not None for each in heads)]
    if not labelled:
        raise Misconfigured(
            f"set {data.name} has no labels for the head {head or 'hazard'}",
            remedy=f"It has them for: {', '.join(data.heads)}",
        )
    notes = data.notes
    if 0 < limit < len(labelled):
        notes = (*notes, f"a sample of {limit:,} of {len(labelled):,} items")
        kept = sorted(random.Random(_SAMPLE_SEED).sample(range(len(labelled)), limit))  # noqa: S311
        labelled = [labelled[place] for place in kept]
    return replace(data, items=labelled, heads=heads, notes=notes)


def keys(sets: Sequence[DataSet]) -> list[str]:
    """The keys that the results will have, one for each set and head."""
    return [_key(data, head) for data in sets for head in data.heads]


def _key(data: DataSet, head: Head) -> str:
    return data.name if head is data.heads[0] else f"{data.name}-{head.value}"


def measured(runs: Sequence[Run]) -> Iterator[Measured]:
    """The figures of each run for each of its set's heads."""
    for run in runs:
        for head in run.data.heads:
            found = measure(run, head)
            if found is not None:
                yield found


def unmeasured(runs: Sequence[Run]) -> list[str]:
    """A line for each run and head without figures: nobody must take them for measured."""
    lines = (results.unmeasured(run, head) for run in runs for head in run.data.heads)
    return [line for line in lines if line]


def compared(all_measured: Sequence[Measured]) -> Iterator[Comparison]:
    """The first contender against each other one, set by set."""
    if not all_measured:
        return
    lead = all_measured[0].guard
    for first in all_measured:
        for second in all_measured:
            if first.guard == lead != second.guard and first.key == second.key:
                yield compare(first, second)
