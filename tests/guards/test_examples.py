"""Training examples: what a row teaches and what it leaves unsaid."""

from __future__ import annotations

import random

from pipeline.guards.contrast import contrastive
from pipeline.guards.data import HAZARDS, LABELS, PLACE, draw, example, label, sources

UNSAFE, S10 = PLACE["unsafe"], PLACE["S10"]


def test_an_attack_row_is_never_an_unsafe_target() -> None:
    """A row of the attack head says nothing about hazards."""
    targets, weights = label(positive=True, codes=("JB", "S14"), head="a", negatives="all")
    assert targets[PLACE["jailbreak"]] == 1.0
    assert targets[UNSAFE] == 0.0
    assert all(weights[PLACE[name]] == 0.0 for name in (*HAZARDS, "unsafe", "injection"))


def test_a_hazard_row_is_no_evidence_about_attacks() -> None:
    """A row of the hazard head leaves injection and jailbreak unsaid."""
    _, weights = label(positive=True, codes=("S2",), head="h", negatives="all")
    assert weights[PLACE["injection"]] == weights[PLACE["jailbreak"]] == 0.0


def test_a_hate_set_speaks_of_hate_only() -> None:
    """A clean row of a hate set denies S10 and unsafe, no other category."""
    targets, weights = label(positive=False, codes=(), head="h", negatives="hate")
    known = {name for name, weight in zip(LABELS, weights, strict=True) if weight}
    assert known == {"S10", "unsafe"}
    assert not any(targets)


def test_an_insult_is_unsafe_without_being_hate() -> None:
    """OTHER_* codes count for unsafe and leave S10 unsaid."""
    targets, weights = label(positive=True, codes=("OTHER_harassment",), head="h", negatives="hate")
    assert targets[UNSAFE] == 1.0
    assert weights[S10] == 0.0


def test_a_response_is_judged_in_the_context_of_its_prompt() -> None:
    """Where a row has a response, the response is the text."""
    row = {"t": "question", "r": "answer", "y": 0, "h": "h", "l": "en", "s": "medsafetybench"}
    made = example(row, sources())
    assert (made.text, made.context) == ("answer", "question")


def test_the_sources_table_weights_noisy_sources_down() -> None:
    """AART at 0.5 and RedCode at 0.1, as their noise was measured."""
    table = sources()
    assert table["aart"].weight == 0.5
    assert table["redcode_text_summaries"].weight == 0.1


def test_own_examples_are_reproducible_and_cover_every_category() -> None:
    """One seed gives one list, with each hazard and both attacks in it."""
    own = contrastive(1)
    assert own == contrastive(1)
    covered = {
        name for row in own for name, target in zip(LABELS, row.targets, strict=True) if target
    }
    assert covered == set(LABELS)


def test_own_examples_hold_as_much_harmless_text_in_every_foreign_language() -> None:
    """A foreign language by itself must not look like a harm."""
    foreign = [row for row in contrastive(1) if row.source == "own:foreign"]
    for language in {row.language for row in foreign}:
        harmful = [row.targets[UNSAFE] for row in foreign if row.language == language]
        assert sum(harmful) < len(harmful) / 2


def test_a_source_teaches_only_what_it_may() -> None:
    """A risky script is S14 at a small weight, and never unsafe."""
    row = {"t": "script", "y": 1, "h": "b", "c": ["S14"], "l": "en", "s": "redcode_text_summaries"}
    made = example(row, sources())
    taught = {name: w for name, w in zip(LABELS, made.weights, strict=True) if w}
    assert taught == {"S14": 0.1}


def test_an_epoch_leaves_long_rows_out() -> None:
    """Rows above the limit are never drawn, short ones of their source repeat instead."""
    short = {"t": "short", "y": 0, "h": "b", "l": "en", "s": "benign_gsm8k"}
    rows = [example(row, sources()) for row in (short, short | {"t": "x" * 5000})]
    drawn = draw(rows, random.Random(1))
    assert len(drawn) == sources()["benign_gsm8k"].take
    assert {row.text for row in drawn} == {"short"}
