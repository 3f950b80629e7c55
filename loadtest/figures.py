"""The numbers of a run: counts, latencies, stages, use of the machine, validity. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from loadtest import measure, processes, schedule, scrape
from loadtest.histogram import Latencies
from loadtest.measure import Floats, Joined
from loadtest.rows import OBSERVER, STATUSES, Vitals
from loadtest.workload import Closed, Workload
from pipeline.events import Status

BLOCKS: Final = 10
"""Stretches of a run whose differences say how noisy its figures are."""

_CLOCK_STEP_MS: Final = 5.0
_FEW_SKEWED: Final = 3
_OBSERVER_LATE_MS: Final = 500.0
_WHOLE_CORE: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Everything a run brought home; times monotonic in ns, offsets in us.

    `unwatched` says what samples of the stack are missing, in words.
    """

    workload: Workload
    scheduled: int
    start_ns: int
    sent_until_ns: int
    ended_ns: int
    joined: Joined
    late: Latencies
    ack: Latencies
    offset_us: tuple[float, float]
    vitals: Sequence[Vitals]
    unreadable: int
    triton_instances: int = 1
    interrupted: bool = False
    unwatched: Sequence[str] = ()


def counts(taken: Taken) -> dict[str, int]:
    """How many messages were scheduled, sent, accepted, and what became of them."""
    joined = taken.joined
    answered = int(np.count_nonzero(joined.answered))
    accepted = int(np.count_nonzero(joined.accepted))
    return {
        "scheduled": taken.scheduled,
        "sent": len(joined.rows),
        "accepted": accepted,
        "refused": len(joined.rows) - accepted,
        "verdicts": int(np.count_nonzero(joined.verdict >= 0)),
        "dead_lettered": int(np.count_nonzero(joined.dead >= 0)),
        "malformed": int(np.count_nonzero(joined.rows["malformed"])),
        "both": int(np.count_nonzero((joined.verdict >= 0) & (joined.dead >= 0))),
        "lost": accepted - answered,
        "dropped": taken.scheduled - answered,
        "duplicates": joined.duplicates,
        "degraded": _degraded(joined),
        "foreign": joined.foreign,
        "unreadable": taken.unreadable,
    }


def latencies(taken: Taken) -> dict[str, Latencies]:
    """Histograms by row name: end to end, naive, acknowledgement and the stages.

    A message that was sent and has no outcome, refused by Kafka or not, counts
    end to end with the time that it had waited when the run gave up: a lower
    bound, but leaving it out would show only those that were quick.
    """
    kept = warm(taken)
    joined = taken.joined
    offset_us = sum(taken.offset_us) / 2
    rows = {
        "end_to_end": _at_least(taken, measure.end_to_end_ms(joined), "intended_ns"),
        "naive": _at_least(taken, measure.naive_ms(joined), "sent_ns"),
        **measure.stages_ms(joined, offset_us),
    }
    if joined.call_us is not None:
        rows["added"] = measure.added_ms(joined)
    made = {name: _histogram(values[kept]) for name, values in rows.items()}
    return made | {"late": taken.late, "ack": taken.ack}


def stages(taken: Taken) -> dict[str, float]:
    """Mean milliseconds of each stage over the scored messages after the warm-up.

    They add up to the end-to-end mean of just these; empty when there are none.
    """
    spans = measure.stages_ms(taken.joined, sum(taken.offset_us) / 2)
    known = warm(taken) & ~np.isnan(np.sum(list(spans.values()), axis=0))
    if not known.any():
        return {}
    return {name: float(values[known].mean()) for name, values in spans.items()}


def warm(taken: Taken) -> measure.Rows:
    """True for rows whose intended time lies past the warm-up."""
    begin_ns = taken.start_ns + taken.workload.warmup_s * 1e9
    return np.asarray(taken.joined.rows["intended_ns"] >= begin_ns)


