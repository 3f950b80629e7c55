"""Faust's Kafka client in the worker's own loop, with fetches that end in time.

Faust runs aiokafka's consumer in a thread with a loop of its own, so that it
beats while a stream computes. Our flow computes nothing for long, and two threads
take turns: each fetch changed between them twice, with thousands of waits for the
interpreter's lock a second. In one loop a worker whose loop hangs also leaves its
group, where the thread would have kept its partitions from everybody.

A fetch may wait for new messages 1.5 s in Faust, during which a partition that was
resumed gets none, because a broker serves one fetch at a time; here 100 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

FETCH_WAIT_MS: Final = 100
GATHER_BYTES: Final = 32 * 1024
"""A broker that holds this much answers without gathering more."""


class _Task:
    """Stands where Faust starts a thread: its service runs as a task of this loop."""

    def __init__(self, service: LeanClient) -> None:
        self._service = service
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Serve until it is stopped; what ends it early, the service tells by itself."""
        self._serving = asyncio.get_running_loop().create_task(self._service._serve())
        self._serving.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def stop(self) -> None:
        """Nothing: who stops the service has waited for its end."""


class LeanClient(AIOKafkaConsumerThread):  # type: ignore[misc]  # faust has no complete types
    """What Faust knows as the consumer's thread, without being one."""

    Worker = _Task

    def __init__(self, consumer: Any) -> None:
        super().__init__(
            consumer, loop=consumer.loop, thread_loop=consumer.loop, beacon=consumer.beacon
        )

    async def _gather_remaining_tasks(self) -> None:
        """Cancel nothing: what else runs in this loop is the worker's."""

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109
        """What was fetched of these partitions; waits for the first of it, in seconds."""
        client = self._ensure_consumer()
        return await self._fetch_records(
            client, active_partitions, timeout=timeout, max_records=client._max_poll_records
        )

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust's client, which is not started yet, with a shorter long poll."""
        client = super()._create_worker_consumer(transport)
        client._fetch_max_wait_ms = FETCH_WAIT_MS
        return client

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Go to where the group goes on in each partition; the offsets, none of them None.

        aiokafka leaves a partition without a commit, or with one at 0, where the last fetch
        ended. A fetch that a rebalance overtook may have moved it, and what that returned
        was let go of: it would never be judged, and the next commit would pass it.
        """
        offsets: Mapping[Any, int] = await self.call_thread(self._go_back)
        return offsets

    async def _go_back(self) -> Mapping[Any, int]:
        client = self._ensure_consumer()
        committed: Mapping[Any, int] = await client.seek_to_committed()
        begun = await self._begin([tp for tp, offset in committed.items() if offset is None])
        offsets = {**committed, **begun}
        for tp, offset in offsets.items():
            if not committed[tp]:
                client.seek(tp, offset)
        return offsets

    async def _begin(self, unknown: Sequence[Any]) -> dict[Any, int]:
        """Where to begin in partitions that the group never committed.

        Committed at once: a crash or a rebalance before the first acknowledgement
        must not begin later, as the end of the log does.
        """
        if not unknown:
            return {}
        client = self._ensure_consumer()
        at_end = self.app.conf.consumer_auto_offset_reset == "latest"
        starts = await (client.end_offsets if at_end else client.beginning_offsets)(unknown)
        try:
            await client.commit(starts)
        except Exception as error:  # whatever the client says: the next assignment commits it
            self.log.warning("cannot commit where partitions begin: %r", error)
        return dict(starts)

    def gather(self, for_s: float) -> None:
        """How long the next fetches let messages gather; 0 to have the first at once."""
        fetcher = self._ensure_consumer()._fetcher
        wait_ms = round(1000 * for_s)
        least_bytes, wait_ms = (GATHER_BYTES, wait_ms) if wait_ms else (1, FETCH_WAIT_MS)
        fetcher._fetch_min_bytes = least_bytes
        fetcher._fetch_max_wait_ms = wait_ms

    def looked(self) -> None:
        """Tell the client that we looked for messages although we asked for none.

        A client whose partitions are all paused sees no fetch. After
        `max.poll.interval` (KIP-62) it leaves the group, and it waits for a fetch before
        it joins again, for which we would wait until it has joined.
        """
        with self._ensure_consumer()._subscription.fetch_context():
            pass
