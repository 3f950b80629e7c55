"""Does the same policy, and the same guard, give the same again? Pure.

What is checked, and for which records: with recorded scores, that a decision's
canonical bytes are identical, where the policy is the one that judged then.
After a rerun, that neither action nor status is another and that no score
differs by more than the tolerance, where policy and guards are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from pipeline.replay.comparison import Compared, canonical

_EXAMPLES: Final = 5


@dataclass(slots=True, kw_only=True)
class Determinism:
    """Records checked, and those that came out otherwise, by what was otherwise."""

    tolerance: float
    checked: int = 0
    other_decision: int = 0
    other_scores: int = 0
    largest_difference: float = 0.0
    examples: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """True when something was checked and all of it came out the same."""
        return bool(self.checked) and not self.other_decision and not self.other_scores

    def add(self, compared: Compared, difference: float) -> None:
        """Check a record, where it can be; `difference` is its largest of a score."""
        if not compared.same_policy or (compared.judgements and not compared.same_guards):
            return
        self.checked += 1
        self.largest_difference = max(self.largest_difference, difference)
        other = self._other_decision(compared)
        self.other_decision += other
        self.other_scores += difference > self.tolerance
        if (other or difference > self.tolerance) and len(self.examples) < _EXAMPLES:
            self.examples.append(compared.verdict.verdict_id)

    def state(self) -> dict[str, Any]:
        """Everything, as a JSON document."""
        return asdict(self)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """What `state` came from."""
        return cls(**state)

    def _other_decision(self, compared: Compared) -> bool:
        before, after = compared.before, compared.after
        if compared.judgements:
            return (before.action, before.status) != (after.action, after.status)
        return canonical(before) != canonical(after)
