"""Sluice: streaming moderation with accountable verdicts."""

from __future__ import annotations
