"""Which verdicts are shown, and how one looks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from msgspec.structs import replace

from pipeline.cli import rows
from pipeline.cli.verdicts import Filter, Shown
from pipeline.events import Action, Coverage, Kind, Status, Verdict
from tests.support.golden_records import VERDICT

from .strategies import verdicts


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        ({}, True),
        ({"actions": frozenset({Action.REVIEW, Action.BLOCK})}, True),
        ({"actions": frozenset({Action.ALLOW})}, False),
        ({"statuses": frozenset({Status.DEGRADED})}, True),
        ({"statuses": frozenset({Status.SCORED})}, False),
        ({"categories": frozenset({"s12", "s1"})}, True),
        ({"categories": frozenset({"s1"})}, False),
        ({"tenants": frozenset({"acme"})}, True),
        ({"tenants": frozenset({"ac"})}, False),
        ({"kind": Kind.PROMPT}, True),
        ({"kind": Kind.COMPLETION}, False),
        ({"ids": frozenset({"m-1"})}, True),
        ({"ids": frozenset({"moderation.prompts.v1:3:4294967296"})}, True),
        ({"ids": frozenset({"m-2"})}, False),
    ],
)
def test_each_choice_narrows(choice: dict[str, Any], taken: bool) -> None:
    """A verdict passes when it fits every choice that was made."""
    assert Filter(**choice).takes(VERDICT) is taken


@given(verdicts)
def test_any_verdict_is_one_line(verdict: Verdict) -> None:
    """Whatever ids and tenants hold, no control character reaches the terminal."""
    line = rows.verdict(verdict).plain
    assert line.isprintable()
    assert verdict.action.value in line


def test_partial_coverage_is_shown() -> None:
    """As a share; nothing where the guard saw all; a word where it saw none."""
    part = replace(VERDICT, coverage=Coverage(scanned_tokens=512, total_tokens=2048))
    full = replace(VERDICT, coverage=Coverage(scanned_tokens=9, total_tokens=9))
    none = replace(
        VERDICT,
        status=Status.UNSCANNED,
        coverage=Coverage(scanned_tokens=0, total_tokens=0),
    )
    assert [rows.coverage(found) for found in (part, full, none)] == ["25 %", "", "none"]


def test_the_reason_is_category_score_and_threshold() -> None:
    """In words a person knows, with how many more crossed."""
    assert rows.why(VERDICT).startswith("Sexual Content 0.75/0.5")
    scored = replace(VERDICT, flagged=(), status=Status.SCORED)
    assert rows.why(scored) == ""
    assert rows.why(replace(scored, status=Status.UNSCANNED)).startswith("unscanned: ")


def test_a_bounded_range_is_shown_in_order_of_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Partitions are read one after another; people read time."""
    show = Shown(as_json=False, limit=None, in_order=True)
    for number in (2, 0, 1):
        at = VERDICT.emitted_at + timedelta(seconds=number)
        show.add(replace(VERDICT, emitted_at=at, message_id=f"m-{number}"))
    show.finish()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["message", "m-0", "m-1", "m-2"]


def test_the_limit_counts_what_is_shown() -> None:
    """It is full after so many."""
    show = Shown(as_json=False, limit=1, in_order=True)
    assert not show.full
    show.add(VERDICT)
    assert show.full


def test_json_is_one_document_a_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Without a heading."""
    Shown(as_json=True, limit=None, in_order=True).add(VERDICT)
    (line,) = capfdbinary.readouterr().out.splitlines()
    assert orjson.loads(line)["verdict_id"] == VERDICT.verdict_id
