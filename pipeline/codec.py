"""Bytes to records and back: Avro in the Confluent frame, and JSON input.

The frame is one zero byte, the schema id as four big-endian bytes, then the
Avro body. Ids come from `schemas/ids.json`, or from a registry that adds its
own. Everything here is pure; fetching an unknown schema is the registry
adapter's task.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import fastavro
import orjson

from pipeline.errors import Misconfigured, Reason, Rejected
from pipeline.events import (
    Action,
    AuditEvent,
    ChainLink,
    Ciphertext,
    Coverage,
    Flagged,
    GuardRef,
    Kind,
    Message,
    Outcome,
    PolicyRef,
    Position,
    Retention,
    Status,
    Verdict,
)
from pipeline.input_bytes import read_message
from pipeline.outcome_bytes import audit_rest_bytes, link_bytes, verdict_bytes
from pipeline.schema_bounds import refuse_endless

MAGIC: Final = 0
_FRAME: Final = struct.Struct(">bI")
_NO_LINK: Final = b"\x00"
"""The first branch of the link's union: null."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

PROMPT: Final = "prompt.v1.avsc"
COMPLETION: Final = "completion.v1.avsc"
VERDICT: Final = "verdict.v1.avsc"
AUDIT: Final = "audit.v1.avsc"
POLICY: Final = "policy.v1.avsc"
CHAIN_HEAD: Final = "chain-head.v1.avsc"
_NAMES: Final = (PROMPT, COMPLETION, VERDICT, AUDIT, POLICY, CHAIN_HEAD)
INPUTS: Final = {Kind.PROMPT: PROMPT, Kind.COMPLETION: COMPLETION}

# An enum's own call takes thrice as long, and replay reads audit events by the hundred thousand.
_KINDS: Final = {kind.value: kind for kind in Kind}
_ACTIONS: Final = {action.value: action for action in Action}
_STATUSES: Final = {status.value: status for status in Status}
_RETENTIONS: Final = {retention.value: retention for retention in Retention}

Schema = Any  # fastavro's parsed schemas are plain, recursive dictionaries


@dataclass(slots=True)
class Schemas:
    """Parsed schemas by file name, and writer schemas by wire id."""

    by_name: dict[str, Schema]
    by_id: dict[int, Schema]
    ids: dict[str, int]
    audit_place: Schema

    def learn(self, schema_id: int, text: str) -> None:
        """Add a writer schema that a registry returned; raises ValueError."""
        self.by_id.pop(schema_id, None)  # what we took the id for is wrong, even if this is too
        try:
            schema = fastavro.parse_schema(json.loads(text), named_schemas={})
        except Exception as error:  # fastavro raises many kinds for a bad schema
            raise ValueError(f"schema {schema_id} is not valid Avro: {error}") from error
        try:
            refuse_endless(schema)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"schema {schema_id} cannot be read safely: {error}") from None
        self.by_id[schema_id] = schema

    def use_id(self, name: str, schema_id: int) -> None:
        """Write records of schema `name` under the id a registry gave it."""
        self.ids[name] = schema_id
        self.by_id[schema_id] = self.by_name[name]


def load_schemas(folder: Path) -> Schemas:
    """The committed schemas and ids; raises Misconfigured if one is broken."""
    try:
        listing = json.loads((folder / "ids.json").read_text())
        by_path = _parsed(folder, "") | _parsed(folder, "released/")
        by_id = {int(key): by_path[entry["schema"]] for key, entry in listing.items()}
        audit_place = _only_link(json.loads((folder / AUDIT).read_text()))
    except Exception as error:  # missing file, bad JSON or bad Avro: one remedy for all
        raise Misconfigured(
            f"the schemas in {folder} cannot be read: {error}",
            remedy="Restore the schemas folder of this release",
        ) from error
    return Schemas(
        by_name={name: by_path[name] for name in _NAMES},
        by_id=by_id,
        ids={entry["schema"]: int(key) for key, entry in listing.items()},
        audit_place=audit_place,
    )


def _parsed(folder: Path, prefix: str) -> dict[str, Schema]:
    """The schemas of this release, or the released ones, by their path."""
    named: dict[str, Schema] = {}
    return {
        prefix + name: fastavro.parse_schema(
            json.loads((folder / prefix / name).read_text()), named
        )
        for name in _NAMES
    }


