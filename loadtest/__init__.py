"""Load tests of a running stack."""

from __future__ import annotations
