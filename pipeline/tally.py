"""Counts a batch's verdicts in the metrics: one look-up a batch and label, not a message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pipeline import metrics
from pipeline.events import Kind, Verdict


def count(ended: Iterable[tuple[Verdict, int | None]], now_s: float) -> None:
    """Count published verdicts, each with its input's Kafka timestamp (ms), if it had one."""
    topics: Counter[str] = Counter()
    verdicts: Counter[tuple[str, str, str]] = Counter()
    degraded: Counter[tuple[str, str]] = Counter()
    took_s: dict[Kind, list[float]] = {kind: [] for kind in Kind}
    for verdict, timestamp_ms in ended:
        category = verdict.flagged[0].category if verdict.flagged else ""
        topics[verdict.source.topic] += 1
        verdicts[verdict.kind, verdict.action, category] += 1
        if not verdict.coverage.complete or not verdict.guards:
            degraded[verdict.status, verdict.action] += 1
        if timestamp_ms is not None:
            took_s[verdict.kind].append(max(0.0, now_s - timestamp_ms / 1000))
    for topic, number in topics.items():
        metrics.MESSAGES.labels(topic, "verdict").inc(number)
    for labels, number in verdicts.items():
        metrics.VERDICTS.labels(*labels).inc(number)
    for marks, number in degraded.items():
        metrics.DEGRADED.labels(*marks).inc(number)

    for kind, amounts in took_s.items():
        if amounts:
            metrics.END_TO_END_SECONDS.labels(kind).observe_all(amounts)
