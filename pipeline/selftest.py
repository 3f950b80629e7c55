"""Score only with guards that prove to be the ones their cards describe.

A wrong template, tokenizer or engine shows on the card's golden texts, before
the first message, after every outage, and when another version answers, not in
production verdicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import structlog

from pipeline.errors import Misconfigured, Reason, Rejected, Retryable, Suspected
from pipeline.events import Judgement, Message
from pipeline.guards.cards import Golden
from pipeline.health import Health
from pipeline.scoring import Guard, Scored, Scorer

log = structlog.get_logger(__name__)

CANARY_EVERY_S: Final = 5.0
TRIES_ALONE: Final = 2
"""More than one: another worker's message may have brought the guard down meanwhile."""


class ServedGuards(Protocol):
    """The slice of an inference server that says what it serves."""

    async def served_digest(self, guard: str) -> str | None:
        """The weights' digest the served guard states; raises Retryable, Misconfigured."""


class VerifiedScorer:
    """A scorer that passes the golden texts first, after each outage, and in each version."""

    def __init__(self, scorer: Scorer, served: ServedGuards, health: Health) -> None:
        self._scorer = scorer
        self._served = served
        self._health = health
        self._verifying: asyncio.Future[None] | None = None
        self._gate = _Gate()
        self._verified = False
        self._proved: frozenset[Version] = frozenset()
        self._used = False

    def recall(self, messages: Sequence[Message]) -> list[tuple[Judgement, ...] | None]:
        """Nothing: each message is scored anew."""
        return [None] * len(messages)

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """As `Scorer.score`; raises Misconfigured when a guard is not what its card says.

        Where there is no answer though the golden texts pass right after, the
        result is Suspected: the message may be why.
        """
        async with self._gate.beside():
            return await self._score(messages)

    async def score_alone(self, message: Message) -> Scored:
        """The result with nothing else in flight; Rejected if the guard fails on it alone."""
        async with self._gate.alone():
            for _ in range(TRIES_ALONE):
                (result,) = await self._score([message])
                if not isinstance(result, Suspected):
                    return result
        return Rejected(
            Reason.GUARD_REFUSED,
            f"the guard fails on this message alone, and on no golden text: {result}",
            remedy="Report the text with the guard's card; `sluice dlq retry` sends it again",
        )

    async def _score(self, messages: Sequence[Message]) -> list[Scored]:
        try:
            await self.verify()
        except Retryable as error:
            return [error] * len(messages)
        scored = await self._scorer.score(messages)
        self._used = True
        failed = any(isinstance(result, Retryable) for result in scored)
        if not failed and _versions(scored) <= self._proved:
            return scored
        self._verified = False
        try:
            await self.verify()
        except Retryable:
            return self._proved_only(scored)  # the guard is away: no message's fault
        return self._proved_only([_suspected(result) for result in scored])

    def _proved_only(self, scored: Sequence[Scored]) -> list[Scored]:
        """Without the judgements of a version that has not passed the golden texts."""
        return [result if _versions([result]) <= self._proved else _UNPROVED for result in scored]

    async def verify(self) -> None:
        """Check digests and golden texts unless they passed since the last outage.

        Raises Retryable while a guard does not answer, Misconfigured when it
        answers otherwise than its card says.
        """
        if self._verified:
            return
        # One for all that ask meanwhile: in turn each would wait for the timeouts of all others.
        if self._verifying is None:
            self._verifying = asyncio.ensure_future(self._verify())
            self._verifying.add_done_callback(self._verification_ended)
        await asyncio.shield(self._verifying)

    async def _verify(self) -> None:
        for guard in self._scorer.guards:
            await self._check_digest(guard)
        await self._check_golden()
        self._verified = True
        self._health.set("guard", ok=True, detail="answers as its card says")

    def _verification_ended(self, verifying: asyncio.Future[None]) -> None:
        self._verifying = None
        if not verifying.cancelled():
            verifying.exception()  # who asked has it; they may all have been cancelled

    async def watch(self) -> None:
        """Keep readiness true to the guards, and see that nobody exchanges them; never returns.

        Traffic itself shows that a guard answers, not that it still has the
        weights it had: another model may be loaded under the same version.
        """
        while True:
            await (self._recheck() if self._used else self._canary())
            self._used = False
            await asyncio.sleep(CANARY_EVERY_S)

    async def _canary(self) -> None:
        try:
            async with self._gate.beside():
                await self.verify()
                for guard in self._scorer.guards:
                    golden = _message(guard.card.golden[0])
                    (result,) = await self._scorer.score_by(guard, [golden])
                    if isinstance(result, Retryable):
                        raise result
        except Retryable as error:
            self._verified = False
            self._health.set("guard", ok=False, detail=str(error))
        else:
            self._health.set("guard", ok=True, detail="answers as its card says")

    async def _recheck(self) -> None:
        with suppress(Retryable):  # whoever scores finds out
            for guard in self._scorer.guards:
                await self._check_digest(guard)

    async def _check_digest(self, guard: Guard) -> None:
        served = await self._served.served_digest(guard.card.name)
        if served is not None and served != guard.card.model_digest:
            raise Misconfigured(
                f"Triton serves guard {guard.card.name} with weights {served}, its card here"
                f" says {guard.card.model_digest}",
                remedy="Give worker and server the same model repository",
            )

    async def _check_golden(self) -> None:
        for guard in self._scorer.guards:
            golden = guard.card.golden
            scored = await self._scorer.score_by(guard, [_message(text) for text in golden])
            for number, (text, result) in enumerate(zip(golden, scored, strict=True), start=1):
                _compare(guard.card.name, number, text, result)
            self._prove(_versions(scored))

    def _prove(self, versions: frozenset[Version]) -> None:
        for name, version in sorted(versions - self._proved):
            log.info("guard-version", guard=name, version=version)
        self._proved |= versions


