"""Comparing runs, finding the knee, planning capacity."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import artefacts, knee, mix, plan, sweeping, workload
from loadtest.compare import compare, doubts
from loadtest.workload import validated
from pipeline.errors import Misconfigured

from .loadtest_runs import Sent, steady, summary, taken


def words(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """What became of each figure."""
    return {each.name: each.word for each in compare(before, after)}


def test_a_run_is_no_worse_than_itself() -> None:
    """Nothing changed, nothing doubted."""
    run = summary(taken(steady()))
    assert set(words(run, run).values()) == {"same"}
    assert doubts(run, run) == []


def test_a_slower_run_is_worse_and_a_faster_one_better() -> None:
    """Half as slow again is beyond any noise of these runs."""
    before, after = summary(taken(steady())), summary(taken(steady(seen_ms=40)))
    assert words(before, after)["p95_ms"] == "worse"
    assert words(after, before)["p95_ms"] == "better"


def test_answers_that_come_after_the_schedule_are_a_lower_throughput() -> None:
    """What was offered is the same; what was answered a second is not."""
    drained = [Sent(due_ms=s.due_ms, seen_ms=(40_000.0,)) for s in steady()]
    found = words(summary(taken(steady())), summary(taken(drained)))
    assert found["answers_per_s"] == "worse"


def test_messages_without_answer_count_in_the_stretches() -> None:
    """The quick half alone would look like a quick run."""
    half = [Sent(due_ms=s.due_ms, seen_ms=s.seen_ms if n % 2 else ()) for n, s in
            enumerate(steady())]  # fmt: skip
    assert words(summary(taken(steady())), summary(taken(half)))["p95_ms"] == "worse"


def test_a_difference_within_the_noise_is_none() -> None:
    """Runs that swing between stretches by more than they differ are the same."""
    swinging = [
        Sent(due_ms=10.0 * n, seen_ms=(20.0 + 30 * (n // 40 % 2) + shift,))
        for shift in (0,)
        for n in range(400)
    ]
    shifted = [Sent(due_ms=s.due_ms, seen_ms=(s.seen_ms[0] + 8,)) for s in swinging]
    assert words(summary(taken(swinging)), summary(taken(shifted)))["p95_ms"] == "same"


def test_any_loss_is_worse() -> None:
    """Counts have no noise."""
    lossy = [*steady(399), Sent(due_ms=4000, seen_ms=())]
    assert words(summary(taken(steady())), summary(taken(lossy)))["lost"] == "worse"


def test_unlike_runs_are_doubted() -> None:
    """Another workload, another guard, an invalid run."""
    before = summary(taken(steady()))
    late = [Sent(due_ms=n, late_ms=200, seen_ms=(300,)) for n in range(60)]
    after = summary(taken(late, seed=9)) | {"guards": []}
    found = " / ".join(doubts(before, after))
    assert "the second run is invalid" in found
    assert "the workloads differ" in found
    assert "the guards differ" in found


def test_other_texts_of_the_same_kind_are_the_same_load() -> None:
    """On a running stack each run takes another seed, and is compared all the same."""
    before, after = (summary(taken(steady(), seed=seed)) for seed in (1, 9))
    assert before["workload"]["digest"] != after["workload"]["digest"]
    assert doubts(before, after) == []


def test_a_run_whose_texts_were_remembered_is_doubted_beside_one_whose_were_not() -> None:
    """It is quicker without the guard being so."""
    before = summary(taken(steady()))
    (doubt,) = doubts(before | {"recalled_share": 0.0}, before | {"recalled_share": 0.97})
    assert "remembered 0% and 97% of the texts" in doubt


def test_a_run_whose_workers_told_nothing_is_not_said_to_have_remembered_none() -> None:
    """Without their metrics nobody knows."""
    before = summary(taken(steady()))
    assert before["recalled_share"] is None
    (doubt,) = doubts(before, before | {"recalled_share": 0.97})
    assert "remembered an unknown share and 97% of the texts" in doubt


@pytest.mark.parametrize(("loop_ms", "told"), [(13.0, False), (18.0, True)])
def test_a_machine_that_ran_unlike_fast_is_told(loop_ms: float, told: bool) -> None:
    """A tenth slower is the machine's noise; half as slow again is another machine."""
    before, after = (
        run | {"environment": run["environment"] | {"python_loop_ms": loop}}
        for run, loop in ((summary(taken(steady())), 12.0), (summary(taken(steady())), loop_ms))
    )
    assert ("unlike fast" in " / ".join(doubts(before, after))) is told


