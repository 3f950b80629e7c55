"""An audit event as one flat row, for warehouses. Pure.

The columns and their order are a promise: new ones are added at the end.
`content` and `context` are there in every export and filled only when texts
were asked for; `content_problem` then says why one could not be opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from pipeline.events import AuditEvent, Position
from pipeline.sealing import Opened


class Column(StrEnum):
    """What a column holds; times are UTC in microseconds."""

    TEXT = "text"
    WHOLE = "whole number"
    NUMBER = "number"
    TIME = "time"
    SCORES = "score by category"
    FLAGGED = "list of category, score, threshold, action, origin"
    GUARDS = "list of name, version, digest"


COLUMNS: Final[Mapping[str, Column]] = {
    "verdict_id": Column.TEXT,
    "message_id": Column.TEXT,
    "conversation_id": Column.TEXT,
    "prompt_id": Column.TEXT,
    "tenant": Column.TEXT,
    "route": Column.TEXT,
    "language": Column.TEXT,
    "kind": Column.TEXT,
    "action": Column.TEXT,
    "status": Column.TEXT,
    "reason": Column.TEXT,
    "taxonomy": Column.TEXT,
    "scores": Column.SCORES,
    "flagged": Column.FLAGGED,
    "guards": Column.GUARDS,
    "template_digest": Column.TEXT,
    "policy_id": Column.TEXT,
    "policy_version": Column.TEXT,
    "policy_digest": Column.TEXT,
    "sent_at": Column.TIME,
    "received_at": Column.TIME,
    "scored_at": Column.TIME,
    "emitted_at": Column.TIME,
    "stored_at": Column.TIME,
    "queued_s": Column.NUMBER,
    "inference_s": Column.NUMBER,
    "scanned_tokens": Column.WHOLE,
    "total_tokens": Column.WHOLE,
    "windows": Column.WHOLE,
    "batch_rows": Column.WHOLE,
    "worker_id": Column.TEXT,
    "attempt": Column.WHOLE,
    "source_topic": Column.TEXT,
    "source_partition": Column.WHOLE,
    "source_offset": Column.WHOLE,
    "audit_partition": Column.WHOLE,
    "audit_offset": Column.WHOLE,
    "retention": Column.TEXT,
    "content_hash": Column.TEXT,
    "key_id": Column.TEXT,
    "content": Column.TEXT,
    "context": Column.TEXT,
    "content_problem": Column.TEXT,
    "chain": Column.TEXT,
    "chain_sequence": Column.WHOLE,
    "chain_previous": Column.TEXT,
}
"""Every column of an export."""


def row(
    event: AuditEvent,
    *,
    at: Position,
    timestamp_ms: int,
    texts: Opened | None = None,
    problem: str | None = None,
) -> dict[str, Any]:
    """The row of an event that lies at `at`; its keys are `COLUMNS`."""
    verdict, chain, texts = event.verdict, event.chain, texts or Opened()
    return {
        "verdict_id": verdict.verdict_id,
        "message_id": verdict.message_id,
        "conversation_id": verdict.conversation_id,
        "prompt_id": event.prompt_id,
        "tenant": verdict.tenant,
        "route": event.route,
        "language": event.language,
        "kind": verdict.kind.value,
        "action": verdict.action.value,
        "status": verdict.status.value,
        "reason": verdict.reason,
        "taxonomy": verdict.taxonomy,
        "scores": dict(verdict.scores),
        "flagged": [
            {
                "category": each.category,
                "score": each.score,
                "threshold": each.threshold,
                "action": each.action.value,
                "origin": each.origin,
            }
            for each in verdict.flagged
        ],
        "guards": [
            {"name": each.name, "version": each.version, "digest": each.digest}
            for each in verdict.guards
        ],
        "template_digest": event.template_digest,
        "policy_id": verdict.policy.id,
        "policy_version": verdict.policy.version,
        "policy_digest": verdict.policy.digest,
        "sent_at": event.sent_at,
        "received_at": verdict.received_at,
        "scored_at": verdict.scored_at,
        "emitted_at": verdict.emitted_at,
        "stored_at": datetime.fromtimestamp(timestamp_ms / 1000, tz=UTC),
        "queued_s": event.queued_s,
        "inference_s": event.inference_s,
        "scanned_tokens": verdict.coverage.scanned_tokens,
        "total_tokens": verdict.coverage.total_tokens,
        "windows": event.windows,
        "batch_rows": event.batch_rows,
        "worker_id": event.worker_id,
        "attempt": event.attempt,
        "source_topic": verdict.source.topic,
        "source_partition": verdict.source.partition,
        "source_offset": verdict.source.offset,
        "audit_partition": at.partition,
        "audit_offset": at.offset,
        "retention": event.retention.value,
        "content_hash": event.content_hash or None,
        "key_id": event.key_id,
        "content": _text(texts.content),
        "context": _text(texts.context),
        "content_problem": problem,
        "chain": chain.chain if chain else None,
        "chain_sequence": chain.sequence if chain else None,
        "chain_previous": chain.previous.hex() if chain else None,
    }


def _text(text: bytes | None) -> str | None:
    return None if text is None else text.decode(errors="replace")
