"""Reads a bounded slice of the audit topic, partition after partition.

The order is fixed: by partition, then by offset. Two readings of one slice
give the same entries in the same order, so a reading can be resumed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline import codec
from pipeline.adapters.kafka import KafkaReader, Record, Slice
from pipeline.errors import Misconfigured, Rejected
from pipeline.events import AuditEvent, Position
from pipeline.ranges import Range
from pipeline.selection import Selection

_OFFSETS: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,18})?-([0-9]{1,18})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An audit event where it lies in the audit topic, with its bytes as written."""

    at: Position
    timestamp_ms: int
    frame: bytes
    event: AuditEvent


@dataclass(slots=True, kw_only=True)
class Passed:
    """Records that a reading has passed so far, and how many were no audit events.

    `upto` holds the offset after the last of them in each partition.
    """

    records: int = 0
    unreadable: int = 0
    upto: dict[int, int] = field(default_factory=dict)


async def read(
    reader: KafkaReader,
    topic: str,
    slices: Sequence[Slice],
    schemas: codec.Schemas,
    selection: Selection,
    *,
    passed: Passed | None = None,
) -> AsyncIterator[Entry]:
    """The audit events of the slices that the selection wants, in order.

    `passed` counts what was read; unreadable records are counted, not raised.
    """
    told = Passed() if passed is None else passed
    for part in sorted(slices, key=lambda each: (each.partition, each.start)):
        async for record in reader.read(topic, [part]):
            told.records += 1
            told.upto[record.partition] = record.offset + 1
            entry = decoded(record, schemas)
            if entry is None:
                told.unreadable += 1
            elif selection.wants(entry.event):
                yield entry


def decoded(record: Record, schemas: codec.Schemas) -> Entry | None:
    """The audit event in a record; None when it holds none."""
    frame = record.value or b""
    try:
        event = codec.decode_audit(frame, schemas)
    except (Rejected, ValueError):  # ValueError: an enum's word that this release lacks
        return None
    at = Position(topic=record.topic, partition=record.partition, offset=record.offset)
    return Entry(at=at, timestamp_ms=record.timestamp_ms, frame=frame, event=event)


async def slices_within(
    reader: KafkaReader, topic: str, span: Range, offsets: Sequence[Slice] = ()
) -> list[Slice]:
    """What the topic holds of a time range now, cut to `offsets` where there are some.

    The ends are fixed here: what is written later is not in it.
    """
    found = await reader.within(topic, span)
    return list(cut(found, offsets)) if offsets else found


def cut(found: Iterable[Slice], wanted: Sequence[Slice]) -> Iterable[Slice]:
    """The parts of `found` that lie within `wanted`; raises Misconfigured for no partition."""
    by_partition = {part.partition: part for part in found}
    for each in wanted:
        part = by_partition.get(each.partition)
        if part is None:
            raise Misconfigured(
                f"the audit topic has no partition {each.partition}",
                remedy=f"It has 0 to {max(by_partition, default=0)}",
            )
        start, end = max(part.start, each.start), min(part.end, each.end)
        yield Slice(partition=each.partition, start=start, end=max(start, end))


def parse_offsets(text: str) -> Slice:
    """`PARTITION:START-END`, the end not included, either left out for what there is.

    Raises Misconfigured when it has another form.
    """
    form = _OFFSETS.fullmatch(text.strip())
    if form is None:
        raise Misconfigured(
            f"{text[:64]!r} names no offsets",
            remedy="Write PARTITION:START-END, such as 0:1200-1300; the end is not included",
        )
    start, end = int(form[2] or 0), int(form[3]) if form[3] else 2**62
    if start >= end:
        raise Misconfigured(f"{text!r} holds nothing", remedy="START must lie before END")
    return Slice(partition=int(form[1]), start=start, end=end)
