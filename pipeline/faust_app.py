"""The Faust app: membership, fetching, flow control and commits; nothing else.

The flow owns batching, ordered acknowledgement and drain (pipeline/DESIGN.md
says which of Faust's own ways lose messages).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import faust
from faust.exceptions import ConsumerNotStarted
from faust.types.auth import CredentialsT
from faust.types.tuples import TP

from pipeline import lean_consumer, metrics
from pipeline.health import Health
from pipeline.settings import KafkaSettings
from pipeline.stream import Flow


class SluiceApp(faust.App):  # type: ignore[misc]  # faust has no complete types
    """A Faust app that drains its flow before partitions leave it."""

    flow: Flow
    health: Health
    _draining: asyncio.Task[None] | None = None

    def on_rebalance_start(self) -> None:
        """Start draining: the only early notice."""
        super().on_rebalance_start()
        self.health.set("partitions", ok=False, detail="rebalancing")
        self._draining = asyncio.ensure_future(self.flow.drain())

    async def resume(self) -> None:
        """Take messages of the new assignment, once the old one is drained."""
        if self._draining is not None:
            await self._draining
            self._draining = None
        metrics.LAG_MESSAGES.clear()  # what went to another worker is no lag of this one
        self.flow.resume()

    def on_rebalance_end(self) -> None:
        """Every partition is being read, from where the group goes on: only now it is ready."""
        super().on_rebalance_end()
        assigned = len(self.consumer.assignment())
        self.health.set("partitions", ok=True, detail=f"{assigned} partitions assigned")

    async def on_stop(self) -> None:
        """Drain within the deadline, then let Faust commit and leave the group."""
        await self.flow.drain()
        await super().on_stop()

    def measure_lag(self) -> None:
        """Set the lag gauges from what the consumer last heard of the log's end.

        An app says it is started a moment before its consumer is; until then
        there is no lag to measure.
        """
        with suppress(ConsumerNotStarted):
            self._measure_assigned()

    def _measure_assigned(self) -> None:
        for tp in self.consumer.assignment():
            behind = self._behind(tp)
            if behind is not None:
                metrics.LAG_MESSAGES.labels(tp.topic, tp.partition).set(behind)

    def _behind(self, tp: TP) -> int | None:
        end = self.consumer.highwater(tp)
        position = self.consumer._committed_offset.get(tp)
        if position is None:  # a group's first messages: it lags although nothing is committed
            position = self.flow.ledger.head(tp.topic, tp.partition)
        return None if end is None or position is None else max(0, end - position)


def create(settings: KafkaSettings, *, data: Path, health: Health) -> SluiceApp:
    """The app for a consumer group; agents are added by `stream.add_agents`."""
    app = SluiceApp(
        settings.group,
        broker=list(_urls(settings)),
        broker_credentials=_credentials(settings),
        store="memory://",
        datadir=str(data),
        # The group protocol depends on it: 0 from the first day, or no rolling deploy.
        table_standby_replicas=0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        # False would acknowledge what is in flight when a stream is cancelled.
        stream_wait_empty=True,
        stream_buffer_maxsize=1024,
        broker_commit_interval=settings.commit_interval_s,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_request_timeout=settings.request_timeout_s,
        broker_max_poll_records=500,
        consumer_auto_offset_reset=settings.start_from,
        consumer_group_instance_id=settings.instance_id,
        consumer_max_fetch_size=4 * 1024 * 1024,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.health = health

    @app.on_partitions_assigned.connect(weak=False)  # type: ignore[untyped-decorator]
    async def assigned(*_: Any, **_more: Any) -> None:
        """Faust's public word that an assignment is in force."""
        await app.resume()

    return app


def _urls(settings: KafkaSettings) -> Iterator[str]:
    for server in settings.bootstrap_servers.split(","):
        yield f"{lean_consumer.SCHEME}://{server.strip()}"


def _credentials(settings: KafkaSettings) -> CredentialsT | None:
    context = None
    if settings.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(
            cafile=str(settings.ca_file) if settings.ca_file else None
        )
    if settings.security_protocol.startswith("SASL") and settings.password:
        return faust.SASLCredentials(
            mechanism=settings.sasl_mechanism,
            username=settings.username,
            password=settings.password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None
