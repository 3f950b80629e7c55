"""Show on readiness, and count, that the broker does not take what is published.

An idempotent producer whose broker is away neither fails nor gives up: it tries
for ever and says nothing. Whoever publishes through this is seen to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pipeline import metrics
from pipeline.errors import SluiceError
from pipeline.health import Health
from pipeline.ports import AuditLog, Outgoing, Publisher

CHECK: Final = "outputs"
"""The readiness check that says whether outcomes can be published."""

OVERDUE_S: Final = 5.0
"""An acknowledgement that takes this long counts as missing, and again every so often."""

_WELL: Final = "nothing is overdue"


class Outputs:
    """Keeps the check `outputs` true to what is waited for.

    Failures are kept by the topics they concern, so that verdicts that go
    through do not hide dead letters that cannot.
    """

    def __init__(self, health: Health, *, overdue_s: float = OVERDUE_S) -> None:
        self._health = health
        self._overdue_s = overdue_s
        self._failing: dict[frozenset[str], str] = {}
        health.set(CHECK, ok=True, detail=_WELL)

    @contextmanager
    def watched(self, records: Sequence[Outgoing]) -> Iterator[None]:
        """Show the wait inside the block once it is long, and the error that ends it."""
        topics = frozenset(record.topic for record in records)
        try:
            with self._clocked(topics):
                yield
        except SluiceError as error:
            self._failed(topics, str(error))
            raise
        if self._failing.pop(topics, None) is not None:
            self._show()

    @contextmanager
    def _clocked(self, topics: frozenset[str]) -> Iterator[None]:
        """Count and show that it waits, again and again until it has ended."""
        clock = _Overdue(self._overdue_s, lambda: self._late(topics))
        try:
            yield
        finally:
            clock.stop()

    def _late(self, topics: frozenset[str]) -> None:
        metrics.PUBLISH_ERRORS.inc()
        why = f"no acknowledgement from Kafka in {self._overdue_s:g} s. It is waited for"
        self._failed(topics, why)

    def _failed(self, topics: frozenset[str], why: str) -> None:
        self._failing[topics] = f"{', '.join(sorted(topics))}: {why}"
        self._show()

    def _show(self) -> None:
        why = next(iter(self._failing.values()), _WELL)
        self._health.set(CHECK, ok=not self._failing, detail=why)


class _Overdue:
    """Calls back every so many seconds until it is stopped; holds nothing afterwards.

    There is one for each batch: what held itself would wait for the garbage collector.
    """

    def __init__(self, every_s: float, tell: Callable[[], None]) -> None:
        self._every_s = every_s
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self._wind()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _wind(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._due)

    def _due(self) -> None:
        self._tell()
        self._wind()


class WatchedPublisher:
    """A `Publisher` whose failures and waits show."""

    def __init__(self, publisher: Publisher, outputs: Outputs) -> None:
        self._publisher = publisher
        self._outputs = outputs

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """As the publisher's own; see `ports.Publisher`."""
        with self._outputs.watched(records):
            await self._publisher.publish(records)


class WatchedAudit:
    """An `AuditLog` whose failures and waits show."""

    def __init__(self, audit: AuditLog, outputs: Outputs) -> None:
        self._audit = audit
        self._outputs = outputs

    async def write(self, events: Sequence[Outgoing]) -> None:
        """As the audit log's own; see `ports.AuditLog`."""
        with self._outputs.watched(events):
            await self._audit.write(events)
