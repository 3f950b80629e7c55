"""Specification of Faust's Kafka client in the worker's loop: begun, asked and ended there."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from mode.utils.trees import Node

from pipeline.lean_client import LeanClient


class _Kafka:
    """aiokafka's consumer as far as its life goes; it notes in which loop it lives."""

    _max_poll_records = 500
    _closed = False

    def __init__(self, *, fails: Exception | None = None) -> None:
        self.fails = fails
        self.loops: list[Any] = []
        self.stopped = False
        self._fetcher = self
        self._subscriptions = SimpleNamespace(fetch_context=_Context)

    async def start(self) -> None:
        """Connect, or not."""
        self.loops.append(asyncio.get_running_loop())
        if self.fails:
            raise self.fails

    async def stop(self) -> None:
        """Leave the group."""
        self.stopped = True

    async def fetched_records(self, active: Any, *, timeout: float, max_records: int) -> Any:  # noqa: ASYNC109
        """What was asked for."""
        self.loops.append(asyncio.get_running_loop())
        return {"asked": (active, timeout, max_records)}


class _Context:
    def __enter__(self) -> None:
        """Nothing to note."""

    def __exit__(self, *_: object) -> None:
        """Nor then."""


class _Client(LeanClient):
    """A client of that Kafka."""

    def __init__(self, kafka: _Kafka) -> None:
        conf = SimpleNamespace(
            producer_partitioner=None,
            stream_processing_timeout=1.0,
            broker_commit_livelock_soft_timeout=1.0,
        )
        app = SimpleNamespace(conf=conf)
        self.kafka = kafka
        consumer = SimpleNamespace(
            app=app,
            transport=SimpleNamespace(app=app),
            loop=asyncio.get_running_loop(),
            beacon=Node("test"),
            flow_active=True,
            RebalanceListener=lambda _: None,
        )
        super().__init__(consumer)

    def _create_consumer(self, loop: Any) -> Any:
        return self.kafka


async def test_it_lives_in_the_loop_of_whoever_starts_it() -> None:
    """It connects, fetches and leaves there, and takes none of the loop's tasks along."""
    kafka = _Kafka()
    other = asyncio.create_task(asyncio.sleep(60))
    client = _Client(kafka)
    await client.start()
    assert await client.getmany({"a partition"}, 0.5) == {"asked": ({"a partition"}, 0.5, 500)}
    assert await client.call_thread(asyncio.sleep, 0, "told") == "told"
    await client.stop()
    assert kafka.loops == [asyncio.get_running_loop()] * 2
    assert kafka.stopped
    assert not other.done()
    other.cancel()


async def test_a_client_that_cannot_connect_says_so_to_whoever_starts_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The worker ends with that error, as it does with Faust's thread."""
    client = _Client(_Kafka(fails=OSError("no broker")))
    with pytest.raises(OSError, match="no broker"):
        await client.start()
    assert "crashed: OSError('no broker')" in capsys.readouterr().err
    assert client.kafka.stopped


async def test_a_fetch_that_is_cancelled_ends() -> None:
    """Faust cancels the one under way when a rebalance begins."""
    kafka = _Kafka()
    client = _Client(kafka)
    await client.start()
    gate = asyncio.Event()
    kafka.fetched_records = lambda *_, **__: gate.wait()  # type: ignore[method-assign,assignment]
    fetch = asyncio.create_task(client.getmany(set(), 9.0))
    await asyncio.sleep(0)
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    await client.stop()
