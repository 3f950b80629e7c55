"""What a proof of the audit log is made of: what was read, and what it came to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.chain import ChainHead
from pipeline.events import ChainLink


class Fault(StrEnum):
    """What can be wrong with a chain."""

    MISSING = "missing"
    CHANGED = "changed"
    REORDERED = "reordered"
    REPEATED = "repeated"
    TRUNCATED = "truncated"
    HEAD_MISMATCH = "head-mismatch"
    BAD_SIGNATURE = "bad-signature"
    UNCHAINED = "unchained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Where a chain stops being proved, and why; `chain` is empty where there is none."""

    partition: int
    offset: int
    chain: str
    sequence: int
    fault: Fault
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A record of the audit topic: its link, and the SHA-256 of its Avro body.

    Not `readable`: it is no audit event.
    """

    partition: int
    offset: int
    link: ChainLink | None
    hash: bytes
    readable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Offsets [start, end) of a partition that are read, of [log_start, log_end) that it holds."""

    partition: int
    start: int
    end: int
    log_start: int
    log_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainProof:
    """What is proved of one chain: `first` to `last`, and where its head stands.

    `beyond_head`: events that no head holds yet; of a broken chain they were
    told again in another.
    """

    chain: str
    writer: str
    partition: int
    first: int
    last: int
    events: int
    beyond_head: int
    head: ChainHead | None
    fault: Break | None

    @property
    def begins_inside(self) -> bool:
        """Whether the range begins in the middle of it."""
        return self.first > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The whole: what each chain came to, and every chain's first break, in order."""

    chains: tuple[ChainProof, ...]
    breaks: tuple[Break, ...]
    before_chaining: int
    expired: int

    @property
    def events(self) -> int:
        """Chained events that were read."""
        return sum(chain.events for chain in self.chains)

    @property
    def proved(self) -> bool:
        """Whether nothing is wrong."""
        return not self.breaks
