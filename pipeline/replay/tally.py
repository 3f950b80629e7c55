"""What a replay has found so far; it can be written down and taken up again. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from pipeline.audit_log import Entry
from pipeline.events import Action, GuardRef, PolicyRef
from pipeline.replay.comparison import Compared, LeftOut, near, newly
from pipeline.replay.determinism import Determinism
from pipeline.replay.groups import Groups
from pipeline.replay.redeciding import lacking
from pipeline.replay.rescores import Rescores
from pipeline.replay.seen import Seen

NEWLY: Final = ("blocked", "held", "released")
_EXAMPLES: Final = 3
"""Flips of one cell of the matrix that are kept to be shown."""

_NAMES: Final = 50
"""Policies and guards told apart; audit logs hold few."""

_COUNTS: Final = ("read", "repeats", "asked_for", "compared", "near", "near_flips")


class Tally:
    """Counts of everything compared, left out and passed over."""

    def __init__(self, *, margin: float, tolerance: float) -> None:
        self.margin = margin
        self.read = 0
        self.repeats = 0
        self.asked_for = 0
        self.compared = 0
        self.near = 0
        self.near_flips = 0
        self.matrix: Counter[tuple[Action, Action]] = Counter()
        self.left_out: Counter[LeftOut] = Counter()
        self.unknown_policies: Counter[str] = Counter()
        self.lacking: Counter[str] = Counter()
        self.policies_then: Counter[str] = Counter()
        self.guards_then: Counter[str] = Counter()
        self.guards_now: Counter[str] = Counter()
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.groups = Groups()
        self.determinism = Determinism(tolerance=tolerance)
        self.rescores = Rescores()
        self.examples: dict[str, list[dict[str, Any]]] = {}
        self._seen = Seen()
        self._named: dict[tuple[str, str, str], str] = {}

    @property
    def flips(self) -> int:
        """Records whose action is another one."""
        return sum(count for (then, now), count in self.matrix.items() if then is not now)

    def newly(self, what: str) -> int:
        """Records newly `blocked`, `held` or `released`."""
        return sum(count for (then, now), count in self.matrix.items() if newly(then, now) == what)

    def first(self, entry: Entry) -> bool:
        """Count a record as read; False when its input has had a verdict before."""
        self.read += 1
        if self._seen.add(entry.event.verdict.source):
            return True
        self.repeats += 1
        return False

    def ask(self, entry: Entry) -> None:
        """Count a record as one that was asked for."""
        verdict, at_ms = entry.event.verdict, entry.timestamp_ms
        self.asked_for += 1
        self.first_ms = at_ms if self.first_ms is None else min(at_ms, self.first_ms)
        self.last_ms = at_ms if self.last_ms is None else max(at_ms, self.last_ms)
        _count(self.policies_then, self._policy(verdict.policy))
        for guard in verdict.guards:
            _count(self.guards_then, self._guard(guard))

    def leave_out(self, entry: Entry, reason: LeftOut) -> None:
        """Count a record that cannot be compared."""
        self.left_out[reason] += 1
        if reason is LeftOut.POLICY_NOT_FOUND:
            _count(self.unknown_policies, entry.event.verdict.policy.digest)

    def add(self, compared: Compared) -> None:
        """Count a record that was decided again."""
        self.compared += 1
        self.matrix[compared.before.action, compared.after.action] += 1
        self.groups.add(compared)
        for category in lacking(compared):
            self.lacking[category] += 1
        close = near(compared.before, self.margin) or near(compared.after, self.margin)
        self.near += close
        difference = self.rescores.add(compared) if compared.judgements else 0.0
        for each in compared.judgements:
            _count(self.guards_now, self._guard(each.guard))
        self.determinism.add(compared, difference)
        if compared.flip:
            self.near_flips += close

    def keep(self, compared: Compared, line: dict[str, Any]) -> None:
        """Keep a flip's line as an example, while its cell of the matrix has few."""
        cell = f"{compared.before.action} {compared.after.action}"
        kept = self.examples.setdefault(cell, [])
        if len(kept) < _EXAMPLES:
            kept.append(line)

    def _policy(self, ref: PolicyRef) -> str:
        """Its name; made once, since every record has one."""
        key = (ref.id, ref.version, ref.digest)
        return self._named.get(key) or self._named.setdefault(key, policy_name(ref))

    def _guard(self, ref: GuardRef) -> str:
        key = (ref.name, ref.version, ref.digest)
        return self._named.get(key) or self._named.setdefault(key, guard_name(*key))

    def state(self) -> dict[str, Any]:
        """Everything, as a JSON document."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "matrix": [[then, now, count] for (then, now), count in self.matrix.items()],
            **{name: dict(getattr(self, name)) for name in _COUNTERS},
            "left_out": {reason.value: count for reason, count in self.left_out.items()},
            "groups": self.groups.state(),
            "determinism": self.determinism.state(),
            "rescores": self.rescores.state(),
            "examples": self.examples,
            "seen": self._seen.state(),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any], *, margin: float, tolerance: float) -> Self:
        """The tally that `state` came from."""
        tally = cls(margin=margin, tolerance=tolerance)
        for name in (*_COUNTS, "first_ms", "last_ms", "examples"):
            setattr(tally, name, state[name])
        for name in _COUNTERS:
            setattr(tally, name, Counter(state[name]))
        tally.matrix = Counter(
            {(Action(then), Action(now)): count for then, now, count in state["matrix"]}
        )
        tally.left_out = Counter({LeftOut(why): count for why, count in state["left_out"].items()})
        tally.groups = Groups.restored(state["groups"])
        tally.determinism = Determinism.restored(state["determinism"])
        tally.rescores = Rescores.restored(state["rescores"])
        tally._seen = Seen.restored(state["seen"])
        return tally


_COUNTERS: Final = ("unknown_policies", "lacking", "policies_then", "guards_then", "guards_now")


def policy_name(ref: PolicyRef) -> str:
    """A policy as people tell it from another: id, version, and its digest's beginning."""
    return f"{ref.id} {ref.version} ({short(ref.digest)})"


def guard_name(name: str, version: str, digest: str) -> str:
    """A guard as people tell it from another."""
    return f"{name} {version} ({short(digest)})"


def short(digest: str) -> str:
    """The first eight digits of a digest."""
    return digest.removeprefix("sha256:")[:8]


def actions(tally: Tally) -> Iterator[Action]:
    """The actions that occur, mildest first; always allow, review and block."""
    found = {action for cell in tally.matrix for action in cell}
    always = {Action.ALLOW, Action.REVIEW, Action.BLOCK}
    return (action for action in Action if action in found | always)


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < _NAMES else "others"] += 1
