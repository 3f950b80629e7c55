"""The slices of outside systems that the services need, three methods at most."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pipeline.headers import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """A guard's answer: `logits` float32 [rows, labels] and who computed them."""

    logits: NDArray[np.float32]
    version: str
    elapsed_s: float


class Outgoing(Struct, frozen=True, kw_only=True, gc=False):
    """A record to publish; `key` and `value` as they go on the wire."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


class Classifier(Protocol):
    """The slice of an inference server we need: one guard's forward pass."""

    async def infer(
        self, guard: str, rows: Sequence[Sequence[int]], *, length: int, pad_id: int
    ) -> Inference:
        """Logits of token-id rows, each padded to `length`.

        Raises Retryable when the server did not answer in time or not
        usably, Rejected when it refused this input for good.
        """


class Publisher(Protocol):
    """The slice of a broker we need to emit: every record acknowledged, or an error."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Return once all replicas in sync have every record.

        Raises Retryable when they may not have; Misconfigured when they
        never will.
        """


class AuditLog(Protocol):
    """Where audit events end: in their writer's hash chains."""

    async def write(self, events: Sequence[Outgoing]) -> None:
        """Return once every event, given up to its link, is acknowledged in a chain.

        It tries again by itself; raises Misconfigured when that is of no use.
        """


class Appender(Protocol):
    """The slice of a broker that a chain needs: what lies where, in which order."""

    async def partitions(self, topic: str, keys: Sequence[bytes | None]) -> list[int]:
        """The partition that each key belongs to; raises Retryable."""

    async def append(
        self, topic: str, partition: int, records: Sequence[Outgoing]
    ) -> tuple[int, Awaitable[int]]:
        """Queue the first records as one batch; how many, and their first offset when acknowledged.

        Batches of a partition are acknowledged in the order of these calls.
        The offset is negative where the broker cannot tell it. Both raise
        what `Publisher.publish` raises; when the call itself raises, or is
        cancelled, nothing was queued.
        """


class SchemaRegistry(Protocol):
    """The slice of a schema registry we need: a writer schema by its id."""

    async def schema(self, schema_id: int) -> str | None:
        """The schema's JSON text, None if there is none; raises Retryable."""


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> datetime:
        """Wall clock in UTC, for stamps."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and deadlines."""
