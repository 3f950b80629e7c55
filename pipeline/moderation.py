"""The use case, pure: may this message be judged, and what is concluded.

A verdict's id is its input's position, so that a redelivery, even after a
policy change, carries the same id and the first one wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from msgspec import Struct

from pipeline.errors import Reason, Rejected
from pipeline.events import (
    Action,
    AuditEvent,
    Coverage,
    Flagged,
    Judgement,
    Message,
    Outcome,
    PolicyRef,
    Received,
    Status,
    Verdict,
)
from pipeline.policy import Policy, Rules, decide, more_severe
from pipeline.retention import Kept, keep
from pipeline.sealing import NoKeys, Sealer
from pipeline.taxonomy import name_of

MAX_ID_CHARS = 512
_NO_KEYS = NoKeys()
_NOT_SCANNED: Final = "not scanned: "
_NOTHING_CROSSED: Final = "no threshold crossed"
_ASKS_FOR: Final = "; the policy asks for "


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What a message may be: sizes in UTF-8 bytes, clock skew in seconds."""

    max_text_bytes: int
    max_future_s: float


class Case(Struct, frozen=True, kw_only=True, gc=False):
    """A message let in, with the rules and the policy it will be judged by."""

    received: Received
    rules: Rules
    policy: PolicyRef
    taxonomy: str
    tenant_known: bool


class Stamp(Struct, frozen=True, kw_only=True, gc=False):
    """Who concludes, when, and at which attempt."""

    worker_id: str
    now: datetime
    attempt: int = 1
    scored_at: datetime | None = None


class Decided(Struct, frozen=True, kw_only=True, gc=False):
    """What a policy makes of scores: the part of a verdict that replay decides again."""

    action: Action
    status: Status
    flagged: tuple[Flagged, ...]


def admit(received: Received, policy: Policy, intake: Intake) -> Case:
    """The case to judge; raises Rejected when the message cannot be judged."""
    message = received.message
    _check_text(message, intake)
    _check_ids(message)
    _check_sent_at(message, received.received_at, intake)
    return Case(
        received=received,
        rules=policy.rules(message.kind, message.tenant, message.route),
        policy=policy.ref,
        taxonomy=policy.taxonomy,
        tenant_known=policy.knows(message.tenant),
    )


def decided(
    scores: Mapping[str, float], coverage: Coverage, status: Status, rules: Rules
) -> Decided:
    """What the rules make of a message; the worker and replay decide by this alone.

    Where no guard ran (`unscanned`), the policy's unscanned action counts.
    Where the guards did not see all of the text, the status is `degraded`
    and the policy's partial action is the mildest that can result.
    """
    if status is Status.UNSCANNED:
        return Decided(action=rules.unscanned_action, status=Status.UNSCANNED, flagged=())
    decision = decide(scores, rules)
    if coverage.complete:
        return Decided(action=decision.action, status=Status.SCORED, flagged=decision.flagged)
    return Decided(
        action=more_severe(decision.action, rules.partial_action),
        status=Status.DEGRADED,
        flagged=decision.flagged,
    )


def conclude(
    case: Case, judgements: Sequence[Judgement], stamp: Stamp, sealer: Sealer = _NO_KEYS
) -> Outcome:
    """The verdict and audit event of a message that guards judged."""
    scores = merge(judgements)
    coverage = least([judgement.coverage for judgement in judgements])
    found = decided(scores, coverage, Status.SCORED, case.rules)
    return _outcome(
        case,
        stamp,
        sealer,
        judgements=judgements,
        scores=scores,
        found=found,
        coverage=coverage,
        reason=explain(found.flagged, coverage, tenant_known=case.tenant_known),
    )


def unscanned(case: Case, cause: str, stamp: Stamp, sealer: Sealer = _NO_KEYS) -> Outcome:
    """The visible outcome of a message that no guard judged: never "scored"."""
    coverage = Coverage(scanned_tokens=0, total_tokens=-1)
    found = decided({}, coverage, Status.UNSCANNED, case.rules)
    return _outcome(
        case,
        stamp,
        sealer,
        judgements=(),
        scores={},
        found=found,
        coverage=coverage,
        reason=unscanned_reason(cause, found.action),
    )


def merge(judgements: Sequence[Judgement]) -> Mapping[str, float]:
    """The highest score of each category over all guards."""
    if len(judgements) == 1:
        return judgements[0].scores
    scores: dict[str, float] = {}
    for judgement in judgements:
        for category, score in judgement.scores.items():
            scores[category] = max(score, scores.get(category, 0.0))
    return scores


def least(coverages: Sequence[Coverage]) -> Coverage:
    """The coverage of the guard that saw the smallest share of the text; whole ones come last."""
    if len(coverages) == 1:
        return coverages[0]
    return min(
        coverages,
        key=lambda seen: (seen.complete, seen.scanned_tokens / max(1, seen.total_tokens)),
    )


def _check_text(message: Message, intake: Intake) -> None:
    if not message.text or message.text.isspace():
        raise Rejected(
            Reason.EMPTY_TEXT, "the text is empty: nothing to scan", remedy="Publish a text"
        )
    _check_size("text", message.text, intake)
    if message.prompt:
        _check_size("prompt", message.prompt, intake)


def _check_size(name: str, text: str, intake: Intake) -> None:
    size_bytes = _utf8_size(text)
    if size_bytes > intake.max_text_bytes:
        raise Rejected(
            Reason.OVERSIZE,
            f"the {name} has {size_bytes:,} bytes, the limit is {intake.max_text_bytes:,}",
            remedy="Publish it in parts, or raise limits.max_text_bytes",
        )


