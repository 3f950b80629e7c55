"""`sluice worker`."""

from __future__ import annotations

from pipeline import settings, telemetry
from pipeline.cli import session


def worker() -> None:
    """Judge what is published until stopped (SIGTERM or Ctrl-C drains first).

    Settings come from sluice.toml and SLUICE_* variables: see `sluice config show`.
    Health at http://127.0.0.1:8088/livez, /readyz and /metrics.
    """
    from pipeline import wiring_worker  # Faust takes half a second to import

    loaded = settings.load()
    telemetry.configure_logging(loaded.telemetry.log_level, loaded.telemetry.log_format)
    session.run_quickly(wiring_worker.run_worker(loaded))
