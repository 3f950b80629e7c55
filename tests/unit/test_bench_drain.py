"""Specification of what a drain shows: throughput and CPU of its middle, memory along the way."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.bench import ceiling, scaling
from loadtest.bench.drain import Sample, figures
from pipeline.errors import SluiceError


def samples(*outcomes: int) -> list[Sample]:
    """A sample each second, with 1 ms of CPU an outcome and 1 MiB more each time.

    The worker is ready from the second on.
    """
    return [
        Sample(at_s=float(at), reading=at >= 1, outcomes=n, cpu_s=n / 1000, rss_mib=100.0 + at)
        for at, n in enumerate(outcomes)
    ]


def test_start_and_end_are_left_out() -> None:
    """From the first sample past 10 % to the last before 90 %."""
    found = figures(samples(0, 0, 0, 100, 300, 500, 800, 1000, 1000), 1000)
    assert found.per_s == pytest.approx((800 - 100) / 3)
    assert found.cpu_us == pytest.approx(1000.0)


def test_the_whole_is_every_message_from_readiness_to_the_last_outcome() -> None:
    """What the guard judged before a first batch was complete took its time, too; so does the end.

    From the first outcome on it would be 900 in 7 seconds of 10.
    """
    found = figures(samples(0, 0, 0, 100, 300, 500, 800, 900, 900, 900, 1000), 1000)
    assert found.whole_per_s == pytest.approx(1000 / 10)


def test_starting_up_is_no_throughput() -> None:
    """The clock begins at the last look at a worker that was not ready."""
    late = [
        replace(sample, reading=sample.at_s > 3)
        for sample in samples(0, 0, 0, 0, 0, 250, 500, 750, 1000)
    ]
    assert figures(late, 1000).whole_per_s == pytest.approx(1000 / (8 - 3))
    at_once = [replace(sample, reading=True) for sample in late]
    assert figures(at_once, 1000).whole_per_s == pytest.approx(1000 / 8)


def test_outcomes_in_lumps_are_measured_over_the_whole() -> None:
    """Nothing is known of their middle; a second of samples is enough for the rest."""
    found = figures(samples(0, 50, *[50] * 10, 950, 1000), 1000)
    assert found.per_s == pytest.approx((1000 - 50) / 12)


def test_memory_is_told_by_share_of_the_run() -> None:
    """The last tenth of what had been sampled until then."""
    found = figures(samples(*range(0, 1001, 10)), 1000)
    assert found.rss_mib(0.5) == pytest.approx(145, abs=1.5)
    assert found.rss_mib(1.0) == pytest.approx(195, abs=1.5)


@pytest.mark.parametrize("outcomes", [(0, 1000), (0, 500, 1000), (0, 500, 500, 1000)])
def test_too_short_a_run_has_no_figures(outcomes: tuple[int, ...]) -> None:
    """It says so instead of dividing by nothing."""
    with pytest.raises(SluiceError, match="too short"):
        figures(samples(*outcomes), 1000)


def test_the_ratio_of_the_ceiling_is_the_median_of_the_rounds_ratios() -> None:
    """Not the ratio of medians: a round's two runs are neighbours in time."""
    found = {
        "workload": "w", "messages": 10, "tokens": 200, "concurrency": 3,
        "alone_per_s": [100.0, 50.0, 80.0], "worker_per_s": [90.0, 49.0, 40.0],
        "worker_cpu_us": [300.0, 310.0, 320.0], "ratios": [0.90, 0.98, 0.50],
    }  # fmt: skip
    text = "\n".join(ceiling.lines(found))
    assert "ratio: 0.90 (rounds: 0.90, 0.98, 0.50)" in text
    assert "80.0/s" in text
    assert "20 padded tokens each" in text


SCALING = {
    "workers": [{"workers": n, "per_s": 1000.0 * n, "cpu_us": 80.0} for n in (1, 2, 4)],
    "lengths": [{"chars": n, "per_s": 10.0, "cpu_us": 28 + 0.12 * n} for n in (100, 400)],
    "memory": {"messages": 1000, "per_s": 5.0, "rss_mib": {"0.5": 100.0, "1.0": 101.0}},
}


def test_scaling_is_told_in_three_tables() -> None:
    """Workers, lengths and memory; without a long run, two."""
    text = "\n".join(scaling.lines(SCALING))
    assert "| 4 | 4,000 | 80 µs |" in text
    assert "| characters | CPU a message | a character beyond the first 100 |" in text
    assert "| 100 | 40 µs | - |" in text
    assert "| 400 | 76 µs | 0.12 µs |" in text
    assert "| 100% | 101 MiB |" in text
    assert "resident" not in "\n".join(scaling.lines({**SCALING, "memory": None}))


def test_the_plot_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    """An SVG that a commit can hold without changing each time."""
    for name in ("one.svg", "two.svg"):
        scaling.plot(SCALING, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert ET.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own
