"""Training batches: length-bucketed windows, grouped by document."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.guards.data import Example
from pipeline.windows import WindowSpec, cut

SPEC = WindowSpec(max_length=128, overlap=32, context_length=32, cls_id=101, sep_id=102)
# Enough for the long attacks of the public sets; more cost time only.
MOST_WINDOWS = 8
POOL_DOCUMENTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Padded windows; `owner[i]` is the document of window i.

    `ids` and `mask` are int64 [windows, length]; `targets` and `weights` are
    float32 [documents, labels].
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    owner: NDArray[np.int64]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]


class Tokenizes(Protocol):
    """The slice of a tokenizer that windows need."""

    def encode_batch(self, texts: Sequence[str], /) -> list[Any]:
        """Encode texts; each result has `ids`, without special tokens."""
        ...


class Windower:
    """Turns examples into windows and remembers texts it has seen."""

    def __init__(self, tokenizer: Tokenizes) -> None:
        """Wrap a tokenizer that adds no special tokens and does not cut."""
        self.tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def __call__(self, rows: Sequence[Example]) -> list[tuple[tuple[int, ...], ...]]:
        """Return the windows of each row, in order."""
        wanted = {text for row in rows for text in (row.text, row.context)} - self._ids.keys()
        new = sorted(wanted)
        for text, encoded in zip(new, self.tokenizer.encode_batch(new), strict=True):
            self._ids[text] = encoded.ids
        return [
            cut(self._ids[row.text], self._ids[row.context], SPEC, max_windows=MOST_WINDOWS).windows
            for row in rows
        ]


def batches(
    rows: Sequence[Example],
    windower: Windower,
    *,
    tokens: int,
    documents: int,
    rng: random.Random | None = None,
) -> Iterator[tuple[list[int], Batch]]:
    """Yield (row indexes, batch), at most `tokens` padded ids in each.

    With `rng` the pools and batches come in random order, else by length.
    """
    texts = windower(rows)
    order = list(range(len(rows)))
    if rng:
        rng.shuffle(order)
    size = POOL_DOCUMENTS if rng else max(len(order), 1)
    for start in range(0, len(order), size):
        pool = sorted(order[start : start + size], key=lambda i: max(map(len, texts[i])))
        groups = list(_groups(pool, texts, tokens, documents))
        if rng:
            rng.shuffle(groups)
        for group in groups:
            yield group, _pad([rows[i] for i in group], [texts[i] for i in group])


def _groups(
    pool: Sequence[int], texts: Sequence[Sequence[Sequence[int]]], tokens: int, documents: int
) -> Iterator[list[int]]:
    """Cut a pool sorted by length into groups within both bounds."""
    group: list[int] = []
    count = 0
    for index in pool:
        width = max(map(len, texts[index]))
        if group and ((count + len(texts[index])) * width > tokens or len(group) == documents):
            yield group
            group, count = [], 0
        group.append(index)
        count += len(texts[index])
    if group:
        yield group


def _pad(rows: Sequence[Example], texts: Sequence[Sequence[Sequence[int]]]) -> Batch:
    """Lay windows out as one rectangle."""
    flat = [window for text in texts for window in text]
    ids = np.zeros((len(flat), max(map(len, flat))), np.int64)
    mask = np.zeros_like(ids)
    for place, window in enumerate(flat):
        ids[place, : len(window)] = window
        mask[place, : len(window)] = 1
    owner: NDArray[Any] = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    return Batch(
        ids=ids,
        mask=mask,
        owner=owner,
        targets=np.array([row.targets for row in rows], np.float32),
        weights=np.array([row.weights for row in rows], np.float32),
    )
