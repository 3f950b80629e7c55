"""A place of a test's own: topics, a group, workers, and what came of it all."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.error
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import stamina
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client.parser import text_string_to_metric_families

from pipeline import codec, headers, wiring
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader, Record, security
from pipeline.adapters.kafka_topics import ROLES, create_topics
from pipeline.embedded.loopback import free_ports
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.errors import Retryable
from pipeline.events import AuditEvent, DeadLetter, Kind, Message, Position, Verdict
from pipeline.headers import Headers
from pipeline.ports import Outgoing
from pipeline.reconcile import Reconciliation
from pipeline.settings import Settings, load
from tests.support import traffic

MARKER = "quokkaberry"
"""A word in every text of these tests; it must never stand in a log."""

Opening = AbstractAsyncContextManager["Place"]
SCHEMAS = wiring.load_schemas()
JSON: Headers = (("content-type", b"application/json"),)
_WORKER = {
    "SLUICE_KAFKA__SESSION_TIMEOUT_S": "3",
    "SLUICE_KAFKA__HEARTBEAT_S": "1",
    "SLUICE_WORKER__DRAIN_S": "3",
    "SLUICE_TELEMETRY__LOG_FORMAT": "json",
    # A text that a test repeats is to reach the guard; tests of the cache turn it on.
    "SLUICE_GUARDS__CACHE_ENTRIES": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a worker's health server answered."""

    status: int
    body: bytes

    @property
    def checks(self) -> Any:
        """The `checks` of `/readyz` and `/livez`."""
        return orjson.loads(self.body)["checks"]


class Place:
    """Topics and a group of its own on a shared broker and server."""

    def __init__(self, settings: Settings, folder: Path, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.workers: list[EmbeddedWorker] = []
        self._folder = folder
        self._environ = dict(environ)

    # What goes in ------------------------------------------------------------

    def record(self, text: str, *, kind: Kind = Kind.PROMPT, **fields: Any) -> Outgoing:
        """An Avro message whose text ends with the marker; `headers` and `key` as on the wire."""
        given = {"headers": (), "key": None} | {
            name: fields.pop(name) for name in ("headers", "key") if name in fields
        }
        whole = {"message_id": f"m-{uuid.uuid4().hex[:8]}", "text": f"{text} {MARKER}"} | fields
        value = codec.encode_message(Message(kind=kind, **whole), SCHEMAS)
        return Outgoing(topic=self.topic(kind), value=value, **given)

    def raw(
        self, value: bytes | None, *, kind: Kind = Kind.PROMPT, key: bytes | None = b"k",
        headers: Headers = (),
    ) -> Outgoing:  # fmt: skip
        """Bytes for an input topic."""
        return Outgoing(topic=self.topic(kind), key=key, value=value, headers=headers)

    def topic(self, kind: Kind) -> str:
        """The input topic of a kind."""
        named = self.settings.topics
        return named.prompts if kind is Kind.PROMPT else named.completions

    async def publish(self, records: Iterable[Outgoing]) -> list[Position]:
        """Publish in order; returns where each record lies."""
        limit = self.settings.topics.max_message_bytes
        async with KafkaPublisher(self.settings.kafka, max_message_bytes=limit) as publisher:
            sent = [await publisher.send(record) for record in records]
            return list(await asyncio.gather(*sent))

    async def publish_through(self, records: Sequence[Outgoing]) -> None:
        """Publish until acknowledged, however often the broker goes away; may repeat records."""
        async for attempt in stamina.retry_context(on=Retryable, attempts=None, timeout=60.0):
            with attempt:
                await self.publish(records)

    async def texts(self, *texts: str, **fields: Any) -> list[Position]:
        """Publish prompts."""
        return await self.publish([self.record(text, **fields) for text in texts])

    # Workers -----------------------------------------------------------------

    def worker(self, *, port: int = 0, **variables: str) -> EmbeddedWorker:
        """One more worker, not yet started; `variables` are settings, port 0 is any."""
        number = len(self.workers) + 1
        worker = EmbeddedWorker(
            f"worker-{number}",
            port=port or free_ports(1)[0],
            log=self._folder / f"worker-{number}-{uuid.uuid4().hex[:6]}.log",
            environ={**self._environ, **variables},
        )
        self.workers.append(worker)
        return worker

    async def start_worker(self, **variables: str) -> EmbeddedWorker:
        """One more worker, ready."""
        worker = self.worker(**variables)
        await worker.start()
        return worker

    async def stop(self) -> None:
        """Stop every worker, also one that is stopped by a signal."""
        for worker in self.workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGCONT)
        await asyncio.gather(*(worker.stop() for worker in self.workers))

    # What comes out ----------------------------------------------------------

    async def read(self, topic: str) -> list[Record]:
        """Everything a topic holds."""
        async with KafkaReader(self.settings.kafka) as reader:
            return [record async for record in reader.read(topic, await reader.bounds(topic))]

    async def verdicts(self) -> list[Verdict]:
        """Every verdict."""
        records = await self.read(self.settings.topics.verdicts)
        return [codec.decode_verdict(record.value or b"", SCHEMAS) for record in records]

    async def audits(self) -> list[AuditEvent]:
        """Every audit event."""
        records = await self.read(self.settings.topics.audit)
        return [codec.decode_audit(record.value or b"", SCHEMAS) for record in records]

    async def letters(self) -> list[DeadLetter]:
        """Every dead letter."""
        return [
            headers.dead_letter(key=record.key, value=record.value, headers=record.headers)
            for record in await self.read(self.settings.topics.dead_letters)
        ]

    async def outcomes(self) -> dict[Position, list[Verdict | DeadLetter]]:
        """What became of each input, by its position."""
        found: dict[Position, list[Verdict | DeadLetter]] = defaultdict(list)
        for verdict in await self.verdicts():
            found[verdict.source].append(verdict)
        for letter in await self.letters():
            found[letter.position].append(letter)
        return found

    async def settled(
        self, positions: Sequence[Position], *, within_s: float = 30.0
    ) -> dict[Position, list[Verdict | DeadLetter]]:
        """The outcomes, once each of these inputs has one; fails at the deadline."""
        found: dict[Position, list[Verdict | DeadLetter]] = {}

        async def all_there() -> bool:
            found.clear()
            found.update(await self.outcomes())
            return set(positions) <= set(found)

        await until(all_there, f"outcomes of {len(positions)} inputs", within_s=within_s)
        return found

    async def reconciled(self, *, within_s: float = 30.0) -> Reconciliation:
        """The balance, once no input is without outcome and all offsets are committed."""
        report = await traffic.settled(self.settings, within_s=within_s)
        assert report.balanced, report
        await until(self._all_committed, "commits up to the end", within_s=10.0)
        return report

    async def committed(self) -> dict[tuple[str, int], int]:
        """The group's committed offsets of both input topics."""
        async with KafkaReader(self.settings.kafka) as reader:
            return {
                (topic, partition): offset
                for topic in map(self.topic, Kind)
                for partition, offset in (
                    await reader.committed(self.settings.kafka.group, topic)
                ).items()
            }

    async def no_commit_ahead(self) -> None:
        """Assert that every input before a committed offset has an outcome."""
        committed = await self.committed()  # read first: outcomes must be there before
        settled = await self.outcomes()
        for (topic, partition), end in committed.items():
            for offset in range(end):
                at = Position(topic=topic, partition=partition, offset=offset)
                assert at in settled, f"{at} is committed (< {end}) without an outcome"

    async def _all_committed(self) -> bool:
        async with KafkaReader(self.settings.kafka) as reader:
            ends = {
                (topic, part.partition): part.end
                for topic in map(self.topic, Kind)
                for part in await reader.bounds(topic)
                if part.end
            }
        return ends.items() <= (await self.committed()).items()


