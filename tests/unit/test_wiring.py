"""Specification of which policies may be served with which guards."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import policy_file, wiring
from pipeline.errors import Misconfigured
from pipeline.policy import Policy
from pipeline.scoring import Guard
from pipeline.settings import Settings

from .fakes import write_guard


def policy(rules: str) -> Policy:
    """A policy of an empty default and these rules."""
    return policy_file.parse(f'id = "p"\nversion = "1"\n[default]\n{rules}', name="test")


@pytest.fixture
def guards(tmp_path: Path) -> list[Guard]:
    """One that judges both kinds, and one for jailbreaks in prompts alone."""
    return [
        write_guard(tmp_path, labels='["unsafe", "S1", "S2"]'),
        write_guard(tmp_path, labels='["jailbreak", "unsafe", "S1"]', roles='["prompt"]'),
    ]


@pytest.mark.parametrize(
    "table",
    [
        "[floor.completion]",
        "[default.completion]",
        "[tenants.a.completion]",
        "[tenants.a.routes.chat.completion]",
    ],
)
def test_a_threshold_that_no_guard_of_that_kind_serves_is_refused(
    table: str, guards: list[Guard]
) -> None:
    """It would read as protection, and never be crossed."""
    with pytest.raises(Misconfigured) as caught:
        wiring.check_policy(policy(f"{table}\njailbreak = {{ block = 0.5 }}\n"), guards)
    told = str(caught.value)
    assert "policy p has a threshold for 'jailbreak' of completion messages" in told
    assert "add a guard with role completion" in told


def test_a_category_that_no_guard_scores_is_refused(guards: list[Guard]) -> None:
    """As for one kind, so for both."""
    with pytest.raises(Misconfigured, match="'S9' of prompt messages"):
        wiring.check_policy(policy("[floor.prompt]\nS9 = { block = 0.5 }\n"), guards)


def test_thresholds_for_the_kinds_that_guards_judge_pass(guards: list[Guard]) -> None:
    """What one guard gives for a kind is enough."""
    rules = "jailbreak = { block = 0.5 }\nS2 = { flag = 0.5 }\n"
    both = f"[floor.prompt]\n{rules}[default.completion]\nS2 = {{ flag = 0.5 }}\n"
    wiring.check_policy(policy(both), guards)
    wiring.check_policy(policy(f"[tenants.a.routes.chat.prompt]\n{rules}"), guards)


def test_the_shipped_policy_passes_with_the_shipped_guard() -> None:
    """The defaults serve."""
    settings = Settings()
    wiring.check_policy(wiring.load_policy(settings), wiring.load_guards(settings.guards))
