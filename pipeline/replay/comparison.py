"""One audit event decided again, beside what was decided then. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import orjson

from pipeline.audit_log import Entry
from pipeline.events import Action, Coverage, Flagged, Judgement, Verdict
from pipeline.moderation import Decided
from pipeline.policy import Policy, Rules


class LeftOut(StrEnum):
    """Why a record that was asked for could not be compared."""

    UNKNOWN_WORD = "unknown-word"
    POLICY_NOT_FOUND = "policy-not-found"
    OTHER_TAXONOMY = "other-taxonomy"
    TENANT_REFUSED = "tenant-refused"
    NOT_SCANNED = "not-scanned"
    NOT_KEPT = "not-kept"
    HASH_ONLY = "hash-only"
    NO_KEYS = "no-keys"
    KEY_ERASED = "key-erased"
    KEY_MISSING = "key-missing"
    NOT_OPENED = "not-opened"
    GUARD_REFUSED = "guard-refused"
    NO_GUARD = "no-guard"


WHY: Final[Mapping[LeftOut, str]] = {
    LeftOut.UNKNOWN_WORD: "the record has an action or status of a later release",
    LeftOut.POLICY_NOT_FOUND: "the policy that judged it is not known here",
    LeftOut.OTHER_TAXONOMY: "its scores and the policy name different taxonomies",
    LeftOut.TENANT_REFUSED: "the policy does not let its tenant in: it would be a dead letter",
    LeftOut.NOT_SCANNED: "no guard scanned it then: there is no score to compare with",
    LeftOut.NOT_KEPT: "its content was not kept (retention none)",
    LeftOut.HASH_ONLY: "only the hash of its content was kept (retention hash)",
    LeftOut.NO_KEYS: "its content is encrypted, and no keys were given",
    LeftOut.KEY_ERASED: "its content is encrypted, and its key was erased",
    LeftOut.KEY_MISSING: "its content is encrypted, and its key is not among those given",
    LeftOut.NOT_OPENED: "its content does not open with its key, or is not text",
    LeftOut.GUARD_REFUSED: "the guard refuses it now: it would be a dead letter",
    LeftOut.NO_GUARD: "none of the guards judges messages of its kind",
}
"""What each reason means, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A record's decision then and now; `judgements` only where it was scored again."""

    entry: Entry
    before: Decided
    after: Decided
    policy: Policy
    rules: Rules
    scores: Mapping[str, float]
    coverage: Coverage
    judgements: tuple[Judgement, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The verdict as emitted then."""
        return self.entry.event.verdict

    @property
    def flip(self) -> bool:
        """True when the action is another one."""
        return self.before.action is not self.after.action

    @property
    def stricter(self) -> bool:
        """True when the action is more severe than it was."""
        return self.after.action.severity > self.before.action.severity

    @property
    def same_policy(self) -> bool:
        """True when it was decided by the very policy that judged it then."""
        return self.policy.ref.digest == self.verdict.policy.digest

    @property
    def same_guards(self) -> bool:
        """True when the very guards that judged it then have scored it again."""
        then = sorted(guard.digest for guard in self.verdict.guards)
        return then == sorted(judgement.guard.digest for judgement in self.judgements)


def decided_then(verdict: Verdict) -> Decided:
    """What a verdict says was decided."""
    return Decided(action=verdict.action, status=verdict.status, flagged=verdict.flagged)


def canonical(decided: Decided) -> bytes:
    """A decision's bytes: action, status, and what was flagged with thresholds and origins.

    Two decisions are the same when these are.
    """
    flagged = [[f.category, f.score, f.threshold, f.action, f.origin] for f in decided.flagged]
    return orjson.dumps([decided.action, decided.status, flagged])


def deciding(decided: Decided) -> Flagged | None:
    """The crossed threshold that the action came from; None where none did."""
    if decided.flagged and decided.flagged[0].action is decided.action:
        return decided.flagged[0]
    return None


def near(decided: Decided, margin: float) -> bool:
    """True when the score that decided lies within `margin` of its threshold."""
    top = deciding(decided)
    return top is not None and top.score - top.threshold <= margin


def category(compared: Compared) -> str:
    """The category that a record counts under: that of its more severe decision; or ""."""
    sides = (compared.before, compared.after)
    for decided in reversed(sides) if compared.stricter else sides:
        if decided.flagged:
            return decided.flagged[0].category
    return ""


def newly(before: Action, after: Action) -> str:
    """`blocked`, `held` or `released` where an action became that; else "".

    Released is what is let through now, with a mark or without, and was stopped or
    marked more severely before.
    """
    if before is after:
        return ""
    if after is Action.BLOCK:
        return "blocked"
    if after is Action.REVIEW and before.severity < after.severity:
        return "held"
    let_through = after in (Action.ALLOW, Action.FLAG)
    return "released" if let_through and after.severity < before.severity else ""