def made(rate: float, *, state: str = "holds", p95: float = 50, **change: Any) -> dict[str, Any]:
    """A step of a sweep: 2 ms of Triton and 200 us of worker a message, for 10 s."""
    step = {
        "rate_per_s": rate, "throughput_per_s": rate, "p50_ms": 10, "p95_ms": p95, "p99_ms": p95,
        "backlog_max": 5, "drain_s": 0.1, "sending_s": 10, "total_s": 10, "answered": rate * 10,
        "dropped": 0, "state": state, "stages_ms": {"judge": 20, "deliver": 3},
        "usage": {"worker-1": {"cpu_cores": rate * 2e-4, "cpu_us_per_message": 200}},
        "triton": {"compute_s": rate * 10 * 2e-3},
    }  # fmt: skip
    return step | change


def sweep(*steps: dict[str, Any]) -> dict[str, Any]:
    """The document of a sweep."""
    return {"steps": list(steps), "knee": knee.find(steps, cores=2), "target": "Kafka"}


def test_the_knee_lies_between_what_holds_and_what_does_not() -> None:
    """Both bounds are told."""
    found = knee.find([made(100), made(200), made(400, state="slow", p95=900)], cores=2)
    assert (found["holds_per_s"], found["breaks_per_s"]) == (200, 400)
    assert "200 messages per second hold" in found["text"]
    assert "400 do not (slow)" in found["text"]


def test_a_sweep_without_a_break_has_no_knee() -> None:
    """It says so instead of naming the last rate a limit."""
    found = knee.find([made(100), made(200)], cores=2)
    assert found["breaks_per_s"] is None
    assert "no rate that was tried broke it" in found["text"]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (made(9, state="invalid"), "The generator limits"),
        (made(9, usage={"triton": {"cpu_cores": 1.9}}), "The processor limits: 1.9 of 2 cores"),
        (made(9, triton={"compute_s": 9.5}), "The guard limits: Triton computes 95 %"),
        (made(9, triton={"compute_s": 18, "instances": 2.0}), "Triton computes 90 %"),
        (made(9, triton={"compute_s": 9.5, "instances": 2.0}), "Nothing that was watched"),
        (made(9, usage={"worker-1": {"cpu_cores": 0.95}}), "The worker limits"),
        (made(9), "most time goes to tokenising and the guard"),
        (made(9, stages_ms={}), "no message was judged"),
    ],
)
def test_what_limits_is_what_was_saturated(step: dict[str, Any], told: str) -> None:
    """The generator first: a stack that was not loaded is not at fault."""
    assert told in knee.limit(step, cores=2)


def test_a_steps_state_names_the_first_failure() -> None:
    """Lateness of the generator excuses everything that follows from it."""
    good = summary(taken(steady()))
    assert knee.state(good, 500) == "holds"
    assert knee.state(good, 5) == "slow"
    assert knee.state(good | {"valid": False}, 5) == "invalid"
    assert knee.state(good | {"counts": good["counts"] | {"dropped": 1}}, 500) == "dropped"
    growing = good["pace"] | {"total_s": good["pace"]["sending_s"] + 9}
    assert knee.state(good | {"pace": growing}, 500) == "behind"


def test_a_step_that_was_cut_short_says_nothing() -> None:
    """Neither that its rate held nor that it broke, nor what limits."""
    cut = made(200, state="interrupted")
    assert knee.state(summary(taken(steady())) | {"interrupted": True}, 500) == "interrupted"
    assert knee.find([made(100), cut], cores=2)["holds_per_s"] == 100
    assert knee.find([made(100), cut], cores=2)["breaks_per_s"] is None
    assert knee.find([cut], cores=2)["text"] == "No rate was finished."


