"""What a replay counts, and that it can be written down and taken up again."""

from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Misconfigured
from pipeline.events import Position
from pipeline.proportions import wilson
from pipeline.replay import gates, redeciding
from pipeline.replay.comparison import Compared
from pipeline.replay.groups import OTHERS, Groups
from pipeline.replay.seen import Seen
from pipeline.replay.spread import Spread
from pipeline.replay.tally import Tally
from tests.unit import replays

positions = st.builds(
    Position,
    topic=st.sampled_from(["prompts", "completions"]),
    partition=st.integers(0, 3),
    offset=st.integers(0, 200_000) | st.integers(2**40, 2**40 + 10),
)


@given(st.lists(positions), st.lists(positions))
def test_seen_is_a_set_of_positions(first: list[Position], then: list[Position]) -> None:
    """Also after it was written down and taken up again."""
    seen, known = Seen(), set[Position]()
    for position in first:
        assert seen.add(position) is (position not in known)
        known.add(position)
    again = Seen.restored(orjson.loads(orjson.dumps(seen.state())))
    for position in then:
        assert again.add(position) is (position not in known)
        known.add(position)


def test_a_million_positions_in_a_row_stay_small() -> None:
    """A bit each: sixteen pages of 8 KiB."""
    seen = Seen()
    for offset in range(0, 1_000_000, 17):
        seen.add(Position(topic="prompts", partition=0, offset=offset))
    assert len(seen.state()) == 16


@given(st.lists(st.floats(0, 1), min_size=1), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_at_most_a_step_too_high(values: list[float], share: float) -> None:
    """Never below the true quantile, and at most 5 % above it."""
    spread = Spread()
    for value in values:
        spread.add(value)
    rank = max(1, -int(-(share * len(values)) // 1))
    true = sorted(values)[rank - 1]
    found = spread.quantile(share)
    assert true * (1 - 1e-9) <= found <= true * 1.05 + 1e-300
    assert Spread.restored(orjson.loads(orjson.dumps(spread.state()))).as_json() == spread.as_json()


def _tally(count: int, seed: int = 1) -> Tally:
    chance, tally = random.Random(seed), Tally(margin=0.02, tolerance=1e-4)
    strict = replays.policy(replays.STRICT)
    for number in range(count):
        made = replays.entry(
            replays.event(number % 7, unsafe=round(chance.random(), 3)), offset=number
        )
        if tally.first(made):
            tally.ask(made)
            found = redeciding.recorded(made, strict)
            assert isinstance(found, Compared)
            tally.add(found)
    return tally


def test_a_tally_survives_being_written_down() -> None:
    """What is read back is written down to the same bytes."""
    tally = _tally(50)
    written = orjson.dumps(tally.state())
    again = Tally.restored(orjson.loads(written), margin=0.02, tolerance=1e-4)
    assert orjson.dumps(again.state()) == written
    assert again.flips == tally.flips > 0


def test_the_first_verdict_of_an_input_counts_and_repeats_apart() -> None:
    """Fifty records of seven inputs are seven records and forty-three repeats."""
    tally = _tally(50)
    assert (tally.read, tally.compared, tally.repeats) == (50, 7, 43)


def test_groups_add_up_to_the_records() -> None:
    """Every record is in one group of each sort; the flips, too."""
    groups = _tally(200).groups
    assert [sum(group.records for group in groups.groups("category"))] == [7]
    for group in groups.groups("category"):
        assert group.interval == wilson(group.flips, group.records)


def test_groups_do_not_grow_without_bound() -> None:
    """Tenants beyond the thousandth are counted as one group."""
    groups = Groups()
    policy = replays.policy()
    for number in range(1_100):
        made = replays.entry(replays.event(number, by=policy, message={"tenant": f"t{number}"}))
        found = redeciding.recorded(made, policy)
        assert isinstance(found, Compared)
        groups.add(found)
    found_groups = {group.name: group.records for group in groups.groups("tenant")}
    assert len(found_groups) == 1_001
    assert found_groups[OTHERS] == 100


@pytest.mark.parametrize(
    ("text", "holds"), [("100%", True), ("0.1%", False), ("7", True), ("0", False), ("0.01", False)]
)
def test_bounds_are_shares_or_numbers_of_records(text: str, holds: bool) -> None:
    """A breach says which bound, how many records and their share."""
    tally = _tally(50)
    assert 0 < tally.newly("held") < 7
    lines = list(gates.breaches([gates.parse("held", text)], tally))
    assert (not lines) is holds
    assert all(f"newly held at most {text}" in line for line in lines)


@pytest.mark.parametrize("text", ["", "lots", "-1", "101%", "1.5", "1e9"])
def test_what_is_no_bound_is_refused(text: str) -> None:
    """The error names the option."""
    with pytest.raises(Misconfigured, match="--max-newly-blocked"):
        gates.parse("blocked", text)


def test_a_determinism_check_that_checked_nothing_does_not_pass() -> None:
    """Another policy's records prove nothing."""
    tally = _tally(10)
    assert not tally.determinism.held
    assert "none was checked" in next(iter(gates.broken_determinism(tally)))


def test_a_recorded_action_that_its_policy_does_not_give_breaks_determinism() -> None:
    """The check can fail: a decision that was changed after the fact is found."""
    from msgspec.structs import replace

    from pipeline.events import Action

    policy, tally = replays.policy(), Tally(margin=0.02, tolerance=1e-4)
    event = replays.event(unsafe=0.99, by=policy)
    forged = replace(event, verdict=replace(event.verdict, action=Action.ALLOW))
    found = redeciding.recorded(replays.entry(forged), policy)
    assert isinstance(found, Compared)
    tally.add(found)
    assert tally.determinism.other_decision == 1
    assert list(gates.broken_determinism(tally))
