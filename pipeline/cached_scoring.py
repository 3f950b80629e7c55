"""Score each content once: repeats are recalled, and those under way are shared.

Only judgements are kept and shared. An error is nobody else's: a message that
waited for another's guard call asks for itself when that call failed, so that
holding, healing and finding poison work as they do without a cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline import metrics
from pipeline.events import Message
from pipeline.score_cache import Judgements, ScoreCache, content_key, recalled
from pipeline.scoring import Scored


class Scores(Protocol):
    """The slice of a verified scorer that repeats are kept from."""

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """One result per message, in order; raises nothing but Misconfigured."""

    async def score_alone(self, message: Message) -> Scored:
        """The result with nothing else in flight."""


class CachedScorer:
    """A scorer that asks the guards about a content once while it remembers it.

    `versions` is the live view of what each guard last answered as: a new
    version of a served guard ends what the old one said.
    """

    def __init__(self, scorer: Scores, cache: ScoreCache, versions: Mapping[str, str]) -> None:
        self._scorer = scorer
        self._cache = cache
        self._versions = versions
        self._flights: dict[bytes, asyncio.Future[Judgements | None]] = {}

    def recall(self, messages: Sequence[Message]) -> list[Judgements | None]:
        """The judgements that are remembered, in order."""
        found = [self._cache.get(content_key(each), self._versions) for each in messages]
        _count(hits=len(found) - found.count(None))
        return found

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """As the scorer's own; recalled judgements have no rows and no inference."""
        keys = [content_key(message) for message in messages]
        scored: dict[int, Scored] = {}
        leading: dict[bytes, int] = {}
        following: dict[int, asyncio.Future[Judgements | None]] = {}
        for index, key in enumerate(keys):
            if (found := self._cache.get(key, self._versions)) is not None:
                scored[index] = found
            elif (flight := self._flights.get(key)) is not None:
                following[index] = flight
            else:
                leading[key] = index
                self._flights[key] = asyncio.get_running_loop().create_future()
        _count(hits=len(scored), shared=len(following), misses=len(leading))
        scored |= await self._lead(leading, messages)
        scored |= await self._follow(following, messages)
        return [scored[index] for index in range(len(messages))]

    async def score_alone(self, message: Message) -> Scored:
        """As the scorer's own: a suspect is never recalled, nor kept."""
        return await self._scorer.score_alone(message)

    async def _lead(
        self, leading: Mapping[bytes, int], messages: Sequence[Message]
    ) -> dict[int, Scored]:
        """Ask for the contents that nobody has asked for; followers hear however it ends."""
        if not leading:
            return {}
        found: dict[bytes, Scored] = {}
        try:
            results = await self._scorer.score([messages[index] for index in leading.values()])
            found = dict(zip(leading, results, strict=True))
        finally:
            for key in leading:
                self._land(key, found.get(key))
        return {leading[key]: result for key, result in found.items()}

    def _land(self, key: bytes, result: Scored | None) -> None:
        judgements = result if isinstance(result, tuple) else None
        if judgements is not None:
            self._cache.put(key, judgements)
        self._flights.pop(key).set_result(judgements)

    async def _follow(
        self,
        following: Mapping[int, asyncio.Future[Judgements | None]],
        messages: Sequence[Message],
    ) -> dict[int, Scored]:
        """What the calls under way said; where they failed, the messages' own results."""
        scored: dict[int, Scored] = {}
        for index, flight in following.items():
            # Shielded: who waits may be cancelled, the flight is another's.
            if (judgements := await asyncio.shield(flight)) is not None:
                scored[index] = recalled(judgements)
        own = [index for index in following if index not in scored]
        if own:
            results = await self._scorer.score([messages[index] for index in own])
            scored |= dict(zip(own, results, strict=True))
        return scored


def _count(*, hits: int, shared: int = 0, misses: int = 0) -> None:
    for answer, count in (("hit", hits), ("shared", shared), ("miss", misses)):
        metrics.SCORE_CACHE.labels(answer).inc(count)
