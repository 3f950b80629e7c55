"""The installed version."""

from __future__ import annotations

from importlib.metadata import version


def text() -> str:
    """Name and version, as `sluice --version` prints them."""
    return f"sluice {version('sluice')}"
