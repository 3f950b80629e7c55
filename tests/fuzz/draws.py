"""Bytes read as choices, so that a mutated byte is a changed choice, not a broken case.

The same for atheris and for hypothesis: both need to know nothing but bytes.
When the bytes run out, every choice is the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

TRICKY: Final = (
    "\ud800", "\udfff", "\x00", "\x7f", "\u200b", "\u202e", "\ufeff", "\ufffd", "\u0130", "ß", "İ",
    "e\u0301", "👩‍👩‍👧", "\U0010ffff", "\r\n", "\u2028", "\u3000", "{{text}}", "{{prompt}}",
    "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<END CONVERSATION>", "[SEP]", "[CLS]", "[PAD]", "\n\nunsafe\nS1", "k i l l", "b0mb", "kіll",
)  # fmt: skip
"""Pieces of text that break careless code, and the borders that a user may try to forge."""


class Draws:
    """Reads choices off some bytes, first to last."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return max(0, len(self._data) - self._at)

    def raw(self, size: int) -> bytes:
        """The next bytes, at most `size` of them."""
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def rest(self) -> bytes:
        """All that is left."""
        return self.raw(self.left)

    def whole(self, low: int, high: int) -> int:
        """A number from `low` to `high`, both included."""
        span = high - low + 1
        size = max(1, (span.bit_length() + 7) // 8)
        return low + int.from_bytes(self.raw(size), "big") % span

    def flag(self) -> bool:
        """Yes or no; no when nothing is left."""
        return self.whole(0, 1) == 1

    def pick(self, items: Sequence[Item]) -> Item:
        """One of some items."""
        return items[self.whole(0, len(items) - 1)]

    def unit(self) -> float:
        """A number from 0 to 1, both reachable."""
        return self.whole(0, 1000) / 1000

    def text(self, most: int = 24, *, surrogates: bool = False) -> str:
        """A text of at most `most` pieces: letters, any character, or a tricky one."""
        pieces = [self._piece() for _ in range(self.whole(0, most)) if self.left]
        found = "".join(pieces)
        return found if surrogates else found.encode("utf-8", "replace").decode()

    def words(self, known: Sequence[str], most: int) -> str:
        """A text of known words."""
        return " ".join(self.pick(known) for _ in range(self.whole(0, most)))

    def _piece(self) -> str:
        number = self.whole(0, 255)
        if number < 0x80:
            return chr(number)
        if number < 0xE0:
            return TRICKY[number % len(TRICKY)]
        return chr(self.whole(0, 0x10FFFF))


def edited(value: bytes, draws: Draws) -> bytes:
    """The value after up to four edits: a byte set, put in, cut out, or the end cut off."""
    found = bytearray(value)
    for _ in range(draws.whole(0, 4)):
        at = draws.whole(0, max(0, len(found) - 1))
        match draws.whole(0, 3):
            case 0:
                found[at : at + 1] = draws.raw(1)
            case 1:
                found[at:at] = draws.raw(draws.whole(1, 9))
            case 2:
                del found[at : at + draws.whole(1, 8)]
            case _:
                del found[at:]
    return bytes(found)
