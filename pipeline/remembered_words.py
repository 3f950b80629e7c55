"""Token ids of plain text word by word, each word's remembered: a BERT tokenizer's own ids.

A BERT tokenizer (Devlin et al. 2019) cuts a text at blanks and punctuation, and then
each word by itself, so that a text's ids are its words' ids in a row. The library does
all of it anew for each text, and notes where every piece came from; most words have
been seen before. For ASCII the cutting is simple, and this takes an eighth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

MOST_WORDS: Final = 65_536
"""Words remembered before all are forgotten: some 15 MB, and texts bring new ones for ever."""

LONGEST_WORD: Final = 32
"""Longer ones are hardly words, and would only take room."""

# Every ASCII sign is a word of its own; what is left between signs and blanks is one.
_WORDS: Final = re.compile(r"[^ \t\n\r!-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")
# The library drops these, and joins what stood beside them.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class RememberedWords:
    """Ids of texts in ASCII; `encode` gives the ids of one word that is not known yet.

    Of no use for a tokenizer that `cuts_as_bert` does not hold for. Several threads may call it.
    """

    def __init__(self, encode: Callable[[str], list[int]], *, lowercase: bool) -> None:
        self._encode = encode
        self._lowercase = lowercase
        self._known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def ids(self, text: str) -> list[int] | None:
        """The ids of a text; None where the library must look at it itself."""
        if not text.isascii() or _CONTROL.search(text):
            return None
        known, found = self._known, []
        for word in _WORDS.findall(text.lower() if self._lowercase else text):
            found += known.get(word) or self._learnt(word)
        return found

    def _learnt(self, word: str) -> list[int]:
        ids = self._encode(word)
        if len(word) <= LONGEST_WORD:
            if len(self._known) >= MOST_WORDS:
                self._known.clear()
            self._known[word] = ids
        return ids


def cuts_as_bert(document: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` cuts ASCII at blanks and signs only, and each word by itself."""
    normaliser = document.get("normalizer") or {}
    return (
        normaliser.get("type") == "BertNormalizer"
        and normaliser.get("clean_text") is True
        and (document.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and (document.get("model") or {}).get("type") == "WordPiece"
        # A token of that kind is found before the text is cut, also within a word.
        and all(token.get("special") for token in document.get("added_tokens") or ())
    )
