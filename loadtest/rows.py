"""What a run brings home: rows of sent messages, of outcomes, and looks at the stack. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from loadtest.scrape import Pages
from pipeline.events import Status

ROW: Final = np.dtype(
    [
        ("sequence", "<i8"),
        ("intended_ns", "<i8"),  # monotonic, as all times here
        ("sent_ns", "<i8"),
        ("acked_ns", "<i8"),  # 0 when the broker never acknowledged it
        ("kind", "<i2"),  # 0 prompt, 1 completion
        ("partition", "<i4"),
        ("offset", "<i8"),
        ("malformed", "?"),
    ]
)
PROMPT: Final = 0
COMPLETION: Final = 1

FIELDS: Final = (
    "dead",  # 1 for a dead letter, 0 for a verdict
    "kind",  # 0 prompt, 1 completion, as in `orders`
    "partition",
    "offset",  # of the input
    "sequence",  # of this run, -1 when the outcome does not tell
    "seen_ns",  # monotonic
    "received_us",  # wall clock, as the three below; 0 when there is none
    "scored_us",
    "emitted_us",
    "status",  # index into `STATUSES`
)
STATUSES: Final = (Status.SCORED, Status.DEGRADED, Status.UNSCANNED, Status.UNKNOWN)

OBSERVER: Final = "observer"
"""The name of this process, whose children are the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """A process and its children: CPU seconds used so far, resident bytes now."""

    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """One look at the stack; None where nobody answered or nobody was asked."""

    at_ns: int
    late_ms: float
    lag: int | None
    triton: Pages | None
    worker: Pages | None
    usage: Mapping[str, Usage] = field(default_factory=dict)
