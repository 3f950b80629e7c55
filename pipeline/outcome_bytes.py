"""The Avro bytes of the two records that every message ends in.

fastavro looks at each value and its schema anew; these two are written so
often that their fields are spelt out here, in the schemas' order, and what
repeats from message to message (guards, policy, names) is encoded once. The
tests compare every byte with fastavro's under the committed schemas.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from pipeline.events import (
    Action,
    AuditEvent,
    ChainLink,
    Flagged,
    GuardRef,
    Kind,
    PolicyRef,
    Retention,
    Status,
    Verdict,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNKNOWN: Final = "UNKNOWN"
_NULL: Final = b"\x00"
_PRESENT: Final = b"\x02"
_END: Final = b"\x00"
_FLOAT: Final = struct.Struct("<f")
_DOUBLE: Final = struct.Struct("<d")


def verdict_bytes(verdict: Verdict) -> bytes:
    """The Avro body of a verdict, as `schemas/verdict.v1.avsc` has it."""
    source, coverage = verdict.source, verdict.coverage
    return b"".join(
        (
            _text(verdict.verdict_id),
            _text(verdict.message_id),
            _maybe_text(verdict.conversation_id),
            _name(verdict.tenant),
            _KINDS[verdict.kind],
            _ACTIONS[verdict.action],
            _STATUSES[verdict.status],
            _name(verdict.reason),
            _name(verdict.taxonomy),
            _scores(verdict.scores),
            _flagged(verdict.flagged) if verdict.flagged else _END,
            _long(coverage.scanned_tokens),
            _long(coverage.total_tokens),
            _judged(
                (
                    verdict.guards,
                    verdict.policy,
                    verdict.received_at,
                    verdict.scored_at,
                    verdict.emitted_at,
                    source.topic,
                    source.partition,
                )
            ),
            _long(source.offset),
        )
    )


def audit_rest_bytes(audit: AuditEvent) -> bytes:
    """An audit event between verdict and link, as `schemas/audit.v1.avsc` has it."""
    sent_at = audit.sent_at
    return b"".join(
        (
            _text(audit.content_hash),
            _RETENTIONS[audit.retention],
            _maybe_bytes(audit.content),
            _maybe_bytes(audit.context),
            _maybe_name(audit.route),
            _maybe_name(audit.language),
            _maybe_text(audit.prompt_id),
            _NULL if sent_at is None else _PRESENT + _moment(sent_at),
            _effort(
                (
                    audit.template_digest,
                    audit.windows,
                    audit.batch_rows,
                    audit.queued_s,
                    audit.inference_s,
                    audit.worker_id,
                    audit.attempt,
                    audit.key_id,
                )
            ),
        )
    )


def link_bytes(link: ChainLink | None) -> bytes:
    """The link that an audit event ends with, as `schemas/audit.v1.avsc` has it."""
    if link is None:
        return _NULL
    return b"".join((_PRESENT, _name(link.chain), _long(link.sequence), _bytes(link.previous)))


# Numbers --------------------------------------------------------------------


def _varint(value: int) -> bytes:
    """A whole number of -2**63 to 2**63 - 1: zigzag, seven bits a byte, low ones first."""
    return _unsigned((value << 1) ^ (value >> 63))


def _unsigned(rest: int) -> bytes:
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_SMALL: Final = tuple(_varint(value) for value in range(8192))
"""What takes two bytes at most."""


def _long(value: int) -> bytes:
    if 0 <= value < len(_SMALL):
        return _SMALL[value]
    rest = (value << 1) ^ (value >> 63)
    if rest < 0x4000:
        return _unsigned(rest)
    return bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80)) + _high(rest >> 14)


# Offsets in a row, and moments within 8 ms, share all but the first two bytes.
_high: Final = lru_cache(maxsize=1024)(_unsigned)


def _micros(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _moment(moment: datetime) -> bytes:
    return _long(_micros(moment))


# Texts ----------------------------------------------------------------------


def _bytes(value: bytes) -> bytes:
    return _long(len(value)) + value


def _text(value: str) -> bytes:
    return _bytes(value.encode())


def _maybe_text(value: str | None) -> bytes:
    return _NULL if value is None else _PRESENT + _text(value)


def _maybe_bytes(value: bytes | None) -> bytes:
    return _NULL if value is None else _PRESENT + _bytes(value)


# Publishers choose some names: only short ones are kept, so that all together stay small.
_KEPT_CHARS: Final = 128
_kept: Final = lru_cache(maxsize=4096)(_text)


def _name(value: str) -> bytes:
    """A text that few messages have to themselves: a tenant, a topic, a reason."""
    return _kept(value) if len(value) <= _KEPT_CHARS else _text(value)


def _maybe_name(value: str | None) -> bytes:
    return _NULL if value is None else _PRESENT + _name(value)


def _enum(words: Iterable[StrEnum]) -> dict[str, bytes]:
    """The encoded index of each word; the schemas' enums begin with UNKNOWN."""
    known = [word.value for word in words if word.value != _UNKNOWN]
    return {word: _varint(index) for index, word in enumerate((_UNKNOWN, *known))}


