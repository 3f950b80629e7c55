"""Decide a record again, by the same function as the worker. Pure.

`recorded` takes the scores that the record holds; after a rerun, those that
the guards gave now.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.audit_log import Entry
from pipeline.errors import Rejected
from pipeline.events import Action, Judgement, Status
from pipeline.moderation import decided, least, merge
from pipeline.policy import Policy, Rules
from pipeline.replay.comparison import Compared, LeftOut, decided_then


def recorded(entry: Entry, policy: Policy | None) -> Compared | LeftOut:
    """The record's own scores under a policy, or why that cannot be."""
    found = _rules(entry, policy)
    if isinstance(found, LeftOut):
        return found
    policy, rules = found
    verdict = entry.event.verdict
    status = Status.UNSCANNED if verdict.status is Status.UNSCANNED else Status.SCORED
    return Compared(
        entry=entry,
        before=decided_then(verdict),
        after=decided(verdict.scores, verdict.coverage, status, rules),
        policy=policy,
        rules=rules,
        scores=verdict.scores,
        coverage=verdict.coverage,
    )


def rerun(
    entry: Entry, policy: Policy | None, judgements: Sequence[Judgement]
) -> Compared | LeftOut:
    """The scores that guards gave now under a policy, or why that cannot be."""
    found = _rules(entry, policy)
    if isinstance(found, LeftOut):
        return found
    policy, rules = found
    scores = merge(judgements)
    coverage = least([judgement.coverage for judgement in judgements])
    return Compared(
        entry=entry,
        before=decided_then(entry.event.verdict),
        after=decided(scores, coverage, Status.SCORED, rules),
        policy=policy,
        rules=rules,
        scores=scores,
        coverage=coverage,
        judgements=tuple(judgements),
    )


def lacking(compared: Compared) -> set[str]:
    """Categories that the policy has a threshold for and that have no score."""
    if compared.after.status is Status.UNSCANNED:
        return set()
    rules, scores = compared.rules, compared.scores
    return {t.category for t in rules.thresholds + rules.floor if t.category not in scores}


def _rules(entry: Entry, policy: Policy | None) -> tuple[Policy, Rules] | LeftOut:
    event, verdict = entry.event, entry.event.verdict
    if verdict.action is Action.UNKNOWN or verdict.status is Status.UNKNOWN:
        return LeftOut.UNKNOWN_WORD
    if policy is None:
        return LeftOut.POLICY_NOT_FOUND
    if policy.taxonomy != verdict.taxonomy:
        return LeftOut.OTHER_TAXONOMY
    try:
        return policy, policy.rules(verdict.kind, verdict.tenant, event.route)
    except Rejected:
        return LeftOut.TENANT_REFUSED
