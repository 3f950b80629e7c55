"""Audit events as they would have been, for a topic of one's own. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from pipeline import codec, headers
from pipeline.events import AuditEvent, Status, Verdict
from pipeline.moderation import cause_of, explain, unscanned_reason
from pipeline.ports import Outgoing
from pipeline.replay.comparison import Compared

SOURCE = "sluice/replay"


def record(compared: Compared, topic: str, schemas: codec.Schemas) -> Outgoing:
    """The record to emit; a header names the audit event it was made from."""
    event = event_of(compared)
    stamped = headers.event(
        id=event.verdict.verdict_id,
        type="moderation.audit.v1",
        source=SOURCE,
        time=event.verdict.emitted_at,
    )
    return Outgoing(
        topic=topic,
        key=event.verdict.message_id.encode(),
        value=codec.encode_audit(event, schemas),
        headers=(*stamped, (headers.REPLAY_OF, str(compared.entry.at).encode())),
    )


def event_of(compared: Compared) -> AuditEvent:
    """The audit event with the decision, scores and guards of now.

    Times stay those of then, and it has no place in a chain.
    """
    event = replace(compared.entry.event, verdict=_verdict(compared), chain=None)
    judgements = compared.judgements
    if not judgements:
        return event
    return replace(
        event,
        template_digest=",".join(judgement.template_digest for judgement in judgements),
        windows=sum(judgement.windows for judgement in judgements),
        batch_rows=max(judgement.batch_rows for judgement in judgements),
        queued_s=max(judgement.queued_s for judgement in judgements),
        inference_s=max(judgement.inference_s for judgement in judgements),
    )


def _verdict(compared: Compared) -> Verdict:
    then, now = compared.verdict, compared.after
    known = compared.policy.knows(then.tenant)
    guards = tuple(judgement.guard for judgement in compared.judgements) or then.guards
    return replace(
        then,
        action=now.action,
        status=now.status,
        flagged=now.flagged,
        reason=unscanned_reason(cause_of(then.reason), now.action)
        if now.status is Status.UNSCANNED
        else explain(now.flagged, compared.coverage, tenant_known=known),
        scores=compared.scores,
        coverage=compared.coverage,
        guards=guards,
        policy=compared.policy.ref,
    )
