"""Which partition Kafka's default partitioner gives a key."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: Sequence[int]) -> int:
    """The partition of a key among all of a topic's, in ascending order."""
    ordered = sorted(partitions)
    place = int(murmur2(key)) & 0x7FFFFFFF
    return ordered[place % len(ordered)]
