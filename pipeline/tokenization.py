"""Text to token ids, with the tokenizer that lies beside a guard's card."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson
from tokenizers import Tokenizer as _Tokenizer

from pipeline.errors import Misconfigured
from pipeline.remembered_words import RememberedWords, cuts_as_bert
from pipeline.spelt_together import SpeltTogether

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

# Handing a batch to the library's threads costs more than they save where batches are small,
# and takes cores from the guard where they are large. Workers scale by processes.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Tokenizer:
    """A guard's own tokenizer; safe to call from several threads.

    `spelt_together` tells words apart by the vocabulary, where that goes by frequency.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = _Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises plain Exception
            raise Misconfigured(
                f"tokenizer {path} cannot be read: {error}",
                remedy="Export the guard again, or correct [input].tokenizer in its card",
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # A special token that a user typed is plain text: nobody forges a border.
        self._tokenizer.encode_special_tokens = True
        self._words = self._remembered()
        self.spelt_together = self._told_apart()
        self.special_ids: dict[str, int] = {
            token.content: number
            for number, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special
        }

    def _remembered(self) -> RememberedWords | None:
        document = orjson.loads(self._tokenizer.to_str())
        if not cuts_as_bert(document):
            return None
        lowercase = bool(document["normalizer"].get("lowercase"))
        return RememberedWords(lambda word: self._looked_up([word])[0], lowercase=lowercase)

    def _told_apart(self) -> SpeltTogether | None:
        if self._words is None:
            return None
        # A BERT vocabulary begins with the most frequent words.
        ranks = self._tokenizer.get_vocab(with_added_tokens=False)
        return SpeltTogether(sorted(ranks, key=ranks.__getitem__))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens, never truncated."""
        if self._words is None:
            return self._looked_up(texts)
        found = [self._words.ids(text) for text in texts]
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        looked_up = iter(self._looked_up(left) if left else ())
        return [next(looked_up) if ids is None else ids for ids in found]

    def _looked_up(self, texts: Sequence[str]) -> list[list[int]]:
        """What the library makes of them."""
        try:
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except TypeError:  # Rust's strings hold no lone surrogate; one must not cost the batch
            valid = [_valid(text) for text in texts]
            encodings = self._tokenizer.encode_batch(valid, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends, in characters."""
        return list(self._tokenizer.encode(_valid(text), add_special_tokens=False).offsets)


def _valid(text: str) -> str:
    """The text, each lone surrogate replaced by one character, so that places stay."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text
