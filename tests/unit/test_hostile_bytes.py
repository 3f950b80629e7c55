"""Whatever bytes arrive, decoding ends in a record or in Rejected, nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import Rejected
from pipeline.events import AuditEvent, Kind, Message, Verdict
from pipeline.resources import shipped

from . import strategies

SCHEMAS = codec.load_schemas(shipped("schemas"))
kinds = st.sampled_from(Kind)
frames = st.builds(
    lambda schema_id, body: b"\x00" + schema_id.to_bytes(4, "big") + body,
    st.integers(0, 6),
    st.binary(max_size=120),
)
Record = TypeVar("Record")


def ended(decode: Callable[[], Record]) -> Record | Rejected:
    """What decoding ended in; anything raised but Rejected fails the test."""
    try:
        return decode()
    except Rejected as error:
        return error


hostile = st.binary(max_size=120) | frames


@settings(max_examples=200)
@given(hostile, kinds)
def test_decoding_an_avro_input_raises_only_rejected(value: bytes, kind: Kind) -> None:
    """Random bytes, framed or not, are a message or a dead letter."""
    end = ended(lambda: codec.decode_avro(value, kind, SCHEMAS))
    assert isinstance(end, Message) or end.remedy


@settings(max_examples=150)
@given(hostile)
def test_decoding_a_verdict_or_audit_raises_only_rejected(value: bytes) -> None:
    """The tools that read our own topics survive whatever lies there."""
    assert isinstance(ended(lambda: codec.decode_verdict(value, SCHEMAS)), Verdict | Rejected)
    assert isinstance(ended(lambda: codec.decode_audit(value, SCHEMAS)), AuditEvent | Rejected)


def _damaged(value: bytes, index: int, byte: int, cut: int) -> bytes:
    """A value with one byte replaced and its end cut off."""
    at = index % len(value)
    return (value[:at] + bytes([byte]) + value[at + 1 :])[: len(value) - cut]


damage = {"index": st.integers(0, 10_000), "byte": st.integers(0, 255), "cut": st.integers(0, 3)}


@settings(max_examples=150)
@given(kinds.flatmap(strategies.messages), st.fixed_dictionaries(damage))
def test_a_damaged_message_raises_only_rejected(message: Message, damaged: dict[str, int]) -> None:
    """One flipped byte or a cut in a good frame is a message or a dead letter."""
    value = _damaged(codec.encode_message(message, SCHEMAS), **damaged)
    end = ended(lambda: codec.decode_avro(value, message.kind, SCHEMAS))
    assert isinstance(end, Message | Rejected)


@settings(max_examples=150)
@given(strategies.verdicts, st.fixed_dictionaries(damage))
def test_a_damaged_verdict_raises_only_rejected(verdict: Verdict, damaged: dict[str, int]) -> None:
    """One flipped byte or a cut in a good verdict is a verdict or Rejected."""
    value = _damaged(codec.encode_verdict(verdict, SCHEMAS), **damaged)
    assert isinstance(ended(lambda: codec.decode_verdict(value, SCHEMAS)), Verdict | Rejected)


def test_a_verdict_of_unknown_kind_is_rejected() -> None:
    """A kind from a later release is named as such, not a crash of the reader."""
    at = datetime(2025, 1, 1, tzinfo=UTC)
    record = {
        "verdict_id": "a:0:0", "message_id": "m", "kind": "UNKNOWN", "taxonomy": "sluice-1",
        "action": "allow", "status": "scored",
        "scores": {}, "scanned_tokens": 0, "total_tokens": 0,
        "policy": {"id": "p", "version": "1", "digest": ""}, "received_at": at, "emitted_at": at,
        "source_topic": "a", "source_partition": 0, "source_offset": 0,
    }  # fmt: skip
    value = codec._write(record, codec.VERDICT, SCHEMAS)
    with pytest.raises(Rejected, match="kind"):
        codec.decode_verdict(value, SCHEMAS)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**55, 2**63)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(Message.__slots__)), inner, max_size=6)
    ),
    max_leaves=12,
)
json_bytes = (
    st.binary(max_size=80)
    | json_like.map(lambda document: json.dumps(document).encode())
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
)


@settings(max_examples=200)
@given(json_bytes, kinds)
def test_decoding_a_json_input_raises_only_rejected(value: bytes, kind: Kind) -> None:
    """Random bytes and random JSON documents are a message or a dead letter."""
    end = ended(lambda: codec.decode_json(value, kind))
    if isinstance(end, Rejected):
        assert end.remedy
    else:
        assert end.message_id
        end.text.encode()  # no lone surrogate came through
