"""Which audit events are looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.errors import Misconfigured
from pipeline.events import Action, AuditEvent, Kind, Status
from pipeline.selection import Selection, parse_share
from tests.support.golden_records import AUDIT
from tests.unit.strategies import audits


def _with_id(number: int) -> AuditEvent:
    return replace(AUDIT, verdict=replace(AUDIT.verdict, verdict_id=f"prompts:0:{number}"))


@given(audits)
def test_an_empty_selection_wants_everything(event: AuditEvent) -> None:
    """No filter restricts nothing."""
    assert Selection().wants(event)
    assert Selection().as_json() == {}


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        (Selection(tenants=frozenset({"acme"})), Selection(tenants=frozenset({"kids"}))),
        (Selection(kinds=frozenset({Kind.PROMPT})), Selection(kinds=frozenset({Kind.COMPLETION}))),
        (
            Selection(actions=frozenset({Action.REVIEW})),
            Selection(actions=frozenset({Action.ALLOW})),
        ),
        (
            Selection(statuses=frozenset({Status.DEGRADED})),
            Selection(statuses=frozenset({Status.SCORED})),
        ),
        (Selection(categories=frozenset({"S12"})), Selection(categories=frozenset({"unsafe"}))),
        (Selection(ids=frozenset({"m-1"})), Selection(ids=frozenset({"m-2"}))),
        (
            Selection(ids=frozenset({"moderation.prompts.v1:3:4294967296"})),
            Selection(ids=frozenset({"prompts:0:0"})),
        ),
    ],
)
def test_each_filter_lets_in_what_it_names(wanted: Selection, other: Selection) -> None:
    """The golden event passes the filter that names it, and not its counterpart."""
    assert wanted.wants(AUDIT)
    assert not other.wants(AUDIT)


def test_all_filters_must_agree() -> None:
    """One that fails is enough to leave an event out."""
    both = Selection(tenants=frozenset({"acme"}), actions=frozenset({Action.ALLOW}))
    assert not both.wants(AUDIT)


@given(st.integers(0, 2**31), st.permutations(range(50)))
def test_a_sample_does_not_depend_on_order(seed: int, order: list[int]) -> None:
    """The same seed picks the same ids, whichever comes first."""
    chosen = Selection(sample=0.5, seed=seed)
    straight = {number for number in range(50) if chosen.wants(_with_id(number))}
    assert {number for number in order if chosen.wants(_with_id(number))} == straight


def test_a_larger_sample_holds_the_smaller_one() -> None:
    """With one seed, 10 % of the records are among the 20 %, and about as many as said."""
    few, more = Selection(sample=0.1, seed=3), Selection(sample=0.2, seed=3)
    chosen = [number for number in range(5_000) if few.wants(_with_id(number))]
    assert all(more.wants(_with_id(number)) for number in chosen)
    assert 400 < len(chosen) < 600


def test_seeds_give_different_samples() -> None:
    """Two seeds do not pick the same records."""
    one, two = (
        {
            number
            for number in range(200)
            if Selection(sample=0.5, seed=seed).wants(_with_id(number))
        }
        for seed in (1, 2)
    )
    assert one != two


@pytest.mark.parametrize("sample", [0.0, -0.1, 1.1, float("nan")])
def test_a_sample_that_is_no_share_is_refused(sample: float) -> None:
    """Nothing, or more than everything, cannot be sampled."""
    with pytest.raises(Misconfigured, match="share"):
        Selection(sample=sample)


def test_a_long_list_of_ids_is_told_by_its_digest() -> None:
    """Two lists are told apart, and a summary stays short."""
    one, two = (Selection(ids=frozenset(f"{n}-{i}" for i in range(99))).as_json() for n in "ab")
    assert one["ids"] != two["ids"]
    assert len(one["ids"]) == 1
    assert Selection(ids=frozenset({"m-1"})).as_json() == {"ids": ["m-1"]}


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.2%", 0.002), ("0.25", 0.25), ("100%", 1.0), ("0", 0.0)]
)
def test_shares_are_read_as_people_write_them(text: str, share: float) -> None:
    """Per cent or a plain number."""
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "much", "101%", "-1", "nan", "1.5"])
def test_what_is_no_share_is_refused(text: str) -> None:
    """The error shows what was written."""
    with pytest.raises(Misconfigured, match="is not a share"):
        parse_share(text)
