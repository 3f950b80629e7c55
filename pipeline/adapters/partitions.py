"""Which partition Kafka's default partitioner gives a key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from aiokafka.partitioner import murmur2
from numpy.typing import NDArray

_POSITIVE: Final = 0x7FFFFFFF

# MurmurHash2 of 32 bits (A. Appleby), as Kafka seeds it.
_SEED: Final = np.uint32(0x9747B28C)
_FACTOR: Final = np.uint32(0x5BD1E995)
_WORD_BYTES: Final = 4

_FEW: Final = 16
"""So many keys are as quick one by one."""

_LONG_BYTES: Final = 128
"""Keys above this go one by one: side by side, each takes the longest one's room."""


def partition_of(key: bytes, partitions: Sequence[int]) -> int:
    """The partition of a key among all of a topic's, in ascending order."""
    ordered = sorted(partitions)
    return ordered[place(key) % len(ordered)]


def place(key: bytes) -> int:
    """Kafka's hash of a key, whose remainder chooses the partition."""
    return int(murmur2(key)) & _POSITIVE


def places(keys: Sequence[bytes]) -> Sequence[int]:
    """`place` of each key, in order; of many at a third of the cost."""
    if max(map(len, keys), default=0) > _LONG_BYTES:
        return [place(key) for key in keys]
    return _kept(tuple(keys))


# A batch's verdicts and audit events share their keys.
@lru_cache(maxsize=16)
def _kept(keys: tuple[bytes, ...]) -> list[int]:
    return [place(key) for key in keys] if len(keys) < _FEW else _side_by_side(keys)


def _side_by_side(keys: tuple[bytes, ...]) -> list[int]:
    lengths = np.fromiter(map(len, keys), dtype=np.uint32, count=len(keys))
    whole, rest_bits = lengths // _WORD_BYTES, lengths % _WORD_BYTES * 8
    width = (int(whole.max()) + 1) * _WORD_BYTES
    words = np.frombuffer(b"".join(key.ljust(width, b"\0") for key in keys), dtype="<u4")
    words = words.reshape(len(keys), -1)
    mixed: NDArray[Any] = words * _FACTOR
    mixed = (mixed ^ mixed >> 24) * _FACTOR
    state: NDArray[Any] = lengths ^ _SEED
    for index in range(int(whole.max())):
        state = np.where(index < whole, state * _FACTOR ^ mixed[:, index], state)
    # What is left over is 0 where the words are all, and padding is 0 as well.
    rest = words[np.arange(len(keys)), whole]
    state = np.where(rest_bits > 0, (state ^ rest) * _FACTOR, state)
    state = (state ^ state >> 13) * _FACTOR
    found: list[int] = ((state ^ state >> 15) & _POSITIVE).tolist()
    return found