@pytest.mark.parametrize(("late_ms", "state"), [(0, "dropped"), (80, "invalid")])
def test_a_kafka_that_refuses_is_the_stacks_failure(late_ms: int, state: str) -> None:
    """The run does not count, and yet its rate broke; unless the generator was late as well."""
    half = [Sent(due_ms=n, late_ms=late_ms, acked=n > 50, seen_ms=(99,) if n > 50 else ())
            for n in range(100)]  # fmt: skip
    found = summary(taken(half))
    assert not found["valid"]
    assert knee.state(found, 500) == state


def test_a_late_generator_breaks_no_rate() -> None:
    """What limits is told; the stack has no upper bound from it."""
    found = knee.find([made(100), made(200, state="invalid")], cores=2)
    assert (found["holds_per_s"], found["breaks_per_s"]) == (100, None)
    assert "100 messages per second hold" in found["text"]
    assert "the run at 200 is invalid, which says nothing of the stack" in found["text"]
    assert found["limit"].startswith("The generator limits")


def test_a_late_generator_at_the_lowest_rate_is_no_failure_of_the_stack() -> None:
    """Nothing was measured, neither good nor bad."""
    found = knee.find([made(100, state="invalid")], cores=2)
    assert (found["holds_per_s"], found["breaks_per_s"]) == (None, None)
    assert found["text"] == (
        "No rate was measured: the run at 100 is invalid, which says nothing of the stack."
    )


def test_a_server_with_two_instances_carries_twice_as_much() -> None:
    """What Triton counts is the sum over its instances."""
    one = sweep(*(made(rate, p95=20 + rate / 10) for rate in (100, 200, 300)))
    two = sweep(*({**s, "triton": s["triton"] | {"instances": 2.0}} for s in one["steps"]))
    each = [plan.plan(s, rate_per_s=50_000, p95_ms=500).triton_replicas.likely for s in (one, two)]
    assert each[0] == pytest.approx(2 * each[1], abs=1)


@pytest.mark.parametrize("rates", [[2e6], [float("nan")], [-1.0], [20.0, 10.0]])
def test_rates_that_cannot_be_are_refused(rates: list[float]) -> None:
    """With a remedy, before anything starts."""
    workload = validated({"question": "?", "load": {"mode": "rate", "rate_per_s": 1,
                          "duration_s": 1}}, "test")  # fmt: skip
    with pytest.raises(Misconfigured):
        sweeping.steps(workload, rates, 10.0)


def test_a_folder_that_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    """A run's minutes would be lost."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="--out"):
        artefacts.prepare(tmp_path / "file")


def test_another_documents_summary_is_no_runs(tmp_path: Path) -> None:
    """An evaluation's folder has a summary of its own."""
    (tmp_path / "summary.json").write_text('{"format": 1, "results": []}')
    with pytest.raises(Misconfigured, match="not a run's summary"):
        artefacts.read(tmp_path)


def test_a_plan_multiplies_measured_costs() -> None:
    """At 2 ms a message and 80 % use, 50,000 a second need about 125 Triton instances."""
    held = [made(100, p95=20), made(200, p95=25), made(300, p95=35)]
    found = plan.plan(sweep(*held, made(400, state="slow", p95=900)), rate_per_s=50_000, p95_ms=500)
    assert found.utilisation == pytest.approx(0.8)
    assert found.triton_replicas.likely == 125
    assert found.workers.likely == 13
    assert found.partitions.likely >= found.workers.likely
    for need in (found.triton_replicas, found.workers, found.partitions):
        assert need.low <= need.likely <= need.high
    assert found.triton_replicas.high > 125
    assert any("167 times" in remark for remark in found.remarks)


