"""A process that keeps the schedule: `python -m loadtest.generator`.

It never waits for an answer before the next message is sent, and when it is
late it stays late: the schedule is not reset, so that a stall shows in every
message that it delayed. The closed loop is the exception by definition.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from loadtest import mix, orders, rows, schedule
from loadtest.closed import Window
from loadtest.histogram import Latencies
from loadtest.orders import Order, Told
from loadtest.stamp import Stamp, message_id
from loadtest.workload import Closed, Workload
from pipeline import codec, settings
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.envelope import Envelope
from pipeline.errors import SluiceError
from pipeline.events import Kind, Position
from pipeline.ports import Outgoing
from pipeline.resources import shipped

_PDEATHSIG: Final = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
_TELL_EVERY_S: Final = 0.5
_FLUSH_WITHIN_S: Final = 30.0
_BREATHE_EVERY: Final = 32
"""Messages sent in a row, when late, before acknowledgements are attended to."""
_TICK_S: Final = 0.002
"""Messages due within it are sent at one waking; it is in their lateness."""
_LINGER_MS: Final = 10
"""How long Kafka's client gathers a batch at `_FAST_PER_S` and more; it is in the latency."""
_FAST_PER_S: Final = 500
_SETTLE_NS: Final = 50_000_000
"""Encoding ahead ends so long before the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A message encoded for its intended time."""

    sequence: int
    intended_ns: int
    record: Outgoing
    malformed: bool


class Generator:
    """Sends one part of a workload and keeps a row for each message."""

    def __init__(self, order: Order, publisher: KafkaPublisher, at: settings.Settings) -> None:
        self._order = order
        self._workload: Workload = order.parsed()
        self._publisher = publisher
        self._recipe = mix.Recipe(self._workload)
        inputs = {Kind.PROMPT: at.topics.prompts, Kind.COMPLETION: at.topics.completions}
        self._envelope = Envelope(
            inputs,
            codec.load_schemas(shipped("schemas")),
            wire=self._workload.messages.wire,
            source="sluice/loadtest",
            max_bytes=at.topics.max_message_bytes,
        )
        self._rows: list[list[int]] = []
        self._waiting: set[asyncio.Task[Position]] = set()
        self._late, self._ack = Latencies(), Latencies()
        self._accepted = self._refused = 0
        self._late_ns = 0
        self._settings = at

    async def run(self, start_ns: int) -> None:
        """Send everything and wait for the acknowledgements."""
        telling = asyncio.create_task(self._tell())
        try:
            if isinstance(self._workload.load, Closed):
                await self._closed(self._workload.load)
            else:
                await self._open(start_ns)
            await self._flush()
        finally:
            telling.cancel()

    async def _open(self, start_ns: int) -> None:
        """Send each message at its time, or at once when that has passed."""
        for in_a_row, ready in enumerate(self._ahead(start_ns)):
            wait_s = (ready.intended_ns - time.monotonic_ns()) / 1e9
            if wait_s > 0:
                await asyncio.sleep(max(_TICK_S, wait_s))
            elif in_a_row % _BREATHE_EVERY == 0:
                await asyncio.sleep(0.0)
            await self._send(ready)

    def _ahead(self, start_ns: int) -> Iterator[Ready]:
        """The messages in order, encoded before the start as far as time allows."""
        made = (
            self._ready(sequence, start_ns + int(due_s * 1e9)) for sequence, due_s in self._mine()
        )
        kept: deque[Ready] = deque()
        while time.monotonic_ns() < start_ns - _SETTLE_NS and (ready := next(made, None)):
            kept.append(ready)
        while kept:
            yield kept.popleft()
        yield from made

    def _mine(self) -> Iterator[tuple[int, float]]:
        load = self._workload.load
        assert not isinstance(load, Closed)
        plan = schedule.segments(load)
        due = schedule.due(plan, arrivals=self._workload.arrivals, seed=self._workload.seed)
        return islice(enumerate(due), self._order.part, None, self._order.of)

    async def _closed(self, load: Closed) -> None:
        """Send the next message when one of those under way has its outcome."""
        part, of = self._order.part, self._order.of
        slots = len(range(part, load.concurrency, of)) or 1
        async with Window.open(self._settings, self._order.run, slots) as window:
            for sequence in range(part, load.messages, of):
                await window.enter(sequence, timeout_s=load.timeout_s)
                now_ns = time.monotonic_ns()
                await self._send(self._ready(sequence, now_ns))
            await window.drained(load.timeout_s)

    def _ready(self, sequence: int, intended_ns: int) -> Ready:
        piece = self._recipe.piece(sequence, message_id(self._order.run, sequence))
        wall_ns = intended_ns + time.time_ns() - time.monotonic_ns()
        sent_at = datetime.fromtimestamp(wall_ns / 1e9, UTC)
        record = self._envelope.around(replace(piece.message, sent_at=sent_at))
        stamp = Stamp(
            run=self._order.run, sequence=sequence, monotonic_ns=intended_ns, wall_ns=wall_ns
        )
        value = record.value or b""
        made = Outgoing(
            topic=record.topic,
            key=record.key,
            value=mix.cut(value, sequence) if piece.malformed else value,
            headers=(*record.headers, stamp.header()),
        )
        return Ready(
            sequence=sequence, intended_ns=intended_ns, record=made, malformed=piece.malformed
        )

    async def _send(self, ready: Ready) -> None:
        sent_ns = time.monotonic_ns()
        completion = ready.record.topic == self._settings.topics.completions
        kind = rows.COMPLETION if completion else rows.PROMPT
        row = [ready.sequence, ready.intended_ns, sent_ns, 0, kind, -1, -1, int(ready.malformed)]
        self._rows.append(row)
        self._late_ns = sent_ns - ready.intended_ns
        self._late.record_us(self._late_ns / 1000)
        try:
            acknowledged = await self._publisher.send(ready.record)
        except SluiceError:
            self._refused += 1
            return
        self._waiting.add(acknowledged)
        acknowledged.add_done_callback(partial(self._keep, row))

    def _keep(self, row: list[int], acknowledged: asyncio.Task[Position]) -> None:
        self._waiting.discard(acknowledged)
        if acknowledged.cancelled():
            return
        if isinstance(error := acknowledged.exception(), SluiceError):
            self._refused += 1
            return
        if error is not None:
            raise error
        position = acknowledged.result()
        acked_ns = time.monotonic_ns()
        row[3], row[5], row[6] = acked_ns, position.partition, position.offset
        self._ack.record_us((acked_ns - row[2]) / 1000)
        self._accepted += 1

    async def _flush(self) -> None:
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=_FLUSH_WITHIN_S)

    async def _tell(self) -> None:
        while True:
            say(self._told("progress"))
            await asyncio.sleep(_TELL_EVERY_S)

    def _told(self, event: str, **more: Any) -> Told:
        return Told(
            event=event,
            sent=len(self._rows),
            accepted=self._accepted,
            refused=self._refused,
            late_ms=self._late_ns / 1e6,
            **more,
        )

    def finish(self) -> None:
        """Write the rows and say so, with the histograms."""
        table = np.array([tuple(row) for row in self._rows], dtype=rows.ROW)
        np.save(Path(self._order.rows), table)
        say(self._told("done", late=self._late.encode(), ack=self._ack.encode()))


