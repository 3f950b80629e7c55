"""Targets: each window of each request is in one call, and its scores reach nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.asking import CallLimits
from pipeline.batching import STEP, Call, halves, plan
from pipeline.errors import Misconfigured, Reason, Rejected, Retryable
from pipeline.events import Kind, Message
from pipeline.guards.framing import frame
from pipeline.ports import Inference
from pipeline.scoring import Guard, Scored, Scorer
from pipeline.windows import WindowSpec, cut
from tests.unit.fakes import LABELS, WORDS, FakeClock, write_guard

from .draws import Draws
from .target import Target

Planner = Callable[..., list[Call]]
"""`batching.plan`, or something that claims to do the same."""


def planned(data: bytes, *, planner: Planner = plan) -> None:
    """Every window once, in a call that has room for it and stays within its bounds."""
    draws = Draws(data)
    buckets = sorted({draws.whole(1, 40) for _ in range(draws.whole(1, 4))})
    lengths = [
        [draws.whole(1, buckets[-1]) for _ in range(draws.whole(0, 4))]
        for _ in range(draws.whole(0, 12))
    ]
    max_rows, max_tokens = draws.whole(1, 9), draws.whole(1, 200)
    calls = planner(lengths, buckets=buckets, max_rows=max_rows, max_tokens=max_tokens)
    travelled = Counter(row for call in calls for row in call.rows)
    asked = [
        (request, window) for request, each in enumerate(lengths) for window in range(len(each))
    ]
    assert travelled == Counter(asked), "each window must be in one call, once"
    for call in calls:
        longest = max(_long(call, lengths))
        bucket = next(bucket for bucket in buckets if bucket >= longest)
        assert longest <= call.length <= bucket, "a call has room, and no more than its bucket"
        assert call.length == bucket or call.length - longest < STEP
        assert len(call.rows) <= max_rows
        assert len(call.rows) == 1 or len(call.rows) * call.length <= max_tokens
        if len(call.rows) > 1:
            left, right = halves(call)
            assert left.rows + right.rows == call.rows
            assert left.rows
            assert right.rows


def _long(call: Call, lengths: Sequence[Sequence[int]]) -> list[int]:
    return [lengths[request][window] for request, window in call.rows]


def windows(data: bytes) -> None:
    """Windows hold the text in order, keep their bounds, and coverage counts what they hold."""
    draws = Draws(data)
    context_length, overlap = draws.whole(0, 6), draws.whole(0, 6)
    spec = WindowSpec(
        max_length=context_length + overlap + 4 + draws.whole(0, 8),
        overlap=overlap,
        context_length=context_length,
        cls_id=-1,
        sep_id=-2,
    )
    text = list(range(draws.whole(0, 200)))
    context = [-3] * draws.whole(0, 9)
    limit = draws.whole(1, 12)
    framed = cut(text, context, spec, max_windows=limit)
    seen = {token for window in framed.windows for token in window if token >= 0}
    assert framed.coverage.scanned_tokens == len(seen)
    assert framed.coverage.total_tokens == len(text)
    assert 1 <= len(framed.windows) <= limit
    assert len(set(framed.windows)) == len(framed.windows)
    for window in framed.windows:
        assert len(window) <= spec.max_length
        assert (window[0], window[-1]) == (spec.cls_id, spec.sep_id)
        inner = [token for token in window if token >= 0]
        assert inner == text[inner[0] : inner[0] + len(inner)] if inner else not text


GUARD: Final[Guard] = write_guard(Path(tempfile.mkdtemp(prefix="sluice-fuzz-")))
_KNOWN: Final = (*WORDS[4:8], "other")
_ERRORS: Final = (
    Retryable("away", remedy="wait"),
    Rejected(Reason.GUARD_REFUSED, "refused", remedy="report"),
    "shape", "nan", "late", "wrong", None, None, None, None,
)  # fmt: skip


def told(row: Sequence[int]) -> list[float]:
    """Logits that only this row has: a digest of its tokens."""
    digest = hashlib.sha256(repr(tuple(row)).encode()).digest()
    return [(digest[n] - 128) / 32 for n in range(len(LABELS))]


@dataclass(slots=True)
class Echo:
    """A classifier that answers each row by its content, and fails as it is drawn to."""

    draws: Draws
    mistakes: bool
    asked: Counter[tuple[int, ...]] = field(default_factory=Counter)

    async def infer(
        self, guard: str, rows: Sequence[Sequence[int]], *, length: int, pad_id: int
    ) -> Inference:
        """Logits of each row, late or early; or no answer, or a wrong one."""
        assert all(len(row) <= length for row in rows), "a row must fit its call"
        fault = self.draws.pick(_ERRORS) if self.mistakes else None
        for _ in range(self.draws.whole(0, 2)):
            await asyncio.sleep(0)
        if isinstance(fault, Exception):
            raise fault
        if fault == "wrong":
            raise Misconfigured("no such guard", remedy="load it")
        logits = np.asarray([told(row) for row in rows], dtype=np.float32)
        self.asked.update(tuple(row) for row in rows)
        if fault == "nan":
            logits[self.draws.whole(0, len(rows) - 1)] = np.nan
        if fault == "shape":
            logits = logits[:-1]
        return Inference(logits=logits, version="7", elapsed_s=0.01)


_LOOP: Final = asyncio.new_event_loop()


def scored(data: bytes, *, scorer: type[Scorer] = Scorer) -> None:
    """Each message has the scores of its own windows, or an error; never another's scores."""
    draws = Draws(data)
    messages = [_message(draws, number) for number in range(draws.whole(0, 9))]
    limits = CallLimits(
        max_rows=draws.whole(1, 5),
        max_tokens=draws.whole(1, 64),
        max_windows=draws.whole(1, 4),
        in_flight=draws.whole(1, 3),
    )
    classifier = Echo(draws, mistakes=draws.flag())
    made = scorer([GUARD], classifier, limits, FakeClock())
    results = _LOOP.run_until_complete(made.score(messages))
    assert len(results) == len(messages)
    for message, result in zip(messages, results, strict=True):
        _own(message, result, limits.max_windows, mistakes=classifier.mistakes)
    if not classifier.mistakes:
        wanted = Counter(w for m in messages for w in _windows(m, limits.max_windows))
        assert classifier.asked == wanted, "each window must be asked once"


