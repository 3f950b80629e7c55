"""The two depths of a replay: the recorded scores, or new ones for the kept content."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from pipeline.audit_log import Entry
from pipeline.errors import Rejected, Retryable, Suspected
from pipeline.events import Judgement, Message
from pipeline.replay import redeciding
from pipeline.replay.comparison import Compared, LeftOut
from pipeline.replay.content import message_of
from pipeline.replay.policies import Choice
from pipeline.scoring import Scored
from pipeline.sealing import Opener

ATTEMPTS: Final = 5
_FIRST_WAIT_S: Final = 0.5

Result = Compared | LeftOut


class Depth(Protocol):
    """Decides records again."""

    async def judge(self, entries: Sequence[Entry]) -> list[Result]:
        """One result for each record, in order."""


class Recorded:
    """By the scores that the records hold; nothing is asked of anybody."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    async def judge(self, entries: Sequence[Entry]) -> list[Result]:
        """One result for each record, in order."""
        of, recorded = self._choice.of, redeciding.recorded
        return [recorded(entry, of(entry.event.verdict.policy.digest)) for entry in entries]


class Rescorer(Protocol):
    """The slice of a verified scorer that is needed here."""

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """One `Scored` for each message, in order."""

    async def score_alone(self, message: Message) -> Scored:
        """The result with nothing else in flight."""


class Rerun:
    """By scores that the guards give now, for the records whose content was kept."""

    def __init__(
        self,
        choice: Choice,
        scorer: Rescorer,
        opener: Opener | None = None,
        *,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        self._choice = choice
        self._scorer = scorer
        self._opener = opener
        self._first_wait_s = first_wait_s

    async def judge(self, entries: Sequence[Entry]) -> list[Result]:
        """One result for each record, in order; raises Retryable when guards stay away."""
        messages = [message_of(entry, self._opener) for entry in entries]
        kept = [message for message in messages if isinstance(message, Message)]
        scored = iter(await self._score(kept))
        return [
            message if isinstance(message, LeftOut) else self._result(entry, next(scored))
            for entry, message in zip(entries, messages, strict=True)
        ]

    def _result(self, entry: Entry, scored: tuple[Judgement, ...] | Rejected) -> Result:
        if isinstance(scored, Rejected):
            return LeftOut.GUARD_REFUSED
        if not scored:
            return LeftOut.NO_GUARD
        policy = self._choice.of(entry.event.verdict.policy.digest)
        return redeciding.rerun(entry, policy, scored)

    async def _score(self, messages: Sequence[Message]) -> list[tuple[Judgement, ...] | Rejected]:
        """Scores or refusals; waits for a guard that is away, and tries suspects alone."""
        found: dict[int, tuple[Judgement, ...] | Rejected] = {}
        waiting, failure = list(range(len(messages))), None
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._first_wait_s * 2 ** (attempt - 1))
            failure = await self._try(messages, waiting, found, alone=attempt == ATTEMPTS - 1)
            waiting = [index for index in waiting if index not in found]
            if failure is None:
                break
        if failure is not None:
            raise failure
        return [found[index] for index in range(len(messages))]

    async def _try(
        self,
        messages: Sequence[Message],
        waiting: Sequence[int],
        found: dict[int, tuple[Judgement, ...] | Rejected],
        *,
        alone: bool,
    ) -> Retryable | None:
        """Score what waits; returns why something still has no result."""
        failure: Retryable | None = None
        results = await self._scorer.score([messages[index] for index in waiting])
        for index, result in zip(waiting, results, strict=True):
            last = result
            if alone and isinstance(last, Suspected):
                last = await self._scorer.score_alone(messages[index])
            if isinstance(last, Retryable):
                failure = last
            else:
                found[index] = last
        return failure
