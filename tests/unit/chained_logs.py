"""Audit logs as their writers leave them: several chains, interleaved, with their heads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st
from msgspec import structs

from pipeline import chain
from pipeline.audit_proof import Proof, Seen, Span
from pipeline.audit_verify import Heads, Verifier
from pipeline.chain import ChainHead, ChainState, Tip
from pipeline.events import ChainLink


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of a chain: its link and its content."""

    link: ChainLink
    content: str

    @property
    def hash(self) -> bytes:
        """As of a body that holds the link."""
        return chain.digest(repr((self.link, self.content)).encode())


@dataclass(slots=True)
class Log:
    """Partitions of events by offset (None where nothing lies), and the heads."""

    partitions: list[list[Event | None]]
    heads: list[ChainHead] = field(default_factory=list)

    def proof(self, start: int = 0, later: list[ChainHead] | None = None) -> Proof:
        """What a verifier says of it, from an offset on in each partition."""
        spans = [
            Span(partition=n, start=start, end=len(events), log_start=0, log_end=len(events))
            for n, events in enumerate(self.partitions)
        ]
        verifier = Verifier(spans, Heads(self.heads))
        for partition, events in enumerate(self.partitions):
            for offset, event in enumerate(events):
                if event is not None and offset >= start:
                    verifier.feed(
                        Seen(partition=partition, offset=offset, link=event.link, hash=event.hash)
                    )
        return verifier.finish(Heads(later or []))

    def covered(self) -> list[tuple[int, int]]:
        """Where events lie that a head vouches for."""
        heads = {head.chain: head.tip.sequence for head in self.heads}
        return [
            (partition, offset)
            for partition, events in enumerate(self.partitions)
            for offset, event in enumerate(events)
            if event and event.link.sequence <= heads.get(event.link.chain, -1)
        ]


@dataclass(slots=True)
class _Writer:
    id: str
    partition: int
    length: int
    state: ChainState
    confirmed: int
    lost: frozenset[int]
    tip: Tip = field(default_factory=Tip)
    places: list[tuple[Tip, int]] = field(default_factory=list)


@st.composite
def logs(draw: st.DrawFn, *, min_confirmed: int = -1) -> Log:
    """Any log that is in order."""
    writers = [_writer(draw, number, min_confirmed) for number in range(draw(st.integers(1, 4)))]
    turns = draw(st.permutations([w for w in writers for _ in range(w.length)]))
    log = Log([[], []])
    for writer in turns:
        _write(writer, log, draw(st.text(max_size=2)))
    log.heads = [_head(writer) for writer in writers]
    return log


def _writer(draw: st.DrawFn, number: int, min_confirmed: int) -> _Writer:
    length = draw(st.integers(1, 6))
    state = draw(st.sampled_from([ChainState.OPEN, ChainState.CLOSED, ChainState.BROKEN]))
    confirmed = draw(st.integers(min_confirmed, length - 1))
    if state is ChainState.CLOSED:
        confirmed = length - 1
    behind = (
        st.sampled_from(range(confirmed + 1, length)) if confirmed + 1 < length else st.nothing()
    )
    lost = draw(st.frozensets(behind)) if state is ChainState.BROKEN else frozenset()
    return _Writer(
        f"w/{number}", draw(st.integers(0, 1)), length, state, confirmed, frozenset(lost)
    )


def _write(writer: _Writer, log: Log, content: str) -> None:
    link = chain.next_link(writer.id, writer.tip)
    event = Event(link=link, content=content)
    writer.tip = Tip(sequence=link.sequence, hash=event.hash)
    if link.sequence not in writer.lost:
        log.partitions[writer.partition].append(event)
        writer.places.append((writer.tip, len(log.partitions[writer.partition]) - 1))


def _head(writer: _Writer) -> ChainHead:
    tip, offset = next(
        (place for place in writer.places if place[0].sequence == writer.confirmed), (Tip(), -1)
    )
    return ChainHead(
        chain=writer.id, worker_id="w", topic="audit", partition=writer.partition,
        tip=tip, offset=offset, state=writer.state,
        first_offset=writer.places[0][1] if offset >= 0 else -1,
    )  # fmt: skip


def changed(event: Event, **link: object) -> Event:
    """The event with another content, or other fields in its link."""
    if not link:
        return replace(event, content=event.content + "!")
    return replace(event, link=structs.replace(event.link, **link))
