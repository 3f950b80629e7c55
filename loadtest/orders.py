"""What the parent and its generator processes say to each other.

The parent writes one JSON line, the order, and later `go MONOTONIC_NS`. A
generator answers with JSON lines: `ready`, `progress` now and then, `done`.
Its rows, one a message, go to a file as a numpy array of dtype `rows.ROW`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from loadtest.rows import ROW
from loadtest.workload import Workload, validated


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One generator's part of a run: every `of`-th message from `part` on."""

    run: str
    workload: dict[str, Any]
    overrides: dict[str, Any]
    part: int
    of: int
    rows: str

    def line(self) -> bytes:
        """As one line of JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)

    def parsed(self) -> Workload:
        """The workload; it was checked when it was read."""
        return validated(self.workload, "order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a generator says: an event, counts so far, and histograms at the end.

    `open` is how many sent messages await acknowledgement; lateness in ms.
    """

    event: str
    sent: int = 0
    accepted: int = 0
    refused: int = 0
    late_ms: float = 0.0
    late: str = ""
    ack: str = ""
    error: str = ""

    def line(self) -> bytes:
        """As one line of JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)


def told(line: bytes) -> Told:
    """What a line says; raises ValueError when it is no such line."""
    return Told(**orjson.loads(line))


def order(line: bytes) -> Order:
    """The order in a line; raises ValueError when it is none."""
    return Order(**orjson.loads(line))


def load_rows(paths: list[Path]) -> np.ndarray[Any, Any]:
    """The rows of all generators, by sequence number."""
    rows = np.concatenate([np.load(path) for path in paths]) if paths else np.empty(0, ROW)
    return np.sort(rows, order="sequence")
