"""One message's story, told from its audit event. Pure.

Scores stand beside every threshold that applied, when the policy of that
digest is at hand; else beside those that were crossed, which the verdict
records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pipeline.errors import Rejected
from pipeline.events import Action, AuditEvent, Retention
from pipeline.policy import Policy, Rules
from pipeline.taxonomy import name_of

_STORED: Final = "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A moment of the timeline, `offset_s` after the worker received the message."""

    name: str
    at: datetime
    offset_s: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A threshold that applied: at this score and above, this action, by this layer."""

    action: Action
    at: float
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A category's score, the thresholds it was held against, and what it asked for."""

    category: str
    name: str
    score: float | None
    limits: tuple[Limit, ...]
    asked: Action | None


def rules_of(event: AuditEvent, policy: Policy | None) -> Rules | None:
    """The rules that applied, when this policy is the one that decided."""
    verdict = event.verdict
    if policy is None or policy.ref.digest != verdict.policy.digest:
        return None
    try:
        return policy.rules(verdict.kind, verdict.tenant, event.route)
    except Rejected:
        return None


def scores(event: AuditEvent, rules: Rules | None) -> list[Score]:
    """Every category with a score or a threshold; what asked for most comes first."""
    limits = _recorded(event) if rules is None else _limits(rules)
    asked = {each.category: each.action for each in event.verdict.flagged}
    found = [
        Score(
            category=category,
            name=name_of(category),
            score=event.verdict.scores.get(category),
            limits=limits.get(category, ()),
            asked=asked.get(category),
        )
        for category in sorted(set(event.verdict.scores) | set(limits))
    ]
    return sorted(found, key=lambda each: (-_severity(each), -(each.score or 0.0), each.category))


def timeline(event: AuditEvent, stored_ms: int) -> list[Step]:
    """Sent, received, given to the guard, answered, scored, emitted, stored; in order of time."""
    received = event.verdict.received_at
    return sorted(
        (
            Step(name=name, at=at, offset_s=(at - received).total_seconds(), what=what)
            for name, at, what in _moments(event, stored_ms)
        ),
        key=_when,
    )


def kept(event: AuditEvent, rules: Rules | None) -> str:
    """In words, what the log keeps of the texts, and where that is not what was asked."""
    size = len(event.content or b"")
    words = {
        Retention.NONE: "nothing",
        Retention.HASH: "a hash",
        Retention.PLAIN: f"the text, {size:,} bytes",
        Retention.ENCRYPTED: f"encrypted with key {event.key_id}",
    }
    said = words.get(event.retention, "something that this release has no word for")
    asked = None if rules is None else rules.retention
    if asked is Retention.ENCRYPTED and event.retention is Retention.HASH:
        said += " (the policy asks for encrypted: no usable key)"
    return said


def document(
    event: AuditEvent, *, stored_ms: int, policy: Policy | None, verdict: Mapping[str, Any]
) -> dict[str, Any]:
    """The story as JSON, around the verdict's own JSON; without texts."""
    rules, chain = rules_of(event, policy), event.chain
    return {
        "verdict": dict(verdict),
        "policy_at_hand": rules is not None,
        "scores": [asdict(each) for each in scores(event, rules)],
        "timeline": [
            {**asdict(step), "at": step.at.isoformat()} for step in timeline(event, stored_ms)
        ],
        "route": event.route,
        "language": event.language,
        "prompt_id": event.prompt_id,
        "windows": event.windows,
        "batch_rows": event.batch_rows,
        "queued_s": event.queued_s,
        "inference_s": event.inference_s,
        "worker_id": event.worker_id,
        "attempt": event.attempt,
        "template_digest": event.template_digest,
        "retention": event.retention.value,
        "kept": kept(event, rules),
        "content_hash": event.content_hash,
        "key_id": event.key_id,
        "chain": None
        if chain is None
        else {
            "chain": chain.chain,
            "sequence": chain.sequence,
            "previous": chain.previous.hex(),
        },
    }


def _when(step: Step) -> datetime:
    """Kafka cuts its timestamp to whole milliseconds: stored comes after what it follows."""
    return step.at + timedelta(microseconds=999) if step.name == _STORED else step.at


def _moments(event: AuditEvent, stored_ms: int) -> Iterator[tuple[str, datetime, str]]:
    verdict = event.verdict
    if event.sent_at is not None:
        yield "sent", event.sent_at, "by the publisher's clock"
    yield "received", verdict.received_at, "by the worker"
    if verdict.guards:
        asked = verdict.received_at + timedelta(seconds=event.queued_s)
        yield "asked", asked, f"the guard, queued {_ms(event.queued_s)}"
        answered = asked + timedelta(seconds=event.inference_s)
        yield "answered", answered, f"after {_ms(event.inference_s)} of inference"
    if verdict.scored_at is not None:
        yield "scored", verdict.scored_at, "with its batch"
    yield "emitted", verdict.emitted_at, "outcome made"
    stored = datetime.fromtimestamp(stored_ms / 1000, tz=verdict.emitted_at.tzinfo)
    yield _STORED, stored, "by Kafka's stamp, in whole ms"


def _recorded(event: AuditEvent) -> dict[str, tuple[Limit, ...]]:
    return {
        each.category: (Limit(action=each.action, at=each.threshold, origin=each.origin),)
        for each in event.verdict.flagged
    }


def _limits(rules: Rules) -> dict[str, tuple[Limit, ...]]:
    found: dict[str, tuple[Limit, ...]] = {}
    for each in sorted(rules.thresholds + rules.floor, key=lambda step: step.at):
        limit = Limit(action=each.action, at=each.at, origin=each.origin)
        found[each.category] = (*found.get(each.category, ()), limit)
    return found


def _severity(each: Score) -> int:
    return -1 if each.asked is None else each.asked.severity


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
