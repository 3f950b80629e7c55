"""A message goes out as the worker reads it, with its key and headers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from opentelemetry import trace

from pipeline import codec, headers
from pipeline.envelope import Envelope, Wire, completion, prompt
from pipeline.errors import Reason, Rejected
from pipeline.events import Kind, Message
from pipeline.resources import shipped

from .strategies import messages

SCHEMAS = codec.load_schemas(shipped("schemas"))
TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def envelope(wire: Wire = "avro", max_bytes: int = 1_000_000) -> Envelope:
    """An envelope for topics `p` and `c`."""
    topics = {Kind.PROMPT: "p", Kind.COMPLETION: "c"}
    return Envelope(topics, SCHEMAS, wire=wire, source="test", max_bytes=max_bytes)


@given(st.sampled_from(Kind).flatmap(messages), st.sampled_from(["avro", "json"]))
def test_the_worker_reads_what_was_put_in(message: Message, wire: Wire) -> None:
    """Any message, in either encoding, decodes to itself."""
    message = replace(message, sent_at=message.sent_at or datetime(2026, 1, 1, tzinfo=UTC))
    record = envelope(wire).around(message)
    value = record.value or b""
    if headers.first(record.headers, headers.CONTENT_TYPE) == headers.JSON:
        assert codec.decode_json(value, message.kind) == message
    else:
        assert codec.decode_avro(value, message.kind, SCHEMAS) == message


def test_the_conversation_is_the_key() -> None:
    """So a conversation stays in order; without one any partition will do."""
    assert envelope().around(prompt("x", conversation_id="c-1")).key == b"c-1"
    assert envelope().around(prompt("x")).key is None


def test_a_completion_goes_to_its_own_topic() -> None:
    """With its prompt, and an event type that says so."""
    record = envelope().around(completion("x", prompt="y"))
    assert record.topic == "c"
    assert headers.first(record.headers, headers.CE_TYPE) == "moderation.completion.v1"


def test_given_trace_context_is_carried_alone() -> None:
    """Of the caller's headers only the trace goes along."""
    record = envelope().around(prompt("x"), (TRACE, ("secret", b"1")))
    assert headers.trace_of(record.headers) == (TRACE,)
    assert headers.first(record.headers, "secret") is None


def test_the_current_span_is_injected() -> None:
    """Without trace context given, that of the current span is used."""
    context = trace.SpanContext(
        trace_id=0x0AF7651916CD43DD8448EB211C80319C,
        span_id=0xB7AD6B7169203331,
        is_remote=False,
        trace_flags=trace.TraceFlags(1),
    )
    with trace.use_span(trace.NonRecordingSpan(context)):
        record = envelope().around(prompt("x"))
    assert headers.trace_of(record.headers) == (TRACE,)
    assert headers.trace_of(envelope().around(prompt("x")).headers) == ()


@pytest.mark.parametrize("wire", ["avro", "json"])
def test_what_cannot_be_sent_is_rejected_with_its_reason(wire: Wire) -> None:
    """Size, surrogates and times without a zone."""
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    for message, reason in (
        (prompt("x" * 2000), Reason.OVERSIZE),
        (prompt("x", conversation_id="c" * 600), Reason.OVERSIZE),  # value and key
        (prompt("x", message_id="m" * 600), Reason.OVERSIZE),  # value and header
        (prompt("\ud800"), Reason.BAD_ENCODING),
        (prompt("x", conversation_id="\ud800"), Reason.BAD_ENCODING),
        (prompt("x", sent_at=naive), Reason.BAD_TIMESTAMP),
    ):
        with pytest.raises(Rejected) as caught:
            envelope(wire, max_bytes=1000).around(message)
        assert caught.value.reason is reason


def test_fresh_ids_differ() -> None:
    """A message without an id gets one of its own."""
    assert prompt("x").message_id != prompt("x").message_id
