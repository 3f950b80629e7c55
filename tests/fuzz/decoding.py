"""Targets: whatever bytes arrive, a record or an error of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from pipeline import codec, dlq, headers
from pipeline.errors import Rejected
from pipeline.events import DeadLetter, Kind, Message, Position
from pipeline.resources import shipped
from tests.support import golden_records

from .draws import Draws, edited
from .target import Target

SCHEMAS: Final = codec.load_schemas(shipped("schemas"))
FRAMES: Final = tuple(
    (golden_records.FOLDER / f"{name}.v1.bin").read_bytes()
    for name in ("prompt", "completion", "verdict", "audit")
)
FIELDS: Final = (*sorted(Message.__slots__), "extra")
_KINDS: Final = tuple(Kind)


def json_input(data: bytes) -> None:
    """JSON, whole or built field by field, is a message that survives the wire, or Rejected."""
    draws = Draws(data)
    kind = draws.pick(_KINDS)
    value = draws.rest() if draws.flag() else orjson.dumps(_document(draws), option=_BIG)
    _survives(codec.decode_json(value, kind))


_BIG: Final = orjson.OPT_NON_STR_KEYS


def _document(draws: Draws, depth: int = 0) -> Any:
    """A JSON value, most often an object with a message's fields."""
    match draws.whole(0, 9) if depth else 0:
        case 0:
            whole = {"message_id": "m", "text": "t"} if draws.flag() else {}
            given = {
                draws.pick(FIELDS): _document(draws, depth + 1) for _ in range(draws.whole(0, 6))
            }
            return whole | given
        case 1:
            return [_document(draws, depth + 1) for _ in range(min(3, draws.left))]
        case 2:
            return draws.pick([None, True, False, 1e308, -0.0])
        case 3:
            return draws.whole(-(2**63), 2**63 - 1)
        case _:
            return draws.text()


def _survives(message: Message) -> None:
    """What was let in can be written, and reads as the same message."""
    assert message.message_id
    for text in (message.text, message.prompt or "", message.tenant):
        text.encode()
    # A prompt's schema has no place for what a prompt would answer.
    answers_nothing = message.prompt is None and message.prompt_id is None
    plain = message.kind is Kind.COMPLETION or answers_nothing
    if plain and _on_the_wire(message.sent_at):
        value = codec.encode_message(message, SCHEMAS)
        assert codec.decode_avro(value, message.kind, SCHEMAS) == message


def _on_the_wire(moment: datetime | None) -> bool:
    """Whether Avro's library reads such a time: it takes whole microseconds of any year."""
    return moment is None or moment.utcoffset() is not None


def avro_input(data: bytes) -> None:
    """A frame, raw, edited, or with a body of its own, is a message or Rejected."""
    draws = Draws(data)
    kind = draws.pick(_KINDS)
    _survives(codec.decode_avro(_frame(draws, FRAMES[:2]), kind, SCHEMAS))


def own_records(data: bytes) -> None:
    """What lies in our own topics is a verdict, an audit event, or Rejected."""
    draws = Draws(data)
    value = _frame(draws, FRAMES[2:])
    if draws.flag():
        verdict = codec.decode_audit(value, SCHEMAS).verdict
    else:
        verdict = codec.decode_verdict(value, SCHEMAS)
    assert verdict.action.severity >= 0
    assert str(verdict.source)
    json.dumps(codec.as_json(verdict))


def _frame(draws: Draws, frames: Sequence[bytes]) -> bytes:
    match draws.whole(0, 3):
        case 0:
            frame = draws.pick(frames)
            return edited(frame, draws)
        case 1:
            known = tuple(SCHEMAS.by_id)
            return b"\x00" + draws.pick((*known, 0, 2**32 - 1)).to_bytes(4, "big") + draws.rest()
        case 2:
            frame = draws.pick(frames)
            return frame[: draws.whole(0, len(frame))] + draws.rest()
        case _:
            return draws.rest()


def written_elsewhere(data: bytes) -> None:
    """A schema from a registry, good or not, and a body for it: a message or Rejected."""
    draws = Draws(data)
    kind = draws.pick(_KINDS)
    schemas = replace(SCHEMAS, by_id={}, ids={})
    try:
        schemas.learn(1, json.dumps(_writer(draws)) if draws.flag() else draws.text())
    except ValueError:
        return
    codec.decode_avro(b"\x00\x00\x00\x00\x01" + draws.rest(), kind, schemas)


_PLAIN: Final = (
    "string", "bytes", "null", "boolean", "int", "long", "float", "double", "Prompt", "Inner",
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "int", "logicalType": "date"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
    {"type": "fixed", "name": "Two", "size": 2},
    {"type": "fixed", "name": "None", "size": 0},
    {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]},
)  # fmt: skip


def _writer(draws: Draws) -> Any:
    """A record schema that resembles an input's."""
    names = ("message_id", "text", "sent_at", "tenant", "prompt", "extra", "more")
    kept = dict.fromkeys(draws.pick(names) for _ in range(draws.whole(1, 6)))
    return {
        "type": "record",
        "name": draws.pick(("Prompt", "Completion", "Inner")),
        "namespace": "sluice.moderation.v1",
        "fields": [{"name": name, "type": _type(draws)} for name in kept],
    }


