"""The `sluice` command: one file per group of commands."""

from __future__ import annotations

from pipeline.cli.app import main

__all__ = ["main"]
