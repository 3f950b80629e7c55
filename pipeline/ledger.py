"""Acknowledge in offset order, however out of order the work ends.

Faust commits past an unfinished message when later ones are acknowledged
first (faust issue 606), so nothing is acknowledged before everything taken
ahead of it in its partition is. Pure: no clock, no IO.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.events import Position


@dataclass(slots=True, eq=False, kw_only=True)
class Slot:
    """One taken message, until it is acknowledged or given up.

    `acknowledge` lets its offset be committed; `forget` lets go of it without
    that, so that Kafka delivers it again.
    """

    position: Position
    generation: int
    taken_at_s: float
    timestamp_ms: int | None
    acknowledge: Callable[[], None]
    forget: Callable[[], None]
    settled: bool = False


class Ledger:
    """The messages that are taken and not yet acknowledged, by partition."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, int], deque[Slot]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many messages are taken and not yet acknowledged."""
        return self._count

    def take(self, slot: Slot) -> None:
        """Enter a message; raises ValueError when its offset does not ascend."""
        line = self._open.setdefault(self._key(slot), deque())
        if line and line[-1].position.offset >= slot.position.offset:
            raise ValueError(f"{slot.position} was taken after {line[-1].position}")
        line.append(slot)
        self._count += 1

    def settle(self, slot: Slot) -> int:
        """Mark its outcome as published; acknowledge the settled head of its line.

        Returns how many messages were acknowledged. A slot that was given up
        is ignored: Kafka delivers it again.
        """
        slot.settled = True
        line = self._open.get(self._key(slot))
        acknowledged = 0
        while line and line[0].settled:
            line.popleft().acknowledge()
            acknowledged += 1
        self._count -= acknowledged
        return acknowledged

    def give_up(self) -> list[Slot]:
        """Forget every message that is not acknowledged, and return them."""
        abandoned = list(self.slots())
        self._open.clear()
        self._count = 0
        return abandoned

    def slots(self) -> Iterator[Slot]:
        """Every message that is taken and not yet acknowledged."""
        for line in self._open.values():
            yield from line

    def heads(self) -> Iterator[Slot]:
        """The oldest such message of each partition: it holds the commit back."""
        for line in self._open.values():
            if line:
                yield line[0]

    def head(self, topic: str, partition: int) -> int | None:
        """The offset of the oldest such message of a partition, if there is one."""
        at = (slot.position for slot in self.heads())
        found = (p.offset for p in at if (p.topic, p.partition) == (topic, partition))
        return min(found, default=None)

    @staticmethod
    def _key(slot: Slot) -> tuple[str, int, int]:
        return slot.position.topic, slot.position.partition, slot.generation
