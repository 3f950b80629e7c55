"""Guards behind Triton: the configured server, or one started for the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from pipeline import settings as settings_file
from pipeline.adapters.clock import SystemClock
from pipeline.adapters.triton import TritonClassifier
from pipeline.asking import CallLimits
from pipeline.errors import DependencyUnavailable, Misconfigured, Rejected, Retryable
from pipeline.evaluate.contenders import Answer, Pace, Point
from pipeline.evaluate.items import Item
from pipeline.guards import cards
from pipeline.guards.cards import Card
from pipeline.health import Health
from pipeline.scoring import Guard, Scored, Scorer
from pipeline.selftest import VerifiedScorer
from pipeline.settings import GuardSettings, Settings
from pipeline.tokenization import Tokenizer

_ATTEMPTS: Final = 4
_FIRST_WAIT_S: Final = 0.5


class ServedGuard:
    """A guard asked through the worker's own scorer, at one operating point."""

    def __init__(self, card: Card, scorer: VerifiedScorer, point: str) -> None:
        """Raises Misconfigured when the card has no such operating point."""
        if point not in card.operating_points:
            raise Misconfigured(
                f"guard {card.name} has no operating point {point!r}",
                remedy=f"Use --point with one of: {', '.join(card.operating_points)}",
            )
        self.name = card.name
        self.point = Point(name=point, thresholds=card.operating_points[point])
        self.pace = Pace()
        self.facts: Mapping[str, str] = {
            "kind": "guard",
            "title": card.title,
            "version": card.version,
            "digest": card.digest,
            "template_digest": card.template_digest,
        }
        self._scorer = scorer

    async def answer(self, _data: str, items: Sequence[Item]) -> list[Answer]:
        """Calibrated scores; raises Retryable when the guard stays away."""
        waited_s = _FIRST_WAIT_S
        messages = [item.message() for item in items]
        for attempt in range(1, _ATTEMPTS + 1):
            scored = await self._scorer.score(messages)
            lost = next((one for one in scored if isinstance(one, Retryable)), None)
            if lost is None:
                break
            if attempt == _ATTEMPTS:
                raise lost
            await asyncio.sleep(waited_s)
            waited_s *= 2
        return [_answer(one) for one in scored]


def _answer(scored: Scored) -> Answer:
    if isinstance(scored, Rejected):
        return Answer(problem=scored.reason.value)
    if isinstance(scored, Retryable) or not scored:
        return Answer(problem="not-judged-by-this-guard")
    judgement = scored[0]
    return Answer(
        scores=judgement.scores, problem="" if judgement.coverage.complete else "partly-scanned"
    )


@asynccontextmanager
async def serve(
    settings: Settings,
    names: Sequence[str],
    point: str,
    *,
    embedded: bool,
    say: Callable[[str], None],
) -> AsyncIterator[list[ServedGuard]]:
    """The named guards, served; `say` gets a line when a Triton is started for it.

    Raises Misconfigured about a card, DependencyUnavailable when no Triton
    serves them and `embedded` does not allow one to be started.
    """
    loaded = [_load(settings.guards, name) for name in names]
    try:
        await _require_ready(settings, names)
    except DependencyUnavailable:
        if not embedded:
            raise
        say(f"no Triton for this at {settings.triton.url}: starting the embedded one for the call")
    else:
        async with TritonClassifier(settings.triton) as triton:
            yield [_guarded(guard, triton, settings.guards, point) for guard in loaded]
        return
    async with _embedded(settings, names) as own, TritonClassifier(own.triton) as triton:
        yield [_guarded(guard, triton, settings.guards, point) for guard in loaded]


def _load(settings: GuardSettings, name: str) -> Guard:
    card = cards.load(settings.repository / name)
    if card.name != name:
        raise Misconfigured(
            f"the card in folder {name!r} names guard {card.name!r}",
            remedy="Give folder and card the same name",
        )
    return Guard(card=card, tokenizer=Tokenizer(card.tokenizer))


def _guarded(
    guard: Guard, triton: TritonClassifier, bounds: GuardSettings, point: str
) -> ServedGuard:
    limits = CallLimits(
        max_rows=bounds.max_rows,
        max_tokens=bounds.max_tokens,
        quick_max_tokens=bounds.quick_max_tokens,
        max_windows=bounds.max_windows,
        in_flight=bounds.calls_in_flight,
    )
    scorer = Scorer([guard], triton, limits, SystemClock())
    # Figures about weights other than the card's would be worse than none.
    return ServedGuard(guard.card, VerifiedScorer(scorer, triton, Health(("guard",))), point)


async def _require_ready(settings: Settings, names: Sequence[str]) -> None:
    async with TritonClassifier(settings.triton) as triton:
        for name in names:
            if not await triton.ready(name):
                raise DependencyUnavailable(
                    f"Triton at {settings.triton.url} does not serve guard {name!r}",
                    remedy="Load it, or correct --guard",
                )


@asynccontextmanager
async def _embedded(settings: Settings, names: Sequence[str]) -> AsyncIterator[Settings]:
    """The settings that lead to a Triton started here; raises EmbeddedFailed."""
    from pipeline.embedded import EmbeddedTriton

    repository = settings.guards.repository
    async with EmbeddedTriton(repository, names, settings_file.home()) as server:
        found = settings.triton.model_copy(update={"url": server.grpc_address, "tls": False})
        yield settings.model_copy(update={"triton": found})
