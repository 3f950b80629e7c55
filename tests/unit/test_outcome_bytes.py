"""Specification of the hand-written encoders: fastavro's bytes, to the last one."""

from __future__ import annotations

import io
from typing import Any

import fastavro
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from pipeline import codec, outcome_bytes
from pipeline.events import AuditEvent, Verdict
from pipeline.resources import shipped

from . import strategies

SCHEMAS = codec.load_schemas(shipped("schemas"))


def _by_fastavro(schema: Any, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(strategies.verdicts)
def test_a_verdict_has_fastavros_bytes(verdict: Verdict) -> None:
    """The schema that is committed and the fields spelt out say the same."""
    expected = _by_fastavro(SCHEMAS.by_name[codec.VERDICT], codec._verdict_record(verdict))
    assert outcome_bytes.verdict_bytes(verdict) == expected


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(strategies.audits)
def test_an_audit_event_has_fastavros_bytes(audit: AuditEvent) -> None:
    """Verdict, rest and link after one another are the record."""
    expected = _by_fastavro(SCHEMAS.by_name[codec.AUDIT], _record(audit))
    rest, link = outcome_bytes.audit_rest_bytes(audit), outcome_bytes.link_bytes(audit.chain)
    assert outcome_bytes.verdict_bytes(audit.verdict) + rest + link == expected


def _record(audit: AuditEvent) -> dict[str, Any]:
    return {
        **{name: getattr(audit, name) for name in AuditEvent.__slots__},
        "verdict": codec._verdict_record(audit.verdict),
        "chain": None if audit.chain is None else asdict(audit.chain),
    }


def test_long_names_are_written_and_not_kept() -> None:
    """Publishers choose tenants and routes: thousands of large ones would fill the memory."""
    outcome_bytes._name("short")
    before = outcome_bytes._kept.cache_info().currsize
    for size in (129, 10_000):
        assert outcome_bytes._name("x" * size) == outcome_bytes._text("x" * size)
    assert outcome_bytes._kept.cache_info().currsize == before


@given(st.integers(-(2**63), 2**63 - 1))
@example(-(2**63))
@example(2**63 - 1)
@example(4095)
@example(4096)
@example(-1)
def test_a_long_has_fastavros_bytes(value: int) -> None:
    """Every 64-bit number, on either side of what is kept encoded."""
    schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": [
        {"name": "n", "type": "long"},
    ]})  # fmt: skip
    assert outcome_bytes._long(value) == _by_fastavro(schema, {"n": value})
