"""Grown requests: reproducible, balanced, and some kept out of training."""

from __future__ import annotations

import random

import pytest

from pipeline.guards import grown
from pipeline.guards.data import HAZARDS, PLACE

UNSAFE = PLACE["unsafe"]


def test_one_seed_gives_one_list() -> None:
    """Another epoch's seed gives other combinations."""
    assert grown.grown("a", share=0.01) == grown.grown("a", share=0.01)
    assert grown.grown("a", share=0.01) != grown.grown("b", share=0.01)


def test_every_slot_is_filled() -> None:
    """No brace is left in a text, trained or held."""
    rows = grown.grown("a", share=0.2) + grown.grown("a", held=True, share=0.2)
    assert not [row.text for row in rows if "{" in row.text or "}" in row.text]


def test_every_hazard_has_harmful_requests() -> None:
    """S1 to S14 are positive somewhere."""
    rows = grown.grown("a", share=0.2)
    assert all(any(row.targets[PLACE[code]] for row in rows) for code in HAZARDS)


def test_programming_is_harmless_by_itself() -> None:
    """A coding request is unsafe only as malware."""
    rows = grown.grown("a", share=0.05)
    coding = {row.targets[UNSAFE] for row in rows if row.source.startswith("own:coding")}
    malware = {row.targets[UNSAFE] for row in rows if row.source == "own:malware"}
    assert (coding, malware) == ({0.0}, {1.0})


def test_attacks_say_nothing_about_hazards() -> None:
    """Their unsafe weight is 0."""
    attacks = [row for row in grown.grown("a", share=0.05) if row.source == "own:attack"]
    assert attacks
    assert not any(row.weights[UNSAFE] for row in attacks)


@pytest.mark.parametrize("kind", ["coding", "malware", "mention", "attack", "harmful", "harmless"])
def test_held_requests_are_never_trained_on(kind: str) -> None:
    """No held text appears among many trained ones."""
    trained = {row.text for row in grown.grown("a") if row.source == f"own:{kind}"}
    rows = grown.grown("a", held=True, share=0.1)
    held = {row.text for row in rows if row.source == f"own:{kind}"}
    assert held
    assert not held & trained


def test_a_filler_may_hold_slots_itself() -> None:
    """Slots are filled until none is left."""
    slots = {"a": ["x {b}"], "b": ["y"]}
    assert grown.filled("{a}!", slots, random.Random(1)) == "x y!"
