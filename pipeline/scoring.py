"""Score messages: tokenise, ask the guards, read the answers.

Each message ends as judgements or as the error that stands in their place,
so that one refused text or one lost call does not take its neighbours along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pipeline import metrics
from pipeline.asking import Answer, Answers, CallLimits, GuardQueue
from pipeline.errors import Rejected, Retryable
from pipeline.events import GuardRef, Judgement, Kind, Message
from pipeline.guards.cards import Card
from pipeline.guards.framing import frame
from pipeline.ports import Classifier, Clock
from pipeline.tokenization import Tokenizer
from pipeline.windows import Windowed

Scored = tuple[Judgement, ...] | Rejected | Retryable
"""A message's judgements, one per guard; or why there are none."""

AT_ONCE_CHARS: Final = 32_768
"""So little takes some six milliseconds; another thread would take turns from this one as long."""

LONG_CHARS: Final = 2000
"""A text above this takes several windows, and its verdict takes its time.

Such go to a thread together: while one after the other is tokenised here, answers are heard late.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A guard model ready to be fed."""

    card: Card
    tokenizer: Tokenizer
    first: Guard | None = None
    """A cheap guard that sees every window before this one, and settles the clear ones."""


class Scorer:
    """Scores batches of messages with every guard that judges their kind."""

    def __init__(
        self, guards: Sequence[Guard], classifier: Classifier, limits: CallLimits, clock: Clock
    ) -> None:
        self._guards = tuple(guards)
        self._max_windows = limits.max_windows
        self._clock = clock
        self._versions: dict[str, str] = {}
        self._queues = {
            guard.card.name: GuardQueue(guard.card, classifier, limits, clock, self._versions)
            for guard in self.guards
        }

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The guards that score, in order; those that stand first come last."""
        first = {each.first.card.name: each.first for each in self._guards if each.first}
        return (*self._guards, *first.values())

    @property
    def versions(self) -> Mapping[str, str]:
        """The version that each guard last answered as, by name; a live view."""
        return MappingProxyType(self._versions)

    @property
    def quick(self) -> bool:
        """Whether every guard answers quickly."""
        return all(queue.quick for queue in self._queues.values())

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """One `Scored` per message, in order; raises nothing but Misconfigured."""
        parts = await asyncio.gather(*(self._score_with(guard, messages) for guard in self._guards))
        if len(parts) == 1:
            return parts[0]
        return [_join([part[index] for part in parts]) for index in range(len(messages))]

    async def score_by(self, guard: Guard, messages: Sequence[Message]) -> list[Scored]:
        """As `score`, by one of `guards` alone and without what stands before it."""
        return await self._score_with(replace(guard, first=None), messages)

    async def _score_with(self, guard: Guard, messages: Sequence[Message]) -> list[Scored]:
        began_s = self._clock.monotonic()
        chosen = [index for index, m in enumerate(messages) if m.kind in guard.card.roles]
        texts = await self._tokenise(guard, [messages[index] for index in chosen])
        settled = await self._settle(guard.first, texts) if guard.first else {}
        asked = await self._queues[guard.card.name].ask(texts, without=settled)
        answers = settled | asked if settled else asked
        scored: list[Scored] = [() for _ in messages]
        for request, (index, text) in enumerate(zip(chosen, texts, strict=True)):
            scored[index] = _judge(request, text, answers, began_s)
        return scored

    async def _settle(self, first: Guard, texts: Sequence[Windowed]) -> Answers:
        """The windows that a first stage finds clear; all others are the next guard's.

        Its errors settle nothing: what it could not judge is judged in full.
        """
        answers = await self._queues[first.card.name].ask(texts)
        settled: Answers = {
            row: answer
            for row, answer in answers.items()
            if isinstance(answer, Answer) and max(answer.scores) < first.card.settles_below
        }
        metrics.FIRST_STAGE_WINDOWS.labels("settled").inc(len(settled))
        metrics.FIRST_STAGE_WINDOWS.labels("passed-on").inc(len(answers) - len(settled))
        return settled

    async def _tokenise(self, guard: Guard, messages: Sequence[Message]) -> list[Windowed]:
        began_s = self._clock.monotonic()
        if any(len(message.text) > LONG_CHARS for message in messages):
            texts = await self._framed(guard, messages)
        else:
            texts = []
            for run in _at_once(messages):
                if texts:
                    await asyncio.sleep(0)  # others' turn
                texts += await self._framed(guard, run)
        metrics.STAGE_SECONDS.labels("tokenise").observe(self._clock.monotonic() - began_s)
        return texts

    async def _framed(self, guard: Guard, run: Sequence[Message]) -> list[Windowed]:
        """The windows of some messages, made here if that is soon done, else on a thread."""
        if sum(len(message.text) for message in run) <= AT_ONCE_CHARS:
            return _frame_all(guard, run, self._max_windows)
        return await asyncio.to_thread(_frame_all, guard, run, self._max_windows)


def uncovered_kinds(guards: Sequence[Guard]) -> frozenset[Kind]:
    """The kinds of message that none of the guards judges."""
    return frozenset(Kind) - frozenset(kind for guard in guards for kind in guard.card.roles)


def _at_once(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Runs of messages whose texts are at most `AT_ONCE_CHARS` together; a longer one by itself."""
    start = chars = 0
    for index, message in enumerate(messages):
        chars += len(message.text)
        if chars > AT_ONCE_CHARS and index > start:
            yield messages[start:index]
            start, chars = index, len(message.text)
    yield messages[start:]


