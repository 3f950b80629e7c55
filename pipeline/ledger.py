"""Acknowledge in offset order, however out of order the work ends.

Faust commits past an unfinished message when later ones are acknowledged
first (faust issue 606), so nothing is acknowledged before everything taken
ahead of it in its partition is. Pure: no clock, no IO.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from pipeline.events import Position


class Origin(Protocol):
    """Where taken messages came from, and must be settled."""

    def acknowledge(self, offset: int) -> None:
        """Let this message's offset be committed; called in offset order."""

    def forget(self, offset: int) -> None:
        """Let go of a message without that, so that Kafka delivers it again."""


class Slot(Struct, eq=False, kw_only=True):
    """One taken message, until it is acknowledged or given up; `line` is the ledger's."""

    position: Position
    generation: int
    taken_at_s: float
    timestamp_ms: int | None
    origin: Origin
    line: deque[Slot] | None = None
    settled: bool = False
    forgotten: bool = False

    def forget(self) -> None:
        """Let go of the message, once: Kafka delivers it again."""
        if not self.forgotten:
            self.forgotten = True
            self.origin.forget(self.position.offset)


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
        at = slot.position
        key = (at.topic, at.partition, slot.generation)
        line = self._open.get(key)
        if line is None:
            line = self._open[key] = deque()
        if line and line[-1].position.offset >= slot.position.offset:
            raise ValueError(f"{slot.position} was taken after {line[-1].position}")
        slot.line = line
        line.append(slot)
        self._count += 1

    def settle(self, slot: Slot) -> int:
        """Mark its outcome as published; acknowledge the settled head of its line.

        Returns how many messages were acknowledged. A slot that was given up
        is ignored: Kafka delivers it again.
        """
        slot.settled = True
        line = slot.line
        acknowledged = 0
        while line and line[0].settled:
            head = line.popleft()
            head.origin.acknowledge(head.position.offset)
            acknowledged += 1
        self._count -= acknowledged
        return acknowledged

    def give_up(self) -> list[Slot]:
        """Forget every message that is not acknowledged, and return them."""
        abandoned = list(self.slots())
        for line in self._open.values():
            line.clear()  # what is settled later finds nothing to acknowledge
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
