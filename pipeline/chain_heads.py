"""Chain heads as records of their topic: framed Avro, signed or not."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import fastavro

from pipeline import codec
from pipeline.chain import ChainHead, ChainState, Tip
from pipeline.codec import CHAIN_HEAD, Schemas
from pipeline.signing import Checker, Signer

_ENDING: Final = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Ending",
        "fields": [
            {"name": "signature", "type": ["null", "bytes"]},
            {"name": "signer", "type": ["null", "string"]},
        ],
    }
)
"""The last two fields of a head, in every version of its schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A chain head as read: when it was written, and its signature over `signed`."""

    head: ChainHead
    at: datetime
    signed: bytes
    signature: bytes | None
    signer: str | None


def encode(head: ChainHead, at: datetime, signer: Signer | None, schemas: Schemas) -> bytes:
    """The frame of a head, signed when there is a signer."""
    record = _record(head, at)
    frame = codec.write(record, CHAIN_HEAD, schemas)
    if signer is None:
        return frame
    record |= {"signature": signer.sign(codec.body(frame)), "signer": signer.name}
    return codec.write(record, CHAIN_HEAD, schemas)


def decode(value: bytes, schemas: Schemas) -> Checkpoint:
    """The head in a frame; raises Rejected when it is none."""
    record = codec.read(value, CHAIN_HEAD, schemas)
    return Checkpoint(
        head=_head(record),
        at=record["checkpointed_at"],
        signed=_signed(codec.body(value), record),
        signature=record["signature"],
        signer=record["signer"],
    )


def is_signed(checkpoint: Checkpoint, checkers: Sequence[Checker]) -> bool:
    """Whether one of these keys signed it."""
    signature = checkpoint.signature
    return signature is not None and any(
        checker.accepts(signature, checkpoint.signed) for checker in checkers
    )


def _signed(body: bytes, record: Mapping[str, Any]) -> bytes:
    """The body as its writer signed it, whatever fields its schema had; empty when it is odd."""
    ending = _ending(record["signature"], record["signer"])
    return body.removesuffix(ending) + _ending(None, None) if body.endswith(ending) else b""


def _ending(signature: bytes | None, signer: str | None) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _ENDING, {"signature": signature, "signer": signer})
    return out.getvalue()


def _record(head: ChainHead, at: datetime) -> dict[str, Any]:
    return {
        "chain": head.chain,
        "worker_id": head.worker_id,
        "topic": head.topic,
        "partition": head.partition,
        "sequence": head.tip.sequence,
        "hash": head.tip.hash,
        "offset": head.offset,
        "first_offset": head.first_offset,
        "state": head.state.value,
        "checkpointed_at": at,
        "signature": None,
        "signer": None,
    }


def _head(record: dict[str, Any]) -> ChainHead:
    return ChainHead(
        chain=record["chain"],
        worker_id=record["worker_id"],
        topic=record["topic"],
        partition=record["partition"],
        tip=Tip(sequence=record["sequence"], hash=record["hash"]),
        offset=record["offset"],
        state=ChainState(record["state"]),
        first_offset=record["first_offset"],
    )
