"""Ask one guard about windows: calls made up as they leave, of all that waits then.

Whoever asks brings windows and waits for all of theirs; a call takes what fits
together, whichever asker it is of. While a call may leave at once it does, with
what is there; while all are under way windows gather, so that calls are small
and quick when the guard is idle and full when it is busy.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec import Struct

from pipeline import metrics
from pipeline.adaptive_size import AdaptiveSize
from pipeline.batching import Call, Pool, Row, halves
from pipeline.errors import Reason, Rejected, Retryable
from pipeline.guards.cards import Card
from pipeline.ports import Classifier, Clock, Inference
from pipeline.windows import Windowed

# A guard on a GPU computes 8,192 tokens within it, one on a CPU not 1,024.
_QUICK_S: Final = 0.02
_SLOW_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Bounds of one guard call, of one message, and of calls in flight.

    A call holds at most `max_tokens` padded tokens, or up to `quick_max_tokens` while the
    guard answers quickly.
    """

    max_rows: int
    max_tokens: int
    max_windows: int
    in_flight: int
    quick_max_tokens: int = 0


class Answer(Struct, frozen=True, kw_only=True, gc=False):
    """What one row of a call came back with, and the card of the guard that judged it.

    `scores` are calibrated, by the card's labels; float32 in worth.
    """

    card: Card
    scores: Sequence[float]
    version: str
    call_rows: int
    started_s: float
    elapsed_s: float


Said = Answer | Rejected | Retryable
"""An answer to one window, or the error that stands in its place."""

Answers = dict[Row, Said]


class GuardQueue:
    """Everything that waits for one guard, and its calls under way."""

    def __init__(
        self,
        card: Card,
        classifier: Classifier,
        limits: CallLimits,
        clock: Clock,
        versions: dict[str, str],
    ) -> None:
        """`versions` is kept true to what the guard last answered as, by its name."""
        self._card = card
        self._versions = versions
        self._classifier = classifier
        self._clock = clock
        self._pool: Pool[_Waiting] = Pool(
            buckets=card.buckets, max_rows=limits.max_rows, max_tokens=limits.max_tokens
        )
        self._size = AdaptiveSize(
            least=limits.max_tokens,
            most=limits.quick_max_tokens,
            quick_s=_QUICK_S,
            slow_s=_SLOW_S,
        )
        self._free = limits.in_flight
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def quick(self) -> bool:
        """Whether the guard answers so quickly that its calls have grown."""
        return self._size.grown

    async def ask(self, texts: Sequence[Windowed], *, without: Container[Row] = ()) -> Answers:
        """Answers to all windows but those in `without`, by text and window.

        Raises what the classifier raises beside Rejected and Retryable.
        """
        asker, now_s = _Asker(), self._clock.monotonic()
        for row, size, ids in _rows(texts):
            if row not in without:
                asker.waiting.append(each := _Waiting(asker, row, ids))
                self._pool.add(each, length=len(ids), size=size, now_s=now_s)
        if not asker.waiting:
            return {}
        self._send()
        try:
            return await asker.done
        except BaseException:  # cancelled, or failed by one call: nobody wants the others' answers
            for each in asker.waiting:
                self._pool.discard(each)
            raise
        finally:
            asker.waiting.clear()  # else asker and windows hold each other until they are collected

    def _send(self) -> None:
        while self._free and (call := self._next()) is not None:
            self._free -= 1
            task = asyncio.create_task(self._run(call))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def _next(self) -> Call[_Waiting] | None:
        return self._pool.next_call(self._clock.monotonic())

    async def _run(self, call: Call[_Waiting]) -> None:
        try:
            said = await self._said(call)
        except Exception as error:  # it is each asker's, whose task it ends
            for each in call.rows:
                each.asker.fail(error)
        else:
            for each, one in zip(call.rows, said, strict=True):
                each.asker.take(each.row, one)
        self._free += 1
        self._send()

    async def _said(self, call: Call[_Waiting]) -> list[Said]:
        """What is said of a call's rows; a refused call is halved until one row stands out."""
        started_s = self._clock.monotonic()
        try:
            inference = await self._classifier.infer(
                self._card.name,
                [each.ids for each in call.rows],
                length=call.length,
                pad_id=self._card.pad_id,
            )
        except Retryable as error:
            self._learn(call, math.inf)  # else what no longer fits in the deadline is asked again
            return [error] * len(call.rows)
        except Rejected as error:
            if len(call.rows) == 1:
                return [error]
            left, right = halves(call)
            return [*await self._said(left), *await self._said(right)]
        self._versions[self._card.name] = inference.version
        self._learn(call, inference.elapsed_s)
        metrics.CALL_ROWS.observe(len(call.rows))
        metrics.STAGE_SECONDS.labels("infer").observe(inference.elapsed_s)
        return _read(self._card, inference, len(call.rows), started_s)

    def _learn(self, call: Call[_Waiting], elapsed_s: float) -> None:
        self._size.ended(len(call.rows) * call.length, elapsed_s)
        self._pool.max_tokens = self._size.now


class _Asker:
    """Who waits until all of its windows have an answer."""

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.done: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._answers: Answers = {}

    def take(self, row: Row, said: Said) -> None:
        self._answers[row] = said
        if len(self._answers) == len(self.waiting) and not self.done.done():
            self.done.set_result(self._answers)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Waiting(Struct, frozen=True, eq=False):
    """One window in the pool; each is its own, however equal their tokens."""

    asker: _Asker
    row: Row
    ids: tuple[int, ...]


def _rows(texts: Sequence[Windowed]) -> Iterator[tuple[Row, int, tuple[int, ...]]]:
    """Each window by its place, with the tokens of all windows of its text."""
    for request, text in enumerate(texts):
        size = sum(map(len, text.windows))
        for window, ids in enumerate(text.windows):
            yield (request, window), size, ids


def _read(card: Card, inference: Inference, rows: int, started_s: float) -> list[Said]:
    """Calibrated scores by row; raises nothing, a bad answer becomes an error."""
    if inference.logits.shape != (rows, len(card.classes)):
        fault = Retryable(
            f"guard {card.name} answered with shape {inference.logits.shape}",
            remedy=f"It must be ({rows}, {len(card.classes)}): check the served model",
        )
        return [fault] * rows
    scores = card.scores(inference.logits).tolist()
    _report_health(card, inference)
    finite = np.isfinite(inference.logits).all(axis=1).tolist()
    return [
        Answer(
            card=card,
            scores=scores[index],
            version=inference.version,
            call_rows=rows,
            started_s=started_s,
            elapsed_s=inference.elapsed_s,
        )
        if finite[index]
        else _not_a_number(card, every=not any(finite))
        for index in range(rows)
    ]


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
