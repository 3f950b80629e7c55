"""A run second by second, for `series.csv` and the charts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from loadtest import measure, scrape
from loadtest.figures import Taken
from loadtest.rows import Vitals

Row = dict[str, float | None]
_HEAT_COLUMNS: Final = 60
_HEAT_ROWS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """How many messages took how long when: counts [latency bins, time bins].

    `time_s` and `latency_ms` hold the bins' edges, one more than bins each.
    """

    time_s: Any
    latency_ms: Any
    counts: Any


def rows(taken: Taken) -> list[Row]:
    """One row a second, from the start of the schedule to the last outcome."""
    joined = taken.joined
    at = {
        "scheduled": _seconds(taken, joined.rows["intended_ns"]),
        "sent": _seconds(taken, joined.rows["sent_ns"]),
        "accepted": _seconds(taken, joined.rows["acked_ns"][joined.rows["acked_ns"] > 0]),
        "verdicts": _seconds(taken, joined.column("seen_ns")[joined.verdict >= 0]),
        "dead_letters": _seconds(taken, joined.column("seen_ns")[joined.dead >= 0]),
    }
    length = 1 + max((int(times.max(initial=0)) for times in at.values()), default=0)
    table: dict[str, Any] = {
        name: np.bincount(times, minlength=length) for name, times in at.items()
    }
    table["backlog"] = np.cumsum(table["sent"] - table["verdicts"] - table["dead_letters"])
    table |= _latency(taken, length)
    extra = _sampled(taken, length)
    return [
        {"t_s": float(t), **{name: _plain(table[name][t]) for name in table}, **next(extra)}
        for t in range(length)
    ]


def heat(taken: Taken) -> Heat | None:
    """Latency over time; None when no message was answered."""
    values = measure.end_to_end_ms(taken.joined)
    kept = taken.joined.answered
    if not kept.any():
        return None
    values = np.maximum(values[kept], 0.1)
    times = (taken.joined.rows["intended_ns"][kept] - taken.start_ns) / 1e9
    top = max(values.max() * 1.05, values.min() * 2)
    latency_edges = np.geomspace(values.min() * 0.95, top, _HEAT_ROWS + 1)
    time_edges = np.linspace(0, max(1e-3, times.max() * 1.0001), _HEAT_COLUMNS + 1)
    counts, _, _ = np.histogram2d(values, times, bins=[latency_edges, time_edges])
    return Heat(time_s=time_edges, latency_ms=latency_edges, counts=counts)


def _latency(taken: Taken, length: int) -> dict[str, Any]:
    """Percentiles of messages by the second they were meant for."""
    values, late = measure.end_to_end_ms(taken.joined), measure.late_ms(taken.joined)
    second = _seconds(taken, taken.joined.rows["intended_ns"])
    answered = taken.joined.answered
    return {
        "p50_ms": _per_second(values[answered], second[answered], 50, length),
        "p95_ms": _per_second(values[answered], second[answered], 95, length),
        "max_ms": _per_second(values[answered], second[answered], 100, length),
        "late_p99_ms": _per_second(late, second, 99, length),
    }


def _per_second(values: Any, second: Any, share: float, length: int) -> Any:
    made = np.full(length, np.nan)
    order = np.argsort(second, kind="stable")
    values, second = values[order], second[order]
    edges = np.searchsorted(second, np.arange(length + 1))
    for t in range(length):
        if edges[t + 1] > edges[t]:
            made[t] = np.percentile(values[edges[t] : edges[t + 1]], share)
    return made


def _sampled(taken: Taken, length: int) -> Iterator[Row]:
    """Lag, processes and Triton at the sample that follows each second."""
    looks = list(zip(taken.vitals, taken.vitals[1:], strict=False))
    ends = [(after.at_ns - taken.start_ns) / 1e9 for _, after in looks]
    names = sorted({name for look in taken.vitals for name in look.usage})
    for t in range(length):
        number = int(np.searchsorted(ends, t + 1e-9)) if looks else 0
        yield _between(*looks[number], names) if number < len(looks) else _nothing(names)


def _between(before: Vitals, after: Vitals, names: Sequence[str]) -> Row:
    seconds = max(1e-9, (after.at_ns - before.at_ns) / 1e9)
    row: Row = {"lag": after.lag}
    for name in names:
        old, new = before.usage.get(name), after.usage.get(name)
        row[f"cpu_{name}"] = (new.cpu_s - old.cpu_s) / seconds if old and new else None
        row[f"rss_mib_{name}"] = new.rss_bytes / 2**20 if new else None
    means = {}
    if before.triton is not None and after.triton is not None:
        means = dict(scrape.triton_means_ms(scrape.gained([before.triton, after.triton])))
    return row | {f"triton_{part}_ms": means.get(part) for part in ("queue", "compute")}


def _nothing(names: Sequence[str]) -> Row:
    per_process = [f"{kind}_{name}" for name in names for kind in ("cpu", "rss_mib")]
    return dict.fromkeys(["lag", *per_process, "triton_queue_ms", "triton_compute_ms"])


def _seconds(taken: Taken, at_ns: Any) -> Any:
    return np.maximum(0, (at_ns - taken.start_ns) // 1_000_000_000).astype(np.int64)


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
