"""The plain form of a text whose letters are disguised.

Undone: letters written in invisible characters, zero-width characters, words
run together, compatibility letters (full-width, bold), other scripts' letters
inside Latin words, single letters set apart, digits and signs in place of
letters. What is not a disguise stays as it is, punctuation and whole words of
other scripts above all: a changed form costs a second judgement.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from pipeline.spelt_together import SpeltTogether

_LOOKALIKES: Final = str.maketrans(
    "аеорсухіјѕһԁԛԝАВЕКМНОРСТУХІЈЅαορνικυΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijshdqwABEKMHOPCTYXIJSaopvikuABEZHIKMNOPTYX",
)
"""Cyrillic and Greek letters that look Latin (after Unicode's confusables)."""
_ANY_LOOKALIKE: Final = frozenset(map(chr, _LOOKALIKES))
_LEET: Final = str.maketrans("013457@$", "oieastas")
_WORD: Final = re.compile(r"[^\W\d_]+")
_LATIN: Final = re.compile(r"[A-Za-z]")
# Four or more single letters or stand-ins, apart by one separator all along.
_APART: Final = re.compile(
    r"(?<![^\W_])[A-Za-z013457@$](?:([ .\-_*])[A-Za-z013457@$])(?:\1[A-Za-z013457@$]){2,}(?![^\W_])"
)
# One or two stand-ins between letters: b0mb, p@ssword, h3ll0 by its middle.
_DISGUISED: Final = re.compile(
    r"(?<![\w@$.])[A-Za-z@$][A-Za-z013457@$]*[A-Za-z013457](?![\w@$]|\.\w)"
)
_INNER: Final = re.compile(r"[A-Za-z][013457@$]{1,2}[A-Za-z]|[@$][A-Za-z]{2}")
# Where so many words are plainly disguised, all are taken to be: 7h3, 70, $734l, 4.
_PLAINLY_LEAST: Final = 3
_PLAINLY_SHARE: Final = 1 / 3
_LETTERS: Final = re.compile(
    r"(?<![\w@$.])(?:[013457@$]*[A-Za-z][A-Za-z013457@$]*|[013457@$]{1,3})(?![\w@$]|\.\w)"
)


# Invisible characters that stand for others: Unicode's tags for ASCII, and variation
# selectors for bytes, as they are used to pass text by a reader's eye.
_TAGS: Final = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
_SELECTORS: Final = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_FIRST_SELECTORS: Final = 16
_RUN: Final = re.compile(r"\S+")
_NOTHING: Final = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]+")
_PIECES_LEAST: Final = 4
_WORD_CHARACTERS: Final = 2.5
"""Pieces of this many characters on average are words, set apart; shorter ones a word's letters."""
# A tokenizer of words takes one over 100 characters for unknown; ideographs are words each.
_RUN_TOGETHER: Final = re.compile(
    r"[^\s!-/:-@\[-`{-~\u2000-\u206f\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]{101,}"
)
_PIECE: Final = 32


def normalise(text: str, words: SpeltTogether | None = None) -> str:
    """The plain form; the text itself where nothing is disguised. Raises nothing.

    With `words`, what was written without blanks gets some.
    """
    if text.isascii():
        return _legible(text, words)
    shown = reveal(text)
    spaced = _RUN.sub(_words_apart, shown) if _NOTHING.search(shown) else shown
    plain = spaced.translate(_PLAIN)
    latin = plain if _ANY_LOOKALIKE.isdisjoint(plain) else _WORD.sub(_one_script, plain)
    return _legible(latin, words)


def _legible(text: str, words: SpeltTogether | None) -> str:
    """In words of letters; told apart first, and once more when stand-ins are letters."""
    apart = words.apart(text) if words else text
    plain = _unleet(_broken(_together(_broken(apart))))
    return words.apart(plain) if words and plain != apart else plain


def reveal(text: str) -> str:
    """The text with what invisible characters spell in it: tags, and runs of selectors."""
    if text.isascii():
        return text
    return _SELECTORS.sub(_spelt, text).translate(_TAGS)


def _spelt(run: re.Match[str]) -> str:
    """The ASCII in a run of variation selectors, each of which stands for a byte."""
    codes = (ord(character) for character in run[0])
    spelt = bytes(c - 0xFE00 if c < 0x10000 else c - 0xE0100 + _FIRST_SELECTORS for c in codes)
    return spelt.decode("ascii", errors="ignore")


def _words_apart(run: re.Match[str]) -> str:
    """Words with zero-width characters in place of spaces get spaces."""
    pieces = [piece for piece in _NOTHING.split(run[0]) if piece]
    words = sum(map(len, pieces)) >= _WORD_CHARACTERS * len(pieces)
    return " ".join(pieces) if words and len(pieces) >= _PIECES_LEAST else run[0]


def _broken(text: str) -> str:
    """Words too long for any tokenizer, in pieces of about one length."""
    return _RUN_TOGETHER.sub(_pieces, text)


def _pieces(run: re.Match[str]) -> str:
    word = run[0]
    size = -(-len(word) // -(-len(word) // _PIECE))
    return " ".join(word[start : start + size] for start in range(0, len(word), size))


class _PlainForms(dict[int, str]):
    """The plain form of each character that was met, by its code."""

    _MOST: Final = 16_384
    """Of all that there are: a text of every character must not stay in memory."""

    def __missing__(self, code: int) -> str:
        if len(self) >= self._MOST:
            self.clear()
        self[code] = form = _plain(chr(code))
        return form


_PLAIN: Final = _PlainForms()


def _plain(character: str) -> str:
    """Nothing for a format character, the letter for a compatibility letter."""
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    folded = unicodedata.normalize("NFKC", character)
    letter = len(folded) == 1 and folded.isascii() and folded.isalnum() and kind != "No"
    return folded if letter else character


def _one_script(word: re.Match[str]) -> str:
    """A word that mixes Latin with lookalikes, in Latin."""
    return word[0].translate(_LOOKALIKES) if _LATIN.search(word[0]) else word[0]


def _together(text: str) -> str:
    """Single letters set apart become one word."""
    return _APART.sub(lambda found: "".join(found[0].split(found[1])), text)


def _unleet(text: str) -> str:
    """Stand-ins between letters become letters; in a text full of them, all do."""
    if not _INNER.search(text):  # it spans no blank: in no word either
        return text
    words = text.split()
    plainly = sum(1 for word in words if _INNER.search(word))
    if plainly >= max(_PLAINLY_LEAST, _PLAINLY_SHARE * len(words)):
        return _LETTERS.sub(lambda word: word[0].translate(_LEET), text)
    return _DISGUISED.sub(
        lambda word: word[0].translate(_LEET) if _INNER.search(word[0]) else word[0], text
    )