_KINDS: Final = _enum(Kind)
_ACTIONS: Final = _enum(Action)
_STATUSES: Final = _enum(Status)
_RETENTIONS: Final = _enum(Retention)


# What a batch's messages share -----------------------------------------------


_Judged = tuple[tuple[GuardRef, ...], PolicyRef, datetime, datetime | None, datetime, str, int]
_Effort = tuple[str, int, int, float, float, str, int, str | None]


@lru_cache(maxsize=256)
def _judged(shared: _Judged) -> bytes:
    """Who judged, when, and where the input lies but for its offset."""
    guards, policy, received_at, scored_at, emitted_at, topic, partition = shared
    return b"".join(
        (
            _guards(guards),
            _texts(policy.id, policy.version, policy.digest),
            _moment(received_at),
            _NULL if scored_at is None else _PRESENT + _moment(scored_at),
            _moment(emitted_at),
            _text(topic),
            _long(partition),
        )
    )


@lru_cache(maxsize=256)
def _effort(shared: _Effort) -> bytes:
    """What the judgement took: the same for most rows of a guard call."""
    template_digest, windows, batch_rows, queued_s, inference_s, worker_id, attempt, key_id = shared
    return b"".join(
        (
            _text(template_digest),
            _long(windows),
            _long(batch_rows),
            _DOUBLE.pack(queued_s),
            _DOUBLE.pack(inference_s),
            _text(worker_id),
            _long(attempt),
            _maybe_text(key_id),
        )
    )


# Collections ----------------------------------------------------------------


def _scores(scores: Mapping[str, float]) -> bytes:
    if not scores:
        return _END
    form, parts = _score_form(tuple(scores))
    filled = parts.copy()
    filled[1::2] = scores.values()
    return form.pack(*filled)


@lru_cache(maxsize=256)
def _score_form(labels: tuple[str, ...]) -> tuple[struct.Struct, list[bytes | float]]:
    """How a map of these labels is packed: keys, each with room for its float; and the end."""
    keys = [_text(label) for label in labels]
    keys[0] = _varint(len(labels)) + keys[0]
    parts: list[bytes | float] = [part for key in keys for part in (key, 0.0)]
    return struct.Struct("<" + "".join(f"{len(key)}sf" for key in keys) + "c"), [*parts, _END]


def _flagged(flagged: tuple[Flagged, ...]) -> bytes:
    parts = [_long(len(flagged))]
    for each in flagged:
        parts += (
            _name(each.category),
            _FLOAT.pack(each.score),
            _DOUBLE.pack(each.threshold),
            _ACTIONS[each.action],
            _name(each.origin),
        )
    parts.append(_END)
    return b"".join(parts)


def _guards(guards: tuple[GuardRef, ...]) -> bytes:
    if not guards:
        return _END
    each = (_texts(guard.name, guard.version, guard.digest) for guard in guards)
    return _long(len(guards)) + b"".join(each) + _END


def _texts(*texts: str) -> bytes:
    return b"".join(map(_text, texts))