def _utf8_size(text: str) -> int:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise Rejected(
            Reason.BAD_ENCODING, "a string holds a lone surrogate", remedy="Send valid Unicode"
        ) from None


def _check_ids(message: Message) -> None:
    if not message.message_id:
        raise Rejected(
            Reason.MISSING_FIELD, "the field 'message_id' is empty", remedy="Set 'message_id'"
        )
    together = (
        f"{message.message_id}{message.conversation_id}{message.tenant}"
        f"{message.route}{message.prompt_id}{message.language}"
    )
    if len(together) <= MAX_ID_CHARS and together.isascii():
        return  # and so is each
    named = (
        ("message_id", message.message_id),
        ("conversation_id", message.conversation_id),
        ("tenant", message.tenant),
        ("route", message.route),
        ("prompt_id", message.prompt_id),
        ("language", message.language),
    )
    for name, value in named:
        if not value:
            continue
        if len(value) > MAX_ID_CHARS:
            raise Rejected(
                Reason.OVERSIZE,
                f"the field {name!r} has {len(value):,} characters, the limit is {MAX_ID_CHARS}",
                remedy=f"Shorten {name!r}",
            )
        _utf8_size(value)


def _check_sent_at(message: Message, now: datetime, intake: Intake) -> None:
    if message.sent_at is None or message.sent_at <= now:
        return
    ahead = message.sent_at - now
    if ahead > timedelta(seconds=intake.max_future_s):
        raise Rejected(
            Reason.BAD_TIMESTAMP,
            f"'sent_at' lies {ahead.days:,} days and {ahead.seconds} s in the future",
            remedy="Check the publisher's clock, and that the unit is microseconds",
        )


def explain(flagged: Sequence[Flagged], coverage: Coverage, *, tenant_known: bool) -> str:
    """The reason of a verdict on a message that guards judged."""
    if tenant_known and not flagged and coverage.complete:
        return _NOTHING_CROSSED
    parts = []
    if flagged:
        top = flagged[0]
        parts.append(
            f"{top.category} {name_of(top.category)}: {top.score:.3f} >= {top.threshold:g}"
            f" asks for {top.action.value} ({top.origin})"
        )
    else:
        parts.append(_NOTHING_CROSSED)
    if not coverage.complete:
        parts.append(f"{coverage.scanned_tokens:,} of {coverage.total_tokens:,} tokens scanned")
    if not tenant_known:
        parts.append("the policy does not know the tenant: judged under the default")
    return "; ".join(parts)


def unscanned_reason(cause: str, action: Action) -> str:
    """The reason of a verdict on a message that no guard judged."""
    return f"{_NOT_SCANNED}{cause}{_ASKS_FOR}{action.value}"


def cause_of(reason: str) -> str:
    """The cause within `unscanned_reason`'s text."""
    return reason.removeprefix(_NOT_SCANNED).rpartition(_ASKS_FOR)[0]


def _outcome(
    case: Case,
    stamp: Stamp,
    sealer: Sealer,
    *,
    judgements: Sequence[Judgement],
    scores: Mapping[str, float],
    found: Decided,
    coverage: Coverage,
    reason: str,
) -> Outcome:
    received, message = case.received, case.received.message
    verdict = Verdict(
        verdict_id=str(received.position),
        message_id=message.message_id,
        conversation_id=message.conversation_id,
        tenant=message.tenant,
        kind=message.kind,
        action=found.action,
        status=found.status,
        reason=reason,
        taxonomy=case.taxonomy,
        scores=scores,
        flagged=found.flagged,
        coverage=coverage,
        guards=tuple([judgement.guard for judgement in judgements]),
        policy=case.policy,
        received_at=received.received_at,
        scored_at=stamp.scored_at,
        emitted_at=stamp.now,
        source=received.position,
    )
    kept = keep(message, case.rules.retention, verdict.verdict_id, sealer)
    audit = _audit(message, kept, verdict, judgements, stamp)
    return Outcome(verdict=verdict, audit=audit, headers=received.headers)


def _audit(
    message: Message, kept: Kept, verdict: Verdict, judgements: Sequence[Judgement], stamp: Stamp
) -> AuditEvent:
    effort: Judgement | _Effort = judgements[0] if len(judgements) == 1 else _effort(judgements)
    return AuditEvent(
        verdict=verdict,
        content_hash=kept.content_hash,
        retention=kept.retention,
        content=kept.content,
        context=kept.context,
        key_id=kept.key_id,
        route=message.route,
        language=message.language,
        prompt_id=message.prompt_id,
        sent_at=message.sent_at,
        template_digest=effort.template_digest,
        windows=effort.windows,
        batch_rows=effort.batch_rows,
        queued_s=effort.queued_s,
        inference_s=effort.inference_s,
        worker_id=stamp.worker_id,
        attempt=stamp.attempt,
    )


class _Effort(NamedTuple):
    """What several guards' judgements took together."""

    template_digest: str
    windows: int
    batch_rows: int
    queued_s: float
    inference_s: float


def _effort(judgements: Sequence[Judgement]) -> _Effort:
    return _Effort(
        template_digest=",".join(judgement.template_digest for judgement in judgements),
        windows=sum(judgement.windows for judgement in judgements),
        batch_rows=max((judgement.batch_rows for judgement in judgements), default=0),
        queued_s=max((judgement.queued_s for judgement in judgements), default=0.0),
        inference_s=max((judgement.inference_s for judgement in judgements), default=0.0),
    )
