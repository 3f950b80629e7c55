"""Writes audit events into hash chains: stamps, queues and confirms them in order.

Each partition of the audit topic has a lane with one open chain. An event is
stamped with its link and queued under the lane's lock, so that the order in
the partition is the order of the sequence. Acknowledgements move the head;
a failure breaks the chain off, and what its head does not hold is stamped
again in the next.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from pipeline import chain, codec, metrics
from pipeline.chain import Chain, ChainHead, Tip
from pipeline.errors import Retryable, SluiceError
from pipeline.ports import Appender, Outgoing
from pipeline.retrying import until_done

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A batch that was queued: its events, the chain and the place of its last event."""

    events: Sequence[Outgoing]
    chain: Chain
    last: Tip
    acknowledged: asyncio.Future[int]

    @property
    def failure(self) -> SluiceError | None:
        """Why the broker did not acknowledge it, once that is known."""
        if self.acknowledged.cancelled():
            return _BROKEN
        error = self.acknowledged.exception()
        if error is None or isinstance(error, SluiceError):
            return error
        raise error

    @property
    def proved(self) -> bool:
        """Whether the chain's head holds all of it."""
        return self.chain.holds(self.last)


class ChainedLog:
    """An `AuditLog` over an `Appender`: one start of a writer.

    `on_change` is called when a chain begins or breaks off: there is a head to
    write down at once.
    """

    def __init__(
        self,
        topic: str,
        *,
        appender: Appender,
        schemas: codec.Schemas,
        worker_id: str,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._topic = topic
        self._appender = appender
        self._schemas = schemas
        self._worker_id = worker_id
        self._start = secrets.token_hex(6)
        self._on_change = on_change
        self._lanes: dict[int, _Lane] = {}
        self._pending: set[asyncio.Future[int]] = set()

    async def write(self, events: Sequence[Outgoing]) -> None:
        """Return once every event is acknowledged in a chain; see `ports.AuditLog`."""
        left = events

        async def attempt() -> None:
            """Write what is left; raises why some of it still is."""
            nonlocal left
            left, error = await self._try(left)
            if error is not None:
                raise error

        await until_done(attempt, wait_max_s=5.0)

    def heads(self) -> list[ChainHead]:
        """How far each chain has come: those that ended, then the open ones."""
        return [each.head for lane in self._lanes.values() for each in lane.chains]

    def forget(self, ended: Iterable[str]) -> None:
        """Drop chains that ended, once their last head is written down."""
        gone = frozenset(ended)
        for lane in self._lanes.values():
            lane.chains = [each for each in lane.chains if each.open or each.id not in gone]

    async def close(self, timeout_s: float) -> None:
        """End every chain, once what was queued is acknowledged or the time is up."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=timeout_s)
        for lane in self._lanes.values():
            for each in lane.chains:
                each.close()

    async def _try(self, events: Sequence[Outgoing]) -> tuple[list[Outgoing], SluiceError | None]:
        """One attempt: the events that no head holds then, and why."""
        sent: list[_Sent] = []
        unsent: list[Outgoing] = []
        error: SluiceError | None = None
        for lane, group in await self._by_lane(events):
            try:
                await self._queue(lane, group, sent)
            except Retryable as failed:
                error = failed
            unsent += group
        if sent:
            await asyncio.wait([each.acknowledged for each in sent])
        lost = [each for each in sent if not each.proved]
        return unsent + [event for each in lost for event in each.events], _worst(lost) or error

    async def _by_lane(self, events: Sequence[Outgoing]) -> Iterable[tuple[_Lane, list[Outgoing]]]:
        places = await self._appender.partitions(self._topic, [event.key for event in events])
        groups: dict[int, list[Outgoing]] = defaultdict(list)
        for partition, event in zip(places, events, strict=True):
            groups[partition].append(event)
        return [(self._lane(partition), group) for partition, group in groups.items()]

    def _lane(self, partition: int) -> _Lane:
        if partition not in self._lanes:
            self._lanes[partition] = _Lane(partition)
        return self._lanes[partition]

    async def _queue(self, lane: _Lane, waiting: list[Outgoing], sent: list[_Sent]) -> None:
        """Move what waits to what was sent, batch by batch; raises what `append` raises."""
        async with lane.lock:
            while waiting:
                growing = self._growing(lane)
                stamped, tips = self._stamp(growing, waiting)
                # If it raises nothing was queued, and the tip stays where it was.
                count, acknowledged = await self._appender.append(
                    self._topic, lane.partition, stamped
                )
                growing.tip = tips[count - 1]
                sent.append(self._await(growing, waiting[:count], acknowledged))
                del waiting[:count]

    def _growing(self, lane: _Lane) -> Chain:
        if not lane.chains or not lane.chains[-1].open:
            begun = Chain(
                f"{self._worker_id}/{self._start}/{lane.partition}/{lane.begun}",
                worker_id=self._worker_id,
                topic=self._topic,
                partition=lane.partition,
            )
            lane.begun += 1
            lane.chains.append(begun)
            self._on_change()
        return lane.chains[-1]

    def _stamp(
        self, growing: Chain, events: Sequence[Outgoing]
    ) -> tuple[list[Outgoing], list[Tip]]:
        """The events with their links, and the chain's tip after each."""
        stamped: list[Outgoing] = []
        tips: list[Tip] = []
        tip = growing.tip
        for event in events:
            link = chain.next_link(growing.id, tip)
            frame = codec.linked(event.value or b"", link)
            tip = Tip(sequence=link.sequence, hash=chain.digest(codec.body(frame)))
            stamped.append(
                Outgoing(topic=event.topic, key=event.key, value=frame, headers=event.headers)
            )
            tips.append(tip)
        return stamped, tips

    def _await(
        self, growing: Chain, events: Sequence[Outgoing], acknowledged: Awaitable[int]
    ) -> _Sent:
        """Follow a queued batch to its end, also when whoever waits for it is cancelled."""
        future = asyncio.ensure_future(acknowledged)
        sent = _Sent(events=events, chain=growing, last=growing.tip, acknowledged=future)
        self._pending.add(future)
        future.add_done_callback(lambda _: self._ended(sent))
        return sent

    def _ended(self, sent: _Sent) -> None:
        self._pending.discard(sent.acknowledged)
        before = sent.chain.open
        first = -1 if sent.failure else sent.acknowledged.result()
        if first < 0:  # refused, or the broker cannot tell where it lies
            sent.chain.break_off()
        else:
            sent.chain.confirm(sent.last, first + len(sent.events) - 1)
        if sent.proved:
            metrics.AUDIT_EVENTS.inc(len(sent.events))
        elif before:
            metrics.AUDIT_CHAIN_BREAKS.inc()
            head = sent.chain.head
            log.warning("audit-chain-broken", chain=head.chain, after=head.tip.sequence)
            self._on_change()


class _Lane:
    """A partition of the audit topic: its chains, of which the last may be open."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.lock = asyncio.Lock()
        self.chains: list[Chain] = []
        self.begun = 0


def _worst(lost: Sequence[_Sent]) -> SluiceError | None:
    """Why events are not proved; an error that a person must end comes first."""
    failures = [each.failure or _BROKEN for each in lost]
    return min(failures, key=lambda failure: isinstance(failure, Retryable), default=None)


_BROKEN: Final = Retryable(
    "an audit chain broke before these events", remedy="They are written again in another"
)
