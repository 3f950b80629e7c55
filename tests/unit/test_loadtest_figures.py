"""A run's figures: nothing omitted, nothing counted twice, validity stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import figures, measure, series, table
from loadtest.rows import FIELDS, OBSERVER, Usage, Vitals

from .loadtest_runs import OFFSET_US, Sent, look, rows_of, seen_of, steady, summary, taken

messages = st.lists(
    st.builds(
        Sent,
        due_ms=st.floats(0, 5000),
        late_ms=st.floats(0, 500),
        seen_ms=st.lists(st.floats(600, 3000), max_size=3).map(tuple),
        dead=st.booleans(),
        acked=st.booleans(),
        placed=st.booleans(),
    ),
    max_size=40,
)


@given(messages)
def test_every_scheduled_message_is_counted_once(given_messages: list[Sent]) -> None:
    """Scheduled = answered + lost + refused + unsent; outcomes = first ones + duplicates."""
    run = taken(given_messages, scheduled=len(given_messages) + 3)
    counts = figures.counts(run)
    answered = sum(bool(each.seen_ms) for each in given_messages)
    assert counts["verdicts"] + counts["dead_lettered"] == answered
    assert counts["dropped"] == counts["scheduled"] - answered
    assert counts["lost"] == sum(each.acked and not each.seen_ms for each in given_messages)
    assert counts["scheduled"] == answered + counts["lost"] + counts["refused"] + 3
    assert counts["duplicates"] == sum(max(0, len(each.seen_ms) - 1) for each in given_messages)
    assert counts["foreign"] == 0


def test_a_stalled_generator_cannot_hide_latency() -> None:
    """Sent a second late and answered 20 ms later, a message took more than a second."""
    run = taken([Sent(due_ms=0, late_ms=1000, seen_ms=(1020,))])
    rows = {name: made.summary_ms() for name, made in figures.latencies(run).items()}
    assert rows["end_to_end"] is not None
    assert rows["naive"] is not None
    assert rows["end_to_end"]["p50"] == pytest.approx(1020, rel=0.01)
    assert rows["naive"]["p50"] == pytest.approx(20, rel=0.01)


def test_a_run_whose_generator_was_late_is_invalid_not_fast() -> None:
    """However good its figures are, it does not pass; the criterion is stated."""
    late = [Sent(due_ms=n, late_ms=80, seen_ms=(100,)) for n in range(100)]
    found = summary(taken(late, thresholds=["p95_ms <= 500"]))
    assert (found["valid"], found["passed"]) == (False, False)
    assert "p99 80 ms behind its schedule, at most 50 ms count" in found["invalid_because"][0]
    assert found["thresholds"][0]["holds"]


def test_a_schedule_that_was_not_sent_is_invalid() -> None:
    """Half of it missing is no run."""
    assert "only 50.0 % of the schedule was sent" in figures.reasons(
        taken(steady(50), scheduled=100)
    )


def test_a_schedule_that_kafka_refused_is_invalid() -> None:
    """What was sent and not accepted is as good as not sent; two of a hundred are too many."""
    mostly = [Sent(due_ms=n, acked=n > 1, seen_ms=(20,) if n > 1 else ()) for n in range(100)]
    found = summary(taken(mostly, thresholds=["lost == 0", "duplicates == 0"]))
    assert (found["valid"], found["passed"]) == (False, False)
    assert found["invalid_because"] == ["Kafka accepted only 98.0 % of the schedule"]
    assert found["counts"]["refused"] == 2
    assert ["refused", "2"] in list(table.count_rows(found))


def test_a_refused_message_is_no_quick_one() -> None:
    """It counts with what it waited, in both latencies; one of a hundred leaves a run valid."""
    few = [Sent(due_ms=n, acked=n > 0, seen_ms=(20,) if n else ()) for n in range(100)]
    found = summary(taken(few))
    assert found["valid"]
    assert found["rows_ms"]["end_to_end"]["max"] > 9000
    assert found["rows_ms"]["naive"]["max"] > 9000
    assert "Kafka did not accept 1 messages" in found["warnings"][0]


def test_closed_loops_have_no_schedule_to_be_late_for() -> None:
    """Lateness there is by definition."""
    load = {"mode": "closed", "concurrency": 2, "messages": 1}
    assert figures.reasons(taken([Sent(due_ms=0, late_ms=900)], load=load)) == []


def test_stages_add_up_to_the_whole() -> None:
    """Lateness, Kafka, judging, concluding and delivery are the end-to-end time."""
    joined = measure.join(rows_of(steady(9)), seen_of(steady(9)))
    stages = measure.stages_ms(joined, OFFSET_US)
    assert list(stages) == list(measure.STAGES)
    total = np.sum(list(stages.values()), axis=0)
    assert total == pytest.approx(measure.end_to_end_ms(joined), abs=0.01)
    assert stages["judge"] == pytest.approx(np.full(9, 10.0))


def test_a_guard_call_is_taken_off_its_own_message_only() -> None:
    """Where the audit log says nothing of a message, nothing is said of what was added."""
    calls = np.array([[0, 0, 2, 4000], [0, 0, 0, 7000], [1, 0, 1, 9000]])
    joined = measure.join(rows_of(steady(3)), seen_of(steady(3)), calls)
    added = measure.end_to_end_ms(joined) - measure.added_ms(joined)
    assert added == pytest.approx([7.0, np.nan, 4.0], nan_ok=True)


def test_a_run_says_what_was_added_only_where_that_was_asked_for() -> None:
    """Without the audit log there is no such row."""
    run = taken(steady(3))
    calls = np.array([[0, 0, number, 1000] for number in range(3)])
    known = replace(run, joined=measure.join(run.joined.rows, run.joined.seen, calls))
    assert "added" not in figures.latencies(run)
    assert figures.latencies(known)["added"].summary_ms()["max"] == pytest.approx(21.0, abs=0.1)


def test_outcomes_of_others_are_not_ours() -> None:
    """Verdicts on other traffic of the same topics are counted apart."""
    joined = measure.join(rows_of(steady(3)), seen_of(steady(5)))
    assert (joined.foreign, int(joined.answered.sum())) == (2, 3)


def test_a_message_that_kafka_kept_twice_has_a_duplicate() -> None:
    """Its second outcome names another position, and the same message id."""
    rows, seen = rows_of(steady(3)), seen_of(steady(3))
    again = seen[1].copy()
    again[FIELDS.index("offset")] = 99
    joined = measure.join(rows, np.vstack([seen, again]))
    assert (joined.duplicates, joined.foreign) == (1, 0)


def test_a_lost_acknowledgement_is_found_by_message_id() -> None:
    """An outcome proves that the broker had the message."""
    run = taken([Sent(due_ms=0, acked=False), Sent(due_ms=1, acked=False, seen_ms=())])
    assert figures.counts(run)["accepted"] == 1
    assert figures.counts(run)["lost"] == 0


def test_warm_up_is_left_out_of_latencies_only() -> None:
    """Its messages still count."""
    slow = [Sent(due_ms=0, seen_ms=(5000,)), *(Sent(due_ms=2000 + n) for n in range(9))]
    run = taken(slow, warmup_s=1.0)
    assert figures.latencies(run)["end_to_end"].count == 9
    assert figures.counts(run)["verdicts"] == 10


def test_degraded_verdicts_are_counted() -> None:
    """Anything but `scored` is."""
    run = taken([Sent(due_ms=0, status=1), Sent(due_ms=1, status=2), Sent(due_ms=2)])
    assert figures.counts(run)["degraded"] == 2


def test_backlog_is_what_was_open_at_one_time() -> None:
    """Three overlapping messages are three; one after the other is one."""
    assert figures.backlog_max(taken([Sent(due_ms=n, seen_ms=(50,)) for n in range(3)])) == 3
    apart = [Sent(due_ms=100.0 * n, seen_ms=(50,)) for n in range(3)]
    assert figures.backlog_max(taken(apart)) == 1


def test_a_moved_wall_clock_is_warned_of() -> None:
    """Stages after sending rest on it."""
    from dataclasses import replace

    moved = replace(taken(steady(3)), offset_us=(0.0, 9000.0))
    assert "wall clock moved by 9 ms" in figures.warnings(moved)[0]


@pytest.mark.parametrize("ahead_us", [2_000_000, -2_000_000])
def test_another_clocks_stamps_make_no_stages(ahead_us: int) -> None:
    """A worker elsewhere, two seconds ahead or behind: no stage is told of, and a warning is."""
    run = taken(steady(100))
    seen = run.joined.seen.copy()
    for name in ("received_us", "scored_us", "emitted_us"):
        seen[:, FIELDS.index(name)] += ahead_us
    skewed = summary(replace(run, joined=measure.join(run.joined.rows, seen)))
    assert [skewed["rows_ms"][name] for name in measure.STAGES[1:]] == [None] * 4
    assert "100 messages have a stage below zero" in skewed["warnings"][0]
    assert summary(run)["warnings"] == []


def test_a_stretch_that_was_not_watched_is_told() -> None:
    """What the run says of it is a warning."""
    blind = replace(taken(steady(3)), unwatched=["no metrics came from http://x"])
    assert figures.warnings(blind) == ["no metrics came from http://x"]


def test_an_interrupted_run_offered_what_it_sent() -> None:
    """Not what it would have sent."""
    cut = replace(taken(steady(100), scheduled=1000), interrupted=True)
    assert figures.pace(cut)["offered_per_s"] == pytest.approx(100, rel=0.02)


def test_series_account_for_every_message() -> None:
    """Seconds add up to the counts; the backlog ends at zero."""
    run = taken(steady(400))
    rows = series.rows(run)
    assert sum(row["sent"] or 0 for row in rows) == 400
    assert sum(row["verdicts"] or 0 for row in rows) == 400
    assert rows[-1]["backlog"] == 0
    assert rows[1]["cpu_worker-1"] == pytest.approx(0.5)
    assert rows[1]["triton_compute_ms"] == pytest.approx(20)
    heat = series.heat(run)
    assert heat is not None
    assert heat.counts.sum() == 400


def test_a_run_without_any_outcome_is_described_all_the_same() -> None:
    """No division by nothing, no percentile of nothing."""
    for sent in ([Sent(due_ms=0, seen_ms=(), acked=False)], []):
        found = summary(taken(sent, scheduled=1, thresholds=["dropped == 0", "p95_ms <= 5"]))
        assert [each["holds"] for each in found["thresholds"]] == [False, False]
    assert found["rows_ms"]["end_to_end"] is None


def test_unanswered_messages_count_with_what_they_waited() -> None:
    """Percentiles of the quick ones alone would flatter an overloaded stack."""
    run = taken([*steady(10), *(Sent(due_ms=0, seen_ms=()) for _ in range(10))])
    found = summary(run)
    assert found["rows_ms"]["end_to_end"]["p95"] > 9000
    assert found["rows_ms"]["judge"]["p95"] == pytest.approx(10, rel=0.01)
    assert "a lower bound" in found["warnings"][0]


def watched(
    used_s: Callable[[float], float], *, upto_s: int, name: str = "worker-1"
) -> list[Vitals]:
    """Looks at a process a second apart, from ten seconds before the run on."""
    return [
        replace(look(second, cpu_s=0.0), usage={name: Usage(cpu_s=used_s(second), rss_bytes=1)})
        for second in range(-10, upto_s)
    ]


def test_waiting_before_and_after_a_run_is_no_part_of_its_load() -> None:
    """One lost message makes a run settle for a minute: a worker's ten busy seconds stay a core."""
    sent = [*steady(1000), Sent(due_ms=9990, seen_ms=())]
    looks = watched(lambda at_s: min(max(at_s, 0), 10), upto_s=80)
    found = figures.usage(replace(taken(sent), vitals=looks))["worker-1"]
    assert found["cpu_cores"] == pytest.approx(10 / 11)
    assert found["cpu_us_per_message"] == pytest.approx(10_000)


