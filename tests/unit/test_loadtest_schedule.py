"""Schedules: fixed before the run, exact in count, ascending."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import generator, schedule, stamp, workload
from loadtest.schedule import Segment
from loadtest.stamp import Stamp
from loadtest.workload import Constant, Ramp, Sweep

rates = st.floats(0.5, 500)
segments = st.builds(Segment, first_per_s=rates, last_per_s=rates, duration_s=st.floats(0.5, 20))


def times(plan: tuple[Segment, ...], arrivals: str = "even", seed: int = 1) -> list[float]:
    """All due times of a plan."""
    return list(schedule.due(plan, arrivals=arrivals, seed=seed))


def test_a_constant_rate_sends_at_even_distances() -> None:
    """Message k is due at k / rate, and the last one before the end."""
    due = times(schedule.segments(Constant(mode="rate", rate_per_s=1000, messages=10_000)))
    assert len(due) == 10_000
    assert due == pytest.approx([k / 1000 for k in range(10_000)])


def test_a_ramp_sends_its_mean_rate() -> None:
    """From 10 to 30 a second in 10 s: 200 messages, fewer in the first half."""
    due = times(schedule.segments(Ramp(mode="ramp", from_per_s=10, to_per_s=30, duration_s=10)))
    assert len(due) == 200
    assert sum(at < 5 for at in due) == pytest.approx(75, abs=1)


def test_sweep_steps_follow_each_other() -> None:
    """Each rate has its own stretch of the plan."""
    plan = schedule.segments(Sweep(mode="sweep", rates_per_s=(10, 100), step_s=2))
    due = times(plan)
    assert sum(at < 2 for at in due) == 20
    assert sum(at >= 2 for at in due) == 200


@given(st.lists(segments, min_size=1, max_size=4).map(tuple), st.sampled_from(["even", "poisson"]))
def test_any_schedule_ascends_and_stays_within_its_plan(
    plan: tuple[Segment, ...], arrivals: str
) -> None:
    """No message is due before the one ahead of it, nor after the plan's end."""
    due = times(plan, arrivals)
    assert all(a <= b for a, b in pairwise(due))
    assert all(0 <= at <= schedule.duration_s(plan) + 1e-6 for at in due)
    if arrivals == "even":
        assert len(due) == pytest.approx(sum(each.messages for each in plan), abs=1.01)


def test_poisson_arrivals_keep_the_mean_and_the_seed() -> None:
    """Uneven gaps, the same for a seed, the rate within four standard deviations."""
    plan = (Segment(first_per_s=100, last_per_s=100, duration_s=100),)
    due = times(plan, "poisson", seed=3)
    assert abs(len(due) - 10_000) < 400
    assert due == times(plan, "poisson", seed=3) != times(plan, "poisson", seed=4)
    gaps = [b - a for a, b in pairwise(due)]
    assert max(gaps) > 3 / 100


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(0, 2**40))
def test_a_stamp_survives_its_header(monotonic_ns: int, wall_ns: int, sequence: int) -> None:
    """What is written is read, among other headers."""
    made = Stamp(run="ab12", sequence=sequence, monotonic_ns=monotonic_ns, wall_ns=wall_ns)
    assert stamp.read([("other", b"x"), made.header()]) == made


@pytest.mark.parametrize("value", [b"", b"a b c d", b"r 1 2", b"r 1 2 -3", b"\xff 1 2 3 4"])
def test_a_header_of_somebody_else_is_no_stamp(value: bytes) -> None:
    """Junk under the name is passed over."""
    assert stamp.read([(stamp.HEADER, value)]) is None


@pytest.mark.parametrize("message_id", ["m-1", "lt-other-1", "lt-ab12-", "lt-ab12-x", "lt-ab12-²"])
def test_only_a_runs_own_ids_have_a_sequence(message_id: str) -> None:
    """Other traffic on the topics is not ours."""
    assert stamp.sequence_of(stamp.message_id("ab12", 7), "ab12") == 7
    assert stamp.sequence_of(message_id, "ab12") is None


@pytest.mark.parametrize(
    ("load", "generators", "expected"),
    [
        ({"mode": "rate", "rate_per_s": 1000, "messages": 10}, 1, 10),
        ({"mode": "rate", "rate_per_s": 1000, "messages": 10}, 4, 2),
        ({"mode": "rate", "rate_per_s": 50, "messages": 10}, 1, 0),
        ({"mode": "ramp", "from_per_s": 1, "to_per_s": 600, "duration_s": 5}, 1, 10),
        ({"mode": "closed", "concurrency": 9, "messages": 10}, 1, 0),
    ],
)
def test_batches_are_gathered_only_where_messages_are_many(
    load: dict[str, object], generators: int, expected: int
) -> None:
    """A lone message is not kept waiting for company that does not come."""
    made = workload.validated({"question": "?", "load": load}, "test")
    assert generator.gather_ms(made, generators) == expected
