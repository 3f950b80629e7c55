"""Specification of bytes to records and back."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline import codec
from pipeline.errors import Misconfigured, Reason, Rejected
from pipeline.events import AuditEvent, Kind, Message, Outcome, Verdict
from pipeline.resources import shipped

from . import strategies

SCHEMAS = codec.load_schemas(shipped("schemas"))
kinds = pytest.mark.parametrize("kind", list(Kind))


@given(st.sampled_from(Kind).flatmap(strategies.messages))
def test_a_message_survives_avro(message: Message) -> None:
    """Decoding what was encoded gives the message back, field for field."""
    encoded = codec.encode_message(message, SCHEMAS)
    assert codec.decode_avro(encoded, message.kind, SCHEMAS) == message


@given(strategies.verdicts)
def test_a_verdict_survives_avro(verdict: Verdict) -> None:
    """Decoding what was encoded gives the verdict back, field for field."""
    assert codec.decode_verdict(codec.encode_verdict(verdict, SCHEMAS), SCHEMAS) == verdict


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(strategies.audits)
def test_an_audit_event_survives_avro(audit: AuditEvent) -> None:
    """Decoding what was encoded gives the audit event back, field for field."""
    assert codec.decode_audit(codec.encode_audit(audit, SCHEMAS), SCHEMAS) == audit


@given(st.sampled_from(Kind).flatmap(strategies.messages))
def test_a_message_survives_json(message: Message) -> None:
    """The JSON form carries the same fields, times as microseconds."""
    fields: dict[str, Any] = {
        name: getattr(message, name) for name in Message.__slots__ if name != "kind"
    }
    if message.sent_at is not None:
        since = message.sent_at - datetime(1970, 1, 1, tzinfo=UTC)
        fields["sent_at"] = (since.days * 86400 + since.seconds) * 10**6 + since.microseconds
    assert codec.decode_json(json.dumps(fields).encode(), message.kind) == message


def test_json_needs_only_an_id_and_a_text() -> None:
    """Everything else has a default, and unknown fields are let through."""
    value = b'{"message_id": "m", "text": "hi", "colour": "red"}'
    assert codec.decode_json(value, Kind.PROMPT) == Message(
        message_id="m", kind=Kind.PROMPT, text="hi"
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.BAD_JSON),
        (b"{", Reason.BAD_JSON),
        (b"[1]", Reason.BAD_JSON),
        (b"null", Reason.BAD_JSON),
        (b'{"message_id": "m", "text": "\\ud800"}', Reason.BAD_JSON),
        (b'{"message_id": "m", "text": "\xe9"}', Reason.BAD_ENCODING),
        (b'{"text": "t"}', Reason.MISSING_FIELD),
        (b'{"message_id": "", "text": "t"}', Reason.MISSING_FIELD),
        (b'{"message_id": "m"}', Reason.MISSING_FIELD),
        (b'{"message_id": "m", "text": null}', Reason.MISSING_FIELD),
        (b'{"message_id": 5, "text": "t"}', Reason.WRONG_TYPE),
        (b'{"message_id": "m", "text": "t", "tenant": ["a"]}', Reason.WRONG_TYPE),
        (b'{"message_id": "m", "text": "t", "sent_at": "noon"}', Reason.BAD_TIMESTAMP),
        (b'{"message_id": "m", "text": "t", "sent_at": 1.5}', Reason.BAD_TIMESTAMP),
        (b'{"message_id": "m", "text": "t", "sent_at": true}', Reason.BAD_TIMESTAMP),
        (b'{"message_id": "m", "text": "t", "sent_at": 9223372036854775807}', Reason.BAD_TIMESTAMP),
        (b"[" * 5000, Reason.BAD_JSON),
    ],
)
def test_bad_json_is_rejected_for_the_right_reason(value: bytes, reason: Reason) -> None:
    """Each fault of a JSON value has its reason, and none passes."""
    with pytest.raises(Rejected) as caught:
        codec.decode_json(value, Kind.PROMPT)
    assert caught.value.reason is reason
    assert caught.value.remedy


@kinds
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.NOT_FRAMED),
        (b"\x00\x00\x00\x00", Reason.NOT_FRAMED),
        (b"\x01\x00\x00\x00\x01xx", Reason.NOT_FRAMED),
        (b"\x00\x00\x00\x10\x92xx", Reason.UNKNOWN_SCHEMA),
        (b"\x00\xff\xff\xff\xffxx", Reason.UNKNOWN_SCHEMA),
        (b"\x00\x00\x00\x00\x01", Reason.BAD_AVRO),
        (b"\x00\x00\x00\x00\x01\x50short", Reason.BAD_AVRO),
        (b"\x00\x00\x00\x00\x03\x02a", Reason.BAD_AVRO),
    ],
)
def test_bad_avro_is_rejected_for_the_right_reason(
    value: bytes, reason: Reason, kind: Kind
) -> None:
    """Each fault of a framed value has its reason, and none passes."""
    with pytest.raises(Rejected) as caught:
        codec.decode_avro(value, kind, SCHEMAS)
    assert caught.value.reason is reason


def test_avro_that_is_not_utf8_is_rejected_as_such() -> None:
    """A string field that is not UTF-8 has its own reason."""
    with pytest.raises(Rejected) as caught:
        codec.decode_avro(b"\x00\x00\x00\x00\x01\x02\xff\x02a", Kind.PROMPT, SCHEMAS)
    assert caught.value.reason is Reason.BAD_ENCODING


def test_bytes_after_the_record_are_not_ignored() -> None:
    """A value with something behind its record is not one record."""
    good = codec.encode_message(Message(message_id="m", kind=Kind.PROMPT, text="t"), SCHEMAS)
    with pytest.raises(Rejected, match="bytes are left") as caught:
        codec.decode_avro(good + b"\x00", Kind.PROMPT, SCHEMAS)
    assert caught.value.reason is Reason.BAD_AVRO


def test_a_prompt_is_not_read_as_a_verdict() -> None:
    """The writer's schema must resolve to the one the topic is read with."""
    prompt = codec.encode_message(Message(message_id="m", kind=Kind.PROMPT, text="t"), SCHEMAS)
    with pytest.raises(Rejected):
        codec.decode_verdict(prompt, SCHEMAS)


