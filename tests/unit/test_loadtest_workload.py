"""Workloads: what is accepted, and how a mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtest import workload
from loadtest.run import planned
from pipeline.cli.loadtest import _seeded
from pipeline.errors import Misconfigured

GOOD: dict[str, Any] = {
    "question": "does it hold?",
    "load": {"mode": "rate", "rate_per_s": 10, "duration_s": 2},
}


@pytest.mark.parametrize("name", workload.saved_names())
def test_every_saved_workload_is_valid_and_asks_a_question(name: str) -> None:
    """It is found by its name, and schedules messages."""
    read = workload.read(workload.find(name))
    assert read.question.endswith("?")
    assert planned(read) > 0


def test_the_public_gate_is_what_its_name_says() -> None:
    """10,000 messages at 1,000 a second, drop at most 1 %, p95 at most 500 ms."""
    gate = workload.read(workload.find("osprey-gate-10k-at-1000-per-s"))
    assert planned(gate) == 10_000
    assert gate.thresholds == ("dropped <= 1%", "p95_ms <= 500")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"load": {"mode": "rate", "rate_per_s": 10}}, "load: give either duration_s or messages"),
        ({"load": {"mode": "rate", "rate_per_s": -1, "messages": 1}}, "load.rate_per_s"),
        ({"load": {"mode": "burst"}}, "'rate', 'ramp', 'sweep', 'closed'"),
        ({"thresholds": ["p95 <= 500"]}, "thresholds: 'p95' is not measured"),
        ({"messages": {"malformd": 0.1}}, "messages.malformd"),
        ({"tenants": {}}, "tenants: name at least one tenant"),
        ({"messages": {"texts": {"median_chars": 9, "p95_chars": 3}}}, "median_chars <= p95"),
        ({"topics": {"verdict": "x"}}, "topics.verdict"),
    ],
)
def test_a_mistake_is_named_by_its_key(change: dict[str, Any], told: str) -> None:
    """The error says where in the file and what is wrong there."""
    with pytest.raises(Misconfigured) as caught:
        workload.validated(GOOD | change, "mine.toml")
    assert told in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_an_unknown_workload_is_answered_with_the_known_ones() -> None:
    """Whoever mistypes a name sees what there is."""
    with pytest.raises(Misconfigured, match="osprey-gate"):
        workload.find("no-such")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    """With the line that does not parse."""
    path = tmp_path / "broken.toml"
    path.write_text("question = ]")
    with pytest.raises(Misconfigured, match=r"broken\.toml cannot be read.*line 1"):
        workload.read(path)


def test_equal_workloads_have_equal_digests() -> None:
    """A default that is spelt out changes nothing; another rate does."""
    plain = workload.validated(GOOD, "a")
    assert workload.validated(GOOD | {"seed": 1}, "b").digest == plain.digest
    other = GOOD | {"load": GOOD["load"] | {"rate_per_s": 11}}
    assert workload.validated(other, "c").digest != plain.digest


def test_a_running_stack_gets_other_texts_in_each_run() -> None:
    """Its workers remember the last run's. A seed that somebody named stays as it is."""
    plain, named = (workload.validated(GOOD | seed, "a") for seed in ({}, {"seed": 7}))
    drawn = {_seeded(plain, None, embedded=False).seed for _ in range(4)}
    assert len(drawn) > 1
    assert _seeded(plain, None, embedded=True).seed == 1
    assert _seeded(named, None, embedded=False).seed == 7
    assert _seeded(named, 0, embedded=False).seed == 0
