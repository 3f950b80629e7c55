"""Policy as data: which score asks for which action, and for whom.

`decide` is pure, total and monotone: a higher score never gives a milder
action. Layers apply in order: the default, then the tenant, then the route;
the organisation's floor is judged beside them and the more severe action
wins, so nothing a tenant writes can weaken it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from msgspec import Struct

from pipeline.errors import Reason, Rejected
from pipeline.events import Action, Flagged, Kind, PolicyRef, Retention


class OnUnavailable(StrEnum):
    """What to do with a message when its guard does not answer."""

    HOLD = "hold"
    DEGRADE = "degrade"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A score of `at` or more asks for `action`; 0 <= at <= 1."""

    category: str
    action: Action
    at: float
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Everything that applies to one kind of message of one tenant and route.

    `quiet_below`: no threshold is lower, so scores that all are ask for nothing.
    """

    thresholds: tuple[Threshold, ...]
    floor: tuple[Threshold, ...]
    on_unavailable: OnUnavailable
    degrade_after_s: float
    unscanned_action: Action
    partial_action: Action
    retention: Retention
    quiet_below: float = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Look for the lowest threshold once: nearly every message crosses none."""
        lowest = min((t.at for t in self.thresholds + self.floor), default=math.inf)
        object.__setattr__(self, "quiet_below", lowest)


class Decision(Struct, frozen=True, kw_only=True, gc=False):
    """The action, and every category that crossed, most severe first."""

    action: Action
    flagged: tuple[Flagged, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A validated policy: rules by kind for the default, tenants and routes."""

    ref: PolicyRef
    taxonomy: str
    reject_unknown_tenants: bool
    defaults: Mapping[Kind, Rules]
    tenants: Mapping[str, Mapping[Kind, Rules]]
    routes: Mapping[tuple[str, str], Mapping[Kind, Rules]]

    def rules(self, kind: Kind, tenant: str, route: str | None) -> Rules:
        """The rules for a message; raises Rejected for a tenant not let in."""
        if route is not None and (tenant, route) in self.routes:
            return self.routes[tenant, route][kind]
        if tenant in self.tenants:
            return self.tenants[tenant][kind]
        if tenant and self.reject_unknown_tenants:
            raise Rejected(
                Reason.UNKNOWN_TENANT,
                "the policy does not know this message's tenant",
                remedy="Add the tenant to the policy, or set unknown_tenant = 'default'",
            )
        return self.defaults[kind]

    def knows(self, tenant: str) -> bool:
        """True for a tenant with rules of its own, and for no tenant at all."""
        return not tenant or tenant in self.tenants

    def sealing_tenants(self) -> frozenset[str]:
        """The tenants it names whose content is kept encrypted; "" for the default's."""
        found = {tenant for tenant, kinds in self.tenants.items() if _seals(kinds)}
        found |= {tenant for (tenant, _route), kinds in self.routes.items() if _seals(kinds)}
        return frozenset(found | ({""} if _seals(self.defaults) else set()))

    def categories(self, kind: Kind) -> frozenset[str]:
        """Every category that some threshold for messages of a kind names."""
        layers = (self.defaults, *self.tenants.values(), *self.routes.values())
        rules = (layer[kind] for layer in layers)
        return frozenset(t.category for each in rules for t in each.thresholds + each.floor)


def _seals(by_kind: Mapping[Kind, Rules]) -> bool:
    return any(rules.retention is Retention.ENCRYPTED for rules in by_kind.values())


_ALLOWED: Final = Decision(action=Action.ALLOW, flagged=())


def decide(scores: Mapping[str, float], rules: Rules) -> Decision:
    """The most severe action that any crossed threshold, or the floor, asks for."""
    if max(scores.values(), default=0.0) < rules.quiet_below:
        return _ALLOWED
    crossed = [*_crossed(scores, rules.thresholds), *_crossed(scores, rules.floor)]
    if not crossed:
        return _ALLOWED
    crossed.sort(key=lambda flagged: (-flagged.action.severity, -flagged.score, flagged.category))
    worst: dict[str, Flagged] = {}
    for flagged in crossed:
        worst.setdefault(flagged.category, flagged)
    return Decision(action=crossed[0].action, flagged=tuple(worst.values()))


def more_severe(one: Action, other: Action) -> Action:
    """The more severe of two actions."""
    return one if one.severity >= other.severity else other


def _crossed(scores: Mapping[str, float], thresholds: tuple[Threshold, ...]) -> Iterator[Flagged]:
    for threshold in thresholds:
        score = scores.get(threshold.category)
        if score is not None and score >= threshold.at:
            yield Flagged(
                category=threshold.category,
                score=score,
                threshold=threshold.at,
                action=threshold.action,
                origin=threshold.origin,
            )
