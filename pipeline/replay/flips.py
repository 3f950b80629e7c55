"""A flip as a line of `flips.jsonl`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pipeline.moderation import Decided
from pipeline.replay.comparison import Compared, near


def line(
    compared: Compared, margin: float, *, show_text: bool, text: str | None = None
) -> dict[str, Any]:
    """What flipped, from what to what and why; the text only where it is asked for."""
    verdict, event = compared.verdict, compared.entry.event
    shown = {"text": text} if show_text else {}
    return {
        "verdict_id": verdict.verdict_id,
        "message_id": verdict.message_id,
        "audit_at": str(compared.entry.at),
        "tenant": verdict.tenant,
        "kind": verdict.kind,
        "route": event.route,
        "language": event.language,
        "before": _side(compared.before, verdict.policy.digest),
        "after": _side(compared.after, compared.policy.ref.digest),
        "near": near(compared.before, margin) or near(compared.after, margin),
        **shown,
    }


def as_bytes(document: Mapping[str, Any]) -> bytes:
    """The document on a line of its own."""
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _side(decided: Decided, policy: str) -> dict[str, Any]:
    top = decided.flagged[0] if decided.flagged else None
    why = {
        "category": top.category, "score": top.score, "threshold": top.threshold,
        "origin": top.origin,
    } if top else None  # fmt: skip
    return {"action": decided.action, "status": decided.status, "policy": policy, "because": why}
