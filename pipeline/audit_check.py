"""Reads the audit topic and its chain heads, and has the verifier judge them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline import chain, chain_heads, codec, schema_check, schema_ids
from pipeline.adapters.kafka import KafkaReader, Record, Slice
from pipeline.adapters.registry import Registry
from pipeline.audit_proof import Break, Fault, Proof, Seen, Span
from pipeline.audit_verify import Heads, Verifier
from pipeline.chain_heads import Checkpoint
from pipeline.errors import Misconfigured, Rejected
from pipeline.ranges import Range
from pipeline.resources import shipped
from pipeline.settings import Settings
from pipeline.signing import Checker

_REMEDY: Final = "Set registry.url (SLUICE_REGISTRY__URL) as the workers have it"


@dataclass(slots=True)
class Numbering:
    """Whether what was read bears the schema ids in use here.

    A registry numbers schemas as it likes. Read by other ids, a log that is in
    order looks as if every record of it had been changed.
    """

    _ours: bool = False
    _other: int | None = None

    def read(self) -> None:
        """A record could be read: its ids are in use here."""
        self._ours = True

    def unread(self, frame: bytes, name: str, schemas: codec.Schemas) -> None:
        """One could not; it may be of schema `name`, under another id."""
        if not self._ours and self._other is None and _fits_ours(frame, name, schemas):
            self._other = codec.frame_id(frame)

    def require_ours(self) -> None:
        """Raise Misconfigured where nothing could be read and something bears another id."""
        if self._other is not None and not self._ours:
            raise Misconfigured(
                "nothing here can be read: its schema ids, such as"
                f" {self._other}, are those of another registry",
                remedy=_REMEDY,
            )


def hint(records: int, unreadable: int) -> str:
    """What to try where not one of these records was an audit event; else empty."""
    if not records or unreadable < records:
        return ""
    return f"not one record can be read as an audit event. {_REMEDY}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    reader: KafkaReader
    schemas: codec.Schemas
    audit: str
    heads: str
    numbering: Numbering = field(default_factory=Numbering)


async def verify(settings: Settings, when: Range, checkers: Sequence[Checker] = ()) -> Proof:
    """The proof of a time range, whose bounds are fixed now.

    With `checkers`, only heads that one of them accepts are trusted, and any
    other is a break. Raises Misconfigured where nothing can be read because
    another registry numbered it: that proves nothing, and breaks nothing.
    """
    async with KafkaReader(settings.kafka) as reader:
        sources = _Sources(
            reader=reader,
            schemas=await _schemas(settings),
            audit=settings.topics.audit,
            heads=settings.topics.chain_heads,
        )
        # Heads first: what they claim then lies before the bounds of the log.
        heads = await _heads(sources, checkers)
        slices = await reader.within(sources.audit, when)
        verifier = Verifier(await _spans(sources, slices), heads)
        async for record in reader.read(sources.audit, slices):
            verifier.feed(_seen(record, sources))
        sources.numbering.require_ours()
        return verifier.finish(await _heads(sources, checkers))


async def checkpoints(settings: Settings) -> AsyncIterator[Checkpoint]:
    """Every head that its topic holds now; what is none is passed over.

    Raises Misconfigured where that is all, because another registry numbered it.
    """
    schemas, numbering = await _schemas(settings), Numbering()
    topic = settings.topics.chain_heads
    async with KafkaReader(settings.kafka) as reader:
        async for record in reader.read(topic, await reader.bounds(topic)):
            try:
                found = chain_heads.decode(record.value or b"", schemas)
            except Rejected:
                numbering.unread(record.value or b"", codec.CHAIN_HEAD, schemas)
                continue
            numbering.read()
            yield found
    numbering.require_ours()


async def _schemas(settings: Settings) -> codec.Schemas:
    schemas = codec.load_schemas(shipped("schemas"))
    await schema_ids.adopt(schemas, settings)
    await _learn_released(schemas, settings)
    return schemas


async def _learn_released(schemas: codec.Schemas, settings: Settings) -> None:
    """Read what an earlier release wrote under the ids that a registry gave its schemas."""
    if not settings.registry.url:
        return
    registry, subjects = Registry(settings.registry), schema_ids.subjects(settings.topics)
    released = schema_check.texts(shipped("schemas") / "released")
    for name in (codec.AUDIT, codec.CHAIN_HEAD):
        schema_id = await registry.lookup(subjects[name], released[name])
        if schema_id is not None and schema_id != schemas.ids[name]:
            schemas.learn(schema_id, released[name])


async def _heads(sources: _Sources, checkers: Sequence[Checker]) -> Heads:
    heads = Heads()
    bounds = await sources.reader.bounds(sources.heads)
    async for record in sources.reader.read(sources.heads, bounds):
        try:
            found = chain_heads.decode(record.value or b"", sources.schemas)
        except Rejected:
            heads.refuse(_no_head(record))
            sources.numbering.unread(record.value or b"", codec.CHAIN_HEAD, sources.schemas)
            continue
        sources.numbering.read()
        if found.head.topic != sources.audit:
            continue
        if checkers and not chain_heads.is_signed(found, checkers):
            heads.refuse(_unsigned(found, record))
        else:
            heads.add(found.head)
    return heads


async def _spans(sources: _Sources, slices: Sequence[Slice]) -> list[Span]:
    held = {part.partition: part for part in await sources.reader.bounds(sources.audit)}
    return [
        Span(
            partition=part.partition,
            start=part.start,
            end=part.end,
            log_start=held[part.partition].start,
            log_end=held[part.partition].end,
        )
        for part in slices
    ]


def _seen(record: Record, sources: _Sources) -> Seen:
    frame = record.value or b""
    try:
        link, readable = codec.link(frame, sources.schemas), True
        sources.numbering.read()
    except Rejected:
        link, readable = None, False
        sources.numbering.unread(frame, codec.AUDIT, sources.schemas)
    return Seen(
        partition=record.partition,
        offset=record.offset,
        link=link,
        hash=chain.digest(codec.body(frame)),
        readable=readable,
    )


def _fits_ours(frame: bytes, name: str, schemas: codec.Schemas) -> bool:
    """Whether a frame bears another id than schema `name` has here, and is a record of it."""
    ours = schemas.ids[name]
    renumbered = frame[:1] + ours.to_bytes(4, "big") + codec.body(frame)
    try:
        codec.read(renumbered, name, schemas)
        return codec.frame_id(frame) != ours
    except Rejected:
        return False


def _no_head(record: Record) -> Break:
    """Only somebody who wants to hide a chain deletes or overwrites its head."""
    return Break(
        partition=-1,
        offset=-1,
        chain=(record.key or b"").decode(errors="replace"),
        sequence=-1,
        fault=Fault.HEAD_MISMATCH,
        detail=f"the record at offset {record.offset} of the heads topic is no chain head",
    )


def _unsigned(found: Checkpoint, record: Record) -> Break:
    signed = f"signed by {found.signer}" if found.signer else "not signed"
    return Break(
        partition=found.head.partition,
        offset=found.head.offset,
        chain=found.head.chain,
        sequence=found.head.tip.sequence,
        fault=Fault.BAD_SIGNATURE,
        detail=f"the head at offset {record.offset} of the heads topic is {signed}, which no"
        " given public key confirms",
    )
