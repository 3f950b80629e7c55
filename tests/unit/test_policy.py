"""Specification of decide: total, monotone, and never milder than the floor."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import policy_file
from pipeline.errors import Reason, Rejected
from pipeline.events import Action, Kind, Retention
from pipeline.policy import OnUnavailable, Policy, Rules, Threshold, decide, more_severe

CODES = ("S1", "S4", "unsafe")
actions = st.sampled_from([Action.FLAG, Action.REVIEW, Action.BLOCK])
scores_of = st.dictionaries(st.sampled_from([*CODES, "S9"]), st.floats(0, 1))
thresholds = st.lists(
    st.builds(
        Threshold, category=st.sampled_from(CODES), action=actions, at=st.floats(0, 1),
        origin=st.just("default"),
    ),
    max_size=6,
).map(tuple)  # fmt: skip


def rules_of(thresholds: tuple[Threshold, ...], floor: tuple[Threshold, ...] = ()) -> Rules:
    """Rules of which only the thresholds matter."""
    return Rules(
        thresholds=thresholds, floor=floor, on_unavailable=OnUnavailable.HOLD,
        degrade_after_s=1.0, unscanned_action=Action.REVIEW, partial_action=Action.FLAG,
        retention=Retention.HASH,
    )  # fmt: skip


def at(category: str, action: Action, value: float, origin: str = "default") -> Threshold:
    """One threshold."""
    return Threshold(category=category, action=action, at=value, origin=origin)


@given(scores_of, st.sampled_from(CODES), st.floats(0, 1), thresholds, thresholds)
def test_a_higher_score_never_gives_a_milder_action(
    scores: dict[str, float],
    code: str,
    more: float,
    one: tuple[Threshold, ...],
    floor: tuple[Threshold, ...],
) -> None:
    """Raising any score, or adding one, never lowers the severity."""
    rules = rules_of(one, floor)
    raised = scores | {code: max(more, scores.get(code, 0.0))}
    assert decide(raised, rules).action.severity >= decide(scores, rules).action.severity


@given(scores_of, thresholds, thresholds)
def test_the_action_is_the_most_severe_that_was_crossed(
    scores: dict[str, float], one: tuple[Threshold, ...], floor: tuple[Threshold, ...]
) -> None:
    """No crossed threshold asks for more than the decision, and one asks for just that."""
    decision = decide(scores, rules_of(one, floor))
    crossed = [t for t in one + floor if t.category in scores and scores[t.category] >= t.at]
    assert decision.action.severity == max((t.action.severity for t in crossed), default=0)
    assert bool(decision.flagged) is bool(crossed)
    assert [f.category for f in decision.flagged].count("S1") <= 1
    severities = [f.action.severity for f in decision.flagged]
    assert severities == sorted(severities, reverse=True)
    assert {f.category for f in decision.flagged} == {t.category for t in crossed}


@pytest.mark.parametrize(("score", "action"), [(0.5, Action.FLAG), (0.4999, Action.ALLOW)])
def test_a_threshold_is_crossed_at_its_value(score: float, action: Action) -> None:
    """`at` or more: the value itself crosses."""
    assert decide({"S1": score}, rules_of((at("S1", Action.FLAG, 0.5),))).action is action


def test_a_category_without_a_score_crosses_nothing() -> None:
    """Even a threshold of 0 needs a score."""
    assert decide({"S9": 1.0}, rules_of((at("S1", Action.BLOCK, 0.0),))).action is Action.ALLOW


def test_what_crossed_says_score_threshold_and_origin() -> None:
    """A flagged category explains itself by its most severe threshold."""
    rules = rules_of((at("S1", Action.FLAG, 0.2), at("S1", Action.BLOCK, 0.8, "tenant a")))
    (flagged,) = decide({"S1": 0.9}, rules).flagged
    assert (flagged.score, flagged.threshold, flagged.action, flagged.origin) == (
        0.9, 0.8, Action.BLOCK, "tenant a",
    )  # fmt: skip


@pytest.mark.parametrize(("one", "other"), list(product(Action, repeat=2)))
def test_more_severe_is_never_the_milder(one: Action, other: Action) -> None:
    """Of any two actions the result is one of them and at least as severe as both."""
    result = more_severe(one, other)
    assert result in (one, other)
    assert result.severity == max(one.severity, other.severity)


FLOOR = """
id = "p"
version = "1"
[floor.prompt]
S4 = { review = 0.4, block = 0.7 }
[default]
[default.prompt]
unsafe = { flag = 0.5 }
[tenants.lax]
"""
steps = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted)


@given(steps, steps, st.floats(0, 1), st.sampled_from(["prompt", "routes.chat.prompt"]))
def test_no_tenant_or_route_weakens_the_floor(
    mine: list[float], unsafe: list[float], score: float, where: str
) -> None:
    """Whatever thresholds a tenant or its route sets, the floor's action is the least."""

    def table(values: list[float]) -> str:
        named = zip(("flag", "review", "block"), values, strict=True)
        return "{ " + ", ".join(f"{k} = {float(v)!r}" for k, v in named) + " }"

    text = f"{FLOOR}\n[tenants.lax.{where}]\nS4 = {table(mine)}\nunsafe = {table(unsafe)}\n"
    policy = policy_file.parse(text, name="test")
    floor_alone = policy_file.parse(FLOOR, name="test").rules(Kind.PROMPT, "", None)
    least = decide({"S4": score}, floor_alone).action
    asked = decide({"S4": score}, policy.rules(Kind.PROMPT, "lax", "chat")).action
    assert asked.severity >= least.severity
    assert (least is Action.BLOCK) == (score >= 0.7)


LAYERS = """
id = "p"
version = "1"
unknown_tenant = "{unknown}"
[default]
[default.prompt]
unsafe = {{ flag = 0.5 }}
[tenants.a.prompt]
unsafe = {{ review = 0.5 }}
[tenants.a.routes.chat.prompt]
unsafe = {{ block = 0.5 }}
"""


def _policy(unknown: str = "default") -> Policy:
    return policy_file.parse(LAYERS.format(unknown=unknown), name="test")


@pytest.mark.parametrize(
    ("tenant", "route", "action"),
    [
        ("", None, Action.FLAG),
        ("stranger", None, Action.FLAG),
        ("a", None, Action.REVIEW),
        ("a", "other", Action.REVIEW),
        ("a", "chat", Action.BLOCK),
        ("stranger", "chat", Action.FLAG),
    ],
)
def test_the_nearest_layer_applies(tenant: str, route: str | None, action: Action) -> None:
    """Route before tenant before default; another tenant's route means nothing."""
    rules = _policy().rules(Kind.PROMPT, tenant, route)
    assert decide({"unsafe": 0.6}, rules).action is action


def test_an_unknown_tenant_can_be_rejected() -> None:
    """With unknown_tenant = reject a stranger is refused, and nobody else."""
    policy = _policy("reject")
    with pytest.raises(Rejected) as caught:
        policy.rules(Kind.PROMPT, "stranger", None)
    assert caught.value.reason is Reason.UNKNOWN_TENANT
    assert "stranger" not in str(caught.value)
    assert policy.rules(Kind.PROMPT, "", None)
    assert policy.rules(Kind.PROMPT, "a", None)


def test_a_policy_knows_its_tenants_and_categories() -> None:
    """No tenant at all counts as known."""
    policy = _policy()
    assert [policy.knows(tenant) for tenant in ("", "a", "stranger")] == [True, True, False]
    assert policy.categories(Kind.PROMPT) == {"unsafe"}