def _learned(fields: list[dict[str, Any]], record: dict[str, Any]) -> bytes:
    """A value framed as id 77, written with a schema that a registry returned."""
    schema = {"type": "record", "name": "Prompt", "namespace": "sluice.moderation.v1",
              "fields": fields}  # fmt: skip
    SCHEMAS.learn(77, json.dumps(schema))
    out = io.BytesIO(b"\x00\x00\x00\x00\x4d")
    out.seek(5)
    fastavro.schemaless_writer(out, SCHEMAS.by_id[77], record)
    return out.getvalue()


_ID = {"name": "message_id", "type": "string"}
_TEXT = {"name": "text", "type": "string"}


def test_a_writer_with_other_fields_is_resolved() -> None:
    """A newer publisher's extra field is skipped; one it lacks has its default."""
    extra = {"name": "colour", "type": "string"}
    value = _learned([extra, _ID, _TEXT], {"message_id": "m", "text": "t", "colour": "red"})
    assert codec.decode_avro(value, Kind.PROMPT, SCHEMAS) == Message(
        message_id="m", kind=Kind.PROMPT, text="t"
    )


def test_a_time_without_a_zone_is_rejected() -> None:
    """A writer whose clock has no zone cannot be compared with ours."""
    local = {"type": "long", "logicalType": "local-timestamp-micros"}
    fields: list[dict[str, Any]] = [_ID, _TEXT, {"name": "sent_at", "type": local}]
    local_time = datetime(2025, 1, 1)  # noqa: DTZ001 - without a zone is the point
    record = {"message_id": "m", "text": "t", "sent_at": local_time}
    with pytest.raises(Rejected) as caught:
        codec.decode_avro(_learned(fields, record), Kind.PROMPT, SCHEMAS)
    assert caught.value.reason is Reason.BAD_TIMESTAMP


@pytest.mark.parametrize("text", ["", "{", '{"type": "nonsense"}', "[]]", '{"type": "record"}'])
def test_a_registry_that_returns_nonsense_raises_value_error(
    text: str, schemas: codec.Schemas
) -> None:
    """A bad schema is refused under its id and leaves nothing behind."""
    with pytest.raises(ValueError, match="schema 9 is not valid Avro"):
        schemas.learn(9, text)
    assert 9 not in schemas.by_id


def test_a_registrys_id_is_written_and_read(schemas: codec.Schemas) -> None:
    """Once a registry has given a schema an id, frames carry it."""
    message = Message(message_id="m", kind=Kind.PROMPT, text="t")
    schemas.use_id(codec.PROMPT, 100_042)
    value = codec.encode_message(message, schemas)
    assert codec.frame_id(value) == 100_042
    assert codec.decode_avro(value, Kind.PROMPT, schemas) == message


def test_missing_schemas_are_a_misconfiguration(tmp_path: Any) -> None:
    """A folder without schemas is named, with what to do."""
    with pytest.raises(Misconfigured, match="Restore the schemas folder"):
        codec.load_schemas(tmp_path)


@given(strategies.verdicts)
def test_a_verdict_as_json_is_json(verdict: Verdict) -> None:
    """What `--json` prints can be parsed, and says the same action and id."""
    document = json.loads(json.dumps(codec.as_json(verdict)))
    assert (document["verdict_id"], document["action"]) == (verdict.verdict_id, verdict.action)
    assert datetime.fromisoformat(document["emitted_at"]) == verdict.emitted_at


@given(strategies.verdicts)
def test_an_unknown_action_from_the_future_is_read_as_unknown(verdict: Verdict) -> None:
    """A reader of v1 turns an action it does not know into UNKNOWN, never into allow."""
    newer = json.loads((shipped("schemas") / codec.VERDICT).read_text())
    action = next(field for field in newer["fields"] if field["name"] == "action")["type"]
    action["symbols"].append("quarantine")
    schemas = codec.load_schemas(shipped("schemas"))
    schemas.learn(78, json.dumps(newer))
    record = codec._verdict_record(replace(verdict, flagged=())) | {"action": "quarantine"}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schemas.by_id[78], record)
    value = b"\x00\x00\x00\x00\x4e" + out.getvalue()
    assert codec.decode_verdict(value, schemas).action == "UNKNOWN"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(strategies.audits)
def test_an_outcome_is_encoded_as_its_schemas_say(event: AuditEvent) -> None:
    """The shared encoding equals what the full schemas give, byte for byte."""
    outcome = Outcome(verdict=event.verdict, audit=event)
    verdict, unlinked = codec.encode_outcome(outcome, SCHEMAS)
    audit = codec.linked(unlinked, event.chain)
    assert codec.decode_audit(audit, SCHEMAS) == event
    assert audit[5:] == _plainly(codec.AUDIT, _record_of(audit))
    assert verdict[5:] == _plainly(codec.VERDICT, _record_of(audit)["verdict"])


def _record_of(frame: bytes) -> dict[str, Any]:
    schema = SCHEMAS.by_name[codec.AUDIT]
    return dict(fastavro.schemaless_reader(io.BytesIO(frame[5:]), schema, schema))


def _plainly(name: str, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMAS.by_name[name], record)
    return out.getvalue()
