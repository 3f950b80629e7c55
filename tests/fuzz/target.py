"""What a fuzz target is, and what counts as a finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import SluiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One property of the product that must hold for any bytes.

    `entry` turns the bytes into a case, runs it, and asserts what must hold.
    It may end in one of `allowed`, which name the remedy; whatever else it
    raises is a finding. `share` is its part of a whole run.
    """

    name: str
    entry: Callable[[bytes], None]
    allowed: tuple[type[SluiceError], ...] = ()
    seeds: Callable[[], Sequence[bytes]] = lambda: ()
    share: int = 1
    max_bytes: int = 512

    def run(self, data: bytes) -> None:
        """Run one input; an allowed error is no finding, as long as it says what to do."""
        try:
            self.entry(data)
        except self.allowed as error:
            if not error.remedy:
                raise AssertionError(f"{type(error).__name__} names no remedy") from error
