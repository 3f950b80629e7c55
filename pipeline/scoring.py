"""Score messages: tokenise, plan calls, ask the guards, read the answers.

Each message ends as judgements or as the error that stands in their place,
so that one refused text or one lost call does not take its neighbours along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline import metrics
from pipeline.batching import Call, Row, halves, plan
from pipeline.errors import Reason, Rejected, Retryable
from pipeline.events import GuardRef, Judgement, Kind, Message
from pipeline.guards.cards import Card
from pipeline.guards.framing import frame
from pipeline.ports import Classifier, Clock, Inference
from pipeline.tokenization import Tokenizer
from pipeline.windows import Windowed

Scored = tuple[Judgement, ...] | Rejected | Retryable
"""A message's judgements, one per guard; or why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A guard model ready to be fed."""

    card: Card
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Bounds of one guard call, of one message, and of calls in flight."""

    max_rows: int
    max_tokens: int
    max_windows: int
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What one row of a call came back with."""

    scores: NDArray[np.float32]
    version: str
    call_rows: int
    started_s: float
    elapsed_s: float


_Answers = dict[Row, _Answer | Rejected | Retryable]


class Scorer:
    """Scores batches of messages with every guard that judges their kind."""

    def __init__(
        self, guards: Sequence[Guard], classifier: Classifier, limits: CallLimits, clock: Clock
    ) -> None:
        self._guards = tuple(guards)
        self._classifier = classifier
        self._limits = limits
        self._clock = clock
        self._in_flight = asyncio.Semaphore(limits.in_flight)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The guards that score, in order."""
        return self._guards

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """One `Scored` per message, in order; raises nothing but Misconfigured."""
        parts = await asyncio.gather(*(self._score_with(guard, messages) for guard in self._guards))
        if len(parts) == 1:
            return parts[0]
        return [_join([part[index] for part in parts]) for index in range(len(messages))]

    async def _score_with(self, guard: Guard, messages: Sequence[Message]) -> list[Scored]:
        began_s = self._clock.monotonic()
        chosen = [index for index, m in enumerate(messages) if m.kind in guard.card.roles]
        texts = await self._tokenise(guard, [messages[index] for index in chosen])
        calls = plan(
            [[len(window) for window in text.windows] for text in texts],
            buckets=guard.card.buckets,
            max_rows=self._limits.max_rows,
            max_tokens=self._limits.max_tokens,
        )
        answers: _Answers = {}
        for answered in await asyncio.gather(*(self._ask(guard, call, texts) for call in calls)):
            answers.update(answered)
        scored: list[Scored] = [() for _ in messages]
        for request, (index, text) in enumerate(zip(chosen, texts, strict=True)):
            scored[index] = _judge(guard.card, request, text, answers, began_s)
        return scored

    async def _tokenise(self, guard: Guard, messages: Sequence[Message]) -> list[Windowed]:
        began_s = self._clock.monotonic()
        texts = await asyncio.to_thread(_frame_all, guard, messages, self._limits.max_windows)
        metrics.STAGE_SECONDS.labels("tokenise").observe(self._clock.monotonic() - began_s)
        return texts

    async def _ask(self, guard: Guard, call: Call, texts: Sequence[Windowed]) -> _Answers:
        """Answers to a call's rows; a refused call is halved until one row stands out."""
        rows = [texts[row.request].windows[row.window] for row in call.rows]
        try:
            async with self._in_flight:
                started_s = self._clock.monotonic()
                inference = await self._classifier.infer(
                    guard.card.name, rows, length=call.length, pad_id=guard.card.pad_id
                )
        except Retryable as error:
            return dict.fromkeys(call.rows, error)
        except Rejected as error:
            if len(call.rows) == 1:
                return {call.rows[0]: error}
            left, right = halves(call)
            return {**await self._ask(guard, left, texts), **await self._ask(guard, right, texts)}
        metrics.CALL_ROWS.observe(len(rows))
        metrics.STAGE_SECONDS.labels("infer").observe(inference.elapsed_s)
        return _read(guard.card, call, inference, started_s)