def pace(taken: Taken) -> dict[str, float]:
    """Offered and answered messages a second, and the length of it all in seconds."""
    joined, load = taken.joined, taken.workload.load
    planned_s = 0.0
    if not isinstance(load, Closed) and not taken.interrupted:
        planned_s = schedule.duration_s(schedule.segments(load))
    sending_s = max(planned_s, (taken.sent_until_ns - taken.start_ns) / 1e9, 1e-9)
    last_ns = int(joined.column("seen_ns").max(initial=0))
    total_s = max(sending_s, (last_ns - taken.start_ns) / 1e9)
    return {
        "offered_per_s": (len(joined.rows) if taken.interrupted else taken.scheduled) / sending_s,
        "throughput_per_s": int(np.count_nonzero(joined.answered)) / total_s,
        "sending_s": sending_s,
        "total_s": total_s,
    }


def blocks(taken: Taken) -> list[dict[str, float]]:
    """p50, p95, p99 (ms) of ten equal stretches of the schedule, and answers a second.

    Answers count when they came, over ten stretches from the first send to the last
    answer: the stretches of the schedule would show what was offered.
    """
    joined, kept = taken.joined, warm(taken)
    values = _at_least(taken, measure.end_to_end_ms(joined), "intended_ns")
    known = kept & ~np.isnan(values)
    at, seen = joined.rows["intended_ns"][known], joined.column("seen_ns")[kept & joined.answered]
    if len(at) < BLOCKS * 5 or not len(seen):
        return []
    parts = _stretched(values[known], at, at.min(), at.max())
    ends = at.min(), max(seen.max(), at.max())
    answers = _stretched(seen, seen, *ends)
    length_s = (ends[1] - ends[0]) / 1e9 / BLOCKS
    return [
        _block(part, len(came) / length_s)
        for part, came in zip(parts, answers, strict=True)
        if len(part)
    ]


def _stretched(values: Any, at: Any, first: int, last: int) -> list[Any]:
    """The values by equal stretches of the times that they stand at."""
    edges = np.linspace(first, last + 1, BLOCKS + 1)
    return [values[(at >= low) & (at < high)] for low, high in pairwise(edges)]


def backlog_max(taken: Taken) -> int:
    """The most messages that were accepted and without outcome at one time."""
    joined = taken.joined
    begun = joined.rows["sent_ns"][joined.accepted]
    ended = joined.column("seen_ns")[joined.answered]
    at = np.concatenate([begun, ended])
    steps = np.concatenate([np.ones(len(begun), int), -np.ones(len(ended), int)])
    # At equal times an end comes first: nothing was open in between.
    order = np.lexsort((steps, at))
    return int(np.cumsum(steps[order]).max(initial=0))


def usage(taken: Taken) -> dict[str, dict[str, float]]:
    """By process: CPU in cores over the run, peak memory in MiB, CPU a message in us.

    CPU is counted from the first send to the last outcome: waiting before and after is
    no part of the load.
    """
    messages = max(1, int(np.count_nonzero(taken.joined.answered)))
    end_ns = taken.start_ns + int(pace(taken)["total_s"] * 1e9)
    return processes.usage(taken.vitals, taken.start_ns, end_ns, messages)


def inside(taken: Taken) -> dict[str, Mapping[str, float]]:
    """What Triton and the worker say of their own parts, in milliseconds, over the run."""
    return scrape.inside_ms(_gained(taken, "triton"), _gained(taken, "worker"))


def triton_load(taken: Taken) -> dict[str, float]:
    """Requests, rows and seconds of compute that Triton counted over the run."""
    return scrape.triton_load(_gained(taken, "triton"), taken.triton_instances)


def recalled_share(taken: Taken) -> float | None:
    """The share of messages that workers judged without a guard call; None where none tells."""
    return scrape.recalled_share(_gained(taken, "worker"))


def lag_max(taken: Taken) -> int | None:
    """The largest consumer lag that was sampled."""
    known = [look.lag for look in taken.vitals if look.lag is not None]
    return max(known, default=None)


