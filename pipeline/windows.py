"""Cut a tokenised text into overlapping windows a guard can take.

A prompt window is `[CLS] text [SEP]`. A completion whose prompt is known is
`[CLS] first tokens of the prompt [SEP] text [SEP]`, so that every window of
the completion is judged in its context. Windows overlap, so that a payload
across a boundary is whole in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from pipeline.events import Coverage


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpec:
    """A guard's input shape, in tokens; `overlap` is shared by neighbours."""

    max_length: int
    overlap: int
    context_length: int
    cls_id: int
    sep_id: int


class Windowed(Struct, frozen=True, kw_only=True, gc=False):
    """The windows of one text, and how much of the text they cover."""

    windows: tuple[tuple[int, ...], ...]
    coverage: Coverage


def cut(
    text: Sequence[int], context: Sequence[int], spec: WindowSpec, *, max_windows: int
) -> Windowed:
    """Windows over `text` (token ids without specials), at most `max_windows`.

    When there are too many, the first, the last and evenly spread ones are
    kept: an attacker cannot choose a fixed place to hide in. Coverage says
    what was left out.
    """
    head = _head(context, spec)
    room = spec.max_length - len(head) - 1
    kept = spread(len(text), room, min(spec.overlap, room - 1), max_windows)
    windows = tuple((*head, *text[start : start + room], spec.sep_id) for start in kept)
    scanned = covered([(start, start + room) for start in kept], len(text))
    return Windowed(
        windows=windows, coverage=Coverage(scanned_tokens=scanned, total_tokens=len(text))
    )


def _head(context: Sequence[int], spec: WindowSpec) -> tuple[int, ...]:
    if not context or spec.context_length == 0:
        return (spec.cls_id,)
    return (spec.cls_id, *context[: spec.context_length], spec.sep_id)


def _starts(total: int, room: int, overlap: int) -> list[int]:
    if total <= room:
        return [0]
    step = room - overlap
    starts = list(range(0, total - room, step))
    # The last window ends with the text, so that no window is nearly empty.
    return [*starts, total - room]


def spread(total: int, room: int, overlap: int, limit: int) -> list[int]:
    """Where windows of `room` tokens start so that neighbours share `overlap`.

    Of more than `limit`, the first, the last and evenly spread ones.
    """
    starts = _starts(total, room, overlap)
    if len(starts) <= limit:
        return starts
    if limit == 1:
        return starts[:1]
    last = len(starts) - 1
    return [starts[round(index * last / (limit - 1))] for index in range(limit)]


def covered(ranges: Sequence[tuple[int, int]], total: int) -> int:
    """How many of `total` tokens lie in a range; ranges by ascending start."""
    count, reached = 0, 0
    for start, wanted in ranges:
        end = min(wanted, total)
        count += max(0, end - max(start, reached))
        reached = max(reached, end)
    return count
