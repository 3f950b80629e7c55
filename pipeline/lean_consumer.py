"""Faust's Kafka consumer, handing over a partition's messages at a time.

Faust wraps, tracks, hands over and acknowledges each message by itself, with
four tasks and a dozen calls a message. Here a fetch's messages of a partition
are one `Fetched`: handed to the agent's channel as they came, tracked as one,
and committed up to the offset that our ledger acknowledged last. Faust keeps
the group, the fetching, the pauses, the commits' timing and the seeks.

Memory is bounded in messages and in bytes: a partition whose channel holds too
much is paused until the agent has taken most of it. What one fetch returned
always fits, so that a channel exceeds its bytes by one fetch a partition.

Where every partition is paused, Faust sleeps a second before it looks again;
here it is 10 ms.

A look for new messages, and the batches it brings, cost what some dozen messages
do. Where messages are rare each is looked for at once; where they are many, looks
are 5 ms apart on average and find as many together, and 16 ms where much is under
way already, so that nobody is judged the sooner for being found sooner. The broker
gathers them: a fetch that we left lying here would hold what came first, and all
that came after it would wait for the next one.

It overrides what Faust's own loops call, in the pinned release;
`tests/unit/test_lean_consumer.py` fails when one of those methods changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Final
from weakref import WeakSet

from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types.tuples import TP

from pipeline.lean_client import LeanClient
from pipeline.pace import Pace

SCHEME: Final = "sluice"
"""The scheme of broker addresses that this transport serves."""

PAUSED_S: Final = 0.01
LOOK_EVERY_S: Final = 0.005
BUSY_LOOK_EVERY_S: Final = 0.016
BUSY_MESSAGES: Final = 32
"""So many fetched and not acknowledged are more than a round trip's worth."""
LOOKS_AHEAD_S: Final = 0.112
SEVERAL_BROKERS_S: Final = 2 * BUSY_LOOK_EVERY_S
"""So far ahead is who hears from several brokers, each at its own times, or gets much at once."""
BUFFER_BYTES: Final = 32 * 1024 * 1024
"""A channel that holds this much is full, however few its messages are."""
_FAUSTS_PAUSE_S: Final = 1
_DRAINED: Final = 0.4
"""Share of its bounds below which a full channel takes messages again."""


class Fetched:
    """Messages of one partition as one fetch returned them; offsets ascend.

    An `Origin` of the ledger's slots: acknowledging lets the partition be
    committed up to an offset, so it must be done in offset order.
    """

    # Faust reads `acked` and `refcount` of what it waits for before partitions are revoked.
    __slots__ = ("__weakref__", "_consumer", "_open", "generation", "records", "size_bytes", "tp")
    acked: Final = False

    def __init__(
        self, consumer: LeanConsumer, tp: TP, generation: int, records: Sequence[Any]
    ) -> None:
        self._consumer = consumer
        self._open = len(records)
        self.tp = tp
        self.generation = generation
        self.records = records
        self.size_bytes = sum(len(record.value or b"") for record in records)

    @property
    def refcount(self) -> int:
        """How many of its messages are neither acknowledged nor let go."""
        return self._open

    def track(self) -> None:
        """Let Faust wait for these messages before it gives the partition away."""
        self._consumer.unacked.add(self)

    def acknowledge(self, offset: int) -> None:
        """Let the partition be committed up to this message."""
        self._consumer.acknowledge(self.tp, offset)
        self._end_one()

    def forget(self, _offset: int) -> None:
        """Let go of a message without that: Kafka delivers it again."""
        self._end_one()

    def _end_one(self) -> None:
        self._open -= 1
        if not self._open:
            self._consumer.unacked.discard(self)


