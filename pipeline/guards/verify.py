"""Whether an exported guard says what its checkpoint says: same decisions, near scores.

The golden texts of the card are checked against the exported graph alone;
with the checkpoint at hand, so are further texts, long and short, against the
unchanged model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Misconfigured
from pipeline.events import Kind, Message
from pipeline.guards import cards
from pipeline.guards.cards import Card
from pipeline.guards.framing import frame
from pipeline.tokenization import Tokenizer

Texts = Sequence[tuple[Kind, str, str]]
"""Role, text, and the prompt of a completion."""
Run = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""`input_ids` and `attention_mask` [rows, length] to logits [rows, classes]."""

WINDOWS: Final = 16
PROBES: Final[Texts] = (
    (Kind.PROMPT, "hello", ""),
    (Kind.PROMPT, "How do I kill a process that no longer answers?", ""),
    (Kind.PROMPT, "¿Cómo se hace el pan? パンの作り方は？ 🍞", ""),
    (Kind.PROMPT, "The quick brown fox jumps over the lazy dog. " * 60, ""),
    (Kind.COMPLETION, "I cannot help with that.", "Tell me how to hurt someone."),
    (Kind.COMPLETION, "Certainly. " * 100, "Say certainly very often."),
)
"""Texts of several lengths and languages that need no right answer, only the same one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One text: the largest difference of a score, and labels decided otherwise.

    A golden text has the tolerance of its card, which the worker's self-test holds it to.
    """

    text: int
    label: str
    score: float
    expected: float
    decided_otherwise: tuple[str, ...]
    tolerance: float = math.inf

    @property
    def difference(self) -> float:
        """How far the two scores are apart."""
        return abs(self.score - self.expected)


def scores(card: Card, run: Run, texts: Texts) -> list[NDArray[np.float32]]:
    """Scores [labels] of each text from a served or local graph, as the worker makes them."""
    tokenizer = Tokenizer(card.tokenizer)
    framed = frame(card, tokenizer, [_message(*each) for each in texts], max_windows=WINDOWS)
    return [card.scores(_rows(card, run, each.windows)).max(axis=0) for each in framed]


def golden(card: Card, run: Run) -> list[Compared]:
    """The card's golden texts against a graph, each with its tolerance."""
    texts = [(each.role, each.text, each.prompt) for each in card.golden]
    expected = [
        np.asarray([each.scores.get(label, np.nan) for label in card.labels], dtype=np.float32)
        for each in card.golden
    ]
    compared = compare(card, scores(card, run, texts), expected)
    return [
        replace(each, tolerance=known.tolerance)
        for each, known in zip(compared, card.golden, strict=True)
    ]


def parity(card: Card, run: Run, reference: Callable[[Texts], list[Any]]) -> list[Compared]:
    """Further texts against the checkpoint's unchanged model."""
    texts = [each for each in PROBES if each[0] in card.roles]
    return list(compare(card, scores(card, run, texts), reference(texts)))


def compare(
    card: Card, found: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]
) -> Iterator[Compared]:
    """Each text's worst label; a decision is a score beyond any of the card's thresholds."""
    for number, (row, wanted) in enumerate(zip(found, expected, strict=True), start=1):
        apart = np.where(np.isnan(wanted), 0.0, np.abs(row - wanted))
        worst = int(np.argmax(apart))
        yield Compared(
            text=number,
            label=card.labels[worst],
            score=float(row[worst]),
            expected=float(wanted[worst]),
            decided_otherwise=tuple(_decided_otherwise(card, row, wanted)),
        )


def require(compared: Sequence[Compared], bound: float, what: str) -> None:
    """Raise Misconfigured for another decision, or a score beyond `bound` or its tolerance."""
    for each in compared:
        allowed = min(bound, each.tolerance)
        # Not `>`: what is not a number must not pass.
        if not each.difference <= allowed or each.decided_otherwise:
            raise Misconfigured(
                f"{what} text {each.text} scores {each.score:.4f} for {each.label},"
                f" expected {each.expected:.4f} within {allowed:g}",
                remedy="Weights, tokenizer, template and card do not belong together:"
                " export the guard again",
            )


def onnx_run(folder: Path) -> Run:
    """The folder's graph in ONNX Runtime; Misconfigured if it is not its card's or cannot run."""
    import onnxruntime

    path = cards.graph(folder, cards.load(folder))
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no base class
        raise Misconfigured(
            f"ONNX Runtime cannot run {path} on a CPU ({type(error).__name__})",
            remedy="Compile it, serve it with Triton on a GPU, and verify it there with --served",
        ) from error

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        answer = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
        return np.asarray(answer, dtype=np.float32)

    return run


def _rows(card: Card, run: Run, windows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Logits of windows, each padded to its bucket as the worker pads it."""
    rows = []
    for window in windows:
        length = next(bucket for bucket in card.buckets if bucket >= len(window))
        ids = np.full((1, length), card.pad_id, dtype=np.int64)
        mask = np.zeros((1, length), dtype=np.int64)
        ids[0, : len(window)], mask[0, : len(window)] = window, 1
        rows.append(run(ids, mask))
    return np.concatenate(rows)


def _decided_otherwise(
    card: Card, row: NDArray[np.float32], wanted: NDArray[np.float32]
) -> Iterator[str]:
    # So near a threshold, rounding may decide; the bound on the score still holds. A label
    # that a golden text does not list is not a number here: nothing is said about it.
    for point in card.operating_points.values():
        for label, threshold in point.items():
            index = card.labels.index(label)
            close = abs(float(wanted[index]) - threshold) <= 0.02
            if close or np.isnan(wanted[index]):
                continue
            if (row[index] >= threshold) != (wanted[index] >= threshold):
                yield label


def _message(role: Kind, text: str, prompt: str) -> Message:
    return Message(message_id="probe", kind=role, text=text, prompt=prompt or None)