@asynccontextmanager
async def open_place(
    folder: Path, *, kafka: str, triton: str, repository: Path, **variables: str
) -> AsyncIterator[Place]:
    """A place whose workers are gone at the end, and whose logs hold no message text."""
    own = uuid.uuid4().hex[:8]
    given: dict[str, dict[str, Any]] = {
        "kafka": {"bootstrap_servers": kafka, "group": f"group-{own}"},
        "topics": {role: f"{role}-{own}" for role in ROLES} | {"partitions": 2},
        "triton": {"url": triton},
        "guards": {"repository": str(repository), "names": ["tiny"]},
    }
    settings = load(given)
    await create_topics(settings.kafka, settings.topics)
    place = Place(settings, folder, {**os.environ, **_WORKER, **as_variables(given), **variables})
    try:
        yield place
    finally:
        await place.stop()
    for worker in place.workers:
        assert MARKER not in worker.log.read_text(errors="replace")


async def delete_topic(settings: Settings, name: str) -> None:
    """Delete a topic, as an operator would by mistake."""
    admin = AIOKafkaAdminClient(**security(settings.kafka))
    await admin.start()
    try:
        await admin.delete_topics([name])
    finally:
        await admin.close()


def as_variables(given: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Settings as the environment variables that say the same."""
    return {
        f"SLUICE_{section}__{key}".upper(): value
        if isinstance(value, str)
        else orjson.dumps(value).decode()
        for section, keys in given.items()
        for key, value in keys.items()
    }


async def until(holds: Callable[[], Awaitable[bool]], what: str, *, within_s: float = 20.0) -> None:
    """Return once it holds; fails at the deadline, saying what did not come."""
    deadline_s = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < deadline_s, f"no {what} within {within_s:g} s"
        await asyncio.sleep(0.1)


async def ended(worker: EmbeddedWorker, *, within_s: float) -> int:
    """The exit status of a worker that ends by itself in time."""

    async def gone() -> bool:
        return worker.status is not None

    await until(gone, f"end of {worker.log.name}", within_s=within_s)
    return worker.status or 0


async def get(worker: EmbeddedWorker, path: str) -> Page:
    """What its health server answers."""

    def ask() -> Page:
        try:
            with urllib.request.urlopen(f"http://{worker.address}{path}", timeout=5) as answer:
                return Page(status=answer.status, body=answer.read())
        except urllib.error.HTTPError as error:
            return Page(status=error.code, body=error.read())

    return await asyncio.to_thread(ask)


async def metric(worker: EmbeddedWorker, name: str) -> dict[tuple[str, ...], float]:
    """A metric's samples by the values of its labels in the order of their names; no zeroes."""
    page = (await get(worker, "/metrics")).body.decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and sample.value
    }
