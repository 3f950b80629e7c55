"""Ask a contender about a set: all answers, and how long it took by length.

Items of like length are asked together, in batches, which gives the rate; a
sample of each length is then asked one at a time, which gives the latency.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.errors import Misconfigured
from pipeline.evaluate.contenders import Answer, Contender
from pipeline.evaluate.items import DataSet, Item

LENGTHS: Final = (64, 256, 1024, 4096)
"""Upper bounds of the length buckets, in characters; the last has none."""

Progress = Callable[[int], None]
"""Told how many more items have been answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One length bucket: `items` in `elapsed_s` in batches, and latencies alone."""

    length: str
    items: int
    elapsed_s: float
    latencies_s: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        """Items per second in batches."""
        return self.items / self.elapsed_s if self.elapsed_s else 0.0

    def latency_ms(self, percent: float) -> float | None:
        """A percentile of the latencies in milliseconds, None without any."""
        if not self.latencies_s:
            return None
        return float(np.percentile(self.latencies_s, percent)) * 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A contender's answers to a set, in the set's order, and its speed."""

    contender: Contender
    data: DataSet
    answers: Sequence[Answer]
    speeds: Sequence[Speed]


async def run(contender: Contender, data: DataSet, progress: Progress, *, sampled: int) -> Run:
    """Ask about every item; at most `sampled` of each length again for latency."""
    answers: list[Answer] = [Answer()] * len(data.items)
    speeds = []
    for length, places in by_length(data.items).items():
        began_s = time.perf_counter()
        await _ask(contender, data, places, answers, progress)
        elapsed_s = time.perf_counter() - began_s
        if contender.pace.timed:
            alone = await _latencies(contender, data, places, sampled)
            speeds.append(
                Speed(length=length, items=len(places), elapsed_s=elapsed_s, latencies_s=alone)
            )
    _require_some(contender, data, answers)
    return Run(contender=contender, data=data, answers=answers, speeds=speeds)


def by_length(items: Sequence[Item]) -> dict[str, list[int]]:
    """Places of the items by length bucket, shortest first, within it too."""
    buckets: dict[str, list[int]] = {}
    for place in sorted(range(len(items)), key=lambda one: len(items[one].text)):
        buckets.setdefault(bucket(len(items[place].text)), []).append(place)
    return buckets


def bucket(characters: int) -> str:
    """The name of the bucket that a length falls into."""
    bound = next((bound for bound in LENGTHS if characters <= bound), None)
    return f"> {LENGTHS[-1]}" if bound is None else f"<= {bound}"


async def _ask(
    contender: Contender,
    data: DataSet,
    places: Sequence[int],
    answers: list[Answer],
    progress: Progress,
) -> None:
    """Fill in the answers, a bounded number of batches at a time."""
    pace, room = contender.pace, asyncio.Semaphore(contender.pace.in_flight)

    async def one(batch: Sequence[int]) -> None:
        async with room:
            found = await contender.answer(data.name, [data.items[place] for place in batch])
        for place, answer in zip(batch, found, strict=True):
            answers[place] = answer
        progress(len(batch))

    batches = [places[at : at + pace.batch] for at in range(0, len(places), pace.batch)]
    tasks = [asyncio.ensure_future(one(batch)) for batch in batches]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _latencies(
    contender: Contender, data: DataSet, places: Sequence[int], sampled: int
) -> tuple[float, ...]:
    """Seconds per item asked alone, of a sample spread evenly."""
    count = min(sampled, contender.pace.sampled, len(places))
    spread = np.linspace(0, len(places) - 1, count).round().astype(int)
    found = []
    for index in spread:
        began_s = time.perf_counter()
        await contender.answer(data.name, [data.items[places[index]]])
        found.append(time.perf_counter() - began_s)
    return tuple(found)


def _require_some(contender: Contender, data: DataSet, answers: Sequence[Answer]) -> None:
    if not any(answer.scores for answer in answers):
        reasons = sorted({answer.problem for answer in answers if answer.problem})
        raise Misconfigured(
            f"{contender.name} gave no score for set {data.name} ({', '.join(reasons)})",
            remedy="Check that guard and set belong together; recorded ids must match the set's",
        )