def _only_link(audit: dict[str, Any]) -> Schema:
    """The audit schema as a reader sees it that skips all but the link."""
    return fastavro.parse_schema({**audit, "fields": audit["fields"][-1:]}, {})


def frame_id(value: bytes) -> int:
    """The schema id of a Confluent frame; raises Rejected when it is none."""
    if len(value) < _FRAME.size or value[0] != MAGIC:
        raise Rejected(
            Reason.NOT_FRAMED,
            "the value is not Avro in a Confluent frame (a zero byte and a four-byte schema id)",
            remedy="Frame it, or send JSON with the header content-type: application/json",
        )
    return int(_FRAME.unpack_from(value)[1])


def decode_json(value: bytes, kind: Kind) -> Message:
    """The message in a JSON object; raises Rejected naming what is wrong."""
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        # orjson says where but, unlike the standard library, can quote no text here.
        raise Rejected(
            _json_reason(value),
            f"the value is not JSON (line {error.lineno}, column {error.colno})",
            remedy="Send one JSON object in UTF-8",
        ) from None
    if not isinstance(document, dict):
        raise Rejected(
            Reason.BAD_JSON,
            f"the value is a JSON {type(document).__name__}, not an object",
            remedy="Send one JSON object",
        )
    return _message(document, kind)


def decode_avro(value: bytes, kind: Kind, schemas: Schemas) -> Message:
    """The message in a Confluent frame; raises Rejected naming what is wrong."""
    schema_id = frame_id(value)
    writer = schemas.by_id.get(schema_id)
    if writer is None:
        raise Rejected(
            Reason.UNKNOWN_SCHEMA,
            f"schema id {schema_id} is not known",
            remedy="Register the schema, or publish with an id of schemas/ids.json",
        )
    reader = schemas.by_name[INPUTS[kind]]
    if writer is reader and (message := read_message(value, _FRAME.size, kind)) is not None:
        return message
    return _message(_read(value, writer, reader), kind)


def encode_message(message: Message, schemas: Schemas) -> bytes:
    """The framed Avro of a prompt or a completion."""
    record: dict[str, Any] = {
        "message_id": message.message_id,
        "text": message.text,
        "conversation_id": message.conversation_id,
        "tenant": message.tenant,
        "route": message.route,
        "language": message.language,
        "sent_at": message.sent_at,
    }
    if message.kind is Kind.COMPLETION:
        record |= {"prompt": message.prompt, "prompt_id": message.prompt_id}
    return _write(record, INPUTS[message.kind], schemas)


def encode_verdict(verdict: Verdict, schemas: Schemas) -> bytes:
    """The framed Avro of a verdict."""
    return _head(VERDICT, schemas) + verdict_bytes(verdict)


def encode_outcome(outcome: Outcome, schemas: Schemas) -> tuple[bytes, bytes]:
    """The frame of a verdict, and that of its audit event up to its link.

    Avro writes a nested record in place (specification, "Records"), so the
    audit event is the verdict's body and then its own fields: the verdict,
    which is most of both, is encoded once. `linked` ends the second frame.
    """
    verdict = verdict_bytes(outcome.verdict)
    rest = audit_rest_bytes(outcome.audit)
    return _head(VERDICT, schemas) + verdict, _head(AUDIT, schemas) + verdict + rest


def encode_audit(audit: AuditEvent, schemas: Schemas) -> bytes:
    """The framed Avro of an audit event."""
    unlinked = encode_outcome(Outcome(verdict=audit.verdict, audit=audit), schemas)[1]
    return linked(unlinked, audit.chain)


def linked(unlinked: bytes, link: ChainLink | None) -> bytes:
    """The whole frame of an audit event: `encode_outcome`'s second, ended by its link."""
    return unlinked + link_bytes(link)


def link(frame: bytes, schemas: Schemas) -> ChainLink | None:
    """An audit event's link, the rest skipped; raises Rejected when it is no audit event."""
    found = _read(frame, _writer(frame, schemas), schemas.audit_place)["chain"]
    return ChainLink(**found) if found else None


def body(frame: bytes) -> bytes:
    """The Avro body of a frame: what a chain's hashes are taken of."""
    return frame[_FRAME.size :]


