"""Judge one message without Kafka: the worker's own steps, once.

The configured Triton judges when it answers; otherwise one is started for the
call, so that a first try needs nothing running.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pipeline import settings as settings_file
from pipeline import wiring
from pipeline.adapters.triton import TritonClassifier
from pipeline.errors import DependencyUnavailable, Misconfigured, Rejected, Retryable
from pipeline.events import Judgement, Message, Position, Received, Verdict
from pipeline.moderation import Case, Intake, Stamp, admit, conclude
from pipeline.policy import Rules
from pipeline.scoring import Scorer
from pipeline.settings import Settings

POSITION: Final = Position(topic="classify", partition=0, offset=0)
"""Stands in the verdict for a position in Kafka, which there is none of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict, the rules it came by, and the seconds that scoring took."""

    verdict: Verdict
    rules: Rules
    elapsed_s: float


async def judge(
    settings: Settings, message: Message, *, embedded: bool, say: Callable[[str], None]
) -> Judged:
    """The verdict on a message; `say` gets a line when a Triton is started for it.

    Raises Misconfigured for a text that cannot be judged, DependencyUnavailable
    when no Triton answers and `embedded` does not allow one to be started.
    """
    case = _case(settings, message)
    async with _answering(settings, embedded=embedded, say=say) as scorer:
        began_s = time.monotonic()
        judgements = await _score(scorer, message)
        elapsed_s = time.monotonic() - began_s
    now = datetime.now(UTC)
    stamp = Stamp(worker_id=settings.worker.id, now=now, scored_at=now)
    verdict = conclude(case, judgements, stamp).verdict
    return Judged(verdict=verdict, rules=case.rules, elapsed_s=elapsed_s)


def _case(settings: Settings, message: Message) -> Case:
    policy, limits = wiring.load_policy(settings), settings.limits
    wiring.check_policy(policy, wiring.load_guards(settings.guards))
    received = Received(message=message, position=POSITION, received_at=datetime.now(UTC))
    intake = Intake(max_text_bytes=limits.max_text_bytes, max_future_s=limits.max_future_s)
    try:
        return admit(received, policy, intake)
    except Rejected as error:
        raise Misconfigured(error.message, remedy=error.remedy) from error


async def _score(scorer: Scorer, message: Message) -> tuple[Judgement, ...]:
    (scored,) = await scorer.score([message])
    if isinstance(scored, Rejected | Retryable):
        raise scored
    return scored


@asynccontextmanager
async def _answering(
    settings: Settings, *, embedded: bool, say: Callable[[str], None]
) -> AsyncIterator[Scorer]:
    """A scorer over the configured Triton, or over one that lives for the call."""
    try:
        await _require_ready(settings)
    except DependencyUnavailable:
        if not embedded:
            raise
        say(f"no Triton for this at {settings.triton.url}: starting the embedded one for the call")
    else:
        async with wiring.open_scorer(settings) as scorer:
            yield scorer
        return
    async with _embedded(settings) as own, wiring.open_scorer(own) as scorer:
        yield scorer


async def _require_ready(settings: Settings) -> None:
    """Raise DependencyUnavailable when Triton does not answer or lacks a guard."""
    async with TritonClassifier(settings.triton) as triton:
        for guard in settings.guards.served:
            if not await triton.ready(guard):
                raise DependencyUnavailable(
                    f"Triton at {settings.triton.url} does not serve guard {guard!r}",
                    remedy="Load it, or correct guards.names",
                )


@asynccontextmanager
async def _embedded(settings: Settings) -> AsyncIterator[Settings]:
    """The settings that lead to a Triton started here; raises EmbeddedFailed."""
    from pipeline.embedded import EmbeddedTriton

    guards = settings.guards
    async with EmbeddedTriton(guards.repository, guards.served, settings_file.home()) as server:
        found = settings.triton.model_copy(update={"url": server.grpc_address, "tls": False})
        yield settings.model_copy(update={"triton": found})
