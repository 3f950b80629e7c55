"""The benchmark's arithmetic: windows, medians, ratios, targets."""

from __future__ import annotations

import pytest

from loadtest.bench import figures
from loadtest.bench.figures import Lap, Sample, Standing, Turn


def sample(at_s: float, cpu_s: float, verdicts: int) -> Sample:
    """A look at a contender."""
    return Sample(at_s=at_s, cpu_s=cpu_s, verdicts=verdicts)


def laps(*cpu_us: float | None) -> list[Lap | None]:
    """Rounds with these microseconds; None where one could not be measured."""
    return [None if value is None else Lap(cpu_us=value, per_s=1e6 / value) for value in cpu_us]


def standing(net_us: float) -> Standing:
    """A contender's medians; only the net counts here."""
    return Standing(cpu_us=net_us, tokenise_us=0, net_us=net_us, spread_us=(0, 0), per_s=1, laps=1)


def turn(**cpu_us: float | None) -> Turn:
    """Laps one directly after the other, by contender, in microseconds."""
    return {name: laps(value)[0] for name, value in cpu_us.items()}


def test_start_up_and_the_tail_are_left_out() -> None:
    """Seconds spent before the first 5 % and after the last 5 % count for nothing."""
    looks = [
        sample(0.0, 0.0, 0),
        sample(5.0, 4.0, 100),
        sample(6.0, 4.05, 600),
        sample(7.0, 4.09, 900),
        sample(9.0, 6.00, 1000),
    ]
    found = figures.lap(looks, 1000)
    assert found is not None
    assert found.cpu_us == pytest.approx(1e6 * 0.09 / 800)
    assert found.per_s == pytest.approx(400)


def test_the_edges_themselves_are_inside() -> None:
    """Exactly 5 % and exactly 95 % are the widest window there is."""
    found = figures.lap([sample(0, 0, 50), sample(1, 0.9, 950)], 1000)
    assert found == Lap(cpu_us=pytest.approx(1000), per_s=pytest.approx(900))


@pytest.mark.parametrize(
    "looks",
    [
        [],
        [sample(0, 0, 0), sample(1, 1, 1000)],
        [sample(0, 0, 500)],
        [sample(0, 0, 500), sample(1, 1, 900)],
        [sample(1, 0, 100), sample(1, 1, 900)],
    ],
)
def test_a_run_too_short_to_see_has_no_figure(looks: list[Sample]) -> None:
    """Less than half of the messages between two looks, or no time: no figure, not a wrong one."""
    assert figures.lap(looks, 1000) is None


def test_a_standing_is_made_of_medians() -> None:
    """One round that a neighbour disturbed does not move it; its range shows it."""
    found = figures.standing(laps(100, 900, 110))
    assert found is not None
    assert (found.cpu_us, found.net_us, found.spread_us) == (110, 110, (100, 900))
    assert found.per_s == pytest.approx(1e6 / 110)
    assert found.laps == 3


def test_tokenising_is_subtracted_at_the_speed_of_its_own_round() -> None:
    """On a machine that has become half as fast it costs twice as much, too."""
    speeds = [
        Lap(cpu_us=100 * slow, per_s=1.0, tokenise_us=10 * slow) for slow in (1.0, 1.0, 2.0, 2.0)
    ]
    found = figures.standing(speeds)
    assert found is not None
    assert (found.cpu_us, found.tokenise_us, found.net_us) == (150, 15, 135)


def test_rounds_without_a_figure_are_not_counted() -> None:
    """They are neither zero nor the median."""
    found = figures.standing(laps(None, 50, None))
    assert found is not None
    assert (found.cpu_us, found.laps) == (50, 1)
    assert figures.standing(laps(None)) is None


def test_ratios_are_taken_within_turns() -> None:
    """A turn on a machine half as fast has the same ratio, another turn's lap is not used."""
    given = [
        turn(faust=200, sluice=50, raw=25),
        turn(sluice=100, quix=600),
        turn(raw=50, sluice=100, faust=400),
    ]
    assert figures.ratios(given, "sluice") == {"sluice": 1, "faust": 4, "raw": 0.5, "quix": 6}


def test_ratios_leave_tokenising_out_on_both_sides() -> None:
    """(220 - 20) / (60 - 10), each with what it costs in its own batches."""
    given = {
        "sluice": Lap(cpu_us=60, per_s=1.0, tokenise_us=10),
        "quix": Lap(cpu_us=220, per_s=1.0, tokenise_us=20),
    }
    assert figures.ratios([given], "sluice")["quix"] == 4


def test_a_turn_measured_on_one_side_gives_no_ratio() -> None:
    """It has nothing to be compared with; without any, there is no ratio at all."""
    given = [turn(sluice=None, raw=9, faust=300), turn(sluice=50, raw=25, faust=None)]
    assert figures.ratios(given, "sluice") == {"sluice": 1, "raw": 0.5}
    assert figures.ratios([turn(raw=9)], "sluice") == {}


@pytest.mark.parametrize(
    ("net_us", "faust", "raw", "met"),
    [(45.0, 6.0, 0.2, [True, True, True]), (45.1, 5.9, 0.19, [False, False, False])],
)
def test_the_targets_have_sharp_edges(
    net_us: float, faust: float, raw: float, met: list[bool]
) -> None:
    """45 us, six times, five times: met at the edge, missed just past it."""
    goals = figures.goals({"sluice": standing(net_us)}, {"sluice": 1, "faust": faust, "raw": raw})
    assert [goal.met for goal in goals] == met


def test_a_target_without_its_contender_is_not_claimed() -> None:
    """With the worker alone, only its own microseconds can be judged."""
    goals = figures.goals({"sluice": standing(1.0)}, {"sluice": 1.0})
    assert len(goals) == 1
    assert figures.goals({}, {}) == []
