"""Hash chains of audit events, as their writer holds them. Pure.

A chain is one start of a writer and one partition of the audit topic. Each
event's link holds its sequence and the SHA-256 of the event before it; a
head says how far the chain had come when the broker had acknowledged it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from msgspec import Struct

from pipeline.events import ChainLink

NOWHERE: Final = -1
"""The sequence and the offset of an event that is not there yet."""


class ChainState(StrEnum):
    """Whether more follows a head; a state that is not known reads as UNKNOWN."""

    UNKNOWN = "UNKNOWN"
    OPEN = "open"
    CLOSED = "closed"
    BROKEN = "broken"


class Tip(Struct, frozen=True, kw_only=True, gc=False):
    """The last event of a chain: its sequence and the SHA-256 of its Avro body."""

    sequence: int = NOWHERE
    hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """How far a chain had come: the event at `tip`, and all before it, were acknowledged.

    `first_offset`: where its first event lies, NOWHERE in heads that do not say.
    """

    chain: str
    worker_id: str
    topic: str
    partition: int
    tip: Tip
    offset: int
    state: ChainState
    first_offset: int = NOWHERE


def digest(body: bytes) -> bytes:
    """What a chain holds of an event: the SHA-256 of its Avro body."""
    return hashlib.sha256(body).digest()


def next_link(chain: str, tip: Tip) -> ChainLink:
    """The link of the event that comes after `tip`."""
    return ChainLink(chain=chain, sequence=tip.sequence + 1, previous=tip.hash)


class Chain:
    """One chain as it grows: queued up to `tip`, acknowledged up to its head."""

    def __init__(self, id: str, *, worker_id: str, topic: str, partition: int) -> None:
        self.id = id
        self.tip = Tip()
        self._worker_id = worker_id
        self._topic = topic
        self._partition = partition
        self._confirmed = Tip()
        self._offset = NOWHERE
        self._first_offset = NOWHERE
        self._state = ChainState.OPEN

    @property
    def open(self) -> bool:
        """Whether events may be added."""
        return self._state is ChainState.OPEN

    @property
    def head(self) -> ChainHead:
        """How far the broker has acknowledged it without a gap."""
        return ChainHead(
            chain=self.id,
            worker_id=self._worker_id,
            topic=self._topic,
            partition=self._partition,
            tip=self._confirmed,
            offset=self._offset,
            state=self._state,
            first_offset=self._first_offset,
        )

    def holds(self, tip: Tip) -> bool:
        """Whether the head covers an event of this chain."""
        return self._confirmed.sequence >= tip.sequence

    def confirm(self, tip: Tip, offset: int) -> None:
        """The broker has everything up to `tip`, which lies at `offset`.

        The first time, all of it is one batch, whose events lie side by side.
        After a break this means nothing any more: what lies behind a gap is
        not proved, and its writer tells it again in another chain. One that lies
        before what was confirmed is such a break.
        """
        if self.open and (tip.sequence <= self._confirmed.sequence or offset <= self._offset):
            self.break_off()
            self._first_offset = NOWHERE  # what came first may not have begun the chain
        if self.open:
            if self._confirmed.sequence == NOWHERE:
                self._first_offset = offset - tip.sequence
            self._confirmed, self._offset = tip, offset

    def break_off(self) -> None:
        """What was queued after the head may or may not be there: nothing more is added."""
        if self.open:
            self._state = ChainState.BROKEN

    def close(self) -> None:
        """End it: in order if everything queued is acknowledged, else broken."""
        if self.open:
            whole = self._confirmed == self.tip
            self._state = ChainState.CLOSED if whole else ChainState.BROKEN
