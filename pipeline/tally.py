"""Counts a batch's verdicts in the metrics: one look-up a batch and label, not a message."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pipeline import metrics
from pipeline.events import Kind, Verdict


def count(ended: Sequence[tuple[Verdict, int | None]], now_s: float) -> None:
    """Count published verdicts, each with its input's Kafka timestamp (ms), if it had one."""
    verdicts = [verdict for verdict, _ in ended]
    for topic, number in Counter([each.source.topic for each in verdicts]).items():
        metrics.MESSAGES.labels(topic, "verdict").inc(number)
    for labels, number in Counter([_labels(each) for each in verdicts]).items():
        metrics.VERDICTS.labels(*labels).inc(number)
    partly = [(each.status, each.action) for each in verdicts if not _whole(each)]
    for marks, number in Counter(partly).items():
        metrics.DEGRADED.labels(*marks).inc(number)
    _observe(ended, now_s)


def _labels(verdict: Verdict) -> tuple[str, str, str]:
    category = verdict.flagged[0].category if verdict.flagged else ""
    return verdict.kind, verdict.action, category


def _whole(verdict: Verdict) -> bool:
    return bool(verdict.guards) and verdict.coverage.complete


def _observe(ended: Sequence[tuple[Verdict, int | None]], now_s: float) -> None:
    """How long each took since its Kafka timestamp."""
    took_s: dict[Kind, list[float]] = defaultdict(list)
    for verdict, timestamp_ms in ended:
        if timestamp_ms is not None:
            took_s[verdict.kind].append(max(0.0, now_s - timestamp_ms / 1000))
    for kind, amounts in took_s.items():
        metrics.END_TO_END_SECONDS.labels(kind).observe_all(amounts)