def linger_ms(workload: Workload, generators: int) -> int:
    """How long a record may wait for others: where they are few, waiting gathers none."""
    if isinstance(workload.load, Closed):
        return 0
    fastest = max(
        max(part.first_per_s, part.last_per_s) for part in schedule.segments(workload.load)
    )
    return _LINGER_MS if fastest / generators >= _FAST_PER_S else 0


def say(told: Told) -> None:
    """Tell the parent."""
    sys.stdout.buffer.write(told.line())
    sys.stdout.buffer.flush()


async def _main() -> None:
    lines = await _stdin()
    order = orders.order(await lines.readline())
    at = settings.load(order.overrides)
    limit = at.topics.max_message_bytes
    gather_ms = linger_ms(order.parsed(), order.of)
    async with KafkaPublisher(at.kafka, max_message_bytes=limit, linger_ms=gather_ms) as publisher:
        generator = Generator(order, publisher, at)
        say(Told(event="ready"))
        word, _, start_ns = (await lines.readline()).decode("ascii").partition(" ")
        if word != "go":
            return
        await _unless_orphaned(generator.run(int(start_ns)), lines)
        generator.finish()
        await lines.read()  # the parent may still want to see what this process used


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


async def _unless_orphaned(work: Any, lines: asyncio.StreamReader) -> None:
    """Do the work; end early when the parent closes its end, which is also the word to stop."""
    working = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(lines.read())
    await asyncio.wait({working, closed}, return_when=asyncio.FIRST_COMPLETED)
    closed.cancel()
    await asyncio.gather(closed, return_exceptions=True)  # one reader at a time
    if not working.done():
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
    else:
        working.result()


def main() -> int:
    """Serve one order; returns the exit status."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    if os.getppid() == 1:
        return 1
    try:
        asyncio.run(_main())
    except SluiceError as error:
        say(Told(event="failed", error=str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