def reasons(taken: Taken) -> list[str]:
    """Why the run does not count; empty when it does."""
    limit, found = taken.workload.validity, []
    open_loop = not isinstance(taken.workload.load, Closed)
    late = taken.late.summary_ms()
    if open_loop and late is not None and late["p99"] > limit.late_p99_ms:
        found.append(
            f"the generator was late: p99 {late['p99']:,.0f} ms behind its schedule,"
            f" at most {limit.late_p99_ms:g} ms count"
        )
    counted, whole = counts(taken), max(1, taken.scheduled)
    if counted["sent"] < limit.sent_share * taken.scheduled:
        found.append(f"only {100 * counted['sent'] / whole:.1f} % of the schedule was sent")
    elif counted["accepted"] < limit.sent_share * taken.scheduled:
        share = 100 * counted["accepted"] / whole
        found.append(f"Kafka accepted only {share:.1f} % of the schedule")
    if taken.interrupted:
        found.append("it was interrupted")
    return found


def warnings(taken: Taken) -> list[str]:
    """What makes figures less sure without making the run invalid."""
    found = [*taken.unwatched]
    step_ms = abs(taken.offset_us[1] - taken.offset_us[0]) / 1000
    if step_ms > _CLOCK_STEP_MS:
        found.append(f"the wall clock moved by {step_ms:.0f} ms: stages after sending are skewed")
    if (skewed := measure.backwards(taken.joined, sum(taken.offset_us) / 2)) > _FEW_SKEWED:
        found.append(
            f"{skewed:,} messages have a stage below zero: the worker's clock is not this"
            " machine's. The stages leave them out, and those of the others are as doubtful"
        )
    if refused := counts(taken)["refused"]:
        found.append(
            f"Kafka did not accept {refused:,} messages, which count in the latency with what"
            " they had waited when the run ended: a lower bound"
        )
    if open_ := counts(taken)["lost"]:
        found.append(
            f"{open_:,} messages had no outcome when the run gave up on them,"
            f" {taken.workload.settle_s:g} s after the last was sent. They may still come, and"
            " count in the latency with what they had waited: a lower bound"
        )
    late = [look.late_ms for look in taken.vitals]
    if late and max(late) > _OBSERVER_LATE_MS:
        found.append(
            f"the observer stalled for up to {max(late):,.0f} ms: latencies may be too high"
        )
    if processes.busiest(taken.vitals, OBSERVER) > _WHOLE_CORE:
        found.append("the observer used a whole core: latencies may be too high")
    if (share := recalled_share(taken) or 0.0) > scrape.RECALLED_MUCH:
        found.append(
            f"{share:.0%} of the messages had no guard call of their own, as workers remembered"
            " their texts: the figures say little of the guard"
        )
    return found


def statistics(summaries: Mapping[str, Mapping[str, float] | None]) -> dict[str, float]:
    """Every `<row>_<statistic>_ms` that thresholds may name."""
    return {
        f"{'' if row == 'end_to_end' else row + '_'}{name}_ms": value
        for row, summary in summaries.items()
        for name, value in (summary or {}).items()
    }


def _gained(taken: Taken, name: str) -> scrape.Values:
    """What counters gained over the samples; empty without two of a page."""
    return scrape.gained([pages for look in taken.vitals if (pages := getattr(look, name))])


def _at_least(taken: Taken, values_ms: Floats, since: str) -> Floats:
    """The values, with what was waited so far where a message has no outcome."""
    joined = taken.joined
    waited_ms = (taken.ended_ns - joined.rows[since]) / 1e6
    return np.where(joined.answered, values_ms, waited_ms)


def _degraded(joined: Joined) -> int:
    status = joined.column("status", joined.verdict)
    fully = STATUSES.index(Status.SCORED)
    return int(np.count_nonzero((joined.verdict >= 0) & (status != fully)))


def _histogram(values_ms: Floats) -> Latencies:
    return Latencies.of(1000 * values_ms[~np.isnan(values_ms)])


def _block(values: Any, answers_per_s: float) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "answers_per_s": answers_per_s,
    }
