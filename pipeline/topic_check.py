"""Topics as found against topics as wanted, setting by setting. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicShape:
    """What matters of a topic: counts, the size limit in bytes, what is cleaned up."""

    partitions: int
    replication_factor: int
    max_message_bytes: int
    cleanup_policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSetting:
    """One setting of one topic: what is wanted, what was found, whether that will do."""

    topic: str
    name: str
    wanted: str
    found: str
    ok: bool


def compare(
    wanted: Mapping[str, TopicShape],
    found: Mapping[str, TopicShape],
    *,
    compactable: Sequence[str] = (),
) -> list[TopicSetting]:
    """Every wanted topic's settings, in order.

    A larger size limit will do. Topics in `compactable` may also be compacted:
    a repeat there has the same key and says the same.
    """
    return [
        setting
        for topic, shape in wanted.items()
        for setting in _compare_one(topic, shape, found.get(topic), topic in compactable)
    ]


def _compare_one(
    topic: str, wanted: TopicShape, found: TopicShape | None, compactable: bool
) -> Iterator[TopicSetting]:
    def setting(name: str, want: object, have: object, *, ok: bool) -> TopicSetting:
        return TopicSetting(topic=topic, name=name, wanted=str(want), found=str(have), ok=ok)

    yield setting("exists", "yes", "yes" if found else "no", ok=found is not None)
    if found is None:
        return
    for name in ("partitions", "replication_factor"):
        want, have = getattr(wanted, name), getattr(found, name)
        yield setting(name, want, have, ok=want == have)
    yield setting(
        "max_message_bytes",
        wanted.max_message_bytes,
        found.max_message_bytes,
        ok=found.max_message_bytes >= wanted.max_message_bytes,
    )
    cleaning = set(found.cleanup_policy.split(","))
    kept = cleaning == {wanted.cleanup_policy} or (
        compactable and cleaning <= {"compact", "delete"}
    )
    yield setting("cleanup_policy", wanted.cleanup_policy, found.cleanup_policy, ok=bool(kept))
