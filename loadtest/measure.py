"""Joins what was sent with what was seen of it, by position or message id. Pure.

The stages of a judged message add up to its end-to-end time exactly:

    late + to_worker + judge + conclude + deliver = end to end

`late` and the ends are on the monotonic clock; the worker's stamps are wall
clock, carried over by an offset that is measured before and after the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loadtest.rows import FIELDS

Rows = np.ndarray[Any, Any]
Floats = NDArray[np.float64]
_AT: Final = {name: index for index, name in enumerate(FIELDS)}
_NONE: Final = -1
STAGES: Final = ("late", "to_worker", "judge", "conclude", "deliver")
_CLOCKS_AGREE_MS: Final = 1.0
"""A stage may be so far below zero: the offset between the clocks is as good as that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Each sent message with the first of its outcomes.

    `rows` as of `rows.ROW`; `seen` int64 [outcomes, FIELDS]; `verdict` and
    `dead` index `seen` for each row, -1 where there is none. `duplicates` counts
    a message's outcomes beyond the first of their sort, whatever positions they
    name; `foreign` those of others' messages. `call_us` is what each one's own
    guard call took, NaN where the audit log does not say; None where it was not
    read.
    """

    rows: Rows
    seen: Rows
    verdict: Rows
    dead: Rows
    duplicates: int
    foreign: int
    call_us: Floats | None = None

    @property
    def first(self) -> Rows:
        """The outcome that ended each message: its verdict, else its dead letter, else -1."""
        return np.where(self.verdict >= 0, self.verdict, self.dead)

    @property
    def answered(self) -> Rows:
        """True for each message with an outcome."""
        return np.asarray(self.first >= 0)

    @property
    def accepted(self) -> Rows:
        """True where the broker acknowledged it, or an outcome proves that it was there."""
        return np.asarray((self.rows["acked_ns"] > 0) | self.answered)

    def column(self, name: str, of: Rows | None = None) -> Rows:
        """A field of the ending outcomes, 0 where there is none."""
        index = self.first if of is None else of
        if not len(self.seen):
            return np.zeros(len(index), dtype=np.int64)
        return np.where(index >= 0, self.seen[index, _AT[name]], 0)


def join(rows: Rows, seen: Rows, calls: Rows | None = None) -> Joined:
    """Match outcomes to messages: by position, else by the sequence number they carry.

    `calls` are rows of `GuardCalls.read`, matched by position.
    """
    owner = _owners(rows, seen)
    own = owner >= 0
    dead = seen[:, _AT["dead"]] > 0
    verdicts = _earliest(len(rows), owner, own & ~dead)
    letters = _earliest(len(rows), owner, own & dead)
    first = np.count_nonzero(verdicts >= 0) + np.count_nonzero(letters >= 0)
    return Joined(
        rows=rows,
        seen=seen,
        verdict=verdicts,
        dead=letters,
        duplicates=int(np.count_nonzero(own) - first),
        foreign=int(np.count_nonzero(~own)),
        call_us=None if calls is None else _calls(rows, calls),
    )


def end_to_end_ms(joined: Joined) -> Floats:
    """From the intended send time to the outcome, by row; NaN without outcome."""
    return _ms(joined.column("seen_ns") - joined.rows["intended_ns"], joined.answered)


def naive_ms(joined: Joined) -> Floats:
    """From the actual send time, which hides what a stalled generator delayed."""
    return _ms(joined.column("seen_ns") - joined.rows["sent_ns"], joined.answered)


def added_ms(joined: Joined) -> Floats:
    """End to end, less the message's own guard call; NaN where that is not known."""
    if joined.call_us is None:
        return np.full(len(joined.rows), np.nan)
    return end_to_end_ms(joined) - joined.call_us / 1000


def late_ms(joined: Joined) -> Floats:
    """From the intended to the actual send time, for every row."""
    return _ms(joined.rows["sent_ns"] - joined.rows["intended_ns"], np.ones(len(joined.rows), bool))


