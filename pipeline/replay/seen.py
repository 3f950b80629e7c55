"""Which inputs have had their verdict, in a bit each: repeats are found by it. Pure."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any, Final, Self

from pipeline.events import Position

_PAGE: Final = 65_536
"""Offsets in one page of 8 KiB; only pages that are touched are held."""


class Seen:
    """A set of positions that takes a bit for each; a million take 125 KB."""

    def __init__(self) -> None:
        self._pages: dict[tuple[str, int, int], bytearray] = {}

    def add(self, position: Position) -> bool:
        """Put a position in; False when it is there already."""
        page, place = divmod(position.offset, _PAGE)
        key = (position.topic, position.partition, page)
        bits = self._pages.get(key)
        if bits is None:
            bits = self._pages[key] = bytearray(_PAGE // 8)
        index, mask = place >> 3, 1 << (place & 7)
        if bits[index] & mask:
            return False
        bits[index] |= mask
        return True

    def state(self) -> list[dict[str, Any]]:
        """Everything, as a JSON document."""
        return [
            {
                "topic": topic,
                "partition": partition,
                "page": page,
                "bits": base64.b64encode(zlib.compress(bytes(bits), 1)).decode(),
            }
            for (topic, partition, page), bits in self._pages.items()
        ]

    @classmethod
    def restored(cls, state: list[Mapping[str, Any]]) -> Self:
        """The set that `state` came from."""
        seen = cls()
        for page in state:
            key = (page["topic"], page["partition"], page["page"])
            seen._pages[key] = bytearray(zlib.decompress(base64.b64decode(page["bits"])))
        return seen