def _type(draws: Draws, depth: int = 0) -> Any:
    match draws.whole(0, 7) if depth < 3 else 7:
        case 0:
            return [_type(draws, depth + 1) for _ in range(draws.whole(1, 3))]
        case 1:
            return {"type": "array", "items": _type(draws, depth + 1)}
        case 2:
            return {"type": "map", "values": _type(draws, depth + 1)}
        case 3:
            inner = [{"name": "next", "type": _type(draws, depth + 1)}]
            return {"type": "record", "name": "Inner", "fields": inner[: draws.whole(0, 1)]}
        case _:
            return draws.pick(_PLAIN)


_DLQ_NAMES: Final = (
    headers.DLQ_TOPIC, headers.DLQ_PARTITION, headers.DLQ_OFFSET, headers.DLQ_FAILED_AT,
    headers.DLQ_TIMESTAMP, headers.DLQ_ATTEMPTS, headers.DLQ_REASON, headers.DLQ_DETAIL,
    headers.RETRY_OF, headers.TRACEPARENT, headers.CE_ID, "DLQ_Reason", "x",
)  # fmt: skip
_DLQ_VALUES: Final = (
    b"0", b"12", b"-1", b"2025-01-01T00:00:00+00:00", b"2025-01-01", b"0001-01-01T00:00:00+23:59",
    b"9999-12-31T23:59:59-23:59", b"", b"\xff", "٣".encode(), "²".encode(), b"9" * 30, b"1_0",
    b" 7 ", b"not-framed",
)  # fmt: skip


def dead_letters(data: bytes) -> None:
    """Records of the dead-letter topic, written by whom ever, can be listed and sent again."""
    draws = Draws(data)
    found = [_found(draws) for _ in range(draws.whole(1, 4))]
    letters = dlq.not_superseded([one for one in found if one is not None])
    for one in letters:
        json.dumps(dlq.as_json(one))
        assert dlq.matches(one, one.letter.position)
        assert one.letter.failed_at.utcoffset() is not None
        one.letter.failed_at.astimezone(UTC)
        dlq.printable(one.letter.detail + dlq.what_to_do(one.letter.reason))
        list(dlq.hex_lines(one.letter.value or b""))
        again = dlq.again(one.letter)
        assert again.value == one.letter.value
        assert headers.attempts(again.headers) == one.letter.attempts


def _found(draws: Draws) -> dlq.Found | None:
    given: list[tuple[str, Any]] = list(headers.provenance(_letter(draws)))
    for _ in range(draws.whole(0, 4)):
        value = draws.pick((*_DLQ_VALUES, None)) if draws.flag() else draws.raw(9)
        given.insert(draws.whole(0, len(given)), (draws.pick(_DLQ_NAMES), value))
    at = Position(topic="dlq", partition=0, offset=draws.whole(0, 9))
    return dlq.found(at, key=None, value=draws.raw(20), record_headers=tuple(given))


def _letter(draws: Draws) -> DeadLetter:
    return DeadLetter(
        position=Position(topic=draws.text(4) or "t", partition=0, offset=draws.whole(0, 2**60)),
        key=None,
        value=b"v",
        headers=(("x", b"1"),),
        reason=draws.text(4),
        detail=draws.text(8),
        failed_at=datetime(2025, 1, 1, tzinfo=UTC),
        attempts=draws.whole(0, 10**9 - 1),
        kafka_timestamp_ms=None if draws.flag() else draws.whole(0, 2**40),
    )


def provenance(data: bytes) -> None:
    """A dead letter that Sluice writes is the one that it reads."""
    letter = _letter(Draws(data))
    given = headers.provenance(letter)
    assert headers.dead_letter(key=None, value=b"v", headers=given) == letter


def _json_seeds() -> list[bytes]:
    documents = (
        {"message_id": "m", "text": "hi", "sent_at": 1_700_000_000_000_000},
        {"message_id": "m", "text": "ü\u2028", "tenant": "acme", "prompt": "p", "prompt_id": "q"},
        {"message_id": "m", "text": 7},
        [],
    )
    return [b"\x00\x01" + json.dumps(each).encode() for each in documents]


def _frame_seeds() -> list[bytes]:
    edits = (b"", b"\x01\x10\x00\xff", b"\x02\x06\x01\x02\x80\x80", b"\x01\x08\x03")
    return [bytes([kind, 0, which]) + each for kind in (0, 1) for which in (0, 1) for each in edits]


TARGETS: Final = (
    Target(name="json", entry=json_input, allowed=(Rejected,), seeds=_json_seeds, share=20),
    Target(name="avro", entry=avro_input, allowed=(Rejected,), seeds=_frame_seeds, share=16),
    Target(name="records", entry=own_records, allowed=(Rejected,), seeds=_frame_seeds, share=10),
    Target(name="schemas", entry=written_elsewhere, allowed=(Rejected,), share=4),
    Target(name="dead-letters", entry=dead_letters, share=6),
    Target(name="provenance", entry=provenance, share=3),
)
