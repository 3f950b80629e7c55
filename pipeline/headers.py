"""Every Kafka header Sluice reads or writes, named once.

CloudEvents binary mode (`ce_*`, cloudevents Kafka protocol binding), W3C
trace context (`traceparent`, `tracestate`), and the provenance of a dead
letter (`dlq_*`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from pipeline.events import DeadLetter, Position

Headers = tuple[tuple[str, bytes], ...]

CONTENT_TYPE: Final = "content-type"
JSON: Final = "application/json"
AVRO: Final = "avro/binary"

CE_ID: Final = "ce_id"
CE_TYPE: Final = "ce_type"
CE_SOURCE: Final = "ce_source"
CE_TIME: Final = "ce_time"
CE_SPECVERSION: Final = "ce_specversion"

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

DLQ_REASON: Final = "dlq_reason"
DLQ_DETAIL: Final = "dlq_detail"
DLQ_TOPIC: Final = "dlq_original_topic"
DLQ_PARTITION: Final = "dlq_original_partition"
DLQ_OFFSET: Final = "dlq_original_offset"
DLQ_TIMESTAMP: Final = "dlq_original_timestamp_ms"
DLQ_FAILED_AT: Final = "dlq_failed_at"
DLQ_ATTEMPTS: Final = "dlq_attempts"
DLQ_LEFT_OUT_BYTES: Final = "dlq_left_out_bytes"
DLQ_LEFT_OUT_SHA256: Final = "dlq_left_out_sha256"
"""Size and hash (hex) of a value that was too large for the dead-letter topic."""
RETRY_OF: Final = "sluice_retry_of"
"""On a message sent again: the position of the input that failed first."""
REPLAY_OF: Final = "sluice_replay_of"
"""On an audit event that a replay emitted: the position of the one it was made from."""
_DLQ_PREFIX: Final = "dlq_"


def first(headers: Iterable[tuple[str, bytes]], name: str) -> str | None:
    """The first value of a header as text, or None; undecodable bytes are replaced."""
    lowered = name.lower()
    for key, value in headers:
        if key.lower() == lowered:
            return (value or b"").decode("utf-8", errors="replace")
    return None


def is_json(headers: Iterable[tuple[str, bytes]]) -> bool:
    """Whether the content type says JSON, whatever its parameters."""
    content_type = first(headers, CONTENT_TYPE) or ""
    return content_type.partition(";")[0].strip().lower() == JSON


def trace_of(headers: Iterable[tuple[str, bytes]]) -> Headers:
    """The trace context among `headers`: the first of each name, untouched.

    A header without a value, or above 1 KiB, is none: outcomes carry these, and must stay
    publishable. W3C Trace Context gives `traceparent` 55 characters (of version 00), and asks
    that at least 512 of `tracestate` be passed on.
    """
    if not headers:
        return ()
    found: dict[str, bytes] = {}
    for key, value in headers:
        if key in _TRACE and value is not None and len(value) <= _MAX_TRACE_BYTES:
            found.setdefault(key, value)
    return tuple(found.items())


_TRACE: Final = (TRACEPARENT, TRACESTATE)
_MAX_TRACE_BYTES: Final = 1024


def event(*, id: str, type: str, source: str, time: datetime, trace: Headers = ()) -> Headers:
    """CloudEvents headers of an Avro event we emit, with the trace it belongs to."""
    return ((CE_ID, id.encode()), *_who(type, source), (CE_TIME, _written(time)), *_WHAT, *trace)


_WHAT: Final = ((CE_SPECVERSION, b"1.0"), (CONTENT_TYPE, AVRO.encode()))


@lru_cache(maxsize=64)
def _who(type: str, source: str) -> Headers:
    return ((CE_TYPE, type.encode()), (CE_SOURCE, source.encode()))


@lru_cache(maxsize=256)
def _written(time: datetime) -> bytes:
    return time.isoformat().encode()


def attempts(headers: Iterable[tuple[str, bytes]]) -> int:
    """How often a message has been a dead letter before; junk counts as 0."""
    text = first(headers, DLQ_ATTEMPTS) or "0"
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def without_provenance(headers: Iterable[tuple[str, bytes]]) -> Headers:
    """The headers a message had before it became a dead letter."""
    return tuple((key, value) for key, value in headers if not key.lower().startswith(_DLQ_PREFIX))


def provenance(letter: DeadLetter) -> Headers:
    """A dead letter's headers: the original ones, then where it was and why."""
    position = letter.position
    stamp = "" if letter.kafka_timestamp_ms is None else str(letter.kafka_timestamp_ms)
    return (
        *without_provenance(letter.headers),
        (DLQ_REASON, letter.reason.encode()),
        (DLQ_DETAIL, letter.detail.encode()),
        (DLQ_TOPIC, position.topic.encode()),
        (DLQ_PARTITION, str(position.partition).encode()),
        (DLQ_OFFSET, str(position.offset).encode()),
        (DLQ_TIMESTAMP, stamp.encode()),
        (DLQ_FAILED_AT, letter.failed_at.isoformat().encode()),
        (DLQ_ATTEMPTS, str(letter.attempts).encode()),
        *_left_out(letter),
    )


def _left_out(letter: DeadLetter) -> Headers:
    if not letter.left_out_bytes:
        return ()
    return (
        (DLQ_LEFT_OUT_BYTES, str(letter.left_out_bytes).encode()),
        (DLQ_LEFT_OUT_SHA256, letter.left_out_sha256.encode()),
    )


def dead_letter(
    *, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
) -> DeadLetter:
    """The dead letter that a record of the dead-letter topic holds.

    Raises ValueError when the record was not written by Sluice.
    """
    topic, partition, offset = (
        first(headers, name) for name in (DLQ_TOPIC, DLQ_PARTITION, DLQ_OFFSET)
    )
    failed_at = first(headers, DLQ_FAILED_AT)
    if topic is None or partition is None or offset is None or failed_at is None:
        raise ValueError("the record has no dead-letter headers")
    stamp = first(headers, DLQ_TIMESTAMP)
    return DeadLetter(
        position=Position(topic=topic, partition=int(partition), offset=int(offset)),
        key=key,
        value=value,
        headers=without_provenance(headers),
        reason=first(headers, DLQ_REASON) or "",
        detail=first(headers, DLQ_DETAIL) or "",
        failed_at=_utc(failed_at),
        attempts=attempts(headers),
        kafka_timestamp_ms=int(stamp) if stamp else None,
        left_out_bytes=int(first(headers, DLQ_LEFT_OUT_BYTES) or "0"),
        left_out_sha256=first(headers, DLQ_LEFT_OUT_SHA256) or "",
    )


def _utc(text: str) -> datetime:
    """A moment with its zone, in UTC, so that dead letters can be ordered; else ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time of failure has no zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time of failure lies outside the years 1 to 9999") from None