def decode_verdict(value: bytes, schemas: Schemas) -> Verdict:
    """The verdict in a frame; raises Rejected when it is not one."""
    return _verdict(_read(value, _writer(value, schemas), schemas.by_name[VERDICT]))


def decode_audit(value: bytes, schemas: Schemas) -> AuditEvent:
    """The audit event in a frame; raises Rejected when it is not one."""
    record = _read(value, _writer(value, schemas), schemas.by_name[AUDIT])
    record["verdict"] = _verdict(record["verdict"])
    retention = _RETENTIONS.get(record["retention"]) or Retention(record["retention"])
    record["retention"] = retention
    if record["chain"]:
        record["chain"] = ChainLink(**record["chain"])
    try:
        if retention is Retention.ENCRYPTED:
            record |= _sealed(record)
        return AuditEvent(**record)
    except ValueError:
        raise Rejected(
            Reason.BAD_AVRO,
            "the audit event says that its content is sealed, and it is not",
            remedy="Upgrade this reader if a later release wrote it; else it is damaged",
        ) from None


def _sealed(record: Mapping[str, Any]) -> dict[str, Ciphertext | None]:
    """Content and context as sealed; raises ValueError where one is no ciphertext."""
    return {
        name: None if record[name] is None else Ciphertext(record[name])
        for name in ("content", "context")
    }


def read(value: bytes, name: str, schemas: Schemas) -> dict[str, Any]:
    """The record in a frame, as schema `name` reads it; raises Rejected when it is not one."""
    return _read(value, _writer(value, schemas), schemas.by_name[name])


