"""The catalogue names nothing that does not exist, and the account can fail."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.metrics import MetricWrapperBase

from pipeline import metrics
from pipeline.events import (
    Action,
    Coverage,
    GuardRef,
    Kind,
    PolicyRef,
    Position,
    Status,
    Verdict,
)
from tests.chaos import table
from tests.chaos.account import Account, Reckoning
from tests.chaos.catalogue import Fault
from tests.chaos.faults import FAULTS

_ROOT = Path(__file__).resolve().parents[2]
_RULES = [
    rule
    for group in yaml.safe_load((_ROOT / "compose/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
_ALERTS = {rule["alert"]: rule["expr"] for rule in _RULES if "alert" in rule}
_RECORDED = {rule["record"]: rule["expr"] for rule in _RULES if "record" in rule}
_METRICS = {
    sample.name
    for collector in vars(metrics).values()
    if isinstance(collector, MetricWrapperBase)
    for described in collector.describe()
    for sample in [described]
}
_CHECKS = {"guard", "partitions", "outputs", "policy", "chain-heads"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_the_operator_is_promised_exists(fault: Fault) -> None:
    """Alert, check and metric are there, and the alert rests on what was seen."""
    seen = fault.seen
    assert seen.check in {"", *_CHECKS}
    assert not seen.metric or seen.metric.removesuffix("_total") in _METRICS
    if seen.alert:
        rule = _ALERTS[seen.alert]
        rule += "".join(expr for name, expr in _RECORDED.items() if name in rule)
        shown = [seen.metric, "sluice_ready" * bool(seen.check), "up{" * seen.down]
        assert any(name in rule for name in shown if name), rule


def test_at_least_some_faults_have_a_short_form() -> None:
    """`make test` runs a handful."""
    assert 5 <= sum(fault.short_s is not None for fault in FAULTS) <= 8


def _position(offset: int) -> Position:
    return Position(topic="p", partition=0, offset=offset)


def _verdict(offset: int, **changes: Any) -> Verdict:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    given: dict[str, Any] = {
        "verdict_id": str(_position(offset)), "message_id": "m", "tenant": "",
        "conversation_id": None, "kind": Kind.PROMPT, "action": Action.ALLOW,
        "status": Status.SCORED, "reason": "", "taxonomy": "t", "scores": {"unsafe": 0.1},
        "flagged": (), "coverage": Coverage(scanned_tokens=1, total_tokens=1),
        "guards": (GuardRef(name="g", version="1", digest="d"),),
        "policy": PolicyRef(id="p", version="1", digest="d"), "received_at": now,
        "scored_at": now, "emitted_at": now, "source": _position(offset),
    }  # fmt: skip
    return Verdict(**given | changes)


def _reckoning() -> Reckoning:
    """Three inputs, the third malformed, each with its outcome."""
    reckoning = Reckoning()
    for offset in range(3):
        reckoning.input(_position(offset), offset, malformed=offset == 2)
    for offset in range(2):
        reckoning.verdict(_verdict(offset))
        reckoning.audit(_position(offset))
    reckoning.dead_letter(_position(2))
    return reckoning


def _account(reckoning: Reckoning) -> Account:
    return reckoning.account(sent=3)


def test_an_orderly_run_has_no_fault() -> None:
    """One outcome an input."""
    account = _account(_reckoning())
    assert account.faults() == {}
    assert (account.inputs, account.distinct_ids, account.dead_letters) == (3, 2, 1)


def test_a_repeat_is_counted_and_dropped_by_consumers() -> None:
    """A duplicate is no fault where it says the same."""
    reckoning = _reckoning()
    reckoning.verdict(_verdict(1))
    account = _account(reckoning)
    assert (account.duplicates, account.after_dedupe, account.faults()) == (1, 0, {})


def test_each_broken_promise_is_found() -> None:
    """Lost, both, contradicted, unproved, unaudited, misnamed, misjudged, strange, unpublished."""
    reckoning = _reckoning()
    reckoning.input(_position(3), None, malformed=False)
    assert _account(reckoning).faults() == {"lost": 1}
    reckoning = _reckoning()
    reckoning.dead_letter(_position(1))
    assert _account(reckoning).faults() == {"both": 1, "misjudged": 1}
    reckoning = _reckoning()
    reckoning.verdict(_verdict(1, action=Action.BLOCK))
    assert _account(reckoning).faults() == {"contradicted": 1}
    reckoning = _reckoning()
    reckoning.input(_position(3), 3, malformed=False)
    reckoning.verdict(_verdict(3, guards=(), scores={}, verdict_id="another"))
    assert reckoning.account(sent=5).faults() == {
        "unpublished": 1, "misnamed": 1, "unproved": 1, "unaudited": 1,
    }  # fmt: skip
    reckoning = _reckoning()
    reckoning.verdict(_verdict(9))
    assert _account(reckoning).faults()["strangers"] == 1


def test_the_table_has_a_row_for_each_result_and_an_entry_for_each_fault() -> None:
    """A red fault is marked, one left out says why."""
    first, second = FAULTS[0].name, FAULTS[1].name
    found: dict[str, dict[str, Any]] = {
        first: {
            "fault": first, "broken": ["lost: 1"], "chains": 4, "lasted_s": 1.0, "recovered_s": 2.0,
            "rss_mib": 100.0,
            "account": {
                "inputs": 3, "verdict_records": 3, "distinct_ids": 2, "dead_letters": 0, "lost": 1,
                "duplicates": 1, "after_dedupe": 0,
            },
        },
        second: {"fault": second, "left_out": "not root"},
    }  # fmt: skip
    text = table.render(found, when=datetime(2026, 1, 1, tzinfo=UTC))
    assert f"| {first} **(red)** | 3 | 3 | 2 | 0 | 1 | 1 | 0 | 4 | 1.0 | 2.0 | 100 |" in text
    assert f"| {second} | left out: not root |" in text
    assert all(f"**{fault.name}.**" in text for fault in FAULTS)
