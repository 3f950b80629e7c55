"""Words without blanks between them, told apart by a list of words.

A word costs the logarithm of its rank in the list, as frequencies fall with ranks
(Zipf 1949); the cheapest way through the letters is found piece by piece (Viterbi 1967).
Only what is cheap enough to be running words is told apart: compounds of other languages,
names and identifiers stay as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

LEAST_LETTERS: Final = 16
"""Shorter runs are words themselves, or too few to tell."""

MOST_LETTERS: Final = 1000
"""Longer ones would take their time."""

MOST_IN_ALL: Final = 4000
"""Letters of one text that are looked at: some eight milliseconds."""

MOST_COST: Final = 2.1
"""A letter, on average: nine in ten English texts cost less, German compounds 3 to 5."""

LEAST_WORDS: Final = 4

LEAST_MEAN: Final = 2.4
"""Letters a word, on average."""

_LONGEST: Final = 18
_STRAY: Final = 9.0
"""What a letter costs that belongs to no word."""
_SINGLES: Final = 3
# Not beside a digit: a stand-in is a letter first, and what else there is is no word.
_RUN: Final = re.compile(rf"(?<![^\W_])[A-Za-z]{{{LEAST_LETTERS},}}(?![^\W_])")

# Lists made of texts hold every pair of letters, as abbreviations and names.
_SHORT_WORDS: Final = """
a i am an as at be by do go he hi if in is it me my no of on or so to up us we
"""
_SHORT: Final = frozenset(_SHORT_WORDS.split())


class SpeltTogether:
    """Tells words apart that were run together."""

    def __init__(self, words: Iterable[str]) -> None:
        """`words` in lower case, the most frequent first; others than of a to z are left out."""
        fit = [word for word in words if _fits(word)]
        self._costs = {word: math.log(2 + rank) for rank, word in enumerate(fit)}

    def apart(self, text: str) -> str:
        """The text with blanks between words that were run together."""
        left = MOST_IN_ALL

        def run_apart(run: re.Match[str]) -> str:
            """One run, unless the text has held too many."""
            nonlocal left
            left -= len(run[0])
            fit = left >= 0 and len(run[0]) <= MOST_LETTERS
            return self._run_apart(run[0]) if fit else run[0]

        return _RUN.sub(run_apart, text)

    def _run_apart(self, run: str) -> str:
        words, cost = self._cheapest(run.lower())
        few = len(words) < LEAST_WORDS or len(run) < LEAST_MEAN * len(words)
        if few or cost > MOST_COST * len(run):
            return run
        return " ".join(_as_written(run, words))

    def _cheapest(self, run: str) -> tuple[list[int], float]:
        """Lengths of the pieces that cost least together, and what they cost."""
        costs, best, lengths = self._costs, [0.0], [0]
        for end in range(1, len(run) + 1):
            cheapest, length = best[end - 1] + _STRAY, 1
            for start in range(max(0, end - _LONGEST), end):
                cost = costs.get(run[start:end])
                if cost is not None and best[start] + cost < cheapest:
                    cheapest, length = best[start] + cost, end - start
            best.append(cheapest)
            lengths.append(length)
        return _pieces(lengths), best[-1]


def _fits(word: str) -> bool:
    letters = word.isascii() and word.isalpha() and len(word) <= _LONGEST
    return letters and (len(word) > 2 or word in _SHORT)


def _pieces(lengths: list[int]) -> list[int]:
    """The lengths that lead to the end, in order."""
    pieces, end = [], len(lengths) - 1
    while end:
        pieces.append(lengths[end])
        end -= lengths[end]
    return pieces[::-1]


def _as_written(run: str, lengths: list[int]) -> Iterator[str]:
    """The pieces as they stand in the run; single letters in a row are some unknown word's."""
    at = 0
    for single, group in groupby(lengths, key=lambda length: length == 1):
        sizes = list(group)
        for size in [len(sizes)] if single and len(sizes) >= _SINGLES else sizes:
            yield run[at : at + size]
            at += size
