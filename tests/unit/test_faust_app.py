"""Specification of what our Faust app adds to Faust's."""

from __future__ import annotations

from pathlib import Path

from pipeline import faust_app
from pipeline.health import Health
from pipeline.settings import KafkaSettings


async def test_lag_is_not_measured_before_the_consumer_runs(tmp_path: Path) -> None:
    """Faust says it is started before it is: the beat in between must not end the worker."""
    app = faust_app.create(KafkaSettings(), data=tmp_path, health=Health(["partitions"]))
    app.measure_lag()
