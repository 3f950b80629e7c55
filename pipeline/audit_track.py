"""One chain's state while its events pass, whatever their number. Pure."""

from __future__ import annotations

from pipeline.audit_proof import Break, ChainProof, Fault, Seen
from pipeline.chain import ChainHead, ChainState, Tip
from pipeline.events import ChainLink


class Track:
    """What is known of one chain while its events pass."""

    def __init__(self, seen: Seen, link: ChainLink, head: ChainHead | None, *, whole: bool) -> None:
        self.chain = link.chain
        self.partition = seen.partition
        self.fault: Break | None = None
        self._head = head
        self.first = link.sequence
        self._events = 0
        self._beyond = 0
        self._gap = range(0)
        self.tip = Tip()
        self.offset = seen.offset
        if not self._unconfirmed(link):
            if link.sequence > 0 and whole:
                self._gap = range(link.sequence)
                self._fail(seen, Fault.MISSING, "the events before it, from the chain's first on")
            elif link.sequence == 0 and link.previous:
                self._fail(seen, Fault.CHANGED, "the first event of a chain has no predecessor")
        self._take(seen, link)

    def add(self, seen: Seen, link: ChainLink) -> None:
        """The chain's next event in the order of the log."""
        if seen.partition != self.partition:
            self._events += 1
            self._fail(seen, Fault.REORDERED, f"its chain belongs to partition {self.partition}")
        elif self._unconfirmed(link):
            self._events += 1
            self._beyond += 1
        elif link.sequence <= self.tip.sequence:
            self._events += 1
            self._again(seen, link)
        else:
            self._join(seen, link)
            self._take(seen, link)

    def _join(self, seen: Seen, link: ChainLink) -> None:
        """Compare a later event with the last one."""
        if link.sequence > self.tip.sequence + 1:
            self._skip(seen, link)
        elif link.previous != self.tip.hash:
            self._differ(seen)

    def fail(self, fault: Break) -> None:
        """Keep the chain's first fault."""
        self.fault = self.fault or fault

    def lack(self, head: ChainHead) -> None:
        """Its head lies in the range, but the range shows only later events."""
        self.fail(
            Break(
                partition=self.partition,
                offset=head.offset,
                chain=self.chain,
                sequence=head.tip.sequence,
                fault=Fault.MISSING,
                detail=f"the events up to its head; the first that is there has {self.first}",
            )
        )

    def excuse(self, now: ChainHead | None) -> None:
        """Forget a fault behind the head of a chain that has broken off meanwhile."""
        if now is None or now.state is not ChainState.BROKEN or self.fault is None:
            return
        if self.fault.sequence > now.tip.sequence:
            self.fault = None

    def proof(self) -> ChainProof:
        """What it came to."""
        return ChainProof(
            chain=self.chain,
            writer=self._head.worker_id if self._head else self.chain.rsplit("/", 3)[0],
            partition=self.partition,
            first=self.first,
            last=self.tip.sequence,
            events=self._events,
            beyond_head=self._beyond,
            head=self._head,
            fault=self.fault,
        )

    def _take(self, seen: Seen, link: ChainLink) -> None:
        self._events += 1
        self.tip = Tip(sequence=link.sequence, hash=seen.hash)
        self.offset = seen.offset
        head = self._head
        if head is None or link.sequence > head.tip.sequence:
            self._beyond += 1
            if head is not None and head.state is ChainState.CLOSED:
                self._fail(
                    seen,
                    Fault.HEAD_MISMATCH,
                    f"its chain was closed after sequence {head.tip.sequence}",
                )
        elif link.sequence == head.tip.sequence and seen.hash != head.tip.hash:
            self._fail(seen, Fault.HEAD_MISMATCH, "its hash is not the one that the head holds")

    def _unconfirmed(self, link: ChainLink) -> bool:
        """Behind the head of a broken chain nothing is claimed."""
        head = self._head
        broken = head is not None and head.state is ChainState.BROKEN
        return broken and head is not None and link.sequence > head.tip.sequence

    def _again(self, seen: Seen, link: ChainLink) -> None:
        if link.sequence in self._gap or link.sequence < self.first:
            late = break_at(seen, Fault.REORDERED, "it lies behind later events of its chain")
            self.fault = late if self.fault and link.sequence in self._gap else self.fault or late
        else:
            self._fail(seen, Fault.REPEATED, "its sequence has been there before")

    def _skip(self, seen: Seen, link: ChainLink) -> None:
        if self.fault is None:
            self._gap = range(self.tip.sequence + 1, link.sequence)
        lacking = self.tip.sequence + 1
        count = link.sequence - lacking
        what = f"sequence {lacking}" + (f" and {count - 1:,} more" if count > 1 else "")
        self._fail(seen, Fault.MISSING, f"{what} should lie before it")

    def _differ(self, seen: Seen) -> None:
        """One of two neighbours was changed: the first, unless a head vouches for it."""
        head = self._head
        if head is not None and head.tip == self.tip:
            self._fail(seen, Fault.CHANGED, "its link is not the hash of the event before it")
            return
        self.fail(
            Break(
                partition=seen.partition,
                offset=self.offset,
                chain=self.chain,
                sequence=self.tip.sequence,
                fault=Fault.CHANGED,
                detail="its hash is not the one that the event after it, at offset"
                f" {seen.offset}, holds",
            )
        )

    def _fail(self, seen: Seen, fault: Fault, detail: str) -> None:
        self.fail(break_at(seen, fault, detail))


def break_at(seen: Seen, fault: Fault, detail: str) -> Break:
    """A fault at a record."""
    return Break(
        partition=seen.partition,
        offset=seen.offset,
        chain=seen.link.chain if seen.link else "",
        sequence=seen.link.sequence if seen.link else -1,
        fault=fault,
        detail=detail,
    )