def uncovered_kinds(guards: Sequence[Guard]) -> frozenset[Kind]:
    """The kinds of message that none of the guards judges."""
    return frozenset(Kind) - frozenset(kind for guard in guards for kind in guard.card.roles)


def _frame_all(guard: Guard, messages: Sequence[Message], max_windows: int) -> list[Windowed]:
    return frame(
        guard.card,
        guard.tokenizer,
        messages,
        max_windows=max_windows,
        plain_too=guard.card.normalise,
    )


def _read(card: Card, call: Call, inference: Inference, started_s: float) -> _Answers:
    """Calibrated scores by row; raises nothing, a bad answer becomes an error."""
    if inference.logits.shape != (len(call.rows), len(card.classes)):
        fault = Retryable(
            f"guard {card.name} answered with shape {inference.logits.shape}",
            remedy=f"It must be ({len(call.rows)}, {len(card.classes)}): check the served model",
        )
        return dict.fromkeys(call.rows, fault)
    scores = card.scores(inference.logits)
    _report_health(card, inference)
    finite = np.isfinite(inference.logits).all(axis=1)
    return {
        row: _Answer(
            scores=scores[index],
            version=inference.version,
            call_rows=len(call.rows),
            started_s=started_s,
            elapsed_s=inference.elapsed_s,
        )
        if finite[index]
        else _not_a_number(card, every=not finite.any())
        for index, row in enumerate(call.rows)
    }


def _report_health(card: Card, inference: Inference) -> None:
    """Show the worst log(P(safe) + P(unsafe)); far below 0, template and engine disagree."""
    health = card.health(inference.logits)
    if health is not None and np.isfinite(health).all():
        metrics.GUARD_HEALTH.labels(card.name).set(float(health.min()))


def _not_a_number(card: Card, *, every: bool) -> Rejected | Retryable:
    """One bad row among good ones is that text's fault; all rows bad, the guard's."""
    message = f"guard {card.name} answered with a score that is not a number"
    if every:
        return Retryable(message, remedy="Check the served model with `sluice doctor`")
    return Rejected(Reason.GUARD_REFUSED, message, remedy="Report this text with the guard's card")


def _judge(card: Card, request: int, text: Windowed, answers: _Answers, began_s: float) -> Scored:
    found = [answers[Row(request=request, window=w)] for w in range(len(text.windows))]
    good: list[_Answer] = []
    for answer in found:
        if not isinstance(answer, _Answer):
            return answer
        good.append(answer)
    highest = good[0].scores if len(good) == 1 else _highest(good)
    return (
        Judgement(
            guard=_ref(card.name, good[0].version, card.digest),
            scores=_by_label(card.labels, highest),
            coverage=text.coverage,
            template_digest=card.template_digest,
            windows=len(good),
            batch_rows=max(answer.call_rows for answer in good),
            queued_s=min(answer.started_s for answer in good) - began_s,
            inference_s=max(answer.elapsed_s for answer in good),
        ),
    )


def _highest(answers: Sequence[_Answer]) -> NDArray[np.float32]:
    """The highest score of each label over a text's windows."""
    return np.asarray(np.max(np.stack([answer.scores for answer in answers]), axis=0))


@lru_cache(maxsize=64)
def _ref(name: str, version: str, digest: str) -> GuardRef:
    return GuardRef(name=name, version=version, digest=digest)


def _by_label(labels: Sequence[str], scores: NDArray[np.float32]) -> Mapping[str, float]:
    return dict(zip(labels, scores.tolist(), strict=True))


def _join(parts: Sequence[Scored]) -> Scored:
    """Judgements of all guards; the first error stands for the message."""
    return tuple(_flatten(parts)) if not (error := _first_error(parts)) else error


def _first_error(parts: Sequence[Scored]) -> Rejected | Retryable | None:
    return next((part for part in parts if not isinstance(part, tuple)), None)


def _flatten(parts: Sequence[Scored]) -> Iterator[Judgement]:
    for part in parts:
        if isinstance(part, tuple):
            yield from part
