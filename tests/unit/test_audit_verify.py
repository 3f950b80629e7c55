"""Specification of the proof: logs in order pass, every single manipulation is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.audit_proof import Break, Fault, Seen, Span
from pipeline.audit_verify import Heads, Verifier
from pipeline.chain import ChainHead, ChainState, Tip, next_link

from .chained_logs import Event, Log, changed, logs

some = logs(min_confirmed=0)


@given(logs(), st.integers(0, 5))
def test_a_log_in_order_is_proved(log: Log, start: int) -> None:
    """Restarts, several writers and broken chains included, from wherever the range begins."""
    proof = log.proof(start)
    assert proof.proved, proof.breaks
    assert proof.events == sum(e is not None for part in log.partitions for e in part[start:])


@given(some, st.data(), st.booleans())
def test_a_dropped_event_is_found(log: Log, data: st.DataObject, copied: bool) -> None:
    """Whether its offset stays empty or the log was copied without it."""
    partition, offset = data.draw(st.sampled_from(log.covered()))
    if copied:
        del log.partitions[partition][offset]
    else:
        log.partitions[partition][offset] = None
    assert not log.proof().proved


@given(some, st.data())
def test_a_changed_event_is_found(log: Log, data: st.DataObject) -> None:
    """Any byte of its content, or any field of its link."""
    partition, offset = data.draw(st.sampled_from(log.covered()))
    event = _event(log, partition, offset)
    link = data.draw(
        st.sampled_from([
            {},
            {"sequence": event.link.sequence + 1},
            {"sequence": max(0, event.link.sequence - 1)},
            {"previous": b"else"},
            {"chain": "another"},
        ])
    )  # fmt: skip
    after = changed(event, **link)
    assume(after != event)
    log.partitions[partition][offset] = after
    assert not log.proof().proved


@given(some, st.data())
def test_a_swapped_pair_is_found(log: Log, data: st.DataObject) -> None:
    """Of one chain: chains beside each other have no order that anybody wrote down."""
    places = log.covered()
    partition, one = data.draw(st.sampled_from(places))
    chain = _event(log, partition, one).link.chain
    others = [
        offset
        for where, offset in places
        if where == partition and offset != one
        if _event(log, partition, offset).link.chain == chain
    ]
    assume(others)
    other = data.draw(st.sampled_from(others))
    events = log.partitions[partition]
    events[one], events[other] = events[other], events[one]
    assert not log.proof().proved


@given(some, st.data())
def test_a_repeated_event_is_found(log: Log, data: st.DataObject) -> None:
    """At once or later, in its partition or in the other."""
    partition, offset = data.draw(st.sampled_from(log.covered()))
    event = _event(log, partition, offset)
    events = log.partitions[data.draw(st.integers(0, 1))]
    events.insert(data.draw(st.integers(0, len(events))), event)
    assert not log.proof().proved


@given(some, st.data())
def test_a_truncated_tail_is_found(log: Log, data: st.DataObject) -> None:
    """When it takes an event with it that a head vouches for."""
    partition, offset = data.draw(st.sampled_from(log.covered()))
    del log.partitions[partition][offset:]
    proof = log.proof()
    assert Fault.TRUNCATED in {found.fault for found in proof.breaks}


@pytest.mark.parametrize(
    ("fault", "at", "spoil"),
    [
        (Fault.MISSING, 1, lambda events: events.pop(1)),
        (Fault.CHANGED, 1, lambda events: events.__setitem__(1, changed(events[1]))),
        (Fault.REORDERED, 2, lambda events: events.insert(1, events.pop(2))),
        (Fault.REPEATED, 2, lambda events: events.insert(2, events[1])),
        (Fault.TRUNCATED, 2, lambda events: events.pop()),
        (Fault.HEAD_MISMATCH, 3, lambda events: events.__setitem__(3, changed(events[3]))),
    ],
)
def test_a_break_is_named(fault: Fault, at: int, spoil: object) -> None:
    """What is wrong, and at which offset."""
    log = _one_chain(4)
    spoil(log.partitions[0])  # type: ignore[operator]
    found = log.proof().breaks[0]
    assert (found.fault, found.offset, found.chain) == (fault, at, "w/0")


def test_nothing_may_follow_a_closed_head() -> None:
    """An event that was added later is named."""
    log = _one_chain(3)
    log.heads = [replace(log.heads[0], tip=_tip(log, 1), offset=1)]
    (found,) = log.proof().breaks
    assert (found.fault, found.sequence) == (Fault.HEAD_MISMATCH, 2)


def test_a_chain_that_broke_off_meanwhile_is_excused() -> None:
    """Read while it was open, its unconfirmed tail may have holes."""
    log = _one_chain(4)
    del log.partitions[0][2]
    log.heads = [replace(log.heads[0], state=ChainState.OPEN, tip=_tip(log, 0), offset=0)]
    assert not log.proof().proved
    now = replace(log.heads[0], state=ChainState.BROKEN, tip=_tip(log, 1), offset=1)
    assert log.proof(later=[now]).proved


def test_a_chain_whose_events_are_all_gone_is_found() -> None:
    """Its head still says that they were there."""
    log = _one_chain(3)
    log.partitions[0] = [None] * 3
    (found,) = log.proof().breaks
    assert (found.fault, found.chain) == (Fault.TRUNCATED, "w/0")


def test_heads_older_than_the_log_have_expired() -> None:
    """What retention deleted cannot be proved, and is no fault."""
    span = Span(partition=0, start=10, end=10, log_start=10, log_end=10)
    head = _head(tip=Tip(sequence=4, hash=b"h"), offset=4)
    proof = Verifier([span], Heads([head])).finish()
    assert (proof.proved, proof.expired) == (True, 1)


def test_two_heads_that_contradict_each_other_are_found() -> None:
    """The same sequence with two hashes: one of them was made up."""
    heads = [_head(tip=Tip(sequence=4, hash=text), offset=4) for text in (b"a", b"b")]
    span = Span(partition=0, start=10, end=10, log_start=10, log_end=10)
    (found,) = Verifier([span], Heads(heads)).finish().breaks
    assert found.fault is Fault.HEAD_MISMATCH


@pytest.mark.parametrize(("readable", "fault"), [(True, Fault.UNCHAINED), (False, Fault.CHANGED)])
def test_events_without_a_link_belong_before_the_chains(readable: bool, fault: Fault) -> None:
    """There they are counted; behind a chained event, they are a break."""
    log = _one_chain(2)
    events = [event for event in log.partitions[0] if event]
    span = Span(partition=0, start=0, end=9, log_start=0, log_end=9)
    verifier = Verifier([span], Heads())
    bare = Seen(partition=0, offset=0, link=None, hash=b"", readable=readable)
    verifier.feed(bare)
    verifier.feed(Seen(partition=0, offset=1, link=events[0].link, hash=events[0].hash))
    verifier.feed(replace(bare, offset=2))
    proof = verifier.finish()
    assert proof.before_chaining == 1
    assert [(found.fault, found.offset) for found in proof.breaks] == [(fault, 2)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_beginning_that_was_cut_is_found_wherever_the_range_begins(count: int) -> None:
    """The head says where the chain begins: here at 2, in a range that begins at 1."""
    log = _begins_at_two()
    assert log.proof(1).proved
    assert log.proof(3).proved  # begins inside of the chain, which it may
    log.partitions[0][2 : 2 + count] = [None] * count
    (found,) = log.proof(1).breaks
    assert (found.fault, found.chain) == (Fault.MISSING, "w/0")


def test_a_beginning_that_was_replaced_is_found() -> None:
    """By events of a made-up chain without a head."""
    log = _begins_at_two()
    link = next_link("w/made-up", Tip())
    log.partitions[0][2] = Event(link=link, content="else")
    assert {found.fault for found in log.proof(1).breaks} == {Fault.MISSING}


def test_all_of_a_chain_that_was_cut_from_the_range_is_found() -> None:
    """Where its head lies behind the range."""
    head = replace(_head(tip=Tip(sequence=9, hash=b"h"), offset=19), first_offset=10)
    span = Span(partition=0, start=5, end=15, log_start=0, log_end=30)
    (found,) = Verifier([span], Heads([head])).finish().breaks
    assert (found.fault, found.offset) == (Fault.MISSING, 10)


@pytest.mark.parametrize(
    ("offset", "counts"),
    [(-1, False), (49, False), (50, False), (99, False), (100, True), (199, True), (200, False),
     (299, False), (300, True)],
)  # fmt: skip
def test_a_refused_head_counts_where_it_speaks_of_what_was_read(offset: int, counts: bool) -> None:
    """Expired, or before or behind the range it is nobody's fault; beyond the log's end it is."""
    heads = Heads()
    heads.refuse(_refused(offset))
    span = Span(partition=0, start=100, end=200, log_start=50, log_end=300)
    assert Verifier([span], heads).finish().proved is not counts


def test_a_refused_head_counts_where_its_chain_was_read() -> None:
    """Whatever offset it claims, and once for each chain: what lies furthest on."""
    heads = Heads()
    for offset in (0, 2, 1):
        heads.refuse(_refused(offset))
    log = _one_chain(4)
    spans = [Span(partition=0, start=3, end=4, log_start=3, log_end=4)]
    verifier, event = Verifier(spans, heads), _event(log, 0, 3)
    verifier.feed(Seen(partition=0, offset=3, link=event.link, hash=event.hash))
    (found,) = verifier.finish().breaks
    assert (found.fault, found.offset) == (Fault.BAD_SIGNATURE, 2)


def test_what_is_no_head_always_counts() -> None:
    """Nobody knows of which events it should have spoken."""
    heads = Heads()
    heads.refuse(replace(_refused(-1), partition=-1, fault=Fault.HEAD_MISMATCH))
    span = Span(partition=0, start=10, end=10, log_start=10, log_end=10)
    assert not Verifier([span], heads).finish().proved


def _refused(offset: int) -> Break:
    return Break(
        partition=0, offset=offset, chain="w/0", sequence=1, fault=Fault.BAD_SIGNATURE, detail=""
    )


def _begins_at_two() -> Log:
    """A chain of four whose first event lies at offset 2."""
    log = _one_chain(4)
    log.partitions[0][:0] = [None, None]
    log.heads = [replace(log.heads[0], offset=5, first_offset=2)]
    return log


def _event(log: Log, partition: int, offset: int) -> Event:
    event = log.partitions[partition][offset]
    assert event is not None
    return event


def _one_chain(length: int) -> Log:
    """A closed chain of some events in partition 0."""
    log, tip = Log([[], []]), Tip()
    for number in range(length):
        event = Event(link=next_link("w/0", tip), content=str(number))
        tip = Tip(sequence=number, hash=event.hash)
        log.partitions[0].append(event)
    log.heads = [_head(tip=tip, offset=length - 1)]
    return log


def _tip(log: Log, offset: int) -> Tip:
    event = _event(log, 0, offset)
    return Tip(sequence=event.link.sequence, hash=event.hash)


def _head(*, tip: Tip, offset: int) -> ChainHead:
    return ChainHead(
        chain="w/0", worker_id="w", topic="audit", partition=0, tip=tip, offset=offset,
        state=ChainState.CLOSED,
    )  # fmt: skip
