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
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from loadtest import mix, orders, schedule
from loadtest.closed import Window
from loadtest.orders import Order, Told
from loadtest.sending import Ready, Sender
from loadtest.stamp import Stamp, message_id
from loadtest.workload import Closed, Workload
from pipeline import codec, settings
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.envelope import Envelope
from pipeline.errors import SluiceError
from pipeline.events import Kind
from pipeline.ports import Outgoing
from pipeline.resources import shipped

_PDEATHSIG: Final = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
_TELL_EVERY_S: Final = 0.5
_FLUSH_WITHIN_S: Final = 30.0
_FLUSH_STOPPED_S: Final = 1.0
"""Less than the parent waits before it kills."""

_BREATHE_EVERY: Final = 32
"""Messages sent in a row, when late, before acknowledgements are attended to."""
_GATHER_MS: Final = ((500, 10), (100, 2), (0, 0))
"""From so many messages a second on, those due within so long leave together; it is in their
lateness, as it would be in a client that lets batches gather."""
_POLL_S: Final = 0.0015
"""A timer of the loop may be a millisecond late: that last part of a wait for one is polled."""
_SETTLE_NS: Final = 50_000_000
"""Encoding ahead ends so long before the start."""


class Generator:
    """Sends one part of a workload and keeps a row for each message."""

    def __init__(self, order: Order, publisher: KafkaPublisher, at: settings.Settings) -> None:
        self._order = order
        self._workload: Workload = order.parsed()
        self._gather_ns = gather_ms(self._workload, order.of) * 1_000_000
        self._sender = Sender(publisher, at.topics.completions)
        self._recipe = mix.Recipe(self._workload)
        inputs = {Kind.PROMPT: at.topics.prompts, Kind.COMPLETION: at.topics.completions}
        self._envelope = Envelope(
            inputs,
            codec.load_schemas(shipped("schemas")),
            wire=self._workload.messages.wire,
            source="sluice/loadtest",
            max_bytes=at.topics.max_message_bytes,
        )
        self._settings = at

    async def run(self, start_ns: int) -> None:
        """Send everything and wait for the acknowledgements, for a moment when it is cancelled."""
        telling = asyncio.create_task(self._tell())
        try:
            if isinstance(self._workload.load, Closed):
                await self._closed(self._workload.load, start_ns)
            else:
                await self._open(start_ns)
            await self._sender.flush(_FLUSH_WITHIN_S)
        except asyncio.CancelledError:
            await self._sender.flush(_FLUSH_STOPPED_S)  # what is on its way was not refused
            raise
        finally:
            telling.cancel()

    async def _open(self, start_ns: int) -> None:
        """Send each message at its time, or at once when that has passed."""
        in_a_row = 0
        for group in self._together(self._ahead(start_ns)):
            if await self._until(group[-1].intended_ns):
                in_a_row = 0
            elif (in_a_row := in_a_row + len(group)) >= _BREATHE_EVERY:
                in_a_row = 0
                await asyncio.sleep(0.0)
            await self._sender.send(group)

    async def _until(self, due_ns: int) -> bool:
        """Return at that time; False when it has passed already."""
        early_s = 0.0 if self._gather_ns else _POLL_S
        if time.monotonic_ns() >= due_ns:
            return False
        while (wait_s := (due_ns - time.monotonic_ns()) / 1e9) > 0:
            await asyncio.sleep(max(0.0, wait_s - early_s))
        return True

    def _together(self, ready: Iterable[Ready]) -> Iterator[list[Ready]]:
        """Messages that are due within the time for which they gather."""
        group: list[Ready] = []
        for each in ready:
            if group and each.intended_ns - group[0].intended_ns >= max(1, self._gather_ns):
                yield group
                group = []
            group.append(each)
        if group:
            yield group

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

    async def _closed(self, load: Closed, start_ns: int) -> None:
        """From the start on, send the next message when one of those under way has ended."""
        part, of = self._order.part, self._order.of
        slots = len(range(part, load.concurrency, of)) or 1
        async with Window.open(self._settings, self._order.run, slots) as window:
            self._sender.on_refused = window.leave
            await self._until(start_ns)
            for sequence in range(part, load.messages, of):
                await window.enter(sequence, timeout_s=load.timeout_s)
                now_ns = time.monotonic_ns()
                await self._sender.send([self._ready(sequence, now_ns)])
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

    async def _tell(self) -> None:
        while True:
            say(self._told("progress"))
            await asyncio.sleep(_TELL_EVERY_S)

    def _told(self, event: str, **more: Any) -> Told:
        return Told(
            event=event,
            sent=self._sender.sent,
            accepted=self._sender.accepted,
            refused=self._sender.refused,
            late_ms=self._sender.late_ns / 1e6,
            **more,
        )

    def finish(self) -> None:
        """Write the rows and say so, with the histograms."""
        np.save(Path(self._order.rows), self._sender.table())
        late, ack = self._sender.late, self._sender.acknowledged
        say(self._told("done", late=late.encode(), ack=ack.encode()))


def gather_ms(workload: Workload, generators: int) -> int:
    """For how long a generator's messages gather: where they are few, waiting gathers none."""
    if isinstance(workload.load, Closed):
        return 0
    fastest = max(
        max(part.first_per_s, part.last_per_s) for part in schedule.segments(workload.load)
    )
    return next(ms for least_per_s, ms in _GATHER_MS if fastest / generators >= least_per_s)


def say(told: Told) -> None:
    """Tell the parent."""
    sys.stdout.buffer.write(told.line())
    sys.stdout.buffer.flush()


async def _main() -> None:
    lines = await _stdin()
    order = orders.order(await lines.readline())
    at = settings.load(order.overrides)
    limit = at.topics.max_message_bytes
    async with KafkaPublisher(at.kafka, max_message_bytes=limit, linger_ms=0) as publisher:
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