def test_a_plan_from_remembered_texts_is_warned_of() -> None:
    """A message that no guard saw costs next to nothing, which no new message will."""
    rates = (100, 200, 300)
    for shares, told in (
        ((0.0, 0.02, 0.05), False),
        ((0.1, 0.5, 0.97), True),
        ((None,) * 3, False),
    ):
        document = sweep(*(made(rate, recalled_share=share) for rate, share in
                           zip(rates, shares, strict=True)))  # fmt: skip
        found = plan.plan(document, rate_per_s=9000, p95_ms=500)
        assert any("up to 97% of a step's messages" in each for each in found.remarks) is told


def test_a_step_that_dropped_messages_says_nothing_of_a_cost() -> None:
    """What they cost is charged to those that were answered."""
    held = [made(rate, p95=20 + rate / 10) for rate in (100, 200, 300)]
    costly = made(400, state="dropped", throughput_per_s=40, triton={"compute_s": 9.9})
    alone, beside = (
        plan.plan(sweep(*steps), rate_per_s=9000, p95_ms=500).triton
        for steps in (held, [*held, costly])
    )
    assert beside == alone


def test_a_worker_is_charged_over_the_seconds_that_its_messages_took() -> None:
    """Looks stand some way outside the run, and the idle time between is none of its cost."""
    held = [made(rate) for rate in (100, 200, 300)]
    for step in held:
        step["usage"]["worker-1"]["cpu_cores"] /= 2
    found = plan.plan(sweep(*held), rate_per_s=9000, p95_ms=500)
    assert found.worker.seconds == pytest.approx(200e-6)


def test_a_tighter_latency_takes_more() -> None:
    """Less of each replica may be used."""
    document = sweep(made(100, p95=25), made(300, p95=90), made(400, p95=230))
    tight, loose = (plan.plan(document, rate_per_s=9000, p95_ms=p95) for p95 in (60, 500))
    assert tight.utilisation < loose.utilisation
    assert tight.triton_replicas.likely > loose.triton_replicas.likely


def test_a_latency_below_the_idle_one_cannot_be_planned() -> None:
    """More replicas do not make a guard faster."""
    document = sweep(made(100, p95=50), made(200, p95=55), made(300, p95=65))
    with pytest.raises(Misconfigured, match="no number of replicas brings 10 ms"):
        plan.plan(document, rate_per_s=100, p95_ms=10)


def test_a_latency_that_leaves_replicas_all_but_idle_cannot_be_planned() -> None:
    """At 5 % use the model tells 504 ms, so no number of replicas is named for 500."""
    loads = (0.2, 0.4, 0.6)
    held = [made(load / 2e-3, p95=499 + 100 * load / (1 - load)) for load in loads]
    with pytest.raises(Misconfigured, match="500 ms would leave replicas more than 95% idle"):
        plan.plan(sweep(*held), rate_per_s=100, p95_ms=500)
    assert plan.plan(sweep(*held), rate_per_s=100, p95_ms=505).utilisation > 0.05


@given(st.floats(0, 999), st.floats(0, 1e6))
def test_a_utilisation_keeps_the_latency_that_it_is_for(base_ms: float, slope_ms: float) -> None:
    """Whatever the model's figures are."""
    share = plan.utilisation(base_ms, slope_ms, 1000)
    assert 0 < share <= 0.8
    assert base_ms + slope_ms * share / (1 - share) <= 1000 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("step", "told"),
    [(made(9, state="slow"), "no step of the sweep held"), (made(9, usage={}), "did not see")],
)
def test_a_sweep_that_carries_no_plan_is_refused(step: dict[str, Any], told: str) -> None:
    """The error says what to do."""
    with pytest.raises(Misconfigured, match=told):
        plan.plan(sweep(step), rate_per_s=1, p95_ms=500)


def test_a_worker_whose_processor_time_was_not_seen_carries_no_plan() -> None:
    """Steps shorter than two looks show none: that is no worker for nothing."""
    unseen = {"worker-1": {"cpu_cores": 0.0, "cpu_us_per_message": 0.0}}
    document = sweep(*(made(rate, usage=unseen) for rate in (100, 200, 300)))
    with pytest.raises(Misconfigured, match="did not see"):
        plan.plan(document, rate_per_s=1, p95_ms=500)


