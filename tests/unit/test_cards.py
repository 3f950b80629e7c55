"""Specification of a guard's card: strict, tied to its files, and its calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import Misconfigured
from pipeline.events import Kind
from pipeline.guards import cards
from pipeline.scoring import Guard, uncovered_kinds

from .fakes import LABELS, card_toml, write_card, write_guard, write_tokenizer

_logits = hnp.arrays(np.float32, (4, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def test_a_card_tells_the_worker_all_it_must_know(tmp_path: Path) -> None:
    """Labels, shapes, specials, roles and the tokenizer's path."""
    card = cards.load(write_card(tmp_path))
    assert (card.name, card.labels, card.buckets) == ("tiny", LABELS, (8, 16))
    assert (card.pad_id, card.window.cls_id, card.window.sep_id) == (1, 2, 3)
    assert card.roles == {Kind.PROMPT, Kind.COMPLETION}
    assert card.tokenizer == tmp_path / "tokenizer.json"
    assert card.operating_points["balanced"] == {"unsafe": 0.5}
    assert card.golden[0].tolerance == 0.02


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("labels", '["unsafe", "S99", "S1"]', "'S99' is not in taxonomy sluice-1"),
        ("scale", "[1.0]", "calibration must have 3 values"),
        ("bias", "[0.0, nan, 0.0]", "calibration.bias.1"),
        ("scale", "[1.0, inf, 1.0]", "calibration.scale.1"),
        ("buckets", "[16, 8]", "buckets must ascend and end with max_length"),
        ("buckets", "[8, 8, 16]", "buckets must ascend"),
        ("buckets", "[8, 12]", "end with max_length"),
        ("overlap", "9", "leave no room for text"),
        ("model", '"sha256:short"', "digests.model"),
        ("roles", '["narrator"]', "guard.roles"),
        ("taxonomy", '"other"', "guard.taxonomy"),
        ("threshold", "1.5", "operating_points.balanced.unsafe"),
        ("threshold", "nan", "operating_points.balanced.unsafe"),
        ("labels", "[", "is not TOML"),
        ("labels", "[" * 2000, "is not TOML"),
        ("overlap", "9" * 5000, "is not TOML"),
    ],
)
def test_a_wrong_card_is_refused_naming_the_key(
    tmp_path: Path, key: str, value: str, says: str
) -> None:
    """A card that could give wrong scores does not load."""
    write_card(tmp_path, **{key: value})
    with pytest.raises(Misconfigured) as caught:
        cards.load(tmp_path)
    assert says in caught.value.message
    assert "card.toml" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("old", "place"),
    [
        ("unsafe = 0.5", "operating_points.balanced"),
        ("{ unsafe = 0.02 }", "golden.0.scores"),
    ],
)
def test_a_label_that_the_guard_does_not_give_is_refused(
    tmp_path: Path, old: str, place: str
) -> None:
    """A misspelt label would be a threshold or an expectation that nothing meets."""
    path = write_card(tmp_path) / "card.toml"
    path.write_text(path.read_text().replace(old, old.replace("unsafe", "unsfae")))
    with pytest.raises(Misconfigured) as caught:
        cards.load(tmp_path)
    assert f"label 'unsfae' of {place} is not one of guard.labels" in caught.value.message


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    """A misspelt key is not ignored."""
    write_card(tmp_path)
    path = tmp_path / "card.toml"
    path.write_text(path.read_text().replace('license = "', 'colour = "red"\nlicense = "'))
    with pytest.raises(Misconfigured, match=r"guard\.colour"):
        cards.load(tmp_path)


def test_a_missing_card_says_which_setting_to_change(tmp_path: Path) -> None:
    """The remedy names the folder's setting."""
    with pytest.raises(Misconfigured, match=r"Set guards\.repository"):
        cards.load(tmp_path / "absent")


def test_a_tokenizer_other_than_the_cards_is_refused(tmp_path: Path) -> None:
    """A guard fed by another tokenizer would score noise."""
    write_card(tmp_path)
    with (tmp_path / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(Misconfigured, match="does not match its card"):
        cards.load(tmp_path)


@pytest.mark.parametrize("name", ['"absent.json"', '""', '"' + "x" * 300 + '"'])
def test_a_tokenizer_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    """A missing file, or a folder in its place, is said and no traceback."""
    write_card(tmp_path, tokenizer_file=name)
    with pytest.raises(Misconfigured, match=r"no such file|name too long"):
        cards.load(tmp_path)


@given(logits=_logits, scale=st.floats(-100, 100), bias=st.floats(-100, 100))
def test_scores_are_probabilities_of_the_logits_shape(
    guard: Guard, logits: np.ndarray[Any, Any], scale: float, bias: float
) -> None:
    """However large the logits, every score is a number in 0..1."""
    scale_of, bias_of = (np.full(3, value, dtype=np.float32) for value in (scale, bias))
    scores = replace(guard.card, scale=scale_of, bias=bias_of).scores(logits)
    assert scores.shape == logits.shape
    assert ((scores >= 0) & (scores <= 1)).all()


def test_calibration_is_per_label(tmp_path: Path) -> None:
    """A score is sigmoid(logit * scale + bias), each label with its own."""
    card = cards.load(write_card(tmp_path, scale="[1.0, 2.0, 1.0]", bias="[0.0, 0.0, 1.5]"))
    logits = np.asarray([[0.0, 1.0, -1.5]], dtype=np.float32)
    assert card.scores(logits)[0] == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 0.5])


def test_the_digest_changes_with_weights_tokenizer_and_card(tmp_path: Path) -> None:
    """Whatever decides a score is in the digest that verdicts carry."""
    folders = [tmp_path / name for name in ("same", "base", "weights", "bias")]
    changes: list[dict[str, str]] = [
        {}, {}, {"model": f'"sha256:{"b" * 64}"'}, {"bias": "[0.0, 0.1, 0.0]"},
    ]  # fmt: skip
    for folder in folders:
        folder.mkdir()
    digests = [
        cards.load(write_card(folder, **change)).digest
        for folder, change in zip(folders, changes, strict=True)
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_calibration_cannot_be_changed_in_place(tmp_path: Path) -> None:
    """The vectors are read-only, like the record around them."""
    card = cards.load(write_card(tmp_path))
    with pytest.raises(ValueError, match="read-only"):
        card.scale[0] = 2.0


def test_a_kind_no_guard_judges_is_found(tmp_path: Path) -> None:
    """Start-up can refuse a configuration that leaves completions unjudged."""
    prompts_only: Guard = write_guard(tmp_path, roles='["prompt"]')
    assert uncovered_kinds([prompts_only]) == {Kind.COMPLETION}
    assert uncovered_kinds([]) == set(Kind)


def test_the_template_of_cards_used_here_is_valid(tmp_path: Path) -> None:
    """The tests above change one key of a card that loads."""
    (tmp_path / "card.toml").write_text(card_toml(write_tokenizer(tmp_path)))
    assert cards.load(tmp_path).template_digest.startswith("sha256:")


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 2000, "x = " + "9" * 5000, "[digests]", "digests = 1"]
)
def test_a_text_that_is_no_card_has_no_identity(text: str) -> None:
    """One such record in the policies topic would end every worker that reads it."""
    with pytest.raises(Misconfigured, match="not a guard's card"):
        cards.identity(text)
