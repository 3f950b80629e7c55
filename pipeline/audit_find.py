"""Finds audit events by id in a topic too large to decode.

The topic is keyed by message id, so that a message's events lie in the one
partition Kafka's default partitioner gives it; that is read first, and the
others only where partitions were added since. A verdict id leads to its
message id through the input record, while that is retained. Records are told
by key or by header; only those that match are decoded.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from pipeline import audit_log, codec, headers
from pipeline.adapters.kafka import KafkaReader, Record, Slice
from pipeline.adapters.partitions import partition_of
from pipeline.audit_check import Numbering
from pipeline.audit_log import Entry
from pipeline.errors import Misconfigured, Rejected
from pipeline.events import AuditEvent, Kind, Position
from pipeline.ranges import MAX_MS, Edge, Range
from pipeline.settings import TopicSettings

RELATED_WITHIN: Final = timedelta(minutes=10)
"""How far around an event its conversation is looked for."""

_MARGIN_MS: Final = 300_000
"""Clocks of publishers and workers may differ by so much."""

_POSITION: Final = re.compile(r"(.+):([0-9]{1,9}):([0-9]{1,18})", re.DOTALL)
_MOST_RELATED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where events and inputs lie, and how they are read; `numbering` hears of what was found."""

    topics: TopicSettings
    schemas: codec.Schemas
    span: Range = field(default_factory=Range)
    numbering: Numbering = field(default_factory=Numbering)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An input record that is still retained: its message id and Kafka's timestamp."""

    message_id: str
    timestamp_ms: int


def position_of(verdict_id: str) -> Position | None:
    """The input's position that a verdict id is, or None for another sort of id."""
    form = _POSITION.fullmatch(verdict_id)
    if form is None:
        return None
    return Position(topic=form[1], partition=int(form[2]), offset=int(form[3]))


async def find(reader: KafkaReader, places: Places, wanted: str) -> list[Entry]:
    """Every event of a verdict id or a message id, in the order they were written."""
    kept = await input_at(reader, places, wanted)
    if kept is not None:
        narrow = replace(places, span=_from(places.span, kept.timestamp_ms - _MARGIN_MS))
        found = await _by_key(reader, narrow, kept.message_id, _has_id(wanted))
        if found:
            return found
    return await _by_key(reader, places, wanted, _has_id(wanted), sure=position_of(wanted) is None)


async def input_at(reader: KafkaReader, places: Places, verdict_id: str) -> Input | None:
    """The input that a verdict id names, while its topic keeps it and it can be read."""
    position, kinds = position_of(verdict_id), _kinds(places.topics)
    if position is None or position.topic not in kinds:
        return None
    try:
        bounds = {part.partition: part for part in await reader.bounds(position.topic)}
    except Misconfigured:
        return None
    part = bounds.get(position.partition)
    if part is None or not part.start <= position.offset < part.end:
        return None
    only = replace(part, start=position.offset, end=position.offset + 1)
    async for record in reader.read(position.topic, [only]):
        return _input(record, kinds[position.topic], places.schemas)
    return None


async def related(reader: KafkaReader, places: Places, event: AuditEvent) -> list[Entry]:
    """The prompt a completion answers; near in time, answers and the same conversation.

    At most twenty, each message once, in order of their time.
    """
    around = replace(places, span=_around(event.verdict.emitted_at))
    found = await find(reader, places, event.prompt_id) if event.prompt_id else []
    needles = [
        text.encode() for text in (event.verdict.message_id, event.verdict.conversation_id) if text
    ]

    def named(record: Record) -> bool:
        """Whether a record's bytes hold one of the ids: most need no decoding."""
        value = record.value or b""
        return any(needle in value for needle in needles)

    slices = await audit_log.slices_within(reader, places.topics.audit, around.span)
    async for entry in _matching(reader, around, slices, named):
        if _belongs(entry.event, event):
            found.append(entry)
    own = event.verdict.verdict_id
    each = {one.event.verdict.verdict_id: one for one in reversed(found)}
    others = [one for verdict_id, one in each.items() if verdict_id != own]
    return sorted(others, key=lambda one: one.event.verdict.emitted_at)[:_MOST_RELATED]


def _belongs(other: AuditEvent, event: AuditEvent) -> bool:
    ours, theirs = event.verdict, other.verdict
    answers = other.prompt_id == ours.message_id
    same = ours.conversation_id and ours.conversation_id == theirs.conversation_id
    return bool(answers or same)


async def _by_key(
    reader: KafkaReader,
    places: Places,
    key: str,
    wanted: Callable[[Record], bool],
    *,
    sure: bool = True,
) -> list[Entry]:
    """Matches in the key's partition, or in the others; `sure` False: in any at once."""
    slices = await audit_log.slices_within(reader, places.topics.audit, places.span)
    home = partition_of(key.encode(errors="replace"), [part.partition for part in slices])
    first = [part for part in slices if part.partition == home] if sure else slices
    rest = [part for part in slices if part not in first]
    for each in (first, rest):
        found = [entry async for entry in _matching(reader, places, each, wanted)]
        if found:
            return sorted(found, key=lambda entry: (entry.at.partition, entry.at.offset))
    return []


async def _matching(
    reader: KafkaReader, places: Places, slices: Sequence[Slice], wanted: Callable[[Record], bool]
) -> AsyncIterator[Entry]:
    async for record in reader.read(places.topics.audit, slices):
        if not wanted(record):
            continue
        if entry := audit_log.decoded(record, places.schemas):
            places.numbering.read()
            yield entry
        else:
            places.numbering.unread(record.value or b"", codec.AUDIT, places.schemas)


def _has_id(wanted: str) -> Callable[[Record], bool]:
    given = wanted.encode(errors="replace")

    def has(record: Record) -> bool:
        return record.key == given or headers.first(record.headers, headers.CE_ID) == wanted

    return has


def _kinds(topics: TopicSettings) -> dict[str, Kind]:
    return {topics.prompts: Kind.PROMPT, topics.completions: Kind.COMPLETION}


def _input(record: Record, kind: Kind, schemas: codec.Schemas) -> Input | None:
    content_type = headers.first(record.headers, headers.CONTENT_TYPE) or ""
    value = record.value or b""
    try:
        if content_type.partition(";")[0].strip().lower() == headers.JSON:
            message = codec.decode_json(value, kind)
        else:
            message = codec.decode_avro(value, kind, schemas)
    except Rejected:
        return None
    return Input(message_id=message.message_id, timestamp_ms=record.timestamp_ms)


def _from(span: Range, start_ms: int) -> Range:
    """The range from a time on, unless it starts later by itself."""
    first = min(max(0, start_ms), MAX_MS)
    if not isinstance(span.start, Edge):
        first = max(first, span.start)
    return Range(start=first, end=span.end)


def _around(moment: datetime) -> Range:
    start, end = (
        min(max(0, int(each.timestamp() * 1000)), MAX_MS)
        for each in (moment - RELATED_WITHIN, moment + RELATED_WITHIN)
    )
    return Range(start=start, end=end)
