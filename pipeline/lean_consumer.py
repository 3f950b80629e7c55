"""Faust's Kafka consumer, without four tasks for every message it fetches.

Faust hands each message to its channel inside `wait_first`, which makes and
cancels four tasks, so that a hand-over that blocks cannot hold up a
rebalance. Here a hand-over that cannot block is awaited as it is; one that
may goes Faust's way. And where every partition is paused because buffers are
full, Faust sleeps a second before it looks again; here it is 10 ms. A fetch
may wait for new messages 1.5 s in Faust, during which a partition that was
resumed gets none, because a broker serves one fetch at a time; here 100 ms.

It overrides what Faust's own fetch loop calls, in the pinned
release; `tests/unit/test_lean_consumer.py` fails when that loop changes.
"""

from __future__ import annotations

from typing import Any, Final

from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

SCHEME: Final = "sluice"
"""The scheme of broker addresses that this transport serves."""

PAUSED_S: Final = 0.01
FETCH_WAIT_MS: Final = 100
_FAUSTS_PAUSE_S: Final = 1
_HAND_OVER: Final = "on_message"


class LeanThread(AIOKafkaConsumerThread):  # type: ignore[misc]  # faust has no complete types
    """The thread that fetches; a fetch that finds nothing ends in time."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust's client, which is not started yet, with a shorter long poll."""
        client = super()._create_worker_consumer(transport)
        client._fetch_max_wait_ms = FETCH_WAIT_MS
        return client


class LeanConsumer(Consumer):  # type: ignore[misc]
    """A consumer whose hand-over makes tasks only where it may block."""

    def _new_consumer_thread(self) -> LeanThread:
        return LeanThread(self, loop=self.loop, beacon=self.beacon)

    def getmany(self, timeout: float) -> Any:
        """As Faust's; while buffers are full, it looks again soon for what drained."""
        return super().getmany(timeout=PAUSED_S if self._buffered_partitions else timeout)

    async def wait_first(self, *waiting: Any, **options: Any) -> Any:
        """Await a hand-over that cannot block; leave everything else to Faust."""
        if not (len(waiting) == 2 and _is_hand_over(waiting[0]) and self._has_room()):
            return await super().wait_first(*waiting, **options)
        hand_over, suspended = waiting
        suspended.close()
        return await hand_over

    async def sleep(self, n: float, **options: Any) -> None:
        """Sleep; Faust's pause for full buffers is cut short."""
        await super().sleep(PAUSED_S if n == _FAUSTS_PAUSE_S else n, **options)

    def _has_room(self) -> bool:
        """True when the flow is on and every channel can take a message."""
        app = self.app
        return (
            self.flow_active
            and app.flow_control.is_active()
            and not any(topic.queue.full() for topic in app.topics)
        )


class LeanTransport(Transport):  # type: ignore[misc]
    """Kafka as Faust speaks it, with the lean consumer."""

    Consumer = LeanConsumer


def _is_hand_over(waiting: Any) -> bool:
    code = getattr(waiting, "cr_code", None)
    return getattr(code, "co_name", None) == _HAND_OVER


TRANSPORTS.aliases[SCHEME] = f"{__name__}:LeanTransport"
