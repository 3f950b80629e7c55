"""Prometheus text as numbers, and what they gained between two looks. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

Values = Mapping[str, float]
"""Sums over labels by sample name; a label set is kept where it was asked for."""

Pages = Mapping[str, Values]
"""What each page said, by its address. A page is one process, which may begin anew."""

TRITON_PARTS: Final = {
    "queue": "nv_inference_queue_duration_us",
    "compute_input": "nv_inference_compute_input_duration_us",
    "compute": "nv_inference_compute_infer_duration_us",
    "compute_output": "nv_inference_compute_output_duration_us",
}
TRITON_REQUESTS: Final = "nv_inference_request_success"
TRITON_ROWS: Final = "nv_inference_count"
TRITON_EXECUTIONS: Final = "nv_inference_exec_count"
RECALLED_MUCH: Final = 0.1
"""From this share of messages without a guard call on, figures say little of the guard."""

WORKER_STAGES: Final = ("wait", "tokenise", "infer", "publish")
_TRITON: Final = "nv_"
_STAGE: Final = "sluice_stage_seconds"
_CACHE: Final = "sluice_score_cache_total"
_KEPT: Final = ("stage", "answer")
_RISING: Final = frozenset({"counter", "histogram"})
"""Families that fall only when their process begins anew; a gauge says nothing of that."""


def parse(text: str) -> Values:
    """Counters and histograms by name; some by `name{stage}`, `name{stage,le}`, `name{answer}`."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.type in _RISING else ():
            name = _name(sample.name, sample.labels)
            found[name] = found.get(name, 0.0) + sample.value
    return found


def gained(looks: Sequence[Pages]) -> Values:
    """What all pages gained over the looks, each page from one look at it to the next."""
    total: dict[str, float] = {}
    for url in {url for look in looks for url in look}:
        known = [look[url] for look in looks if url in look]
        for before, after in pairwise(known):
            for name, value in difference(after, before).items():
                total[name] = total.get(name, 0.0) + value
    return total


def difference(after: Values, before: Values) -> Values:
    """What a page gained between two looks; one that began anew counts from zero.

    One value that fell tells so of all: a bucket that has passed its old count
    again would make a histogram whose parts do not fit.
    """
    if any(value < before.get(name, 0.0) for name, value in after.items()):
        return after
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def triton_means_ms(delta: Values) -> Mapping[str, float]:
    """Mean milliseconds a request spent in each part; empty without requests."""
    requests = delta.get(TRITON_REQUESTS, 0.0)
    if not requests:
        return {}
    return {part: delta.get(name, 0.0) / requests / 1000 for part, name in TRITON_PARTS.items()}


def triton_load(delta: Values, instances: int) -> dict[str, float]:
    """Requests, rows and seconds of compute that Triton counted; empty without its page.

    Triton charges each request with the whole execution that it shared with others.
    """
    if not delta:
        return {}
    requests = delta.get(TRITON_REQUESTS, 0.0)
    executions = min(requests, delta.get(TRITON_EXECUTIONS, requests))
    share = executions / requests if requests else 1.0
    return {
        "instances": float(instances),
        "requests": requests,
        "rows": delta.get(TRITON_ROWS, 0.0),
        "compute_s": share * delta.get(TRITON_PARTS["compute"], 0.0) / 1e6,
        "queue_s": delta.get(TRITON_PARTS["queue"], 0.0) / 1e6,
    }


def inside_ms(triton: Values, worker: Values) -> dict[str, Mapping[str, float]]:
    """What Triton and the worker say of their own parts; those that told nothing left out."""
    made: dict[str, Mapping[str, float]] = {
        f"triton_{part}": {"avg": mean_ms} for part, mean_ms in triton_means_ms(triton).items()
    }
    for stage in WORKER_STAGES:
        if (spread := worker_stage_ms(worker, stage)) is not None:
            made[f"worker_{stage}"] = spread
    return made


def worker_stage_ms(delta: Values, stage: str) -> Mapping[str, float] | None:
    """Mean and estimated percentiles of a worker's stage; None when it did not occur.

    A percentile inside the first bucket is left out: only its upper bound is known.
    """
    count = delta.get(f"{_STAGE}_count{{{stage}}}", 0.0)
    if not count:
        return None
    edges = _edges(delta, stage)
    spread = {f"p{share}": quantile(edges, share / 100) for share in (50, 75, 90, 95, 99)}
    return {
        "avg": 1000 * delta.get(f"{_STAGE}_sum{{{stage}}}", 0.0) / count,
        **{name: 1000 * value for name, value in spread.items() if value >= edges[0][0]},
    }


def recalled_share(delta: Values) -> float | None:
    """The share of messages without a guard call of their own; None when none was scored."""
    calls = delta.get(f"{_CACHE}{{miss}}", 0.0)
    without = sum(delta.get(f"{_CACHE}{{{answer}}}", 0.0) for answer in ("hit", "shared"))
    return without / (without + calls) if without + calls else None


def quantile(edges: Sequence[tuple[float, float]], share: float) -> float:
    """A quantile from cumulative buckets (upper edge, count), evenly filled inside each."""
    total = edges[-1][1] if edges else 0.0
    low, below = 0.0, 0.0
    for edge, upto in edges:
        if upto >= share * total and upto > below:
            if math.isinf(edge):
                return low
            return low + (edge - low) * (share * total - below) / (upto - below)
        low, below = edge, upto
    return low


def _edges(delta: Values, stage: str) -> list[tuple[float, float]]:
    prefix = f"{_STAGE}_bucket{{{stage},"
    found = (
        (float(name.removeprefix(prefix).rstrip("}")), value)
        for name, value in delta.items()
        if name.startswith(prefix)
    )
    return sorted(found)


def _name(name: str, labels: Mapping[str, str]) -> str:
    # The parser adds the suffix to counters that were served without it, as Triton's are.
    if name.startswith(_TRITON):
        name = name.removesuffix("_total")
    kept = [labels[label] for label in _KEPT if label in labels]
    if not kept:
        return name
    return f"{name}{{{','.join([*kept, *([labels['le']] if 'le' in labels else [])])}}}"