def ack_ms(joined: Joined) -> Floats:
    """From the send to the broker's acknowledgement."""
    return _ms(joined.rows["acked_ns"] - joined.rows["sent_ns"], joined.rows["acked_ns"] > 0)


def stages_ms(joined: Joined, offset_us: float) -> Mapping[str, Floats]:
    """The stages of scored messages by name; `offset_us` is wall minus monotonic.

    A message that went back in time is left out of all: see `backwards`.
    """
    spans = _spans_ms(joined, offset_us)
    told = ~_any_backwards(spans)
    return {name: np.where(told, values, np.nan) for name, values in spans.items()}


def backwards(joined: Joined, offset_us: float) -> int:
    """How many scored messages have a stage below -1 ms: the worker's clock is another."""
    return int(np.count_nonzero(_any_backwards(_spans_ms(joined, offset_us))))


def _any_backwards(spans: Mapping[str, Floats]) -> Rows:
    early = [spans[name] < -_CLOCKS_AGREE_MS for name in STAGES[1:]]
    return np.asarray(np.any(early, axis=0))


def _spans_ms(joined: Joined, offset_us: float) -> dict[str, Floats]:
    """The stages as the stamps have them; NaN where a message was not scored."""
    scored = joined.column("scored_us", joined.verdict)
    whole = scored > 0
    stamps = {
        "sent": joined.rows["sent_ns"] / 1000 + offset_us,
        "received": joined.column("received_us", joined.verdict).astype(float),
        "scored": scored.astype(float),
        "emitted": joined.column("emitted_us", joined.verdict).astype(float),
        "seen": joined.column("seen_ns", joined.verdict) / 1000 + offset_us,
    }
    spans = {
        name: np.where(whole, (stamps[after] - stamps[before]) / 1000, np.nan)
        for name, (before, after) in zip(STAGES[1:], pairwise(stamps), strict=True)
    }
    return {"late": np.where(whole, late_ms(joined), np.nan), **spans}


def _owners(rows: Rows, seen: Rows) -> Rows:
    """The index of the row that each outcome belongs to, or -1."""
    if not len(rows) or not len(seen):
        return np.full(len(seen), _NONE)
    placed = np.flatnonzero(rows["offset"] >= 0)
    keys = _key(rows["kind"][placed], rows["partition"][placed], rows["offset"][placed])
    by_place = _find(
        keys, _key(seen[:, _AT["kind"]], seen[:, _AT["partition"]], seen[:, _AT["offset"]])
    )
    by_number = _find(rows["sequence"], seen[:, _AT["sequence"]])
    at_place = placed[by_place] if len(placed) else by_place
    return np.where(by_place >= 0, at_place, by_number)


def _calls(rows: Rows, calls: Rows) -> Floats:
    """Microseconds of each row's guard call, NaN where none is known."""
    keys = _key(calls[:, 0], calls[:, 1], calls[:, 2])
    at = _find(keys, _key(rows["kind"], rows["partition"], rows["offset"]))
    known = (at >= 0) & (rows["offset"] >= 0)
    return np.where(known, calls[at, 3] if len(calls) else 0, np.nan)


def _find(keys: Rows, wanted: Rows) -> Rows:
    """The index in `keys` of each wanted value, or -1."""
    if not len(keys):
        return np.full(len(wanted), _NONE)
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    return np.where(keys[order][at] == wanted, order[at], _NONE)


def _key(kind: Rows, partition: Rows, offset: Rows) -> Rows:
    # 7 bits of kind, 16 of partition, 40 of offset: a trillion messages a partition.
    kinds, partitions = kind.astype(np.int64), partition.astype(np.int64)
    return np.asarray((kinds << 56) | (partitions << 40) | offset.astype(np.int64))


def _earliest(count: int, owner: Rows, chosen: Rows) -> Rows:
    found = np.full(count, _NONE)
    index = np.flatnonzero(chosen)[::-1]
    found[owner[index]] = index  # the last one written stays: the earliest seen
    return found


def _ms(difference_ns: Rows, where: Rows) -> Floats:
    return np.where(where, difference_ns / 1e6, np.nan)
