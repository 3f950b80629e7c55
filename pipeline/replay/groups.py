"""Records and flips by category, tenant, kind and language. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Self

from pipeline.proportions import Interval, wilson
from pipeline.replay.comparison import Compared, category

BY: Final = ("category", "tenant", "kind", "language")
"""What records are grouped by."""

OTHERS: Final = "(others)"
NONE: Final = "(none)"
_MOST: Final = 1_000
"""Groups of one sort that are told apart; further ones are counted as one."""


class Group(NamedTuple):
    """One group's records: how many, how many flipped, to stricter and to milder."""

    name: str
    records: int
    flips: int
    stricter: int
    milder: int

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the share that flipped."""
        return wilson(self.flips, self.records)


class Groups:
    """Counts records by each of `BY`."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, list[int]]] = {by: {} for by in BY}

    def add(self, compared: Compared) -> None:
        """Count a record in its group of every sort."""
        verdict, flip = compared.verdict, compared.flip
        names = (
            category(compared),
            verdict.tenant,
            verdict.kind.value,
            compared.entry.event.language or "",
        )
        for counts, name in zip(self._counts.values(), names, strict=True):
            count = counts.get(name)
            if count is None:
                count = counts.setdefault(name if len(counts) < _MOST else OTHERS, [0, 0, 0])
            count[0] += 1
            if flip:
                count[1 if compared.stricter else 2] += 1

    def groups(self, by: str) -> Iterator[Group]:
        """The groups of one sort, most flips first."""
        counts = self._counts[by].items()
        for name, (records, up, down) in sorted(
            counts, key=lambda each: (-each[1][1] - each[1][2], -each[1][0], each[0])
        ):
            yield Group(
                name=name or NONE, records=records, flips=up + down, stricter=up, milder=down
            )

    def state(self) -> dict[str, Any]:
        """Everything, as a JSON document."""
        return self._counts

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """The groups that `state` came from."""
        groups = cls()
        groups._counts = {by: dict(state[by]) for by in BY}
        return groups
