"""From the steps of a sweep: the highest rate that holds, and what limits there. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_BEHIND_S: Final = 1.0
"""A backlog that takes longer than this to work off after the last send was growing."""

_SATURATED: Final = 0.85
_NO_FAILURE: Final = frozenset({"holds", "invalid", "interrupted"})
"""States of a step at which the stack did not fail."""

_UNLIMITED: Final = "Nothing limited in the range that was tried."
_STAGES: Final = {
    "late": "the generator's lateness",
    "to_worker": "waiting in Kafka and for a batch",
    "judge": "tokenising and the guard",
    "conclude": "concluding",
    "deliver": "publishing the verdict",
}


def step(summary: Mapping[str, Any], rate_per_s: float, *, p95_limit_ms: float) -> dict[str, Any]:
    """A step of `sweep.json` from a run's summary."""
    end_to_end = summary["rows_ms"]["end_to_end"] or {}
    return {
        "rate_per_s": rate_per_s,
        "seed": summary["workload"]["seed"],
        "throughput_per_s": summary["pace"]["throughput_per_s"],
        **{f"{name}_ms": end_to_end.get(name) for name in ("p50", "p95", "p99")},
        "backlog_max": summary["backlog_max"],
        "drain_s": summary["pace"]["total_s"] - summary["pace"]["sending_s"],
        "sending_s": summary["pace"]["sending_s"],
        "total_s": summary["pace"]["total_s"],
        "answered": summary["counts"]["scheduled"] - summary["counts"]["dropped"],
        "dropped": summary["counts"]["dropped"],
        "usage": summary["usage"],
        "triton": summary["triton"],
        "recalled_share": summary["recalled_share"],
        "stages_ms": summary["stages_ms"],
        "state": state(summary, p95_limit_ms),
    }


def state(summary: Mapping[str, Any], p95_limit_ms: float) -> str:
    """holds, or what fits a failed step first: interrupted, invalid, dropped, behind, slow."""
    if summary["interrupted"]:
        return "interrupted"
    pace, p95 = summary["pace"], (summary["rows_ms"]["end_to_end"] or {}).get("p95")
    if not summary["valid"] and not _kafka_refused(summary):
        return "invalid"
    if summary["counts"]["dropped"]:
        return "dropped"
    if pace["total_s"] - pace["sending_s"] > max(_BEHIND_S, p95_limit_ms / 1000):
        return "behind"
    return "holds" if p95 is not None and p95 <= p95_limit_ms else "slow"


def _kafka_refused(summary: Mapping[str, Any]) -> bool:
    """Whether the generator kept its schedule, and Kafka did not accept what it sent."""
    counts, validity = summary["counts"], summary["workload"]["validity"]
    due = validity["sent_share"] * counts["scheduled"]
    late_ms = (summary["rows_ms"]["late"] or {}).get("p99", 0.0)
    in_time = late_ms <= validity["late_p99_ms"] and counts["sent"] >= due
    return bool(in_time and counts["accepted"] < due)


def find(steps: Sequence[Mapping[str, Any]], *, cores: int) -> dict[str, Any]:
    """The knee: bounds of the rate (None where open), in words, and what limits there.

    A step that was cut short says nothing; an invalid one nothing of the rate.
    """
    held = [each for each in steps if each["state"] == "holds"]
    bad = next((each for each in steps if each["state"] not in _NO_FAILURE), None)
    unsure = next((each for each in steps if each["state"] == "invalid"), None)
    cause = bad or unsure
    good = max(
        (each for each in held if bad is None or each["rate_per_s"] < bad["rate_per_s"]),
        key=lambda each: each["rate_per_s"],
        default=None,
    )
    return {
        "holds_per_s": good["rate_per_s"] if good else None,
        "breaks_per_s": bad["rate_per_s"] if bad else None,
        "text": _words(good, bad, unsure),
        "limit": limit(cause, cores=cores) if cause else _UNLIMITED,
    }


def limit(step: Mapping[str, Any], *, cores: int) -> str:
    """What limits at a step, from what was saturated there."""
    if step["state"] == "invalid":
        return "The generator limits: it could not keep its schedule, so the stack is not at fault."
    seconds = max(1e-9, step["total_s"])
    used = {name: each["cpu_cores"] for name, each in step["usage"].items()}
    # Counters are read a moment before and after, so their window is a little longer.
    triton = step["triton"]
    compute = min(1.0, triton.get("compute_s", 0.0) / triton.get("instances", 1.0) / seconds)
    most = max(used, key=lambda name: used[name], default="")
    if used and sum(used.values()) >= _SATURATED * cores:
        return (
            f"The processor limits: {sum(used.values()):.1f} of {cores} cores in use,"
            f" {used[most]:.1f} of them by {most}."
        )
    if compute >= _SATURATED:
        return f"The guard limits: Triton computes {100 * compute:.0f} % of the time, per instance."
    for name, share in used.items():
        if name.startswith("worker") and share >= _SATURATED:
            return f"The worker limits: {name} uses {share:.2f} cores, and its loop has one."
    return _no_limit(step)


def _no_limit(step: Mapping[str, Any]) -> str:
    stages = step["stages_ms"]
    if not stages:
        return "Nothing that was watched is saturated, and no message was judged."
    most = max(stages, key=lambda name: stages[name])
    return (
        f"Nothing that was watched is saturated; most time goes to {_STAGES[most]}"
        f" ({stages[most]:,.0f} ms on average). Other programs may use the machine."
    )


def _words(
    good: Mapping[str, Any] | None, bad: Mapping[str, Any] | None, unsure: Mapping[str, Any] | None
) -> str:
    if good is None:
        return _words_of_none(bad, unsure)
    holds = f"{good['rate_per_s']:,g} messages per second hold, p95 {good['p95_ms']:,.0f} ms"
    if bad is not None:
        return f"{holds}; {bad['rate_per_s']:,g} do not ({bad['state']})."
    if unsure is not None:
        return f"{holds}; {_nothing_said(unsure)}."
    return f"{holds}; no rate that was tried broke it."


def _words_of_none(bad: Mapping[str, Any] | None, unsure: Mapping[str, Any] | None) -> str:
    if bad is not None:
        rate = f"{bad['rate_per_s']:,g} per second: {bad['state']}"
        return f"Already the lowest rate did not hold ({rate})."
    if unsure is not None:
        return f"No rate was measured: {_nothing_said(unsure)}."
    return "No rate was finished."


def _nothing_said(unsure: Mapping[str, Any]) -> str:
    return f"the run at {unsure['rate_per_s']:,g} is invalid, which says nothing of the stack"