def _frame_all(guard: Guard, messages: Sequence[Message], max_windows: int) -> list[Windowed]:
    return frame(
        guard.card,
        guard.tokenizer,
        messages,
        max_windows=max_windows,
        plain_too=guard.card.normalise,
    )


def _judge(request: int, text: Windowed, answers: Answers, began_s: float) -> Scored:
    """A judgement of each guard that judged windows of the text, or the first error.

    Every window has one judge, so that the coverage of all together is the text's. A guard
    that was exchanged between two calls is two: each version answers for its own windows.
    """
    if len(text.windows) == 1:
        only = answers[request, 0]
        return (_judgement(text, (only,), began_s),) if isinstance(only, Answer) else only
    by_guard: dict[tuple[str, str], list[Answer]] = {}
    for window in range(len(text.windows)):
        answer = answers[request, window]
        if not isinstance(answer, Answer):
            return answer
        by_guard.setdefault((answer.card.name, answer.version), []).append(answer)
    return tuple(_judgement(text, good, began_s) for good in by_guard.values())


def _judgement(text: Windowed, good: Sequence[Answer], began_s: float) -> Judgement:
    worst = good[0] if len(good) == 1 else _together(good)
    card = worst.card
    return Judgement(
        guard=_ref(card.name, worst.version, card.digest),
        scores=dict(zip(card.labels, worst.scores, strict=True)),
        coverage=text.coverage,
        template_digest=card.template_digest,
        windows=len(good),
        batch_rows=worst.call_rows,
        queued_s=worst.started_s - began_s,
        inference_s=worst.elapsed_s,
    )


def _together(good: Sequence[Answer]) -> Answer:
    """A text's windows as one: each label's highest score, from the first call to the longest."""
    return Answer(
        card=good[0].card,
        scores=[max(scores) for scores in zip(*(each.scores for each in good), strict=True)],
        version=good[0].version,
        call_rows=max(each.call_rows for each in good),
        started_s=min(each.started_s for each in good),
        elapsed_s=max(each.elapsed_s for each in good),
    )


@lru_cache(maxsize=64)
def _ref(name: str, version: str, digest: str) -> GuardRef:
    return GuardRef(name=name, version=version, digest=digest)


def _join(parts: Sequence[Scored]) -> Scored:
    """Judgements of all guards; the first error stands for the message."""
    return tuple(_flatten(parts)) if not (error := _first_error(parts)) else error


def _first_error(parts: Sequence[Scored]) -> Rejected | Retryable | None:
    return next((part for part in parts if not isinstance(part, tuple)), None)


def _flatten(parts: Sequence[Scored]) -> Iterator[Judgement]:
    for part in parts:
        if isinstance(part, tuple):
            yield from part
