"""Specification of ids by remembered words: what the library gives, or None."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from pipeline import remembered_words
from pipeline.remembered_words import RememberedWords, cuts_as_bert
from pipeline.resources import shipped
from pipeline.tokenization import Tokenizer

DEFAULT = shipped("triton_models") / "default" / "tokenizer.json"
TOKENIZER = Tokenizer(DEFAULT)
LIBRARY = Library.from_file(str(DEFAULT))
ASCII = st.text(st.characters(max_codepoint=0x7F), max_size=300)
WORDY = st.text(st.sampled_from("abcXYZ019 '\"-_.,!?#[]\n\t\r"), max_size=300)


def library(text: str) -> list[int]:
    """The ids as the library gives them, of the whole text at once."""
    return list(LIBRARY.encode(text, add_special_tokens=False).ids)


def remembered() -> RememberedWords:
    """An empty memory over the library."""
    return RememberedWords(library, lowercase=True)


@given(ASCII | WORDY)
@example("[CLS] x [SEP] [MASK] ##ing")
@example("a" * 100 + " " + "a" * 101)
@example("a\x01b\x0bc\x7f \x00")
@example("naïve 日本 text")
def test_a_text_has_the_ids_that_the_library_gives_it(text: str) -> None:
    """Whatever it holds, and whether its words were met before or not."""
    assert TOKENIZER.encode([text, text]) == [library(text)] * 2


@given(WORDY)
def test_ascii_without_controls_is_not_left_to_the_library(text: str) -> None:
    """Else nothing would be gained."""
    assert remembered().ids(text) == library(text)


@pytest.mark.parametrize("text", ["na\u00efve", "\u65e5\u672c", "a\x00b", "a\x1bb", "a\x7fb"])
def test_what_is_cut_in_other_ways_is(text: str) -> None:
    """Letters beyond ASCII, and controls that join what stands beside them."""
    assert remembered().ids(text) is None


def test_a_word_is_looked_up_once() -> None:
    """In whatever text and case it comes again."""
    asked: list[str] = []

    def encode(word: str) -> list[int]:
        """Note what is asked."""
        asked.append(word)
        return library(word)

    words = RememberedWords(encode, lowercase=True)
    assert words.ids("Tea, tea; more TEA") == words.ids("tea, tea; more tea")
    assert asked == ["tea", ",", ";", "more"]


def test_words_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, and learnt anew; long ones are never kept."""
    monkeypatch.setattr(remembered_words, "MOST_WORDS", 3)
    words = remembered()
    for text in ("one two three", "four", "x" * 40, "one four"):
        assert words.ids(text) == library(text)
        assert len(words) <= 3
    assert "x" * 40 not in words._known


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "BertNormalizer", "clean_text": False}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"model": {"type": "BPE"}},
        {"added_tokens": [{"content": "o", "special": False}]},
    ],
)
def test_tokenizers_that_cut_otherwise_are_told_apart(change: dict[str, Any]) -> None:
    """Another pre-tokenizer, or a token that is found within words."""
    document = json.loads(DEFAULT.read_text(encoding="utf-8"))
    assert cuts_as_bert(document)
    assert not cuts_as_bert(document | change)


def test_a_cased_tokenizer_keeps_its_case(tmp_path: Path) -> None:
    """Lower case is the tokenizer's, not ours."""
    document = json.loads(DEFAULT.read_text(encoding="utf-8"))
    document["normalizer"]["lowercase"] = False
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    cased = Library.from_file(str(path)).encode("Tea and tea", add_special_tokens=False).ids
    assert Tokenizer(path).encode(["Tea and tea"]) == [cased]
    assert cased != library("Tea and tea")
