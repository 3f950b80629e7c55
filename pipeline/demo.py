"""The main job, shown: publish the sample traffic, watch verdicts, reconcile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Protocol

from pipeline import client as clients
from pipeline import samples
from pipeline.client import Client
from pipeline.counting import Counting
from pipeline.errors import SluiceError
from pipeline.events import Message, Verdict
from pipeline.reconcile import Reconciliation
from pipeline.settings import Settings

IDLE_ROUNDS: Final = 15
"""Single messages that measure the time from idle to verdict."""

_AVRO_EVERY: Final = 2
"""Every other sample goes as Avro, the rest as JSON: both are real traffic."""

_SETTLE_WITHIN_S: Final = 120.0


class Show(Protocol):
    """Whoever shows the demo's progress."""

    def say(self, line: str) -> None:
        """A remark between the steps."""

    def expect(self, messages: int) -> None:
        """So many sample messages are on their way."""

    def verdict(self, verdict: Verdict) -> None:
        """A verdict arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Seconds from publishing a lone short message to reading its verdict."""

    rounds: Sequence[float]

    @property
    def median_s(self) -> float:
        """The median round."""
        return median(self.rounds)


async def idle(settings: Settings) -> Idle:
    """Time single short messages, one after the other, on an otherwise idle stack."""
    rounds = []
    async with Client(settings) as client:
        for number in range(IDLE_ROUNDS + 1):
            began_s = time.perf_counter()
            await client.moderate(
                clients.prompt("Is the library open on Sunday?", message_id=f"idle-{number}")
            )
            rounds.append(time.perf_counter() - began_s)
    return Idle(rounds=rounds[1:])  # the first one opens connections


async def traffic(settings: Settings, show: Show) -> Reconciliation:
    """Publish all samples, show their verdicts, and count until every input has an outcome."""
    messages, malformed = list(samples.traffic()), list(samples.malformed())
    show.expect(len(messages) + len(malformed))
    async with Client(settings) as avro, Client(settings, watch=False, wire="json") as json:
        watching = asyncio.create_task(_watch(avro, show))
        try:
            await _publish(avro, json, messages, malformed)
            async with Counting.open(settings) as counting:
                return await counting.settled(within_s=_SETTLE_WITHIN_S)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _publish(
    avro: Client,
    json: Client,
    messages: Sequence[Message],
    malformed: Sequence[samples.Malformed],
) -> None:
    """Malformed cases are spread among the messages, as they are in life."""
    step = max(1, len(messages) // max(1, len(malformed)))
    for number, message in enumerate(messages):
        await (avro if number % _AVRO_EVERY else json).publish(message)
        if number % step == 0 and number // step < len(malformed):
            await _publish_malformed(avro, malformed[number // step])


async def _publish_malformed(client: Client, case: samples.Malformed) -> None:
    # Kafka itself refuses a record with neither key nor value.
    key = case.key or (b"demo" if case.value is None else None)
    await client.publish_raw(case.kind, case.value, key=key, headers=case.headers)


async def _watch(client: Client, show: Show) -> None:
    async for verdict in client.verdicts():
        show.verdict(verdict)


def problem(report: Reconciliation) -> SluiceError | None:
    """The error a demo ends with when an input has no outcome, or two."""
    if report.balanced:
        return None
    return SluiceError(
        f"{report.total('missing')} inputs have no outcome, {report.total('both')} have two",
        remedy="Look at the worker's log",
    )
