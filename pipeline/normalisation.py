"""The plain form of a text whose letters are disguised.

Undone: zero-width characters, compatibility letters (full-width, bold), other
scripts' letters inside Latin words, single letters set apart, digits and signs
in place of letters. What is not a disguise stays as it is, punctuation and
whole words of other scripts above all: a changed form costs a second judgement.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_LOOKALIKES: Final = str.maketrans(
    "аеорсухіјѕһԁԛԝАВЕКМНОРСТУХІЈЅαορνικυΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijshdqwABEKMHOPCTYXIJSaopvikuABEZHIKMNOPTYX",
)
"""Cyrillic and Greek letters that look Latin (after Unicode's confusables)."""
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


def normalise(text: str) -> str:
    """The plain form; the text itself where nothing is disguised. Raises nothing."""
    if text.isascii():
        return _unleet(_together(text))
    plain = "".join(_plain(character) for character in text)
    return _unleet(_together(_WORD.sub(_one_script, plain)))


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
    words = text.split()
    plainly = sum(1 for word in words if _INNER.search(word))
    if plainly >= max(_PLAINLY_LEAST, _PLAINLY_SHARE * len(words)):
        return _LETTERS.sub(lambda word: word[0].translate(_LEET), text)
    return _DISGUISED.sub(
        lambda word: word[0].translate(_LEET) if _INNER.search(word[0]) else word[0], text
    )
