"""Proves a range of the audit log by its hash chains, or names what is wrong. Pure.

The verifier is fed every record of a range, each partition in its order, and
keeps one small state a chain. Heads are read before the range's bounds are
fixed, so that whatever a head claims must lie before the end of the log.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.audit_proof import Break, Fault, Proof, Seen, Span
from pipeline.audit_track import Track, break_at
from pipeline.chain import ChainHead, ChainState


class Heads:
    """The furthest head of each chain, and what is wrong with heads."""

    def __init__(self, heads: Iterable[ChainHead] = ()) -> None:
        self.latest: dict[str, ChainHead] = {}
        self.breaks: list[Break] = []
        self._refused: dict[tuple[str, Fault], Break] = {}
        for head in heads:
            self.add(head)

    def add(self, head: ChainHead) -> None:
        """One more, in the order of their topic."""
        before = self.latest.get(head.chain)
        if before is not None and before.tip.sequence == head.tip.sequence:
            if before.tip != head.tip:
                self.breaks.append(_contradiction(head))
            if head.state is ChainState.OPEN:
                return
        if before is None or head.tip.sequence >= before.tip.sequence:
            self.latest[head.chain] = head

    @property
    def refused(self) -> Iterable[Break]:
        """What is not to be trusted: each chain's that lies furthest on."""
        return self._refused.values()

    def refuse(self, found: Break) -> None:
        """A head that is not to be trusted."""
        key = (found.chain, found.fault)
        before = self._refused.get(key)
        if before is None or found.offset > before.offset:
            self._refused[key] = found


class Verifier:
    """Fed with every record of a range; `finish` gives the proof."""

    def __init__(self, spans: Iterable[Span], heads: Heads) -> None:
        self._spans = {span.partition: span for span in spans}
        self._heads, self._breaks = heads.latest, list(heads.breaks)
        self._refused = list(heads.refused)
        self._chains: dict[str, Track] = {}
        self._chained_from: dict[int, int] = {}
        for head in self._heads.values():
            if head.offset >= 0:
                self._note_chained(head.partition, head.offset)
        self._before = 0

    def feed(self, seen: Seen) -> None:
        """The next record of its partition."""
        if seen.link is None:
            self._without_link(seen)
            return
        self._note_chained(seen.partition, seen.offset)
        track = self._chains.get(seen.link.chain)
        if track is None:
            head = self._heads.get(seen.link.chain)
            start = self._spans[seen.partition].start
            whole = start == 0 or (head is not None and head.first_offset >= start)
            self._chains[seen.link.chain] = Track(seen, seen.link, head, whole=whole)
        else:
            track.add(seen, seen.link)

    def finish(self, later: Heads | None = None) -> Proof:
        """The proof, once everything was fed.

        `later`: the heads as they are now. What broke off meanwhile may lack
        events behind its head, which is no fault.
        """
        now = later.latest if later else {}
        for track in self._chains.values():
            track.excuse(now.get(track.chain))
        expired = sum(self._end(head) for head in self._heads.values())
        faults = [track.fault for track in self._chains.values() if track.fault]
        refused = [each for each in self._refused if self._concerns(each)]
        breaks = sorted(
            [*self._breaks, *refused, *faults], key=lambda each: (each.partition, each.offset)
        )
        proofs = sorted(
            (track.proof() for track in self._chains.values()),
            key=lambda proof: (proof.partition, proof.chain),
        )
        return Proof(
            chains=tuple(proofs),
            breaks=tuple(breaks),
            before_chaining=self._before,
            expired=expired,
        )

    def _concerns(self, refused: Break) -> bool:
        """Whether a refused head speaks of what was read; one that cannot be read may."""
        span = self._spans.get(refused.partition)
        if span is None or refused.chain in self._chains:
            return True
        inside = max(span.start, span.log_start) <= refused.offset < span.end
        return inside or refused.offset >= span.log_end

    def _note_chained(self, partition: int, offset: int) -> None:
        before = self._chained_from.get(partition, offset)
        self._chained_from[partition] = min(before, offset)

    def _without_link(self, seen: Seen) -> None:
        if seen.offset < self._chained_from.get(seen.partition, seen.offset + 1):
            self._before += 1
        elif not any(each.partition == seen.partition for each in self._breaks):
            fault = Fault.UNCHAINED if seen.readable else Fault.CHANGED
            detail = (
                "an event without a link lies behind chained ones"
                if seen.readable
                else "it cannot be read as an audit event"
            )
            self._breaks.append(break_at(seen, fault, detail))

    def _end(self, head: ChainHead) -> bool:
        """Compare a head with what was read of its chain; True when it has expired."""
        span, track = self._spans.get(head.partition), self._chains.get(head.chain)
        if span is None or head.offset < 0:
            return False
        if head.offset < span.log_start:
            return True
        beyond_log = head.offset >= span.log_end
        inside = span.start <= head.offset < span.end
        if inside or beyond_log:
            if track is None or track.tip.sequence < head.tip.sequence:
                self._cut(head, track)
            elif track.first > head.tip.sequence:
                track.lack(head)
        elif track is None and span.start <= head.first_offset < span.end:
            self._breaks.append(_without_its_first(head))
        return False

    def _cut(self, head: ChainHead, track: Track | None) -> None:
        last = track.tip.sequence if track else -1
        fault = Break(
            partition=head.partition,
            offset=track.offset if track else head.offset,
            chain=head.chain,
            sequence=last,
            fault=Fault.TRUNCATED,
            detail=f"the chain ends with sequence {last} here; its head says that sequence"
            f" {head.tip.sequence} was acknowledged at offset {head.offset}",
        )
        if track is None:
            self._breaks.append(fault)
        else:
            track.fail(fault)


def _without_its_first(head: ChainHead) -> Break:
    return Break(
        partition=head.partition,
        offset=head.first_offset,
        chain=head.chain,
        sequence=0,
        fault=Fault.MISSING,
        detail="its head says that the chain begins here, and none of its events is there",
    )


def _contradiction(head: ChainHead) -> Break:
    return Break(
        partition=head.partition,
        offset=head.offset,
        chain=head.chain,
        sequence=head.tip.sequence,
        fault=Fault.HEAD_MISMATCH,
        detail="two of its heads contradict each other",
    )
