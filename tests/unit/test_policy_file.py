"""Specification of the policy file: strict, layered, and identified by its digest."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import policy_file
from pipeline.errors import Misconfigured
from pipeline.events import Action, Kind, Retention
from pipeline.policy import OnUnavailable, Policy, decide

TABLES = {
    "": ['id = "p"', 'version = "1"', 'unknown_tenant = "default"'],
    "[floor.prompt]": ["S4 = { review = 0.6, block = 0.9 }"],
    "[default]": ['on_unavailable = "hold"', "degrade_after_s = 30.0", 'retention = "hash"'],
    "[default.prompt]": ["unsafe = { flag = 0.5, block = 0.9 }", "S1 = { review = 0.4 }"],
    "[tenants.a]": ['unscanned_action = "block"', 'partial_action = "review"'],
    "[tenants.a.completion]": ["S12 = { block = 0.3 }"],
    "[tenants.a.routes.chat]": ["degrade_after_s = 5.0"],
}


def render(tables: dict[str, list[str]]) -> str:
    """Tables as TOML; the nameless one must come first."""
    return "\n".join(f"{head}\n" + "\n".join(lines) for head, lines in tables.items())


def digest_of(text: str) -> str:
    """The digest of a policy's text."""
    return policy_file.parse(text, name="test").ref.digest


BASE = digest_of(render(TABLES))


@given(st.randoms(use_true_random=False))
def test_order_comments_and_spacing_do_not_change_the_digest(order: random.Random) -> None:
    """A reformatted policy is the same policy."""
    heads = [head for head in TABLES if head]
    order.shuffle(heads)
    mixed = {head: order.sample(TABLES[head], len(TABLES[head])) for head in ["", *heads]}
    text = render(mixed).replace("\n", "\n  # why\n\n").replace(" = ", "   =  ")
    assert text != render(TABLES)
    assert digest_of(text) == BASE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('id = "p"', 'id = "q"'),
        ('version = "1"', 'version = "2"'),
        ('unknown_tenant = "default"', 'unknown_tenant = "reject"'),
        ("S4 = { review = 0.6", "S4 = { review = 0.61"),
        ('on_unavailable = "hold"', 'on_unavailable = "degrade"'),
        ("degrade_after_s = 30.0", "degrade_after_s = 30.5"),
        ('retention = "hash"', 'retention = "none"'),
        ("flag = 0.5", "review = 0.5"),
        ("unsafe = {", "S2 = {"),
        ("S1 = { review = 0.4 }", ""),
        ('unscanned_action = "block"', 'unscanned_action = "review"'),
        ('partial_action = "review"', 'partial_action = "block"'),
        ("[tenants.a.completion]", "[tenants.a.prompt]"),
        ("degrade_after_s = 5.0", "degrade_after_s = 6.0"),
        ("routes.chat", "routes.talk"),
    ],
)
def test_any_rule_changes_the_digest(old: str, new: str) -> None:
    """Two policies that could decide differently have different digests."""
    text = render(TABLES)
    assert old in text
    assert digest_of(text.replace(old, new)) != BASE


@given(st.floats(0, 1), st.floats(0, 1))
def test_thresholds_that_differ_have_digests_that_differ(one: float, other: float) -> None:
    """Down to the last bit of a threshold; 0 and -0 are the same threshold."""
    texts = [render(TABLES).replace("flag = 0.5, block = 0.9", f"flag = {at!r}")
             for at in (one, other)]  # fmt: skip
    assert (digest_of(texts[0]) == digest_of(texts[1])) is (one == other)


def rules_of(policy: Policy, route: str | None = None, kind: Kind = Kind.PROMPT) -> object:
    """Tenant a's rules."""
    return policy.rules(kind, "a", route)


def test_a_layer_inherits_what_it_does_not_set() -> None:
    """Tenant over default, route over tenant, key by key."""
    policy = policy_file.parse(render(TABLES), name="test")
    tenant = policy.rules(Kind.PROMPT, "a", None)
    route = policy.rules(Kind.PROMPT, "a", "chat")
    assert (tenant.unscanned_action, tenant.degrade_after_s) == (Action.BLOCK, 30.0)
    assert (route.unscanned_action, route.degrade_after_s) == (Action.BLOCK, 5.0)
    assert (tenant.on_unavailable, tenant.retention) == (OnUnavailable.HOLD, Retention.HASH)
    assert tenant.partial_action is Action.REVIEW
    assert decide({"unsafe": 0.9}, route).action is Action.BLOCK


def test_rules_of_a_kind_apply_to_that_kind_only() -> None:
    """A completion threshold says nothing about prompts."""
    policy = policy_file.parse(render(TABLES), name="test")
    judged = {kind: decide({"S12": 0.5}, policy.rules(kind, "a", None)).action for kind in Kind}
    assert judged == {Kind.PROMPT: Action.ALLOW, Kind.COMPLETION: Action.BLOCK}