def test_steps_that_show_no_cost_change_none() -> None:
    """One without an answer, and one whose worker seemed to use less than nothing."""
    held = [made(rate, p95=20 + rate / 10) for rate in (100, 200, 300)]
    odd = {"worker-1": {"cpu_cores": -0.1, "cpu_us_per_message": -500}}
    silent = made(400, state="slow", throughput_per_s=0.0)
    shrunk = made(400, state="slow", usage=odd, triton={})
    alone, *others = (
        plan.plan(sweep(*steps), rate_per_s=9000, p95_ms=500)
        for steps in (held, [*held, silent], [*held, shrunk])
    )
    assert [(each.worker, each.triton) for each in others] == [(alone.worker, alone.triton)] * 2


def test_a_sweep_whose_only_cost_is_of_no_answers_carries_no_plan() -> None:
    """Seconds over no messages are no cost."""
    with pytest.raises(Misconfigured, match="did not see"):
        plan.plan(sweep(made(9, throughput_per_s=0.0)), rate_per_s=1, p95_ms=500)


def test_a_worker_that_was_lost_from_sight_is_planned_from_where_it_was_seen() -> None:
    """One that began anew has another process id than the one that was named."""
    held = [made(rate, p95=20 + rate / 10) for rate in (100, 200, 300)]
    seen = plan.plan(sweep(*held), rate_per_s=9000, p95_ms=500)
    lost = plan.plan(sweep(*held[:2], held[2] | {"usage": {}}), rate_per_s=9000, p95_ms=500)
    assert lost.workers.likely == seen.workers.likely


@pytest.mark.parametrize(
    "change",
    [
        {"knee": {}},
        {"knee": None},
        {"steps": {}},
        {"steps": [{"state": "holds"}]},
        {"steps": ["holds"]},
    ],
)
def test_a_document_that_is_no_sweep_carries_no_plan(change: dict[str, Any]) -> None:
    """Parts that a plan reads are missing, however the document is marked."""
    with pytest.raises(Misconfigured, match="not a sweep"):
        plan.plan(sweep(made(9)) | change, rate_per_s=1, p95_ms=500)


def test_sweep_rates_must_ascend() -> None:
    """A sweep stops at the first that does not hold, so order matters."""
    load = {"mode": "rate", "rate_per_s": 1, "messages": 1}
    base = validated({"question": "?", "load": load}, "test")
    assert [rate for rate, _ in sweeping.steps(base, [1, 5], 2)] == [1, 5]
    for rates in (None, [5.0, 1.0], [0.0, 1.0]):
        with pytest.raises(Misconfigured, match="ascending rates"):
            sweeping.steps(base, rates, 2)


def test_no_two_steps_send_the_same_texts() -> None:
    """Workers remember what they judged: repeats would measure their memory, not the guard."""
    shipped = workload.read(workload.find("sweep-25-to-1600-per-s"))
    texts = []
    for rate, step in sweeping.steps(shipped, None, None)[:3]:
        recipe = mix.Recipe(step)
        texts += [recipe.piece(n, "x").message.text for n in range(int(rate * 15))]
    assert len(set(texts)) > 0.97 * len(texts)


async def test_a_step_that_is_tried_again_sends_other_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the next step does: what was judged in vain is remembered, too."""
    seeds = []

    class Late:
        """A run whose generator could not keep its schedule."""

        def __init__(self, load: workload.Workload, name: str, target: Any) -> None:
            seeds.append(load.seed)

        async def finish(self, folder: Path) -> dict[str, Any]:
            return summary(taken(steady())) | {"valid": False}

    monkeypatch.setattr(sweeping, "Running", Late)
    load = {"mode": "rate", "rate_per_s": 1, "messages": 1}
    made = sweeping.steps(validated({"question": "?", "load": load}, "test"), [5, 9], 1)
    target: Any = SimpleNamespace(name="test")
    await sweeping.Sweeping(made, "test", target, p95_limit_ms=500).finish(tmp_path)
    seeds.append(made[1][1].seed)
    assert len(set(seeds)) == len(seeds) == 4
    assert sweeping.read(tmp_path)["seed"] == seeds[0] == 1
