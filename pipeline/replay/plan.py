"""Everything that fixes a replay's result; resuming needs the very same. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pipeline.adapters.kafka import Slice
from pipeline.errors import Misconfigured


class Scores(StrEnum):
    """Where scores come from: the records, or the guards once more."""

    RECORDED = "recorded"
    RERUN = "rerun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for, in words that JSON can hold."""

    topic: str
    policy: str
    scores: Scores
    guards: tuple[str, ...]
    start: str
    end: str
    offsets: tuple[str, ...]
    selection: Mapping[str, Any]
    margin: float
    tolerance: float
    show_text: bool
    emit: str

    def as_json(self) -> dict[str, Any]:
        """The request as a JSON document."""
        return {**asdict(self), "guards": list(self.guards), "offsets": list(self.offsets)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request with the offsets it reads, fixed when it began."""

    request: Request
    slices: tuple[Slice, ...]

    @property
    def records(self) -> int:
        """Offsets to read; compaction may have left gaps in them."""
        return sum(part.end - part.start for part in self.slices)


def require_same(request: Request, before: Mapping[str, Any]) -> None:
    """Raise Misconfigured when a replay is to be resumed with another request."""
    now = request.as_json()
    other = sorted(name for name in now if now[name] != before.get(name))
    if other:
        raise Misconfigured(
            f"the replay in this folder was begun with another {' and '.join(other)}",
            remedy="Resume it with the arguments it was begun with, or use another --out",
        )


def left(slices: Sequence[Slice], upto: Mapping[int, int]) -> list[Slice]:
    """What is still to be read, by the next offset of each partition."""
    return [
        Slice(
            partition=part.partition,
            start=min(part.end, max(part.start, upto.get(part.partition, part.start))),
            end=part.end,
        )
        for part in slices
    ]