class _Gate:
    """Lets scorings in side by side, or one alone."""

    def __init__(self) -> None:
        self._entry = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()
        self._inside = 0

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Enter beside others; waits while somebody is alone."""
        async with self._entry:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until everybody has left; nobody enters meanwhile."""
        async with self._entry:
            await self._empty.wait()
            yield


Version = tuple[str, str]
"""A guard's name and the version of it that answered."""

_UNPROVED: Final = Retryable(
    "a version of the guard answered that has not passed the golden texts",
    remedy="It is asked again by itself",
)


def _versions(scored: Sequence[Scored]) -> frozenset[Version]:
    return frozenset(
        (each.guard.name, each.guard.version)
        for result in scored
        if isinstance(result, tuple)
        for each in result
    )


def _suspected(result: Scored) -> Scored:
    if isinstance(result, Retryable):
        return Suspected(result.message, remedy=result.remedy)
    return result


def _message(golden: Golden) -> Message:
    return Message(
        message_id="golden", kind=golden.role, text=golden.text, prompt=golden.prompt or None
    )


def _compare(name: str, number: int, golden: Golden, result: Scored) -> None:
    if isinstance(result, Retryable):
        raise result
    if isinstance(result, Rejected):
        raise Misconfigured(
            f"guard {name} refuses golden text {number}: {result.message}",
            remedy="Served model and card do not belong together: deploy one release",
        )
    scores = result[0].scores
    for category, score, expected in _differences(scores, golden):
        raise Misconfigured(
            f"guard {name} scores golden text {number} {score:.4f} for {category},"
            f" its card says {expected:.4f}",
            remedy="Served weights, tokenizer and card do not belong together: deploy one release",
        )


def _differences(scores: Mapping[str, float], golden: Golden) -> Iterator[tuple[str, float, float]]:
    for category, expected in golden.scores.items():
        score = scores.get(category, float("nan"))
        if not abs(score - expected) <= golden.tolerance:
            yield category, score, expected
