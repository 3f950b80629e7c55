"""Specification of text to token ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import Misconfigured
from pipeline.tokenization import Tokenizer

from .fakes import WORD_IDS, write_tokenizer


def test_texts_become_ids_without_specials_or_padding(tmp_path: Path) -> None:
    """Each text has its own ids and length; an empty one has none."""
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    fine, unsafe = WORD_IDS["fine"], WORD_IDS["unsafe"]
    assert tokenizer.encode(["fine", "fine unsafe fine", ""]) == [
        [fine], [fine, unsafe, fine], [],
    ]  # fmt: skip


def test_truncation_in_the_file_is_switched_off(tmp_path: Path) -> None:
    """A tokenizer saved with truncation and padding still gives every token of a text."""
    from tokenizers import Tokenizer as RustTokenizer

    write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    saved = RustTokenizer.from_file(str(path))
    saved.enable_truncation(3)
    saved.enable_padding(length=9)
    saved.save(str(path))
    assert len(Tokenizer(path).encode(["fine " * 50])[0]) == 50
    assert len(Tokenizer(path).encode(["fine"])[0]) == 1


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    """A missing or broken file is a misconfiguration with its path and a remedy."""
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Misconfigured, match=r"tokenizer\.json cannot be read") as caught:
        Tokenizer(path)
    assert "Export the guard again" in caught.value.remedy


def test_a_lone_surrogate_does_not_cost_the_batch_its_tokens(tmp_path: Path) -> None:
    """It becomes one replacement character: neighbours and places are what they were."""
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    broken, replaced = "fine \ud800 unsafe", "fine \ufffd unsafe"
    assert tokenizer.encode([broken, "fine"]) == tokenizer.encode([replaced, "fine"])
    assert tokenizer.spans(broken) == tokenizer.spans(replaced) == [(0, 4), (5, 6), (7, 13)]
