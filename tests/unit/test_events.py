"""Specification of the records."""

from __future__ import annotations

import pytest
from msgspec import Struct

from pipeline import events
from pipeline.events import Action, Coverage, Position


def test_severity_ascends_from_allow_to_block() -> None:
    """The order that "more severe" means."""
    ordered = [Action.ALLOW, Action.FLAG, Action.REVIEW, Action.BLOCK]
    assert sorted(ordered, key=lambda action: action.severity) == ordered
    assert len({action.severity for action in ordered}) == 4


def test_unknown_is_as_severe_as_block() -> None:
    """An action that is not understood fails closed."""
    assert Action.UNKNOWN.severity == Action.BLOCK.severity


def test_every_action_has_a_severity() -> None:
    """A new action cannot be forgotten."""
    assert all(isinstance(action.severity, int) for action in Action)


def test_a_position_reads_topic_partition_offset() -> None:
    """This text is the verdict id, so it must not change."""
    assert str(Position(topic="a.b", partition=3, offset=12)) == "a.b:3:12"


@pytest.mark.parametrize(
    ("scanned", "total", "complete"), [(5, 5, True), (0, 0, True), (4, 5, False)]
)
def test_coverage_is_complete_when_every_token_was_scanned(
    scanned: int, total: int, complete: bool
) -> None:
    """One token left out is not complete."""
    assert Coverage(scanned_tokens=scanned, total_tokens=total).complete is complete


def test_records_cannot_be_changed() -> None:
    """Every record of the module is frozen."""
    records = [r for r in vars(events).values() if isinstance(r, type) and issubclass(r, Struct)]
    assert len(records) >= 10
    for record in set(records) - {Struct}:
        assert record.__struct_config__.frozen, record
