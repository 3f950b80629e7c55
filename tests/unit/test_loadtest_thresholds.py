"""Thresholds: read, checked, and never held by missing figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import scrape
from loadtest.histogram import Latencies
from loadtest.thresholds import check, parse


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("p95_ms <= 500", 500.0, True),
        ("p95_ms < 500", 500.0, False),
        ("lost == 0", 0.0, True),
        ("lost == 0", 1.0, False),
        ("throughput_per_s >= 99.5", 99.0, False),
        ("naive_p99_ms > 1", 2.0, True),
    ],
)
def test_a_bound_holds_or_does_not(text: str, value: float, *, holds: bool) -> None:
    """The relation as written, the unit as named."""
    limit = parse(text)
    (checked,) = check([limit], {limit.name: value, "scheduled": 1000.0})
    assert checked.holds is holds


def test_a_percentage_is_of_what_was_scheduled() -> None:
    """1 % of 10,000 is 100: 100 hold, 101 do not."""
    limit = parse("dropped <= 1%")
    assert check([limit], {"dropped": 100.0, "scheduled": 10_000.0})[0].holds
    assert not check([limit], {"dropped": 101.0, "scheduled": 10_000.0})[0].holds


def test_nothing_measured_is_not_held() -> None:
    """A run without a single verdict does not pass a latency bound."""
    (checked,) = check([parse("p95_ms <= 500")], {"scheduled": 10.0})
    assert checked.value is None
    assert not checked.holds


@pytest.mark.parametrize("text", ["p95_ms", "p95_ms <= x", "p95_ms <= 5%", "speed < 3", "lost=0"])
def test_a_text_that_is_no_threshold_is_refused(text: str) -> None:
    """The error quotes the text or names what is not measured."""
    with pytest.raises(ValueError, match=r"not of the form|not measured|not a count"):
        parse(text)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=99), st.integers(1, 3))
def test_merged_histograms_count_as_one(values_us: list[int], parts: int) -> None:
    """Sent between processes and added, they give the figures of a single one."""
    merged = Latencies()
    for part in range(parts):
        merged.add(Latencies.decode(Latencies.of(values_us[part::parts]).encode()))
    assert merged.count == len(values_us)
    assert merged.summary_ms() == Latencies.of(values_us).summary_ms()


def test_the_plotters_file_is_in_milliseconds_throughout(tmp_path: Path) -> None:
    """Of 10 and 30 ms the mean is 20 and the standard deviation 10."""
    Latencies.of([10_000, 30_000]).write_hgrm(tmp_path / "latency.hgrm")
    page = (tmp_path / "latency.hgrm").read_text()
    found = re.search(r"#\[Mean +=([ 0-9.]+), StdDeviation +=([ 0-9.]+)\]", page)
    assert found is not None
    assert [float(value) for value in found.groups()] == pytest.approx([20, 10], rel=0.01)


def test_an_empty_histogram_has_no_figures() -> None:
    """Not zero: nothing."""
    assert Latencies().summary_ms() is None


PAGE = """# TYPE nv_inference_request_success counter
nv_inference_request_success{model="a",version="1"} 40
nv_inference_request_success{model="b",version="1"} 10
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="a",version="1"} 50000
nv_inference_queue_duration_us{model="b",version="1"} 50000
# TYPE sluice_stage_seconds histogram
sluice_stage_seconds_bucket{stage="wait",le="0.1"} 50
sluice_stage_seconds_bucket{stage="wait",le="0.2"} 100
sluice_stage_seconds_bucket{stage="wait",le="+Inf"} 100
sluice_stage_seconds_count{stage="wait"} 100
sluice_stage_seconds_sum{stage="wait"} 10
"""


def test_tritons_counters_become_means_a_request() -> None:
    """Over all models: 100,000 us of 50 requests are 2 ms."""
    assert scrape.triton_means_ms(scrape.parse(PAGE))["queue"] == pytest.approx(2.0)
    assert scrape.triton_means_ms({}) == {}


def test_a_shared_execution_is_charged_once() -> None:
    """Triton counts all of it with each of four requests; a server that told nothing has none."""
    delta = {
        "nv_inference_request_success": 8.0,
        "nv_inference_exec_count": 2.0,
        "nv_inference_count": 16.0,
        "nv_inference_compute_infer_duration_us": 4e6,
        "nv_inference_queue_duration_us": 5e5,
    }
    assert scrape.triton_load(delta, instances=2) == {
        "instances": 2.0, "requests": 8.0, "rows": 16.0, "compute_s": 1.0, "queue_s": 0.5,
    }  # fmt: skip
    assert scrape.triton_load({}, instances=2) == {}


def test_parts_that_told_nothing_have_no_figures() -> None:
    """Triton's means and a worker's stage, each under its own name."""
    page = scrape.parse(PAGE)
    assert set(scrape.inside_ms(page, page)) == {
        "triton_queue", "triton_compute_input", "triton_compute", "triton_compute_output",
        "worker_wait",
    }  # fmt: skip
    assert scrape.inside_ms({}, {}) == {}


def test_a_stages_buckets_become_estimated_percentiles() -> None:
    """Evenly filled inside a bucket; the mean is exact."""
    stage = scrape.worker_stage_ms(scrape.parse(PAGE), "wait")
    assert stage is not None
    assert stage["avg"] == pytest.approx(100)
    assert stage["p50"] == pytest.approx(100)
    assert stage["p75"] == pytest.approx(150)
    assert scrape.worker_stage_ms({}, "wait") is None


def test_a_percentile_within_the_first_bucket_is_not_made_up() -> None:
    """All that is known of it is a bound, so there is no figure."""
    page = PAGE.replace('le="0.1"} 50', 'le="0.1"} 100')
    stage = scrape.worker_stage_ms(scrape.parse(page), "wait")
    assert stage is not None
    assert list(stage) == ["avg"]


def test_a_page_that_began_anew_counts_from_zero_as_a_whole() -> None:
    """A counter that has passed its old value again since is no small gain."""
    assert scrape.difference({"a": 5.0, "b": 9.0}, {"a": 3.0, "b": 9.0}) == {"a": 2.0, "b": 0.0}
    assert scrape.difference({"a": 5.0, "b": 2.0}, {"a": 3.0, "b": 9.0}) == {"a": 5.0, "b": 2.0}


def waited(count: int) -> scrape.Values:
    """A worker's page: so many waits of 100 ms on average, half of them shorter."""
    buckets = {'bucket{stage="wait",le="0.1"}': count // 2, 'bucket{stage="wait",le="0.2"}': count}
    rest = {'count{stage="wait"}': count, 'sum{stage="wait"}': count / 10}
    lines = [f"sluice_stage_seconds_{name} {value}" for name, value in (buckets | rest).items()]
    return scrape.parse("\n".join(["# TYPE sluice_stage_seconds histogram", *lines, ""]))


def test_a_restart_of_one_of_two_workers_takes_nothing_from_the_other() -> None:
    """Pages are compared each with itself, look by look, before they are added up."""
    looks = [
        {"one": waited(1000), "two": waited(2000)},
        {"one": waited(1100), "two": waited(2100)},
        {"one": waited(40), "two": waited(2200)},
    ]
    gained = scrape.gained(looks)
    assert gained["sluice_stage_seconds_count{wait}"] == 100 + 40 + 200
    stage = scrape.worker_stage_ms(gained, "wait")
    assert stage is not None
    assert (stage["avg"], stage["p50"]) == pytest.approx((100, 100))


def test_a_page_that_was_not_reached_once_loses_nothing() -> None:
    """Its counters went on meanwhile."""
    looks = [{"one": {"a": 1.0}, "two": {"a": 5.0}}, {"two": {"a": 6.0}}, {"one": {"a": 4.0}}]
    assert scrape.gained(looks) == {"a": 4.0}
    assert scrape.gained([]) == {}


def test_a_gauge_that_falls_is_no_restart() -> None:
    """Only what never falls tells one."""
    pages = [
        PAGE + f"# TYPE sluice_in_flight_messages gauge\nsluice_in_flight_messages {n}\n"
        for n in (9, 0)
    ]
    gained = scrape.gained([{"one": scrape.parse(page)} for page in pages])
    assert set(gained.values()) == {0.0}


def test_messages_without_a_guard_call_are_a_share_of_all() -> None:
    """Recalled, or answered by a call that was under way."""
    page = "# TYPE sluice_score_cache_total counter\n" + "".join(
        f'sluice_score_cache_total{{answer="{answer}"}} {count}\n'
        for answer, count in (("hit", 6), ("shared", 1), ("miss", 3))
    )
    assert scrape.recalled_share(scrape.parse(page)) == pytest.approx(0.7)
    assert scrape.recalled_share(scrape.parse(PAGE)) is None
