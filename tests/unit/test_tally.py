"""Specification of counting: each verdict once, under its own labels."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY, Histogram

from pipeline import metrics, tally
from pipeline.events import (
    Action,
    Coverage,
    Flagged,
    GuardRef,
    Kind,
    PolicyRef,
    Position,
    Status,
    Verdict,
)

from .fakes import NOON

FLAG = Flagged(category="S4", score=0.9, threshold=0.5, action=Action.BLOCK, origin="default")


def _verdict(**changed: object) -> Verdict:
    plain = Verdict(
        verdict_id="t:0:1", message_id="m", conversation_id=None, tenant="", kind=Kind.PROMPT,
        action=Action.ALLOW, status=Status.SCORED, reason="", taxonomy="sluice-1", scores={},
        flagged=(), coverage=Coverage(scanned_tokens=3, total_tokens=3),
        guards=(GuardRef(name="g", version="1", digest="d"),),
        policy=PolicyRef(id="p", version="1", digest="d"), received_at=NOON, scored_at=NOON,
        emitted_at=NOON, source=Position(topic="tally", partition=0, offset=1),
    )  # fmt: skip
    return replace(plain, **changed)  # type: ignore[arg-type]


def _value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


WATCHED = [
    ("sluice_messages_total", {"topic": "tally", "outcome": "verdict"}, 4),
    ("sluice_verdicts_total", {"kind": "prompt", "action": "allow", "category": ""}, 2),
    ("sluice_verdicts_total", {"kind": "prompt", "action": "block", "category": "S4"}, 1),
    ("sluice_verdicts_total", {"kind": "completion", "action": "review", "category": ""}, 1),
    ("sluice_degraded_total", {"status": "unscanned", "action": "review"}, 1),
    ("sluice_end_to_end_seconds_count", {"kind": "prompt"}, 2),
    ("sluice_end_to_end_seconds_sum", {"kind": "prompt"}, 3.0),
]


def test_a_batch_is_counted_as_its_messages_would_be() -> None:
    """By topic, action and category; degraded; and the time since each Kafka timestamp."""
    before = [_value(name, **labels) for name, labels, _ in WATCHED]
    unscanned = _verdict(
        kind=Kind.COMPLETION, action=Action.REVIEW, status=Status.UNSCANNED, guards=()
    )
    sent_ms = int((NOON - timedelta(seconds=3)).timestamp() * 1000)
    ahead_ms = int((NOON + timedelta(seconds=9)).timestamp() * 1000)
    ended = [
        (_verdict(), sent_ms),
        (_verdict(), None),
        (_verdict(action=Action.BLOCK, flagged=(FLAG,)), ahead_ms),
        (unscanned, None),
    ]
    tally.count(ended, NOON.timestamp())
    after = [_value(name, **labels) for name, labels, _ in WATCHED]
    grown = [new - old for new, old in zip(after, before, strict=True)]
    assert grown == pytest.approx([expected for _, _, expected in WATCHED])


def test_observations_of_a_batch_are_those_of_each() -> None:
    """Edges belong to the bucket below them, as the library has it."""
    amounts = [0.0, 0.1, 0.10001, 0.5, 3.0, 99.0, 0.1]
    together, alone = (
        kind("t", "t", buckets=(0.1, 0.5, 2.5), registry=None)
        for kind in (metrics.BatchHistogram, Histogram)
    )
    together.observe_all(amounts)
    for amount in amounts:
        alone.observe(amount)
    assert _read(together) == _read(alone)


def _read(histogram: Histogram) -> list[tuple[str, str | None, float]]:
    (family,) = histogram.collect()
    samples = [each for each in family.samples if not each.name.endswith("_created")]
    return [(each.name, each.labels.get("le"), each.value) for each in samples]
