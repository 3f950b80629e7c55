"""Runs made by hand: what generators and observer would have brought home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.figures import Taken
from loadtest.histogram import Latencies
from loadtest.measure import join
from loadtest.rows import FIELDS, ROW, Usage, Vitals
from loadtest.summary import About, summarise
from loadtest.workload import validated

START_NS = 1_000_000_000_000
OFFSET_US = 5_000_000.0
MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message: when it was due and sent, when its verdicts came (all in ms); and its fate."""

    due_ms: float
    late_ms: float = 0.0
    seen_ms: Sequence[float] = (20.0,)
    dead: bool = False
    acked: bool = True
    placed: bool = True
    status: int = 0


def rows_of(messages: Sequence[Sent]) -> Any:
    """The generators' rows; one partition, offset = number."""
    made = []
    for number, each in enumerate(messages):
        intended_ns = START_NS + int(each.due_ms * MS)
        sent_ns = intended_ns + int(each.late_ms * MS)
        acked_ns = sent_ns + MS if each.acked else 0
        offset = number if each.acked and each.placed else -1
        made.append((number, intended_ns, sent_ns, acked_ns, 0, 0, offset, each.dead))
    return np.array(made, dtype=ROW)


def seen_of(messages: Sequence[Sent]) -> Any:
    """The observer's rows: 5 ms to the worker, 10 ms judging, 1 ms concluding."""
    made = []
    for number, each in enumerate(messages):
        for seen_ms in each.seen_ms:
            sent_ns = START_NS + int((each.due_ms + each.late_ms) * MS)
            received_us = int(sent_ns / 1000 + OFFSET_US) + 5000
            stamps = (
                [0, 0, 0] if each.dead else [received_us + extra for extra in (0, 10000, 11000)]
            )
            seen_ns = START_NS + int((each.due_ms + seen_ms) * MS)
            made.append([int(each.dead), 0, 0, number, number, seen_ns, *stamps, each.status])
    return np.array(made, dtype=np.int64).reshape(-1, len(FIELDS))


def taken(messages: Sequence[Sent], *, scheduled: int | None = None, **change: Any) -> Taken:
    """A run of these messages; `change` overrides parts of its workload."""
    late = Latencies.of([1000 * each.late_ms for each in messages])
    seconds = max((each.due_ms for each in messages), default=0) / 1000 + 0.001
    load = {"mode": "rate", "rate_per_s": max(1, len(messages)) / seconds, "duration_s": seconds}
    rows = rows_of(messages)
    return Taken(
        workload=validated({"question": "does it hold?", "load": load} | change, "test"),
        scheduled=len(messages) if scheduled is None else scheduled,
        start_ns=START_NS,
        sent_until_ns=int(rows["sent_ns"].max(initial=START_NS)),
        ended_ns=START_NS + int((1000 * seconds + 9000) * MS),
        joined=join(rows, seen_of(messages)),
        late=late,
        ack=Latencies.of([1000.0] * len(messages)),
        offset_us=(OFFSET_US, OFFSET_US),
        vitals=[look(second, cpu_s=0.5 * second) for second in range(int(seconds) + 3)],
        unreadable=0,
    )


def look(second: int, *, cpu_s: float, lag: int = 3) -> Vitals:
    """A sample of a stack whose one worker has used so much CPU."""
    triton = {
        "nv_inference_request_success": 10.0 * second,
        "nv_inference_compute_infer_duration_us": 200_000.0 * second,
        "nv_inference_queue_duration_us": 10_000.0 * second,
    }
    return Vitals(
        at_ns=START_NS + second * 1000 * MS,
        late_ms=0.0,
        lag=lag,
        triton={"http://triton/metrics": triton},
        worker=None,
        usage={"worker-1": Usage(cpu_s=cpu_s, rss_bytes=100 * 2**20)},
    )


def steady(count: int = 400, *, every_ms: float = 10.0, seen_ms: float = 20.0) -> list[Sent]:
    """Messages at even distances, each answered after about the same time."""
    return [Sent(due_ms=n * every_ms, seen_ms=(seen_ms + n % 7,)) for n in range(count)]


def summary(run: Taken) -> dict[str, Any]:
    """The document of a run."""
    about = About(
        run="ab12",
        name="by-hand",
        target="embedded",
        began_at="2026-01-02T03:04:05+00:00",
        environment={
            "processor": "p", "cores": 2, "load_average": [0.1, 0.1, 0.1], "commit": None,
            "versions": {"sluice": "1"},
        },
        policies=(("<b>default", "1", "d" * 64),),
        guards=(("tiny", "1", "e" * 64),),
    )  # fmt: skip
    return summarise(run, about)