class LeanConsumer(Consumer):  # type: ignore[misc]
    """A consumer that hands over and commits many messages at a time."""

    _unacked_messages: WeakSet[Fetched]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pace = Pace(ahead_s=LOOKS_AHEAD_S)

    def _new_consumer_thread(self) -> LeanClient:
        return LeanClient(self)

    # Fetch -------------------------------------------------------------------

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109
        """Hand over what the next fetch returns; yields nothing to Faust's own loop."""
        self._resume_drained()
        await self._gather()
        records, active = await self._wait_next_records(
            PAUSED_S if self._buffered_partitions else timeout
        )
        if records:
            self._pace.spend(time.monotonic(), self._look_every_s())
        if records is None or self.should_stop:
            return
        if not active:
            self._thread.looked()
        if not self.flow_active:
            await self._seek_back()
            return
        generation = self.app.consumer_generation_id
        if not self.app.flow_control.is_active():
            await self.wait_first(self.app.flow_control.acquire(), self.suspend_flow.wait())
            if generation != self.app.consumer_generation_id:
                return  # another assignment began meanwhile, from what was committed
        for at, part in records.items():
            tp = TP(at.topic, at.partition)  # the client's are of a class of their own
            if self.flow_active and (tp in active or tp in self._buffered_partitions):
                self._hand_over(tp, generation, part)
        return
        yield  # what makes it the iterator that Faust's loop expects

    async def _gather(self) -> None:
        """Let messages gather at the broker once they come often, and here if brokers are many."""
        ahead_s = self._pace.wait_s(time.monotonic())
        self._thread.gather(self._look_every_s() if ahead_s else 0.0)
        if ahead_s > SEVERAL_BROKERS_S:
            await asyncio.sleep(ahead_s - SEVERAL_BROKERS_S)

    def _look_every_s(self) -> float:
        """The distance of looks in the long run, by how much is under way."""
        under_way = sum(fetched.refcount for fetched in self._unacked_messages)
        return BUSY_LOOK_EVERY_S if under_way >= BUSY_MESSAGES else LOOK_EVERY_S

    async def _seek_back(self) -> None:
        """As Faust does with what it fetched while the flow was being stopped."""
        try:
            await self.perform_seek()
        # The rebalance under way seeks again; to end the fetch loop would be the worse fault.
        except Exception as error:
            self.log.warning("cannot seek while the flow is stopped: %r", error)

    async def sleep(self, n: float, **options: Any) -> None:
        """Sleep; Faust's pause for full buffers is cut short."""
        await super().sleep(PAUSED_S if n == _FAUSTS_PAUSE_S else n, **options)

    # Hand over, within bounds ------------------------------------------------

    def _hand_over(self, tp: TP, generation: int, records: Sequence[Any]) -> None:
        """Put a partition's messages on its channel; pause it when that is full."""
        read = self._read_offset[tp]
        if read is not None and records[0].offset < read:  # fetched before a seek
            records = [record for record in records if record.offset >= read]
            if not records:
                return
        self._read_offset[tp] = records[-1].offset + 1
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        for channel in self._channels(tp):
            channel.queue.force_put_nowait(Fetched(self, tp, generation, records))
            if self._holds(channel, of_bounds=1.0):
                self.on_buffer_full(tp)

    def _resume_drained(self) -> None:
        if not self._buffered_partitions:
            return
        self._buffered_partitions &= self.assignment()  # Faust keeps what it had to give away
        for tp in tuple(self._buffered_partitions):
            if not any(self._holds(channel, of_bounds=_DRAINED) for channel in self._channels(tp)):
                self.on_buffer_drop(tp)

    def _channels(self, tp: TP) -> Iterable[Any]:
        """The channels of the agents on a topic."""
        found: Iterable[Any] = self.app.topics._topic_name_index[tp.topic]
        return found

    def _holds(self, channel: Any, *, of_bounds: float) -> bool:
        """True when a channel holds this share of either bound, or more."""
        waiting: Iterator[Fetched] = iter(channel.queue._queue)
        messages = size_bytes = 0
        for fetched in waiting:
            messages += len(fetched.records)
            size_bytes += fetched.size_bytes
        bound = self.app.conf.stream_buffer_maxsize
        return messages >= of_bounds * bound or size_bytes >= of_bounds * BUFFER_BYTES

    # Commit ------------------------------------------------------------------

    def acknowledge(self, tp: TP, offset: int) -> None:
        """Let everything up to an offset be committed; offsets ascend."""
        self._acked[tp] = [offset]

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: Faust's own would pass an unfinished message (issue 606)."""
        acked = self._acked.get(tp)
        return acked[-1] + 1 if acked else None


class LeanTransport(Transport):  # type: ignore[misc]
    """Kafka as Faust speaks it, with the lean consumer."""

    Consumer = LeanConsumer


TRANSPORTS.aliases[SCHEME] = f"{__name__}:LeanTransport"