def test_origins_name_the_layer_that_set_a_threshold() -> None:
    """A verdict can say whose rule it was."""
    policy = policy_file.parse(render(TABLES), name="test")
    completion = policy.rules(Kind.COMPLETION, "a", "chat")
    prompt = policy.rules(Kind.PROMPT, "a", "chat")
    assert {t.origin for t in completion.thresholds} == {"tenant a"}
    assert {t.origin for t in prompt.thresholds} == {"default"}
    assert {t.origin for t in prompt.floor} == {"floor"}


HEAD = 'id = "p"\nversion = "1"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id = ", "is not TOML"),
        (HEAD, "default: "),
        ('version = "1"\n[default]\n', "id: "),
        (HEAD + "[default]\ncolour = 1\n", "default.colour: "),
        (HEAD + "[default.prompt]\nS99 = { flag = 0.5 }\n", "unknown category 'S99'"),
        (HEAD + "[default.prompt]\nS1 = {}\n", "at least one of flag, review, block"),
        (HEAD + "[default.prompt]\nS1 = { flag = 0.9, block = 0.5 }\n", "must ascend"),
        (HEAD + "[default.prompt]\nS1 = { flag = 1.5 }\n", "default.prompt.S1.flag: "),
        (HEAD + "[default.prompt]\nS1 = { flag = nan }\n", "default.prompt.S1.flag: "),
        (HEAD + "[default.prompt]\nS1 = { flag = -0.1 }\n", "default.prompt.S1.flag: "),
        (HEAD + '[default]\nunscanned_action = "allow"\n', "default.unscanned_action: "),
        (HEAD + "[default]\ndegrade_after_s = 0\n", "default.degrade_after_s: "),
        (HEAD + 'taxonomy = "other"\n[default]\n', "taxonomy: "),
        (HEAD + "[default]\n[tenants.a.routes.b.routes.c]\n", "tenants.a.routes.b.routes: "),
    ],
)
def test_a_wrong_policy_is_refused_naming_file_key_and_remedy(text: str, says: str) -> None:
    """Nothing is ignored in silence: the file, the key and what to do are said."""
    with pytest.raises(Misconfigured) as caught:
        policy_file.parse(text, name="strict.toml")
    assert "policy strict.toml" in caught.value.message
    assert says in caught.value.message
    assert caught.value.remedy


def test_more_than_one_problem_is_counted() -> None:
    """The first is named, the others are announced."""
    with pytest.raises(Misconfigured, match=r"\(and 1 more\)"):
        policy_file.parse(HEAD + "[default]\ncolour = 1\nshape = 2\n", name="p")


def test_the_shipped_policy_is_valid_and_protective(shipped_policy: Policy) -> None:
    """It judges both kinds, has a floor, and never allows an unscanned message."""
    for kind in Kind:
        for tenant in ("", "demo", "acme", "kids", "stranger"):
            rules = shipped_policy.rules(kind, tenant, None)
            assert decide({"S4": 0.95}, rules).action is Action.BLOCK
            assert decide({"unsafe": 0.99}, rules).action is Action.BLOCK
            assert decide({"unsafe": 0.0}, rules).action is Action.ALLOW
            assert rules.unscanned_action is not Action.ALLOW


def test_the_shipped_policy_degrades_for_kids_and_holds_for_others(
    shipped_policy: Policy,
) -> None:
    """Kids get an answer within seconds and it is a block; the others wait."""
    kids = shipped_policy.rules(Kind.PROMPT, "kids", None)
    demo = shipped_policy.rules(Kind.PROMPT, "demo", None)
    assert (kids.on_unavailable, kids.unscanned_action) == (OnUnavailable.DEGRADE, Action.BLOCK)
    assert demo.on_unavailable is OnUnavailable.HOLD


@pytest.mark.parametrize("value", ["[" * 2000, "9" * 5000, "{ a = " * 2000])
def test_what_python_cannot_read_is_not_toml(value: str) -> None:
    """Endless brackets and endless numbers are refused in words, like any other slip."""
    with pytest.raises(Misconfigured, match="policy test is not TOML"):
        policy_file.parse(f"id = {value}", name="test")


@pytest.mark.parametrize("side", ["prompt", "completion"])
def test_a_floor_for_an_unknown_category_is_refused(side: str) -> None:
    """A misspelt category would be a floor under nobody, in silence."""
    tables = TABLES | {f"[floor.{side}]": ["s4 = { block = 0.9 }"]}
    with pytest.raises(Misconfigured, match=rf"floor.{side}: unknown category 's4'"):
        policy_file.parse(render(tables), name="test")
