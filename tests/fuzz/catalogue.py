"""Every target, and how a whole run is shared among them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from . import decoding, files, planning, policies, templates, typed
from .target import Target

TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        target.name: target
        for module in (decoding, policies, templates, planning, typed, files)
        for target in module.TARGETS
    }
)
"""By name, in the order in which they run."""


def _planted(data: bytes) -> None:
    """Fails where one byte stands."""
    assert b"!" not in data


PLANTED: Final = Target(name="planted", entry=_planted, max_bytes=16)
"""A mistake that every run must find first, or it could find none."""


def shared_out(runs: int) -> dict[str, int]:
    """How many inputs each target gets of a run, by its share; together at least `runs`."""
    total = sum(target.share for target in TARGETS.values())
    return {name: -(-runs * target.share // total) for name, target in TARGETS.items()}
