"""Specification of what our Faust app adds to Faust's."""

from __future__ import annotations

from pathlib import Path

import pytest
from faust.types.tuples import TP

from pipeline import faust_app
from pipeline.health import Health
from pipeline.settings import KafkaSettings


async def test_lag_is_not_measured_before_the_consumer_runs(tmp_path: Path) -> None:
    """Faust says it is started before it is: the beat in between must not end the worker."""
    app = faust_app.create(KafkaSettings(), data=tmp_path, health=Health(["partitions"]))
    app.measure_lag()


class _Assigned:
    """A consumer after a rebalance."""

    def __init__(self, *assigned: TP) -> None:
        self._assigned = set(assigned)

    def assignment(self) -> set[TP]:
        """What fell to it."""
        return self._assigned


@pytest.mark.parametrize("assigned", [(), (TP("prompts", 0),)])
async def test_a_worker_without_partitions_is_ready(
    assigned: tuple[TP, ...], tmp_path: Path
) -> None:
    """It stands by for the next rebalance: a rolling restart that waits for it must go on."""
    health = Health(["partitions"])
    app = faust_app.create(KafkaSettings(), data=tmp_path, health=health)
    app.consumer = _Assigned(*assigned)
    app.on_rebalance_end()
    ready, body = health.ready()
    assert ready
    assert body["partitions"]["detail"] == f"{len(assigned)} partitions assigned"
