"""Grown requests: reproducible, balanced, and some kept out of training."""

from __future__ import annotations

import random
from functools import cache

import pytest

from pipeline.guards import grown
from pipeline.guards.data import HAZARDS, PLACE, Example

UNSAFE = PLACE["unsafe"]


@cache
def many(*, held: bool) -> list[Example]:
    """A third of an epoch, or a tenth of one from the held phrases."""
    return grown.grown("a", held=held, share=0.1 if held else 0.3)


def test_one_seed_gives_one_list() -> None:
    """Another epoch's seed gives other combinations."""
    assert grown.grown("a", share=0.01) == grown.grown("a", share=0.01)
    assert grown.grown("a", share=0.01) != grown.grown("b", share=0.01)


def test_every_slot_is_filled() -> None:
    """No slot is left in a text, trained or held."""
    rows = grown.grown("a", share=0.2) + grown.grown("a", held=True, share=0.2)
    assert not [row.text for row in rows if grown.SLOT.search(row.text)]


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


@pytest.mark.parametrize("kind", sorted(grown.ROWS))
def test_held_requests_are_never_trained_on(kind: str) -> None:
    """No held text appears among many trained ones."""
    trained = {row.text for row in many(held=False) if row.source == f"own:{kind}"}
    rows = many(held=True)
    held = {row.text for row in rows if row.source == f"own:{kind}"}
    assert held
    assert not held & trained


@pytest.mark.parametrize(
    "name", ["engineering", "security", "hazards", "twins", "chat", "statements", "passages"]
)
def test_a_table_has_both_sides(name: str) -> None:
    """Harmful and harmless phrases, none of them on both sides."""
    table = grown.read_table(f"{name}.toml")
    harmful = {phrase for group in table["harmful"].values() for phrase in group}
    harmless = {phrase for group in table["harmless"].values() for phrase in group}
    assert harmful
    assert harmless
    assert not harmful & harmless


def test_a_harm_and_its_twin_share_their_voices() -> None:
    """A voice by itself does not tell: both sides use most of them."""
    for name in ("engineering", "hazards"):
        voices = grown.read_table(f"{name}.toml")["voices"]
        assert len(voices["both"]) > len(voices["harmful"]), name
        assert len(voices["both"]) > len(voices["harmless"]), name


def test_a_wrapped_request_is_harm_and_jailbreak_at_once() -> None:
    """Both heads learn from it; nothing is said of injection."""
    rows = [row for row in grown.grown("a", share=0.05) if row.source == "own:wrapped"]
    assert rows
    for row in rows:
        assert row.targets[UNSAFE] == row.targets[PLACE["jailbreak"]] == 1.0
        assert row.weights[PLACE["injection"]] == 0.0


def test_a_jailbreak_around_a_harmless_request_is_no_harm() -> None:
    """It is a jailbreak for sure, and harmless with less weight than a plain request."""
    rows = [r for r in grown.grown("a", share=0.05) if r.source == "own:wrapped_harmless"]
    assert rows
    for row in rows:
        assert (row.targets[UNSAFE], row.targets[PLACE["jailbreak"]]) == (0.0, 1.0)
        assert 0 < row.weights[UNSAFE] < row.weights[PLACE["jailbreak"]]


def test_an_insult_is_unsafe_without_a_category() -> None:
    """OTHER in a table denies no hazard and names none."""
    rows = [row for row in grown.grown("a", share=0.3) if row.source == "own:statement_harmful"]
    bare = [row for row in rows if not any(row.targets[PLACE[code]] for code in HAZARDS)]
    assert bare
    assert all(row.targets[UNSAFE] and not row.weights[PLACE["S10"]] for row in bare)


def test_ordinary_requests_deny_attacks_too() -> None:
    """They teach both heads that nothing is wrong."""
    rows = [row for row in grown.grown("a", share=0.02) if row.source == "own:everyday"]
    assert all(row.weights[PLACE["injection"]] and not any(row.targets) for row in rows)


def test_a_filler_may_hold_slots_itself() -> None:
    """Slots are filled until none is left."""
    slots = {"a": ["x {b}"], "b": ["y"]}
    assert grown.filled("{a}!", slots, random.Random(1)) == "x y!"
