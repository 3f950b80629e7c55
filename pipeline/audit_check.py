"""Reads the audit topic and its chain heads, and has the verifier judge them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from pipeline import chain, chain_heads, codec, schema_check, schema_ids
from pipeline.adapters.kafka import KafkaReader, Record, Slice
from pipeline.adapters.registry import Registry
from pipeline.audit_proof import Break, Fault, Proof, Seen, Span
from pipeline.audit_verify import Heads, Verifier
from pipeline.chain_heads import Checkpoint
from pipeline.errors import Rejected
from pipeline.ranges import Range
from pipeline.resources import shipped
from pipeline.settings import Settings
from pipeline.signing import Checker


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    reader: KafkaReader
    schemas: codec.Schemas
    audit: str
    heads: str


async def verify(settings: Settings, when: Range, checkers: Sequence[Checker] = ()) -> Proof:
    """The proof of a time range, whose bounds are fixed now.

    With `checkers`, only heads that one of them accepts are trusted, and any
    other is a break.
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
            verifier.feed(_seen(record, sources.schemas))
        return verifier.finish(await _heads(sources, checkers))


async def checkpoints(settings: Settings) -> AsyncIterator[Checkpoint]:
    """Every head that its topic holds now; what is none is passed over."""
    schemas = await _schemas(settings)
    topic = settings.topics.chain_heads
    async with KafkaReader(settings.kafka) as reader:
        async for record in reader.read(topic, await reader.bounds(topic)):
            try:
                yield chain_heads.decode(record.value or b"", schemas)
            except Rejected:
                continue


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
            continue
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


def _seen(record: Record, schemas: codec.Schemas) -> Seen:
    frame = record.value or b""
    try:
        link, readable = codec.link(frame, schemas), True
    except Rejected:
        link, readable = None, False
    return Seen(
        partition=record.partition,
        offset=record.offset,
        link=link,
        hash=chain.digest(codec.body(frame)),
        readable=readable,
    )


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
