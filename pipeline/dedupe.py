"""Drop repeats of verdicts and dead letters by source position, in bounded memory.

Delivery is at least once: after a crash, older inputs of a source partition
are judged again, and their verdicts come again under the same id. The ids of
one source partition spread over all verdict partitions, so that no high-water
mark tells old from new; each offset has a bit of its own instead.

Memory: one bit an offset, in pages of 65,536 offsets (8 KiB), of at most
`limit_bytes` together. 16 MiB, the default, hold 134 million offsets where
they are dense. Past it the page that was longest untouched is forgotten; a
repeat from a forgotten page passes as new, so nothing is ever lost.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from pipeline.events import Position

_PAGE_OFFSETS: Final = 65_536
_PAGE_BYTES: Final = _PAGE_OFFSETS // 8
LIMIT_BYTES: Final = 16 * 1024 * 1024


class Deduplicator:
    """Remembers which source positions it has seen; not for use from threads."""

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Raises ValueError when `limit_bytes` holds not even one page (8 KiB)."""
        if limit_bytes < _PAGE_BYTES:
            raise ValueError(f"limit_bytes must be at least {_PAGE_BYTES}")
        self._most_pages = limit_bytes // _PAGE_BYTES
        self._pages: OrderedDict[tuple[str, int, int], bytearray] = OrderedDict()
        self._repeats = 0

    @property
    def repeats(self) -> int:
        """How many positions were seen before."""
        return self._repeats

    @property
    def size_bytes(self) -> int:
        """Memory of the pages; at most the limit."""
        return len(self._pages) * _PAGE_BYTES

    def is_new(self, position: Position) -> bool:
        """True the first time a position is given, False ever after.

        A verdict's `source` is its position, and `str(source)` its id.
        """
        number, index = divmod(position.offset, _PAGE_OFFSETS)
        page = self._page((position.topic, position.partition, number))
        bit = 1 << (index & 7)
        if page[index >> 3] & bit:
            self._repeats += 1
            return False
        page[index >> 3] |= bit
        return True

    def _page(self, key: tuple[str, int, int]) -> bytearray:
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = bytearray(_PAGE_BYTES)
            if len(self._pages) > self._most_pages:
                self._pages.popitem(last=False)
        else:
            self._pages.move_to_end(key)
        return page
