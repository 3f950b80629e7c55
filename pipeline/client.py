"""The client for programs: publish, await the verdict, iterate verdicts.

    async with Client("127.0.0.1:9092") as client:
        verdict = await client.moderate(client.prompt("How do I bake bread?"))
        async for verdict in client.verdicts():
            ...

It needs Kafka only: no Triton and no consumer group. Verdicts and dead
letters are watched from the offsets where their topics ended when the client
was opened; partitions that are added later are not seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from pipeline import codec, headers, schema_ids
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader, Record
from pipeline.answers import Answers, Wait
from pipeline.dedupe import Deduplicator
from pipeline.envelope import Envelope, Wire, completion, prompt
from pipeline.errors import (
    DeadLettered,
    DependencyUnavailable,
    Misconfigured,
    Rejected,
    SluiceError,
    Unanswered,
)
from pipeline.events import DeadLetter, Kind, Message, Position, Verdict
from pipeline.headers import Headers
from pipeline.ports import Outgoing
from pipeline.ranges import Edge, Range
from pipeline.resources import shipped
from pipeline.settings import Settings, load

__all__ = ["Client", "Unacknowledged", "completion", "prompt"]

_log: Final = logging.getLogger(__name__)


class Unacknowledged(Unanswered):
    """Nor did Kafka acknowledge the message in time: whether it is published is not known."""


class Client:
    """Publishes messages and finds their verdicts; an async context manager."""

    prompt = staticmethod(prompt)
    completion = staticmethod(completion)

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        watch: bool = True,
        wire: Wire = "avro",
        source: str = "sluice/client",
    ) -> None:
        """Describe the client; nothing is connected before `async with`.

        `settings` is an address (`host:port`), settings, or None for those
        in force. Without `watch` it only publishes and reads ranges.
        `source` is the CloudEvents source of what it publishes. Raises
        Misconfigured when a setting is wrong.
        """
        if isinstance(settings, str):
            settings = load({"kafka": {"bootstrap_servers": settings}})
        self._settings = settings or load()
        self._schemas = codec.load_schemas(shipped("schemas"))
        self._adopted = False
        self.passed_over = 0
        self._watched = watch
        self._answers = Answers()
        self._watching: asyncio.Task[None] | None = None
        self._ends: dict[tuple[str, int], int] = {}
        self._stack = AsyncExitStack()
        topics = self._settings.topics
        self._open: KafkaPublisher | None = None
        self._inputs = {Kind.PROMPT: topics.prompts, Kind.COMPLETION: topics.completions}
        self._envelope = Envelope(
            self._inputs,
            self._schemas,
            wire=wire,
            source=source,
            max_bytes=topics.max_message_bytes,
        )

    async def __aenter__(self) -> Self:
        """Connect; raises DependencyUnavailable or Misconfigured (a topic is missing)."""
        await self._adopt()
        async with AsyncExitStack() as stack:
            max_bytes = self._settings.topics.max_message_bytes
            self._open = await stack.enter_async_context(
                KafkaPublisher(self._settings.kafka, max_message_bytes=max_bytes)
            )
            if self._watched:
                reader = await stack.enter_async_context(KafkaReader(self._settings.kafka))
                topics = self._settings.topics
                for topic in (topics.verdicts, topics.dead_letters):
                    self._ends |= await reader.starts(topic, Edge.END)
                self._watching = asyncio.create_task(self._watch(reader))
                stack.push_async_callback(self._stop_watching)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flush what was sent, then close; waits that are left end with an error."""
        self._answers.fail(
            Misconfigured("the client is closed", remedy="Await verdicts inside `async with`")
        )
        await self._stack.aclose()

    async def _adopt(self) -> None:
        """Read and write under a configured registry's ids, asked for once."""
        if not self._adopted:
            await schema_ids.adopt(self._schemas, self._settings)
            self._adopted = True

    @property
    def _publisher(self) -> KafkaPublisher:
        if self._open is None:
            raise Misconfigured("the client is not open", remedy="Use `async with Client(...)`")
        return self._open

    # Publishing ---------------------------------------------------------------

    async def publish(self, message: Message, *, headers: Headers = ()) -> Position:
        """Publish a message; return its position, as text its verdict's id.

        `sent_at` is stamped when None. Trace context in `headers`, else that
        of the current span, travels with it. Raises Rejected when it cannot
        be encoded or is too large for Kafka, else as `Publisher.publish`.
        """
        return await (await self.send(message, headers=headers))

    async def send(self, message: Message, *, headers: Headers = ()) -> asyncio.Future[Position]:
        """Queue a message in order; the future ends when it is acknowledged.

        For streams: waits while Kafka's buffer is full. See `publish`.
        """
        return await self._publisher.send(self._envelope.around(message, headers))

    async def publish_raw(
        self, kind: Kind, value: bytes | None, *, key: bytes | None, headers: Headers = ()
    ) -> Position:
        """Publish bytes as they are to the topic of a kind: for other formats, and tests."""
        if value is None and key is None:
            raise Misconfigured("a record without value needs a key", remedy="Give it a key")
        record = Outgoing(topic=self._inputs[kind], key=key, value=value, headers=headers)
        return await (await self._publisher.send(record))

    async def moderate(
        self, message: Message, *, timeout_s: float = 30.0, headers: Headers = ()
    ) -> Verdict:
        """Publish a message and return its verdict.

        Raises DeadLettered when it became a dead letter, and Unanswered when
        neither came within `timeout_s`: it stays published, its verdict may
        still come. It is Unacknowledged where Kafka did not even say that it
        has the message.
        """
        return await (await self.submit(message, timeout_s=timeout_s, headers=headers))

    async def submit(
        self, message: Message, *, timeout_s: float = 30.0, headers: Headers = ()
    ) -> asyncio.Task[Verdict]:
        """Queue a message in order; the task ends as `moderate` does."""
        if not self._watched:
            raise Misconfigured("this client does not watch verdicts", remedy="Use Client(...)")
        record = self._envelope.around(message, headers)
        wait = self._answers.open(message.message_id)
        try:
            acknowledged = await self._publisher.send(record)
        except BaseException:
            self._answers.close(wait)
            raise
        return asyncio.create_task(self._answered(wait, acknowledged, timeout_s))

    async def _answered(
        self, wait: Wait, acknowledged: asyncio.Future[Position], timeout_s: float
    ) -> Verdict:
        try:
            async with asyncio.timeout(timeout_s):
                self._answers.place(wait, await acknowledged)
                answer = await wait.answer
        except TimeoutError:
            raise _unanswered(wait, timeout_s) from None
        finally:
            self._answers.close(wait)
        if isinstance(answer, DeadLetter):
            raise DeadLettered(answer.reason, answer.detail)
        return answer

    # Reading ------------------------------------------------------------------

    async def verdicts(
        self,
        span: Range | None = None,
        *,
        follow: bool = False,
        dedupe: Deduplicator | None = None,
    ) -> AsyncIterator[Verdict]:
        """Verdicts without repeats, in order within a partition.

        Without a range: for ever, from where the topic ended when the client
        was opened (without `watch`: at the first step). With one: what it
        holds now, or with `follow` from its start on for ever. Give a
        `dedupe` of your own to read its count. A record that is no verdict, or
        of a schema that is not known, is logged, passed over and counted in
        `passed_over`. It needs no `async with` of the client.
        """
        await self._adopt()
        async with KafkaReader(self._settings.kafka) as reader:
            seen = Deduplicator() if dedupe is None else dedupe
            async for record in await self._records(reader, span, follow=follow):
                verdict = self._verdict(record)
                if verdict is None:
                    self.passed_over += 1
                elif seen.is_new(verdict.source):
                    yield verdict

    async def _records(
        self, reader: KafkaReader, span: Range | None, *, follow: bool
    ) -> AsyncIterator[Record]:
        topic = self._settings.topics.verdicts
        if span is None:
            own = {at: offset for at, offset in self._ends.items() if at[0] == topic}
            return reader.follow(own or await reader.starts(topic, Edge.END))
        if follow:
            return reader.follow(await reader.starts(topic, span.start))
        return reader.read(topic, await reader.within(topic, span))

    async def _watch(self, reader: KafkaReader) -> None:
        """Hand each new verdict and dead letter to whoever waits for it."""
        try:
            async for record in reader.follow(self._ends):
                if self._answers.waiting:
                    self._deliver(record)
        except SluiceError as error:
            self._answers.fail(error)
        except Exception as error:  # aiokafka's own: every wait must learn of it, not hang
            self._answers.fail(
                DependencyUnavailable(
                    f"reading verdicts from Kafka failed ({type(error).__name__})",
                    remedy="Open a new client",
                )
            )

    def _deliver(self, record: Record) -> None:
        if record.topic == self._settings.topics.dead_letters:
            if letter := _dead_letter(record):
                self._answers.deliver(
                    letter.position, headers.first(record.headers, headers.CE_ID), letter
                )
        elif verdict := self._verdict(record):
            self._answers.deliver(verdict.source, verdict.message_id, verdict)

    def _verdict(self, record: Record) -> Verdict | None:
        try:
            return codec.decode_verdict(record.value or b"", self._schemas)
        except Rejected as error:
            _pass_over(record, str(error))
            return None

    async def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)


def _dead_letter(record: Record) -> DeadLetter | None:
    try:
        return headers.dead_letter(key=record.key, value=record.value, headers=record.headers)
    except ValueError as error:
        _pass_over(record, str(error))
        return None


def _pass_over(record: Record, why: str) -> None:
    at = f"{record.topic}:{record.partition}:{record.offset}"
    _log.warning("record passed over: %s: %s", at, why)


def _unanswered(wait: Wait, timeout_s: float) -> Unanswered:
    kind = Unanswered if wait.position else Unacknowledged
    where = f" ({wait.position})" if wait.position else ", nor was it acknowledged"
    return kind(
        f"message {wait.message_id!r} has no verdict after {timeout_s:g} s{where}",
        remedy="See that a worker runs: `sluice doctor`; its verdict may still come",
    )
