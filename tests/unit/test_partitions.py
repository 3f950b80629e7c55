"""Kafka's default partitioner: keys hashed side by side as they are one by one."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.partitions import partition_of, place, places

short = st.binary(max_size=128)


@given(st.lists(short, max_size=80) | st.lists(short, min_size=16, max_size=80))
def test_keys_have_the_same_place_side_by_side_and_one_by_one(keys: list[bytes]) -> None:
    """Whatever their lengths, which differ within one batch."""
    assert list(places(keys)) == [place(key) for key in keys]


def test_uuids_have_the_place_that_the_client_gives_them() -> None:
    """The client's own partitioner is the reference: what it chooses, other producers do."""
    keys = [f"6f1c2b0e-7a55-4d2e-9b1f-{number:012d}".encode() for number in range(64)]
    partitions = list(range(12))
    chosen = DefaultPartitioner()
    assert [place % 12 for place in places(keys)] == [
        chosen(key, partitions, partitions) for key in keys
    ]


def test_a_long_key_among_many_costs_the_others_no_room() -> None:
    """A dead letter keeps its publisher's key, whatever its size."""
    keys = [b"m" * 1_000_000, *(str(number).encode() for number in range(40))]
    assert list(places(keys)) == [place(key) for key in keys]


@given(short, st.sets(st.integers(0, 50), min_size=1))
def test_a_partition_is_chosen_among_all_in_ascending_order(key: bytes, present: set[int]) -> None:
    """The order in which a client lists them does not count."""
    assert partition_of(key, list(present)) == sorted(present)[place(key) % len(present)]
