"""Hands messages to Kafka and keeps a row of each: when due, sent and acknowledged, and where."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loadtest import rows
from loadtest.histogram import Latencies
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.errors import SluiceError
from pipeline.ports import Outgoing

_NAMES: Final = rows.ROW.names or ()
_SEQUENCE, _SENT, _ACKED, _PARTITION, _OFFSET = (
    _NAMES.index(name) for name in ("sequence", "sent_ns", "acked_ns", "partition", "offset")
)
Row = list[int]
Told = Callable[["asyncio.Future[Any]"], tuple[int, int]]
"""Partition and offset of the first of an acknowledged future's messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A message encoded for its intended time."""

    sequence: int
    intended_ns: int
    record: Outgoing
    malformed: bool


class Sender:
    """Sends what is ready, waits for no acknowledgement, and notes each.

    `on_refused` is called with the sequence number of a message that Kafka did not take.
    """

    def __init__(self, publisher: KafkaPublisher, completions: str) -> None:
        """`completions` is the topic whose messages are noted as such."""
        self._publisher = publisher
        self._completions = completions
        self._rows: list[Row] = []
        self._waiting: set[asyncio.Future[Any]] = set()
        self._lanes: dict[tuple[str, int], list[tuple[Outgoing, Row]]] = defaultdict(list)
        self._pumping: set[tuple[str, int]] = set()
        self.late, self.acknowledged = Latencies(), Latencies()
        self.accepted = self.refused = 0
        self.on_refused: Callable[[int], None] = lambda _: None
        self.late_ns = 0

    @property
    def sent(self) -> int:
        """How many were handed to Kafka's client."""
        return len(self._rows)

    def table(self) -> NDArray[Any]:
        """A row of `rows.ROW` for each that was sent."""
        return np.array([tuple(row) for row in self._rows], dtype=rows.ROW)

    async def send(self, group: Sequence[Ready]) -> None:
        """Send messages now; several leave as a batch a partition, which costs far less."""
        sent_ns = time.monotonic_ns()
        noted = [(ready, self._note(ready, sent_ns)) for ready in group]
        if len(noted) == 1:
            await self._send_one(*noted[0])
        else:
            await self._send_together(noted)

    async def flush(self, timeout_s: float) -> None:
        """Wait for the acknowledgements that are still to come."""
        deadline_s = time.monotonic() + timeout_s
        while self._waiting and (left_s := deadline_s - time.monotonic()) > 0:
            await asyncio.wait(self._waiting, timeout=left_s)

    def _note(self, ready: Ready, sent_ns: int) -> Row:
        completion = ready.record.topic == self._completions
        kind = rows.COMPLETION if completion else rows.PROMPT
        row = [ready.sequence, ready.intended_ns, sent_ns, 0, kind, -1, -1, int(ready.malformed)]
        self._rows.append(row)
        self.late_ns = sent_ns - ready.intended_ns
        self.late.record_us(self.late_ns / 1000)
        return row

    async def _send_one(self, ready: Ready, row: Row) -> None:
        try:
            pending = await self._publisher.send(ready.record)
        except SluiceError:
            self._refuse([row])
            return
        self._await(pending, [row], lambda at: (at.result().partition, at.result().offset))

    async def _send_together(self, noted: Sequence[tuple[Ready, Row]]) -> None:
        rows_of = {id(ready.record): row for ready, row in noted}
        try:
            places = await self._publisher.by_place([ready.record for ready, _ in noted])
        except SluiceError:
            self._refuse([row for _, row in noted])
            return
        for place, part in places.items():
            self._lanes[place] += [(record, rows_of[id(record)]) for record in part]
            if place not in self._pumping:
                self._pumping.add(place)
                self._track(asyncio.create_task(self._pump(place)))

    async def _pump(self, place: tuple[str, int]) -> None:
        """Queue what waits for a partition, a batch at a time.

        Kafka's client takes a partition's next batch once the last has left: the schedule
        does not wait for that, and what is due meanwhile makes the next batch larger.
        """
        lane = self._lanes[place]
        while lane:
            records = [record for record, _ in lane]
            try:
                taken, first = await self._publisher.append(*place, records)
            except SluiceError:
                taken = len(records)
                self._refuse([row for _, row in lane[:taken]])
            else:
                queued = [row for _, row in lane[:taken]]
                self._await(first, queued, lambda at: (place[1], at.result()))
            del lane[:taken]
        self._pumping.discard(place)

    def _await(self, pending: asyncio.Future[Any], group: Sequence[Row], told: Told) -> None:
        self._track(pending)
        pending.add_done_callback(lambda at: self._ended(at, group, told))

    def _track(self, pending: asyncio.Future[Any]) -> None:
        self._waiting.add(pending)
        pending.add_done_callback(self._waiting.discard)

    def _refuse(self, group: Sequence[Row]) -> None:
        self.refused += len(group)
        for row in group:
            self.on_refused(row[_SEQUENCE])

    def _ended(self, at: asyncio.Future[Any], group: Sequence[Row], told: Told) -> None:
        if at.cancelled():
            return
        error = at.exception()
        if isinstance(error, SluiceError):
            self._refuse(group)
            return
        if error is not None:
            raise error
        acked_ns, (partition, first) = time.monotonic_ns(), told(at)
        for place, row in enumerate(group):
            row[_ACKED], row[_PARTITION], row[_OFFSET] = acked_ns, partition, first + place
            self.acknowledged.record_us((acked_ns - row[_SENT]) / 1000)
        self.accepted += len(group)
