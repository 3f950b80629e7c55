"""The work as Faust's own documentation has it: `take`, one batch at a time, `send`.

Kafka's settings that decide the cost of an outcome (acks, compression) are
the worker's. `take_events` is `take` that also tells where a message lies.
"""

from __future__ import annotations

import asyncio
from tempfile import TemporaryDirectory
from typing import Any, Final

import faust

from loadtest.bench.contenders import BATCH
from loadtest.bench.peers import stopping
from loadtest.bench.work import Work, open_work
from pipeline.events import Position
from pipeline.settings import Settings

_WITHIN_S: Final = 0.01


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the agent until told to stop."""
    with TemporaryDirectory(prefix="bench-") as folder:
        async with open_work(settings) as work:
            app = _app(settings, folder)
            _add_agent(app, settings, work)
            await app.start()
            await stop.wait()
            await app.stop()


def _app(settings: Settings, folder: str) -> faust.App:
    return faust.App(
        settings.kafka.group,
        broker=f"kafka://{settings.kafka.bootstrap_servers}",
        store="memory://",
        datadir=folder,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_compression_type="zstd",
        web_enabled=False,
    )


def _add_agent(app: faust.App, settings: Settings, work: Work) -> None:
    named = settings.topics
    prompts, verdicts, audits = (
        _raw(app, topic) for topic in (named.prompts, named.verdicts, named.audit)
    )

    @app.agent(prompts)  # type: ignore[untyped-decorator]
    async def moderate(stream: Any) -> None:
        """Judge what came; the batch is acknowledged when the next one is asked for."""
        async for events in stream.take_events(BATCH, within=_WITHIN_S):
            cases = [_admit(work, event.message) for event in events]
            sent = []
            for verdict, audit in await work.judge(cases):
                for topic, outcome in ((verdicts, verdict), (audits, audit)):
                    given = {"key": outcome.key, "value": outcome.value}
                    sent.append(await topic.send(**given, headers=list(outcome.headers)))
            await asyncio.gather(*sent)


def _admit(work: Work, message: Any) -> Any:
    at = Position(topic=message.topic, partition=message.partition, offset=message.offset)
    return work.desk.admit(message.value, at, tuple(message.headers or ()))


def _raw(app: faust.App, topic: str) -> Any:
    return app.topic(
        topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )


if __name__ == "__main__":
    stopping.main(run)
