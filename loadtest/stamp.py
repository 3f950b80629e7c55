"""The header that carries a message's intended send time. Pure.

`sluice-loadtest: RUN SEQUENCE MONOTONIC_NS WALL_NS`, in ASCII. The monotonic
time holds within one machine since its start; the wall time is for readers
elsewhere, as good as their clocks agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline import headers

HEADER: Final = "sluice-loadtest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Which message of which run, and when it was to be sent (nanoseconds)."""

    run: str
    sequence: int
    monotonic_ns: int
    wall_ns: int

    def header(self) -> tuple[str, bytes]:
        """As a Kafka header."""
        text = f"{self.run} {self.sequence} {self.monotonic_ns} {self.wall_ns}"
        return HEADER, text.encode("ascii")


def message_id(run: str, sequence: int) -> str:
    """The id of a run's message: unique, and readable by `sequence_of`."""
    return f"lt-{run}-{sequence}"


def sequence_of(message_id: str, run: str) -> int | None:
    """The sequence number in a message id of this run; None for others."""
    prefix = f"lt-{run}-"
    number = message_id.removeprefix(prefix)
    known = message_id.startswith(prefix) and number.isascii() and number.isdigit()
    return int(number) if known else None


def read(given: Iterable[tuple[str, bytes]]) -> Stamp | None:
    """The stamp among headers; None when there is none or it is not readable."""
    parts = (headers.first(given, HEADER) or "").split(" ")
    if len(parts) != 4:
        return None
    run, *numbers = parts
    if not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    sequence, monotonic_ns, wall_ns = map(int, numbers)
    return Stamp(run=run, sequence=sequence, monotonic_ns=monotonic_ns, wall_ns=wall_ns)
