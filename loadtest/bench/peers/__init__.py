"""Programs that do the worker's work by other means; each runs as a process of its own."""

from __future__ import annotations