def _message(draws: Draws, number: int) -> Message:
    completion = draws.flag()
    return Message(
        message_id=str(number),
        kind=Kind.COMPLETION if completion else Kind.PROMPT,
        text=draws.words(_KNOWN, 30),
        prompt=draws.words(_KNOWN, 4) if completion else None,
    )


def _windows(message: Message, limit: int) -> tuple[tuple[int, ...], ...]:
    return frame(GUARD.card, GUARD.tokenizer, [message], max_windows=limit)[0].windows


def _own(message: Message, result: Scored, limit: int, *, mistakes: bool) -> None:
    if not isinstance(result, tuple):
        assert mistakes, "an error that no call had"
        return
    (judgement,) = result
    framed = frame(GUARD.card, GUARD.tokenizer, [message], max_windows=limit)[0]
    logits = np.asarray([told(window) for window in framed.windows], dtype=np.float32)
    wanted = GUARD.card.scores(logits).max(axis=0)
    found = np.asarray([judgement.scores[label] for label in GUARD.card.labels])
    assert np.allclose(found, wanted, atol=1e-6), "another message's scores"
    assert judgement.coverage == framed.coverage
    assert judgement.windows == len(framed.windows)


def _seeds() -> list[bytes]:
    return [bytes([9, *range(1, 120)]), bytes([5, 1, 20, *[3] * 100]), bytes(range(250, 20, -2))]


TARGETS: Final[tuple[Any, ...]] = (
    Target(name="plan", entry=planned, seeds=_seeds, share=14),
    Target(name="windows", entry=windows, seeds=_seeds, share=10, max_bytes=32),
    Target(name="scores", entry=scored, allowed=(Misconfigured,), seeds=_seeds, share=4),
)