def test_a_run_that_was_looked_at_once_used_nothing_that_is_known() -> None:
    """Memory is known all the same."""
    run = taken(steady(100))
    found = figures.usage(replace(run, vitals=run.vitals[:1]))["worker-1"]
    assert (found["cpu_cores"], found["rss_max_mib"]) == (0.0, 100.0)


@pytest.mark.parametrize(("busy_s", "told"), [(5, True), (1, False)])
def test_an_observer_without_room_for_some_seconds_is_warned_of(busy_s: int, told: bool) -> None:
    """Idle seconds around them change nothing; a moment alone is no bottleneck."""
    looks = watched(lambda at_s: min(max(at_s, 0), busy_s), upto_s=80, name=OBSERVER)
    found = figures.warnings(replace(taken(steady()), vitals=looks))
    assert any("observer used a whole core" in each for each in found) is told


def test_texts_that_workers_remembered_are_a_share_and_a_warning() -> None:
    """The guard did not see them, so the figures say little of it."""
    run = taken(steady())
    pages = [{"one": {f"sluice_score_cache_total{{{answer}}}": n * count for answer, count in
              (("hit", 30), ("miss", 10))}} for n in (1, 2)]  # fmt: skip
    looks = [replace(run.vitals[n], worker=page) for n, page in enumerate(pages)]
    found = summary(replace(run, vitals=looks))
    assert found["recalled_share"] == pytest.approx(0.75)
    assert any("75% of the messages had no guard call" in each for each in found["warnings"])
    assert summary(run)["recalled_share"] is None


def test_the_stages_of_a_run_add_up_over_the_same_messages() -> None:
    """Not those of the warm-up, nor the late ones that nobody judged."""
    others = [
        Sent(due_ms=0, late_ms=400, seen_ms=(9000,)),
        Sent(due_ms=3000, late_ms=30, dead=True),
    ]
    scored = [Sent(due_ms=2000 + n, late_ms=n, seen_ms=(40 + n,)) for n in range(5)]
    run = taken([*others, *scored], warmup_s=1.0)
    found = figures.stages(run)
    assert list(found) == list(measure.STAGES)
    assert found["late"] == pytest.approx(2.0)
    assert sum(found.values()) == pytest.approx(42.0, abs=0.01)
    assert figures.stages(taken([Sent(due_ms=0, dead=True)])) == {}