def write(record: Mapping[str, Any], name: str, schemas: Schemas) -> bytes:
    """The framed Avro of a record of schema `name`."""
    return _write(record, name, schemas)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the JSON document that `--json` prints."""
    record = _verdict_record(verdict)
    for key in ("received_at", "scored_at", "emitted_at"):
        record[key] = record[key].isoformat() if record[key] else None
    return record


def _json_reason(value: bytes) -> Reason:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return Reason.BAD_ENCODING
    return Reason.BAD_JSON


def _message(record: Mapping[str, Any], kind: Kind) -> Message:
    return Message(
        message_id=_required(record, "message_id"),
        kind=kind,
        text=_required(record, "text"),
        conversation_id=_optional(record, "conversation_id"),
        tenant=_optional(record, "tenant") or "",
        route=_optional(record, "route"),
        language=_optional(record, "language"),
        prompt=_optional(record, "prompt"),
        prompt_id=_optional(record, "prompt_id"),
        sent_at=_moment(record.get("sent_at")),
    )


def _required(record: Mapping[str, Any], name: str) -> str:
    value = _optional(record, name)
    if value is None or (name == "message_id" and not value):
        raise Rejected(
            Reason.MISSING_FIELD, f"the field {name!r} is missing", remedy=f"Set {name!r}"
        )
    return value


def _optional(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise Rejected(
            Reason.WRONG_TYPE,
            f"the field {name!r} is of type {type(value).__name__}, not a string",
            remedy=f"Send {name!r} as a string",
        )
    return value


def _moment(value: object) -> datetime | None:
    """UTC time from a datetime or from integer microseconds since the epoch."""
    # A writer's schema may say local-timestamp-micros, which reads without a zone.
    if value is None or (isinstance(value, datetime) and value.tzinfo is not None):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return _EPOCH + timedelta(microseconds=value)
        except OverflowError:
            pass
    raise Rejected(
        Reason.BAD_TIMESTAMP,
        "the field 'sent_at' is not a time",
        remedy="Send integer microseconds since 1970-01-01 UTC, or leave it out",
    )


def _writer(value: bytes, schemas: Schemas) -> Schema:
    schema_id = frame_id(value)
    if schema_id not in schemas.by_id:
        raise Rejected(
            Reason.UNKNOWN_SCHEMA,
            f"schema id {schema_id} is not known",
            remedy="Configure the registry that this topic was written with",
        )
    return schemas.by_id[schema_id]


def _read(value: bytes, writer: Schema, reader: Schema) -> dict[str, Any]:
    body = io.BytesIO(value)
    body.seek(_FRAME.size)
    try:
        record = fastavro.schemaless_reader(body, writer, reader)
    except UnicodeDecodeError:
        raise Rejected(
            Reason.BAD_ENCODING, "a string in the Avro body is not UTF-8", remedy="Send UTF-8"
        ) from None
    # Hostile bytes make the C decoder raise nearly anything; all of it means bad Avro.
    except Exception as error:
        raise Rejected(
            Reason.BAD_AVRO,
            f"the Avro body does not fit its schema ({type(error).__name__})",
            remedy="Write it with the schema that its frame names; it may be cut short",
        ) from None
    if body.read(1):
        raise Rejected(
            Reason.BAD_AVRO,
            "bytes are left after the Avro body",
            remedy="Send one record a message",
        )
    if not isinstance(record, dict):
        raise Rejected(Reason.BAD_AVRO, "the Avro body is not a record", remedy="Publish a record")
    return record


def _head(name: str, schemas: Schemas) -> bytes:
    return _FRAME.pack(MAGIC, schemas.ids[name])


def _write(record: Mapping[str, Any], name: str, schemas: Schemas) -> bytes:
    out = io.BytesIO()
    out.write(_head(name, schemas))
    fastavro.schemaless_writer(out, schemas.by_name[name], record)
    return out.getvalue()


def _verdict_record(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict_id": verdict.verdict_id,
        "message_id": verdict.message_id,
        "conversation_id": verdict.conversation_id,
        "tenant": verdict.tenant,
        "kind": verdict.kind.value,
        "action": verdict.action.value,
        "status": verdict.status.value,
        "reason": verdict.reason,
        "taxonomy": verdict.taxonomy,
        "scores": dict(verdict.scores),
        "flagged": list(_flagged_records(verdict)),
        "scanned_tokens": verdict.coverage.scanned_tokens,
        "total_tokens": verdict.coverage.total_tokens,
        "guards": [
            {"name": guard.name, "version": guard.version, "digest": guard.digest}
            for guard in verdict.guards
        ],
        "policy": {
            "id": verdict.policy.id,
            "version": verdict.policy.version,
            "digest": verdict.policy.digest,
        },
        "received_at": verdict.received_at,
        "scored_at": verdict.scored_at,
        "emitted_at": verdict.emitted_at,
        "source_topic": verdict.source.topic,
        "source_partition": verdict.source.partition,
        "source_offset": verdict.source.offset,
    }


def _flagged_records(verdict: Verdict) -> Iterator[dict[str, Any]]:
    for flagged in verdict.flagged:
        yield {
            "category": flagged.category,
            "score": flagged.score,
            "threshold": flagged.threshold,
            "action": flagged.action.value,
            "origin": flagged.origin,
        }


def _kind(name: str) -> Kind:
    """The kind of a verdict; a later release's reads as UNKNOWN, which we have no word for."""
    try:
        return _KINDS.get(name) or Kind(name)
    except ValueError:
        raise Rejected(
            Reason.BAD_AVRO, "the verdict is of an unknown kind", remedy="Upgrade this reader"
        ) from None


def _verdict(record: Mapping[str, Any]) -> Verdict:
    return Verdict(
        verdict_id=record["verdict_id"],
        message_id=record["message_id"],
        conversation_id=record["conversation_id"],
        tenant=record["tenant"],
        kind=_kind(record["kind"]),
        action=_ACTIONS.get(record["action"]) or Action(record["action"]),
        status=_STATUSES.get(record["status"]) or Status(record["status"]),
        reason=record["reason"],
        taxonomy=record["taxonomy"],
        scores=record["scores"],
        flagged=tuple(
            [Flagged(**{**item, "action": Action(item["action"])}) for item in record["flagged"]]
        ),
        coverage=Coverage(
            scanned_tokens=record["scanned_tokens"], total_tokens=record["total_tokens"]
        ),
        guards=tuple([GuardRef(**guard) for guard in record["guards"]]),
        policy=PolicyRef(**record["policy"]),
        received_at=record["received_at"],
        scored_at=record["scored_at"],
        emitted_at=record["emitted_at"],
        source=Position(
            topic=record["source_topic"],
            partition=record["source_partition"],
            offset=record["source_offset"],
        ),
    )
