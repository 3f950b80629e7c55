"""Specification of an exported card: valid TOML, whatever its checkpoint is called."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipeline.guards import folder, recipes
from pipeline.guards.folder import Facts

_DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("guard😀", "guard😀"),
        ('a "quoted" \\ name', 'a "quoted" \\ name'),
        ("tab\tdelete\x7f", "tab\tdelete\x7f"),
        ("not utf-8: \udcff", "not utf-8: ?"),
    ],
)
def test_a_card_names_any_source(tmp_path: Path, source: str, read: str) -> None:
    """A folder's name may hold what JSON writes otherwise than TOML, or nobody can write."""
    facts = Facts(
        name="mine", version="1", source=source, pad_id=0, cls_id=2, sep_id=3, vocabulary=9,
        model=_DIGEST, tokenizer=_DIGEST, template=None, golden=[], tolerance=0.02,
    )  # fmt: skip
    folder.write_card(tmp_path, recipes.named("prompt-guard-2"), facts)
    written = tomllib.loads((tmp_path / "card.toml").read_text(encoding="utf-8"))
    assert written["guard"]["source"] == read
