"""What the worker itself costs a message, measured beside its peers."""

from __future__ import annotations
