"""Topics as found against topics as wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.topic_check import TopicShape, compare

WANTED = TopicShape(
    partitions=4, replication_factor=3, max_message_bytes=1000, cleanup_policy="delete"
)


def differing(found: TopicShape | None, *, compactable: bool = False) -> list[str]:
    """The names of the settings that differ."""
    there = {} if found is None else {"t": found}
    names = ("t",) if compactable else ()
    return [each.name for each in compare({"t": WANTED}, there, compactable=names) if not each.ok]


def test_a_topic_as_wanted_passes() -> None:
    """Nothing differs."""
    assert differing(WANTED) == []


def test_a_missing_topic_is_one_finding() -> None:
    """What is not there has no settings to differ."""
    assert differing(None) == ["exists"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"partitions": 5}, "partitions"),
        ({"replication_factor": 1}, "replication_factor"),
        ({"max_message_bytes": 999}, "max_message_bytes"),
        ({"cleanup_policy": "compact"}, "cleanup_policy"),
    ],
)
def test_each_difference_is_named(change: dict[str, object], name: str) -> None:
    """A setting that differs is named."""
    assert differing(replace(WANTED, **change)) == [name]  # type: ignore[arg-type]


def test_a_larger_size_limit_will_do() -> None:
    """Only too small a limit loses messages."""
    assert differing(replace(WANTED, max_message_bytes=2000)) == []


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact"])
def test_a_compactable_topic_may_be_compacted(policy: str) -> None:
    """A repeat has the same key and says the same."""
    assert differing(replace(WANTED, cleanup_policy=policy), compactable=True) == []
