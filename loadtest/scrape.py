"""Prometheus text as numbers, and what they gained between two looks. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

Values = Mapping[str, float]
"""Sums over labels by sample name; a label set is kept where it was asked for."""

TRITON_PARTS: Final = {
    "queue": "nv_inference_queue_duration_us",
    "compute_input": "nv_inference_compute_input_duration_us",
    "compute": "nv_inference_compute_infer_duration_us",
    "compute_output": "nv_inference_compute_output_duration_us",
}
TRITON_REQUESTS: Final = "nv_inference_request_success"
TRITON_ROWS: Final = "nv_inference_count"
TRITON_EXECUTIONS: Final = "nv_inference_exec_count"
WORKER_STAGES: Final = ("wait", "tokenise", "infer", "publish")
_TRITON: Final = "nv_"
_STAGE: Final = "sluice_stage_seconds"


def parse(text: str) -> Values:
    """Samples by name; a stage's by `name{stage}` and `name{stage,le}`."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = _name(sample.name, sample.labels)
            found[name] = found.get(name, 0.0) + sample.value
    return found


def difference(after: Values, before: Values) -> Values:
    """What was added between two looks; a counter that began anew counts from zero."""
    return {
        name: value - before.get(name, 0.0) if value >= before.get(name, 0.0) else value
        for name, value in after.items()
    }


def triton_means_ms(delta: Values) -> Mapping[str, float]:
    """Mean milliseconds a request spent in each part; empty without requests."""
    requests = delta.get(TRITON_REQUESTS, 0.0)
    if not requests:
        return {}
    return {part: delta.get(name, 0.0) / requests / 1000 for part, name in TRITON_PARTS.items()}


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
    if "stage" not in labels:
        return name
    kept = [labels["stage"], *([labels["le"]] if "le" in labels else [])]
    return f"{name}{{{','.join(kept)}}}"
